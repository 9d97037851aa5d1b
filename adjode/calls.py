"""How kernels call the user's functions: through addresses in the frame, or inlined.

`Calls` holds a kernel for each callback; right-hand sides are made for one `Calls`, so the same sources serve both tiers:

- *portable*: the callback is called through its address. One compiled entry serves every problem.
- *fused*: the user's jitted function is part of the entry, and LLVM inlines it. An entry for each set of callbacks, kept on disk
  under a hash of their content. The kernels import the callbacks by name, so that they are compiled, as far as LLVM's bitcode,
  once for all callbacks; an entry links that bitcode with the callbacks, and is left to LLVM.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from adjode import frame as slots
from adjode.callbacks import KINDS, Callback, guard
from adjode.frame import Frame, Known, make_local, number_at, opened, vector_at
from adjode.jit import DISABLED, call_pass, entry, f8, fused_works, i8, imported, invoke, kernel, linked, outline, vector

UNROLLED = 8  # states up to which stages are straight code: above, loops over the states are as fast, and compile sooner


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
    imports : callable
        In the fused tier, the compiled callbacks by the names that the kernels import.
    """

    f: Callable
    vjp: Callable
    vjp_u: Callable
    jac: Callable
    key: str | None
    fused: bool = False
    unchanged: Callable[[], bool] = lambda: True
    imports: Callable[[], dict[str, Any]] = dict
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
        straight = frame[slots.Y].size <= UNROLLED and not frame.has(slots.EIGENVALUES)  # those of an implicit method
        stages = (int(setting[slots.LAST_STAGE]), int(setting[slots.TOP])) if straight else None
        return entry(_fused_entry(lambda: self.outline(name, make, stages), self.imports, known), (i8,), name, key)

    def outline(self, name: str, make: Callable, stages: tuple[int, int] | None) -> bytes:
        """The bitcode of a pass in the fused tier, which depends on no callbacks."""
        filed = f"{name}-loops" if stages is None else f"{name}-{stages[0]}-{stages[1]}"
        return outline(filed, lambda: make(self, stages))


def _portable_entry(run: Callable) -> Callable:
    def run_at(address):
        return run(opened(address))

    return run_at


def _fused_entry(bitcode: Callable[[], bytes], imports: Callable[[], dict[str, Any]], known: Known) -> Callable:
    local, give_back = make_local(known)
    run = call_pass(bitcode, imports)

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


_IMPORTED = ("f", "vjp", "vjp_u", "jac")
if not DISABLED:
    _imported_f, _imported_vjp, _imported_vjp_u, _imported_jac = (imported(f"adjode.{name}") for name in _IMPORTED)


@kernel
def _fused_f(frame, t, u, du):
    return _imported_f((t, u, vector_at(frame, slots.THETA), du))


@kernel
def _fused_vjp(frame, t, u, lam, u_bar, theta_bar):
    return _imported_vjp((t, u, vector_at(frame, slots.THETA), lam, u_bar, theta_bar))


@kernel
def _fused_vjp_u(frame, t, u, lam, u_bar):
    return _imported_vjp_u((t, u, vector_at(frame, slots.THETA), lam, u_bar))


@kernel
def _fused_jac(frame, t, u, J):
    return _imported_jac((t, u, vector_at(frame, slots.THETA), J))


FUSED = Calls(_fused_f, _fused_vjp, _fused_vjp_u, _fused_jac, "", True)


def fused_calls(callbacks: list[Callback], key: str | None, matches: Callable[[], bool]) -> Calls:
    """Calls with the user's functions (f, vjp, perhaps vjp_u and jac) inlined; `matches` says whether `key` is still theirs."""
    if DISABLED or not fused_works():
        return PORTABLE

    def unchanged() -> bool:  # what is compiled in this process keeps the constants that it was compiled with
        return all(callback.in_place.signatures for callback in callbacks) or matches()

    @functools.cache
    def imports() -> dict[str, Any]:
        given = {callback.name: callback.in_place for callback in callbacks}
        return {f"adjode.{name}": _guarded(given.get(name, _absent), KINDS[name].arrays) for name in _IMPORTED}

    return replace(FUSED, key=key, unchanged=unchanged, imports=imports, _entries={})


@linked
def _absent(t, *arrays):
    """For the import of a callback that was not given and is never called."""


def _guarded(function: Callable, arrays: int) -> Any:
    guarded = guard(function, arrays)
    guarded.compile((f8, *(vector,) * arrays))
    (compiled,) = guarded.overloads.values()
    return compiled
