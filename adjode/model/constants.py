"""Constants that callbacks capture: globals and variables of enclosing functions, with the values that they have now.

Numba compiles them in, and a jitted function keeps those it was compiled with. Here one whose constants have changed since is built
anew, and so is one that a callback calls.
"""

from __future__ import annotations

import hashlib
import inspect
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher

from adjode.compile.fingerprint import fingerprint
from adjode.model.rebuilt import dispatchers_in, uncompiled

_first_seen: weakref.WeakKeyDictionary[Dispatcher, str | None] = weakref.WeakKeyDictionary()


def fingerprint_of(function: Callable, debug: bool = False) -> str | None:
    """The fingerprint of a function; of a jitted one that which it had when it was first seen, since it keeps its constants."""
    if debug or not isinstance(function, Dispatcher):  # it will be compiled anew
        return fingerprint(function)
    if function not in _first_seen:
        _first_seen[function] = fingerprint(function)
    return _first_seen[function]


def with_current_constants(function: Callable) -> Callable:
    """`function`, built anew if a jitted function that it is, or may call, was seen with other constants before."""
    jitted = [one for one in dispatchers_in(function) if not one.__module__.startswith("adjode.")]
    if all(fingerprint_of(one) == fingerprint(one) for one in jitted):
        return function
    return uncompiled(function)


def captured(function: Callable) -> tuple:
    """Something that changes when the constants of a function do, or those of jitted functions that it calls."""
    if isinstance(function, Dispatcher):
        return (fingerprint(function),)
    inside = inspect.getclosurevars(function)
    values = {**inside.globals, **inside.nonlocals}
    return tuple((name, _constant(value)) for name, value in sorted(values.items()))


def _constant(value: Any) -> Any:
    """Something that changes when the constant does, or its type."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, hashlib.blake2b(value.tobytes()).digest()
    if isinstance(value, (bool, int, float, complex, str)):
        return type(value), repr(value)  # 1 == 1.0 == True, but they compile to other code
    if isinstance(value, (tuple, list)):
        return type(value), tuple(map(_constant, value))
    if isinstance(value, dict):
        return dict, tuple((key, _constant(item)) for key, item in value.items())
    is_function = isinstance(value, (types.FunctionType, Dispatcher))
    inside = {} if is_function or isinstance(value, (type, types.ModuleType)) else getattr(value, "__dict__", {})
    return _Itself(value), fingerprint(value) if is_function else None, tuple((name, _Itself(x)) for name, x in inside.items())


class _Itself:
    """Equal to the same object alone, which it keeps alive so that no other can have its identity."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)
