"""Values of expressions as far as they matter for when f switches: linear in time and in theta, or what they depend on.

Also known are the rest of a division of what is linear by a constant period, and its whole parts.
"""

from __future__ import annotations

import ast
import math
import operator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

TIME, STATE, THETA = "t", "u", "theta"
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
    """`scale * (inner mod period) + offset`, where inner depends on time and offset does not."""

    inner: Linear
    period: float
    scale: float = 1.0
    offset: Linear = Linear()


@dataclass(frozen=True)
class Steps:
    """What jumps where one of these is a whole number of periods, and is constant in between: pairs of both."""

    parts: frozenset[tuple[Linear, float]]


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


Value = Linear | Rest | Steps | Other | Known | Parameters | tuple


def depends(value: Value) -> frozenset[str]:
    """On what: time, the state, theta."""
    if isinstance(value, tuple):
        return frozenset().union(*map(depends, value))
    if isinstance(value, Other):
        return value.on
    if isinstance(value, Parameters):
        return frozenset({THETA})
    found = set()
    for part in _linear_parts(value):
        found |= ({TIME} if part.rate else set()) | ({THETA} if part.entries else set())
    return frozenset(found)


def _linear_parts(value: Value) -> list[Linear]:
    if isinstance(value, Steps):
        return [inner for inner, _ in value.parts]
    if isinstance(value, Rest):
        return [value.inner, value.offset]
    return [value] if isinstance(value, Linear) else []


def other(*values: Value) -> Other:
    return Other(depends(values))


def constant(value: Any) -> Value:
    """The value of something that the source finds outside."""
    if isinstance(value, (bool, int, float, np.number, np.bool_)) and not isinstance(value, np.complexfloating):
        return Linear(number=float(value))
    if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind in "biuf":
        return tuple(map(constant, value)) if value.size <= 10_000 else Known(value)
    if isinstance(value, (tuple, list)):
        return tuple(map(constant, value))
    return Known(value)


def merged(one: Value, two: Value, *conditions: Value) -> Value:
    """What is one or the other."""
    return one if one == two else other(one, two, *conditions)


def added(one: Value, two: Value, sign: float = 1.0) -> Value:
    """one + sign * two"""
    if isinstance(one, Linear) and isinstance(two, Linear):
        return one.plus(two.times(sign))
    if isinstance(one, Rest) and isinstance(two, Linear) and two.rate == 0.0:
        return replace(one, offset=one.offset.plus(two.times(sign)))
    if isinstance(one, Linear) and isinstance(two, Rest) and one.rate == 0.0:
        return replace(two, scale=sign * two.scale, offset=two.offset.times(sign).plus(one))
    return _stepwise(one, two)


def _stepwise(one: Value, two: Value) -> Value:
    """What is calculated from both, where nothing more is known of it than that it is constant between times."""
    parts = [value.parts for value in (one, two) if isinstance(value, Steps)]
    fixed = [value for value in (one, two) if isinstance(value, Linear) and value.is_number]
    return Steps(frozenset().union(*parts)) if parts and len(parts) + len(fixed) == 2 else other(one, two)


def scaled(value: Value, factor: float) -> Value:
    if isinstance(value, Linear):
        return value.times(factor)
    if isinstance(value, Rest) and factor:
        return replace(value, scale=factor * value.scale, offset=value.offset.times(factor))
    return value if isinstance(value, Steps) else other(value)


def rest(value: Value, period: Value) -> Value:
    """value mod period"""
    if isinstance(value, Linear) and value.rate and _is_period(period):
        return Rest(value, abs(period.number))  # type: ignore[union-attr]
    return _stepwise(value, period)


def _is_period(value: Value) -> bool:
    return isinstance(value, Linear) and value.is_number and 0.0 < abs(value.number) < math.inf


def whole(value: Value, period: Value = Linear(number=1.0)) -> Value:
    """The whole part of value / period"""
    if isinstance(value, Linear) and value.rate and _is_period(period):
        return Steps(frozenset({(value, abs(period.number))}))  # type: ignore[union-attr]
    return _stepwise(value, period)


def combined(op: ast.operator, one: Value, two: Value) -> Value:
    """The value of a binary operation."""
    if all(isinstance(value, Linear) and value.is_number for value in (one, two)) and type(op) in _NUMBERS:
        try:
            return constant(_NUMBERS[type(op)](one.number, two.number))  # type: ignore[union-attr]
        except ArithmeticError:
            return Other()
    if isinstance(op, (ast.Add, ast.Sub)):
        return added(one, two, 1.0 if isinstance(op, ast.Add) else -1.0)
    if isinstance(op, ast.Mult):
        for factor, value in ((one, two), (two, one)):
            if isinstance(factor, Linear) and factor.is_number:
                return scaled(value, factor.number)
    if isinstance(op, ast.Div) and isinstance(two, Linear) and two.is_number and two.number:
        return scaled(one, 1.0 / two.number)
    if isinstance(op, ast.Mod):
        return rest(one, two)
    return whole(one, two) if isinstance(op, ast.FloorDiv) else _stepwise(one, two)
