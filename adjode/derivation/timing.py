"""Values of expressions as far as they matter for when f switches: how they change with time, or what they depend on."""

from __future__ import annotations

import ast
import itertools
import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

TIME, STATE, THETA = "t", "u", "theta"
PERIODS = {"cos": 2.0 * math.pi, "sin": 2.0 * math.pi, "tan": math.pi}
MOST = 10_000  # entries of arrays, and values that something may have, that are looked at one by one
_NUMBERS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


@dataclass(frozen=True)
class Linear:
    """`rate * t + sum of factors * entries of theta + number`; a number alone is one, too."""

    rate: float = 0.0
    entries: tuple[tuple[int, float], ...] = ()
    number: float = 0.0

    @property
    def is_number(self) -> bool:
        return self.rate == 0.0 and not self.entries

    def times(self, factor: float) -> Linear:
        entries = tuple((entry, factor * value) for entry, value in self.entries) if factor else ()
        return Linear(factor * self.rate, entries, factor * self.number)

    def plus(self, other: Linear) -> Linear:
        entries = dict(self.entries)
        for entry, factor in other.entries:
            entries[entry] = entries.get(entry, 0.0) + factor
        kept = tuple(sorted((entry, factor) for entry, factor in entries.items() if factor))
        return Linear(self.rate + other.rate, kept, self.number + other.number)


@dataclass(frozen=True)
class Rest:
    """`scale * (inner mod period) + offset`: a saw, or a staircase where the slopes of both cancel."""

    inner: Linear
    period: float
    scale: float = 1.0
    offset: Linear = Linear()

    @property
    def line(self) -> Linear:
        """The line that it follows in the first period."""
        return self.inner.times(self.scale).plus(self.offset)

    @property
    def is_staircase(self) -> bool:
        return abs(self.line.rate) <= 1e-12 * abs(self.scale * self.inner.rate)


@dataclass(frozen=True)
class Curve:
    """`scale * function(inner) + offset`, of a function whose inverse is known; offset does not depend on time."""

    function: str | float
    inner: Linear
    scale: float = 1.0
    offset: Linear = Linear()


@dataclass(frozen=True)
class Steps:
    """What is constant between times that are known already."""


@dataclass(frozen=True)
class Choice:
    """One of these, it is not known which."""

    values: tuple[Linear | Rest | Curve, ...]


@dataclass(frozen=True)
class Other:
    """What is not known more closely than by what it depends on."""

    on: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Known:
    """A constant that is no number: a function, a module, an array."""

    value: Any


@dataclass(frozen=True)
class Parameters:
    """Theta, where no entries are named; or an array of entries of it, in C order."""

    entries: tuple[int, ...] | None = None
    shape: tuple[int, ...] = ()


Value = Linear | Rest | Curve | Steps | Choice | Other | Known | Parameters | tuple


def depends(value: Value) -> frozenset[str]:
    """On what: time, the state, theta."""
    if isinstance(value, (tuple, Choice)):
        return frozenset().union(*map(depends, value if isinstance(value, tuple) else value.values))
    if isinstance(value, Other):
        return value.on
    if isinstance(value, (Parameters, Steps)):
        return frozenset({THETA if isinstance(value, Parameters) else TIME})
    parts = [value.inner, value.offset] if isinstance(value, (Rest, Curve)) else [value] if isinstance(value, Linear) else []
    found = ({TIME} if any(part.rate for part in parts) else set()) | ({THETA} if any(part.entries for part in parts) else set())
    return frozenset(found)


def other(*values: Value) -> Other:
    return Other(depends(values))


def constant(value: Any) -> Value:
    """The value of something that the source finds outside."""
    if isinstance(value, (bool, int, float, np.number, np.bool_)) and not isinstance(value, np.complexfloating):
        return Linear(number=float(value))
    if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind in "biuf":
        return tuple(map(constant, value)) if value.size <= MOST else Known(value)
    if isinstance(value, (tuple, list)):
        return tuple(map(constant, value))
    return Known(value)


def choice(*values: Value) -> Value:
    """What is one of these."""
    parts = dict.fromkeys(itertools.chain(*(value.values if isinstance(value, Choice) else (value,) for value in values)))
    if len(parts) == 1:
        return next(iter(parts))
    read = parts and len(parts) <= MOST and all(isinstance(part, (Linear, Rest, Curve)) for part in parts)
    return Choice(tuple(parts)) if read else other(*values)  # type: ignore[arg-type]


def merged(one: Value, two: Value, *conditions: Value) -> Value:
    """What is one or the other."""
    if one == two:
        return one
    by_time = conditions and depends(conditions) <= {TIME} and not isinstance(one, tuple) and not isinstance(two, tuple)
    return choice(one, two) if by_time else other(one, two, *conditions)


def spread(function: Callable[..., Value], *values: Value) -> Value:
    """A function of numbers, of all entries of arrays and of all values that something may have."""
    if any(isinstance(value, (Other, Known, Parameters)) for value in values):
        return other(*values)
    if any(isinstance(value, tuple) for value in values):
        lengths = {len(value) for value in values if isinstance(value, tuple)}
        depths = {_depth(value) for value in values} - {0}
        if len(lengths - {1}) > 1 or len(depths) > 1:
            return other(*values)
        count = 0 if 0 in lengths else max(lengths)
        rows = (tuple(v[k % len(v)] if isinstance(v, tuple) else v for v in values) for k in range(count))
        return tuple(spread(function, *row) for row in rows)
    options = [value.values if isinstance(value, Choice) else (value,) for value in values]
    if math.prod(map(len, options)) > MOST:
        return other(*values)
    return choice(*(function(*picked) for picked in itertools.product(*options)))


def _depth(value: Value) -> int:
    return 1 + max(map(_depth, value), default=0) if isinstance(value, tuple) else 0


def entries_of(value: Value) -> Iterator[Value]:
    """The numbers of an array, or the one number that it is."""
    for part in value if isinstance(value, tuple) else ():
        yield from entries_of(part)
    if not isinstance(value, tuple):
        yield value


# --- calculating ----------------------------------------------------------------------------------------------------------


def added(one: Value, two: Value, sign: float = 1.0) -> Value:
    """one + sign * two, of numbers."""
    if isinstance(one, Linear) and isinstance(two, Linear):
        return one.plus(two.times(sign))
    if isinstance(one, Linear):
        one, two, sign = scaled(two, sign), one, 1.0
    if isinstance(two, Linear) and (isinstance(one, Rest) or (isinstance(one, Curve) and two.rate == 0.0)):
        return replace(one, offset=one.offset.plus(two.times(sign)))
    if isinstance(one, Rest) and isinstance(two, Rest) and (one.inner, one.period) == (two.inner, two.period):
        offset = one.offset.plus(two.offset.times(sign))
        scale = one.scale + sign * two.scale
        return replace(one, scale=scale, offset=offset) if scale else offset
    return _stepwise(one, two)


def _stepwise(*values: Value) -> Value:
    """What is calculated from these, where nothing more is known of it than that it is constant between times."""
    return Steps() if all(map(is_stepwise, values)) and TIME in depends(values) else other(*values)


def truth(*values: Value) -> Value:
    """What a comparison is of these, whose changes are known already."""
    on = depends(values)
    return Steps() if TIME in on and STATE not in on else Other(on)


def is_stepwise(value: Value) -> bool:
    if isinstance(value, Choice):
        return all(map(is_stepwise, value.values))
    return isinstance(value, Steps) or (isinstance(value, Rest) and value.is_staircase) or not depends(value) & {TIME, STATE}


def scaled(value: Value, factor: float) -> Value:
    if isinstance(value, Linear):
        return value.times(factor)
    if isinstance(value, (Rest, Curve)) and factor:
        return replace(value, scale=factor * value.scale, offset=value.offset.times(factor))
    return _stepwise(value)


def rest(value: Value, period: Value) -> Value:
    """value mod period"""
    if is_period(period) and isinstance(value, Linear) and value.rate:
        return Rest(value, abs(period.number))  # type: ignore[union-attr]
    if is_period(period) and isinstance(value, Rest) and not value.is_staircase and value.offset.rate == 0.0:
        rounds = value.scale * value.period / period.number  # type: ignore[union-attr]
        if abs(rounds - round(rounds)) < 1e-9 * abs(rounds):
            return Rest(value.line, abs(period.number))  # type: ignore[union-attr]
    return _stepwise(value, period)


def is_period(value: Value) -> bool:
    return isinstance(value, Linear) and value.is_number and 0.0 < abs(value.number) < math.inf


def whole(value: Value, period: Value = Linear(number=1.0)) -> Value:
    """The whole part of value / period; the way it is rounded does not change when it jumps."""
    if isinstance(value, Linear) and value.rate and is_period(period):
        size = abs(period.number)  # type: ignore[union-attr]
        return Rest(value, size, -1.0 / size, value.times(1.0 / size))
    return Steps() if isinstance(value, (Rest, Curve)) and is_period(period) else _stepwise(value, period)


def curve(function: str | float, value: Value) -> Value:
    """A function that `zeros.INVERSES` has, or a power, of a number."""
    if isinstance(value, Rest) and not value.is_staircase and value.offset.rate == 0.0 and function in PERIODS:
        rounds = value.scale * value.period / PERIODS[function]
        value = value.line if abs(rounds - round(rounds)) < 1e-9 * abs(rounds) else value
    if isinstance(value, Linear) and value.is_number:
        return _of_number(function, value.number)
    return Curve(function, value) if isinstance(value, Linear) and value.rate else _stepwise(value)


def _of_number(function: str | float, number: float) -> Value:
    try:
        return constant(getattr(math, function)(number) if isinstance(function, str) else number**function)
    except (ValueError, ArithmeticError):
        return Other()


def combined(op: ast.operator, one: Value, two: Value) -> Value:
    """The value of a binary operation."""
    return spread(lambda a, b: _of_numbers(op, a, b), one, two)


def _of_numbers(op: ast.operator, one: Value, two: Value) -> Value:
    if all(isinstance(value, Linear) and value.is_number for value in (one, two)) and type(op) in _NUMBERS:
        try:
            return constant(_NUMBERS[type(op)](one.number, two.number))  # type: ignore[union-attr]
        except ArithmeticError:
            return Other()
    if isinstance(op, (ast.Add, ast.Sub)):
        return added(one, two, 1.0 if isinstance(op, ast.Add) else -1.0)
    if isinstance(op, ast.Mod):
        return rest(one, two)
    if isinstance(op, ast.FloorDiv):
        return whole(one, two)
    return _product(op, one, two)


def _product(op: ast.operator, one: Value, two: Value) -> Value:
    fixed = [isinstance(value, Linear) and value.is_number for value in (one, two)]
    if isinstance(op, ast.Div) and fixed[1] and two.number:  # type: ignore[union-attr]
        return scaled(one, 1.0 / two.number)  # type: ignore[union-attr]
    if isinstance(op, ast.Div) and fixed[0]:
        inverse = curve(-1.0, two)
        return scaled(inverse, one.number) if isinstance(inverse, Curve) else inverse  # type: ignore[union-attr]
    if isinstance(op, ast.Mult) and any(fixed):
        return scaled(one, two.number) if fixed[1] else scaled(two, one.number)  # type: ignore[union-attr]
    if isinstance(op, ast.Mult) and one == two and isinstance(one, Linear):
        return curve(2.0, one)
    if isinstance(op, ast.Pow) and fixed[1]:
        return curve(two.number, one)  # type: ignore[union-attr]
    return _stepwise(one, two)
