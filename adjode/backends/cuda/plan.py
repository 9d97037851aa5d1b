"""What the kernel of an ensemble is compiled for: the frames of its passes, planned on the host.

The frames are those of the passes on the CPU, read here for their constants and shapes. What may change from call to call without
another compilation, tolerances and limits, is packed into one vector, `given`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher

from adjode.adjoints import interpolating
from adjode.backends.cuda.frames import Layout
from adjode.compile import slots
from adjode.compile.calls import UNROLLED, Calls, call_kernel
from adjode.compile.flags import DISABLED, kernel
from adjode.compile.frame import Frame
from adjode.compile.kinds import KINDS
from adjode.compile.slot import Group, Slot
from adjode.compile.slots import RECORD_DENSE, RECORD_MESH
from adjode.model.dynamics import Dynamics
from adjode.model.losses import PreparedLinear, PreparedLoss, PreparedObserved, Series, make_least_squares, make_linear, make_series
from adjode.passes.discrete import Discrete
from adjode.passes.forward import Forward
from adjode.passes.options import SolveOptions, SweepOptions
from adjode.passes.span import Span
from adjode.passes.sweep import Sweep
from adjode.passes.trajectory import Trajectory
from adjode.status import CALLBACK_RAISED
from adjode.tableaus import Tableau

_NEAR = 32  # numbers up to which observed states and parameters lie in a thread's own memory
Entries = dict[Slot, tuple[int | None, ...]]


@dataclass(frozen=True, eq=False)
class PassPlan:
    """The frame of one pass, and the contents of its CONTROL and ATOL."""

    layout: Layout
    given: np.ndarray


@dataclass(frozen=True, eq=False)
class Plan:
    """
    Attributes
    ----------
    n, m, k : int
        Numbers of states, parameters and observation times.
    q : int
        How many observations the loss has, some of them perhaps at equal times.
    real : dtype
    own : frozenset of str
        Which of "u0", "theta", "span", "times", and of the loss's "data" and "weights", every trajectory has its own of.
    calls : Calls
    stages : pair of ints or None
        As in `Calls.entry`.
    forward : PassPlan
    backward, loss : PassPlan or None
        None where there is no such pass.
    discrete : bool
    wants : frozenset of str
    judge : callable or None
        The kernel of the loss.
    judged_by : object
        What distinguishes it.
    reads : frozenset of int
        The slots of data that it reads.
    """

    n: int
    m: int
    k: int
    real: np.dtype
    own: frozenset[str]
    calls: Calls
    stages: tuple[int, int] | None
    degree: int
    forward: PassPlan
    backward: PassPlan | None = None
    loss: PassPlan | None = None
    discrete: bool = True
    wants: frozenset[str] = frozenset()
    q: int = 0
    judge: Callable | None = None
    judged_by: Any = None
    reads: frozenset[Slot] = frozenset()

    @property
    def key(self) -> tuple:
        """What distinguishes kernels for the same dynamics."""
        layouts = tuple(one.layout.key for one in (self.forward, self.backward, self.loss) if one is not None)
        sizes = self.n, self.m, self.k, self.q
        return sizes, self.own, self.wants, self.stages, self.discrete, self.judged_by, self.reads, layouts

    @property
    def wants_theta(self) -> bool:
        return "theta" in self.wants and self.m > 0

    @property
    def near_theta(self) -> bool:
        return self.m <= _NEAR

    @property
    def near_observed(self) -> bool:
        return _near(self.k, self.n)

    @property
    def given(self) -> np.ndarray:
        parts = [one.given for one in (self.forward, self.backward) if one is not None]
        return np.concatenate(parts).astype(self.real)

    @property
    def fixed_entries(self) -> int:
        """Numbers in a lane before those of the steps: observed states and their cotangents."""
        return 0 if self.near_observed or self.backward is None else 2 * self.k * self.n

    @property
    def step_entries(self) -> int:
        """Numbers in a lane for each step."""
        if self.backward is None:
            return 0
        return 1 + self.n + (0 if self.discrete else self.degree * self.n)

    def entries(self, capacity: int) -> int:
        """Numbers in a lane with room for `capacity` steps."""
        if self.backward is None:
            return 0
        return self.fixed_entries + self.step_entries * capacity + 1 + self.n


def _near(k: int, n: int) -> bool:
    return k * n <= _NEAR


def plan_solve(
    dynamics: Dynamics,
    options: SolveOptions,
    sizes: tuple[int, int, int],
    real: np.dtype,
    own: frozenset[str],
) -> Plan:
    """The forward pass alone, which writes the states at k times down; `sizes` are n, m and k."""
    n, m, k = sizes
    device, method = _on_device(dynamics), _method(options.tableau, n)
    frame = _forward_frame(device, options, n, m, k, 0)
    return Plan(n, m, k, real, own, device.calls, *method, forward=_pass_plan(frame, real, _idle_stores(frame), {}))


def plan_gradient(
    dynamics: Dynamics,
    options: SolveOptions,
    sizes: tuple[int, int, int],
    real: np.dtype,
    own: frozenset[str],
    *,
    loss: PreparedLoss,
    sweep: SweepOptions | None,
    wants: frozenset[str],
) -> Plan:
    """All passes: forward, loss, backward; `sizes` are n, m and k."""
    n, m, k = sizes
    wants_theta = "theta" in wants and m > 0
    device, tableau = _on_device(dynamics), options.tableau
    discrete, far = sweep is None, not _near(k, n)
    states, degree = (None, n), tableau.P.shape[1]
    observed: Entries = {slots.OBSERVED: states} if far else {}
    dense: Entries = {} if discrete else {slots.MESH_C: (None, degree, n)}
    forward = _forward_frame(device, options, n, m, k, RECORD_MESH if discrete else RECORD_DENSE)
    idle = {slots.STAGES: forward[slots.STAGES].shape} | ({slots.MESH_C: (1, degree, n)} if discrete else {})
    if not far:
        idle[slots.OBSERVED] = (k, n)
    ahead = _pass_plan(forward, real, idle, {slots.MESH_T: (None,), slots.MESH_U: states} | dense | observed)
    back_lanes: Entries = {slots.FORWARD_T: (None,), slots.FORWARD_U: states}
    back_lanes |= {} if discrete else {slots.FORWARD_C: (None, degree, n)}
    back_lanes |= {slots.JUMPS: states} if far else {}
    if sweep is None:
        seeds = np.zeros(n), np.zeros(k), np.zeros((k, n))
        backward = Discrete(device, options, None, Span(0.0, 1.0), np.zeros(m), *seeds, wants_theta=wants_theta).frame
        idle = {slots.STAGES: backward[slots.STAGES].shape}
    else:
        backward = _interpolating_frame(device, n, m, k, sweep, wants_theta)
        idle = _idle_stores(backward)
    return Plan(
        n,
        m,
        k,
        real,
        own,
        device.calls,
        *_method(tableau, n),
        forward=ahead,
        backward=_pass_plan(backward, real, idle, back_lanes, starts_elsewhere=False),
        loss=_loss_plan(loss, real, k, n, far),
        discrete=discrete,
        wants=wants,
        q=loss.rows.size,
        judge=_judge(loss),
        judged_by=getattr(loss.loss, "value_and_cotangent", type(loss)),
        reads=frozenset(loss.data),
    )


def _method(tableau: Tableau, n: int) -> tuple[tuple[int, int] | None, int]:
    """The stages as constants, for a small system, and the degree of the dense output."""
    stages, degree = tableau.P.shape
    return (None if n > UNROLLED else (tableau.stages, stages - 1)), degree


def _on_device(dynamics: Dynamics) -> Dynamics:
    device = copy.copy(dynamics)
    device.calls = device_calls(dynamics)
    return device


def _forward_frame(device: Dynamics, options: SolveOptions, n: int, m: int, k: int, record: int) -> Frame:
    return Forward(device, options, None, np.zeros(n), np.zeros(m), (0.0, 1.0), record=record, times=np.zeros(k)).frame


def _interpolating_frame(device: Dynamics, n: int, m: int, k: int, sweep: SweepOptions, wants_theta: bool) -> Frame:
    backward = interpolating.prepare_observed(np.zeros(k), np.zeros((k, n)), 0.0, sweep.atol, sweep.stops, True)
    made = Sweep(device, Span(0.0, 1.0), np.zeros(m), backward, sweep, wants_theta=wants_theta)
    made.follow(Trajectory.empty(n, 1, 1, 0), slots.COUNT.zeros())
    made.frame[slots.SETTING][slots.JUDGED] = 0
    return made.frame


def _idle_stores(frame: Frame) -> dict[Slot, tuple[int, ...]]:
    """The stores of a pass that records nothing: room for the step being taken."""
    return {slot: frame[slot].shape for slot in (slots.STAGES, slots.MESH_T, slots.MESH_U, slots.MESH_C)}


def _pass_plan(
    frame: Frame, real: np.dtype, idle: dict[Slot, tuple[int, ...]], lanes: Entries, starts_elsewhere: bool = True
) -> PassPlan:
    """`idle` are stores that lie in local memory."""
    known = frame.known()
    sized = {slot: shape for slot, shape in known.shapes.items() if slot.group < Group.STORE}
    empty: dict[Slot, tuple[int, ...]] = dict.fromkeys((slots.MESH_KIND, slots.FORWARD_KIND, slots.JUMP_ROWS, slots.CROSSED), (0,))
    empty |= dict.fromkeys((slots.DOSE_ENTRIES, slots.JUMP_WHAT, slots.JUMP_T), (0,))
    empty |= {slots.LIMITED: (2,), slots.LIMITS: (0, 3), slots.CELLS: (0, 10)}  # TRUST is zeros: nothing is judged
    empty |= {slots.FLOOR_BEHIND: (0,), slots.ATOL_AT_MOST: frame[slots.ATOL_AT_MOST].shape if starts_elsewhere else (0,)}
    if starts_elsewhere:
        del sized[slots.START]
    if sized[slots.THETA][0] > _NEAR:
        del sized[slots.THETA]
    tolerances = (slots.CONTROL, slots.ATOL, slots.U_FLOOR) if slots.CONTROL in sized else ()
    given = [frame[slot].copy() for slot in tolerances if slot in sized]
    if given:
        given[0][slots.EPS] = np.finfo(real).eps
    return PassPlan(Layout(real, known.constants, sized | idle | empty, lanes), np.concatenate(given) if given else np.zeros(0))


def _loss_plan(loss: PreparedLoss, real: np.dtype, k: int, n: int, far: bool) -> PassPlan:
    local: dict[Slot, tuple[int, ...]] = {slots.U_BAR: (n,), slots.VALUE: (1,), slots.DIRECT: (0,)}
    lanes: Entries = {slots.OBSERVED: (None, n), slots.JUMPS: (None, n)}
    if not far:
        lanes, local[slots.JUMPS] = {}, (k, n)
    return PassPlan(Layout(real, loss.frame.known().constants, local, lanes), np.zeros(0))


def _judge(loss: PreparedLoss) -> Callable:
    if isinstance(loss, PreparedObserved):
        raise ValueError("backend='cuda' knows no losses of a function of the state and theta: use backend='threads'.")
    if isinstance(loss.loss, Series):
        function = loss.loss.value_and_cotangent
        if not (DISABLED or isinstance(function, Dispatcher)):
            raise TypeError("value_and_cotangent is plain Python, which no GPU can call: decorate it with @numba.njit.")
        return make_series(function)
    return make_linear() if isinstance(loss, PreparedLinear) else make_least_squares()


# --- the user's functions ---------------------------------------------------------------------------------------------------


def device_calls(dynamics: Dynamics) -> Calls:
    """Calls of the user's functions on a device, where an exception ends the thread: its status then stays CALLBACK_RAISED."""
    guard = _guarded if DISABLED else _unguarded

    @kernel
    def absent(frame, *arguments):
        return CALLBACK_RAISED  # never called

    kernels = dict.fromkeys(KINDS, absent)
    for callback in dynamics.callbacks:
        function = guard(callback.as_written)
        kernels[callback.name] = call_kernel(KINDS[callback.name], "function(t, {arrays})", function=function)
    return Calls(kernels, None, fused=True)


def _unguarded(function: Callable) -> Callable:
    @kernel
    def call(*arguments):
        function(*arguments)
        return 0

    return call


def _guarded(function: Callable) -> Callable:
    def call(*arguments):
        try:
            function(*arguments)
        except Exception:  # whatever the user's code raises; on a device this is what the hardware's exit is
            return CALLBACK_RAISED
        return 0

    return call
