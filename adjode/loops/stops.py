"""Where a pass stops on its way, as numbers for its frame."""

from __future__ import annotations

import numpy as np

_EPS = float(np.finfo(float).eps)


def stops_towards(end: float, stops: np.ndarray, t_span: tuple[float, float]) -> tuple[np.ndarray, np.ndarray | None]:
    """Stops of a pass that ends at `end` and crosses others on its way, and their half widths.

    These are a few times the spacing of numbers in the span, so that no stage is evaluated on the other side by rounding.
    """
    if not stops.size:
        return np.array([end]), None
    largest = np.maximum(np.abs(stops), max(map(abs, t_span)))
    first = t_span[1] if end == t_span[0] else t_span[0]
    order = slice(None) if end >= first else slice(None, None, -1)
    return np.append(stops[order], end), np.append((4.0 * _EPS * largest)[order], 0.0)
