"""`Evaluation`: the loss of one experiment and its derivatives by u0 and theta, both as one flat vector z."""

from __future__ import annotations

import contextlib
import functools
from typing import Any, cast

import numpy as np

from adjode.api.gradient import value_and_gradient
from adjode.api.hessians import HessianVectorProduct, hessian_vector_product
from adjode.api.residuals import ResidualsAndJacobian, residuals_and_jacobian
from adjode.api.solution import Solution
from adjode.api.solve import solve
from adjode.model.dynamics import Dynamics
from adjode.model.layout import Layout
from adjode.model.losses import LeastSquares, Likelihood, Loss
from adjode.model.losses.second_order import require_second_order
from adjode.model.selection import BLOCKS
from adjode.passes.options import SolveOptions
from adjode.status import SolveError


class Evaluation:
    """
    Parameters
    ----------
    dynamics, loss, t_span
        As for `value_and_gradient`.
    layouts : pair of Layout
        Of u0 and theta.
    varies : (n + m,) array of bool
        By which entries derivatives are wanted.
    options : dict
        Those of `value_and_gradient`.

    Attributes
    ----------
    wrt : tuple of str
        The blocks that vary.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        loss: Loss,
        t_span: tuple[float, float],
        layouts: tuple[Layout, Layout],
        varies: np.ndarray,
        options: dict[str, Any],
    ):
        self.dynamics, self.loss, self.t_span, self.layouts = dynamics, loss, t_span, layouts
        self._n, self._varies, self._cost = layouts[0].size, varies, options.get("running_cost")
        self._how: Any = {name: value for name, value in options.items() if name == "on_inaccurate"}
        self._is_warned = False
        parts = varies[: self._n], varies[self._n :]
        self.wrt = tuple(block for block, part in zip(BLOCKS, parts, strict=True) if part.any())
        self._value_and_cotangents: Any = value_and_gradient(dynamics, loss, t_span, wrt=self.wrt, **options)
        self._solve_options: Any = self._value_and_cotangents.solve_options

    @property
    def is_likelihood(self) -> bool:
        """Whether the loss is minus the logarithm of a likelihood."""
        return isinstance(self.loss, Likelihood) and self._cost is None

    @property
    def n_data(self) -> int:
        """How many data a likelihood is of."""
        return int(np.count_nonzero(~cast(Likelihood, self.loss).missing))

    @property
    def state_names(self) -> list[str]:
        """A name for each state, as far as there are any: "hare", "u[0]", ..."""
        names = self.layouts[0].names
        plain = names is not None and all(size == 1 for size in names.values())
        return list(names) if names is not None and plain else self.layouts[0].entry_names("u")

    def unflatten(self, z: np.ndarray) -> tuple[Any, Any]:
        """`(u0, theta)`, in the form they were given in."""
        return self.layouts[0].unflatten(z[: self._n]), self.layouts[1].unflatten(z[self._n :])

    def value_and_gradient(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss, and its derivatives (n + m,), zero in the blocks that do not vary."""
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow in the loss is reported by who called
            value, bar = self._evaluated(z)
        cotangents, n = np.zeros(z.size), self._n
        if "u0" in self.wrt:
            cotangents[:n] = self.layouts[0].flatten("the cotangent of u0", bar.u0)
        if "theta" in self.wrt:
            cotangents[n:] = self.layouts[1].flatten("the cotangent of theta", bar.theta)
        return float(value), cotangents

    def _evaluated(self, z: np.ndarray) -> tuple[float, Any]:
        """As vectors, which is faster; by name at first, when there may be warnings, and where it fails: messages have names."""
        if self._is_warned:
            with contextlib.suppress(SolveError):
                return self._value_and_cotangents(z[: self._n], z[self._n :])
        result = self._value_and_cotangents(*self.unflatten(z))
        self._is_warned = True
        return result

    def require_fitting(self, z: np.ndarray) -> None:
        """Raise a ValueError or TypeError if the loss does not fit the model or the span."""
        self._value_and_cotangents.require_fitting(z[: self._n], z[self._n :])

    @functools.cached_property
    def residuals(self) -> ResidualsAndJacobian:
        """The residuals and their Jacobian by the entries that vary, as a function of (u0, theta)."""
        if self._cost is not None:
            raise ValueError("a running cost has no residuals: leave it out.")
        wrt = {"u0": self._varies[: self._n], "theta": self._varies[self._n :]}
        return residuals_and_jacobian(
            self.dynamics, cast(LeastSquares, self.loss), self.t_span, wrt=wrt, **self._how, **self._solve_options
        )

    def residuals_and_jacobian(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The residuals (N,), and their derivatives (N, k) by the entries that vary."""
        return self.residuals(*self.unflatten(z))

    @functools.cached_property
    def _curvature(self) -> HessianVectorProduct:
        how = {"running_cost": self._cost, **self._how}
        return hessian_vector_product(self.dynamics, self.loss, self.t_span, **how, **self._solve_options)

    def require_second_order(self) -> None:
        """Raise a TypeError or ValueError if there are no second derivatives."""
        require_second_order(self._curvature.loss.prepare(self._n, self.t_span[1]))

    def hessian_products(self, z: np.ndarray, z_dots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The gradient (n + m,), and the products of the Hessian with directions (d, n + m), in rows."""
        n = self._n
        _, lams, totals, _ = self._curvature.evaluate(self.layouts, z[:n], z[n:], z_dots[:, :n], z_dots[:, n:])
        bars = np.hstack([lams, totals])
        return bars[0], bars[1:]

    @property
    def forward_options(self) -> SolveOptions:
        return self._value_and_cotangents.forward_options

    @property
    def rtol(self) -> float:
        return self.forward_options.rtol or 0.0

    def solve(self, z: np.ndarray) -> Solution:
        return solve(self.dynamics, *self.unflatten(z), self.t_span, **self._solve_options)

    def push(self, z: np.ndarray, directions: np.ndarray, times: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times (c,), the states there (c, n), and their derivatives (c, n, k) along directions (n + m, k)."""
        solution = self.solve(z)
        dots = solution.pushforward(directions[: self._n], directions[self._n :], np.atleast_1d(times), **self._how)
        assert dots.times is not None and dots.u is not None
        return dots.times, solution(dots.times), dots.u
