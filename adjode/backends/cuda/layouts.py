"""Where the arrays of a pass lie in a thread: which the frames of passes on the CPU say, with their shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from adjode.adjoints.cells import COLUMNS, KINK_COLUMNS
from adjode.backends.cuda.callbacks import in_simulator
from adjode.backends.cuda.frames import Layout
from adjode.backends.cuda.lane import Part
from adjode.compile import slots
from adjode.compile.frame import Frame
from adjode.compile.slot import Group, Slot
from adjode.compile.slots import RECORD_DENSE
from adjode.model.losses import PreparedLoss
from adjode.passes.discrete import Discrete
from adjode.passes.forward import Forward
from adjode.passes.jumps import Jumps, JumpStore
from adjode.passes.sweep import Sweep

NEAR = 32  # numbers up to which observed states and parameters lie in a thread's own memory
_STEPS_FOR_A_JUMP = 4  # there is room for an event in so many steps
# integers that all threads read, where a frame has any; those of them that a pass changes are in lanes
_WHATS = (
    slots.CROSSED,
    slots.JUMP_ROWS,
    slots.PLANNED_CROSSED,
    slots.PLANNED_ROWS,
    slots.DOSE_ENTRIES,
    slots.ACTIONS,
    slots.GUARD_RULES,
)
_OF_JUMPS = slots.ONGOING, slots.GUARD_SIGNS, slots.GUARD_HITS, slots.GUARD_VALUES, slots.EVENT_WORK, slots.MIDDLE_T, slots.WHICH
_OF_JUMPS_BACK = (
    slots.EVENT_RATE,
    slots.JUMP_WORK,
    slots.JUMP_THETA,
    slots.JUMP_K_BAR,
    slots.JUMP_BARS,
    slots.MASS_INVERSE,
    slots.WHICH,
    slots.JUMP_TOTAL,
)
Shapes = dict[Slot, tuple[int, ...]]
Entries = dict[Slot, tuple[int | None, ...]]


@dataclass(frozen=True, eq=False)
class PassPlan:
    """The frame of one pass; the contents of its CONTROL and ATOL; its parts of a lane; and (slot, first, size) of its WHATS."""

    layout: Layout
    given: np.ndarray
    parts: tuple[Part, ...] = ()
    whats: tuple[tuple[Slot, int, int], ...] = ()


class Whats:
    """Integers that all threads read, one array behind another."""

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []
        self._size = 0

    def add(self, array: np.ndarray) -> tuple[int, int]:
        """(first, size) of an array."""
        self._arrays.append(array)
        self._size += array.size
        return self._size - array.size, array.size

    @property
    def array(self) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int64), *self._arrays])


class PassPlanner:
    """Gathers where the arrays of a frame lie in a thread."""

    def __init__(self, frame: Frame, real: np.dtype, whats: Whats, outside: dict[Slot, Any]):
        self.frame, self._real, self._whats, self._outside = frame, real, whats, outside
        self._local: Shapes = {}
        self._lanes: Entries = {}
        self._filled: dict[Slot, np.ndarray] = {}
        self.parts: list[Part] = []

    def local(self, shapes: Shapes) -> None:
        """In a thread's own memory, zeros."""
        self._local |= shapes

    def alike(self, *chosen: Slot) -> None:
        """There, of the shapes that they have on the CPU."""
        self._local |= {slot: self.frame[slot].shape for slot in chosen if self.frame.has(slot)}

    def filled(self, slot: Slot) -> None:
        """There, with the numbers of the CPU."""
        self._filled[slot] = self.frame[slot].copy()

    def lane(self, *parts: Part) -> None:
        """In the thread's lane."""
        self.parts += parts
        self.lanes({part.slot: (None, *part.shape) for part in parts})

    def lanes(self, shapes: Entries) -> None:
        """There too, where another frame has it already."""
        self._lanes |= shapes

    def plan(self, starts_elsewhere: bool = True) -> PassPlan:
        frame, known = self.frame, self.frame.known()
        sized = {slot: shape for slot, shape in known.shapes.items() if slot.group < Group.OPTIONAL}
        elsewhere = [slots.START, slots.THETA][0 if starts_elsewhere else 1 :]
        if starts_elsewhere and (frame[slots.THETA].size <= NEAR or frame[slots.ONGOING].size):
            elsewhere.remove(slots.THETA)
        sized = {slot: shape for slot, shape in sized.items() if slot not in elsewhere}
        whats = [(slot, frame[slot]) for slot in _WHATS if slot not in self._lanes and frame.has(slot) and frame[slot].size]
        empty: Shapes = dict.fromkeys((*_WHATS, slots.MESH_KIND, slots.FORWARD_KIND, slots.JUMP_WHAT, slots.JUMP_T), (0,))
        empty |= {slots.LIMITED: (2,), slots.LIMITS: (0, 3), slots.CELLS: (0, len(COLUMNS))}
        empty |= {slots.KINKS: (0, len(KINK_COLUMNS)), slots.ABOUT_ONE: (0,)}  # TRUST is zeros: nothing is judged
        empty |= {slots.FLOOR_BEHIND: (0,), slots.ATOL_AT_MOST: frame[slots.ATOL_AT_MOST].shape if starts_elsewhere else (0,)}
        local = sized | empty | self._local
        for slot in (*self._lanes, *self._filled, *(slot for slot, _ in whats)):
            local.pop(slot, None)
        tolerances = (slots.CONTROL, slots.ATOL, slots.U_FLOOR) if slots.CONTROL in sized else ()
        given = [frame[slot].copy() for slot in tolerances if slot in sized]
        if given:
            given[0][slots.EPS] = np.finfo(self._real).eps
        layout = Layout(self._real, known.constants, local, self._lanes, self._filled, in_simulator(self._outside))
        there = tuple((slot, *self._whats.add(array)) for slot, array in whats)
        return PassPlan(layout, np.concatenate(given) if given else np.zeros(0), tuple(self.parts), there)


def idle_stores(frame: Frame) -> Shapes:
    """The stores of a pass that records nothing: room for the step being taken."""
    return {slot: frame[slot].shape for slot in (slots.STAGES, slots.MESH_T, slots.MESH_U, slots.MESH_C)}


def _room_for_jumps(jumps: Jumps, n: int) -> tuple[int, int]:
    """`Part.fixed` and `Part.every` of jumps."""
    return JumpStore.empty(jumps, n).t.size, 0 if jumps.guards is None else _STEPS_FOR_A_JUMP


def plan_jumps(ahead: PassPlanner, jumps: Jumps, n: int, recorded: bool) -> None:
    """What the forward pass has for stops and jumps."""
    frame = ahead.frame
    if recorded and (jumps or frame[slots.CROSSED].size):
        ahead.lane(Part(slots.MESH_KIND, every=1))
    if not jumps:
        return
    ahead.alike(*_OF_JUMPS)
    room = _room_for_jumps(jumps, n)
    ahead.lane(Part(slots.JUMP_T, (), *room), Part(slots.JUMP_INFLOW, (), *room))
    ahead.lane(Part(slots.JUMP_U, (n,), *room, times=2), Part(slots.JUMP_WHAT, (), *room, times=3))
    if jumps.doses is not None:
        ahead.lane(*(Part(slot, fixed=frame[slot].size) for slot in (slots.STOPS, slots.CROSSED, slots.JUMP_ROWS)))


def plan_ahead(ahead: PassPlanner, forward: Forward, far: bool) -> PassPlanner:
    frame = forward.frame
    (k, n), degree = frame[slots.OBSERVED].shape, frame[slots.PT].shape[0]
    ahead.alike(slots.STAGES)
    if far:
        ahead.lane(Part(slots.OBSERVED, (n,), fixed=k))
    else:
        ahead.local({slots.OBSERVED: (k, n)})
    ahead.lane(Part(slots.MESH_T, fixed=1, every=1), Part(slots.MESH_U, (n,), fixed=1, every=1))
    if forward.trajectory.record & RECORD_DENSE:
        ahead.lane(Part(slots.MESH_C, (degree, n), every=1))
    else:
        ahead.local({slots.MESH_C: (1, degree, n)})
    plan_jumps(ahead, forward.jumps, n, recorded=True)
    return ahead


_FOLLOWED = {
    slots.MESH_T: slots.FORWARD_T,
    slots.MESH_U: slots.FORWARD_U,
    slots.MESH_C: slots.FORWARD_C,
    slots.MESH_KIND: slots.FORWARD_KIND,
} | {slot: slot for slot in (slots.JUMP_T, slots.JUMP_INFLOW, slots.JUMP_U, slots.JUMP_WHAT)}


def plan_behind(behind: PassPlanner, backward: Discrete | Sweep, ahead: PassPlanner, jumps: Jumps, far: bool) -> PassPlanner:
    frame, n = backward.frame, ahead.frame[slots.Y].size
    if isinstance(backward, Sweep):
        behind.local(idle_stores(frame))
    else:
        behind.alike(slots.STAGES)
    behind.lanes({_FOLLOWED[part.slot]: (None, *part.shape) for part in ahead.parts if part.slot in _FOLLOWED})
    if far:
        behind.lanes({slots.JUMPS: (None, n)})
    if jumps:
        behind.alike(*_OF_JUMPS_BACK)
        behind.filled(slots.SHIFT)
    if jumps and isinstance(backward, Sweep):
        fixed, every = _room_for_jumps(jumps, n)
        fixed += frame[slots.PLANNED].size
        behind.lane(*(Part(slot, (), fixed, every) for slot in (slots.STOPS, slots.CROSSED, slots.JUMP_ROWS)))
    return behind


def plan_loss(loss: PreparedLoss, real: np.dtype, k: int, n: int, far: bool) -> PassPlan:
    local: Shapes = {slots.U_BAR: (n,), slots.VALUE: (1,), slots.DIRECT: (0,)}
    lanes: Entries = {slots.OBSERVED: (None, n), slots.JUMPS: (None, n)}
    if not far:
        lanes, local[slots.JUMPS] = {}, (k, n)
    parts = (Part(slots.JUMPS, (n,), fixed=k),) if far else ()
    return PassPlan(Layout(real, loss.frame.known().constants, local, lanes), np.zeros(0), parts)
