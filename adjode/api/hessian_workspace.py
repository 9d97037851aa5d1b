"""What a Hessian-vector product runs: a solve, tangents along its steps, and the adjoint with its tangents back along both."""

from __future__ import annotations

from typing import Any

import numpy as np

from adjode.api.first_calls import backward_parts, cost_parts, forward_parts, try_behind
from adjode.api.gradient import require_observed
from adjode.api.seeds import curvature_of_cost, read_cost, require_fixed_jumps
from adjode.api.solution import Solution
from adjode.api.solve import solve
from adjode.api.tangents import try_tangents
from adjode.compile import slots
from adjode.compile.slots import RECORD_DENSE, RECORD_STAGES
from adjode.derivatives.proof import require_derived_loss, require_derived_rule, require_second_of_loss, require_vjp_dot
from adjode.linalg.structure import Structure
from adjode.model.dynamics import Dynamics
from adjode.model.fields import Pair
from adjode.model.inflows import with_inflows
from adjode.model.layout import Layout
from adjode.model.losses import PreparedLoss, PreparedObserved
from adjode.model.losses.second_order import tangents_of_cotangents
from adjode.passes.costs import CostNodes, pull_nodes
from adjode.passes.discrete import jumps_at_start
from adjode.passes.forward import observing
from adjode.passes.jump_curvatures import JumpCurvatures
from adjode.passes.jumps import Jumps
from adjode.passes.options import SolveOptions
from adjode.passes.program import Program
from adjode.passes.result import HessianStats, PullbackStats
from adjode.passes.rows import Rows, probe, solve_until_served
from adjode.passes.second_order import SecondOrder
from adjode.passes.tangents import TangentPass
from adjode.passes.trajectory import evaluate
from adjode.status import CALLBACK_RAISED, REFINE, SUCCESS, TIMED_OUT, solve_error


class Cost:
    """A running cost as it is given, with `fields` of states and parameters.

    Attributes
    ----------
    functions : pair of Callbacks
        It and its derivatives.
    vjp_dot : Callback
        The tangents of these.
    parts : list of Part
        What is called, for trials.
    """

    def __init__(self, given: Any, fields: Pair):
        self.functions = read_cost(given, fields)
        require_fixed_jumps(self.functions)
        self.vjp_dot, self._is_derived = curvature_of_cost(self.functions[0]), callable(given)
        self.parts = cost_parts(self.functions, wants_theta=True)

    def require_derived(self, times: np.ndarray, states: np.ndarray, theta: np.ndarray) -> None:
        """Hold what has been derived against differences."""
        if self._is_derived:
            name = self.functions[0].source.__name__
            require_derived_rule(f"the running cost {name}", self.functions, times, states, theta, instead=": give (g, g_vjp)")


class Workspace:
    """The passes of one call with all their buffers, made once and run many times."""

    def __init__(
        self,
        dynamics: Dynamics,
        options: SolveOptions,
        structure: Structure | None,
        loss: PreparedLoss,
        t_span: tuple[float, float],
        sizes: tuple[int, int, int],
        cost: Cost | None,
        on_inaccurate: str,
        solve_options: dict[str, Any],
    ):
        n, m, k = sizes
        self.dynamics, self.options, self.loss, self.t_span = dynamics, options, loss, t_span
        self.cost, self.solve_options = cost, solve_options
        self.is_solved = self.is_tried = self._has_cotangents = False
        self.forward, self.u0, self.theta = observing(dynamics, options, structure, loss, t_span, (n, m), self._record)
        curved = with_inflows(dynamics, self.forward.jumps.inflows, m, second_order=True)
        dynamics, span, theta, jumps = self.forward.problem
        functions, limit = None if cost is None else cost.functions, options.max_seconds
        theta_dots, times = np.zeros((k, theta.size)), self.forward.frame[slots.TIMES]
        self.u_dots, self.theta_dots = np.zeros((k, n)), theta_dots[:, :m]
        given = curved, options, structure, span, theta
        how: Any = {"recorded": True, "laces": False, "max_seconds": limit, "jumps": jumps}
        self.tangents = TangentPass(*given, self.u_dots, theta_dots, times, **how)
        curvatures = JumpCurvatures(curved, jumps, span, m, functions) if jumps else None
        self.second = SecondOrder(*given, self.tangents, max_seconds=limit, curvatures=curvatures)
        self.rows = self.nodes = None
        if options.unit_error(n):
            how = {"wants_theta": True, "on_inaccurate": on_inaccurate, "jumps": jumps, "cost": functions}
            self.rows = Rows(dynamics, options, structure, self.forward, theta, loss.times, m, **how)
        if functions is not None:
            self.nodes = CostNodes(dynamics, options, theta, n, span, functions, limit)
        behind = [one for one in (self.tangents, self.second, self.nodes) if one is not None]
        self.forward.measure_for(*(one.frame for one in behind))
        for one in behind:
            one.share_watch(self.forward.watch)
        self.solving, self._followed = Program(self.forward), (np.zeros(0), np.zeros(0))
        self._follow()
        self._observe(np.zeros(0))
        self.pushing, self.pulling = Program(backward=self.tangents, goes_on=True), Program(backward=self.second, goes_on=True)
        self.weighing = None if self.nodes is None else Program(backward=self.nodes, goes_on=True)

    def _record(self, jumps: Jumps) -> int:
        """What is kept of each step."""
        return RECORD_STAGES | (RECORD_DENSE if jumps or self.cost is not None else 0)

    def run(
        self,
        layout: Layout,
        u0: np.ndarray,
        theta: np.ndarray,
        u_dots: np.ndarray,
        theta_dots: np.ndarray,
    ) -> tuple[float, np.ndarray, np.ndarray, HessianStats]:
        """See `HessianVectorProduct.evaluate`."""
        work = self._solve(layout, u0, theta)
        self.u_dots[:], self.theta_dots[:] = u_dots, theta_dots
        forward = self.forward
        self._follow()
        if (status := self.pushing.run()) != SUCCESS:
            raise self.tangents.error(status, self._dense(status))
        if not self.is_tried:
            self._try_tangents()
        if self.rows is not None:
            self.rows.backward.warn_if_inaccurate(stacklevel=4)
        direct = self._put_cotangents(forward.frame[slots.OBSERVED])
        if (status := self.pulling.run()) != SUCCESS:
            raise self._error(status)
        lams, totals = self.second.lams.copy(), self.second.totals.copy()
        if not jumps_at_start(forward.trajectory.kinds):
            lams += self.second.u_bars[self.second.frame[slots.TIMES] == forward.t_start].sum(axis=0)
        value = float(self.loss.value[0]) + (0.0 if self.nodes is None else self.nodes.running_cost)
        return value, lams, totals[:, : self.theta.size] + direct, self._stats(work)

    def _solution(self) -> Solution:
        """The same, step by step, for messages."""
        return solve(self.dynamics, self.u0, self.theta, self.t_span, **self.solve_options)

    def _dense(self, status: int) -> Any:
        """The states, for the message of a pass that ended with this status; none where there is no time left."""
        return None if status == TIMED_OUT else self._solution().dense

    def _follow(self) -> None:
        """Have the passes behind read from where the steps are, and the tangents of their stages."""
        trajectory, count = self.forward.trajectory, self.forward.count
        places = trajectory.t, self.tangents.keep_states(self.forward.steps)
        if not all(one is other for one, other in zip(places, self._followed, strict=True)):
            self._followed = places
            self.tangents.follow(trajectory, count)
            self.second.follow(trajectory, count)

    def _solve(self, layout: Layout, u0: np.ndarray, theta: np.ndarray) -> PullbackStats:
        """Solve forwards, unless this was the last point, in steps that serve the gradient; the work."""
        if self.is_solved and (u0 == self.u0).all() and (theta == self.theta).all():
            return PullbackStats()
        self.is_solved = self._is_judging = self._has_cotangents = False
        self.u0[:], self.theta[:] = u0, theta
        if (status := solve_until_served(self.solving, self._judge)) != SUCCESS:
            if self.rows is not None and self._is_judging:
                raise self.rows.backward.error(status, self._dense(status))
            raise self.forward.error(status, layout)
        if not self._has_seen_all:
            require_observed(self._solution(), self.loss.times)
        self._find_nodes()
        if not self.is_tried:
            times, states = self.forward.places()
            parts = [*forward_parts(self.dynamics, self.options), *backward_parts(self.dynamics, wants_theta=True)]
            if self.cost is not None:
                parts += self.cost.parts
                self.cost.require_derived(times, states, theta)
            try_behind(self.dynamics, parts, times, states, theta)
            require_vjp_dot(self.dynamics, times, states, theta)
        self.is_solved, work = True, PullbackStats(n_f=self.forward.derivatives)
        if self.rows is not None:
            self.rows.backward.add_work(work)
        return work

    def _judge(self) -> int:
        """Whether the steps serve the gradient; of a loss that owes nothing to the states, what is seen of them."""
        if self.rows is None or not self._has_seen_all:
            return SUCCESS
        observed, loss = self.forward.frame[slots.OBSERVED], self.loss
        loss.observe(observed, self.theta)
        if not np.isfinite(loss.run()):
            loss.explain()
        self._has_cotangents, u_bars = True, loss.u_bars
        if not u_bars.any() and self.cost is None:
            sizes = np.abs(observed).max(axis=0, initial=0.0) + self.options.least_sizes(self.u0.size)
            u_bars = probe(*u_bars.shape) / sizes
        status = self.rows.pull(u_bars)
        self._is_judging = status != REFINE
        return status

    @property
    def _has_seen_all(self) -> bool:
        """Whether no event has ended the solution before the last observation."""
        return self.forward.count[slots.SEEN] == self.loss.times.size

    def _find_nodes(self) -> None:
        """Observe the nodes of the running cost too, if there is one."""
        if self.nodes is None or self.weighing is None:
            return
        trajectory, steps = self.forward.trajectory, self.forward.steps
        if (status := self.nodes.find(self.weighing.run, trajectory, self.forward.count)) != SUCCESS:
            raise self.nodes.error(status, self._dense(status))
        self._observe(self.nodes.times)
        self._states = np.empty((self.nodes.times.size, self.u0.size))
        evaluate(trajectory.t, trajectory.u, trajectory.c, steps, self.nodes.times, self._states)

    def _observe(self, nodes: np.ndarray) -> None:
        """Have the passes behind observe at the times of the loss and at these."""
        seen, (k, n) = self.forward.frame[slots.TIMES], self.u_dots.shape
        times = np.concatenate([seen, nodes])
        order = np.argsort(times if self.t_span[1] >= self.t_span[0] else -times, kind="stable")
        places = np.argsort(order)
        self._of_loss, self._of_nodes = places[: seen.size], places[seen.size :]
        self.tangents.observe(times[order])
        self.second.observe(times[order], 1 + k, n)

    def _try_tangents(self) -> None:
        try_tangents(self.tangents, *self.forward.places())
        self.is_tried = True

    def _put_cotangents(self, observed: np.ndarray) -> np.ndarray:
        """Those of the states and their tangents, for the pass behind; the loss's own of theta, in rows (1 + k, m)."""
        loss, (k, n) = self.loss, self.u_dots.shape
        if not self._has_cotangents:
            loss.observe(observed, self.theta)
            if not np.isfinite(loss.run()):
                loss.explain()
        self._has_cotangents = False  # what follows may run the loss elsewhere
        observed_dots = self.tangents.observed
        dots = observed_dots[self._of_loss]
        u_bar_dots, theta_bar_dots = tangents_of_cotangents(loss, dots, self.theta_dots)
        if isinstance(loss, PreparedObserved):
            require_derived_loss(loss, self.theta)
            require_second_of_loss(loss, self.theta)
        self.second.u_bars[self._of_loss] = np.concatenate([loss.u_bars[:, None], u_bar_dots], axis=1)
        direct = np.zeros((1 + k, self.theta.size))
        direct[0, : loss.theta_bar.size], direct[1:] = loss.theta_bar, theta_bar_dots
        if self.nodes is not None:
            direct += self._weigh(self.nodes, observed_dots[self._of_nodes].reshape(-1, k * n))
        return direct

    def _weigh(self, nodes: CostNodes, dots: np.ndarray) -> np.ndarray:
        """Put the cotangents at the nodes of the running cost; those of theta."""
        assert self.cost is not None
        callbacks, parameters = (self.cost.functions[1], self.cost.vjp_dot), (self.theta, self.theta_dots)
        places = self.forward.span.time(nodes.times), nodes.weights
        u_bars, totals, failed = pull_nodes(callbacks, parameters, places, (self._states, dots))
        if failed >= 0:
            raise nodes.error(CALLBACK_RAISED, self._solution().dense)
        self.second.u_bars[self._of_nodes] = u_bars.reshape(-1, *self.second.u_bars.shape[1:])
        return totals

    def _error(self, status: int) -> Exception:
        t, step_size = self.second.place
        cause, limit = None, self.options.max_seconds
        if status == CALLBACK_RAISED:
            inputs = {"u": self.u0, "theta": self.theta, "lam": np.ones_like(self.u0), "v": self.u_dots[0], "w": self.theta_dots[0]}
            vjp_dot = self.dynamics.vjp_dot
            cause = vjp_dot.reproduce_error(t, *vjp_dot.arguments(inputs | {"lam_dot": np.zeros_like(self.u0)}))
        called = "vjp_dot (or another callback of the backward pass)"
        return solve_error(status, phase="second-order", t=t, step_size=step_size, cause=cause, max_seconds=limit, callback=called)

    def _stats(self, work: PullbackStats) -> HessianStats:
        pushed, count = self.tangents.stats, self.second.count
        n_jac, n_lu = int(count[slots.JACOBIANS]) + work.n_jac, int(count[slots.FACTORISATIONS]) + work.n_lu
        n_vjp = (
            work.n_vjp
            + work.n_vjp_u
            + int(count[slots.VJPS] + count[slots.PRODUCTS] + count[slots.JACOBIANS] * self.second.rows_of_jacobian)
        )
        return HessianStats(
            n_f=work.n_f + pushed.n_f,
            n_jvp=pushed.n_jvp,
            n_vjp=pushed.n_vjp + pushed.n_vjp_u + n_vjp,
            n_vjp_dot=int(count[slots.CURVATURES]),
            n_steps=self.forward.steps - self.forward.crossings,
            n_jac=pushed.n_jac + n_jac,
            n_lu=pushed.n_lu + n_lu,
        )
