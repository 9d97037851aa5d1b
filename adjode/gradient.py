"""The two functional forms: `vjp`, and `value_and_gradient` of a loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adjode.adjoints.sweep import SweepOptions
from adjode.linalg.structure import Structure
from adjode.model.dynamics import Dynamics
from adjode.model.layout import Layout
from adjode.model.losses import Loss, PreparedLoss
from adjode.options import choose, positive, time_span, times_in_span
from adjode.pullback import (
    Cotangents,
    check_method,
    check_wrt,
    pullback,
    read_tolerances,
    refuse_continuous_options,
    refuse_with_mass,
)
from adjode.solve import check_options, solve, structure_for
from adjode.tableaus import Tableau
from adjode.workspace import Workspace, jitted_evaluation


def vjp(
    dynamics: Dynamics, u0: Any, theta: Any, t_span: tuple[float, float], **options: Any
) -> tuple[Any, Callable[..., Cotangents]]:
    """The map `(u0, theta, t0, T) -> u(T)` and its pullback.

    Parameters
    ----------
    dynamics, u0, theta, t_span
        As for `solve`.
    **options
        Options of `solve`.

    Returns
    -------
    u_T : (n,) array, or in the form of u0
    pullback : callable
        `pullback(u_T_bar, **options) -> Cotangents`, as `Solution.pullback`.
    """
    solution = solve(dynamics, u0, theta, t_span, **options)
    return solution.u_T, solution.pullback


def value_and_gradient(
    dynamics: Dynamics,
    loss: Loss,
    t_span: tuple[float, float],
    *,
    wrt: Sequence[str] = ("u0", "theta"),
    adjoint: str = "discrete",
    **options: Any,
) -> ValueAndGradient:
    """The value and the gradient of a loss, as a function of (u0, theta).

    Buffers and compiled code are prepared at the first call; each call then runs the forward pass, the loss and the backward pass
    in compiled code, without the GIL. A loss of another kind than those named below, a running cost, cotangents of times and
    `adjoint="backsolve"` take the long way instead: solve, loss, pullback.

    Parameters
    ----------
    dynamics : Dynamics
    loss : FinalState, LeastSquares, Series, or any object with `value_and_cotangents(solution)`
    t_span : (t0, T)
    wrt : subset of ("u0", "theta", "t0", "T", "observation_times")
    adjoint : {"discrete", "interpolating", "backsolve"}
        The discrete adjoint is the default here: its gradient is that of the value returned, for the steps that were taken, to
        rounding; it has no tolerance of its own; observations are no stops; and at equal error of the gradient it is faster.
        The step sizes are held fixed. Options of the continuous adjoints raise ValueError unless one of those is named.
    **options
        Options of `solve` (`method`, `rtol`, `atol`, ...) and of `Solution.pullback` (`quadrature`, ...). Where the two share a
        name, the pullback's is `adjoint_rtol`, `adjoint_atol`, `adjoint_method` or `adjoint_max_steps`. The value of a
        `running_cost` is added to that of the loss.

    Returns
    -------
    ValueAndGradient
        `(u0, theta) -> (value, Cotangents)`.

    Raises
    ------
    ValueError, TypeError
        For an option that neither takes, or bad input.
    """
    return ValueAndGradient(dynamics, loss, t_span, wrt, {"adjoint": adjoint, **options})


SOLVE_OPTIONS = {
    name: parameter.default
    for name, parameter in inspect.signature(solve).parameters.items()
    if name not in ("dynamics", "u0", "theta", "t_span", "t_eval")
}
_PULLBACK_OPTIONS = {
    name: parameter.default
    for name, parameter in inspect.signature(pullback).parameters.items()
    if name not in ("solution", "u_T_bar", "observations", "wrt", "rtol", "atol", "method", "max_steps")
}
_CONTINUOUS = frozenset({*_PULLBACK_OPTIONS, "rtol", "atol", "method", "max_steps"} - {"adjoint", "running_cost"})
_RENAMED = {"adjoint_rtol": "rtol", "adjoint_atol": "atol", "adjoint_method": "method", "adjoint_max_steps": "max_steps"}


class ValueAndGradient:
    """The value and the gradient of a loss, as a function of (u0, theta); made by `value_and_gradient`.

    Calls may be made from several threads: each works on buffers of its own.
    """

    def __init__(self, dynamics: Dynamics, loss: Loss, t_span: tuple[float, float], wrt: Sequence[str], options: dict[str, Any]):
        if not isinstance(dynamics, Dynamics):
            raise TypeError(f"dynamics must be an adjode.Dynamics(f, vjp), but a {type(dynamics).__name__} was given.")
        self.dynamics, self.loss, self.t_span = dynamics, loss, time_span(t_span)
        self._solve_options, self._pullback_options = _split(options)
        if self._pullback_options["adjoint"] == "discrete":
            refuse_continuous_options({name: value for name, value in self._pullback_options.items() if name in _CONTINUOUS})
        self._wrt = check_wrt(wrt)
        refuse_with_mass(dynamics, self._pullback_options["adjoint"], self._wrt)
        self._pullback_options["wrt"] = tuple(self._wrt)
        self._wants = "u0" in self._wrt, "theta" in self._wrt
        self._layouts: tuple[Layout, ...] = ()
        self._shapes: tuple[tuple[int], tuple[int]] = (-1,), (-1,)
        self._flat = False
        self._idle: list[Workspace] = []  # one for each thread that calls at the same time
        self._prepares = self._can_prepare()

    def __call__(self, u0: Any, theta: Any) -> tuple[float, Cotangents]:
        """The value and the cotangents asked for, at (u0, theta).

        Raises
        ------
        ValueError, TypeError
            For bad input.
        SolveError
            If a pass cannot be completed, or the loss is not finite.
        """
        workspace = self._workspace(u0, theta)
        if workspace is None:
            return self.step_by_step(u0, theta)
        try:
            value, succeeded = workspace.run()
            if succeeded:
                bars = workspace.u0_bar() if self._wants[0] else None, workspace.theta_bar() if self._wants[1] else None
                if not self._flat:
                    bars = self._unflatten(*bars)
                return float(value), Cotangents(*bars, stats=workspace.stats())
        finally:
            self._idle.append(workspace)
        return self.step_by_step(u0, theta)  # which says what is wrong

    def jitted(self, n: int, m: int) -> Callable[..., tuple[int, float]]:
        """The same computation for use in the user's own compiled code.

        Parameters
        ----------
        n, m : int
            Numbers of states and parameters.

        Returns
        -------
        callable
            An `@numba.njit` function `(u0, theta, u0_bar, theta_bar) -> (status, value)` of contiguous float64 vectors, which
            overwrites those of the last two that `wrt` names. A status other than 0, see `adjode.Status`, is a failed solve: value
            and gradient are then NaN; a call of this object with the same input says why. It owns its buffers: use one for each
            thread.

        Raises
        ------
        TypeError
            If the loss or an option needs Python.
        ValueError
            If the callbacks leave arrays of these sizes.
        """
        return jitted_evaluation(self.workspace(np.ones(n), np.ones(m)), self._wants)

    def workspace(self, u0: np.ndarray, theta: np.ndarray) -> Workspace:
        """Buffers and entries of one thread, for inputs like these; the errors of `jitted`."""
        self.require_prepared()
        self._check_callbacks(u0, theta)
        return self._make(u0, theta)

    def require_prepared(self) -> None:
        """Raise a TypeError if the loss or an option needs Python."""
        if not self._prepares:
            raise TypeError(
                "there is no compiled form for a loss of your own, a span of no length, other cotangents than u0's and theta's, "
                "a running cost, or options that only a backsolve or a dense adjoint has."
            )

    def _workspace(self, u0: Any, theta: Any) -> Workspace | None:
        """A workspace with u0 and theta in it; None if these or the options need the long way round."""
        if not (self._flat and type(u0) is type(theta) is np.ndarray and (u0.shape, theta.shape) == self._shapes):
            if not self._prepares:
                return None
            self._read_layouts(u0, theta)
            u0, theta = (layout.flatten(layout.name, given) for layout, given in zip(self._layouts, (u0, theta), strict=True))
        try:
            workspace = self._idle.pop()
        except IndexError:
            workspace = self._make(u0, theta)
            self._check_callbacks(u0, theta)
        workspace.u0[:] = u0
        workspace.theta[:] = theta
        return workspace

    def _read_layouts(self, u0: Any, theta: Any) -> None:
        """Adopt the form of u0 and theta."""
        layouts = Layout("u0", u0), Layout("theta", theta)
        if layouts != self._layouts:
            self._layouts, self._idle = layouts, []
            self._flat = all(layout.is_flat for layout in layouts)
            self._shapes = (layouts[0].size,), (layouts[1].size,)

    def _unflatten(self, *bars: np.ndarray | None) -> tuple[Any, ...]:
        return tuple(None if bar is None else layout.unflatten(bar) for layout, bar in zip(self._layouts, bars, strict=True))

    def _check_callbacks(self, u0: np.ndarray, theta: np.ndarray) -> None:
        for callback in (self.dynamics.f, self.dynamics.vjp, self.dynamics.vjp_u):
            if callback is not None:
                callback.require_inside(self.t_span[0], u0, theta)

    def _can_prepare(self) -> bool:
        """Whether the passes can be made once and for all: not for a loss that wants a Solution, nor for rarer options."""
        rest = {**_PULLBACK_OPTIONS, **self._pullback_options}
        ordinary = all(rest[name] == _PULLBACK_OPTIONS[name] for name in ("running_cost", "reanchor", "on_drift", "dense_adjoint"))
        return (
            ordinary
            and _has_own_preparation(self.loss)
            and self._wrt <= {"u0", "theta"}
            and self._wrt != set()
            and rest["adjoint"] in ("discrete", "interpolating")
            and (rest["quadrature_atol"] is None or rest.get("atol") is not None)
            and self.t_span[0] != self.t_span[1]
        )

    def _make(self, u0: np.ndarray, theta: np.ndarray) -> Workspace:
        tableau, structure, loss, controls, sweep, atol_scale = self.read_options(u0, theta)
        return Workspace(
            self.dynamics,
            tableau,
            structure,
            loss,
            self.t_span,
            u0.size,
            theta.size,
            controls,
            sweep,
            atol_scale,
            self._wants[1],
        )

    def read_options(
        self, u0: np.ndarray, theta: np.ndarray
    ) -> tuple[Tableau, Structure | None, PreparedLoss, dict[str, Any], SweepOptions | None, float]:
        """Method, structure, prepared loss, controls of the forward pass, options of the sweep, `atol_scale`, for `Workspace`."""
        n, (linear_solver, forward) = u0.size, self._linear_solver_and_rest()
        tableau, controls = check_options(n, **forward)
        structure = structure_for(tableau, self.dynamics, linear_solver, self.t_span[0], u0, theta)
        rest = {**_PULLBACK_OPTIONS, "rtol": None, "atol": None, "method": None, "max_steps": None, **self._pullback_options}
        tolerances = {name: rest[name] for name in ("rtol", "atol", "quadrature_rtol", "quadrature_atol")}
        sweep, atol_scale = None, 0.0
        if rest["adjoint"] != "discrete":
            backward = check_method(rest["method"], tableau.name, controls)
            sweep = SweepOptions(
                adjoint="interpolating",
                quadrature=choose("quadrature", rest["quadrature"], ("gauss", "augmented")),
                error_norm=choose("error_norm", rest["error_norm"], ("all", "lam")),
                method=backward.name,
                structure=structure_for(backward, self.dynamics, linear_solver, self.t_span[0], u0, theta),
                max_steps=controls["max_steps"] if rest["max_steps"] is None else int(positive("max_steps", rest["max_steps"])),
                reanchor=False,
                on_drift="raise",
                dense_adjoint=False,
                **read_tolerances(controls, lambda: 1.0, **tolerances),
            )
            atol_scale = sweep.atol if tolerances["atol"] is None else 0.0
        loss: PreparedLoss = self.loss.prepare(n, self.t_span[1])  # type: ignore[attr-defined]
        times_in_span("t_obs", loss.times, *self.t_span)
        return tableau, structure, loss, controls, sweep, atol_scale

    def _linear_solver_and_rest(self) -> tuple[str, dict[str, Any]]:
        """The options of the forward solve, that of the linear solver apart."""
        options = {**SOLVE_OPTIONS, **self._solve_options}
        return options.pop("linear_solver"), options

    def step_by_step(self, u0: Any, theta: Any) -> tuple[float, Cotangents]:
        """The same by the long way round: solve, loss, pullback."""
        solution = solve(self.dynamics, u0, theta, self.t_span, **self._solve_options)
        value, seeds = self.loss.value_and_cotangents(solution)
        bar = pullback(solution, **seeds, **self._pullback_options)
        return value + (bar.running_cost or 0.0), bar


def _has_own_preparation(loss: Loss) -> bool:
    """Whether `prepare` belongs to this loss, and not to a class whose value a subclass has changed."""
    for part in type(loss).__mro__:
        if "value_and_cotangents" in vars(part):
            return "prepare" in vars(part)
    return False


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    forward, backward = {}, {}
    for name, value in options.items():
        if name in SOLVE_OPTIONS:
            forward[name] = value
        elif name in _RENAMED:
            backward[_RENAMED[name]] = value
        elif name in _PULLBACK_OPTIONS:
            backward[name] = value
        else:
            known = sorted({*SOLVE_OPTIONS, *_PULLBACK_OPTIONS, *_RENAMED})
            raise TypeError(f"option {name!r} is unknown; the options are {', '.join(known)}.")
    return forward, backward
