"""How kernels call the user's functions: through addresses in the frame, or inlined.

`Calls` holds a kernel for each callback; right-hand sides are made for one `Calls`, so the same sources serve both tiers:

- *portable*: the callback is called through its address. One compiled entry serves every problem.
- *fused*: the user's jitted function is part of the entry, and LLVM inlines it. An entry for each set of callbacks, kept on disk
  under a hash of their content.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from adjode import frame as slots
from adjode.callbacks import Callback
from adjode.frame import Frame, Known, make_local, number_at, opened, vector_at
from adjode.jit import DISABLED, entry, i8, invoke, kernel, linked

_UNROLLED = 8  # states up to which stages are straight code: above, loops over the states are as fast, and compile sooner


@dataclass(frozen=True, eq=False)
class Calls:
    """Kernels that call the user's functions, each returning 0, or 1 if the user's code raised; and the entries that do.

    Attributes
    ----------
    f : (frame, t, u, du)
    vjp : (frame, t, u, lam, u_bar, theta_bar)
    vjp_u : (frame, t, u, lam, u_bar)
    jac : (frame, t, u, J), J a vector of n^2
    key : str or None
        Distinguishes the entries compiled for these calls; "" for the portable tier, None if they cannot be kept on disk.
    fused : bool
    unchanged : callable
        Whether the callbacks still compile to what `key` stands for.
    """

    f: Callable
    vjp: Callable
    vjp_u: Callable
    jac: Callable
    key: str | None
    fused: bool = False
    unchanged: Callable[[], bool] = lambda: True
    _entries: dict = field(default_factory=dict)

    def entry(self, name: str, frame: Frame, make: Callable[[Calls, tuple[int, int] | None], Callable]) -> Callable:
        """The entry called `name` for frames like this one: `entry(frame.argument) -> status`.

        `make(calls, stages)` gives the kernel that it runs. In the fused tier there is an entry for each method and size, and for a
        small system `stages` is (index of the last stage of a step, of its dense output); it is None where they are to be loops.
        """
        found = (name, frame.form if self.fused else b"")
        if found not in self._entries:
            self._entries[found] = self._compile(name, frame, make)
        return self._entries[found]

    def _compile(self, name: str, frame: Frame, make: Callable) -> Callable:
        if not self.unchanged():
            raise ValueError(
                "a global or closure variable of the callbacks has changed since this Dynamics was made: make a new one."
            )
        if not self.fused:
            return entry(_portable_entry(make(self, None)), (i8,), name, self.key)
        known = frame.known()
        setting, key = frame[slots.SETTING], self.key and f"{self.key}-{known.key}"
        stages = None if frame[slots.Y].size > _UNROLLED else (int(setting[slots.LAST_STAGE]), int(setting[slots.TOP]))
        return entry(_fused_entry(make(self, stages), known), (i8,), name, key, inline=True)


def _portable_entry(run: Callable) -> Callable:
    def run_at(address):
        return run(opened(address))

    return run_at


def _fused_entry(run: Callable, known: Known) -> Callable:
    local, give_back = make_local(known)

    def run_at(address):
        frame = opened(address)
        inside = local(frame)
        status = run(inside)
        give_back(frame, inside)
        return status

    return run_at


@kernel
def _f(frame, t, u, du):
    return invoke(number_at(frame, slots.F), t, (u, vector_at(frame, slots.THETA), du))


@kernel
def _vjp(frame, t, u, lam, u_bar, theta_bar):
    return invoke(number_at(frame, slots.VJP), t, (u, vector_at(frame, slots.THETA), lam, u_bar, theta_bar))


@kernel
def _vjp_u(frame, t, u, lam, u_bar):
    return invoke(number_at(frame, slots.VJP_U), t, (u, vector_at(frame, slots.THETA), lam, u_bar))


@kernel
def _jac(frame, t, u, J):
    return invoke(number_at(frame, slots.JAC), t, (u, vector_at(frame, slots.THETA), J))


PORTABLE = Calls(_f, _vjp, _vjp_u, _jac, "")


def fused_calls(callbacks: list[Callback], key: str | None, matches: Callable[[], bool]) -> Calls:
    """Calls with the user's functions (f, vjp, perhaps vjp_u and jac) inlined; `matches` says whether `key` is still theirs."""
    if DISABLED:
        return PORTABLE

    def unchanged() -> bool:  # what is compiled in this process keeps the constants that it was compiled with
        return all(callback.in_place.signatures for callback in callbacks) or matches()

    given = {callback.name: callback.in_place for callback in callbacks}
    vjp_u = _inlined_vjp_u(given["vjp_u"]) if "vjp_u" in given else _vjp_u
    jac = _inlined_f(given["jac"]) if "jac" in given else _jac
    return Calls(_inlined_f(given["f"]), _inlined_vjp(given["vjp"]), vjp_u, jac, key, True, unchanged)


def _inlined_f(function: Callable) -> Callable:
    """Of f, and of jac, which takes as many arrays."""

    @linked
    def guarded(t, u, theta, out):
        try:
            function(t, u, theta, out)
        except Exception:
            return 1
        return 0

    @kernel
    def call(frame, t, u, out):
        return guarded(t, u, vector_at(frame, slots.THETA), out)

    return call


def _inlined_vjp(function: Callable) -> Callable:
    @linked
    def guarded(t, u, theta, lam, u_bar, theta_bar):
        try:
            function(t, u, theta, lam, u_bar, theta_bar)
        except Exception:
            return 1
        return 0

    @kernel
    def call(frame, t, u, lam, u_bar, theta_bar):
        return guarded(t, u, vector_at(frame, slots.THETA), lam, u_bar, theta_bar)

    return call


def _inlined_vjp_u(function: Callable) -> Callable:
    @linked
    def guarded(t, u, theta, lam, u_bar):
        try:
            function(t, u, theta, lam, u_bar)
        except Exception:
            return 1
        return 0

    @kernel
    def call(frame, t, u, lam, u_bar):
        return guarded(t, u, vector_at(frame, slots.THETA), lam, u_bar)

    return call
