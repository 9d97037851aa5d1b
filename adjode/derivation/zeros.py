"""When values of expressions are zero, and when their whole parts change."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from adjode.derivation.timing import (
    MOST,
    PERIODS,
    STATE,
    TIME,
    Choice,
    Curve,
    Linear,
    Rest,
    Steps,
    Value,
    added,
    depends,
    is_period,
    is_stepwise,
)

Times = list[tuple[Linear, float]]  # and the periods after which they return, zero where they do not
INVERSES: dict[str, Callable[[float], tuple[float, ...]]] = {
    "cos": lambda y: (math.acos(y), -math.acos(y)),
    "sin": lambda y: (math.asin(y), math.pi - math.asin(y)),
    "tan": lambda y: (math.atan(y),),
    "exp": lambda y: (math.log(y),),
    "expm1": lambda y: (math.log1p(y),),
    "log": lambda y: (math.exp(y),),
    "log2": lambda y: (2.0**y,),
    "log10": lambda y: (10.0**y,),
    "log1p": lambda y: (math.expm1(y),),
    "sqrt": lambda y: (y * y,) if y >= 0.0 else (),
    "tanh": lambda y: (math.atanh(y),),
    "sinh": lambda y: (math.asinh(y),),
    "cosh": lambda y: (math.acosh(y), -math.acosh(y)),
    "atan": lambda y: (math.tan(y),) if abs(y) < 0.5 * math.pi else (),
}


def zeros_of(value: Value) -> Times | None:
    """When a value is zero, a little more often than not; None where that cannot be told."""
    if isinstance(value, Choice):
        return _all_of(map(zeros_of, value.values))
    if isinstance(value, Linear):
        return [(_zero_of(value), 0.0)] if value.rate else []
    if isinstance(value, Rest):
        return _zeros_of_rest(value)
    if isinstance(value, Curve):
        return _zeros_of_curve(value)
    on = depends(value)
    return [] if isinstance(value, Steps) or TIME not in on or STATE in on else None


def _zeros_of_rest(value: Rest) -> Times:
    if value.is_staircase:
        return []
    level = value.offset.times(-1.0 / value.scale)
    if level.is_number and not 0.0 < abs(level.number) < value.period:  # fmod is negative before zero
        return []
    return [(_zero_of(value.line), abs(value.scale * value.period / value.line.rate))]


def _zeros_of_curve(value: Curve) -> Times | None:
    level = value.offset.times(-1.0 / value.scale)
    if not level.is_number:
        return None
    try:
        found = _inverse(value.function, level.number)
    except (ValueError, ArithmeticError):  # it never has this value
        return []
    period = PERIODS.get(value.function, 0.0) / abs(value.inner.rate)  # type: ignore[arg-type]
    return [(_zero_of(value.inner.plus(Linear(number=-inside))), period) for inside in dict.fromkeys(found)]


def _inverse(function: str | float, level: float) -> tuple[float, ...]:
    if isinstance(function, str):
        return INVERSES[function](level)
    root = math.copysign(abs(level) ** (1.0 / function), level)
    return (root, -root) if function % 2.0 == 0.0 else (root,)


def cuts_of(value: Value, period: Value) -> Times | None:
    """When the whole part of value / period changes; None where that cannot be told."""
    if isinstance(value, Choice):
        return _all_of(cuts_of(part, period) for part in value.values)
    on = depends((value, period))
    if is_stepwise(value) or TIME not in on or STATE in on:
        return []
    if not is_period(period):
        return None
    size = abs(period.number)  # type: ignore[union-attr]
    if isinstance(value, Linear):
        return [(_zero_of(value), abs(size / value.rate))]
    return _cuts_of_bounded(value, size)


def _cuts_of_bounded(value: Value, size: float) -> Times | None:
    """Those of what stays between two bounds."""
    if isinstance(value, Rest) and value.offset.is_number:
        ends = (value.offset.number, value.offset.number + value.scale * value.period)
    elif isinstance(value, Curve) and value.function in ("cos", "sin") and value.offset.is_number:
        ends = (value.offset.number - value.scale, value.offset.number + value.scale)
    else:
        return None
    first, last = math.ceil(min(ends) / size), math.floor(max(ends) / size)
    if last - first > MOST:
        return None
    return _all_of(zeros_of(added(value, Linear(number=level * size), -1.0)) for level in range(first, last + 1))


def _all_of(parts: Iterable[Times | None]) -> Times | None:
    """The times of all parts; None if those of one cannot be told."""
    found: Times = []
    for times in parts:
        if times is None:
            return None
        found += times
    return found


def _zero_of(value: Linear) -> Linear:
    """The time at which it is zero."""
    return Linear(0.0, value.entries, value.number).times(-1.0 / value.rate).plus(Linear())  # no -0.0
