"""What a function compiles to depends on: its code, constants, closure and globals, as one hash."""

from __future__ import annotations

import hashlib
import pickle
import types
from typing import Any

import numpy as np
from numba import types as types_of_numba
from numba.core.dispatcher import Dispatcher


class Unknown(Exception):
    """Something that has no stable content to hash."""


def fingerprint(*functions: Any) -> str | None:
    """A hash that changes whenever any of the functions would compile to something else; None if that cannot be told."""
    digest = hashlib.sha256()
    try:
        for function in functions:
            _add(digest, function, set())
    except Unknown:
        return None
    return digest.hexdigest()[:24]


def _add(digest: Any, value: Any, seen: set[int]) -> None:
    jitted = dispatcher_of(value)
    if jitted is not None:
        _add(digest, sorted(jitted.targetoptions.items()), seen)
        value = jitted.py_func
    if isinstance(value, types.FunctionType):
        _add_function(digest, value, seen)
    elif isinstance(value, types.ModuleType):
        digest.update(f"module {value.__name__} {getattr(value, '__version__', '')}".encode())
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        digest.update(f"{value.dtype.str}{value.shape}{value.flags.f_contiguous}".encode() + value.tobytes())
    elif isinstance(value, (type(None), bool, int, float, complex, str, bytes, np.generic, set, frozenset)):
        digest.update(f"{type(value).__name__} {_constant(value)}".encode())
    elif isinstance(value, (tuple, list, dict)):
        digest.update(f"{type(value).__name__} {len(value)}".encode())
        for item in _items(value):
            _add(digest, item, seen)
    elif isinstance(value, (types.BuiltinFunctionType, np.ufunc, type)):
        digest.update(f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}".encode())
    else:
        try:
            digest.update(pickle.dumps(value))
        except Exception as error:
            raise Unknown(repr(value)) from error


def _items(value: Any) -> Any:
    return value.items() if isinstance(value, dict) else value


def dispatcher_of(value: Any) -> Dispatcher | None:
    """The jitted function that a value is, or that Numba takes it for; None if there is none."""
    known = getattr(value, "_numba_type_", None)
    return known.dispatcher if isinstance(known, types_of_numba.Dispatcher) else None


def _add_function(digest: Any, function: types.FunctionType, seen: set[int]) -> None:
    if id(function) in seen:  # recursion
        digest.update(b"again")
        return
    seen.add(id(function))
    digest.update(repr((function.__defaults__, function.__kwdefaults__)).encode())
    _add_code(digest, function.__code__)
    for cell in function.__closure__ or ():
        _add(digest, cell.cell_contents, seen)
    for name in sorted(names_in(function.__code__)):
        if name in function.__globals__:
            digest.update(name.encode())
            _add(digest, function.__globals__[name], seen)


def _add_code(digest: Any, code: types.CodeType) -> None:
    digest.update(code.co_code + repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _add_code(digest, constant)
        else:
            digest.update(_constant(constant).encode())


def _constant(value: Any) -> str:
    """The repr, but for sets, whose order differs from process to process."""
    if isinstance(value, (set, frozenset)):
        return f"set {sorted(map(_constant, value))}"
    if isinstance(value, tuple):
        return f"tuple {[_constant(item) for item in value]}"
    return repr(value)


def names_in(code: types.CodeType) -> set[str]:
    """The names of globals and attributes that code uses, and the functions inside of it."""
    nested = (names_in(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*nested)
