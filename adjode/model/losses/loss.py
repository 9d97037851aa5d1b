"""What a loss is, and what it sees."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class States(Protocol):
    """What the losses of this package read of a `Solution`."""

    @property
    def u(self) -> np.ndarray:
        """The states at the ends of all steps, (k, n)."""
        ...

    def __call__(self, t: Any) -> np.ndarray:
        """The states at times inside the span, (k, n)."""
        ...


class Loss(Protocol):
    """A loss sees a `Solution`; what it returns is its value and keyword arguments of `Solution.pullback`."""

    def value_and_cotangents(self, solution: Any) -> tuple[float, dict[str, Any]]: ...
