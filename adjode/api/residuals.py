"""`residuals_and_jacobian`: the residuals of a least-squares loss and their derivatives, as a function of (u0, theta)."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, Unpack

import numpy as np

from adjode.api.first_calls import backward_parts, forward_parts, try_behind
from adjode.api.form import Form
from adjode.api.gradient import readers_of, require_observed
from adjode.api.keywords import ForwardKeywords
from adjode.api.residual_workspace import ResidualWorkspace, theta_columns
from adjode.api.solve import solve, try_before
from adjode.api.steady import is_steady
from adjode.api.tangents import try_tangents
from adjode.checks import choose, time_span, times_in_span
from adjode.derivatives.proof import require_derived_loss
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics
from adjode.model.layout import Layout
from adjode.model.losses import LeastSquares, PreparedLoss, loss_for
from adjode.model.selection import selection_mask
from adjode.passes.default_atol import beside_loss
from adjode.passes.forward import structure_for
from adjode.passes.options import SolveOptions
from adjode.status import SUCCESS


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

    Buffers and compiled code are prepared at the first call. Each call then runs the forward pass and, along its steps, the
    tangents of all columns at once or the adjoint of each row, in compiled code, without the GIL. Half the sum of the squared
    residuals is the loss, and `J.T @ r` is its gradient by the discrete adjoint along the same steps.

    Parameters
    ----------
    dynamics : Dynamics
    loss : LeastSquares, or Likelihood with Gaussian or LogNormal noise whose sigma are numbers
        The loss of one trajectory; of components of the state, or of what `observe` computes from state and parameters.
    t_span : (t0, T)
    wrt : tuple of block names, or dict
        The columns of J, as `free` of a `Fit`: whole blocks ("u0", "theta"), or for each block True or False, a boolean mask, a
        list of indices, or a list of entry names. Those of u0 come first. Only these columns are computed.
    jacobian : {"auto", "tangents", "adjoints"}
        How J is computed: column by column, row by row, or in whichever way costs less.
    on_inaccurate : {"refine", "raise", "warn"}
        What to do if steps that were chosen for the states are too long for J, so that it may be off by more than 100 times rtol,
        relative to its largest logarithmic derivatives; see `Solution.pullback`. Fixed steps are not judged.
    **options
        Options of `solve` (`method`, `rtol`, `atol`, ...) except `memory`.

    Returns
    -------
    ResidualsAndJacobian
        `(u0, theta) -> (r, J)`, r (N,) without missing data, in the order of `y_obs` by rows; J (N, p).

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid, or the method or the dynamics have no tangents.
    """
    return ResidualsAndJacobian(dynamics, loss, t_span, wrt, jacobian, on_inaccurate, dict(options))


class ResidualsAndJacobian:
    """The residuals and their Jacobian, as a function of (u0, theta); made by `residuals_and_jacobian`.

    It may be called from several threads, each of which uses its own buffers. Copies and pickles contain only the description.

    Attributes
    ----------
    jacobian : str
        "tangents" or "adjoints": how the last call computed J, unless you asked for one of them; "auto" before the first call.
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
            what = "adjode.losses.LeastSquares, or a Likelihood with Gaussian or LogNormal noise whose sigma is a number"
            raise TypeError(f"residuals need {what}, but a {type(loss).__name__} was given.")
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
        self._idle: dict[tuple[Layout, Layout], list[ResidualWorkspace]] = {}
        self._latest: tuple[Form, list[ResidualWorkspace]] = Form(Layout("u0", {}), Layout("theta", {})), []  # of the latest call
        self._is_warned = False

    def __reduce__(self):
        return ResidualsAndJacobian, self._given

    def __call__(self, u0: Any, theta: Any) -> tuple[np.ndarray, np.ndarray]:
        """The residuals (N,) and their Jacobian (N, p) at (u0, theta).

        Raises
        ------
        ValueError, TypeError
            If an argument is invalid.
        SolveError
            If a pass cannot be completed, or a residual is not finite.
        """
        form, idle = self._latest
        if form.is_like(u0, theta):
            flat = u0, theta
        else:
            form = Form(*self.dynamics.layouts(u0, theta))
            self.dynamics.require_order(*form.layouts, readers=self.readers)
            flat = form.layouts[0].flatten("u0", u0), form.layouts[1].flatten("theta", theta)
            idle = self._idle.setdefault(form.layouts, [])
            self._latest = form, idle
        try:
            workspace = idle.pop()
        except IndexError:
            workspace = self._make(form.layouts, *flat)
        failed = self._steady or not workspace.run(*flat)
        self.jacobian = workspace.how
        if failed:
            try:
                return self._step_by_step(workspace.columns, *flat)
            finally:
                idle.append(workspace)
        result = workspace.result()
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

    def _make(self, layouts: tuple[Layout, Layout], u0: np.ndarray, theta: np.ndarray) -> ResidualWorkspace:
        options = replace(self.options, doses=()) if self._steady else self.options  # passes are then made step by step
        place = self.t_span[0], u0, theta
        loss = self._prepared(u0.size)
        loss.try_calls(u0, theta)
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
        return ResidualWorkspace(self.dynamics, options, structure, loss, self.t_span, mask, u0.size, *asked)

    def _prepared(self, n: int) -> PreparedLoss:
        loss = self.loss.prepare(n, self.t_span[1])
        loss.times[:] = times_in_span("t_obs", loss.times, *self.t_span)
        return loss

    def _try_behind(self, workspace: ResidualWorkspace) -> None:
        (times, states), theta = workspace.forward.places(), workspace.theta
        parts = forward_parts(self.dynamics, self.options)
        if workspace.rows is not None:
            parts += backward_parts(self.dynamics, wants_theta=True)
        try_behind(self.dynamics, parts, times, states, theta)
        if workspace.tangents is not None:
            try_tangents(workspace.tangents, times, states)
        require_derived_loss(workspace.loss, theta)
        workspace.is_tried = True

    def _step_by_step(self, columns: np.ndarray, u0: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same by the long way round, which says what is wrong."""
        solution, n, loss = solve(self.dynamics, u0, theta, self.t_span, **self._solve_options), u0.size, self._prepared(u0.size)
        if self.t_span[1] < self.t_span[0]:
            loss.reverse()
        require_observed(solution, loss.times)
        directions = np.eye(columns.size)[columns].T
        dots = solution.pushforward(directions[:n], directions[n:], loss.times, on_inaccurate=self._on_inaccurate)
        assert dots.u is not None
        loss.observe(np.ascontiguousarray(solution(loss.times)), theta)
        one_behind_the_other = np.ascontiguousarray(dots.u.transpose(0, 2, 1)).reshape(loss.times.size, -1)
        reading = loss.squares.reading(one_behind_the_other, 1, theta_columns(columns, n))
        if reading.entry(reading.frame.argument) != SUCCESS:
            loss.run()
            loss.explain()
        require_derived_loss(loss, theta)
        return reading.r, reading.J
