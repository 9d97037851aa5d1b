"""The integrals of a running cost: what passes need for them, and a pass along a trajectory for these alone."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from adjode.adjoints import products
from adjode.adjoints.cost_looks import LOOKS
from adjode.adjoints.costs import ABSOLUTE, MOST_PARTS, make_costs, note
from adjode.compile import slots
from adjode.compile.calls import PORTABLE
from adjode.compile.entries import entry
from adjode.compile.flags import i8, matrix, vector
from adjode.compile.frame import Frame
from adjode.compile.views import invoke, row, segment
from adjode.loops.quadrature import GAUSS
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics
from adjode.model.switches import switches_of_cost
from adjode.passes.base import put_method
from adjode.passes.options import SolveOptions
from adjode.passes.replay import Replay
from adjode.passes.result import PullbackStats, find_cause
from adjode.passes.segmented import SegmentedOutput
from adjode.passes.span import Span
from adjode.passes.trajectory import DenseOutput, Trajectory
from adjode.status import CALLBACK_RAISED, MAX_STEPS, STEP_TOO_SMALL, SUCCESS, SolveError, solve_error

# Absolute tolerances are no more than half of rtol in size (loops/tolerances.py), and where a cost oscillates that is all there is,
# since lam is small. Where nothing cancels, twice rtol of it.
_OF_ALL = 4.0
_FIRST_PIECES = 512  # that there is room for at first

_HINTS = {
    MAX_STEPS: "That is of pieces, for the quadrature of the running cost, which may oscillate faster or not be smooth",
    STEP_TOO_SMALL: "This is the quadrature of the running cost: its integrand may be singular here",
}


def breaks_of_cost(cost: tuple[Callback, Callback] | None, span: Span) -> np.ndarray:
    """The times at which a running cost may jump, rising."""
    return np.zeros(0) if cost is None else switches_of_cost(cost[0]).within(span.ends)


def put_costs(
    frame: Frame, options: SolveOptions, n: int, span: Span, cost: tuple[Callback, Callback] | None, columns: int, parts: int = 0
) -> None:
    """Fill the slots of adjoints/costs.py: for so many integrands, and parts of the span with limits to the steps of lam."""
    frame[slots.COST] = slots.COST.fill(
        cost_unit=options.unit_error(n),
        cost_span=span.length,
        spacing=span.length / LOOKS,
        most_pieces=options.max_steps,
        pieces=0,
        looks=0,
        piece_t=0,
        piece_h=0,
    )
    frame[slots.COST_BREAKS] = span.elapsed(breaks_of_cost(cost, span))
    frame[slots.Q], frame[slots.COST_SUMS] = np.zeros((6, columns)), np.zeros((5, columns))
    frame[slots.COST_GROUPS], frame[slots.DRIVEN] = np.zeros((3, 3)), np.zeros((parts, 3))


def quadrature_error(
    frame: Frame,
    status: int,
    dynamics: Dynamics,
    cost: tuple[Callback, Callback],
    span: Span,
    state: DenseOutput | SegmentedOutput,
    seconds: float | None,
) -> SolveError:
    """What the end of a quadrature with this status is called; `state` is the forward solution."""
    numbers, theta, cause = frame[slots.COST], frame[slots.THETA], None
    start, h = float(numbers[slots.PIECE_T]), float(numbers[slots.PIECE_H])
    if status == CALLBACK_RAISED:
        times = span.time(np.linspace(start - h, start + h, 17))
        places = [(float(time), np.zeros(frame[slots.U].size)) for time in times]
        cause = find_cause(dynamics, theta, state, cost, places)
    return solve_error(
        status,
        phase="adjoint",
        t=float(span.time(start)),
        step_size=h,
        max_steps=int(numbers[slots.MOST_PIECES]),
        max_seconds=seconds,
        callback="the running cost (or its derivatives)",
        cause=cause,
        hint=_HINTS.get(status, ""),
    )


class Costs(Replay):
    """The running cost along a trajectory, which `follow` names.

    Parameters
    ----------
    dynamics : Dynamics
    options : SolveOptions
        Of the forward pass.
    theta : (m,) array
    n : int
    span : Span
        Of that pass.
    cost : pair of Callbacks
    wants_theta, wants_lam : bool
        Whether to integrate its derivatives by theta; whether by u.
    max_seconds : float, optional
    """

    def __init__(
        self,
        dynamics: Dynamics,
        options: SolveOptions,
        theta: np.ndarray,
        n: int,
        span: Span,
        cost: tuple[Callback, Callback],
        *,
        wants_theta: bool,
        wants_lam: bool,
        max_seconds: float | None = None,
    ):
        super().__init__(dynamics, max_seconds)
        frame, self.span, self.theta, self.cost = self.frame, span, theta, cost
        m = theta.size if wants_theta else 0
        products.put_products(frame, dynamics, theta, n, wants_theta=m > 0, running_cost=cost, short=False)
        put_method(frame, options.tableau, GAUSS)
        parts = MOST_PARTS if wants_lam and options.adaptive else 0
        put_costs(frame, options, n, span, cost, 1 + (n + m if wants_lam else 0), parts)
        frame[slots.TIME_SPAN], frame[slots.COUNT] = span.numbers, slots.COUNT.zeros()
        frame[slots.LIMITED], frame[slots.U_FLOOR] = np.zeros(2, dtype=np.int64), options.least_sizes(n)
        frame.allocate({slots.U: (n,), slots.Y: (n,), slots.TOTAL: (m + 1,)})
        self.entry_name, self.make = "costs", make_costs

    @property
    def entry(self):
        """Of the portable tier, as it calls no callbacks but those of the cost, which are not inlined."""
        return PORTABLE.entry(self.entry_name, self.frame, self.make)

    @property
    def running_cost(self) -> float:
        return float(self.frame[slots.TOTAL][-1])

    @property
    def theta_bar(self) -> np.ndarray:
        """The integral of dg/dtheta."""
        return self.frame[slots.TOTAL][:-1]

    @property
    def size(self) -> float:
        """The least size of lam for its tolerances, by the largest logarithmic derivative that |dg/du| may add to it."""
        return _OF_ALL * float(np.max(self.frame[slots.COST_SUMS][ABSOLUTE, 1 : 1 + self.frame[slots.U].size], initial=0.0))

    def add_work(self, stats: PullbackStats) -> None:
        add_work(self.frame, stats)

    def error(self, status: int, state: DenseOutput | SegmentedOutput) -> SolveError:
        return quadrature_error(self.frame, status, self.dynamics, self.cost, self.span, state, self.max_seconds)


class CostNodes(Costs):
    """The same, and the nodes of its quadrature: the cost is a weighed sum of g at these, of states that may be observed there.

    Attributes
    ----------
    times, weights : (c,) arrays
        At the end, the nodes, since the start of the solve, and their weights; from the last step to the first.
    """

    def __init__(self, dynamics: Dynamics, options: SolveOptions, theta: np.ndarray, n: int, span: Span, cost, max_seconds):
        super().__init__(dynamics, options, theta, n, span, cost, wants_theta=True, wants_lam=True, max_seconds=max_seconds)
        self.frame[slots.COST_PIECES], self.frame[slots.DRIVEN] = np.zeros((_FIRST_PIECES, 2)), np.zeros((0, 3))
        self.entry_name, self.make = "cost-nodes", functools.partial(make_costs, accept=note)

    def find(self, run: Callable[[], int], trajectory: Trajectory, count: np.ndarray) -> int:
        """Run along a trajectory, by `run`, and find the nodes; the status."""
        self.follow(trajectory, count)
        status, frame = run(), self.frame
        if (many := int(frame[slots.LIMITED][0])) > len(frame[slots.COST_PIECES]):
            frame[slots.COST_PIECES] = np.zeros((2 * many, 2))
            status = run()
        if status == SUCCESS:
            self.times, self.weights = self._nodes(trajectory, int(count[slots.STEPS]), *frame[slots.COST_PIECES][:many].T)
        return status

    def _nodes(self, trajectory: Trajectory, steps: int, left: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kinds, mesh_t, places = trajectory.kinds[:steps], trajectory.t, np.concatenate([[0.0], self.frame[slots.NODES], [1.0]])
        taken = np.flatnonzero(kinds < slots.CROSSING) if kinds.size else np.arange(steps)
        step = taken[::-1][np.cumsum(left + width == 1.0) - 1]  # the last piece of a step comes first
        ends, h = mesh_t[step + 1], mesh_t[step + 1] - mesh_t[step]
        if kinds.size:  # what is observed at the time of a jump is behind it
            at_jump = np.append(kinds, 0)[step + 1] >= slots.JUMP
            ends = ends - np.sign(h) * np.where(at_jump, np.minimum(2.0 * self.span.clearance, 0.5 * np.abs(h)), 0.0)
        x = left[:, None] + width[:, None] * places
        times = np.where(x == 1.0, ends[:, None], mesh_t[step][:, None] + x * h[:, None])
        return times.reshape(-1), ((width * h)[:, None] * self.frame[slots.WEIGHTS][0]).reshape(-1)


def _pull_nodes(g_vjp, g_vjp_dot, theta, theta_dots, times, weights, states, dots, u_bars, totals, work):
    n, m = states.shape[1], theta.size
    for j in range(times.size):
        u, bars, theta_bar = row(states, j), row(u_bars, j), segment(work, 0, m)
        status = invoke(g_vjp, times[j], (u, theta, segment(bars, 0, n), theta_bar))
        for i in range(m):
            totals[0, i] += weights[j] * theta_bar[i]
        for d in range(theta_dots.shape[0]):
            v, bar = segment(row(dots, j), d * n, n), segment(bars, (1 + d) * n, n)
            status |= invoke(g_vjp_dot, times[j], (u, theta, v, row(theta_dots, d), bar, theta_bar))
            for i in range(m):
                totals[1 + d, i] += weights[j] * theta_bar[i]
        for i in range(bars.size):
            bars[i] *= weights[j]
        if status != 0:
            return j
    return -1


@functools.cache
def _pull_nodes_entry() -> Callable:
    types = i8, i8, vector, matrix, vector, vector, matrix, matrix, matrix, matrix, vector
    return entry(_pull_nodes, types, "pull_nodes")


def pull_nodes(
    callbacks: tuple[Callback, Callback],
    parameters: tuple[np.ndarray, np.ndarray],
    nodes: tuple[np.ndarray, np.ndarray],
    states: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, int]:
    """The cotangents of states at the nodes of a running cost, and how they change.

    Parameters
    ----------
    callbacks
        The derivatives of g, and their tangents.
    parameters
        theta (m,) and its tangents (p, m).
    nodes
        Times (c,), of callbacks, and weights.
    states
        (c, n) there, and their tangents (c, p n).

    Returns
    -------
    u_bars : (c, (1 + p) n) array
        With the tangents behind.
    totals : (1 + p, m) array
        The same of theta.
    failed : int
        The node at which a callback has raised, or -1.
    """
    (g_vjp, g_vjp_dot), (theta, theta_dots), (c, n) = callbacks, parameters, states[0].shape
    u_bars, totals = np.zeros((c, (1 + len(theta_dots)) * n)), np.zeros((1 + len(theta_dots), theta.size))
    given = *parameters, *nodes, *states
    failed = _pull_nodes_entry()(g_vjp.handle, g_vjp_dot.handle, *map(np.ascontiguousarray, given), u_bars, totals, theta.copy())
    return u_bars, totals, failed


def add_work(frame: Frame, stats: PullbackStats) -> None:
    """Count the evaluations of a cost."""
    nodes, looks = int(frame[slots.COUNT][slots.COSTS]), int(frame[slots.COST][slots.LOOKS])
    stats.n_g += nodes + looks
    stats.n_g_vjp += nodes if frame[slots.Q].shape[1] > 1 else 0
