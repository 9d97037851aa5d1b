"""`residuals_and_jacobian`: the residuals of a least-squares loss and their derivatives, as a function of (u0, theta)."""

from __future__ import annotations

import functools
from typing import Any, Unpack

import numpy as np

from adjode.api.first_calls import forward_parts, try_behind
from adjode.api.gradient import readers_of, require_observed
from adjode.api.keywords import ForwardKeywords
from adjode.api.solve import solve, try_before
from adjode.api.steady import is_steady
from adjode.api.tangents import try_tangents
from adjode.checks import time_span, times_in_span
from adjode.compile import slots
from adjode.compile.slots import RECORD_STAGES
from adjode.derivatives.proof import require_derived_loss
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics
from adjode.model.inflows import with_inflows
from adjode.model.layout import Layout
from adjode.model.losses import LeastSquares, PreparedLoss, loss_for
from adjode.model.selection import selection_mask
from adjode.passes.forward import Forward, jumps_of, structure_for
from adjode.passes.options import SolveOptions
from adjode.passes.program import FORWARD, Program
from adjode.passes.tangents import TangentPass
from adjode.status import SUCCESS, TIMED_OUT, solve_error


def residuals_and_jacobian(
    dynamics: Dynamics,
    loss: LeastSquares,
    t_span: tuple[float, float],
    *,
    wrt: Any = ("u0", "theta"),
    **options: Unpack[ForwardKeywords],
) -> ResidualsAndJacobian:
    """The residuals of a loss that is a sum of squares, and their Jacobian, as a function of (u0, theta).

    Buffers and compiled code are prepared at the first call; each call then runs the forward pass, and along its steps the tangents
    of all directions at once, in compiled code, without the GIL. Half the sum of the squared residuals is the loss, and `J.T @ r`
    its gradient by the discrete adjoint.

    Parameters
    ----------
    dynamics : Dynamics
    loss : LeastSquares, or Likelihood with Gaussian or LogNormal noise whose sigma are numbers
        Of one trajectory; of components of the state, or of what `observe` makes of state and parameters.
    t_span : (t0, T)
    wrt : tuple of block names, or dict
        The columns of J, as `free` of a `Fit`: whole blocks ("u0", "theta"), or for each block True or False, a boolean mask, a
        list of indices, or a list of entry names. Those of u0 come first. What is left out costs nothing.
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
    return ResidualsAndJacobian(dynamics, loss, t_span, wrt, dict(options))


class ResidualsAndJacobian:
    """The residuals and their Jacobian, as a function of (u0, theta); made by `residuals_and_jacobian`.

    Calls may be made from several threads: each works on buffers of its own. Copies and pickles carry the description alone.
    """

    def __init__(self, dynamics: Dynamics, loss: LeastSquares, t_span: tuple[float, float], wrt: Any, options: dict[str, Any]):
        if not isinstance(dynamics, Dynamics):
            raise TypeError(f"dynamics must be an adjode.Dynamics(f), but a {type(dynamics).__name__} was given.")
        if not getattr(loss, "is_sum_of_squares", False):
            what = "adjode.losses.LeastSquares, or of a Likelihood with Gaussian or LogNormal noise whose sigma is a number"
            raise TypeError(f"residuals are those of {what}, but a {type(loss).__name__} was given.")
        self._given = dynamics, loss, t_span, wrt, options
        self.dynamics, self.loss, self.t_span = dynamics, loss_for(dynamics.fields, loss), time_span(t_span)
        if options.get("memory") is not None:
            raise ValueError("tangents need all steps of a solution: leave memory out.")
        dynamics.switches.warn(stacklevel=3)
        self.options, self._wrt, self._solve_options = SolveOptions.of(dynamics, self.t_span, **options), wrt, options
        self._steady = is_steady(self.options)
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
        if self._steady or not workspace.run(*flat):
            idle.append(workspace)
            return self._step_by_step(workspace, *flat)
        result = workspace.result()
        if not workspace.is_tried:
            self._try_behind(workspace)
        workspace.tangents.warn_if_inaccurate(stacklevel=2)
        idle.append(workspace)
        return result

    @functools.cached_property
    def readers(self) -> list[Callback | set[int]] | None:
        """Callbacks that may read theta, beside those of the dynamics; None where doses and events may too."""
        return None if self.options.doses or self.options.events else readers_of(self.dynamics, self.loss, None)

    def _make(self, layouts: tuple[Layout, Layout], u0: np.ndarray, theta: np.ndarray) -> _Workspace:
        options, place = self.options, (self.t_span[0], u0, theta)
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
        return _Workspace(self.dynamics, options, structure, loss, self.t_span, np.eye(mask.size)[mask], u0.size)

    def _try_behind(self, workspace: _Workspace) -> None:
        (times, states), theta = workspace.forward.places(), workspace.theta
        try_behind(self.dynamics, forward_parts(self.dynamics, self.options), times, states, theta)
        try_tangents(workspace.tangents, times, states)
        require_derived_loss(workspace.loss, theta)
        workspace.is_tried = True

    def _step_by_step(self, workspace: _Workspace, u0: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same by the long way round, which says what is wrong."""
        solution = solve(self.dynamics, u0, theta, self.t_span, **self._solve_options)
        n, directions, times = u0.size, workspace.directions, workspace.loss.times
        require_observed(solution, times)
        dots = solution.pushforward(directions[:, :n].T, directions[:, n:].T, times)
        assert dots.u is not None
        result = workspace.read(solution(times), dots.u.transpose(0, 2, 1), theta)
        require_derived_loss(workspace.loss, theta)
        return result


class _Workspace:
    """The passes of one call with all their buffers, made once and run many times."""

    def __init__(
        self,
        dynamics: Dynamics,
        options: SolveOptions,
        structure: Any,
        loss: PreparedLoss,
        t_span: tuple[float, float],
        directions: np.ndarray,
        n: int,
    ):
        if t_span[1] < t_span[0]:
            loss.reverse()
        self.loss, self.directions, self.is_tried, m = loss, directions, False, directions.shape[1] - n
        jumps = jumps_of(dynamics, options, n, m, t_span)
        dynamics, theta = with_inflows(dynamics, jumps.inflows, m, tangents=True), jumps.extended(np.zeros(m))
        self.u0, self.theta = np.zeros(n), theta[:m]
        how: Any = {"record": RECORD_STAGES, "times": loss.times, "jumps": jumps}
        self.forward = Forward(dynamics, options, structure, self.u0, theta, t_span, **how)
        self.tangents = TangentPass(
            dynamics,
            options,
            structure,
            self.forward.span,
            theta,
            directions[:, :n],
            np.pad(directions[:, n:], ((0, 0), (0, len(jumps.inflows)))),
            self.forward.frame[slots.TIMES],
            recorded=True,
            max_seconds=options.max_seconds,
            jumps=jumps,
        )
        self.program = Program(self.forward, None, self.tangents)

    def run(self, u0: np.ndarray, theta: np.ndarray) -> bool:
        """Whether all went well; a SolveError if it takes too long, and other failures are for the step-by-step way to explain."""
        self.u0[:], self.theta[:] = u0, theta
        status = self.program.run()
        if status == TIMED_OUT:
            forward = self.program.ran == FORWARD
            t, step_size = (self.forward if forward else self.tangents).place
            phase, limit = "forward" if forward else "tangent", self.program.max_seconds
            raise solve_error(status, phase=phase, t=t, step_size=step_size, max_seconds=limit)
        return status == SUCCESS and self.forward.count[slots.SEEN] == self.loss.times.size  # an event may have ended it before

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """The residuals and their Jacobian."""
        observed = self.forward.frame[slots.OBSERVED]
        return self.read(observed, self.tangents.observed, self.theta)

    def read(self, states: np.ndarray, dots: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same from states (c, n) and tangents (c, p, n) at the times of the loss, and theta (m,).

        Raises
        ------
        SolveError
            If a residual is not finite.
        """
        r, J = self.loss.residuals(states, dots, theta, self.directions[:, self.u0.size :])
        if not (np.isfinite(r).all() and np.isfinite(J).all()):
            self.loss.observe(np.ascontiguousarray(states), theta)
            self.loss.run()
            self.loss.explain()
        return r, J
