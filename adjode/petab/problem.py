"""`load`: the fit that a PEtab problem describes."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from adjode.api.keywords import ExperimentsKeywords
from adjode.checks import float_vector
from adjode.frontends.entries import Parameter
from adjode.frontends.experiments import Experiment, Experiments
from adjode.frontends.fit import Fit
from adjode.frontends.priors import Laplace, LogLaplace, LogNormal, Normal, Prior, Uniform
from adjode.frontends.problems import Shared
from adjode.frontends.start import SteadyState
from adjode.losses import Gaussian, Likelihood, Observables
from adjode.losses import Laplace as LaplaceNoise
from adjode.losses import LogLaplace as LogLaplaceNoise
from adjode.losses import LogNormal as LogNormalNoise
from adjode.model.doses import Doses
from adjode.model.dynamics import Dynamics
from adjode.model.events import Event
from adjode.model.losses import Noise
from adjode.petab.formulas import evaluate, names
from adjode.petab.generated import load_module, module_text
from adjode.petab.sbml import read_model
from adjode.petab.scenarios import Design, Scenario
from adjode.petab.switches import switches, when, with_modes
from adjode.petab.tables import ObservableRow, ParameterRow, read_tables
from adjode.petab.writing import Source

_PRIORS = {"normal": Normal, "laplace": Laplace, "logNormal": LogNormal, "logLaplace": LogLaplace}
_DEFAULTS = {"method": "auto", "rtol": 1e-8, "atol": 1e-12, "max_steps": 1_000_000, "adjoint": "interpolating"}


class Problem(Fit):
    """A fit in the names and scales of a PEtab problem; what it minimises is minus the logarithm of the posterior density.

    Attributes
    ----------
    tables : Tables
        The contents of the files.
    scenarios : dict of str -> Scenario
        The data of each experiment, and its inputs.
    channels : list of str
        The observables, in the order of the columns of a scenario's data. One with several sets of parameters appears several
        times.
    source : str
        The model as Python.
    dynamics : Dynamics
    """

    def __init__(
        self,
        design: Design,
        source: str,
        functions: Mapping[str, Callable],
        dynamics: Dynamics,
        experiments: list[Experiment],
        options: dict[str, Any],
    ):
        tables = design.tables
        self.tables, self.source, self._observe = tables, source, functions["observe"]
        self.scenarios = {one.name: one for one in design.scenarios}
        self.channels = [channel.named(channel.observable.name) for channel in design.channels]
        parameters = _parameters(row for row in tables.parameters.values() if row.estimated)
        super().__init__(Experiments(experiments), parameters=parameters, **options)
        self.dynamics = dynamics

    def log_likelihood(self, x: Any = None) -> float:
        """The logarithm of the likelihood, without priors.

        Parameters
        ----------
        x : (k,) array, optional
            As the optimiser sees it; the nominal values by default.
        """
        x = self.x0 if x is None else float_vector("x", x, len(self.names))
        return self._prior(x) - self.evaluate(x)[0]

    def observables(self, experiment: str, times: Any, x: Any = None) -> np.ndarray:
        """The observables as the model predicts them, without noise.

        Parameters
        ----------
        experiment : str
        times : (k,) array
        x : (m,) array, optional
            As the optimiser sees it; the nominal values by default.

        Returns
        -------
        (k, c) array
            A column for each of `channels`; only those that were measured in the experiment are meaningful.
        """
        x = self.x0 if x is None else float_vector("x", x, len(self.names))
        shared = self._problem
        assert isinstance(shared, Shared)
        solution = shared.bound(experiment).solve(self._natural(x))
        times = float_vector("times", times)
        found = np.full((times.size, len(self.channels)), np.nan)
        for t, u, y in zip(times, solution(times), found, strict=True):
            self._observe(t, u, solution.theta, y)
        return found

    def _prior(self, x: np.ndarray) -> float:
        values = zip(self.parameters.values(), x, self._natural(x), strict=True)
        found = (one.prior.negative_log(scaled if one.prior.scaled else value)[0] for one, scaled, value in values if one.prior)
        return float(sum(found))


def load(path: str | Path, **options: Unpack[ExperimentsKeywords]) -> Problem:
    """The fit that a PEtab problem of version 1 describes.

    Parameters
    ----------
    path : str or Path
        The yaml file.
    **options
        Options of `value_and_gradient`, and `workers` or `executor`, as for `Fit`. By default `method="auto"`, `rtol=1e-8`,
        `atol=1e-12`, `max_steps=1_000_000` and `adjoint="interpolating"`.

    Returns
    -------
    Problem
        A `Fit` that starts at the nominal values.

    Raises
    ------
    ImportError
        If the packages of the extra `petab` are not installed.
    ValueError
        If a file is wrong or contains something that is not supported; the message names the element.

    Notes
    -----
    Nominal values outside their bounds start at the nearer bound; a warning names them.

    PEtab: Schmiester et al. 2021, https://doi.org/10.1371/journal.pcbi.1008646.
    """
    tables = read_tables(path)
    model = read_model(tables.sbml)
    design = Design(tables, model)
    _require_quiet(design)
    plan = Plan(Source(model, design.inputs), design.scenarios)
    text = module_text(tables.path.stem, plan.source, design.channels)
    functions = load_module(text, tables.path.stem)
    states = tuple(plan.source.model.states)
    dynamics = Dynamics(functions["f"], states=states, parameters=tuple(design.inputs), name=tables.path.stem)
    events = [
        Event(functions[f"guard_{k}"], functions[f"reset_{k}"], direction=1, priority=event.priority, name=event.name)
        for k, event in enumerate(model.events)
    ]
    observables = Observables(functions["observe"], [channel.named(channel.observable.name) for channel in design.channels])
    experiments = [
        _experiment(
            one, dynamics, functions["start"], observables, _noise(design, one, functions["noise"]), events, plan.jumps(one)
        )
        for one in design.scenarios
    ]
    return Problem(design, text, functions, dynamics, experiments, {**_DEFAULTS, **options})


def _require_quiet(design: Design) -> None:
    """Raise a ValueError if an event could happen while the system comes to rest: only those at a time cannot."""
    rested = next((one.name for one in design.scenarios if one.before is not None), None)
    if rested is None:
        return
    source = Source(design.model, design.inputs)
    for event in design.model.events:
        if any(one in source.places for one in names(source.resolved(event.trigger))):
            raise ValueError(
                f"{rested}: event {event.name} depends on states and may happen before the steady state, which is not supported."
            )


class Plan:
    """What is done where f jumps: solves stop there, or, where a time is estimated, a state jumps that says so.

    Attributes
    ----------
    source : Source
        With these states.
    """

    def __init__(self, source: Source, scenarios: list[Scenario]):
        self._switches = switches(source)
        self._when = {(one.name, k): when(switch, one.theta) for one in scenarios for k, switch in enumerate(self._switches)}
        moving = sorted({k for (_, k), found in self._when.items() if found.lag is not None})
        self._states = {k: f"switch_{k + 1}" for k in moving}
        rises = {self._states[k]: found.rises for (_, k), found in self._when.items() if k in self._states}
        modes = {state: self._switches[k] for k, state in self._states.items()}
        self.source = Source(with_modes(source, modes, rises), source.inputs) if modes else source

    def jumps(self, scenario: Scenario) -> dict[str, Any]:
        """The options of a solve."""
        T, stops, doses = scenario.end, [], []
        for k, state in self._states.items():
            found = self._when[scenario.name, k]
            if found.lag is not None or found.time <= T:
                doses.append(Doses(max(found.time, 0.0) if found.lag is None else found.time, 1.0, state, lag=found.lag))
        for k in range(len(self._switches)):
            if k not in self._states:
                stops.append(self._when[scenario.name, k].time)
        return {**({"stops": stops} if stops else {}), **({"doses": doses} if doses else {})}


def _experiment(
    scenario: Scenario,
    dynamics: Dynamics,
    start: Callable,
    observables: Observables,
    noise: list[Noise],
    events: list[Event],
    jumps: Any,
) -> Experiment:
    rests = scenario.before is not None or scenario.at_rest
    if scenario.before is not None and scenario.at_rest:
        raise ValueError(f"{scenario.name}: a steady state that starts from another one is not supported.")
    if scenario.at_rest and (events or "doses" in jumps):
        what = f"event {events[0].name}" if events else "a switch at an estimated time"
        raise ValueError(f"{scenario.name}: data at rest and {what} in one model are not supported.")
    times = np.zeros_like(scenario.times) if scenario.at_rest else scenario.times
    return Experiment(
        dynamics,
        Likelihood(times, dict(zip(observables.names, scenario.data.T, strict=True)), noise, observe=observables),
        (0.0, scenario.end),
        u0=start,
        theta=scenario.theta,
        start=SteadyState(theta=scenario.before, then=scenario.then) if rests else "u0",
        name=scenario.name,
        **{**jumps, **({"events": events} if events else {})},
    )


def _noise(design: Design, scenario: Scenario, scale: Callable) -> list[Noise]:
    """That of each channel. Where its scale follows from numbers alone it is one, so that there are residuals; else a function."""
    known = {entry: value for entry, value in scenario.theta.items() if not isinstance(value, str)}
    noise = []
    for channel, data in zip(design.channels, scenario.data.T, strict=True):
        sigma: Any = scale
        with contextlib.suppress(KeyError, ArithmeticError, ValueError):  # what it reads is no number, or not in its domain
            sigma = evaluate(channel.expression(channel.observable.noise), known)
        if sigma is not scale and not 0.0 < sigma < math.inf:
            if not np.isnan(data).all():
                name = channel.observable.name
                raise ValueError(f"{scenario.name}: the noise of {name} must be positive, but its formula gives {sigma:g}.")
            sigma = scale
        noise.append(_density(channel.observable, sigma))
    return noise


def _density(observable: ObservableRow, sigma: Any) -> Noise:
    normal = observable.distribution == "normal"
    if observable.scale == "lin":
        return Gaussian(sigma) if normal else LaplaceNoise(sigma)
    base = 10.0 if observable.scale == "log10" else np.e
    return LogNormalNoise(sigma, base=base) if normal else LogLaplaceNoise(sigma, base=base)


def _parameters(rows: Iterable[ParameterRow]) -> dict[str, Parameter]:
    """Those that are estimated; a nominal value that lies outside the bounds starts at the nearer one."""
    found, moved = {}, []
    for row in rows:
        low, high = row.bounds
        start = min(max(row.nominal, low), high)
        found[row.name] = Parameter(start, bounds=row.bounds, scale=row.scale, prior=_prior(row))
        if start != row.nominal:
            moved.append(f"{row.name} ({row.nominal:g}, now {start:g})")
    if moved:
        warnings.warn(f"nominal values outside their bounds start at the nearer bound: {', '.join(moved)}.", stacklevel=4)
    return found


def _prior(row: ParameterRow) -> Prior | None:
    if row.prior is None:
        return None
    kind, numbers = row.prior
    scaled = kind.startswith("parameterScale")
    plain = kind.removeprefix("parameterScale")
    plain = plain[0].lower() + plain[1:]
    if plain == "uniform":
        return None if len(numbers) < 2 else Uniform(*numbers[:2])
    if len(numbers) != 2:
        raise ValueError(f"the prior of {row.name} needs two numbers, a location and a scale, but it has {len(numbers)}.")
    return _PRIORS[plain](*numbers, scaled=scaled)
