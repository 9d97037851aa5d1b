"""What a user of `Fit` selects: free entries, entries on a log scale, and bounds, as arrays over the flat vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from adjode.model.layout import Layout

BLOCKS = ("u0", "theta")


def selection_mask(option: str, chosen: Any, layouts: tuple[Layout, Layout]) -> np.ndarray:
    """`free` or `log` as one boolean for each entry of u0 and theta."""
    if not isinstance(chosen, Mapping):
        try:
            chosen = dict.fromkeys((chosen,) if isinstance(chosen, str) else chosen, True)
        except TypeError:
            raise TypeError(f"{option} must be a tuple of block names or a dict of selections, but {chosen!r} was given.") from None
    _check_blocks(option, chosen)
    masks = [np.zeros(layout.size, dtype=bool) for layout in layouts]
    for mask, layout in zip(masks, layouts, strict=True):
        mask[_indices(option, layout, chosen.get(layout.name, False))] = True
    return np.concatenate(masks)


def _check_blocks(option: str, chosen: Mapping[str, Any]) -> None:
    for block in chosen:
        if block not in BLOCKS:
            raise ValueError(f"{option} may name the blocks 'u0' and 'theta', but it names {block!r}.")


def _indices(option: str, layout: Layout, chosen: Any) -> np.ndarray:
    """The entries of one block that True or False, a mask, indices or names select."""
    if isinstance(chosen, (bool, np.bool_)):
        return np.arange(layout.size if chosen else 0)
    label = f"{option}[{layout.name!r}]"
    array = np.atleast_1d(np.asarray(chosen))
    if array.size == 0:
        return np.arange(0)
    if array.dtype.kind == "b":
        if array.shape != (layout.size,):
            raise ValueError(f"{label} must be a mask of {layout.size} entries, but its shape is {array.shape}.")
        return np.flatnonzero(array)
    if array.dtype.kind in "iu" and array.ndim == 1:
        if array.min() < 0 or array.max() >= layout.size:
            raise ValueError(f"{label} must hold indices from 0 to {layout.size - 1}, but {chosen!r} was given.")
        if np.unique(array).size < array.size:
            raise ValueError(f"{label} must name each index once, but {chosen!r} was given; a mask has True and False.")
        return array
    if array.dtype.kind == "U" and array.ndim == 1:
        return np.concatenate([np.ravel(_entries(label, layout, str(name))) for name in array])
    raise TypeError(f"{label} must be True, False, a boolean mask, indices or entry names, but {chosen!r} was given.")


def _entries(label: str, layout: Layout, name: str) -> np.ndarray:
    """Where the entry `name` stands in the flat vector: indices in the entry's shape."""
    known = [] if layout.fields is None else layout.fields.names
    if layout.fields is None or name not in known:
        raise ValueError(f"{label} names {name!r}, but the entries of {layout.name} are {known or 'not named'}.")
    return layout.fields.split(np.arange(layout.size))[name]


def natural_bounds(bounds: Any, layouts: tuple[Layout, Layout], free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lower and the upper bound of each of the `free` entries of u0 and theta."""
    if bounds is not None and not isinstance(bounds, Mapping):
        return _bounds_of_scipy(bounds, free.size)
    bounds = bounds or {}
    _check_blocks("bounds", bounds)
    lows, highs = [], []
    for layout in layouts:
        pair = bounds.get(layout.name, (None, None))
        label = f"bounds[{layout.name!r}]"
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ValueError(f"{label} must be a pair (low, high), but {pair!r} was given.")
        lows.append(_bound(f"{label}[0]", layout, pair[0], -np.inf))
        highs.append(_bound(f"{label}[1]", layout, pair[1], np.inf))
    return np.concatenate(lows)[free], np.concatenate(highs)[free]


def _bounds_of_scipy(bounds: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Bounds as `scipy.optimize.minimize` takes them: `Bounds`, or a pair for each free entry, in which None is no bound."""
    advice = f"a dict such as {{'theta': (low, high)}}, or a pair for each of the {k} free entries"
    try:
        if hasattr(bounds, "lb"):
            low, high = (np.broadcast_to(np.asarray(side, dtype=float), k) for side in (bounds.lb, bounds.ub))
        else:
            pairs = [[side if b is None else b for b, side in zip(pair, (-np.inf, np.inf), strict=True)] for pair in bounds]
            low, high = np.array(pairs, dtype=float).reshape(k, 2).T
    except (TypeError, ValueError):
        raise TypeError(f"bounds must be {advice}, but {bounds!r} was given.") from None
    if np.isnan([low, high]).any():
        raise ValueError(f"bounds must be {advice}, but NaN is among them; None means unbounded.")
    return low.copy(), high.copy()


def _bound(label: str, layout: Layout, value: Any, unbounded: float) -> np.ndarray:
    """One side of the bounds of a block; entries that a dict leaves out are unbounded."""
    full = np.full(layout.size, unbounded)
    if isinstance(value, (np.void, np.ndarray)) and value.dtype.names:
        value = {name: value[name] for name in value.dtype.names}
    parts = value.items() if isinstance(value, Mapping) else [(None, value)]
    for name, part in parts:
        where = np.arange(layout.size) if name is None else _entries(label, layout, name)
        try:
            given = np.broadcast_to(np.asarray(part, dtype=object), where.shape)
            full[where] = np.array([unbounded if b is None else b for b in given.flat], dtype=float).reshape(where.shape)
        except (TypeError, ValueError):
            raise ValueError(f"{label} must be numbers that broadcast to shape {where.shape}, but {part!r} was given.") from None
    if np.isnan(full).any():
        raise ValueError(f"{label} must not be NaN; None means unbounded.")
    return full
