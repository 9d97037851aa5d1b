"""The functions that callbacks may call, and what the text calls those that a derivative needs."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from adjode import functions

# one number to one number; what is here has a rule in `rules`
_UNARY = [
    "sin",
    "cos",
    "tan",
    "exp",
    "log",
    "sqrt",
    "tanh",
    "sinh",
    "cosh",
    "asin",
    "acos",
    "atan",
    "asinh",
    "acosh",
    "atanh",
    "log1p",
    "expm1",
    "log10",
    "log2",
    "exp2",
    "cbrt",
    "erf",
    "erfc",
    "square",
    "reciprocal",
    "deg2rad",
    "rad2deg",
    "radians",
    "degrees",
]
_NUMPY = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh"}
_OTHERS = {
    "atan2": (math.atan2, np.arctan2),
    "hypot": (math.hypot, np.hypot),
    "pow": (math.pow, np.power, builtins.pow),
    "abs": (builtins.abs, math.fabs, np.abs, np.fabs),
    "max": (builtins.max, np.maximum, np.fmax),
    "min": (builtins.min, np.minimum, np.fmin),
    "copysign": (math.copysign, np.copysign),
    "fmod": (math.fmod, np.fmod),
    "mod": (np.mod, np.remainder),
    "floordiv": (np.floor_divide,),
    "logaddexp": (np.logaddexp,),
    # steps: their derivative is zero
    "floor": (math.floor, np.floor),
    "ceil": (math.ceil, np.ceil),
    "trunc": (math.trunc, np.trunc),
    "rint": (np.rint, np.round),
    "sign": (np.sign,),
    "heaviside": (np.heaviside,),
    "isnan": (math.isnan, np.isnan),
    "isfinite": (math.isfinite, np.isfinite),
    "int": (int, np.int64, np.int32),
    "round": (round,),
    "float": (float, np.float64),
    "bool": (bool, np.bool_),
    # of truth values and of integers
    "logical_and": (np.logical_and,),
    "logical_or": (np.logical_or,),
    "logical_xor": (np.logical_xor,),
    "logical_not": (np.logical_not,),
    "bitwise_and": (np.bitwise_and,),
    "bitwise_or": (np.bitwise_or,),
    "bitwise_xor": (np.bitwise_xor,),
    "left_shift": (np.left_shift,),
    "right_shift": (np.right_shift,),
    "invert": (np.invert,),
}


UNARY = frozenset(_UNARY) | {_NUMPY.get(key, key) for key in _UNARY}


def _keys() -> dict[Any, str]:
    keys: dict[Any, str] = {}
    for key in _UNARY:
        for module, name in ((math, key), (np, _NUMPY.get(key, key))):
            function = getattr(module, name, None)
            if function is not None:
                keys[function] = key
    keys.update({getattr(functions, key): key for key in functions.OF_NUMBERS})
    for key, members in _OTHERS.items():
        for function in members:
            keys[function] = key
    return keys


KEYS = _keys()
INTEGER = {"int", "bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift", "invert"}
TRUTH = {"isnan", "isfinite", "bool", "logical_and", "logical_or", "logical_xor", "logical_not"}
STEPS = {"floor", "ceil", "trunc", "rint", "sign", "int", "round", "isnan", "isfinite", "bool"}


def key_of(function: Any) -> str | None:
    """The name of a function in `rules`, or None if it is none of those."""
    try:
        return KEYS.get(function)
    except TypeError:  # not hashable
        return None


TAUGHT: dict[Any, Taught] = {}


@dataclass(frozen=True)
class Taught:
    """The rules that a user has given for a function of numbers."""

    vjp: Callable | None
    jvp: Callable | None


def teach(function: Callable, vjp: Callable | None, jvp: Callable | None) -> Callable:
    """See `adjode.derivative`."""
    rules = [rule for rule in (vjp, jvp) if rule is not None]
    if not rules or not all(map(callable, (function, *rules))):
        raise TypeError("derivative takes a function and its rules as functions: derivative(function, vjp=..., jvp=...).")
    TAUGHT[getattr(function, "py_func", function)] = Taught(vjp, jvp)
    return function


def sibling(text: str, key: str) -> str:
    """What the text calls another function of the library that it got `text` from: `np.sin`, `cos` to `np.cos`."""
    if text.startswith(("np.", "numpy.")):
        return f"{text.split('.')[0]}.{_NUMPY.get(key, key)}"
    return f"math.{key}"
