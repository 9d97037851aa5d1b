"""`Entries`: those entries of u0 and theta that are fitted, as the vector x that an optimiser sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adjode.checks import float_vector
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics
from adjode.model.selection import BLOCKS, natural_bounds, selection_mask
from adjode.status import SolveError, Status


class Entries:
    """The free entries of u0 and theta, u0 before theta, logarithms where asked for; see `Fit`. `readers` are callbacks that read
    theta, beside those of the dynamics; None if others do.

    Attributes
    ----------
    x0 : (k,) array
    bounds : list of k pairs (low, high)
    names : list of k str
    wrt : tuple of str
        The blocks that have free entries.
    is_free : (n + m,) array of bool
    """

    def __init__(
        self,
        dynamics: Dynamics,
        t0: float,
        u0: Any,
        theta: Any,
        free: Any,
        log: Any,
        bounds: Mapping[str, tuple[Any, Any]] | None,
        readers: Sequence[Callback] | None = (),
    ):
        layouts = self._layouts = dynamics.layouts(u0, theta)
        dynamics.require_order(*layouts, readers=readers)
        self._t0, self._start = t0, np.concatenate([layouts[0].flatten("u0", u0), layouts[1].flatten("theta", theta)])
        self.is_free = selection_mask("free", free, layouts)
        self._free = np.flatnonzero(self.is_free)
        if not self._free.size:
            raise ValueError("free selects no entry, so there is nothing to fit.")
        self._log = selection_mask("log", log, layouts)[self._free]
        entry_names = layouts[0].entry_names() + layouts[1].entry_names()
        self.names = [entry_names[i] for i in self._free]
        self._check_positive()
        self.x0 = self._transform(self._start[self._free])
        self.bounds = self._transform_bounds(bounds)
        parts = self.is_free[: layouts[0].size], self.is_free[layouts[0].size :]
        self.wrt = tuple(block for block, part in zip(BLOCKS, parts, strict=True) if part.any())

    def unpack(self, x: Any) -> tuple[Any, Any]:
        """`(u0, theta)` at x, in the form they were given in; entries that are not free have their starting values."""
        return self._unflatten(self._natural(float_vector("x", x, self._free.size)))

    @property
    def state_names(self) -> list[str]:
        """A name for each state, as far as there are any: "hare", "u[0]", ..."""
        names = self._layouts[0].names
        plain = names is not None and all(size == 1 for size in names.values())
        return list(names) if names is not None and plain else self._layouts[0].entry_names("u")

    def _slopes(self, z: np.ndarray) -> np.ndarray:
        """Derivatives of the free entries by x."""
        return np.where(self._log, z[self._free], 1.0)

    def _checked_natural(self, x: np.ndarray) -> np.ndarray:
        z = self._natural(x)
        if not np.isfinite(z).all():
            raise self._non_finite(f"{self.names[int(np.argmax(~np.isfinite(z[self._free])))]} overflows")
        return z

    def _non_finite(self, what: str) -> SolveError:
        return SolveError(f"{what}.", phase="loss", status=Status.NON_FINITE, t=self._t0)

    def _natural(self, x: np.ndarray) -> np.ndarray:
        """u0 and theta in one vector, in natural units, with x in place of the free entries."""
        z = self._start.copy()
        z[self._free] = x
        with np.errstate(over="ignore"):
            z[self._free[self._log]] = np.exp(x[self._log])
        return z

    def _unflatten(self, z: np.ndarray) -> tuple[Any, Any]:
        n = self._layouts[0].size
        return self._layouts[0].unflatten(z[:n]), self._layouts[1].unflatten(z[n:])

    def _transform(self, values: np.ndarray) -> np.ndarray:
        """Natural units to x; what is not positive on a log scale becomes -inf."""
        x = values.copy()
        x[self._log] = np.log(values[self._log], out=np.full(int(self._log.sum()), -np.inf), where=values[self._log] > 0)
        return x

    def _transform_bounds(self, bounds: Mapping[str, tuple[Any, Any]] | None) -> list[tuple[float, float]]:
        low, high = natural_bounds(bounds, self._layouts)
        start, low, high = self._start[self._free], low[self._free], high[self._free]
        for name, value, least, most in zip(self.names, start, low, high, strict=True):
            if not least <= value <= most:
                raise ValueError(f"{name} must start within its bounds ({least:g}, {most:g}), but it starts at {value:g}.")
        return [(float(a), float(b)) for a, b in zip(self._transform(low), self._transform(high), strict=True)]

    def _check_positive(self) -> None:
        start = self._start[self._free]
        for i in np.flatnonzero(self._log & ~(start > 0)):
            raise ValueError(f"{self.names[i]} must start positive to be fitted on a log scale, but it starts at {start[i]:g}.")
