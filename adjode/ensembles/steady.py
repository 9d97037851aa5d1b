"""Ensembles whose doses have always been given: backends that find where each trajectory starts, and differentiate that.

Newton's method goes on for all members side by side. What it needs of a period, its end and the derivative of that by its start,
are values and gradients of n linear losses for each member: an ensemble of its own, on the same threads or workers. For a GPU that
runs on the host, in double precision, and the GPU has the trajectories from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from adjode.api.steady import FixedPoints, find_fixed_points, first_period, goes_on, is_steady, period_adjoint, seeds_of_period
from adjode.backends.cuda.arrays import to_host
from adjode.backends.outcome import Outcome, States, count_rows
from adjode.ensembles.engine import Engine
from adjode.ensembles.inputs import with_stops_of_members
from adjode.ensembles.seeds import Seeds
from adjode.model.doses import read_doses
from adjode.model.dynamics import Dynamics
from adjode.passes.default_atol import DefaultAtol, beside_loss
from adjode.passes.options import SOLVE_NAMES, SolveOptions
from adjode.status import SUCCESS


def has_steady_doses(options: dict[str, Any], spans: np.ndarray, engine: Engine) -> bool:
    """Whether the trajectories start in the steady states of their doses; a ValueError for what does not go with that."""
    doses = read_doses(options.get("doses"))
    asked = SolveOptions(**{name: options[name] for name in ("method", "step", "events") if name in options}, doses=doses)
    if not len(spans) or not is_steady(asked, (float(spans[0, 0]), float(spans[0, 1]))):
        return False
    if engine.device.get("device_output"):
        raise ValueError("doses in steady state and device_output=True exclude each other: steady states are found on the host.")
    return True


def on_host(array: Any) -> np.ndarray:
    """Of u0 or theta, which may lie on a GPU."""
    return np.asarray(to_host(array), dtype=np.float64)


def without_past(options: dict[str, Any]) -> dict[str, Any]:
    """The options of trajectories whose steady states are known, but for the periods in which doses begin."""
    return {**options, "doses": tuple(one.moved([0] * one.count) for one in read_doses(options["doses"]))}


class _Ends(Seeds):
    """Cotangents of the ends of periods, in solves for a loss whose data have certain sizes; see `DefaultAtol`."""

    def __init__(self, u_bars: np.ndarray, atol: DefaultAtol):
        super().__init__(u_bars, np.zeros(0), np.zeros((0, u_bars.shape[1])), backwards=False)
        self.components, self.sizes = atol.components, atol.sizes
        if self.sizes.ndim == 2:
            self.by_member = (*self.by_member, "sizes")

    def sizes_of_states(self) -> tuple[np.ndarray, np.ndarray]:
        return self.components, self.sizes


@dataclass(frozen=True, eq=False)
class _Start:
    """Where trajectories start, and the doses that they then have."""

    found: FixedPoints
    periods: tuple[tuple[int, ...], ...]


class _Steady:
    """What is common to solves and gradients.

    Parameters
    ----------
    engine : Engine
    dynamics : Dynamics
    options : dict
        Those of the solves, with doses in steady state.
    atol : Any
        Their absolute tolerance.
    t_span : (1, 2) or (N, 2) array
    """

    def __init__(self, engine: Engine, dynamics: Dynamics, options: dict[str, Any], atol: Any, t_span: np.ndarray):
        self._engine = replace(engine, progress=False)
        self._on_host = replace(self._engine, backend="threads", device={}) if engine.backend == "cuda" else self._engine
        self._dynamics, self._doses, self._atol = dynamics, read_doses(options["doses"]), atol
        self._of_solve = {name: value for name, value in options.items() if name in SOLVE_NAMES}
        every = self._doses[0].every
        assert every is not None
        self._every = float(every)
        self._periods = np.column_stack([t_span[:, 0], t_span[:, 0] + self._every])
        self._made: dict[Any, Callable[..., Any]] = {}

    def _moved(self, periods: tuple[tuple[int, ...], ...], *, repeated: bool) -> dict[str, Any]:
        return {"doses": tuple(one.moved(k, repeated=repeated) for one, k in zip(self._doses, periods, strict=True))}

    def _kept(self, key: Any, make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _over_period(self, given: tuple[np.ndarray, ...], seeds: _Ends, periods: tuple[tuple[int, ...], ...], wrt: str) -> Outcome:
        """Cotangents of the ends of periods pulled back to their starts or to theta, for `given` u, theta and spans."""

        def make() -> Callable[..., Any]:
            options = {**self._of_solve, **self._moved(periods, repeated=False)}
            options["adjoint"] = period_adjoint(SolveOptions(method=options.get("method", "Tsit5"), step=options.get("step")))
            options = with_stops_of_members(self._dynamics, options, self._periods)
            return self._on_host.gradient(self._dynamics, seeds, (wrt,), frozenset(), options)

        u, theta, spans = given
        return self._kept((wrt, periods, u.shape[1], theta.shape[1]), make)(u, theta, spans, loss=seeds)

    def _rows(self, theta: np.ndarray, members: np.ndarray, N: int) -> tuple[np.ndarray, np.ndarray]:
        """theta and the first periods of members, or of all of them."""
        of_theta, of_periods = (rows[members] if len(rows) == N > 1 else rows for rows in (theta, self._periods))
        return of_theta, of_periods

    def _sizes(self, members: np.ndarray) -> DefaultAtol:
        if not isinstance(self._atol, DefaultAtol):
            return DefaultAtol()
        sizes = self._atol.sizes
        return replace(self._atol, sizes=sizes[members] if np.ndim(sizes) == 2 else sizes)

    def _begin(self, u0: np.ndarray, theta: np.ndarray, N: int) -> _Start:
        """The steady states, from u0 as guesses."""
        n = u0.shape[1]
        guess = np.array(np.broadcast_to(u0, (N, n)))
        periods, lasts_too_long = self._first_periods(theta)
        guess[np.broadcast_to(lasts_too_long, N)] = np.nan

        def over_period(u: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            seeds = _Ends(np.tile(np.eye(n), (len(members), 1)), self._sizes(np.repeat(members, n)))
            given = np.repeat(u, n, axis=0), *self._rows(theta, np.repeat(members, n), N)
            outcome = self._over_period(given, seeds, periods, "u0")
            assert outcome.u0 is not None
            status = outcome.status.reshape(-1, n).max(axis=1)
            return outcome.value.reshape(-1, n), outcome.u0.reshape(-1, n, n), status

        def allowed(u: np.ndarray, members: np.ndarray) -> np.ndarray:
            given = {name: self._of_solve[name] for name in ("rtol",) if name in self._of_solve}
            atol = self._sizes(members) if isinstance(self._atol, DefaultAtol) else self._atol
            return SolveOptions(**given, atol=atol).step_allowed(u)

        return _Start(find_fixed_points(over_period, guess, allowed), periods)

    def _first_periods(self, theta: np.ndarray) -> tuple[tuple[tuple[int, ...], ...], np.ndarray]:
        """In which period each dose is first given, in which all trajectories must agree, and whether one lasts into the next."""
        t0, end = self._periods.T
        together, too_long = [], np.zeros(max(len(theta), t0.size), dtype=bool)
        for one in self._doses:
            periods, times = first_period(one, theta, t0, self._dynamics.parameters)
            too_long |= ~np.isfinite(times).all(axis=(1, 2)) | goes_on(end[:, None], times[..., 1]).any(axis=1)
            together.append(periods)
        known = np.flatnonzero(~too_long)
        first = known[0] if known.size else 0
        for periods in together:
            other = (periods[known] != periods[first]).any(axis=1)
            if other.any():
                raise ValueError(
                    f"doses in steady state begin in a different period for trajectory {known[other.argmax()]} than for trajectory "
                    f"{first}, by their lag or t0: make two ensembles."
                )
        return tuple(tuple(map(int, periods[first])) for periods in together), too_long


class SteadySolver(_Steady):
    """Forward passes alone, as `ThreadSolver`."""

    def __init__(self, engine: Engine, dynamics: Dynamics, times: np.ndarray, options: dict[str, Any], t_span: np.ndarray):
        given = options.get("atol")
        super().__init__(engine, dynamics, options, DefaultAtol() if given is None else given, t_span)
        self._times, self._options = times, options

    def __call__(self, u0: np.ndarray, theta: np.ndarray, t_span: np.ndarray, **keywords: Any) -> States:
        u0, theta = on_host(u0), on_host(theta)
        start = self._begin(u0, theta, count_rows((u0, theta, t_span)))
        options = {**self._options, **self._moved(start.periods, repeated=True)}
        solver = self._engine.solver(self._dynamics, self._times, options)
        result = solver(start.found.u, theta, t_span, **keywords)
        return replace(result, status=np.where(start.found.status, start.found.status, result.status))


class SteadyGradient(_Steady):
    """Values and gradients of a loss, as `ThreadEnsemble`, but that cotangents of what is shared have a row for each trajectory."""

    def __init__(
        self,
        engine: Engine,
        dynamics: Dynamics,
        loss: Any,
        wrt: Sequence[str],
        shared: frozenset[str],
        options: dict[str, Any],
        t_span: np.ndarray,
    ):
        super().__init__(engine, dynamics, options, beside_loss(options, loss)["atol"], t_span)
        self._loss, self._wrt, self._shared, self._options = loss, wrt, shared, options

    def __call__(self, u0: np.ndarray, theta: np.ndarray, t_span: np.ndarray, **keywords: Any) -> Outcome:
        u0, theta = on_host(u0), on_host(theta)
        N = count_rows((u0, theta, t_span), self._loss)
        start = self._begin(u0, theta, N)
        found, wants_theta = start.found, "theta" in self._wrt

        def make() -> Callable[..., Any]:
            options = {**self._options, **self._moved(start.periods, repeated=True)}
            return self._engine.gradient(
                self._dynamics, self._loss, ("u0", "theta") if wants_theta else ("u0",), frozenset(), options
            )

        outcome = self._kept((start.periods, u0.shape[1], theta.shape[1]), make)(found.u, theta, t_span, **keywords)
        status = np.where(found.status, found.status, outcome.status)
        theta_bar = None
        if wants_theta:
            theta_bar, status = self._with_steady(start, outcome, theta, status)
            theta_bar[status != SUCCESS] = 0.0 if "theta" in self._shared else np.nan
        u0_bar = np.where((status != SUCCESS)[:, None] & ("u0" not in self._shared), np.nan, np.zeros_like(found.u))
        value = np.where(status != SUCCESS, np.nan, outcome.value)
        return replace(outcome, value=value, u0=u0_bar if "u0" in self._wrt else None, theta=theta_bar, status=status)

    def _with_steady(self, start: _Start, outcome: Outcome, theta: np.ndarray, status: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cotangents of theta with what the steady states add, and statuses; see `SteadyState.pull_back`."""
        assert outcome.u0 is not None and outcome.theta is not None
        members, N = np.flatnonzero(status == SUCCESS), len(status)
        if not members.size:
            return outcome.theta, status
        seeds = _Ends(seeds_of_period(start.found.P_u[members], outcome.u0[members]), self._sizes(members))
        given = start.found.before[members], *self._rows(theta, members, N)
        behind = self._over_period(given, seeds, start.periods, "theta")
        theta_bar, status = outcome.theta.copy(), status.copy()
        theta_bar[members] += behind.theta
        status[members] = behind.status
        return theta_bar, status
