"""`Likelihood`: minus the logarithm of the probability of data, by the densities of their noise."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from adjode.checks import float_vector
from adjode.derivation.origins import texts_of
from adjode.model.callbacks import Callback
from adjode.model.fields import entry_of
from adjode.model.losses.data import columns, read_table, smallest_sizes
from adjode.model.losses.least_squares import LeastSquares
from adjode.model.losses.loss import States, loss_at
from adjode.model.losses.noise import Density, Noise, per_column
from adjode.model.losses.own_densities import density_rule
from adjode.model.losses.prepared import PreparedLoss
from adjode.model.losses.prepared_likelihood import PreparedLikelihood
from adjode.model.losses.rule import Rule, WithRule, rule_of


class Observables:
    """What is observed, with a name for each number.

    Parameters
    ----------
    function : callable or pair of callables
        `observe(t, u, theta, y)` overwrites y (c,), or `observe(t, u, theta)` returns it; or the pair of it and its vjp, see
        `Likelihood`.
    names : sequence of c str
    """

    def __init__(self, function: Any, names: Sequence[str]):
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"names must be a sequence of strings, but {names!r} was given.")
        self.function, self.names = function, list(names)
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"the names of observables must be different, but they are {', '.join(self.names)}.")


class Likelihood(WithRule):
    """Minus the logarithm of the likelihood of data: the sum over all data, each with its density around the prediction of the
    model.

    Parameters
    ----------
    t_obs : (k,) array
        Observation times, in any order; a time may come more than once.
    y_obs : (k, c) array, or (k,) for one column, or dict of name -> (k,) array
        The data. Those that are NaN or masked are missing. Names are those of `Observables`, or of states.
    noise : Gaussian, LogNormal, Laplace, LogLaplace, StudentT, Poisson, NegativeBinomial, Density; or a list or dict of them
        One for all columns, or one for each.
    observe : callable, pair of callables, or Observables, optional
        What was observed: `observe(t, u, theta, y)` overwrites y (c,), or `observe(t, u, theta)` returns it. Its derivatives by u
        and theta are derived from its source and compared with differences; or give them, as `(observe, observe_vjp)`, with
        `observe_vjp(t, u, theta, y_bar, u_bar, theta_bar)`. Without it, `components` of the state are observed.
    components : sequence of c ints or names, optional
        Which states were observed; by default the first c, or those that a dict of data names.
    since : float, optional
        The data are what has accumulated since the previous time, such as weekly counts of something whose state is cumulative; the
        first counts from this time, usually the beginning of the span.
    constants : bool
        Whether to add terms that depend on the data alone. Without them the loss is the same up to a constant.

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid.
    SolveError
        If there is no density, because a scale, or a mean of counts or logarithms, is not positive.
    """

    option = kind = "observe"

    def __init__(
        self,
        t_obs: Any,
        y_obs: Any,
        noise: Any,
        *,
        observe: Any = None,
        components: Any = None,
        since: float | None = None,
        constants: bool = True,
    ):
        names: Sequence[str] | None = None
        if isinstance(observe, Observables):
            observe, names = observe.function, observe.names
        if observe is not None:
            if components is not None:
                raise ValueError("give either components or observe, which says what was observed.")
            self._take(observe)
        self.t_obs = float_vector("t_obs", t_obs)
        if observe is not None and names is None and isinstance(y_obs, Mapping):
            raise ValueError("data by name need the names of what observe makes: observe=Observables(observe, names).")
        y, self.names = columns(self.t_obs, y_obs, names)
        self.noise = per_column(noise, self.names, y.shape[1])
        self._components = components if components is not None or self.names is None else self.names
        self.previous, self.t_obs, y, scales = _since(since, self.t_obs, y, _scales(self.noise, y.shape))
        self.missing = np.isnan(y)
        self._check(y, scales)
        of_logarithm = np.array([one.of_logarithm for one in self.noise], dtype=bool)
        self.data = np.ascontiguousarray(np.log(y, out=y.copy(), where=of_logarithm & ~self.missing))
        self.scales = np.ascontiguousarray(np.where(self.missing, 1.0, scales))
        # but for a constant, where scales are numbers
        self.is_sum_of_squares = all(
            one.is_square and not isinstance(one.scale, str) and not callable(one.scale) for one in self.noise
        )
        self.constant = self._sum_of_constants(y) if constants else 0.0

    @classmethod
    def from_table(
        cls,
        table: Any,
        noise: Any,
        *,
        observe: Any = None,
        experiment: str | None = None,
        components: Any = None,
        since: float | None = None,
        constants: bool = True,
    ) -> Likelihood:
        """The likelihood of a table with a row for each datum: a pandas DataFrame, or a dict of columns.

        Parameters
        ----------
        table
            With the columns time, observable and value, and optionally sigma and experiment. Values that are NaN are missing.
        noise, observe, components, since, constants
            As for `Likelihood`. A column sigma is used for those noises that have none, such as `Gaussian()`.
        experiment : str, optional
            The experiment whose rows to use.
        """
        names = observe.names if isinstance(observe, Observables) else None
        t_obs, values, sigmas = read_table(table, names, experiment)
        noise = _with_sigma(noise, values, sigmas)
        return cls(t_obs, values, noise, observe=observe, components=components, since=since, constants=constants)

    def _check(self, y: np.ndarray, scales: np.ndarray) -> None:
        functions = {one.scale for one in self.noise if callable(one.scale)}
        if len(functions) > 1:
            raise ValueError("a scale that is a function is for all columns: it overwrites s (c,).")
        self.scale_function: Callable | None = functions.pop() if functions else None
        for c, one in enumerate(self.noise):
            name, there = self.column_name(c), ~self.missing[:, c]
            d, found = y[there, c], scales[there, c]
            if one.scale is None and one.scale_name is not None:
                raise ValueError(f"the noise of {name} needs its {one.scale_name}: {type(one).__name__}({one.scale_name}=...).")
            if not (found > 0.0).all():
                raise ValueError(f"{one.scale_name} must be given and positive wherever {name} has data.")
            if not np.isfinite(d).all() or (one.of_logarithm and not (d > 0.0).all()):
                what = "finite and positive" if one.of_logarithm else "finite"
                raise ValueError(f"the data of {name} must be {what}, or NaN where they are missing.")
            if one.of_counts and not ((d >= 0.0) & (d == np.round(d))).all():
                raise ValueError(f"the data of {name} must be counts, 0, 1, 2, ..., or NaN where they are missing.")

    def column_name(self, c: int) -> str:
        return f"column {c}" if self.names is None else repr(self.names[c])

    def _sum_of_constants(self, y: np.ndarray) -> float:
        parts = [one.constant(y[~self.missing[:, c], c]) for c, one in enumerate(self.noise)]
        return math.fsum(float(x) for part in parts for x in part)

    def sizes_of_states(self) -> tuple[np.ndarray, np.ndarray]:
        """The states that are compared with data (c,), and how small these are, (c,)."""
        if self.of is not None:
            return np.zeros(0, dtype=np.int64), np.zeros(0)
        of_logarithm = np.array([one.of_logarithm for one in self.noise], dtype=bool)
        return self.components, smallest_sizes(np.exp(self.data, out=self.data.copy(), where=of_logarithm), self.scales)

    def warn_of_tolerances(self, atol: np.ndarray, t0: float, names: Sequence[str], stacklevel: int) -> None:
        """Warn if errors of a state as large as its absolute tolerance, atol (n,), would show beside the standard deviations."""
        if self.of is not None or not self.is_sum_of_squares or (self.previous >= 0).any():
            return
        for c, one in enumerate(self.noise):
            column = slice(c, c + 1)
            y = np.exp(self.data[:, column]) if one.of_logarithm else self.data[:, column]
            what: dict[str, Any] = {"sigma": self.scales[:, column], "components": self.components[column], "log": one.of_logarithm}
            squares = LeastSquares(self.t_obs, y, **what)
            squares.warn_of_tolerances(atol, t0, names, stacklevel + 1)

    @property
    def rules(self) -> list[Rule]:
        return [*(rule for rule in (self.rule, self.scale_rule) if rule is not None), *self.density_rules]

    @property
    def readers(self) -> list[Callback | set[int]]:
        if self.fields[1] is None:
            return super().readers
        named = self.entries(self.fields[1].size)
        return [*super().readers, set(named[named >= 0].tolist())]

    @functools.cached_property
    def rule(self) -> Rule | None:  # type: ignore[override]
        return None if self.of is None else super().rule

    @functools.cached_property
    def scale_rule(self) -> Rule | None:
        return None if self.scale_function is None else rule_of("sigma", "observe", self.scale_function, self.fields)

    @functools.cached_property
    def own_densities(self) -> list[Callable]:
        """The functions of those that are the user's own, each once."""
        return list(dict.fromkeys(one.function for one in self.noise if isinstance(one, Density)))

    @functools.cached_property
    def density_rules(self) -> list[Rule]:
        return [density_rule(function, self.fields) for function in self.own_densities]

    @property
    def densities(self) -> list[int]:
        """That of each column, see `densities.py`; those of the user's own in the order of their rules."""
        own = self.own_densities
        return [one.density + own.index(one.function) if isinstance(one, Density) else one.density for one in self.noise]

    def entries(self, m: int) -> np.ndarray:
        """Which entries of theta are the scale and the shape of each column, (2, c); -1 where they are none.

        Raises
        ------
        ValueError
            If there is no such entry.
        """
        found = np.full((2, len(self.noise)), -1, dtype=np.int64)
        for c, one in enumerate(self.noise):
            for row, given in enumerate((one.scale, one.shape)):
                if isinstance(given, str):
                    found[row, c] = entry_of(given, f"the noise of {self.column_name(c)}", self.fields[1], m)
        return found

    @property
    def components(self) -> np.ndarray:
        """The states that are observed."""
        given, c = self._components, len(self.noise)
        if given is None:
            return np.arange(c)
        if np.size(given) != c:
            raise ValueError(f"components must be {c}, one for each column of y_obs, but {given!r} was given.")
        states = [] if self.fields[0] is None else ["".join(parts) for parts in self.fields[0].entries]
        for one in given:
            if isinstance(one, str) and one not in states:
                known = ", ".join(states) or "not named: declare them, Dynamics(states=...)"
                raise ValueError(f"the state {one!r} is observed, but the states are {known}.")
        found = np.array([states.index(one) if isinstance(one, str) else one for one in given])
        if found.dtype.kind not in "iu" or (found < 0).any():
            raise ValueError(f"components must be names or indices of states, but {given!r} was given.")
        return found

    def prepare(self, n: int, T: float) -> PreparedLoss:
        return PreparedLikelihood(self, n, self.t_obs)

    def value_and_cotangents(self, solution: States) -> tuple[float, dict[str, Any]]:
        return PreparedLikelihood(loss_at(solution, self), solution.u.shape[1], self.t_obs, as_given=True).evaluate(solution)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state["sources"] |= texts_of(self.scale_function, *self.own_densities)
        for name in _MADE_OF_FUNCTIONS:
            state.pop(name, None)
        return state

    def of_fields(self, fields: Any) -> Any:
        other = super().of_fields(fields)
        if other is not self:
            for name in _MADE_OF_FUNCTIONS:
                other.__dict__.pop(name, None)
        return other


_MADE_OF_FUNCTIONS = "scale_rule", "density_rules"


def _with_sigma(noise: Any, values: dict[str, np.ndarray], sigmas: dict[str, np.ndarray] | None) -> list[Noise]:
    """A noise for each column, with those standard deviations where it has none."""
    ones = per_column(noise, list(values), len(values))
    if sigmas is None:
        return ones
    found = zip(ones, values, strict=True)
    return [one.with_scale(sigmas[name]) if one.scale is None and one.scale_name else one for one, name in found]


def _scales(noise: list[Noise], shape: tuple[int, int]) -> np.ndarray:
    """The scales that are numbers, (k, c), ones elsewhere."""
    scales, alike = np.ones(shape), all(one is noise[0] for one in noise) and shape[1] > 1
    for c, one in enumerate(noise):
        if one.scale is None or isinstance(one.scale, str) or callable(one.scale):
            continue
        try:
            given = np.broadcast_to(one.scale, shape)[:, c] if alike else np.broadcast_to(np.ravel(one.scale), shape[:1])
        except ValueError:
            of, found = shape if alike else shape[:1], np.shape(one.scale)
            raise ValueError(f"{one.scale_name} must broadcast to data of shape {of}, but its shape is {found}.") from None
        scales[:, c] = one.factor * given
    return scales


def _since(since: float | None, t_obs: np.ndarray, y: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, ...]:
    """For each row that from which it is counted, or -1; and times, data and scales with a row in front for the first of these."""
    if since is None:
        return np.full(t_obs.size, -1), t_obs, y, scales
    order = np.argsort(t_obs, kind="stable")
    times = np.append(float_vector("since", since, 1), t_obs[order])
    if not (np.diff(times) > 0.0).all():
        raise ValueError(f"data that are counted since the previous time need distinct times, later than since = {since!r}.")
    none = np.full((1, y.shape[1]), np.nan)
    return np.arange(times.size) - 1, times, np.vstack([none, y[order]]), np.vstack([none, scales[order]])
