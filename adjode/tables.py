"""`Table`: a measured function of time, or of anything else, for callbacks to call.

A table is pieces of polynomials. What Python calls, what Numba compiles and what is differentiated is one function, made for the
table: it finds the piece and evaluates it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload, register_jitable

from adjode.checks import choose, float_vector, require_unmasked

KINDS = {"previous": 1, "linear": 2, "cubic": 2, "akima": 3}  # with the number of times that each needs
_ROUNDINGS = 4.0  # spacings of numbers that an argument may be off an end
_ROUNDING = 1e-12  # a jump of this part of the values is none
_ROUGH = {"cubic": 1e-3, "akima": 1e-6}  # a jump of this part of what values differ nearby is not smooth, see `_breaks`
_RESOLVED = 16  # knots
_NOTHING = 1e-17  # the weight of a value that is none
_COMPILED = {"error_model": "numpy", "nogil": True}


class Table:
    """Values at times and what lies between them, a function for callbacks to call: `table(t)`, compiled with them.

    Parameters
    ----------
    times : (k,) array
        Increasing; of a curve over something else, as a rating curve, its arguments.
    values : (k,) array, optional
        Without them the table takes them when it is called, `table(t, theta[2:7])`, and is differentiated by them.
    kind : {"linear", "previous", "cubic", "akima"}
        As in `scipy.interpolate`: "linear" and "previous" are those of `interp1d`, "cubic" is `CubicSpline`, which is twice
        differentiable and may overshoot, and "akima" is `Akima1DInterpolator`, which keeps flat parts flat and needs `values`.
    outside : {"raise", "hold"}
        What becomes of arguments beyond the times: an error, as in `interp1d`, or the value at that end. The last value of
        "previous" holds in any case, until there is another.

    Attributes
    ----------
    breaks : (j,) array
        The times at which it may jump, or its slope: stops of every solve whose f calls it with t. Of "cubic" and "akima", which
        have none, those times at which a higher derivative jumps by more than what is smooth on the scale of the times, and one in
        sixteen of the others, so that no step passes over what the table has.

    Raises
    ------
    ValueError, TypeError
        For bad input.

    Notes
    -----
    Globals and closure variables of callbacks are compile-time constants, and so are tables: another table makes another
    `Dynamics`. In plain Python a table takes arrays, too.
    """

    def __init__(self, times: Any, values: Any = None, kind: str = "linear", *, outside: str = "raise"):
        self.kind, self.outside = choose("kind", kind, tuple(KINDS)), choose("outside", outside, ("raise", "hold"))
        self.times = _frozen(_increasing(times, KINDS[kind], kind))
        self.values = None if values is None else _frozen(_values("values", values, self.times.size))
        if values is None and kind == "akima":
            raise ValueError(
                "kind='akima' is not linear in its values, so that they must be constants: give them, or take 'cubic'."
            )
        starts, pieces = _pieces(kind, self.times, np.eye(self.times.size) if self.values is None else self.values, outside)
        starts = _frozen(starts)
        self._low, self._high = self._ends()
        if self.values is None:
            self.breaks = starts[1:]
            self.rule = _of_values(starts, *_narrow(pieces, _lengths(starts, self.times[-1])))
        else:
            self.breaks = _frozen(_breaks(kind, starts, pieces, _lengths(starts, self.times[-1]), self.values))
            self.rule = _of_argument(starts, _frozen(pieces))
        self._compiled: Any = njit(**_COMPILED)(self._checked())

    @property
    def _numba_type_(self) -> Any:
        """What Numba takes a table for: a jitted function."""
        return self._compiled._numba_type_

    def __call__(self, x: Any, values: Any = None) -> Any:
        """The value at x, or an array of those at an array of them.

        Parameters
        ----------
        x : float or array
        values : (k,) array
            Of a table without values.
        """
        require_unmasked("the argument of a Table", x)
        given = np.asarray(x)
        beyond = (given.real < self._low) | (given.real > self._high)
        if beyond.any():
            raise ValueError(
                f"a Table is called with {given[beyond][0]:g}, which is outside of its times, "
                f"{self.times[0]:g} .. {self.times[-1]:g}: give times that reach further, or outside='hold'"
            )
        if self.values is not None:
            if values is not None:
                raise TypeError("a Table that has values is called with others: call it as table(t), or make it as Table(times)")
            return self.rule(given)[()]
        if values is None:
            raise TypeError("a Table without values is called without them: call it as table(t, values), or give them to Table")
        if np.shape(values) != self.times.shape:
            raise ValueError(f"a Table of {self.times.size} times is called with values of shape {np.shape(values)}")
        return self.rule(given, np.asarray(values))[()]

    def _ends(self) -> tuple[float, float]:
        """The least and the largest argument that it takes."""
        if self.outside == "hold":
            return -math.inf, math.inf
        margin = _ROUNDINGS * float(np.spacing(np.max(np.abs(self.times[[0, -1]]))))
        return float(self.times[0]) - margin, math.inf if self.kind == "previous" else float(self.times[-1]) + margin

    def _checked(self) -> Callable:
        """The rule behind a check of its arguments, for Numba."""
        rule, low, high, size = njit(**_COMPILED)(self.rule), self._low, self._high, self.times.size

        def of_argument(x):
            if x.real < low or x.real > high:
                raise ValueError("a Table is called outside of its times")
            return rule(x)

        def of_values(x, values):
            if x.real < low or x.real > high:
                raise ValueError("a Table is called outside of its times")
            if len(values) != size:
                raise ValueError("a Table is called with another number of values than it has times")
            return rule(x, values)

        return of_argument if self.values is not None else of_values

    def __reduce__(self):
        return _rebuilt, (self.times, self.values, self.kind, self.outside)

    def __repr__(self) -> str:
        without = "" if self.values is not None else ", without values"
        return f"Table({self.times.size} times, {self.times[0]:g} .. {self.times[-1]:g}, kind={self.kind!r}{without})"


def _rebuilt(times: np.ndarray, values: np.ndarray | None, kind: str, outside: str) -> Table:
    return Table(times, values, kind, outside=outside)


def _frozen(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array


def _increasing(given: Any, least: int, kind: str) -> np.ndarray:
    times = float_vector("times", given)
    if times.size < least:
        raise ValueError(f"kind={kind!r} needs {least} times or more, but {times.size} {'is' if times.size == 1 else 'are'} given.")
    wrong = np.flatnonzero(np.diff(times) <= 0.0)
    if wrong.size:
        k = int(wrong[0])
        raise ValueError(f"times must increase, but times[{k}] is {times[k]:g} and times[{k + 1}] is {times[k + 1]:g}.")
    return times


def _values(name: str, given: Any, size: int) -> np.ndarray:
    values = float_vector(name, given)
    if values.size != size:
        raise ValueError(f"{name} must have one entry for each of the {size} times, but they have {values.size}.")
    return values


# --- pieces ---------------------------------------------------------------------------------------------------------------------


def _pieces(kind: str, times: np.ndarray, values: np.ndarray, outside: str) -> tuple[np.ndarray, np.ndarray]:
    """Where pieces start (p,), and their coefficients (p, order, ...) in rising powers of the distance from there.

    values may be (k,), or a matrix with a column for each of several tables.
    """
    if kind == "previous":
        return times, values[:, None]
    if kind == "linear":
        slopes = (np.diff(values, axis=0).T / np.diff(times)).T
        coefficients = np.stack([values[:-1], slopes], axis=1)
    else:
        from scipy.interpolate import Akima1DInterpolator, CubicSpline  # which takes as long to import as all of this package

        made = CubicSpline(times, values) if kind == "cubic" else Akima1DInterpolator(times, values)
        coefficients = np.swapaxes(made.c[::-1], 0, 1)
    if outside == "raise":
        return times[:-1], coefficients
    ends = np.zeros((2, *coefficients.shape[1:]))
    ends[:, 0] = values[[0, -1]]
    return np.array([times[0] - 1.0, *times]), np.concatenate([ends[:1], coefficients, ends[1:]])


def _lengths(starts: np.ndarray, end: float) -> np.ndarray:
    """Of the pieces; of the last one where it has no end that of the one before."""
    lengths = np.diff(starts, append=max(end, starts[-1]))
    if lengths[-1] == 0.0:
        lengths[-1] = lengths[-2] if lengths.size > 1 else 1.0
    return lengths


def _breaks(kind: str, starts: np.ndarray, pieces: np.ndarray, lengths: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The starts of pieces that a step should not pass.

    Where the table or its slope jumps, all jumps but those of rounding are. A spline jumps in its second or third derivative, which
    error control finds, unless it does not look: a step from where nothing happens may pass over a pulse. What is not smooth on the
    scale of the times has stops at them; what is smooth takes many, so that one in `_RESOLVED` is enough.
    """
    jumps, order = np.zeros(starts.size - 1), pieces.shape[1]
    for p in range(order):
        before = sum(math.comb(q, p) * pieces[:-1, q] * lengths[:-1] ** (q - p) for q in range(p, order))
        jumps += np.abs(pieces[1:, p] - before) * lengths[1:] ** p
    kept = jumps > _ROUNDING * np.max(np.abs(values))
    if order > 2 and kept.any():
        kept &= jumps > _ROUGH[kind] * _range_nearby(np.append(pieces[:, 0], values[-1]))[1:-1]
        kept[_RESOLVED - 1 :: _RESOLVED] = True
    return starts[1:][kept]


def _range_nearby(values: np.ndarray) -> np.ndarray:
    """How much values differ that are no more than `_RESOLVED` places from each."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(values, _RESOLVED, mode="edge"), 2 * _RESOLVED + 1)
    return np.ptp(around, axis=1)


def _narrow(pieces: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The weights of values in each piece, (pieces * width, order), and the first value (pieces,) that has one.

    A value of a spline has an influence everywhere, but it falls by a factor of four from knot to knot.
    """
    powers = lengths[:, None] ** np.arange(pieces.shape[1])
    matters = np.einsum("kp,kpj->kj", powers, np.abs(pieces)) > _NOTHING
    size = matters.shape[1]
    first, last = matters.argmax(axis=1), size - matters[:, ::-1].argmax(axis=1)
    width = int(np.max(last - first))
    first = np.minimum(first, size - width)
    weights = np.stack([pieces[k, :, j : j + width].T for k, j in enumerate(first)])
    return _frozen(weights.reshape(-1, pieces.shape[1])), _frozen(first), width


# --- what is compiled, and differentiated -----------------------------------------------------------------------------------------


def locate(starts: np.ndarray, x: Any) -> Any:
    """The index of the last of `starts`, which increase, that is not above x; 0 if there is none. Its derivative is zero."""
    return np.maximum(np.searchsorted(starts, np.real(x), side="right") - 1, 0)


@overload(locate, jit_options=_COMPILED)
def _locate(starts, x):
    if isinstance(x, types.Number):

        def bisect(starts, x):
            at, left = 0, starts.size
            while left > 1:  # the one that is sought is among the `left` from `at` on
                half = left // 2
                at = at + half if starts[at + half] <= x.real else at
                left -= half
            return at

        return bisect


@register_jitable
def constant(c, k, x):
    return c[k, 0]


@register_jitable
def line(c, k, x):
    return c[k, 0] + c[k, 1] * x


@register_jitable
def cubic(c, k, x):
    return c[k, 0] + (c[k, 1] + (c[k, 2] + c[k, 3] * x) * x) * x


_PARTS = {1: constant, 2: line, 4: cubic}  # by the number of coefficients


def _of_argument(starts: np.ndarray, pieces: np.ndarray) -> Callable:
    part = _PARTS[pieces.shape[1]]

    def interpolated(x):
        k = locate(starts, x)
        return part(pieces, k, x - starts[k])

    return interpolated


def _of_values(starts: np.ndarray, weights: np.ndarray, first: np.ndarray, width: int) -> Callable:
    part = _PARTS[weights.shape[1]]

    def interpolated(x, values):
        k = locate(starts, x)
        shift = x - starts[k]
        result = 0.0
        for j in range(width):
            result += part(weights, k * width + j, shift) * values[first[k] + j]
        return result

    return interpolated
