"""A user's function built anew from its Python source, and with it the jitted functions that it calls.

Numba keeps what it has compiled: a helper without checks of bounds stays without them, whoever calls it. A copy has none of that.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

from numba import jit
from numba.core.compiler import Compiler
from numba.core.dispatcher import Dispatcher

from adjode.compile.fingerprint import names_in
from adjode.compile.flags import PART


def plain(function: Callable) -> Callable:
    """`function` in plain Python, and in it plain Python functions in place of jitted ones: NumPy checks their indices."""
    return _Copies(lambda copy, jitted: copy).of(_source(function))


def bounds_checked(function: Callable) -> Callable:
    """`function` in plain Python, and in it jitted functions that check the bounds of every access in place of others."""
    return _Copies(lambda copy, jitted: jit(**{**jitted.targetoptions, "boundscheck": True})(copy)).of(_source(function))


def rebuilt(
    function: Callable,
    change: Callable[[types.FunctionType], types.FunctionType],
    swap: Callable[[Any], Any],
    wanted: Callable[[Any], bool],
) -> Callable:
    """`function` in plain Python, changed, with `swap(value)` in place of what its names stand for; jitted ones it calls likewise.

    What is not `wanted`, itself or one of these, stays what it is.
    """
    source = _source(function)

    def wanted_too(jitted: Dispatcher) -> bool:
        return is_ordinary(jitted) and wanted(jitted.py_func)

    return _Copies(_jitted_again, swap, wanted_too, change).of(source) if wanted(source) else source


def uncompiled(function: Any) -> Any:
    """`function`, plain or jitted, and the jitted functions that it calls, as if none had been compiled yet."""
    if isinstance(function, Dispatcher):
        return _Copies(_jitted_again, wanted=is_ordinary).of(function.py_func, function) if is_ordinary(function) else function
    return _Copies(_jitted_again, wanted=is_ordinary).of(function)


def by_numba(function: Any) -> Any:
    """`function` in plain Python, and in it callbacks as Numba compiles them itself, in place of parts of entries."""
    return _Copies(_jitted_again, wanted=_is_part).of(function)


def _is_part(jitted: Any) -> bool:
    return jitted._compiler.pipeline_class is PART.get("pipeline_class")


def _jitted_again(copy: types.FunctionType, jitted: Dispatcher) -> Any:
    return jit(**jitted.targetoptions)(copy)


def is_ordinary(jitted: Any) -> bool:
    """Whether its Python source and its options say all of it: no signatures, no types of locals, no other compiler."""
    return jitted._can_compile and not jitted.locals and jitted._compiler.pipeline_class is Compiler


def dispatchers_in(function: Any, seen: set[Any] | None = None) -> Iterator[Dispatcher]:
    """The jitted function that it is, and those that it may call, and these in turn."""
    seen = set() if seen is None else seen
    if isinstance(function, Dispatcher):
        if function in seen:
            return
        seen.add(function)
        yield function
    for value in values_in(_source(function)):
        if isinstance(value, Dispatcher):
            yield from dispatchers_in(value, seen)


def values_in(source: Any) -> Iterator[Any]:
    """What the names of a plain function stand for, and the attributes of modules among them."""
    if not isinstance(source, types.FunctionType):
        return
    names = names_in(source.__code__)
    cells = [cell.cell_contents for cell in source.__closure__ or () if cell != types.CellType()]
    for value in [*(source.__globals__[name] for name in names & source.__globals__.keys()), *cells]:
        yield value
        if isinstance(value, types.ModuleType):
            yield from (part for name, part in vars(value).items() if name in names)


def _source(function: Callable) -> Any:
    return getattr(function, "py_func", function)


class _Copies:
    """Copies of functions, one of each.

    Parameters
    ----------
    make : callable
        `make(copy, jitted)` is what stands for a jitted function, given the copy of its plain Python.
    swap : callable
        `swap(value)` is what stands for any other value.
    wanted : callable
        Which jitted functions are copied.
    change : callable
        `change(function)` is what a copy is made of.
    """

    def __init__(
        self,
        make: Callable[[types.FunctionType, Dispatcher], Any],
        swap: Callable[[Any], Any] = lambda value: value,
        wanted: Callable[[Dispatcher], bool] = lambda jitted: True,
        change: Callable[[types.FunctionType], types.FunctionType] = lambda source: source,
    ):
        self._make, self._swap, self._wanted, self._change = make, swap, wanted, change
        self._made: dict[Any, Any] = {}

    def of(self, given: types.FunctionType, jitted: Dispatcher | None = None) -> Any:
        source = self._change(given)
        space, cells = dict(source.__globals__), tuple(types.CellType() for _ in source.__closure__ or ())
        copy = types.FunctionType(source.__code__, space, source.__name__, source.__defaults__, cells)
        copy.__kwdefaults__ = source.__kwdefaults__
        # known before what it calls is built, which may be itself
        self._made[given] = result = copy if jitted is None else self._make(copy, jitted)
        for name in names_in(source.__code__) & space.keys():
            space[name] = self._replaced(space[name])
        for cell, old in zip(cells, source.__closure__ or (), strict=True):
            cell.cell_contents = self._replaced(old.cell_contents)
        return result

    def _replaced(self, value: Any) -> Any:
        if isinstance(value, Dispatcher):
            source = value.py_func
            if source in self._made:
                return self._made[source]
            return self.of(source, value) if self._wanted(value) else value
        if isinstance(value, types.ModuleType) and any(isinstance(part, Dispatcher) for part in vars(value).values()):
            module = types.ModuleType(value.__name__)
            # a module inside of a module may lead back, so it stays what it is
            parts = ((name, part, isinstance(part, types.ModuleType)) for name, part in vars(value).items())
            vars(module).update({name: part if inner else self._replaced(part) for name, part, inner in parts})
            return module
        return self._swap(value)
