"""The backward pass of the discrete adjoint: the transposes of the steps of a trajectory, the last one first."""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import numpy as np

from adjode.adjoints import products
from adjode.adjoints.carried import put_carried
from adjode.adjoints.cells import COLUMNS, IMPLICIT, KINK_COLUMNS
from adjode.adjoints.discrete import make_discrete
from adjode.adjoints.flow import READS_TIME
from adjode.adjoints.kinks import WORK_ROWS
from adjode.adjoints.trust import put_probes
from adjode.compile import slots
from adjode.jacobian import products_for, put_jacobian
from adjode.linalg.structure import Structure
from adjode.loops.quadrature import GAUSS
from adjode.model.callbacks import Callback
from adjode.model.derived import time_derivative
from adjode.model.dynamics import Dynamics
from adjode.passes.base import put_partner
from adjode.passes.costs import add_work, put_costs, quadrature_error
from adjode.passes.jumps import NO_JUMPS, Jumps, put_jumps_back
from adjode.passes.options import SolveOptions
from adjode.passes.replay import Replay, put_replay
from adjode.passes.result import PullbackStats, estimate_of, find_cause
from adjode.passes.segmented import SegmentedOutput
from adjode.passes.span import Span
from adjode.passes.trajectory import DenseOutput
from adjode.status import CALLBACK_RAISED, INACCURATE, MAX_STEPS, STEP_TOO_SMALL, TIMED_OUT, SolveError, solve_error
from adjode.steppers.family import EXPLICIT, Solver, family_of
from adjode.steppers.frozen import put_frozen
from adjode.steppers.transposed import put_transposed
from adjode.tableaus import Tableau

MOST_UNITS = 100.0  # units of rtol that a gradient may be off
_CELLS = 512
_JUMP_HINT = "f compares the state with something there, and seems to jump: make that an Event"
_INACCURATE_HINT = "If the problem is stiff, choose method='Radau' or 'auto'; if not, tighten the tolerances or set max_step"


class Discrete(Replay):
    """The transposes of the steps of a trajectory, which `follow` names.

    Parameters
    ----------
    dynamics : Dynamics
    options, structure, span
        Of the forward pass.
    theta : (m,) array
        Which the pass reads whenever it runs.
    start : (n,) array
        The cotangent of u(T).
    times, u_bars : (k,), (k, n) arrays
        Observations in the order of integration and their cotangents; what was observed at t0 itself is left out.
    recorded : bool
        Whether the trajectory has the states of the stages.
    on_inaccurate : str
        See `adjode.api.pullback.pullback`.
    jumps : Jumps
        Of the forward pass.
    jump_bars : (k,) array, optional
        Cotangents of the times of jumps of the trajectory.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        options: SolveOptions,
        structure: Structure | None,
        span: Span,
        theta: np.ndarray,
        start: np.ndarray,
        times: np.ndarray,
        u_bars: np.ndarray,
        *,
        wants_theta: bool,
        cost: tuple[Callback, Callback] | None = None,
        recorded: bool = False,
        max_seconds: float | None = None,
        on_inaccurate: str = "refine",
        jumps: Jumps = NO_JUMPS,
        jump_bars: np.ndarray | None = None,
    ):
        tableau = options.tableau
        if not family_of(tableau).transposable:
            raise ValueError(
                f"adjoint='discrete' with {tableau.name} would need second derivatives of f, because the Jacobian is part of the "
                f"method: choose adjoint='interpolating', or method='Radau'."
            )
        super().__init__(dynamics, max_seconds)
        self.span, self.theta, self.cost, self._reach = span, theta, cost, tableau.reach
        n, m = start.size, theta.size
        wants_theta = wants_theta and m > 0
        self.short = dynamics.vjp_u is not None and not wants_theta
        solver = EXPLICIT if structure is None else Solver(family_of(tableau), structure.kind, dynamics.mass is not None)
        products.put_products(self.frame, dynamics, theta, n, wants_theta=wants_theta, running_cost=cost, short=self.short)
        self.frame[slots.START], self.frame[slots.JUMPS] = start, u_bars
        self.frame[slots.TIMES], self.frame[slots.TIME_SPAN] = np.ascontiguousarray(span.elapsed(times)), span.numbers
        self._allocate(tableau, n, m if wants_theta else 0)
        self.jumps = jumps
        self._put_trust(options, n, on_inaccurate)
        put_jumps_back(self.frame, jumps, n, dynamics)
        self._put_shifts()
        if jump_bars is not None:
            self.frame[slots.JUMP_BARS] = jump_bars
        columns = 0 if cost is None else 1 + n + (m if wants_theta else 0)
        put_costs(self.frame, options, n, span, cost, columns)
        if structure is not None:
            self._put_implicit(tableau, structure, n)
        frame = self.frame
        self.products = 0 if structure is None else products_for(dynamics, structure)
        self.lam = frame[slots.U0_BAR] = frame[slots.LAM]
        self.total, self._at = frame[slots.TOTAL], frame[slots.PLACE]
        self.theta_bar = self.total[:-1]
        recorded = recorded or structure is not None
        self.entry_name = solver.entry_name("discrete-recorded" if recorded else "discrete")
        self.make = functools.partial(make_discrete, recorded=recorded, solver=solver)

    def _allocate(self, tableau: Tableau, n: int, m: int) -> None:
        frame, rows = self.frame, len(tableau.A)
        put_probes(frame, m)
        put_replay(frame, tableau, GAUSS, n)  # whose weights are the rule of the running cost
        self.count = frame[slots.COUNT]
        frame.allocate(
            {
                **dict.fromkeys(
                    (slots.LAM, slots.Y, slots.U, slots.Y_BAR, slots.STAGE_BAR, slots.LAM_ERROR, slots.LAM_RECENT), (n,)
                ),
                slots.LASTING_THETA: (m,),
                **dict.fromkeys((slots.K, slots.K_BAR), (rows, n)),
                **dict.fromkeys((slots.CARRIED, slots.CARRIED_THETA), (0,)),
                slots.STEP_ERROR: (0, n),
                slots.FLOW: (2, n),
                slots.SAMPLES: (6 if tableau.quadrature_error.sampled else 0, n),
                slots.BASIS: (1, rows),
                slots.STAGE_PARTS: (2, rows),
                slots.TOTAL: (m + 1,),
            }
        )

    def _put_shifts(self) -> None:
        """Have jumps be exact for the steps beside them, if it is known how f and the running cost vary with time.

        Not with stages behind a step: before a stop all steps get shorter then, and the error of the last one goes with its size.
        """
        frame, shift = self.frame, self.frame[slots.SHIFT]
        frame[slots.JUMP_TOTAL] = np.zeros(frame[slots.TOTAL].size)
        frame[slots.JUMP_K_BAR] = np.zeros(frame[slots.K_BAR].shape)
        if not self.jumps.move or self._reach > 1.0:
            return
        f_dt, g_dt = self.dynamics.f_dt, None if self.cost is None else time_derivative(self.cost[0], "g_dt")
        shift[slots.EXACT] = not (isinstance(f_dt, str) or isinstance(g_dt, str))
        for rate, slot, known in ((f_dt, slots.F_DT, slots.TIMED), (g_dt, slots.G_DT, slots.COST_TIMED)):
            if isinstance(rate, Callback):
                frame[slot], shift[known] = rate.handle, 1.0

    def _put_trust(self, options: SolveOptions, n: int, on_inaccurate: str) -> None:
        frame, weights = self.frame, options.tableau.adjoint_error
        frame[slots.TRUST] = self.trust = slots.TRUST.zeros()
        most = math.inf if on_inaccurate == "warn" else MOST_UNITS
        self.trust[: slots.STATE_ERROR] = (
            options.unit_error(n),
            most,
            options.tableau.partner is not None,
            self._may_conserve(options),
        )
        frame[slots.U_FLOOR] = options.least_sizes(n)
        self._put_sides(n, options.adaptive and weights.halves > 0)
        cells = _CELLS if on_inaccurate == "refine" and options.adaptive and weights.halves else 0
        with_kinks, switches = 0 if frame[slots.SIDE].size == 0 else cells, options.tableau.partner is not None
        frame[slots.CELLS] = np.zeros((cells, len(COLUMNS) if switches else IMPLICIT))
        frame[slots.KINKS] = np.zeros((with_kinks, len(KINK_COLUMNS)))
        frame[slots.LIMITS] = np.zeros((cells + 2 * with_kinks, 3 if switches else 2))  # see `_parts` in adjoints/cells.py
        frame[slots.LIMITED] = self._limited = np.zeros(2, dtype=np.int64)
        self._estimates = weights.halves > 0

    def _may_conserve(self, options: SolveOptions) -> float:
        """For `slots.MAY_CONSERVE`."""
        if not options.adaptive or self.dynamics.mass is not None or self.cost is not None or self.jumps:
            return 0.0
        if not self.dynamics.f_reads_time:
            return 1.0
        first, last = sorted(self.span.ends)
        return 0.0 if ((first < options.stops) & (options.stops < last)).any() else READS_TIME

    def _put_sides(self, n: int, wanted: bool) -> None:
        frame, sides = self.frame, self.dynamics.sides if wanted else None
        many, m = 0 if sides is None else 1, frame[slots.THETA_PROBE].size
        frame[slots.SIDE], frame[slots.KINK_WORK] = np.zeros(many), np.zeros((len(WORK_ROWS) * many, n))
        frame[slots.KINK_THETA] = np.zeros((2 * many, m))
        if sides is not None:
            frame[slots.F], frame[slots.VJP] = self.dynamics.f.handle, self.dynamics.vjp.handle
            frame[slots.SIDES] = sides.handle

    @property
    def estimate(self) -> dict[str, float] | None:
        """See `Cotangents.error`."""
        if not self._estimates:
            return None
        return estimate_of(self.trust)

    def warn_if_inaccurate(self, stacklevel: int) -> None:
        if self.trust[slots.UNITS] > MOST_UNITS and self.trust[slots.MOST] == math.inf:
            # what would have been raised
            warnings.warn(str(self.error(INACCURATE, None)), RuntimeWarning, stacklevel=stacklevel + 1)

    def _put_implicit(self, tableau: Tableau, structure: Structure, n: int) -> None:
        frame = self.frame
        if tableau.partner is not None:
            put_partner(frame, tableau, GAUSS, n)
        else:
            put_frozen(frame, tableau, n)
        put_transposed(frame.partner or frame, tableau.partner or tableau, n)
        put_jacobian(frame, self.dynamics, structure, self.theta.size)
        put_carried(frame, n)

    @property
    def running_cost(self) -> float:
        return float(self.total[-1])

    @property
    def place(self) -> tuple[float, float]:
        """The time reached, and the step that was being pulled back."""
        step, mesh = self._at.item(slots.STEP), self.frame[slots.FORWARD_T]
        return float(self.span.time(mesh[step])), float(mesh[step] - mesh[step + 1])

    def add_work(self, stats: PullbackStats) -> None:
        """Count the work of the last run."""
        count = self.count.tolist()
        n_vjp, n_product = count[slots.VJPS], count[slots.PRODUCTS]
        stats.n_refined = self._limited.item(1)
        stats.n_steps = self._at.item(slots.RELEVANT) - count[slots.CROSSINGS]
        stats.n_f += count[slots.DERIVATIVES]
        if self.cost is not None:
            add_work(self.frame, stats)
        stats.n_vjp_u += n_vjp if self.short else 0
        stats.n_vjp += 0 if self.short else n_vjp
        stats.n_jac, stats.n_lu, stats.n_newton = count[slots.JACOBIANS : slots.ITERATIONS + 1]
        n_product += stats.n_jac * self.products
        if self.dynamics.vjp_u is not None:
            stats.n_vjp_u += n_product
        else:
            stats.n_vjp += n_product

    def error(self, status: int, state: DenseOutput | SegmentedOutput | None) -> SolveError:
        """What a run that ended with this status is called; `state` is the forward solution."""
        blamed: dict[str, Any] = {}
        cause, hint = None, ""
        (t, step_size), lam, trust = self.place, self.lam, self.trust
        if status in (MAX_STEPS, STEP_TOO_SMALL) and self.cost is not None:  # for it has no steps of its own
            assert state is not None
            return quadrature_error(self.frame, status, self.dynamics, self.cost, self.span, state, self.max_seconds)
        if status == CALLBACK_RAISED:
            assert state is not None
            places = [(float(time), lam) for time in np.linspace(t, t - step_size, 9)]
            cause = find_cause(self.dynamics, self.theta, state, self.cost, places)
        elif status == INACCURATE:
            t, step_size = float(self.span.time(trust[slots.WORST_T])), trust[slots.WORST_H]
            blamed = self.dynamics.entry("lam", int(trust[slots.WORST_ENTRY]))
            hint = _JUMP_HINT if trust[slots.WORST_IS_KINK] == 1.0 else _INACCURATE_HINT
        elif status != TIMED_OUT:
            for where, values in (("lam", lam), ("theta_bar", self.total)):
                bad = np.flatnonzero(~np.isfinite(values))
                if bad.size:
                    blamed = self.dynamics.entry(where, int(bad[0]))
                    break
        return solve_error(
            status,
            phase="adjoint",
            t=t,
            step_size=step_size,
            **blamed,
            max_seconds=self.max_seconds,
            callback="vjp (or another callback of the backward pass)",
            cause=cause,
            hint=hint,
            units=trust[slots.UNITS],
            event=self.jumps.event_at(self.frame),
        )


def jumps_at_start(kinds: np.ndarray) -> bool:
    """Whether the state jumps where a trajectory of these kinds starts: what is observed there is observed behind that."""
    return bool(kinds.size and kinds[0] >= slots.JUMP)


def observed_after_t0(t: np.ndarray, kinds: np.ndarray, times: np.ndarray, u_bars: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Observations in the order of integration along the mesh t, without those at t0 itself unless the state jumps there."""
    order = np.argsort(times if t[-1] >= t[0] else -times, kind="stable")
    if not jumps_at_start(kinds):
        order = order[times[order] != t[0]]
    return times[order], np.ascontiguousarray(u_bars[order])
