"""`Segments`: the steps of a forward pass in a given amount of memory.

Most of the memory is a store of steps, the rest holds *snapshots*: all that decides how a forward pass goes on. When the store is
full the pass goes on at its beginning, with a new *segment*. Later the pass is taken up again at a snapshot, for the steps of a
segment that are needed; it repeats them to the last bit, since it runs the same machine code on the same numbers.

How many steps there will be is not known while the pass runs: it takes a snapshot at each segment, and when their room is used up
drops every second one, here and from then on. A backward pass wants the segments in reverse order. From the last snapshot before a
segment it may be several stores away; the snapshots on the way there are placed as is optimal for the number of stores, which is
known by then, in the room that is free (A. Griewank, A. Walther, ACM Trans. Math. Softw. 26 (2000) 19-45). All jumps are kept.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import math
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from adjode.compile import slots
from adjode.compile.slots import RECORD_DENSE, RECORD_MESH, RECORD_STAGES
from adjode.compile.watch import NEXT_LOOK, raise_pending, set_deadline
from adjode.model.layout import Layout
from adjode.passes.jumps import Edges
from adjode.passes.trajectory import Trajectory, bytes_of_step, evaluate
from adjode.status import INTERRUPTED, STORE_FULL, SUCCESS

if TYPE_CHECKING:
    from adjode.passes.forward import Forward

# What decides how a forward pass goes on between two steps, beside what it is given and inflows; of K and GUARD_VALUES row 0 alone.
STATE = (
    slots.CLOCK,
    slots.COUNT,
    slots.Y,
    slots.K,
    slots.PREVIOUS,
    slots.JACOBIAN,
    slots.LU,
    slots.PIVOTS,
    slots.LU_COMPLEX,
    slots.PIVOTS_COMPLEX,
    slots.POWER,
    slots.ONGOING,
    slots.GUARD_SIGNS,
    slots.GUARD_HITS,
    slots.GUARD_VALUES,
)
# The part of snapshots: one in so many bytes, or a few if they take no more than half, so that schedules need few repetitions.
_PART_OF_SNAPSHOTS, _FEW_SNAPSHOTS = 8, 32
_FEWEST_SNAPSHOTS, _FEWEST_STEPS = 3, 4
_AT_ONCE = 2  # steps that a stop or an event may take, which are in one segment


def steps_ahead(stores: int, snapshots: int) -> int:
    """How many of so many stores, at least 2, to pass before the next snapshot, where so many (that at hand counted) can be had.

    With c snapshots, C(c + r, c) stores can be reversed such that none is solved more often than r times; a way that is optimal
    splits them so that both parts need no more than r, and no less than r - 1.
    """
    if snapshots == 1:
        return stores - 1
    repeats = 1
    while math.comb(snapshots + repeats, snapshots) < stores:
        repeats += 1
    before = math.comb(snapshots + repeats - 2, snapshots) if repeats > 1 else 1
    return max(before, stores - math.comb(snapshots - 1 + repeats, snapshots - 1))


class Segments:
    """
    Parameters
    ----------
    forward : Forward
        Whose trajectory becomes the store. It does not know of them, or the two would keep each other.
    memory : int
        Bytes for the steps and the snapshots.
    lasting : bool
        Whether snapshots are kept while segments are read in reverse order, which may then be done again; half of their room is
        left for others.

    Attributes
    ----------
    at_hand : array
        COUNT of the forward pass, with the STEPS, and those EARLIER and LATER, of the segment in the store.
    largest : (n,) array
        The largest size of each state at the ends of steps, if dense output is kept.
    u_T : (n,) array
        The state at the end of the pass, after `finish`.
    n_recomputed : int
        Steps that have been solved again, since `rewind` or `to_end`.
    lock : RLock
        To be held while segments are read.

    Raises
    ------
    ValueError
        If the memory is too little.
    """

    def __init__(self, forward: Forward, memory: int, lasting: bool = False):
        self.forward, self.lasting, self.lock = forward, lasting, threading.RLock()
        theta = forward.frame[slots.THETA]
        self._inflows = theta[theta.size - len(forward.jumps.inflows) :]
        self._arrays = [*forward.frame.integers_of(STATE), self._inflows.view(np.int64)]
        self.at_hand, self.largest = slots.COUNT.zeros(), np.zeros_like(forward.y)
        while True:
            try:
                self._make_room(memory)
                break
            except MemoryError:  # there may be fewer steps than the budget has room for
                memory //= 2
        self.rewind()

    def __reduce__(self):
        raise TypeError("a Solution with memory= holds addresses of this process, so it cannot be copied or pickled.")

    def _make_room(self, memory: int) -> None:
        forward, old, width = self.forward, self.forward.trajectory, sum(array.size for array in self._arrays)
        kinds, (_, degree, n), rows = old.kinds.size > 0, old.c.shape, old.stages.shape[1]
        step, snapshot = bytes_of_step(n, degree, rows, old.record, kinds), 8 * width
        least = _FEWEST_SNAPSHOTS * snapshot + (_FEWEST_STEPS + 1) * step
        if memory < least:
            raise ValueError(f"memory must be at least {least} bytes for this problem and this method, but {memory} were given.")
        snapshots, self.capacity = 0, forward.max_steps + 2 * forward.frame[slots.STOPS].size
        if forward.jumps.guards is not None:  # an event may need a step, of which there may be more
            snapshots, self.capacity = _FEWEST_SNAPSHOTS, 2 * self.capacity
        if memory < (self.capacity + 1) * step + snapshots * snapshot:  # that many steps would not fit
            few = min(_FEW_SNAPSHOTS, memory // 2 // snapshot)
            snapshots = max(_FEWEST_SNAPSHOTS, few, memory // _PART_OF_SNAPSHOTS // snapshot)
            self.capacity = (memory - snapshots * snapshot) // step - 1
        self._room, self._most = np.empty((snapshots, width), dtype=np.int64), snapshots // (2 if self.lasting else 1)
        self.trajectory = Trajectory.of_capacity(self.capacity, n, degree, rows, old.record, kinds, behind=1)
        self.trajectory.jumps, forward.trajectory = old.jumps, self.trajectory
        self.trajectory.put_recorded(forward.frame)

    @property
    def nbytes(self) -> int:
        """What the store and the snapshots take."""
        return self.trajectory.nbytes + self._room.nbytes

    def _state(self, row: int) -> np.ndarray:
        """The state at the start of a step in the store."""
        store = self.trajectory
        return store.stages[row, 0] if store.record & RECORD_STAGES else store.u[row]

    # --- the forward pass ------------------------------------------------------------------------------------------------------

    def rewind(self) -> None:
        """To the beginning, as if nothing had been done."""
        self._starts, self._free = [0], list(range(len(self._room)))
        self._rows: dict[int, int] = {}
        self._factors: dict[int, list[Any]] = {}
        self._temporary: set[int] = set()
        self._segments, self._spacing, self.n_recomputed = 0, 1, 0
        self._whole, self._is_whole = slots.COUNT.zeros(), False
        self._before = -1  # where the segment before that at hand begins, while what that has not overwritten is there
        self.largest[:] = 0.0
        self._meshes: list[np.ndarray] = []
        self._kinds: list[np.ndarray] = []
        self._edges = Edges()
        self.forward.count[: slots.LED + 1] = 0
        self.trajectory.put_recorded(self.forward.frame)

    def go_on(self) -> None:
        """Another segment, if the store is full, or more room for jumps."""
        count, t, kept = self.forward.count, self.trajectory.t, self.trajectory.record != 0
        if self.forward.jumps.guards is not None and not (kept and count[slots.STEPS] + _AT_ONCE >= t.size):
            self.trajectory.jumps.grow()
            self.trajectory.jumps.put(self.forward.frame)
            return
        self._before, steps = int(count[slots.EARLIER]), int(count[slots.STEPS])
        self._measure(steps)
        if self.lasting:
            self._keep_mesh(t[:steps], steps)
        if self.forward.jumps:
            self._edges.note(self._before + steps, self.trajectory.kinds[:steps])
        self._segments += 1
        if self._segments % self._spacing == 0 and len(self._starts) > self._most:
            for start in self._starts[1::2]:
                self._discard(start)
            self._spacing *= 2
        if self._segments % self._spacing == 0:
            self._take(self._before + steps)
        self._put_start(0, self.forward.clock[slots.T], self.forward.y)
        self._put_place(count, self._before + steps, self._before + steps)

    def _put_place(self, count: np.ndarray, first: int, end: int, later: int = 0) -> None:
        """Into a COUNT that the store has the steps from `first` to `end`, and so many are LATER."""
        places = [slots.EARLIER, slots.STEPS, slots.LATER, slots.BEGUN, slots.LED]
        count[places] = first, end - first, later, *self._edges.before(first)

    def _have(self, first: int, end: int) -> None:
        self._put_place(self.at_hand, first, end, int(self._whole[:2].sum()) - end)

    def _keep_mesh(self, t: np.ndarray, steps: int) -> None:
        self._meshes.append(t.copy())
        self._kinds.append(self.trajectory.kinds[:steps].astype(np.int32 if self.forward.jumps else np.int8))

    def _put_start(self, row: int, t: float, y: np.ndarray) -> None:
        """Where the step in this row of the store begins."""
        store = self.trajectory
        store.t[row] = t
        for states, kept in ((store.stages[:, 0], RECORD_STAGES), (store.u, RECORD_DENSE | RECORD_MESH)):
            if store.record & kept:
                states[row] = y

    def _measure(self, steps: int) -> None:
        store = self.trajectory
        if store.record & RECORD_DENSE:
            np.maximum(self.largest, np.abs(store.u[:steps]).max(axis=0, initial=0.0), out=self.largest)

    def finish(self) -> Trajectory:
        """The forward pass has reached its end; the store."""
        if not self._is_whole:
            self._whole, self._is_whole = self.forward.count.copy(), True
            self._measure(int(self._whole[slots.STEPS]))
            self.at_hand[:], self.u_T = self._whole, self.forward.y.copy()
            if self.lasting:
                steps = int(self.at_hand[slots.STEPS])
                self._keep_mesh(self.trajectory.t[: steps + 1], steps)
        return self.trajectory

    # --- snapshots --------------------------------------------------------------------------------------------------------------

    def _take(self, at: int) -> None:
        row = self._free[-1]
        begin, to = 0, self._room[row]
        for array in self._arrays:
            to[begin : begin + array.size] = array
            begin += array.size
        self._factors[at] = [owner.factors.copy() for owner in self.forward.frame.owners]
        self._free.pop()
        self._rows[at] = row
        bisect.insort(self._starts, at)

    def _discard(self, at: int) -> None:
        self._starts.remove(at)
        self._temporary.discard(at)
        self._free.append(self._rows.pop(at))
        del self._factors[at]

    def _restore(self, at: int) -> None:
        """The forward pass as it was before step `at`, the first of those it is going to take."""
        if at == 0:
            self.forward.count[slots.ENTERED] = 0
            return
        begin, source = 0, self._room[self._rows[at]]
        for array in self._arrays:
            array[:] = source[begin : begin + array.size]
            begin += array.size
        for owner, factors in zip(self.forward.frame.owners, self._factors[at], strict=True):
            owner.factors[:] = factors

    def _start_before(self, step: int) -> int:
        return self._starts[bisect.bisect_left(self._starts, step) - 1]

    # --- steps again ------------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _again(self) -> Iterator[None]:
        """Around what runs the forward pass once more: at the end its counts are those of the whole pass, and inflows as before."""
        self.at_hand[slots.STEPS], self._before, inflows = -1, -1, self._inflows.copy()
        try:
            yield
        finally:
            self.forward.count[:], self._inflows[:] = self._whole, inflows
            self.forward.watch[NEXT_LOOK] = 0  # the steps that are counted now are others

    def _solve(self, first: int, last: int) -> int:
        """Steps from `first`, which the pass has reached, as far as there is room for them up to `last`."""
        forward = self.forward
        self._put_place(forward.count, first, first)
        forward.frame[slots.MESH_T] = self.trajectory.t[: last - first + 1]
        forward.watch[NEXT_LOOK] = 0
        status = forward.entry(forward.frame.argument)
        self.n_recomputed += int(forward.count[slots.STEPS])
        return status

    def _stores(self, start: int, end: int) -> int:
        """How many stores these steps take at least, which are whole segments; 1 only if they are one."""
        stores = -(-(end - start) // self.capacity)  # the segment at the end may be as short as another's unused room
        return max(stores, 2) if start < self._whole[slots.EARLIER] < end else stores

    def _approach(self, end: int) -> tuple[int, int]:
        """Have the forward pass where the store has room for all steps up to `end`: (status, the first of them)."""
        start = self._start_before(end)
        self._restore(start)
        while (stores := self._stores(start, end)) > 1:
            for _ in range(steps_ahead(stores, len(self._free) + 1)):
                status = self._solve(start, start + self.capacity)
                if status != STORE_FULL:
                    return status, start
                start = self.forward.steps
            if self._free:
                self._take(start)
                self._temporary.add(start)
        return SUCCESS, start

    def back_up(self) -> int:
        """Have the steps before those at hand in the store, in their place; the status."""
        self.finish()
        store, (steps, end), before = self.trajectory, self.at_hand[[slots.STEPS, slots.EARLIER]].tolist(), self._before
        edge, kinds = (store.t[0], self._state(0).copy()), store.kinds[:1].copy()
        for start in [each for each in self._starts if each >= end and (each in self._temporary or not self.lasting)]:
            self._discard(start)
        with self._again():
            status, start, last = SUCCESS, before, before + steps + _AT_ONCE
            if before >= 0 and before == self._start_before(end):  # its later steps are there still
                self._restore(start)
            else:
                (status, start), last = self._approach(end), end
            if status == SUCCESS:  # a segment ends where there is no room for steps that must be in one, and there may be more
                status = self._solve(start, last if last < end else start + self.capacity)
            if status not in (STORE_FULL, SUCCESS):
                return status
            self._put_start(end - start, *edge)
            store.kinds[end - start : end - start + 1] = kinds
            row = self.forward.steps - start
            jumps = kinds.size > 0 and store.kinds[row] >= slots.JUMP  # then the state is that behind the jump
            _require(store.t[row] == self.forward.clock[slots.T] and (jumps or (self._state(row) == self.forward.y).all()))
        self._have(start, end)
        return SUCCESS

    def to_end(self) -> int:
        """Have the last steps in the store; the status."""
        self.finish()
        end, self.n_recomputed = int(self._whole[:2].sum()), 0
        for start in list(self._temporary):
            self._discard(start)
        if self.at_hand[slots.STEPS] >= 0 and self.at_hand[:2].sum() == end:
            return SUCCESS
        with self._again():
            status, start = self._approach(end)
            if status == SUCCESS:
                status = self._solve(start, start + self.capacity)
            _require(status != STORE_FULL and (status != SUCCESS or (self.forward.y == self.u_T).all()))
        if status == SUCCESS:
            self._have(start, end)
        return status

    # --- states -----------------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def t(self) -> np.ndarray:
        """The times of all steps since the start, of a pass that has been finished and is lasting."""
        return np.concatenate(self._meshes)

    @functools.cached_property
    def kinds(self) -> np.ndarray:
        """The kinds of all steps, as `Trajectory.kinds`."""
        return np.concatenate(self._kinds)

    def state(self, k: int) -> np.ndarray:
        """The state at the start of step k, which is the end of the pass for -1."""
        return self.u_T if k in (-1, self.t.size - 1) else self.states(self.t[k : k + 1])[0]

    def states(self, times: np.ndarray, read: Callable[..., None] = evaluate, vectors: int = 1) -> np.ndarray:
        """The states at `times` since the start, in the order of integration, or the `vectors` that `read` makes of the steps."""
        forward, sign, seen = self.forward, self.forward.frame[slots.CONTROL][slots.DIRECTION], 0
        out = np.empty((times.size, vectors * forward.y.size))
        ends = np.searchsorted(sign * self.t, sign * times)  # of the steps that they lie in
        with self.lock, self._again():
            set_deadline(forward.watch, forward.max_seconds)
            while seen < times.size:
                seen = self._see(times, ends, out, seen, read)
        return out

    def _see(self, times: np.ndarray, ends: np.ndarray, out: np.ndarray, seen: int, read: Callable[..., None]) -> int:
        """The states at those times, from `seen` on, that lie between the same two snapshots; how many have been seen now."""
        forward, store, starts = self.forward, self.trajectory, self._starts
        k = bisect.bisect_left(starts, max(int(ends[seen]), 1)) - 1
        last, first = starts[k + 1] if k + 1 < len(starts) else self.t.size - 1, starts[k]
        goal = int(np.searchsorted(ends, last, side="right"))
        # one more, to cross a stop; see `back_up`
        last = int(ends[goal - 1]) + 1 if ends[goal - 1] + 1 < last else first + self.t.size
        self._restore(first)
        while seen < goal:
            status = self._solve(first, min(first + self.capacity, last))
            if status == INTERRUPTED:
                raise_pending(forward.watch)
            if status not in (STORE_FULL, SUCCESS):
                raise forward.error(status, Layout("u0", forward.y, forward.dynamics.states))
            first, steps = forward.steps, int(forward.count[slots.STEPS])
            store.t[steps], store.u[steps] = forward.clock[slots.T], forward.y
            _require(store.t[steps] == self.t[first])
            here = slice(seen, int(np.searchsorted(ends, first, side="right")))
            read(store.t, store.u, store.c, steps, times[here], out[here])
            seen = here.stop
        return goal


def _require(same: bool) -> None:
    if not same:
        raise RuntimeError("f gave different values when steps were solved again for memory=: it must depend only on its inputs.")
