"""`Form`: how the inputs of functions that are called again and again were given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from adjode.model.layout import Layout

_REAL = "fiub"  # kinds of numbers


class Form:
    """How u0 and theta were given: read-only, so that threads may call in different forms at a time."""

    def __init__(self, u0: Layout, theta: Layout):
        layouts = u0, theta
        self.sizes = u0.size, theta.size
        self.shapes = (self.sizes[0],), (self.sizes[1],)
        self.flat = all(layout.is_flat for layout in layouts)
        self.layouts = layouts

    def is_like(self, u0: Any, theta: Any) -> bool:
        """Whether these are vectors that can be taken as they are."""
        arrays = self.flat and type(u0) is type(theta) is np.ndarray
        return arrays and (u0.shape, theta.shape) == self.shapes and u0.dtype.kind in _REAL and theta.dtype.kind in _REAL

    def flatten(self, *given: Any) -> Iterator[np.ndarray]:
        return (layout.flatten(layout.name, block) for layout, block in zip(self.layouts, given, strict=True))

    def unflatten(self, *bars: np.ndarray | None) -> Iterator[Any]:
        return (None if bar is None else layout.unflatten(bar) for layout, bar in zip(self.layouts, bars, strict=True))
