"""tanh, exp, sin, cos and log of `numpy` and `math` in callbacks, as `adjode.functions` has them, where they are called many times.

Numba calls the C library for them, one number at a time. Where a callback loops, or takes the tanh of a whole array, the forms of
`adjode.functions` take its place, which vectorise. The code stays the user's own, with its lines; it finds other functions by the
names `np.tanh`, `math.exp` and the like. Straight-line code of numbers is left alone: there inlined code is longer, and no faster.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numba import types as of
from numba.extending import overload

from adjode import functions
from adjode.compile.flags import DISABLED
from adjode.functions import INLINED
from adjode.model.rebuilt import dispatchers_in, is_ordinary, rebuilt, values_in
from adjode.model.sums import loops, with_sums

_NAMES: dict[str, Callable] = {name: getattr(functions, name) for name in functions.OF_NUMBERS}


def vectorised(function: Callable) -> Callable:
    """`function` in plain Python, that finds vectorised forms of tanh and its like, and so do jitted functions that it calls.

    In those that loop sums may be reordered, see `sums`. Itself, if there is nothing to change.
    """
    if DISABLED:
        return function
    reached = list(_reached(function))
    forms = LOOPED if any(map(loops, reached)) else WHOLE
    summed = {source: with_sums(source) for source in reached}

    def wanted(source: types.FunctionType) -> bool:
        return any(summed[one] is not one or _calls(one, forms) for one in _reached(source))

    return rebuilt(function, summed.__getitem__, forms, wanted)


class Forms:
    """What callbacks find by the names of functions that have other forms, and of the modules that have these.

    Parameters
    ----------
    numbers : bool
        Whether there are other forms of functions of numbers, or of whole arrays alone.
    """

    def __init__(self, *, numbers: bool):
        self.of: dict[Any, Any] = {}
        for name, scalar in _NAMES.items():
            numpy_function, math_function = getattr(np, name), getattr(math, name)
            self.of[numpy_function] = _of_numpy(numpy_function, scalar, numbers=numbers)
            if numbers:
                self.of[math_function] = scalar
        self.modules = {module: _Shadow(module, self.of) for module in ((np, math) if numbers else (np,))}

    def __call__(self, value: Any) -> Any:
        """What takes the place of a global or captured value; itself, if nothing does."""
        if isinstance(value, types.ModuleType):
            return self.modules.get(value, value)
        return self.of.get(value, value) if isinstance(value, (np.ufunc, types.BuiltinFunctionType)) else value


class _Shadow(types.ModuleType):
    """A module, with other forms of some of its functions."""

    def __init__(self, module: types.ModuleType, forms: dict[Any, Any]):
        super().__init__(module.__name__)
        self.module = module
        for name in _NAMES:
            function = getattr(module, name)
            setattr(self, name, forms.get(function, function))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


# --- which functions --------------------------------------------------------------------------------------------------------


def _reached(function: Any) -> Iterator[types.FunctionType]:
    """The plain Python of a function, and of jitted ones that it may call."""
    source = getattr(function, "py_func", function)
    yield source
    jitted = (one for one in dispatchers_in(source) if is_ordinary(one) and one.py_func is not source)
    yield from (one.py_func for one in jitted)  # type: ignore[misc]


def _calls(source: types.FunctionType, forms: Forms) -> bool:
    """Whether it may call something that has another form."""
    return any(forms(value) is not value for value in values_in(source) if not isinstance(value, types.ModuleType))


# --- the forms --------------------------------------------------------------------------------------------------------------


def _of_numpy(numpy_function: Any, scalar: Callable, *, numbers: bool) -> Callable:
    """A function that takes what NumPy's does, with another form for arrays, and for numbers if wanted."""

    def function(x, out=None):
        return numpy_function(x) if out is None else numpy_function(x, out)

    made, into = _of_arrays(numpy_function, scalar)

    @overload(function, jit_options=INLINED)
    def of_number(x, out=None):
        if _is_inlined(x, out):
            return lambda x, out=None: scalar(x)

    def _is_inlined(x: Any, out: Any) -> bool:
        return numbers and _is_absent(out) and isinstance(x, (of.Float, of.Integer)) and x != of.float32

    @overload(function, jit_options={"error_model": "numpy", "nogil": True})
    def of_others(x, out=None):
        if _is_inlined(x, out):
            return None
        if _is_absent(out):
            return made if _is_real(x) else lambda x, out=None: numpy_function(x)
        fits = _is_real(x) and _is_real(out) and (out.layout, out.ndim, out.dtype) == ("C", x.ndim, of.float64)
        return into if fits else lambda x, out=None: numpy_function(x, out)

    return function


def _of_arrays(numpy_function: Any, scalar: Callable) -> tuple[Callable, Callable]:
    """The two forms for arrays: one that makes its result, and one that is given where to put it."""

    def made(x, out=None):
        y = np.empty(x.shape)
        y[:] = x
        flat = y.reshape(y.size)
        for i in range(flat.size):
            flat[i] = scalar(flat[i])
        return y

    def into(x, out=None):
        if x.shape != out.shape:
            return numpy_function(x, out)
        out[:] = x
        flat = out.reshape(out.size)
        for i in range(flat.size):
            flat[i] = scalar(flat[i])
        return out

    return made, into


def _is_absent(out: Any) -> bool:
    return out is None or isinstance(out, (of.Omitted, of.NoneType))


def _is_real(x: Any) -> bool:
    return isinstance(x, of.Array) and x.ndim > 0 and (x.dtype == of.float64 or isinstance(x.dtype, of.Integer))


LOOPED, WHOLE = Forms(numbers=True), Forms(numbers=False)
