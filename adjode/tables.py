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
from adjode.pieces import breaks, frozen, lengths_of, narrow, pieces_of

KINDS = {"previous": 1, "linear": 2, "cubic": 2, "akima": 3}  # with the number of times that each needs
_ROUNDINGS = 4.0  # spacings of numbers that an argument may be off an end
_COMPILED = {"error_model": "numpy", "nogil": True}


class Table:
    """Values at times, and an interpolant between them, as a function for callbacks to call: `table(t)`, compiled with them.

    Parameters
    ----------
    times : (k,) array
        Increasing. For a curve over something else, such as a rating curve, these are its arguments.
    values : (k,) or (k, c) array, optional
        Column j of a matrix is `table(t, j)`, an interpolant of its own at the same times. Without values the table takes them when
        it is called, `table(t, theta[2:7])`, and is differentiated by them.
    kind : {"linear", "previous", "cubic", "akima"}
        As in `scipy.interpolate`: "linear" and "previous" are those of `interp1d`, "cubic" is `CubicSpline`, which is twice
        differentiable and may overshoot, and "akima" is `Akima1DInterpolator`, which keeps flat parts flat and needs `values`.
    outside : {"raise", "hold", "periodic"}
        What happens with arguments beyond the times: an error, as in `interp1d`, or the value at that end. The last value of
        "previous" always holds, until there is another. With "periodic", as with SciPy's `extrapolate="periodic"`, the table starts
        again at its last time, in both directions; "cubic" is smooth there, so it needs the same value at both ends. Without values
        such a table takes one for each time but the last, at which the first one returns.

    Attributes
    ----------
    breaks : (j,) array
        The times at which the table, or its slope, may jump: stops of every solve whose f calls it with t. "cubic" and "akima" have
        no such jumps; their breaks are the times at which a higher derivative jumps by more than what is smooth on the scale of the
        times, and one in sixteen of the others, so that no step misses a feature of the table. With outside="periodic", those of
        one period.
    period : float
        The period after which it starts again; 0 if it does not.

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid.

    Notes
    -----
    Globals and closure variables of callbacks are compile-time constants, and so are tables: another table makes another
    `Dynamics`. In plain Python a table also accepts arrays.
    """

    def __init__(self, times: Any, values: Any = None, kind: str = "linear", *, outside: str = "raise"):
        self.kind, self.outside = choose("kind", kind, tuple(KINDS)), choose("outside", outside, ("raise", "hold", "periodic"))
        repeats = outside == "periodic"
        self.times = frozen(_increasing(times, max(KINDS[kind], 2 if repeats else 1), kind))
        self.values = None if values is None else frozen(_values("values", values, self.times.size))
        self.period = float(self.times[-1] - self.times[0]) if repeats else 0.0
        self._size = self.times.size - repeats  # of values that come with a call
        if values is None and kind == "akima":
            raise ValueError("kind='akima' is not linear in its values, so they must be constants: give them, or use 'cubic'.")
        units = np.eye(self._size)[np.arange(self.times.size) % self._size]
        starts, pieces = pieces_of(kind, self.times, units if self.values is None else self.values, outside)
        starts = frozen(starts)
        self._low, self._high = self._ends()
        place = _repeated(self.times[0], self.period) if repeats else as_it_is
        ends = np.append(starts, self.times[-1]) if repeats else starts  # behind which there is a piece
        if self.values is None:
            self.breaks = ends[1:]
            weights = narrow(pieces, lengths_of(starts, self.times[-1]), repeats)
            self.rule = _of_values(starts, place, *weights, self._size if repeats else 0)
        else:
            self.breaks = frozen(breaks(kind, ends, pieces, self.times[-1], self.values))
            self.rule = _of_argument(starts, place, frozen(pieces))
        self.compiled: Any = njit(**_COMPILED)(self._checked())

    @property
    def _numba_type_(self) -> Any:
        """What Numba takes a table for: a jitted function."""
        return self.compiled._numba_type_

    def __call__(self, x: Any, values: Any = None) -> Any:
        """The value at x, or an array of values at an array.

        Parameters
        ----------
        x : float or array
        values : (k,) array, or int
            For a table without values, its values; for a table with several columns, the index of one.
        """
        require_unmasked("the argument of a Table", x)
        given = np.asarray(x)
        beyond = (given.real < self._low) | (given.real > self._high)
        if beyond.any():
            raise ValueError(
                f"a Table is called with {given[beyond][0]:g}, which is outside its times, "
                f"{self.times[0]:g} .. {self.times[-1]:g}: give times that reach further, or outside='hold'"
            )
        if self.values is not None and self.values.ndim == 2:
            return self.rule(given, self._column(values))[()]
        if self.values is not None:
            if values is not None:
                raise TypeError("a Table with values is called with others: call it as table(t), or make it as Table(times)")
            return self.rule(given)[()]
        if values is None:
            raise TypeError("a Table without values is called without them: call it as table(t, values), or give them to Table")
        if np.shape(values) != (self._size,):
            takes = f" takes {self._size} values, but" if self.period else ""
            raise ValueError(f"a Table of {self.times.size} times{takes} is called with values of shape {np.shape(values)}")
        return self.rule(given, np.asarray(values))[()]

    def _column(self, given: Any) -> int:
        assert self.values is not None
        many = self.values.shape[1]
        if not isinstance(given, (int, np.integer)):
            raise TypeError(f"a Table of {many} columns is called as table(t, column), with a number from 0 to {many - 1}")
        if not 0 <= given < many:
            raise ValueError(f"a Table of {many} columns is called with column {given}: they are counted from 0")
        return int(given)

    def _ends(self) -> tuple[float, float]:
        """The least and the largest argument that it takes."""
        if self.outside != "raise":
            return -math.inf, math.inf
        margin = _ROUNDINGS * float(np.spacing(np.max(np.abs(self.times[[0, -1]]))))
        return float(self.times[0]) - margin, math.inf if self.kind == "previous" else float(self.times[-1]) + margin

    def _checked(self) -> Callable:
        """The rule behind a check of its arguments, for Numba."""
        rule, low, high, size = njit(**_COMPILED)(self.rule), self._low, self._high, self._size
        columns = 0 if self.values is None or self.values.ndim == 1 else self.values.shape[1]

        def of_argument(x):
            if x.real < low or x.real > high:
                raise ValueError("a Table is called outside its times")
            return rule(x)

        def of_values(x, values):
            if x.real < low or x.real > high:
                raise ValueError("a Table is called outside its times")
            if len(values) != size:
                raise ValueError("a Table is called with another number of values than it has times")
            return rule(x, values)

        def of_column(x, column):
            if x.real < low or x.real > high:
                raise ValueError("a Table is called outside its times")
            if column < 0 or column >= columns:
                raise ValueError("a Table is called with a column that it does not have")
            return rule(x, column)

        if self.values is None:
            return of_values
        return of_column if columns else of_argument

    def __reduce__(self):
        return _rebuilt, (self.times, self.values, self.kind, self.outside)

    def __repr__(self) -> str:
        more = ", without values" if self.values is None else f", {self.values.shape[1]} columns" if self.values.ndim == 2 else ""
        more += ", periodic" if self.period else ""
        return f"Table({self.times.size} times, {self.times[0]:g} .. {self.times[-1]:g}, kind={self.kind!r}{more})"


def _rebuilt(times: np.ndarray, values: np.ndarray | None, kind: str, outside: str) -> Table:
    return Table(times, values, kind, outside=outside)


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
    if np.ndim(given) == 2:
        columns = [float_vector(name, column) for column in np.transpose(given)]
        values = np.stack(columns, axis=1) if columns else np.zeros(np.shape(given))
    else:
        values = float_vector(name, given)
    if len(values) != size:
        raise ValueError(f"{name} must have one entry for each of the {size} times, but they have {len(values)}.")
    if not values.size:
        raise ValueError(f"{name} must have a column or more, but their shape is {values.shape}.")
    return values


# --- what is compiled, and differentiated -----------------------------------------------------------------------------------------


def locate(starts: np.ndarray, x: Any) -> Any:
    """The index of the last of `starts`, which increase, that is not above x; 0 if there is none. Its derivative is zero."""
    return np.maximum(np.searchsorted(starts, np.real(x), side="right") - 1, 0)


def _bisect(starts, x):
    at, left = 0, starts.size
    while left > 1:  # the one that is sought is among the `left` from `at` on
        half = left // 2
        at = at + half if starts[at + half] <= x.real else at
        left -= half
    return at


@overload(locate, jit_options=_COMPILED)
def _locate(starts, x):
    if isinstance(x, types.Number):
        return _bisect


def turns(x: Any, first: float, period: float) -> Any:
    """How many whole periods x is behind `first`. Its derivative is zero."""
    return np.floor((np.real(x) - first) / period)


def _turns(x, first, period):
    return math.floor((x.real - first) / period)


@overload(turns, jit_options=_COMPILED)
def _turns_of(x, first, period):
    if isinstance(x, types.Number):
        return _turns


@register_jitable
def as_it_is(x):
    return x


def _repeated(first: float, period: float) -> Callable:
    first = float(first)

    @register_jitable
    def place(x):
        return x - period * turns(x, first, period)

    return place


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
FORMS = {locate: _bisect, turns: _turns}  # what other targets than a CPU compile in their place


def _of_argument(starts: np.ndarray, place: Callable, pieces: np.ndarray) -> Callable:
    part, columns = _PARTS[pieces.shape[1]], pieces.shape[2] if pieces.ndim == 3 else 0
    if columns:
        pieces = frozen(np.swapaxes(pieces, 1, 2).reshape(-1, pieces.shape[1]))

    def interpolated(x):
        x = place(x)
        k = locate(starts, x)
        return part(pieces, k, x - starts[k])

    def interpolated_in(x, column):
        x = place(x)
        k = locate(starts, x)
        return part(pieces, k * columns + column, x - starts[k])

    return interpolated_in if columns else interpolated


def _of_values(starts: np.ndarray, place: Callable, weights: np.ndarray, first: np.ndarray, width: int, around: int) -> Callable:
    """`around` is how many values there are where the first one comes behind the last, else 0."""
    part = _PARTS[weights.shape[1]]

    def interpolated(x, values):
        k = locate(starts, x)
        shift = x - starts[k]
        result = 0.0
        for j in range(width):
            result += part(weights, k * width + j, shift) * values[first[k] + j]
        return result

    def interpolated_around(x, values):
        x = place(x)
        k = locate(starts, x)
        shift = x - starts[k]
        result = 0.0
        for j in range(width):
            result += part(weights, k * width + j, shift) * values[(first[k] + j) % around]
        return result

    return interpolated_around if around else interpolated
