"""How the kernels become device code: the same sources, compiled again by numba-cuda.

numba-cuda takes functions compiled for the CPU as device functions, but reads any set of fast-math flags as all of them, which
would delete the tests for NaN, and leaves the calls between them to chance. So each function is copied here, with the functions
that it calls copied likewise, and the copies are marked for inlining and compiled without such flags; the device contracts products
and sums by itself. In single precision the copies have their constants in single precision too.
"""

from __future__ import annotations

import math
import types as python
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic
from numba.extending import intrinsic

from adjode import functions
from adjode.compile import watch
from adjode.tables import FORMS, Table

# Functions of `adjode.functions` rest on the order of operations, which those fast-math flags would change: a GPU has its own.
_MODULES = functions.__name__, "adjode.kernels"  # the same functions by two names
_OWN = frozenset((functions.__name__, name) for name in functions.__all__)
_FORMS = {getattr(functions, name): getattr(math, name) for name in functions.OF_NUMBERS}
# A GPU has no signals, and its clock is none of the host's.
_REPLACED = {watch.begin_watch: watch.unwatched, watch.keep_watch: watch.unwatched}
_MOST_BYTES = 60_000  # of 64 KB for constants, some of which are those of the method
_OF_TABLES = {function: njit(form) for function, form in FORMS.items()}


class Target:
    """Copies functions for another target.

    Parameters
    ----------
    decorate : callable
        Makes a compiled function of a plain one.
    real : dtype
        float64 or float32.
    replaced : dict of function -> function
        What to copy in place of others.
    """

    def __init__(self, decorate: Callable[[Callable], Any], real: np.dtype, replaced: dict[Callable, Callable] | None = None):
        self._decorate, self._narrow, self._replaced = decorate, real == np.float32, _REPLACED | _OF_TABLES | (replaced or {})
        self._bytes = 0
        self._copies: dict[int, tuple[Any, Any]] = {}  # by identity, with the original, so that it stays alive

    def __call__(self, value: Any) -> Any:
        """The copy of a compiled function or of an intrinsic, or a constant as it is on the target."""
        if id(value) in self._copies:
            return self._copies[id(value)][1]
        if isinstance(value, Table):
            value = value.compiled
        if isinstance(value, (Dispatcher, python.FunctionType)):
            value = self._replaced.get(value, value)
            if isinstance(value, python.FunctionType) and value.__module__ == Table.__module__:
                value = njit(value)
        if isinstance(value, Dispatcher):
            return self._function(value)
        if isinstance(value, _Intrinsic):
            return self._intrinsic(value)
        if isinstance(value, python.FunctionType) and (value.__module__, value.__name__) in _OWN:
            return _form(value)
        if isinstance(value, python.ModuleType) and value.__name__ in ("adjode", *_MODULES):
            return self._module(value)
        return tuple(self(item) for item in value) if isinstance(value, tuple) else self._constant(value)

    def _constant(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return self._array(value)
        return np.float32(value) if self._narrow and isinstance(value, float) else value

    def _array(self, value: np.ndarray) -> np.ndarray:
        """An array that a function captures, which has a copy of it in the memory for constants."""
        value = value.astype(np.float32) if self._narrow and value.dtype == np.float64 else value
        self._bytes += value.nbytes
        if self._bytes > _MOST_BYTES:
            raise ValueError(
                f"the tables and arrays in the callbacks are too large for a GPU, which has {_MOST_BYTES} bytes for them and their "
                f"derivatives: make them shorter, or use backend='threads'."
            )
        return value

    def plain(self, function: Any) -> Callable:
        """The copy of a function that is not compiled yet."""
        shell, fill = self._shell(function)
        fill()
        return shell

    def _module(self, given: python.ModuleType) -> python.ModuleType:
        """The package or `adjode.functions` with what callbacks may call."""
        copy = _Forms(given.__name__)
        if given.__name__ not in _MODULES:
            copy.__dict__.update(dict.fromkeys(("functions", "kernels"), self(functions)))
        self._copies[id(given)] = given, copy
        return copy

    def _function(self, given: Dispatcher) -> Any:
        shell, fill = self._shell(given.py_func)
        copy = self._decorate(shell)
        self._copies[id(given)] = given, copy  # before what it calls is copied: it may call itself
        fill()
        return copy

    def _intrinsic(self, given: _Intrinsic) -> Any:
        if not any(isinstance(cell.cell_contents, Dispatcher) for cell in given._defn.__closure__ or ()):
            copy = given
        else:
            shell, fill = self._shell(given._defn, constants=False)
            fill()
            copy = intrinsic(shell)
        self._copies[id(given)] = given, copy
        return copy

    def _shell(self, function: Any, constants: bool = True) -> tuple[python.FunctionType, Callable[[], None]]:
        """A copy of a function that knows no names yet, and what gives it those."""
        space: dict[str, Any] = {
            name: function.__globals__[name] for name in ("__name__", "__builtins__", "__file__") if name in function.__globals__
        }
        cells = tuple(python.CellType() for _ in function.__closure__ or ())
        code = self._code(function.__code__) if constants and self._narrow else function.__code__
        copy = python.FunctionType(code, space, function.__name__, function.__defaults__, cells)
        copy.__kwdefaults__, copy.__qualname__ = function.__kwdefaults__, function.__qualname__

        def fill() -> None:
            for name in _names(function.__code__):
                if name in function.__globals__:
                    space[name] = self(function.__globals__[name]) if constants else function.__globals__[name]
            for cell, old in zip(cells, function.__closure__ or (), strict=True):
                cell.cell_contents = self(old.cell_contents)

        return copy, fill

    def _code(self, code: python.CodeType) -> python.CodeType:
        return code.replace(
            co_consts=tuple(self._code(item) if isinstance(item, python.CodeType) else self(item) for item in code.co_consts)
        )


def _form(function: Callable) -> Callable:
    if function not in _FORMS:
        raise TypeError(f"adjode.functions.{function.__name__} has no form for a GPU: write a loop over its numbers.")
    return _FORMS[function]


class _Forms(python.ModuleType):
    """`adjode.functions` as it is on a GPU."""

    def __getattr__(self, name: str) -> Any:
        if name not in functions.__all__:
            raise AttributeError(name)
        return _form(getattr(functions, name))


def _names(code: python.CodeType) -> set[str]:
    nested = (_names(item) for item in code.co_consts if isinstance(item, python.CodeType))
    return set(code.co_names).union(*nested)
