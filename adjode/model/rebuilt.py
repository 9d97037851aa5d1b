"""A user's function built anew from its Python source, and with it the jitted functions that it calls.

Numba keeps what it has compiled: a helper without checks of bounds stays without them, whoever calls it. A copy has none of that.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from numba import jit
from numba.core.dispatcher import Dispatcher

from adjode.compile.fingerprint import names_in

Make = Callable[[types.FunctionType, Dispatcher], Any]


def plain(function: Callable) -> Callable:
    """`function` in plain Python, and in it plain Python functions in place of jitted ones: NumPy checks their indices."""
    return _copy(_source(function), lambda copy, jitted: copy, {})


def bounds_checked(function: Callable) -> Callable:
    """`function` in plain Python, and in it jitted functions that check the bounds of every access in place of others."""
    return _copy(_source(function), lambda copy, jitted: jit(**{**jitted.targetoptions, "boundscheck": True})(copy), {})


def _source(function: Callable) -> Any:
    return getattr(function, "py_func", function)


def _copy(source: types.FunctionType, make: Make, made: dict[Any, Any], jitted: Dispatcher | None = None) -> Any:
    space, cells = dict(source.__globals__), tuple(types.CellType() for _ in source.__closure__ or ())
    copy = types.FunctionType(source.__code__, space, source.__name__, source.__defaults__, cells)
    copy.__kwdefaults__ = source.__kwdefaults__
    # known before what it calls is built, which may be itself
    made[source] = result = copy if jitted is None else make(copy, jitted)
    for name in names_in(source.__code__) & space.keys():
        space[name] = _replaced(space[name], make, made)
    for cell, given in zip(cells, source.__closure__ or (), strict=True):
        cell.cell_contents = _replaced(given.cell_contents, make, made)
    return result


def _replaced(value: Any, make: Make, made: dict[Any, Any]) -> Any:
    if isinstance(value, Dispatcher):
        source = value.py_func
        return made[source] if source in made else _copy(source, make, made, value)
    if isinstance(value, types.ModuleType) and any(isinstance(part, Dispatcher) for part in vars(value).values()):
        module = types.ModuleType(value.__name__)
        # a module inside of a module may lead back, so it stays what it is
        parts = ((name, part, isinstance(part, types.ModuleType)) for name, part in vars(value).items())
        vars(module).update({name: part if inner else _replaced(part, make, made) for name, part, inner in parts})
        return module
    return value
