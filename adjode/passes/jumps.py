"""What passes need for jumps of the state: doses and events in their frames, and where it is written down what has happened."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field

import numpy as np

from adjode.compile import slots
from adjode.compile.frame import Frame
from adjode.model.doses import DoseTable
from adjode.model.dynamics import Dynamics
from adjode.model.events import Guards

_NONE = np.zeros(0, dtype=np.int64)
_FIRST_EVENTS = 32  # that there is room for at first


@dataclass(frozen=True, eq=False)
class Jumps:
    """The doses and the events of a solve; None where there are none."""

    doses: DoseTable | None = None
    guards: Guards | None = None

    @property
    def inflows(self) -> tuple[int, ...]:
        """The states with inflows: so many entries has theta behind the parameters."""
        return () if self.doses is None else self.doses.inflows

    def extended(self, theta: np.ndarray) -> np.ndarray:
        """Parameters, and room for inflows behind them; themselves where there are none."""
        return theta if not self.inflows else np.concatenate([theta, np.zeros(len(self.inflows))])

    def event_at(self, frame: Frame) -> str:
        """The name of the event that a pass has met last."""
        return "?" if self.guards is None else self.guards.events[frame[slots.COUNT][slots.HAPPENING]].name

    @property
    def move(self) -> bool:
        """Whether the time of any depends on the state, or on theta."""
        return self.guards is not None or (self.doses is not None and self.doses.times_vary)

    @property
    def actions(self) -> int:
        return 0 if self.doses is None else self.doses.actions.size // 2

    def __bool__(self) -> bool:
        return self.doses is not None or self.guards is not None


NO_JUMPS = Jumps()


def lengthened(old: np.ndarray, added: int) -> np.ndarray:
    """A copy with room for more."""
    new = np.empty((len(old) + added, *old.shape[1:]), dtype=old.dtype)
    new[: len(old)] = old
    return new


@dataclass(eq=False)
class JumpStore:
    """Jumps as a forward pass writes them down, with room for more.

    Attributes
    ----------
    t, u, what, inflow : arrays
        See `slots.JUMP_T` and those that follow it.
    """

    t: np.ndarray = field(default_factory=lambda: np.zeros(0))
    u: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    what: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    inflow: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def empty(cls, jumps: Jumps, n: int) -> JumpStore:
        events = 0 if jumps.guards is None else len(jumps.guards.events)
        room = jumps.actions + (2 * events + _FIRST_EVENTS if events else 0)
        return cls.of_capacity(room, n)

    @classmethod
    def of_capacity(cls, room: int, n: int) -> JumpStore:
        return cls(np.zeros(room), np.zeros((2 * room, n)), np.zeros(3 * room, dtype=np.int64), np.zeros(room))

    def grow(self) -> None:
        """Twice as much room: all arrays or, if memory is short, none."""
        vars(self).update({name: lengthened(array, len(array)) for name, array in vars(self).items()})

    def of_event(self, event: int) -> np.ndarray:
        """The jumps that are this event's."""
        what = self.what.reshape(-1, 3)
        return np.flatnonzero((what[:, 0] != slots.DOSE) & (what[:, 1] == event))

    def trimmed(self, count: int) -> JumpStore:
        """A copy of the first so many."""
        return JumpStore(
            self.t[:count].copy(), self.u[: 2 * count].copy(), self.what[: 3 * count].copy(), self.inflow[:count].copy()
        )

    def put(self, frame: Frame) -> None:
        """Where a forward pass writes, and a backward pass reads."""
        frame[slots.JUMP_T], frame[slots.JUMP_U], frame[slots.JUMP_WHAT], frame[slots.JUMP_INFLOW] = (
            self.t,
            self.u,
            self.what,
            self.inflow,
        )


class Edges:
    """What BEGUN and LED are, see `slots.COUNT`, where segments of a trajectory begin; those that are alike are noted once."""

    def __init__(self) -> None:
        self._noted = [(0, 0, 0)]

    def note(self, step: int, kinds: np.ndarray) -> None:
        """A segment begins with this step, behind one with steps of these kinds."""
        begun, gaps = self._noted[-1][1], np.flatnonzero(kinds >= slots.CROSSING)
        if gaps.size:
            last = gaps[-1]
            at_stop = last > 0 and kinds[last - 1] == slots.TO_JUMP_AT_STOP
            begun = 0 if at_stop else max(0, int(kinds[last]) - slots.JUMP + 1)
        if (edge := (begun, int(kinds[-1] < slots.CROSSING))) != self._noted[-1][1:]:
            self._noted.append((step, *edge))

    def before(self, step: int) -> tuple[int, int]:
        """BEGUN and LED where a segment begins with this step."""
        _, begun, led = self._noted[bisect.bisect_right(self._noted, (step, math.inf)) - 1]
        return begun, led


def _put_what_is_given(frame: Frame, jumps: Jumps) -> None:
    """Fill the slots of doses, and of the rules of events."""
    doses, guards = jumps.doses, jumps.guards
    frame[slots.DOSES] = np.zeros((0, 5)) if doses is None else doses.numbers
    frame[slots.DOSE_ENTRIES], frame[slots.ACTIONS] = (_NONE, _NONE) if doses is None else (doses.entries, doses.actions)
    frame[slots.GUARD_RULES] = _NONE if guards is None else guards.rules
    frame[slots.WHICH] = np.zeros(1)


def put_jumps(frame: Frame, jumps: Jumps, n: int) -> None:
    """Fill the slots that a forward pass has for doses and events."""
    guards = jumps.guards
    _put_what_is_given(frame, jumps)
    frame[slots.ONGOING] = np.zeros(len(jumps.inflows), dtype=np.int64)
    events = 0 if guards is None else len(guards.events)
    frame[slots.GUARD_SIGNS], frame[slots.GUARD_HITS] = np.zeros(events), np.zeros(2 * events, dtype=np.int64)
    frame[slots.GUARD_VALUES], frame[slots.EVENT_WORK] = np.zeros((8, events)), np.zeros((4, n if events else 0))
    frame[slots.MIDDLE_T] = np.zeros(1)
    if guards is not None:
        frame[slots.GUARDS], frame[slots.GLANCE] = guards.guards.handle, guards.glance.handle
        frame[slots.RESETS] = guards.resets.handle


def _put_rules(frame: Frame, jumps: Jumps, n: int, dynamics: Dynamics) -> None:
    """Fill the slots that all passes have for what derivatives do at jumps."""
    guards = jumps.guards
    frame[slots.EVENT_RATE], frame[slots.JUMP_WORK] = np.zeros(1), np.zeros((10, n))
    frame[slots.JUMP_THETA] = np.zeros(frame[slots.THETA].size)
    frame[slots.MASS_INVERSE] = np.zeros((0, n)) if dynamics.mass is None or not jumps.move else dynamics.mass.inverse
    if guards is not None:
        frame[slots.GUARDS_VJP], frame[slots.GUARDS_DT] = guards.guards_vjp.handle, guards.guards_dt.handle
        frame[slots.RESETS_DT] = guards.resets_dt.handle


def put_jumps_along(frame: Frame, jumps: Jumps, n: int, k: int, dynamics: Dynamics) -> None:
    """Fill the slots that tangents in k directions have for jumps."""
    _put_what_is_given(frame, jumps)
    frame[slots.ONGOING], frame[slots.TIME_DOTS] = np.zeros(len(jumps.inflows), dtype=np.int64), np.zeros(k)
    _put_rules(frame, jumps, n, dynamics)
    if jumps.guards is not None:
        frame[slots.RESETS_JVP] = jumps.guards.resets_jvp.handle


def put_jumps_back(frame: Frame, jumps: Jumps, n: int, dynamics: Dynamics) -> None:
    """Fill the slots that a backward pass has for jumps; those of what has happened are the trajectory's."""
    _put_what_is_given(frame, jumps)
    if jumps:
        frame[slots.F] = dynamics.f.handle
    frame[slots.SHIFT], frame[slots.JUMP_BARS] = slots.SHIFT.zeros(), np.zeros(0)
    _put_rules(frame, jumps, n, dynamics)
    if jumps.guards is not None:
        frame[slots.RESETS_VJP] = jumps.guards.resets_vjp.handle
