"""The two functional forms: `vjp`, and `value_and_gradient` of a loss."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Unpack

import numpy as np

from adjode.api.first_calls import backward_parts, forward_parts, prove_ahead, try_behind
from adjode.api.form import Form
from adjode.api.jumps_of_f import warn_of_jump
from adjode.api.keywords import GradientKeywords, SolveKeywords
from adjode.api.pullback import pullback
from adjode.api.seeds import read_cost, read_seeds
from adjode.api.solution import Solution
from adjode.api.solve import solve, try_before
from adjode.api.steady import is_steady
from adjode.api.wanted import check_adjoint, check_wrt
from adjode.checks import time_span, times_in_span
from adjode.derivatives.proof import require_derived_loss
from adjode.linalg.structure import Structure
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics
from adjode.model.events import read_events, with_steps_at
from adjode.model.layout import Layout
from adjode.model.losses import EventTimes, Loss, PreparedLoss, loss_for, readers_in
from adjode.passes.default_atol import beside_loss
from adjode.passes.forward import structure_for
from adjode.passes.options import PULLBACK_NAMES, SHARED_NAMES, SOLVE_NAMES, PullbackOptions, SolveOptions, SweepOptions
from adjode.passes.result import Cotangents
from adjode.passes.workspace import Workspace, jitted_evaluation
from adjode.status import SolveError, Status


def vjp(
    dynamics: Dynamics, u0: Any, theta: Any, t_span: tuple[float, float], **options: Unpack[SolveKeywords]
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
        `pullback(u_T_bar, **options) -> Cotangents`, like `Solution.pullback`.
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
    **options: Unpack[GradientKeywords],
) -> ValueAndGradient:
    """The value and the gradient of a loss, as a function of (u0, theta).

    Buffers and compiled code are prepared at the first call. Each call then runs the forward pass, the loss and the backward pass
    in compiled code, without the GIL. A loss of another kind than those named below, a running cost, cotangents of times,
    `certify=True` and `adjoint="backsolve"` go step by step instead: solve, loss, pullback. The value is then that of the first
    solve, whatever `on_inaccurate="refine"` does for the gradient.

    Parameters
    ----------
    dynamics : Dynamics
    loss : FinalState, LeastSquares, Series, or any object with `value_and_cotangents(solution)`
    t_span : (t0, T)
    wrt : subset of ("u0", "theta", "t0", "T", "observation_times")
    adjoint : {"discrete", "interpolating", "backsolve"}
        The discrete adjoint is the default here. Its gradient is that of the value returned, for the steps that were taken, to
        rounding. It has no tolerance of its own, observations are not stops, and at equal error of the gradient it is faster. The
        step sizes are held fixed. Options of the continuous adjoints raise ValueError unless one of those is named.
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
        If neither takes an option, or an argument is invalid.
    """
    return ValueAndGradient(dynamics, loss, t_span, wrt, {"adjoint": adjoint, **options})


class ValueAndGradient:
    """The value and the gradient of a loss, as a function of (u0, theta); made by `value_and_gradient`.

    It may be called from several threads, each of which uses its own buffers. Copies and pickles contain only the description, and
    prepare their own buffers.
    """

    def __init__(self, dynamics: Dynamics, loss: Loss, t_span: tuple[float, float], wrt: Sequence[str], options: dict[str, Any]):
        if not isinstance(dynamics, Dynamics):
            raise TypeError(f"dynamics must be an adjode.Dynamics(f, vjp), but a {type(dynamics).__name__} was given.")
        self.dynamics, self.loss, self.t_span = dynamics, loss_for(dynamics.fields, loss), time_span(t_span)
        self._given = dynamics, loss, self.t_span, wrt, options
        if isinstance(self.loss, EventTimes):
            events = read_events(options.get("events"))
            options = options | {"events": with_steps_at(self.loss.index_in(events), events)}
        solve_options, self._pullback_options, self._running_cost = _split(options)
        self.solve_options = beside_loss(solve_options, self.loss)
        self.forward_options = SolveOptions.of(dynamics, self.t_span, **self.solve_options)
        self.backward_options = PullbackOptions(**self._pullback_options)
        self.backward_options.refuse_if_discrete(tuple(self._pullback_options.keys() - {"adjoint", "on_inaccurate", "certify"}))
        self._wrt = check_wrt(wrt)
        check_adjoint(dynamics, self.backward_options.adjoint, self._wrt)
        self._parts = forward_parts(dynamics, self.forward_options) + backward_parts(dynamics, wants_theta="theta" in self._wrt)
        self._warns = self.backward_options.on_inaccurate == "warn"
        in_memory = self.forward_options.limits.memory is None
        self.may_jump = in_memory and dynamics.switches.compare_states and not self.backward_options.discrete
        self._wants = "u0" in self._wrt, "theta" in self._wrt
        self._idle: dict[tuple[int, int], list[Workspace]] = {}  # by sizes: one for each thread that calls at the same time
        self._form = Form(Layout("u0", {}), Layout("theta", {}))  # of the latest call
        self._is_warned = False
        self._unprepared = next(self._what_needs_python(), None)

    def __reduce__(self):
        return ValueAndGradient, self._given

    def __call__(self, u0: Any, theta: Any) -> tuple[float, Cotangents]:
        """The value and the requested cotangents at (u0, theta).

        Raises
        ------
        ValueError, TypeError
            If an argument is invalid.
        SolveError
            If a pass cannot be completed, or the loss is not finite.
        """
        if self._unprepared is not None:
            layouts = self.dynamics.layouts(u0, theta)
            self.dynamics.require_order(*layouts, readers=self.readers)
            if not self._is_warned:
                self._warn_of_tolerances(layouts[0], stacklevel=4)
            return self.step_by_step(u0, theta)
        form = self._form
        flat = form.is_like(u0, theta)
        if not flat:
            form = self._form = Form(*self.dynamics.layouts(u0, theta))
            self.dynamics.require_order(*form.layouts, readers=self.readers)
        workspace, result = self._take_workspace(form, *((u0, theta) if flat else form.flatten(u0, theta))), None
        if workspace.run():
            if not workspace.is_tried:
                self._try_behind(workspace)
            if self.may_jump and workspace.forward.rejected > 0:
                warn_of_jump(self.dynamics, *workspace.forward.places(), workspace.theta, stacklevel=2)
            bars = workspace.u0_bar() if self._wants[0] else None, workspace.theta_bar() if self._wants[1] else None
            u0_bar, theta_bar = bars if form.flat else form.unflatten(*bars)
            result = workspace.value, Cotangents(u0_bar, theta_bar, error=workspace.backward.estimate, stats=workspace.stats())
            if self._warns:
                workspace.backward.warn_if_inaccurate(stacklevel=2)
        # not reached after an exception, which may have come between any two steps of the above: those buffers are given up
        self._idle[form.sizes].append(workspace)
        return result or self.step_by_step(u0, theta)  # which says what is wrong

    def jitted(self, n: int, m: int) -> Callable[..., tuple[int, float]]:
        """The same computation for use in your own compiled code.

        Parameters
        ----------
        n, m : int
            Numbers of states and parameters.

        Returns
        -------
        callable
            An `@numba.njit` function `(u0, theta, u0_bar, theta_bar) -> (status, value)` of contiguous float64 vectors, which
            overwrites those of the last two that `wrt` names. A status other than 0 (see `adjode.Status`) means that the solve
            failed: value and gradient are then NaN, and calling this object with the same input tells why. It owns its buffers: use
            one for each thread, and do not copy it. Numba warns that it cannot cache a function that calls this one, since it holds
            addresses of this process.

        Raises
        ------
        TypeError
            If the loss or an option needs Python.
        ValueError
            If the callbacks access these arrays out of bounds.
        """
        return jitted_evaluation(self.workspace(np.ones(n), np.ones(m)), self._wants)

    def workspace(self, u0: np.ndarray, theta: np.ndarray) -> Workspace:
        """Buffers and entries of one thread, for inputs like these; the errors of `jitted`."""
        self.require_prepared()
        workspace = self._make_tried(self.dynamics.layouts(u0, theta)[0], u0, theta)
        prove_ahead(self.dynamics, self._parts, self.t_span, u0, theta)
        workspace.loss.require_compiled()
        return workspace

    @functools.cached_property
    def readers(self) -> list[Callback | set[int]] | None:
        """Callbacks that may read theta, beside those of the dynamics; None where doses and events may too."""
        jumps = self.forward_options.doses or self.forward_options.events
        return None if jumps else readers_of(self.dynamics, self.loss, self._running_cost)

    def require_prepared(self) -> None:
        """Raise a TypeError if the loss or an option needs Python."""
        if self._unprepared is not None:
            raise TypeError(f"there is no compiled form for {self._unprepared}.")

    def _take_workspace(self, form: Form, u0: np.ndarray, theta: np.ndarray) -> Workspace:
        """A workspace that nobody else uses, with u0 and theta in it."""
        try:
            workspace = self._idle[form.sizes].pop()
        except (KeyError, IndexError):
            self._idle.setdefault(form.sizes, [])
            workspace = self._make_tried(form.layouts[0], u0, theta)
        workspace.u0[:] = u0
        workspace.theta[:] = theta
        return workspace

    def _make_tried(self, layout: Layout, u0: np.ndarray, theta: np.ndarray) -> Workspace:
        """The same, behind trial calls of what it calls."""
        self.loss.prepare(u0.size, self.t_span[1])  # its errors come first
        try_before(self.dynamics, self.forward_options, self._parts, self.t_span, u0, theta)
        workspace = self._make(u0, theta)
        self._warn_of_tolerances(layout, stacklevel=6)
        return workspace

    def _try_behind(self, workspace: Workspace) -> None:
        workspace.is_tried = True
        if workspace.program.segments is not None:
            prove_ahead(self.dynamics, self._parts, self.t_span, workspace.u0, workspace.theta)
        else:
            places, guards = workspace.forward.places(), workspace.forward.jumps.guards
            try_behind(self.dynamics, self._parts, *places, workspace.theta, guards)
        require_derived_loss(workspace.loss, workspace.theta)

    def _what_needs_python(self) -> Iterator[str]:
        """What passes cannot be made for once and for all: a loss that wants a Solution, and rarer options."""
        options = self.backward_options
        if not (_has_own_preparation(self.loss) and _has_own_preparation(getattr(self.loss, "beside", None) or self.loss)):
            yield "a loss of your own in Python: Series and FinalState take compiled functions, value=..."
        if self._running_cost is not None:
            yield "a running cost"
        if options.adjoint not in ("discrete", "interpolating"):
            yield f"adjoint={options.adjoint!r}: take 'discrete' or 'interpolating'"
        for option in ("dense_adjoint", "certify"):
            if getattr(options, option):
                yield f"{option}=True"
        if not self._wrt or not self._wrt <= {"u0", "theta"}:
            yield f"wrt={tuple(self._wrt)}: take 'u0', 'theta' or both"
        if is_steady(self.forward_options, self.t_span):
            yield "doses in steady state"
        if self.t_span[0] == self.t_span[1]:
            yield "a span of zero length"

    def _make(self, u0: np.ndarray, theta: np.ndarray) -> Workspace:
        structure, loss, sweep = self.prepare(u0, theta)
        sizes = u0.size, theta.size
        wants = self._wants[1], self.backward_options.on_inaccurate
        return Workspace(self.dynamics, self.forward_options, structure, loss, self.t_span, *sizes, sweep, *wants)

    def prepare(self, u0: np.ndarray, theta: np.ndarray) -> tuple[Structure | None, PreparedLoss, SweepOptions | None]:
        """The structure for the forward method, the loss prepared, and what a continuous adjoint is told."""
        n, forward, backward = u0.size, self.forward_options, self.backward_options
        sweep = None
        place = self.t_span[0], u0, theta
        structure = structure_for(forward.tableau, self.dynamics, forward.linear_solver, *place)
        if not backward.discrete:
            behind = structure_for(backward.backward_method(forward), self.dynamics, forward.linear_solver, *place)
            sweep = backward.for_sweep(forward, forward.absolute_tolerances(n), behind)
        return structure, self._prepare_loss(u0, theta), sweep

    def _prepare_loss(self, u0: np.ndarray, theta: np.ndarray) -> PreparedLoss:
        loss: PreparedLoss = self.loss.prepare(u0.size, self.t_span[1])
        loss.try_calls(u0, theta)
        loss.bind(self.forward_options.events)
        loss.times[:] = times_in_span("t_obs", loss.times, *self.t_span)
        return loss

    def require_fitting(self, u0: np.ndarray, theta: np.ndarray) -> None:
        """Raise a ValueError or TypeError if the loss does not fit a state and parameters of these sizes, or the span."""
        if _has_own_preparation(self.loss):
            self._prepare_loss(u0, theta)

    def _warn_of_tolerances(self, layout: Layout, stacklevel: int) -> None:
        """Warn if absolute tolerances hide what the loss compares: once, and not for fixed steps, which have none."""
        warn = getattr(self.loss, "warn_of_tolerances", None)
        if warn is not None and not self._is_warned and self.forward_options.adaptive:
            self._is_warned = True
            warn(self.forward_options.absolute_tolerances(layout.size), self.t_span[0], layout.entry_names("u"), stacklevel)

    def step_by_step(self, u0: Any, theta: Any) -> tuple[float, Cotangents]:
        """The same by the long way round: solve, loss, pullback."""
        limit, start = self.forward_options.max_seconds, time.monotonic()
        solution = solve(self.dynamics, u0, theta, self.t_span, **self.solve_options)
        require_observed(solution, getattr(self.loss, "t_obs", ()))
        value, seeds = self.loss.value_and_cotangents(solution)
        value = _finite_number(value, solution.t[-1])
        if _has_own_preparation(self.loss):
            self._prove_loss(solution)
        options = {**self._pullback_options, "wrt": tuple(self._wrt), "running_cost": self._running_cost}
        if limit is not None:
            options["max_seconds"] = max(limit - (time.monotonic() - start), 1e-9)
        bar = pullback(solution, **seeds, **options | {"certify": False})
        if self.backward_options.certify:
            plain = self._running_cost is None and not seeds.keys() - {"u_T_bar", "observations", "theta_bar"}
            given = seeds.get("u_T_bar"), seeds.get("observations"), seeds.get("theta_bar")
            known = read_seeds(solution.layouts, solution.t, *given) if plain else None
            from adjode.api.certify import hold_against_another  # here: for those alone who ask for it

            hold_against_another(solution, bar, self.backward_options, known, self._pull_back)
        return value + (bar.running_cost or 0.0), bar

    def _prove_loss(self, solution: Solution) -> None:
        prepared: PreparedLoss = self.loss.prepare(solution.layouts[0].size, self.t_span[1])
        times = np.where(prepared.times == self.t_span[1], solution.t[-1], prepared.times)  # an event may have ended it
        prepared.observe(np.ascontiguousarray(solution(times)), solution.theta)
        require_derived_loss(prepared, solution.theta)

    def _pull_back(self, solution: Solution, way: PullbackOptions) -> Cotangents:
        """The gradient of the loss at another solution, in another way."""
        seeds, wrt = self.loss.value_and_cotangents(solution)[1], tuple(self._wrt & {"u0", "theta"})
        options = {"adjoint": way.adjoint, "method": way.method, "max_seconds": way.max_seconds, "running_cost": self._running_cost}
        return pullback(solution, **seeds, **options, wrt=wrt)


def readers_of(dynamics: Dynamics, loss: Loss, running_cost: Any) -> list[Callback | set[int]]:
    """What may read theta, beside the dynamics: callbacks, and entries by their places."""
    cost = [] if running_cost is None else [read_cost(running_cost, dynamics.fields)[0]]
    return [*readers_in(loss_for(dynamics.fields, loss)), *cost]


def require_observed(solution: Solution, times: Any) -> None:
    """Raise a SolveError if an event has ended the solution before the last of these times: a trial point may do that."""
    end, sign = float(solution.t[-1]), np.sign(solution.t[-1] - solution.t[0])
    late = [t for t in np.ravel(times) if sign * (t - end) > 0.0] if solution.ended else []
    if late:
        event = solution.options.events[solution.ended - 1].name
        message = f"{event} ended the solution at t = {end:g}, before the observation at t = {late[0]:g}"
        raise SolveError(f"{message}: leave such observations out.", phase="loss", status=Status.NON_FINITE, t=end)


def _finite_number(value: Any, t: float) -> float:
    """The value of a loss of one's own, which may not be defined at a trial point."""
    if np.ndim(value) or np.asarray(value).dtype.kind not in "fiub":
        raise TypeError(
            f"the loss must return a number and a dict of cotangents, but its value is {type(value).__name__} of shape "
            f"{np.shape(value)}: sum it up."
        )
    if not np.isfinite(value):
        raise SolveError(f"the loss is not finite: its value is {value}.", phase="loss", status=Status.NON_FINITE, t=float(t))
    return float(value)


def _has_own_preparation(loss: Loss) -> bool:
    """Whether `prepare` belongs to this loss, and not to a class whose value a subclass has changed."""
    for part in type(loss).__mro__:
        if "value_and_cotangents" in vars(part):
            return "prepare" in vars(part)
    return False


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Options of the solve, those of the pullback, and the running cost."""
    renamed = {f"adjoint_{name}": name for name in SHARED_NAMES}
    backward_names = frozenset(PULLBACK_NAMES) - {*SHARED_NAMES, "max_seconds"}
    forward, backward = {}, {}
    for name, value in options.items():
        if name in SOLVE_NAMES:
            forward[name] = value
        elif name in renamed:
            backward[renamed[name]] = value
        elif name in backward_names:
            backward[name] = value
        elif name != "running_cost":
            known = sorted({*SOLVE_NAMES, *backward_names, *renamed, "running_cost"})
            raise TypeError(f"option {name!r} is unknown; the options are {', '.join(known)}.")
    return forward, backward, options.get("running_cost")
