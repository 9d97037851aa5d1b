"""Checks of what users pass in, each with one clear sentence."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from adjode.status import NotFiniteError, Status


def float_vector(name: str, value: Any, size: int | None = None) -> np.ndarray:
    """A fresh contiguous float64 vector, or an error that says what was given."""
    require_unmasked(name, value)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise TypeError(f"{name} must be a vector of numbers: {error}.") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, but its dtype is {array.dtype}.")
    if array.ndim == 0 and size in (None, 1):
        array = array[None]
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, but its shape is {array.shape}.")
    if size is not None and array.size != size:
        raise ValueError(f"{name} must have {size} entries, but it has {array.size}.")
    require_finite(name, array)
    return np.array(array, dtype=np.float64, order="C")


def require_unmasked(name: str, value: Any) -> None:
    if np.ma.is_masked(value):
        raise ValueError(f"{name} must be numbers, but some of its entries are masked: leave them out, or fill them.")


def require_finite(name: str, array: np.ndarray) -> None:
    if not np.isfinite(array).all():
        where = np.argwhere(~np.isfinite(array))[0]
        entry = tuple(map(int, where)) if where.size > 1 else int(where[0])
        message = f"{name} must be finite, but entry {entry} is {array[tuple(where)]}."
        raise NotFiniteError(message, phase="input", status=Status.NON_FINITE, t=math.nan)


def time_span(t_span: Any) -> tuple[float, float]:
    require_unmasked("t_span", t_span)
    try:
        t0, T = (float(t) for t in t_span)
    except (TypeError, ValueError):
        raise ValueError(f"t_span must be a pair (t0, T) of numbers, but {t_span!r} was given.") from None
    if not (math.isfinite(t0) and math.isfinite(T)):
        raise ValueError(f"t_span must be finite, but {(t0, T)} was given.")
    return t0, T


_ROUNDINGS = 4.0  # spacings of numbers that a time may be off an end of the span


def times_in_span(name: str, times: Any, t0: float, T: float) -> np.ndarray:
    """Times as a vector; each must lie between t0 and T, whichever is larger. Those next to an end, by rounding, are that end."""
    array = float_vector(name, np.ravel(times) if np.ndim(times) == 0 else times)
    low, high = min(t0, T), max(t0, T)
    spacing = _ROUNDINGS * float(np.spacing(max(abs(t0), abs(T))))
    array = np.where(abs(array - high) <= spacing, high, np.where(abs(array - low) <= spacing, low, array))
    outside = (array < low) | (array > high)
    if outside.any():
        raise ValueError(
            f"{name} must lie in the span [{low}, {high}], but {name}[{int(outside.argmax())}] is {array[outside.argmax()]}."
        )
    return array


def positive(name: str, value: Any, *, allow_zero: bool = False) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, but {value!r} was given.") from None
    if not (number > 0.0 or (allow_zero and number == 0.0)):
        raise ValueError(f"{name} must be {'zero or ' if allow_zero else ''}positive, but {value!r} was given.")
    return number


_BYTES = {"b": 1} | {prefix + unit: base**k for k, prefix in enumerate("kmgt", 1) for unit, base in (("b", 1000), ("ib", 1024))}


def memory_size(name: str, value: Any) -> int:
    """A number of bytes, from that or from "512MB", "2 GiB" and the like."""
    if isinstance(value, str):
        found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-z]+)\s*", value.lower())
        if found is None or found[2] not in _BYTES:
            raise ValueError(f'{name} must be a number of bytes, or a string such as "512MB" or "2 GiB", but {value!r} was given.')
        return int(float(found[1]) * _BYTES[found[2]])
    number = positive(name, value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, but {value!r} was given.")
    return int(number)


def tolerance_vector(name: str, value: Any, size: int) -> np.ndarray:
    """An absolute tolerance for each component, from a scalar or a vector."""
    require_unmasked(name, value)
    if not np.ndim(value):
        return np.full(size, positive(name, value, allow_zero=True))
    array = float_vector(name, value)
    if array.size != size:
        raise ValueError(f"{name} must be a scalar or have {size} entries, but it has {array.size}.")
    if (array < 0).any():
        raise ValueError(f"{name} must not be negative, but entry {int((array < 0).argmax())} is {array.min()}.")
    return array


def relative_tolerance(name: str, value: Any) -> float:
    """A relative tolerance that rounding leaves attainable."""
    number = positive(name, value, allow_zero=True)
    least = 10 * np.finfo(float).eps
    if 0.0 < number < least:
        raise ValueError(f"{name} must be at least {least:.2g} (10 times the spacing of floats), but {value!r} was given.")
    return number


def choose(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, but {value!r} was given.")
    return value
