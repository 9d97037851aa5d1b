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

from adjode.compile import slots
from adjode.compile.adapters import guard, written
from adjode.compile.entries import entry
from adjode.compile.flags import DISABLED, f8, i8, kernel, linked, vector
from adjode.compile.frame import Frame, Known, make_local, opened
from adjode.compile.kinds import KINDS, Kind
from adjode.compile.signals import uninterrupted
from adjode.compile.tiers import call_pass, fused_works, imported, outline
from adjode.compile.times import time_at
from adjode.compile.views import invoke

UNROLLED = 8  # states up to which stages are straight code: above, loops over the states are as fast, and compile sooner


@dataclass(frozen=True, eq=False)
class Calls:
    """Kernels that call the user's functions, each returning 0, or 1 if the user's code raised; and the entries that do.

    Attributes
    ----------
    kernels : dict
        By the names in `OF_PASSES`, and attributes by the same names: `calls.f(frame, t, u, du)`,
        `calls.vjp(frame, t, u, lam, u_bar, theta_bar)`, ... theta is taken from the frame, and a matrix is a vector of its rows.
    key : str or None
        Distinguishes the entries compiled for these calls; "" for the portable tier, None if they cannot be kept on disk.
    fused : bool
    may_jump : bool
        Whether the state may jump in the passes made for them, by doses and events. In the fused tier they are passes of their own,
        see `jumping`: the tests for it cost a tenth of a small gradient.
    judged : bool
        Whether the error of a gradient is estimated. On a GPU, where nothing is run again, the estimates cost registers.
    unchanged : callable
        Whether the callbacks still compile to what `key` stands for.
    imports : callable
        In the fused tier, the compiled callbacks by the names that the kernels import.
    """

    kernels: dict[str, Callable]
    key: str | None
    fused: bool = False
    may_jump: bool = False
    judged: bool = True
    unchanged: Callable[[], bool] = lambda: True
    imports: Callable[[], dict[str, Any]] = dict
    _entries: dict = field(default_factory=dict)

    def __getattr__(self, name: str) -> Callable:
        try:
            return self.__dict__["kernels"][name]
        except KeyError:
            raise AttributeError(f"there are calls of {', '.join(OF_PASSES)}, but not of {name!r}") from None

    @functools.cached_property
    def jumping(self) -> Calls:
        """The same calls, for passes in which the state may jump."""
        return self if self.may_jump else replace(self, may_jump=True, _entries={})

    def entry(self, name: str, frame: Frame, make: Callable[[Calls, tuple[int, int] | None], Callable]) -> Callable:
        """The entry called `name` for frames like this one: `entry(frame.argument) -> status`.

        `make(calls, stages)` gives the kernel that it runs. In the fused tier there is an entry for each method and size, and for a
        small system `stages` is (index of the last stage of a step, of its dense output); it is None where they are to be loops.
        """
        found = (name, frame.form if self.fused else b"")
        if found not in self._entries:
            self._entries[found] = self._compile(name, frame, make)
        return self._entries[found]

    @uninterrupted()
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
        return entry(_fused_entry(lambda: self.outline(name, make, stages), self.imports, known), (i8,), self._filed(name), key)

    def outline(self, name: str, make: Callable, stages: tuple[int, int] | None) -> bytes:
        """The bitcode of a pass in the fused tier, which depends on no callbacks."""
        filed = f"{self._filed(name)}-loops" if stages is None else f"{self._filed(name)}-{stages[0]}-{stages[1]}"
        return outline(filed, lambda: make(self, stages))

    def _filed(self, name: str) -> str:
        return f"{name}-jumping" if self.may_jump else name


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


_CALL = """
def call(frame, t, {given}):
    t = time_at(frame, t)
    return {target}
"""


def call_kernel(kind: Kind, target: str, **known: Any) -> Callable:
    """The kernel `call(frame, t, ...)` of a kind's arrays, theta left out: that is in the frame. `target` is what it calls.

    It takes t as passes count it. In `target`, {arrays} stands for all of them; `known` are the names in it.
    """
    given = [name for name in kind.arrays if name != "theta"]
    arrays = ", ".join("THETA(frame)" if name == "theta" else name for name in kind.arrays)
    parts = {"given": ", ".join(given), "target": target.format(arrays=arrays)}
    return kernel(written(_CALL, kind, parts, THETA=slots.THETA, time_at=time_at, **known))


def _through_address(kind: Kind) -> Callable:
    slot = getattr(slots, kind.name.upper())
    return call_kernel(kind, "invoke(SLOT(frame), t, ({arrays}))", invoke=invoke, SLOT=slot)


def _inlined(kind: Kind) -> Callable:
    return call_kernel(kind, "imported((t, {arrays}))", imported=imported(_symbol(kind)))


def _symbol(kind: Kind) -> str:
    """The name by which kernels import a callback."""
    return f"adjode.{kind.name}"


OF_DYNAMICS = tuple(kind for kind in KINDS.values() if kind.of_dynamics)
OF_PASSES = {name: kind for name, kind in KINDS.items() if kind.of not in ("loss", "event")}
PORTABLE = Calls({name: _through_address(kind) for name, kind in OF_PASSES.items()}, "", may_jump=True)
FUSED = PORTABLE if DISABLED else Calls(PORTABLE.kernels | {kind.name: _inlined(kind) for kind in OF_DYNAMICS}, "", fused=True)


def fused_calls(callbacks: dict[str, Any], key: str | None, unchanged: Callable[[], bool]) -> Calls:
    """Calls with the user's compiled functions, in place and by name, inlined; `unchanged` says whether `key` is still theirs."""
    if DISABLED or not fused_works():
        return PORTABLE

    @functools.cache
    def imports() -> dict[str, Any]:
        return {_symbol(kind): _guarded(kind, callbacks.get(kind.name)) for kind in OF_DYNAMICS}

    return replace(FUSED, key=key, unchanged=unchanged, imports=imports, _entries={})


_ABSENT = """
def absent(t, {arrays}):
    return 1
"""


def _guarded(kind: Kind, function: Callable | None) -> Any:
    """A callback for entries to import; what was not given is never called."""
    absent = written(_ABSENT, kind, {"arrays": ", ".join(kind.arrays)})
    guarded = linked(absent) if function is None else guard(kind, function)
    guarded.compile((f8, *(vector,) * len(kind.arrays)))
    (compiled,) = guarded.overloads.values()
    return compiled
