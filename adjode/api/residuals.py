"""`residuals_and_jacobian`: the residuals of a least-squares loss and their derivatives, as a function of (u0, theta)."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, Unpack

import numpy as np

from adjode.api.first_calls import backward_parts, forward_parts, try_behind
from adjode.api.gradient import readers_of, require_observed
from adjode.api.keywords import ForwardKeywords
from adjode.api.solve import solve, try_before
from adjode.api.steady import is_steady
from adjode.api.tangents import try_tangents
from adjode.checks import choose, time_span, times_in_span
from adjode.compile import slots
from adjode.compile.slots import RECORD_DENSE, RECORD_STAGES
from adjode.derivatives.proof import require_derived_loss
from adjode.linalg.structure import Structure
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics
from adjode.model.inflows import with_inflows
from adjode.model.layout import Layout
from adjode.model.losses import LeastSquares, PreparedLoss, loss_for
from adjode.model.selection import selection_mask
from adjode.passes.default_atol import beside_loss
from adjode.passes.discrete import Discrete
from adjode.passes.forward import Forward, jumps_of, structure_for
from adjode.passes.options import SolveOptions
from adjode.passes.program import Program
from adjode.passes.rows import Rows, probe, solve_until_served
from adjode.passes.tangents import TangentPass
from adjode.status import INACCURATE, NON_FINITE, REFINE, SUCCESS, TIMED_OUT, solve_error


def residuals_and_jacobian(
    dynamics: Dynamics,
    loss: LeastSquares,
    t_span: tuple[float, float],
    *,
    wrt: Any = ("u0", "theta"),
    jacobian: str = "auto",
    on_inaccurate: str = "refine",
    **options: Unpack[ForwardKeywords],
) -> ResidualsAndJacobian:
    """The residuals of a loss that is a sum of squares, and their Jacobian, as a function of (u0, theta).

    Buffers and compiled code are prepared at the first call; each call then runs the forward pass, and along its steps the tangents
    of all columns at once, or the adjoint of each row, in compiled code, without the GIL. Half the sum of the squared residuals is
    the loss, and `J.T @ r` its gradient by the discrete adjoint along the same steps.

    Parameters
    ----------
    dynamics : Dynamics
    loss : LeastSquares, or Likelihood with Gaussian or LogNormal noise whose sigma are numbers
        Of one trajectory; of components of the state, or of what `observe` makes of state and parameters.
    t_span : (t0, T)
    wrt : tuple of block names, or dict
        The columns of J, as `free` of a `Fit`: whole blocks ("u0", "theta"), or for each block True or False, a boolean mask, a
        list of indices, or a list of entry names. Those of u0 come first. What is left out costs nothing.
    jacobian : {"auto", "tangents", "adjoints"}
        How J is computed: column by column, row by row, or by what costs less.
    on_inaccurate : {"refine", "raise", "warn"}
        What to do where steps that were chosen for the states are too long for J, so that it may be further off than 100 times
        rtol, as a part of its largest logarithmic derivatives; see `Solution.pullback`. Fixed steps are not judged.
    **options
        Options of `solve` (`method`, `rtol`, `atol`, ...) but `memory`.

    Returns
    -------
    ResidualsAndJacobian
        `(u0, theta) -> (r, J)`, r (N,) without missing data, in the order of `y_obs` by rows; J (N, p).

    Raises
    ------
    ValueError, TypeError
        For bad input, or if the method or the dynamics have no tangents.
    """
    return ResidualsAndJacobian(dynamics, loss, t_span, wrt, jacobian, on_inaccurate, dict(options))


class ResidualsAndJacobian:
    """The residuals and their Jacobian, as a function of (u0, theta); made by `residuals_and_jacobian`.

    Calls may be made from several threads: each works on buffers of its own. Copies and pickles carry the description alone.

    Attributes
    ----------
    jacobian : str
        "tangents" or "adjoints", by which the last call has computed J, as far as that was not asked for; "auto" before the first.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        loss: LeastSquares,
        t_span: tuple[float, float],
        wrt: Any,
        jacobian: str,
        on_inaccurate: str,
        options: dict[str, Any],
    ):
        if not isinstance(dynamics, Dynamics):
            raise TypeError(f"dynamics must be an adjode.Dynamics(f), but a {type(dynamics).__name__} was given.")
        if not getattr(loss, "is_sum_of_squares", False):
            what = "adjode.losses.LeastSquares, or of a Likelihood with Gaussian or LogNormal noise whose sigma is a number"
            raise TypeError(f"residuals are those of {what}, but a {type(loss).__name__} was given.")
        choose("jacobian", jacobian, ("auto", "tangents", "adjoints"))
        choose("on_inaccurate", on_inaccurate, ("refine", "raise", "warn"))
        self._given = dynamics, loss, t_span, wrt, jacobian, on_inaccurate, options
        self.jacobian, self._asked, self._on_inaccurate = jacobian, jacobian, on_inaccurate
        self.dynamics, self.loss, self.t_span = dynamics, loss_for(dynamics.fields, loss), time_span(t_span)
        if options.get("memory") is not None:
            raise ValueError("a Jacobian needs all steps of a solution: leave memory out.")
        dynamics.switches.warn(stacklevel=3)
        self._solve_options, self._wrt = beside_loss(options, self.loss), wrt
        self.options = SolveOptions.of(dynamics, self.t_span, **self._solve_options)
        self._steady = is_steady(self.options, self.t_span)
        self._idle: dict[tuple[Layout, Layout], list[_Workspace]] = {}
        self._is_warned = False

    def __reduce__(self):
        return ResidualsAndJacobian, self._given

    def __call__(self, u0: Any, theta: Any) -> tuple[np.ndarray, np.ndarray]:
        """The residuals (N,) and their Jacobian (N, p) at (u0, theta).

        Raises
        ------
        ValueError, TypeError
            For bad input.
        SolveError
            If a pass cannot be completed, or a residual is not finite.
        """
        layouts = self.dynamics.layouts(u0, theta)
        self.dynamics.require_order(*layouts, readers=self.readers)
        flat = layouts[0].flatten("u0", u0), layouts[1].flatten("theta", theta)
        idle = self._idle.setdefault(layouts, [])
        try:
            workspace = idle.pop()
        except IndexError:
            workspace = self._make(layouts, *flat)
        self.jacobian = workspace.how
        if self._steady or not workspace.run(*flat):
            idle.append(workspace)
            return self._step_by_step(workspace, *flat)
        result = workspace.r, workspace.J
        if not workspace.is_tried:
            self._try_behind(workspace)
        if workspace.rows is not None:
            workspace.rows.backward.warn_if_inaccurate(stacklevel=2)
        idle.append(workspace)
        return result

    @functools.cached_property
    def readers(self) -> list[Callback | set[int]] | None:
        """Callbacks that may read theta, beside those of the dynamics; None where doses and events may too."""
        return None if self.options.doses or self.options.events else readers_of(self.dynamics, self.loss, None)

    def _make(self, layouts: tuple[Layout, Layout], u0: np.ndarray, theta: np.ndarray) -> _Workspace:
        options = replace(self.options, doses=()) if self._steady else self.options  # passes are then made step by step
        place = self.t_span[0], u0, theta
        loss = self.loss.prepare(u0.size, self.t_span[1])
        loss.try_calls(u0, theta)
        loss.times[:] = times_in_span("t_obs", loss.times, *self.t_span)
        try_before(self.dynamics, options, forward_parts(self.dynamics, options), self.t_span, u0, theta)
        if options.adaptive and not self._is_warned:
            self._is_warned = True
            names = layouts[0].entry_names("u")
            self.loss.warn_of_tolerances(options.absolute_tolerances(u0.size), self.t_span[0], names, stacklevel=4)
        structure = structure_for(options.tableau, self.dynamics, options.linear_solver, *place)
        mask = selection_mask("wrt", self._wrt, layouts)
        if not mask.any():
            raise ValueError("wrt selects no entry, so there is no Jacobian.")
        asked = self._asked, self._on_inaccurate
        return _Workspace(self.dynamics, options, structure, loss, self.t_span, mask, u0.size, *asked)

    def _try_behind(self, workspace: _Workspace) -> None:
        (times, states), theta = workspace.forward.places(), workspace.theta
        parts = forward_parts(self.dynamics, self.options)
        if workspace.rows is not None:
            parts += backward_parts(self.dynamics, wants_theta=True)
        try_behind(self.dynamics, parts, times, states, theta)
        if workspace.tangents is not None:
            try_tangents(workspace.tangents, times, states)
        require_derived_loss(workspace.loss, theta)
        workspace.is_tried = True

    def _step_by_step(self, workspace: _Workspace, u0: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same by the long way round, which says what is wrong."""
        solution = solve(self.dynamics, u0, theta, self.t_span, **self._solve_options)
        n, times = u0.size, workspace.loss.times
        require_observed(solution, times)
        directions = np.eye(n + theta.size)[workspace.columns]
        dots = solution.pushforward(directions[:, :n].T, directions[:, n:].T, times, on_inaccurate=self._on_inaccurate)
        assert dots.u is not None
        result = workspace.read(solution(times), dots.u.transpose(0, 2, 1), theta, directions[:, n:])
        require_derived_loss(workspace.loss, theta)
        return result


class _Workspace:
    """The passes of one call with all their buffers, made once and run many times.

    Parameters
    ----------
    dynamics, options, structure, t_span
        As for `Forward`.
    loss : PreparedLoss
    columns : (n + m,) array of bool
        Of the Jacobian.
    n : int
    how : str
        "auto", "tangents" or "adjoints".
    on_inaccurate : str

    Attributes
    ----------
    how : str
        "tangents" or "adjoints".
    u0, theta, r, J : arrays
        Of the last run.
    is_tried : bool
        Whether slips of the callbacks have been looked for along a run.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        options: SolveOptions,
        structure: Structure | None,
        loss: PreparedLoss,
        t_span: tuple[float, float],
        columns: np.ndarray,
        n: int,
        how: str,
        on_inaccurate: str,
    ):
        if t_span[1] < t_span[0]:
            loss.reverse()
        self.loss, self.columns, self.is_tried, m = loss, columns, False, columns.size - n
        self.how = _cheaper(options, loss, t_span, columns, n) if how == "auto" else how
        jumps = jumps_of(dynamics, options, n, m, t_span)
        with_tangents = with_inflows(dynamics, jumps.inflows, m, tangents=True)
        dynamics, theta = with_inflows(dynamics, jumps.inflows, m), jumps.extended(np.zeros(m))
        self.u0, self.theta = np.zeros(n), theta[:m]
        record = RECORD_STAGES | (RECORD_DENSE if jumps.move else 0)
        given: Any = {"record": record, "times": loss.times, "jumps": jumps}
        self.forward = Forward(dynamics, options, structure, self.u0, theta, t_span, **given)
        self._solving = Program(self.forward)
        self.rows = self.tangents = None
        if self.how == "adjoints" or options.unit_error(n):
            asked: Any = {"wants_theta": columns[n:].any(), "on_inaccurate": on_inaccurate, "jumps": jumps}
            self.rows = Rows(dynamics, options, structure, self.forward, theta, loss.times, m, **asked)
        if self.how == "tangents":
            self.directions = np.eye(columns.size)[columns]
            start_dots, theta_dots = self.directions[:, :n], np.pad(self.directions[:, n:], ((0, 0), (0, len(jumps.inflows))))
            along: Any = {"recorded": True, "jumps": jumps}
            problem = with_tangents, options, structure, self.forward.span, theta, start_dots, theta_dots
            self.tangents = TangentPass(*problem, self.forward.frame[slots.TIMES], **along)
            self.tangents.share_watch(self.forward.watch)
            self.forward.measure_for(self.tangents.frame)
            self._follow()
            self._pushing = Program(backward=self.tangents, goes_on=True)
        self._max_seconds = options.max_seconds

    def _follow(self) -> None:
        assert self.tangents is not None
        self.tangents.follow(self.forward.trajectory, self.forward.count)

    def run(self, u0: np.ndarray, theta: np.ndarray) -> bool:
        """Whether all went well.

        Raises
        ------
        SolveError
            If it takes too long, or no steps serve the Jacobian; other failures are for the step-by-step way to explain.
        """
        self.u0[:], self.theta[:] = u0, theta
        self._runs: Forward | Discrete | TangentPass = self.forward
        status = solve_until_served(self._solving, self._judge)
        if status == SUCCESS:
            status = self._differentiate() if self._has_seen_all else NON_FINITE
        if status == TIMED_OUT:
            t, step_size = self._runs.place
            raise solve_error(status, phase=_PHASES[type(self._runs)], t=t, step_size=step_size, max_seconds=self._max_seconds)
        if status == INACCURATE:
            assert self.rows is not None
            raise self.rows.backward.error(status, None)
        return status == SUCCESS

    @property
    def _has_seen_all(self) -> bool:
        """Whether no event has ended the solution before the last observation."""
        return self.forward.count[slots.SEEN] == self.loss.times.size

    def _judge(self) -> int:
        """Whether the steps serve the Jacobian, by the pullback of all residuals together."""
        if self.rows is None or not self._has_seen_all:
            return SUCCESS
        self._runs = self.rows.backward
        self._pull = self.loss.pulled_residuals(self.forward.frame[slots.OBSERVED], self.theta)
        status = self.rows.pull(self._pull(self._probe)[0])
        if status == REFINE:
            self._runs = self.forward
        return status

    @functools.cached_property
    def _probe(self) -> np.ndarray:
        there = ~self.loss.loss.missing
        return probe(*there.shape)[there]

    def _differentiate(self) -> int:
        """The residuals and their Jacobian; the status."""
        observed, none = self.forward.frame[slots.OBSERVED], np.zeros((0, self.theta.size))
        if self.tangents is not None:
            self._runs = self.tangents
            self._follow()
            if (status := self._pushing.run()) == SUCCESS:
                self.r, self.J = self.read(observed, self.tangents.observed, self.theta, self.directions[:, self.u0.size :])
            return status
        assert self.rows is not None
        self.r, _ = self.read(observed, np.zeros((len(observed), 0, self.u0.size)), self.theta, none)
        status, J = self.rows.jacobian(self._pull, self.r.size)
        self.J = np.ascontiguousarray(J[:, self.columns])
        return status

    def read(
        self, states: np.ndarray, dots: np.ndarray, theta: np.ndarray, theta_dots: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The residuals and their tangents from states (c, n), tangents (c, p, n) at the times of the loss, and those of theta.

        Raises
        ------
        SolveError
            If a residual is not finite.
        """
        r, J = self.loss.residuals(states, dots, theta, theta_dots)
        if not (np.isfinite(r).all() and np.isfinite(J).all()):
            self.loss.observe(np.ascontiguousarray(states), theta)
            self.loss.run()
            self.loss.explain()
        return r, J


_PHASES = {Forward: "forward", Discrete: "adjoint", TangentPass: "tangent"}


def _cheaper(options: SolveOptions, loss: PreparedLoss, t_span: tuple[float, float], columns: np.ndarray, n: int) -> str:
    """Whether tangents of all columns or adjoints of all rows cost less, in units of a row that is pulled back from T.

    Explicit tangents cost in proportion to their number, and little beside a row that has many parameters to serve, as long as the
    directions by all of them stay in the processor's cache; implicit ones, as soon as there are a few, one factorisation of the
    exact equations for all of them. A rough model: `python -m benchmarks.tangents` compares the two on either side of the choice.
    """
    k, there, m = np.count_nonzero(columns), ~loss.loss.missing, columns.size - n
    parts = np.abs(loss.loss.t_obs - t_span[0]) / max(abs(t_span[1] - t_span[0]), 1e-300)
    rows = float((parts[:, None] * there).sum())
    each = 0.03 if m >= 4 * n and k * m <= 2**17 else 0.15
    tangents = min(0.9 * k, 3.5 + 0.03 * k) if options.tableau.implicit else 0.5 + each * k
    return "adjoints" if rows < tangents else "tangents"
