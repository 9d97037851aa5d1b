"""Data as users have them: arrays, dicts of names, and tables with a row for each datum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adjode.checks import float_vector


def unmasked(y_obs: Any, sigma: Any) -> tuple[Any, Any]:
    """Masked data is NaN; without data it does not matter what is masked or NaN in sigma."""
    if np.ma.is_masked(y_obs):
        y_obs = np.ma.filled(y_obs.astype(float), np.nan)
    if np.ma.is_masked(sigma):
        masked = np.ma.getmaskarray(sigma)
        if masked.shape != np.shape(y_obs) or not np.isnan(np.asarray(y_obs, dtype=float)[masked]).all():
            raise ValueError("sigma must be given wherever there is data, but some of its entries are masked.")
        sigma = np.ma.filled(sigma, 1.0)
    if np.ndim(sigma) and np.shape(sigma) == np.shape(y_obs) and {np.asarray(one).dtype.kind for one in (y_obs, sigma)} == {"f"}:
        sigma = np.where(np.isnan(y_obs) & np.isnan(sigma), 1.0, sigma)
    return y_obs, sigma


def smallest_sizes(y: np.ndarray, sigma: np.ndarray | float) -> np.ndarray:
    """How small data (..., k, c) are in each column, (..., c), without those that are zero but for rounding: of these, sigma is."""
    size = np.abs(y)
    least = np.finfo(float).eps * np.fmax.reduce(size, axis=-2, initial=0.0, keepdims=True)
    return np.fmin.reduce(np.where(size <= least, sigma, size), axis=-2, initial=np.inf)


def columns(t_obs: np.ndarray, y_obs: Any, names: Sequence[str] | None) -> tuple[np.ndarray, list[str] | None]:
    """Data (k, c), NaN where there is none, and the names of the columns; those of observables that a dict leaves out are NaN.

    Raises
    ------
    ValueError, TypeError
        For other shapes, unknown names, or what is not a number.
    """
    if isinstance(y_obs, Mapping):
        known = list(y_obs) if names is None else list(names)
        if unknown := [name for name in y_obs if name not in known]:
            raise ValueError(f"y_obs has the observable {unknown[0]!r}, but they are {', '.join(map(repr, known))}.")
        found = [_column(name, y_obs[name], t_obs.size) if name in y_obs else np.full(t_obs.size, np.nan) for name in known]
        return np.ascontiguousarray(np.column_stack(found)) if found else np.zeros((t_obs.size, 0)), known
    y_obs, _ = unmasked(y_obs, None)
    y = np.asarray(y_obs)
    if y.dtype.kind not in "fiub":
        raise TypeError(f"y_obs must hold real numbers, but its dtype is {y.dtype}.")
    y = np.array(y[:, None] if y.ndim == 1 else y, dtype=float)
    if y.ndim != 2 or len(y) != t_obs.size:
        raise ValueError(f"y_obs must have one row for each of the {t_obs.size} times, but its shape is {np.shape(y_obs)}.")
    if names is not None and len(names) != y.shape[1]:
        raise ValueError(f"y_obs must have a column for each observable, {', '.join(names)}, but it has {y.shape[1]}.")
    return np.ascontiguousarray(y), None if names is None else list(names)


def _column(name: str, values: Any, k: int) -> np.ndarray:
    values, _ = unmasked(values, None)
    column = np.asarray(values)
    if column.dtype.kind not in "fiub":
        raise TypeError(f"y_obs[{name!r}] must hold real numbers, but its dtype is {column.dtype}.")
    if column.shape != (k,):
        raise ValueError(f"y_obs[{name!r}] must have a number for each of the {k} times, but its shape is {column.shape}.")
    return column.astype(float)


def read_table(table: Any, names: Sequence[str] | None, experiment: str | None) -> tuple[np.ndarray, dict[str, np.ndarray], Any]:
    """Times (k,), data and standard deviations by the names of observables, from the rows of a table; the last are None without.

    Data of the same observable at the same time take further rows of their own.

    Raises
    ------
    ValueError
        If a column is missing, or has an unknown name, or there are several experiments to choose from.
    """
    rows = {name: np.asarray(table[name]) for name in ("time", "observable", "value", "sigma", "experiment") if _has(table, name)}
    if lacking := [name for name in ("time", "observable", "value") if name not in rows]:
        raise ValueError(f"a table of data must have the columns time, observable and value, but lacks {', '.join(lacking)}.")
    if "experiment" in rows:
        rows = _chosen(rows, experiment)
    times, observables = float_vector("the times of a table", rows["time"]), [str(one) for one in rows["observable"]]
    known = list(dict.fromkeys(observables)) if names is None else list(names)
    if unknown := [name for name in observables if name not in known]:
        raise ValueError(f"the table has the observable {unknown[0]!r}, but they are {', '.join(map(repr, known))}.")
    counts: dict[tuple[float, str], int] = {}
    keys = []
    for time, name in zip(times.tolist(), observables, strict=True):
        keys.append((time, counts.get((time, name), 0)))
        counts[time, name] = keys[-1][1] + 1
    places = {key: k for k, key in enumerate(sorted(set(keys)))}
    values = {what: {name: np.full(len(places), np.nan) for name in known} for what in ("value", "sigma") if what in rows}
    for i, (key, name) in enumerate(zip(keys, observables, strict=True)):
        for what, found in values.items():
            found[name][places[key]] = rows[what][i]
    return np.array([time for time, _ in places]), values["value"], values.get("sigma")


def _has(table: Any, name: str) -> bool:
    return name in (table.dtype.names if isinstance(table, np.ndarray) and table.dtype.names else table)


def _chosen(rows: dict[str, np.ndarray], experiment: str | None) -> dict[str, np.ndarray]:
    """The rows of one experiment."""
    found = list(dict.fromkeys(str(one) for one in rows["experiment"]))
    if experiment is None and len(found) > 1:
        raise ValueError(f"the table has the experiments {', '.join(map(repr, found))}: say which, experiment=...")
    wanted = found[0] if experiment is None else experiment
    if wanted not in found:
        raise ValueError(f"the table has no experiment {wanted!r}; it has {', '.join(map(repr, found))}.")
    mask = np.array([str(one) == wanted for one in rows["experiment"]])
    return {name: values[mask] for name, values in rows.items()}
