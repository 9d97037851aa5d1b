"""Axes of Matplotlib, which is imported when the first figure is drawn."""

from __future__ import annotations

from typing import Any


def axes_or_new(axes: Any) -> Any:
    """The axes given, or those of a new figure; an ImportError that names the extra if Matplotlib is missing."""
    return axes if axes is not None else _pyplot().subplots(layout="constrained")[1]


def row_of_axes(axes: Any, count: int) -> list[Any]:
    """So many axes: those given, or a new figure with as many.

    Raises
    ------
    ValueError
        If another number is given.
    """
    import numpy as np

    if axes is None:
        axes = _pyplot().subplots(1, count, figsize=(3.2 * count, 3.2), layout="constrained", squeeze=False)[1]
    flat = list(np.ravel(np.asarray(axes, dtype=object)))
    if len(flat) != count:
        raise ValueError(f"axes must be {count}, one for each panel, but {len(flat)} were given.")
    return flat


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError("plots need Matplotlib: python -m pip install 'adjode[plot]'.") from None
    return pyplot
