"""`Dynamics`: the user's right-hand side and its vector-Jacobian product, validated and compiled once."""

from __future__ import annotations

from collections.abc import Callable

from adjode.callbacks import Callback, callback
from adjode.calls import PORTABLE, fused_calls
from adjode.fingerprint import fingerprint


class Dynamics:
    """An ordinary differential equation `du/dt = f(t, u, theta)` with its hand-written pullback.

    Parameters
    ----------
    f : callable
        `f(t, u, theta, du)` overwrites `du` (n,), or `f(t, u, theta)` returns it.
    vjp : callable
        `vjp(t, u, theta, lam, u_bar, theta_bar)` overwrites `u_bar = (df/du)^T lam` (n,) and
        `theta_bar = (df/dtheta)^T lam` (m,), or `vjp(t, u, theta, lam)` returns the two.
    vjp_u : callable, optional
        `vjp_u(t, u, theta, lam, u_bar)`, or `vjp_u(t, u, theta, lam)` returning `u_bar`: the first half alone, used wherever
        theta_bar is not wanted.
    name : str, optional
        Shown in reprs; the name of `f` by default.
    fused : bool
        Compile each pass for these callbacks, the method and the numbers of states and parameters: the callbacks are inlined, the
        stages are straight code, and small arrays lie on the stack, where otherwise one compiled pass serves all problems and calls
        through addresses. For small systems that are solved many times. Each pass takes a while to compile, once for each method
        and size: the result is kept on disk under a hash of the callbacks' code, the constants they capture, the method and the
        sizes, so that a later process compiles nothing.
    debug : bool
        Check every array access of the callbacks for bounds, and that they leave their inputs alone. Slower; for finding errors.

    Raises
    ------
    TypeError
        If a callback takes the wrong number of arguments or Numba cannot compile it.

    Notes
    -----
    Callbacks may be plain Python functions, which are compiled with `numba.njit`, or already jitted ones. Globals and closure
    variables are compile-time constants, as always with Numba: whatever is to change between solves belongs in `theta`.
    The in-place forms are faster: the out-of-place ones allocate an array at every call.
    """

    def __init__(
        self,
        f: Callable,
        vjp: Callable,
        *,
        vjp_u: Callable | None = None,
        name: str | None = None,
        fused: bool = False,
        debug: bool = False,
    ):
        if fused and debug:
            raise ValueError("fused=True and debug=True exclude each other: check first, then fuse.")
        self._given = (f, vjp, vjp_u, name, fused, debug)
        self.f: Callback = callback("f", f, debug)
        self.vjp: Callback = callback("vjp", vjp, debug)
        self.vjp_u: Callback | None = None if vjp_u is None else callback("vjp_u", vjp_u, debug)
        self.name = name or str(getattr(f, "__name__", "f"))
        self.fused = fused
        self.debug = debug
        given = [part for part in (self.f, self.vjp, self.vjp_u) if part is not None]
        if fused:
            key = fingerprint(*(part.given for part in given))
            self.calls = fused_calls(given, key, lambda: fingerprint(*(part.given for part in given)) == key)
        else:
            self.calls = PORTABLE
        for part in given:
            part.check()

    def __reduce__(self):
        return _rebuild, self._given

    def __repr__(self) -> str:
        parts = [self.name]
        if self.vjp_u is not None:
            parts.append("with vjp_u")
        if self.fused:
            parts.append("fused")
        if self.debug:
            parts.append("debug")
        return f"Dynamics({', '.join(parts)})"


def _rebuild(f: Callable, vjp: Callable, vjp_u: Callable | None, name: str | None, fused: bool, debug: bool) -> Dynamics:
    return Dynamics(f, vjp, vjp_u=vjp_u, name=name, fused=fused, debug=debug)
