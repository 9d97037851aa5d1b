"""What a fit is of: `Single`, one loss by entries of u0 and theta; `Shared`, many experiments by named parameters.

Both are functions of z, all values in natural units; see `Entries`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from adjode.api.gradient import readers_of
from adjode.api.solution import Solution
from adjode.checks import time_span
from adjode.frontends.entries import SCALES, Parameter, entries_of, named, selected
from adjode.frontends.evaluation import Evaluation
from adjode.frontends.experiments import Bound, Experiment, Experiments, Together
from adjode.frontends.priors import Normal, Prior, Uniform
from adjode.model.dynamics import Dynamics
from adjode.model.fields import Fields
from adjode.model.losses import Loss, loss_for

Pushed = tuple[np.ndarray, np.ndarray, np.ndarray]


class Problem(Protocol):
    """
    Attributes
    ----------
    entries : dict
        Arguments of `Entries`.
    rtol : float
        Of the solves.
    of : str
        What the loss is of, for reprs.
    """

    entries: dict[str, Any]
    of: str

    @property
    def rtol(self) -> float: ...

    def value_and_gradient(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss and its derivatives by z (q,)."""
        ...

    def residuals_and_jacobian(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The residuals (N,) and their derivatives by the free entries of z (N, k)."""
        ...

    def solve(self, z: np.ndarray, experiment: str | None) -> Solution:
        """The solution, of one of several experiments."""
        ...

    def require_second_order(self) -> None:
        """Raise a TypeError or ValueError if there are no second derivatives."""
        ...

    def hessian_products(self, z: np.ndarray, z_dots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The gradient (q,) by z, and the products of the Hessian with directions of z (d, q), in rows."""
        ...

    def push(self, z: np.ndarray, directions: np.ndarray, times: Any, experiment: str | None) -> Pushed:
        """Times (c,), the states there (c, n), and their derivatives (c, n, k) along directions of z (q, k)."""
        ...

    def results(self, z: np.ndarray) -> dict[str, Any]:
        """z by its parts, as attributes of a result."""
        ...

    def part(self, z: np.ndarray, experiment: str | None) -> tuple[Evaluation, np.ndarray]:
        """What the solve of one of several experiments is of, and u0 and theta in one vector."""
        ...

    def parts(self, z: np.ndarray) -> list[tuple[str, Evaluation, np.ndarray]]:
        """The same of all, each with its name, "" where there is but one."""
        ...


class Single:
    """One loss; see `Fit` for the arguments."""

    def __init__(
        self,
        dynamics: Dynamics,
        loss: Loss | None,
        t_span: Any,
        u0: Any,
        theta: Any,
        free: Any,
        log: Any,
        bounds: Any,
        options: dict[str, Any],
    ):
        if not isinstance(dynamics, Dynamics):
            raise TypeError(
                f"dynamics must be an adjode.Dynamics(f, vjp), or experiments, but a {type(dynamics).__name__} was given."
            )
        loss_for(dynamics.fields, loss)  # which says what is none
        assert loss is not None
        t0, T = time_span(t_span)
        jumps = options.get("doses") or options.get("events")
        readers = None if jumps else readers_of(dynamics, loss, options.get("running_cost"))
        self.entries = selected(dynamics, t0, u0, theta, free, log, bounds, readers)
        self.layouts = dynamics.layouts(u0, theta)
        self.evaluation = Evaluation(dynamics, loss, (t0, T), self.layouts, self.entries["is_free"], options)
        self.evaluation.require_fitting(self.entries["start"])
        self.of = f"{dynamics.name} by {type(loss).__name__}, t = {t0:g} .. {T:g}"

    @property
    def rtol(self) -> float:
        return self.evaluation.rtol

    def value_and_gradient(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        return self.evaluation.value_and_gradient(z)

    def residuals_and_jacobian(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.evaluation.residuals_and_jacobian(z)

    def solve(self, z: np.ndarray, experiment: str | None) -> Solution:
        _require_none(experiment)
        return self.evaluation.solve(z)

    def require_second_order(self) -> None:
        self.evaluation.require_second_order()

    def hessian_products(self, z: np.ndarray, z_dots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.evaluation.hessian_products(z, z_dots)

    def push(self, z: np.ndarray, directions: np.ndarray, times: Any, experiment: str | None) -> Pushed:
        _require_none(experiment)
        return self.evaluation.push(z, directions, times)

    def results(self, z: np.ndarray) -> dict[str, Any]:
        return dict(zip(("u0", "theta"), self.evaluation.unflatten(z), strict=True))

    def part(self, z: np.ndarray, experiment: str | None) -> tuple[Evaluation, np.ndarray]:
        _require_none(experiment)
        return self.evaluation, z

    def parts(self, z: np.ndarray) -> list[tuple[str, Evaluation, np.ndarray]]:
        return [("", self.evaluation, z)]


def _require_none(experiment: str | None) -> None:
    if experiment is not None:
        raise ValueError(f"this fit is of one loss, and has no experiment {experiment!r}.")


class Shared:
    """Many experiments; see `Fit` for the arguments."""

    def __init__(
        self,
        experiments: Experiment | Experiments | Sequence[Experiment],
        parameters: Mapping[str, Parameter | float],
        workers: int | None,
        executor: Any,
        options: dict[str, Any],
    ):
        given = [experiments] if isinstance(experiments, Experiment) else experiments
        self.experiments = given if isinstance(given, Experiments) else Experiments(given)
        self.parameters = named(parameters)
        self.entries = entries_of(self.parameters)
        start, is_free = self.entries["start"], self.entries["is_free"]
        fields = Fields(tuple((name, ()) for name in self.parameters))
        bound = [
            Bound(one, name, fields, start, is_free, options)
            for one, name in zip(self.experiments, self.experiments.names, strict=True)
        ]
        self._require_used(bound)
        self._together = Together(bound, workers, executor)
        self._priors = [
            _PriorOf(k, one.prior, SCALES[one.scale])
            for k, one in enumerate(self.parameters.values())
            if one.prior is not None and not one.fixed
        ]
        self.of = f"{len(bound)} experiments" if len(bound) > 1 else f"experiment {bound[0].name!r}"

    def _require_used(self, bound: list[Bound]) -> None:
        used = set[int]().union(*(one.used for one in bound))
        unused = [name for k, name in enumerate(self.parameters) if k not in used and self.entries["is_free"][k]]
        if unused:
            many = "s" * (len(unused) > 1)
            raise ValueError(f"no experiment uses the parameter{many} {', '.join(map(repr, unused))}: leave out what is not used.")

    @property
    def rtol(self) -> float:
        return max(one.evaluation.rtol for one in self._together.bound)

    def bound(self, experiment: str | None) -> Bound:
        """An experiment by its name; None where there is but one."""
        bound = self._together.bound
        if experiment is None and len(bound) > 1:
            raise ValueError(f"say of which experiment, by its name: {', '.join(map(repr, self.experiments.names))}.")
        return bound[0 if experiment is None else self.experiments.index_of(experiment)]

    def value_and_gradient(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = self._together.value_and_gradient(z)
        for prior in self._priors:
            part, slope = prior.negative_log(z)
            value += part
            gradient[prior.k] += slope
        return value, gradient

    def residuals_and_jacobian(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r, J = self._together.residuals_and_jacobian(z)
        rows = [prior.residual(z) for prior in self._priors if not isinstance(prior.prior, Uniform)]
        r, more = np.append(r, [value for value, _ in rows]), np.array([slopes for _, slopes in rows]).reshape(-1, z.size)
        return r, np.vstack([J, more])[:, self.entries["is_free"]]

    def solve(self, z: np.ndarray, experiment: str | None) -> Solution:
        return self.bound(experiment).solve(z)

    def require_second_order(self) -> None:
        for one in self._together.bound:
            one.require_second_order()

    def hessian_products(self, z: np.ndarray, z_dots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gradient, products = self._together.hessian_products(z, z_dots)
        for prior in self._priors:
            gradient[prior.k] += prior.negative_log(z)[1]
            products[:, prior.k] += prior.curvature(z) * z_dots[:, prior.k]
        return gradient, products

    def push(self, z: np.ndarray, directions: np.ndarray, times: Any, experiment: str | None) -> Pushed:
        return self.bound(experiment).push(z, directions, times)

    def results(self, z: np.ndarray) -> dict[str, Any]:
        return {"parameters": dict(zip(self.parameters, z.tolist(), strict=True))}

    def part(self, z: np.ndarray, experiment: str | None) -> tuple[Evaluation, np.ndarray]:
        one = self.bound(experiment)
        return one.evaluation, one.at(z)[0]

    def parts(self, z: np.ndarray) -> list[tuple[str, Evaluation, np.ndarray]]:
        return [(name, *self.part(z, name)) for name in self.experiments.names]


class _PriorOf:
    """The prior of value k of z, whose logarithm at a rate is what the optimiser sees."""

    def __init__(self, k: int, prior: Prior, rate: float):
        self.k, self.prior, self._rate = k, prior, rate if prior.scaled else 0.0

    def _scaled(self, z: np.ndarray) -> tuple[float, float]:
        """What the density is of, and its derivative by the value."""
        value = float(z[self.k])
        return (np.log(value) / self._rate, 1.0 / (self._rate * value)) if self._rate else (value, 1.0)

    def negative_log(self, z: np.ndarray) -> tuple[float, float]:
        value, by_z = self._scaled(z)
        density, slope = self.prior.negative_log(value)
        return density, slope * by_z

    def curvature(self, z: np.ndarray) -> float:
        """The second derivative of `negative_log` by the value."""
        value, by_z = self._scaled(z)
        _, slope = self.prior.negative_log(value)
        bend = -by_z / float(z[self.k]) if self._rate else 0.0
        return self.prior.curvature(value) * by_z**2 + slope * bend

    def residual(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        """Its residual and the derivatives of that by z."""
        if not isinstance(self.prior, Normal):
            raise ValueError(f"a {type(self.prior).__name__} prior is not a sum of squares: call minimize.")
        value, by_z = self._scaled(z)
        slopes = np.zeros(z.size)
        slopes[self.k] = by_z / self.prior.width
        return (value - self.prior.location) / self.prior.width, slopes
