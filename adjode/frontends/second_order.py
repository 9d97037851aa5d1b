"""`CurvedFit`: the part of `Fit` that takes derivatives of the loss, of first and second order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from adjode.api.hessians import matrix_of
from adjode.checks import float_vector
from adjode.frontends.entries import Entries
from adjode.frontends.problems import Problem


class CurvedFit(Entries):
    """The gradient of a loss by those entries that are fitted, products with its Hessian, and that matrix."""

    def __init__(self, problem: Problem):
        super().__init__(**problem.entries)
        self._problem = problem
        self._fitted: tuple[np.ndarray, str] | None = None  # the minimum last found, and of which loss of least squares

    def evaluate(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss and its gradient by x, both finite, or a SolveError."""
        z = self._checked_natural(x)
        value, cotangents = self._problem.value_and_gradient(z)
        gradient = cotangents[self._free] * self._slopes(z)
        if not (math.isfinite(value) and np.isfinite(gradient).all()):
            raise self._non_finite("the loss or its gradient is not finite")
        return value, gradient

    def hessp(self, x: Any, p: Any) -> np.ndarray:
        """The product of the Hessian at x (k,) with p (k,), in the form that `scipy.optimize.minimize` takes; see `hessian`.

        Costs a few gradients, and less if x is that of the previous call.
        """
        x, p = float_vector("x", x, self._free.size), float_vector("p", p, self._free.size)
        return self._products(x, p[None])[0]

    def hessian(self, x: Any = None) -> np.ndarray:
        """The Hessian (k, k) of the loss by x, exact for the mesh of the solve; `x` is by default the last minimum found.

        Raises
        ------
        ValueError, TypeError
            If nothing has been fitted yet, or the loss, the method or the dynamics have no second derivatives.
        SolveError
            If a pass cannot be completed.
        """
        x = self._minimum_or(x)
        return matrix_of(lambda directions: self._products(x, directions), np.eye(x.size))

    def _products(self, x: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Products with directions (d, k), in rows."""
        z = self._checked_natural(x)
        slopes, z_dots = self._slopes(z), np.zeros((len(directions), z.size))
        z_dots[:, self._free] = slopes * directions
        gradient, products = self._problem.hessian_products(z, z_dots)
        # z = exp(rate x) has a second derivative of its own, rate slope
        return slopes * products[:, self._free] + self._rates * slopes * gradient[self._free] * directions

    @property
    def has_second_order(self) -> bool:
        """Whether the loss, the method and the dynamics have second derivatives."""
        try:
            self._problem.require_second_order()
        except (TypeError, ValueError):
            return False
        return True

    @property
    def minimum(self) -> np.ndarray:
        """The x (k,) last found; a ValueError if nothing has been fitted yet."""
        if self._fitted is None:
            raise ValueError("nothing has been fitted yet: call least_squares or minimize, or give x.")
        return self._fitted[0]

    def _minimum_or(self, x: Any) -> np.ndarray:
        return float_vector("x", self.minimum if x is None else x, self._free.size)
