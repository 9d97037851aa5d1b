"""What functions of libraries make of values that depend on time, and when they jump or have a kink."""

from __future__ import annotations

import ast
import bisect
import itertools
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from adjode.derivation.timing import (
    Linear,
    Other,
    Value,
    added,
    choice,
    combined,
    constant,
    curve,
    entries_of,
    other,
    rest,
    spread,
    truth,
    whole,
)
from adjode.derivation.zeros import INVERSES

LONGEST = 64  # of what is gone through one by one
_ONE = Linear(number=1.0)


class Notes(Protocol):
    """Takes note of a line at which f may jump or have a kink."""

    def compared(self, one: Value, two: Value, kink: bool = False) -> None:
        """Where both are the same."""

    def cut(self, value: Value, period: Value) -> None:
        """Where the whole part of value / period changes."""


Reading = Callable[[Notes, list[Value]], Value]


def _unchanged(notes: Notes, given: list[Value]) -> Value:
    return given[0]


def _signs(notes: Notes, given: list[Value]) -> Value:
    notes.compared(given[0], Linear())
    return truth(*given)


def _orders(notes: Notes, given: list[Value]) -> Value:
    notes.compared(given[0], given[1])
    return truth(*given)


def _rests(notes: Notes, given: list[Value]) -> Value:
    notes.cut(*given)
    return spread(rest, *given)


def _wholes(notes: Notes, given: list[Value]) -> Value:
    notes.cut(given[0], _ONE)
    return spread(whole, given[0])


def _rounds(notes: Notes, given: list[Value]) -> Value:
    return _wholes(notes, [combined(ast.Add(), given[0], Linear(number=0.5))])


def _quotients(notes: Notes, given: list[Value]) -> Value:
    notes.cut(*given)
    return spread(whole, *given), spread(rest, *given)


def _abs(notes: Notes, given: list[Value]) -> Value:
    return _extremes(notes, [given[0], combined(ast.Mult(), Linear(number=-1.0), given[0])])


def _extremes(notes: Notes, given: list[Value]) -> Value:
    """max, min and whatever else is one of what it is given, and has a kink where two of them meet."""
    values = list(given[0]) if len(given) == 1 and isinstance(given[0], tuple) else given
    if not 1 < len(values) <= LONGEST:
        return other(*values)
    for one, two in itertools.combinations(values, 2):
        notes.compared(one, two, kink=True)
    return spread(choice, *values)


def _interpolated(notes: Notes, given: list[Value]) -> Value:
    for knot in entries_of(given[1]):
        notes.compared(given[0], knot, kink=True)
    return other(*given)


def _searched(notes: Notes, given: list[Value]) -> Value:
    for knot in entries_of(given[0]):
        notes.compared(given[1], knot)
    return truth(*given) if isinstance(given[0], tuple) else other(*given)


def _binned(notes: Notes, given: list[Value]) -> Value:
    return _searched(notes, given[::-1])


def _summed(notes: Notes, given: list[Value]) -> Value:
    total: Value = Linear()
    for part in entries_of(given[0]):
        total = spread(added, total, part)
    return total


def _range(notes: Notes, given: list[Value]) -> Value:
    if not all(isinstance(value, Linear) and value.is_number for value in given):
        return other(*given)
    numbers = range(*(int(value.number) for value in given))  # type: ignore[union-attr]
    return tuple(map(constant, numbers)) if len(numbers) <= LONGEST else Other()


def _length(notes: Notes, given: list[Value]) -> Value:
    return Linear(number=float(len(given[0]))) if isinstance(given[0], tuple) else other(*given)


def _enumerated(notes: Notes, given: list[Value]) -> Value:
    return _zipped(notes, [tuple(map(constant, range(len(given[0])))), given[0]]) if isinstance(given[0], tuple) else other(*given)


def _zipped(notes: Notes, given: list[Value]) -> Value:
    return tuple(zip(*given, strict=False)) if all(isinstance(value, tuple) for value in given) else other(*given)


def _curves(name: str) -> Reading:
    return lambda notes, given: spread(lambda value: curve(name, value), given[0])


def _powers(notes: Notes, given: list[Value]) -> Value:
    return combined(ast.Pow(), *given)


def _squares(notes: Notes, given: list[Value]) -> Value:
    return _powers(notes, [given[0], Linear(number=2.0)])


_MANY = 1_000
_JUMPING: list[tuple[Reading, int, int, tuple[Any, ...]]] = [  # with the fewest and the most arguments that are understood
    (_signs, 1, 2, (np.sign, np.heaviside)),
    (_orders, 2, 2, (np.less, np.less_equal, np.greater, np.greater_equal)),
    (_rests, 2, 2, (np.mod, np.fmod, math.fmod)),  # np.remainder is np.mod
    (_wholes, 1, 1, (np.floor, math.floor, np.ceil, math.ceil, np.trunc, math.trunc, np.fix, int)),
    (_rounds, 1, 1, (round, np.round, np.rint)),
    (_quotients, 2, 2, (divmod, np.divmod)),
    (_abs, 1, 1, (abs, np.abs, np.fabs, math.fabs)),
    (_extremes, 1, _MANY, (min, max)),
    (_extremes, 2, 2, (np.minimum, np.maximum, np.fmin, np.fmax)),
    (_extremes, 3, 3, (np.clip,)),
    (_interpolated, 3, 5, (np.interp,)),
    (_searched, 2, 3, (np.searchsorted,)),
    (_searched, 2, 2, (bisect.bisect_left, bisect.bisect_right)),
    (_binned, 2, 3, (np.digitize,)),
]
_SMOOTH: list[tuple[Reading, int, int, tuple[Any, ...]]] = [
    (_unchanged, 1, 1, (float, bool, np.float64, np.asarray, np.array)),
    (_range, 1, 3, (range,)),
    (_length, 1, 1, (len,)),
    (_enumerated, 1, 1, (enumerate,)),
    (_zipped, 1, _MANY, (zip,)),
    (_summed, 1, 1, (sum, np.sum)),
    (_squares, 1, 1, (np.square,)),
    (_powers, 2, 2, (pow, math.pow, np.power)),
    (_curves("atan"), 1, 1, (math.atan, np.arctan)),
    *((_curves(name), 1, 1, (getattr(math, name), getattr(np, name))) for name in INVERSES if name != "atan"),
]
_READ = {function: reading for *reading, functions in _JUMPING + _SMOOTH for function in functions}
_OPTIONS = {"side", "left", "right", "decimals"}  # arguments that do not change where a function jumps
JUMPING = {function for *_, functions in _JUMPING for function in functions}
JUMPING_NAMES = {function.__name__ for function in JUMPING} | {"bisect"}  # which is another name of bisect_right


def library_value(notes: Notes, function: Any, given: list[Value], named: dict[str | None, Value]) -> Value | None:
    """What a function returns for what it is given; None where that is not known."""
    try:
        reading, fewest, most = _READ[function]
    except (KeyError, TypeError):  # TypeError: it has no hash
        return None
    if fewest <= len(given) <= most and named.keys() <= _OPTIONS:  # type: ignore[operator]
        return reading(notes, given)  # type: ignore[operator]
    if function in JUMPING:  # when it jumps is not known
        notes.compared(other(*given, *named.values()), Linear())
    return None
