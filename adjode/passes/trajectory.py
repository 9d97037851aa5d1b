"""`Trajectory`: what a forward pass leaves, and a backward pass reads; `DenseOutput`, the states between its steps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from adjode.checks import times_in_span
from adjode.compile import slots
from adjode.compile.entries import entry
from adjode.compile.flags import cube, i8, kernel, matrix, vector
from adjode.compile.frame import Frame
from adjode.compile.slots import RECORD_DENSE, RECORD_MESH, RECORD_STAGES
from adjode.compile.views import invoke, plane, row
from adjode.passes.jumps import JumpStore, lengthened
from adjode.passes.span import Span
from adjode.steppers.explicit import interpolate

_FIRST_CAPACITY = 512  # steps that there is room for at first
_FIRST_BYTES = 1 << 26  # ... but not more memory than this, of which the system hands out only what is written to
_SPACINGS = 10.0  # of numbers at the larger end of the span, from the time of a jump to where the state is that before it
_KEPT_WITH = {"t": ~0, "u": RECORD_DENSE | RECORD_MESH, "c": RECORD_DENSE, "stages": RECORD_STAGES, "kinds": ~0}


@dataclass(frozen=True, eq=False)
class DenseOutput:
    """A piecewise polynomial in time: step k runs from t[k] to t[k+1] with u(t[k] + x h) = u[k] + sum_p c[k, p] x**(p+1).

    Attributes
    ----------
    elapsed : (n_steps + 1,) array
        `t` since the start of the solve; far from the origin of time it distinguishes steps that `t` cannot.
    u, c : (n_steps + 1, n), (n_steps, degree, n) arrays
    span : Span
        The span of the solve.
    jumps : (k,) array
        The times at which the state jumped, since the start of the solve.
    """

    elapsed: np.ndarray
    u: np.ndarray
    c: np.ndarray
    span: Span
    jumps: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @functools.cached_property
    def t(self) -> np.ndarray:
        return self.span.time(self.elapsed)

    @property
    def steps(self) -> int:
        return len(self.c)

    def __call__(self, t: Any) -> np.ndarray:
        """The state at `t`: (n,) for a scalar, (k, n) for k times, which must lie inside the span."""
        times = times_in_span("t", t, self.t[0], self.t[-1])
        out = np.empty((times.size, self.u.shape[1]))
        evaluate(self.elapsed, self.u, self.c, self.steps, at_jumps(self.span, self.jumps, self.span.elapsed(times)), out)
        return out[0] if np.ndim(t) == 0 else out

    def derivatives(self, elapsed: np.ndarray) -> np.ndarray:
        """First and second ones (k, 2 n) at `elapsed` (k,) inside the mesh: where two steps meet, those of the one before."""
        out = np.empty((elapsed.size, 2 * self.u.shape[1]))
        derivatives(self.elapsed, self.u, self.c, self.steps, elapsed, out)
        return out


@dataclass(eq=False)
class Trajectory:
    """The steps of a forward pass, with room for more while it runs. Step k runs from t[k] to t[k+1].

    Attributes
    ----------
    t : (capacity + 1,) array
        Since the start of the solve.
    u, c : (capacity + 1, n), (capacity, degree, n) arrays
        The dense output, u(t[k] + x h) = u[k] + sum_p c[k, p] x**(p+1).
    stages : (capacity, rows, n) array
        The states of the stages, that at the step's start first.
    kinds : (capacity,) array of int, or empty
        EXPLICIT_STEP, IMPLICIT_STEP or, where the state or f may jump and a step of no length to speak of leads across, CROSSING
        or more.
        Empty where all steps are of the method's own kind.
    record : int
        What is kept: a sum of RECORD_DENSE, RECORD_STAGES and others. What is not has room for the step being taken alone.
    jumps : JumpStore
        Where the state has jumped.
    """

    t: np.ndarray
    u: np.ndarray
    c: np.ndarray
    stages: np.ndarray
    kinds: np.ndarray
    record: int
    jumps: JumpStore = field(default_factory=JumpStore)

    @classmethod
    def empty(cls, n: int, degree: int, rows: int, record: int, expected: int | None = None, kinds: bool = False) -> Trajectory:
        """Room for the steps of a pass, `expected` so many if their number is known."""
        most = _FIRST_BYTES // bytes_of_step(n, degree, rows, record)
        capacity = max(8, min(expected or _FIRST_CAPACITY, most)) if record else 1
        return cls.of_capacity(capacity, n, degree, rows, record, kinds)

    @classmethod
    def of_capacity(
        cls, capacity: int, n: int, degree: int, rows: int, record: int, kinds: bool = False, behind: int = 0
    ) -> Trajectory:
        """Room for so many steps, and for the start of so many `behind` them."""
        states, dense, further = record & (RECORD_DENSE | RECORD_MESH) > 0, record & RECORD_DENSE > 0, capacity + behind
        return cls(
            t=np.empty(capacity + 1),
            u=np.empty(((capacity if states else 1) + 1, n)),
            c=np.empty((capacity if dense else 1, degree, n)),
            stages=np.empty((further, rows, n)) if record & RECORD_STAGES else np.zeros((1, rows, n)),
            kinds=np.zeros(further if kinds and record else 0, dtype=np.int64),
            record=record,
        )

    @property
    def nbytes(self) -> int:
        """The memory of what is kept."""
        return sum(getattr(self, name).nbytes for name, record in _KEPT_WITH.items() if self.record & record)

    def grow(self) -> None:
        """Twice as many steps: all arrays or, if memory is short, none."""
        added = self.t.size - 1
        kept = [name for name, record in _KEPT_WITH.items() if self.record & record and getattr(self, name).size]
        vars(self).update({name: lengthened(getattr(self, name), added) for name in kept})
        self.jumps.grow()

    def trimmed(self, steps: int) -> Trajectory:
        """What has been kept of the first so many steps, in the same memory."""
        parts = {name: getattr(self, name) for name in _KEPT_WITH}
        for name, record in _KEPT_WITH.items():
            if self.record & record:
                parts[name] = parts[name][: steps + (name in ("t", "u"))]
        return Trajectory(**parts, record=self.record, jumps=self.jumps)

    def trimmed_jumps(self, count: int) -> Trajectory:
        """The same steps, and copies of the first so many jumps."""
        return replace(self, jumps=self.jumps.trimmed(count))

    def put_recorded(self, frame: Frame) -> None:
        """Have a pass write here; if this is interrupted, it has no room, and asks for more at once."""
        frame[slots.MESH_T] = np.empty(1)
        frame[slots.MESH_U], frame[slots.MESH_C], frame[slots.STAGES] = self.u, self.c, self.stages
        frame[slots.MESH_KIND] = self.kinds
        self.jumps.put(frame)
        frame[slots.MESH_T] = self.t

    def put_forward(self, frame: Frame) -> None:
        """Have a backward pass read from here."""
        frame[slots.FORWARD_T], frame[slots.FORWARD_U], frame[slots.FORWARD_C] = self.t, self.u, self.c
        frame[slots.FORWARD_STAGES], frame[slots.FORWARD_KIND] = self.stages, self.kinds
        self.jumps.put(frame)


def at_jumps(span: Span, jumps: np.ndarray, elapsed: np.ndarray) -> np.ndarray:
    """Times since the start, but for those so little before one of the `jumps` that the state behind it is seen there: its time."""
    if not jumps.size:
        return elapsed
    t0, T = span.ends
    sign = 1.0 if T >= t0 else -1.0
    nearest = jumps[np.minimum(np.searchsorted(sign * jumps, sign * elapsed), jumps.size - 1)]
    ahead = sign * (nearest - elapsed)
    return np.where((ahead > 0.0) & (sign * (elapsed - (nearest - sign * span.clearance)) > 0.0), nearest, elapsed)


def before_jumps(span: Span, jumps: np.ndarray, times: np.ndarray) -> np.ndarray:
    """`times`, but for those of the `jumps`, which are since the start: just before these, in the order of integration."""
    if not (jumps.size and times.size):
        return times
    t0, T = span.ends
    apart = _SPACINGS * np.spacing(max(abs(t0), abs(T)))
    near = np.min(np.abs(times[:, None] - span.time(jumps)[None]), axis=1) < apart
    earlier = times - np.sign(T - t0) * apart
    return np.where(near, np.clip(earlier, min(t0, T), max(t0, T)), times)


def beside_stops(span: Span, t: np.ndarray, kinds: np.ndarray, times: np.ndarray) -> np.ndarray:
    """`times` since the start, but for those so near to a stop that f was not evaluated there: the end of the steps before it or,
    at the start of the trajectory `t`, `kinds`, and where the state jumps, where the steps behind it begin.
    """
    crossing = np.concatenate(([False], kinds >= slots.CROSSING, [False]))
    edges, elapsed = np.flatnonzero(crossing[1:] != crossing[:-1]), span.elapsed(times)
    if edges.size == 0:
        return elapsed
    first, last = edges[::2], edges[1::2]
    sign = 1.0 if t[-1] >= t[0] else -1.0
    before, behind, at = sign * t[first], sign * t[last], sign * elapsed
    k = np.searchsorted(before, at, side="right") - 1
    near = (k >= 0) & ((at < behind[k]) | (last[k] == kinds.size))
    jumps = np.maximum.reduceat(kinds, first) >= slots.JUMP
    return np.where(near, t[np.where((first == 0) | jumps, last, first)][k], elapsed)


def bytes_of_step(n: int, degree: int, rows: int, record: int, kinds: bool = False) -> int:
    """The memory of one step in a trajectory."""
    states, dense = record & (RECORD_DENSE | RECORD_MESH) > 0, record & RECORD_DENSE > 0
    return 8 * (n * (states + degree * dense + rows * (record & RECORD_STAGES > 0)) + 1 + kinds)


@kernel
def locate(mesh_t, steps, guess, t):
    """The step that contains t: `guess`, a neighbour of it, or found by bisection. The mesh may run either way."""
    sign = 1.0 if mesh_t[steps] >= mesh_t[0] else -1.0
    low, high = max(0, guess - 1), min(steps, guess + 2)
    if sign * t < sign * mesh_t[low] or sign * t > sign * mesh_t[high]:
        low, high = 0, steps
    elif sign * mesh_t[guess] <= sign * t and sign * t <= sign * mesh_t[guess + 1]:
        return guess
    while high - low > 1:
        middle = (low + high) // 2
        if sign * t < sign * mesh_t[middle]:
            high = middle
        else:
            low = middle
    return low


@kernel
def state_at(mesh_t, mesh_u, mesh_c, k, t, out):
    """The state at time t, which lies in step k; exactly the stored state at the step's end."""
    start, end = mesh_t[k], mesh_t[k + 1]
    if t == end:
        for i in range(out.size):
            out[i] = mesh_u[k + 1, i]
        return
    interpolate(out, row(mesh_u, k), plane(mesh_c, k), (t - start) / (end - start))


def _evaluate(mesh_t, mesh_u, mesh_c, steps, times, out):
    k = 0
    for j in range(times.size):
        if steps == 0:
            for i in range(out.shape[1]):
                out[j, i] = mesh_u[0, i]
        else:
            k = locate(mesh_t, steps, k, times[j])
            state_at(mesh_t, mesh_u, mesh_c, k, times[j], row(out, j))


@functools.cache
def _evaluate_entry() -> Callable:
    return entry(_evaluate, (vector, matrix, cube, i8, vector, matrix), "evaluate")


def evaluate(mesh_t, mesh_u, mesh_c, steps, times, out) -> None:
    """Fill `out` (k, n) with the states at `times` (k,), which lie inside the mesh, in any order."""
    _evaluate_entry()(mesh_t, mesh_u, mesh_c, steps, times, out)


def step_before(mesh_t: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The steps that `times` lie in: where two meet, the one before."""
    sign = 1.0 if mesh_t[-1] >= mesh_t[0] else -1.0
    return np.maximum(np.searchsorted(sign * mesh_t, sign * times, side="left") - 1, 0)


def derivatives(mesh_t, mesh_u, mesh_c, steps, times, out) -> None:
    """Fill `out` (k, 2 n) with first and second derivatives of the dense output at `times` (k,), as `DenseOutput.derivatives`."""
    k = step_before(mesh_t[: steps + 1], times)
    h, powers, n = (mesh_t[k + 1] - mesh_t[k])[:, None], np.arange(mesh_c.shape[1]), mesh_c.shape[2]
    x = (times - mesh_t[k])[:, None] / h
    np.einsum("kp,kpn->kn", (powers + 1) * x**powers / h, mesh_c[k], out=out[:, :n])
    np.einsum("kp,kpn->kn", powers[1:] * (powers[1:] + 1) * x ** powers[:-1] / h**2, mesh_c[k, 1:], out=out[:, n:])


def _slopes(f, theta, times, states, out):
    for j in range(times.size):
        status = invoke(f, times[j], (row(states, j), theta, row(out, j)))
        if status != 0:
            return j
    return -1


@functools.cache
def _slopes_entry() -> Callable:
    return entry(_slopes, (i8, vector, vector, matrix, matrix), "slopes")


ENTRIES = (_evaluate_entry, _slopes_entry)


def slopes(f, theta, times, states, out) -> int:
    """Fill `out` (k, n) with f at `times` (k,) and `states` (k, n); the row at which f raised, or -1."""
    return _slopes_entry()(f, theta, times, states, out)
