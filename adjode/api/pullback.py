"""`pullback`: cotangents of a solved trajectory back to u0, theta, t0 and T."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adjode.adjoints import backsolve, interpolating
from adjode.adjoints.jumps import plan_jumps
from adjode.api.drift import check_drift
from adjode.api.event_times import check_side, observed_before, with_event_times
from adjode.api.first_calls import backward_parts, cost_parts, prove_ahead, try_at_start, try_behind
from adjode.api.jumps_of_f import warn_of_jump
from adjode.api.rates import rates_along, rates_observed
from adjode.api.refined import run_refined
from adjode.api.seeds import Seeds, cost_along, read_seeds
from adjode.api.solved import Solved, state_at_step
from adjode.api.wanted import check_adjoint, check_wrt
from adjode.derivatives.proof import require_derived_rule
from adjode.linalg.structure import Structure
from adjode.model.callbacks import Callback
from adjode.passes.costs import Costs, breaks_of_cost
from adjode.passes.discrete import Discrete, jumps_at_start, observed_after_t0
from adjode.passes.forward import structure_for
from adjode.passes.options import PullbackOptions
from adjode.passes.program import Program
from adjode.passes.result import Cotangents, PullbackStats
from adjode.passes.sweep import Sweep
from adjode.passes.trajectory import beside_stops
from adjode.status import REFINE, SUCCESS
from adjode.tableaus import Tableau


def pullback(
    solution: Solved,
    u_T_bar: Any = None,
    *,
    observations: tuple[Any, Any] | None = None,
    side: str = "right",
    event_times: Any = None,
    theta_bar: Any = None,
    running_cost: Callable | tuple[Callable, Callable] | None = None,
    wrt: Sequence[str] = ("u0", "theta", "t0", "T"),
    adjoint: str = PullbackOptions.adjoint,
    quadrature: str = PullbackOptions.quadrature,
    rtol: float | None = PullbackOptions.rtol,
    atol: float | None = PullbackOptions.atol,
    quadrature_rtol: float | None = PullbackOptions.quadrature_rtol,
    quadrature_atol: float | None = PullbackOptions.quadrature_atol,
    error_norm: str = PullbackOptions.error_norm,
    method: str | None = PullbackOptions.method,
    max_steps: int | None = PullbackOptions.max_steps,
    max_seconds: float | None = PullbackOptions.max_seconds,
    reanchor: bool = PullbackOptions.reanchor,
    on_drift: str = PullbackOptions.on_drift,
    on_inaccurate: str = PullbackOptions.on_inaccurate,
    dense_adjoint: bool = PullbackOptions.dense_adjoint,
    certify: bool = PullbackOptions.certify,
) -> Cotangents:
    """Pull cotangents of a solution back to its inputs, by the adjoint equation.

    Parameters
    ----------
    solution : Solution
    u_T_bar : (n,) array, dict or structured scalar, optional
        Cotangent of u(T): dL/du(T).
    observations : (times, u_bars), optional
        Times (k,) in the span, in any order, repeated or at the ends, and the cotangents (k, n) of the states there.
    side : {"right", "left"}
        Whether a state observed where it jumps is the one after the jump, in the order of integration, or the one before it.
    event_times : list of arrays, optional
        For each event the cotangents of the times at which it happened, in the order of `Solution.t_events`.
    theta_bar : (m,) array, dict or structured scalar, optional
        The derivative of the loss by theta itself, with the states held fixed; it is added to the cotangent of theta.
    running_cost : g or (g, g_vjp), optional
        Adds `integral of g(t, u, theta) dt` to the loss, to rtol of the solve if that has error control, see adjoints/costs.py.
        `g(t, u, theta)` returns a float and `g_vjp(t, u, theta, u_bar, theta_bar)` overwrites `dg/du` and `dg/dtheta` (or
        `g_vjp(t, u, theta)` returns the two). Without `g_vjp`, it is derived from g's source and compared with differences of g.
    wrt : subset of ("u0", "theta", "t0", "T", "observation_times")
        What to compute. What is left out is None and costs nothing.
    adjoint : {"interpolating", "backsolve", "discrete"}
        Take u(t) from the forward solve's dense output; integrate it back together with lam; or transpose the accepted steps, their
        dense output and the quadrature of the running cost, with the mesh held fixed, which gives the exact gradient of the numbers
        computed. The last is the default of `value_and_gradient`; here it evaluates the stages again, and takes no tolerances,
        method, `max_steps` or `dense_adjoint`.
    quadrature : {"gauss", "augmented"}
        Integrate theta_bar at Gauss-Lobatto nodes inside each accepted step, or with the stages of the method (equivalent to
        theta_bar as additional ODE states).
    rtol, atol : float, optional
        Tolerances of lam. By default rtol of the forward solve, and absolute tolerances that follow the size of lam, in the units
        of each entry (`docs/maths.md`). If given, `atol` is one number for all entries.
    quadrature_rtol, quadrature_atol : float, optional
        Tolerances of theta_bar; by default those of lam.
    error_norm : {"all", "lam"}
        Whether theta_bar takes part in the error control of quadrature="augmented".
    method : str, optional
        Method of the backward pass; by default that of the forward solve.
    max_steps, max_seconds : int and float, optional
        Limits on the steps and on the wall-clock time of the backward pass; by default those of the forward solve.
    reanchor, on_drift : bool, and {"raise", "warn"}
        With adjoint="backsolve": put the state back onto the stored trajectory at every stored step and observation; and what to do
        if the state does not arrive at the true initial state.
    on_inaccurate : {"refine", "raise", "warn"}
        With adjoint="discrete": what to do if steps are too long for lam, so that the gradient may be off by more than 100 times
        rtol, relative to the largest logarithmic derivative. Solve again with shorter steps, and raise if that does not help; or
        raise, or warn, at once.
    dense_adjoint : bool
        Keep lam(t) as dense output on the result.
    certify : bool
        Compute the gradient a second time, by another adjoint along a solve with tolerances ten times tighter, and compare vjp with
        differences of f. `error` then contains the difference of the two. More than 100 times rtol raises, or warns with
        on_inaccurate="warn".

    Returns
    -------
    Cotangents

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid, before anything is computed.
    SolveError
        If the backward pass or the integral of the running cost cannot be completed, a backsolve drifts, or the gradient is not
        accurate enough. A partial gradient is never returned.

    Notes
    -----
    `lam' = -(df/du)^T lam - dg/du`, `lam(T) = u_T_bar`, jumps `lam(t_k-) = lam(t_k+) + u_bar_k`; then `u0_bar = lam(t0)`,
    `theta_bar = integral of (df/dtheta)^T lam + dg/dtheta dt` plus the `theta_bar` given, `T_bar = u_T_bar . f(T) + g(T)` and
    `t0_bar = -lam(t0) . f(t0) - g(t0)`. An observation at t0 contributes only to u0_bar; observation times are held fixed as T and
    t0 move. With fixed steps the backward pass takes the same fixed steps. The discrete adjoint gives u0_bar and theta_bar to
    rounding; its T_bar, t0_bar and observation times follow the same formulas. In implicit steps these use du/dt instead of f(t,
    u), see adjoints/rates.py. With a mass matrix it is the only adjoint. u0_bar then lies in the range of M^T, except for what is
    observed at t0 or inside the first step, and with a singular M, `wrt` may name only u0 and theta.
    """
    options = PullbackOptions(
        adjoint=adjoint,
        quadrature=quadrature,
        rtol=rtol,
        atol=atol,
        quadrature_rtol=quadrature_rtol,
        quadrature_atol=quadrature_atol,
        error_norm=error_norm,
        method=method,
        max_steps=max_steps,
        max_seconds=max_seconds,
        reanchor=reanchor,
        on_drift=on_drift,
        on_inaccurate=on_inaccurate,
        dense_adjoint=dense_adjoint,
        certify=certify,
    )
    wanted = check_wrt(wrt)
    seeds = read_seeds(solution.layouts, solution.t, u_T_bar, observations, theta_bar)
    if check_side(side) == "left":
        seeds = observed_before(solution, seeds)
    if event_times is not None:
        seeds = with_event_times(solution, seeds, event_times, wanted, options)
    cost = None if running_cost is None else cost_along(solution, running_cost)
    check_adjoint(solution.dynamics, adjoint, wanted)
    bar = _Pullback(solution, seeds, cost, options, wanted).run()
    if cost is not None and callable(running_cost) and solution.segments is None:  # its first calls have been tried by now
        name, places = cost[0].source.__name__, (solution.t[:-1], solution.u[:-1], solution.theta)
        require_derived_rule(f"the running cost {name}", cost, *places, instead=": give (g, g_vjp)")
    if certify:
        _certify(solution, bar, seeds, cost, options, wanted & {"u0", "theta"})
    return bar


def _certify(
    solution: Solved,
    bar: Cotangents,
    seeds: Seeds,
    cost: tuple[Callback, Callback] | None,
    options: PullbackOptions,
    in_question: frozenset[str],
) -> None:
    def pull(tighter: Any, way: PullbackOptions) -> Cotangents:
        return _Pullback(tighter, seeds, cost, way, in_question).run()

    from adjode.api.certify import hold_against_another  # here: for those alone who ask for it

    hold_against_another(solution, bar, options, seeds if cost is None else None, pull)


class _Pullback:
    """One pullback: a backward pass, and what is made of its lam and its integrals."""

    def __init__(
        self,
        solution: Solved,
        seeds: Seeds,
        cost: tuple[Callback, Callback] | None,
        options: PullbackOptions,
        wanted: frozenset[str],
    ):
        self.solution, self.seeds, self.cost, self.options, self.wanted = solution, seeds, cost, options, wanted
        self.stats = PullbackStats()
        self.n = solution.layouts[0].size
        self.wants_lam = bool(wanted & {"u0", "theta", "t0"})

    def run(self) -> Cotangents:
        made: Discrete | Sweep | None = None
        if not self.options.discrete:
            made = self._sweep()
        elif self.wants_lam:
            made = self._discrete()
        self._try_calls()
        if made is None or not self.wants_lam:
            return self._cotangents(None)
        if isinstance(made, Sweep) and self._costs is not None:
            made.drive_by(self._costs)
        status = self._run(made)
        if status == REFINE and isinstance(made, Discrete):
            status, _ = run_refined(self.solution, made)
        made.add_work(self.stats)
        if status != SUCCESS:
            raise made.error(status, self.solution.dense)
        if self.options.adjoint == "backsolve" and isinstance(made, Sweep):
            self.stats.drift = check_drift(self.solution, made, self.options.on_drift)
        return self._cotangents(made)

    def _try_calls(self) -> None:
        """Notice slips of the callbacks where this solution has been."""
        solution, dynamics, wants_theta = self.solution, self.solution.dynamics, "theta" in self.wanted
        parts = backward_parts(dynamics, wants_theta=wants_theta) if self.wants_lam else []
        if self.cost is not None:
            parts += cost_parts(self.cost, wants_theta=wants_theta)[: None if self.wants_lam else 1]
        span, u0 = (float(solution.t[0]), float(solution.t[-1])), state_at_step(self.solution, 0)
        try_at_start(dynamics, parts, span[0], u0, solution.theta)
        if solution.segments is not None:
            prove_ahead(dynamics, parts, span, u0, solution.theta)
        else:
            along = solution.t[:-1], solution.u[:-1], solution.theta
            try_behind(dynamics, parts, *along, solution.jumps.guards)
            if self.wants_lam and not self.options.discrete:
                warn_of_jump(dynamics, *along, stacklevel=5)

    def _run(self, made: Discrete | Sweep | Costs) -> int:
        segments = self.solution.segments
        if segments is None:
            return Program(backward=made).run()
        with segments.lock:
            made.share_watch(segments.forward.watch)
            status = Program(backward=made, segments=segments).run()
            self.stats.n_recomputed += segments.n_recomputed
        return status

    @functools.cached_property
    def _costs(self) -> Costs | None:
        """The running cost along the trajectory as it is, unless the discrete adjoint integrates it."""
        solution = self.solution
        if self.cost is None or (self.options.discrete and self.wants_lam):
            return None
        made = Costs(
            *(solution.dynamics, solution.options, solution.theta, self.n, solution.span, self.cost),
            wants_theta="theta" in self.wanted,
            wants_lam=self.wants_lam,
            max_seconds=self.options.seconds(solution.options),
        )
        made.follow(solution.trajectory, solution.counts)
        status = self._run(made)
        made.add_work(self.stats)
        if status != SUCCESS:
            raise made.error(status, solution.dense)
        return made

    def _beside_stops(self, times: np.ndarray) -> np.ndarray:
        """Since the start of the solve, see `beside_stops`."""
        kept = self.solution.segments or self.solution.trajectory
        return beside_stops(self.solution.span, kept.t, kept.kinds, times)

    def _discrete(self) -> Discrete:
        solution, seeds, steps = self.solution, self.seeds, self.solution.dense.steps
        times, u_bars = observed_after_t0(solution.t, solution.kinds, seeds.times, seeds.u_bars)
        dynamics, theta = solution.problem
        made = Discrete(
            dynamics,
            solution.options,
            solution.structure,
            solution.span,
            theta,
            seeds.u_T_bar if steps else np.zeros_like(seeds.u_T_bar),
            times,
            u_bars,
            wants_theta="theta" in self.wanted,
            cost=self.cost,
            max_seconds=self.options.seconds(solution.options),
            on_inaccurate=self.options.on_inaccurate,
            jumps=solution.jumps,
            jump_bars=seeds.jump_bars,
        )
        made.follow(solution.trajectory, solution.counts)
        return made

    def _sweep(self) -> Sweep:
        solution, seeds, asked = self.solution, self.seeds, self.options
        forward, method = solution.options, asked.backward_method(solution.options)
        atol_u = forward.absolute_tolerances(self.n)
        options = asked.for_sweep(forward, atol_u, self._structure(method))
        from_T = self.cost is not None
        at_start = jumps_at_start(solution.kinds)
        ends = float(solution.t[0]), float(solution.t[-1])
        jumps = plan_jumps(*ends, seeds.u_T_bar, seeds.times, seeds.u_bars, from_T=from_T or at_start, behind_start=at_start)
        if asked.adjoint == "backsolve":
            backward = backsolve.prepare(solution, solution.t, jumps, atol_u, options.atol, asked.reanchor)
        else:
            backwards = bool(solution.t[-1] >= solution.t[0])
            breaks = np.union1d(options.stops, breaks_of_cost(self.cost, solution.span))
            backward = interpolating.prepare(jumps, options.atol, breaks, backwards)
        wants_theta = "theta" in self.wanted
        dynamics, theta = solution.problem
        made = Sweep(
            dynamics,
            solution.span,
            theta,
            backward,
            options,
            wants_theta=wants_theta,
            cost=self.cost,
            jumps=solution.jumps,
        )
        made.follow(solution.trajectory, solution.counts)
        return made

    def _structure(self, method: Tableau) -> Structure | None:
        """That of the Jacobian for the backward pass."""
        solution = self.solution
        if method.implicit and solution.structure is not None:
            return solution.structure
        place = float(solution.t[0]), state_at_step(self.solution, 0), solution.theta
        return structure_for(method, solution.dynamics, "auto", *place)

    def _cotangents(self, swept: Discrete | Sweep | None) -> Cotangents:
        """The cotangents from lam at t0 and the integrals, in the form of u0 and theta."""
        solution, seeds, wanted = self.solution, self.seeds, self.wanted
        t0, T = float(solution.t[0]), float(solution.t[-1])
        result: dict[str, Any] = {"stats": self.stats}
        if swept is not None:
            result |= self._from_lam(swept, t0)
        integrated = swept if isinstance(swept, Discrete) else self._costs
        if self.cost is not None and integrated is not None:
            result["running_cost"] = integrated.running_cost
        if "T" in wanted and solution.ended:
            result["T"] = 0.0  # the end is that of an event, and not T
        elif "T" in wanted:
            result["T"] = self._rate(T, state_at_step(self.solution, -1), seeds.u_T_bar, solution.problem[1])
        if "observation_times" in wanted:
            elapsed = self._beside_stops(seeds.times)
            result["observation_times"] = rates_observed(solution, elapsed, solution(seeds.times), seeds.u_bars, self.stats)
        return Cotangents(**result)

    def _from_lam(self, swept: Discrete | Sweep, t0: float) -> dict[str, Any]:
        """What follows from lam at t0."""
        solution, wanted = self.solution, self.wanted
        result: dict[str, Any] = {"error": swept.estimate}
        swept.warn_if_inaccurate(stacklevel=6)
        if self.options.dense_adjoint and isinstance(swept, Sweep):
            result["adjoint"] = swept.dense_adjoint
        u0_bar, steady = swept.lam + self._seen_at_t0(), solution.steady
        if "u0" in wanted:
            result["u0"] = solution.layouts[0].unflatten(u0_bar if steady is None else np.zeros(self.n))
        if "theta" in wanted:
            theta_bar = self._theta_bar(swept)
            theta_bar = theta_bar if steady is None else theta_bar + steady.pull_back(u0_bar)
            result["theta"] = solution.layouts[1].unflatten(theta_bar)
        if "t0" in wanted:
            t0_bar = -self._rate(t0, solution.u0, swept.lam, solution.jumps.extended(solution.theta))
            result["t0"] = t0_bar if steady is None else t0_bar + steady.pull_back_to_t0(u0_bar)
        return result

    def _theta_bar(self, swept: Discrete | Sweep) -> np.ndarray:
        """Of the discrete adjoint whole, of others without what the running cost has itself."""
        theta_bar = swept.theta_bar[: self.solution.theta.size] + self.seeds.theta_bar
        return theta_bar if self._costs is None else theta_bar + self._costs.theta_bar

    def _seen_at_t0(self) -> np.ndarray:
        """The cotangents of what is observed at t0, u(T) among it on a span of zero length."""
        t, seeds = self.solution.t, self.seeds
        if jumps_at_start(self.solution.kinds):
            return seeds.u0_bar
        return seeds.u0_bar + np.vstack([seeds.u_bars, seeds.u_T_bar])[np.append(seeds.times, t[-1]) == t[0]].sum(axis=0)

    def _rate(self, t: float, u: np.ndarray, lam: np.ndarray, theta: np.ndarray) -> float:
        """lam . f(t, u, theta) + g(t, u, theta)."""
        elapsed = self._beside_stops(np.array([t]))
        rate = float(rates_along(self.solution, theta, elapsed, u[None], lam[None], self.stats)[0])
        if self.cost is None:
            return rate
        value = np.zeros(1)
        self.cost[0](float(self.solution.span.time(elapsed[0])), u.copy(), self.solution.theta, value)
        self.stats.n_g += 1
        return rate + float(value[0])
