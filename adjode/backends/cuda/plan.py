"""What the kernel of an ensemble is compiled for: the frames of its passes, planned on the host.

The frames are those of the passes on the CPU, read here for their constants and shapes. What may change from call to call without
another compilation, tolerances and limits, is packed into one vector, `given`; integers that say what is due at stops into another,
`whats`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher

from adjode.adjoints import interpolating
from adjode.backends.cuda.callbacks import called_outside, on_device, replacements
from adjode.backends.cuda.layouts import (
    NEAR,
    PassPlan,
    PassPlanner,
    Whats,
    idle_stores,
    plan_ahead,
    plan_behind,
    plan_jumps,
    plan_loss,
)
from adjode.compile import slots
from adjode.compile.calls import UNROLLED, Calls
from adjode.compile.flags import DISABLED
from adjode.compile.slot import Slot
from adjode.compile.slots import RECORD_DENSE, RECORD_MESH, WHERE_OBSERVED
from adjode.model.dynamics import Dynamics
from adjode.model.inflows import with_inflows
from adjode.model.losses import (
    PreparedLeastSquares,
    PreparedLinear,
    PreparedLoss,
    PreparedObserved,
    Series,
    make_least_squares,
    make_linear,
    make_series,
)
from adjode.passes.discrete import Discrete
from adjode.passes.forward import Forward, jumps_of
from adjode.passes.jumps import NO_JUMPS, Jumps, JumpStore
from adjode.passes.options import SolveOptions, SweepOptions
from adjode.passes.span import Span
from adjode.passes.sweep import Sweep
from adjode.passes.trajectory import Trajectory
from adjode.tableaus import Tableau

_NO_TIMES = np.zeros(1)


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
    jumps : Jumps
    stops, stops_behind : arrays
        Of the passes of the first trajectory, the first in the time of users.
    whats : array of int
        See `PassPlan`.
    replaced : dict
        See `callbacks.replacements`.
    """

    n: int
    m: int
    k: int
    real: np.dtype
    own: frozenset[str]
    calls: Calls
    stages: tuple[int, int] | None
    forward: PassPlan
    backward: PassPlan | None = None
    loss: PassPlan | None = None
    discrete: bool = True
    wants: frozenset[str] = frozenset()
    q: int = 0
    judge: Callable | None = None
    judged_by: Any = None
    reads: frozenset[Slot] = frozenset()
    jumps: Jumps = NO_JUMPS
    stops: np.ndarray = field(default_factory=lambda: _NO_TIMES)
    stops_behind: np.ndarray = field(default_factory=lambda: _NO_TIMES)
    whats: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    replaced: dict[Callable, Callable] = field(default_factory=dict)

    @property
    def passes(self) -> tuple[PassPlan, ...]:
        return tuple(one for one in (self.forward, self.loss, self.backward) if one is not None)

    @property
    def key(self) -> tuple:
        """What distinguishes kernels for the same dynamics."""
        frames = tuple((one.layout.key, one.parts, one.whats) for one in self.passes)
        sizes, jumps = (self.n, self.m, self.k, self.q), (self.jumps.inflows, self.jumps.guards, self.jumps.actions)
        return sizes, self.own, self.wants, self.stages, self.discrete, self.judged_by, self.reads, frames, jumps

    @property
    def wants_theta(self) -> bool:
        return "theta" in self.wants and self.m > 0

    @property
    def near_theta(self) -> bool:
        """Whether parameters lie in a thread's own memory: few of them, or such as change on the way."""
        return self.m <= NEAR or bool(self.jumps.inflows)

    @property
    def doses(self) -> np.ndarray:
        return np.zeros((1, 5)) if self.jumps.doses is None else self.jumps.doses.numbers

    @property
    def given(self) -> np.ndarray:
        parts = [one.given for one in (self.forward, self.backward) if one is not None]
        return np.concatenate(parts).astype(self.real)

    @property
    def longest(self) -> float:
        """The most steps that a solve takes: at the cap on steps it ends, if there is room for one more."""
        crossings = 2 * (self.stops.size + self.jumps.actions)
        return np.inf if self.jumps.guards is not None else int(self.given[slots.MAX_ATTEMPTS]) + 1 + crossings

    @property
    def step_entries(self) -> int:
        """Numbers in a lane for each step."""
        return self.entries(1) - self.entries(0)

    def entries(self, capacity: int) -> int:
        """Numbers in a lane with room for `capacity` steps."""
        return sum(part.entries(capacity) for one in self.passes for part in one.parts)


def _near(k: int, n: int) -> bool:
    return k * n <= NEAR


def plan_solve(
    dynamics: Dynamics,
    options: SolveOptions,
    sizes: tuple[int, int, int],
    real: np.dtype,
    own: frozenset[str],
    t_span: tuple[float, float],
) -> Plan:
    """The forward pass alone, which writes the states at k times down; `sizes` are n, m and k, `t_span` that of one trajectory."""
    n, m, k = sizes
    jumps = jumps_of(dynamics, options, n, m, t_span)
    device = on_device(with_inflows(dynamics, jumps.inflows, m), n)
    forward = _forward(device, options, sizes, t_span, 0, jumps)
    frame, whats, outside = forward.frame, Whats(), called_outside(device, jumps, False)
    ahead = PassPlanner(frame, real, whats, outside)
    ahead.local(idle_stores(frame))
    plan_jumps(ahead, jumps, n, recorded=False)
    return Plan(
        *sizes,
        real,
        own,
        device.calls,
        _stages(options.tableau, n),
        ahead.plan(),
        jumps=jumps,
        stops=forward.stops,
        whats=whats.array,
        replaced=replacements(outside, _joined(dynamics, jumps, outside), n),
    )


def plan_gradient(
    dynamics: Dynamics,
    options: SolveOptions,
    sizes: tuple[int, int, int],
    real: np.dtype,
    own: frozenset[str],
    t_span: tuple[float, float],
    *,
    loss: PreparedLoss,
    sweep: SweepOptions | None,
    wants: frozenset[str],
) -> Plan:
    """All passes: forward, loss, backward; `sizes` are n, m and k, `t_span` that of one trajectory."""
    n, m, k = sizes
    jumps = jumps_of(dynamics, options, n, m, t_span)
    device = on_device(with_inflows(dynamics, jumps.inflows, m), n)
    whats, outside, far = Whats(), called_outside(device, jumps, True), not _near(k, n)
    record = RECORD_DENSE
    if sweep is None:  # with slopes where times are observed on steps that move
        record = RECORD_DENSE | WHERE_OBSERVED if jumps.move else RECORD_MESH
    forward = _forward(device, options, sizes, t_span, record, jumps)
    judge = plan_loss(loss, real, k, n, far)
    ahead = plan_ahead(PassPlanner(forward.frame, real, whats, outside), forward, far)
    backward: Discrete | Sweep
    if sweep is None:
        seeds = np.zeros(n), np.zeros(k), np.zeros((k, n))
        span, theta = Span(*t_span), jumps.extended(np.zeros(m))
        wants_theta = "theta" in wants and m > 0
        backward = Discrete(device, options, None, span, theta, *seeds, wants_theta=wants_theta, jumps=jumps)
    else:
        backward = _sweep(device, sizes, t_span, loss, sweep, "theta" in wants and m > 0, jumps)
    behind = plan_behind(PassPlanner(backward.frame, real, whats, outside), backward, ahead, jumps, far)
    return Plan(
        *sizes,
        real,
        own,
        device.calls,
        _stages(options.tableau, n),
        forward=ahead.plan(),
        backward=behind.plan(starts_elsewhere=False),
        loss=judge,
        discrete=sweep is None,
        wants=wants,
        q=loss.rows.size,
        judge=_judge(loss),
        judged_by=getattr(loss.loss, "value_and_cotangent", type(loss)),
        reads=frozenset(loss.data),
        jumps=jumps,
        stops=forward.stops,
        stops_behind=backward.stops if isinstance(backward, Sweep) else _NO_TIMES,
        whats=whats.array,
        replaced=replacements(outside, _joined(dynamics, jumps, outside), n),
    )


def _stages(tableau: Tableau, n: int) -> tuple[int, int] | None:
    """The stages as constants, for a small system."""
    return None if n > UNROLLED else (tableau.stages, tableau.P.shape[0] - 1)


# --- passes on the CPU ---------------------------------------------------------------------------------------------------------


def _forward(
    device: Dynamics, options: SolveOptions, sizes: tuple[int, int, int], t_span: tuple[float, float], record: int, jumps: Jumps
) -> Forward:
    n, m, k = sizes
    start = np.zeros(n), jumps.extended(np.zeros(m))
    return Forward(device, options, None, *start, t_span, record=record, times=np.full(k, t_span[0]), jumps=jumps)


def _sweep(
    device: Dynamics,
    sizes: tuple[int, int, int],
    t_span: tuple[float, float],
    loss: PreparedLoss,
    sweep: SweepOptions,
    wants_theta: bool,
    jumps: Jumps,
) -> Sweep:
    n, m, k = sizes
    observed = loss.times, np.zeros((k, n)), t_span[0]
    backward = interpolating.prepare_observed(*observed, sweep.atol, sweep.stops, t_span[1] >= t_span[0])
    theta = jumps.extended(np.zeros(m))
    made = Sweep(device, Span(*t_span), theta, backward, sweep, wants_theta=wants_theta, jumps=jumps)
    trajectory = Trajectory.empty(n, 1, 1, 0)
    trajectory.jumps = JumpStore.empty(jumps, n)
    made.follow(trajectory, slots.COUNT.zeros())
    made.frame[slots.SETTING][slots.JUDGED] = 0
    return made


def _joined(dynamics: Dynamics, jumps: Jumps, outside: dict[Slot, Any]) -> list[Any]:
    """The callbacks that others call which have been written for them."""
    joined: list[Any] = list(dynamics.callbacks) if jumps.inflows else []
    if jumps.inflows and slots.F_DT in outside:
        joined.append(dynamics.f_dt)
    return joined + ([] if jumps.guards is None else jumps.guards.parts(slots.F in outside))


def _judge(loss: PreparedLoss) -> Callable:
    if isinstance(loss, PreparedObserved):
        raise ValueError("backend='cuda' does not support losses of a function of the state and theta: use backend='threads'.")
    if isinstance(loss.loss, Series):
        function = loss.loss.value_and_cotangent
        if not (DISABLED or isinstance(function, Dispatcher)):
            raise TypeError("value_and_cotangent is plain Python, which no GPU can call: decorate it with @numba.njit.")
        return make_series(function)
    if not isinstance(loss, (PreparedLinear, PreparedLeastSquares)):
        raise ValueError(f"backend='cuda' does not support losses of {type(loss.loss).__name__}: use backend='threads'.")
    return make_linear() if isinstance(loss, PreparedLinear) else make_least_squares()
