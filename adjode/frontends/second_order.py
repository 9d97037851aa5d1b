"""`CurvedFit`: the part of `Fit` that takes second derivatives of the loss."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from adjode.api.hessians import HessianVectorProduct, hessian_vector_product
from adjode.checks import float_vector
from adjode.frontends.entries import Entries
from adjode.model.dynamics import Dynamics
from adjode.model.losses import Loss, require_second_order
from adjode.passes.options import SOLVE_NAMES


class CurvedFit(Entries):
    """Products with the Hessian of a loss by those entries that are fitted, and that matrix."""

    def __init__(self, dynamics: Dynamics, loss: Loss, t_span: tuple[float, float], options: dict[str, Any], **entries: Any):
        super().__init__(dynamics, t_span[0], **entries)
        self.dynamics, self.loss, self.t_span = dynamics, loss, t_span
        self._solve_options: Any = {name: value for name, value in options.items() if name in SOLVE_NAMES}
        self._has_cost = "running_cost" in options
        self._fitted: tuple[np.ndarray, str] | None = None  # the minimum last found, and of which loss of least squares

    def hessp(self, x: Any, p: Any) -> np.ndarray:
        """The product of the Hessian at x (k,) with p (k,), as `scipy.optimize.minimize` takes it; see `hessian`.

        Costs less than four gradients, and less where x is that of the call before.
        """
        x, p = float_vector("x", x, self._free.size), float_vector("p", p, self._free.size)
        z, n = self._checked_natural(x), self._layouts[0].size
        slopes, z_dot = self._slopes(z), np.zeros((1, z.size))
        z_dot[0, self._free] = slopes * p
        _, lams, totals, _ = self._curvature.evaluate(self._layouts, z[:n], z[n:], z_dot[:, :n], z_dot[:, n:])
        bar, bar_dot = np.hstack([lams, totals])[:, self._free]
        return slopes * bar_dot + np.where(self._log, slopes * bar * p, 0.0)

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
        z, n = self._checked_natural(x), self._layouts[0].size
        wrt = {"u0": self.is_free[:n], "theta": self.is_free[n:]}
        _, gradient, H = self._curvature.hessian(*self._unflatten(z), wrt)
        slopes = self._slopes(z)
        return H * np.outer(slopes, slopes) + np.diag(np.where(self._log, slopes * gradient, 0.0))

    @property
    def has_second_order(self) -> bool:
        """Whether the loss, the method and the dynamics have second derivatives."""
        try:
            require_second_order(self._curvature.loss.prepare(self._layouts[0].size, self.t_span[1]))
        except (TypeError, ValueError):
            return False
        return True

    @property
    def minimum(self) -> np.ndarray:
        """The x (k,) last found; a ValueError if nothing has been fitted yet."""
        if self._fitted is None:
            raise ValueError("nothing has been fitted yet: call least_squares or minimize, or give x.")
        return self._fitted[0]

    @functools.cached_property
    def _curvature(self) -> HessianVectorProduct:
        if self._has_cost:
            raise ValueError("there are no second derivatives of a running cost: leave it out.")
        return hessian_vector_product(self.dynamics, self.loss, self.t_span, **self._solve_options)
