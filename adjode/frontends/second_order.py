"""`CurvedFit`: the part of `Fit` that takes second derivatives of the loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from adjode.checks import float_vector
from adjode.frontends.entries import Entries
from adjode.frontends.problems import Problem


class CurvedFit(Entries):
    """Products with the Hessian of a loss by those entries that are fitted, and that matrix."""

    def __init__(self, problem: Problem):
        super().__init__(**problem.entries)
        self._problem = problem
        self._fitted: tuple[np.ndarray, str] | None = None  # the minimum last found, and of which loss of least squares

    @property
    def state_names(self) -> list[str]:
        """A name for each state, as far as there are any: "hare", "u[0]", ..."""
        return self._problem.curved.state_names

    def hessp(self, x: Any, p: Any) -> np.ndarray:
        """The product of the Hessian at x (k,) with p (k,), as `scipy.optimize.minimize` takes it; see `hessian`.

        Costs less than four gradients, and less where x is that of the call before.
        """
        x, p = float_vector("x", x, self._free.size), float_vector("p", p, self._free.size)
        z, z_dot = self._checked_natural(x), np.zeros(self._start.size)
        slopes = self._slopes(z)
        z_dot[self._free] = slopes * p
        bar, bar_dot = (row[self._free] for row in self._problem.curved.hessian_product(z, z_dot))
        return slopes * (bar_dot + self._rates * bar * p)

    def hessian(self, x: Any = None) -> np.ndarray:
        """The Hessian (k, k) of the loss by x, exact for the mesh of the solve; `x` is the minimum last found by default.

        Raises
        ------
        ValueError, TypeError
            If nothing has been fitted yet; if the loss, the method or the dynamics have no second derivatives.
        SolveError
            If a pass cannot be completed.
        """
        x = float_vector("x", self.minimum if x is None else x, self._free.size)
        z = self._checked_natural(x)
        gradient, H = self._problem.curved.hessian(z)
        slopes = self._slopes(z)
        return H * np.outer(slopes, slopes) + np.diag(self._rates * slopes * gradient)

    @property
    def has_second_order(self) -> bool:
        """Whether the loss, the method and the dynamics have second derivatives."""
        try:
            self._problem.curved.require_second_order()
        except (TypeError, ValueError):
            return False
        return True

    @property
    def minimum(self) -> np.ndarray:
        """The x (k,) last found; a ValueError if nothing has been fitted yet."""
        if self._fitted is None:
            raise ValueError("nothing has been fitted yet: call least_squares or minimize, or give x.")
        return self._fitted[0]
