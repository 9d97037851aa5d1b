"""Which functions of NumPy, of arrays and of `adjode.functions` are known, and what reads a call of each."""

from __future__ import annotations

import bisect
import builtins
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode import functions, tables
from adjode.derivation import along, calls, shaping, spelled, spelled_arrays
from adjode.derivation import nodes as N
from adjode.derivation.allocating import allocating, array_of, copied, in_one_piece, like, same
from adjode.derivation.contraction import einsum
from adjode.derivation.joining import append, split, vector
from adjode.derivation.objects import Object

_ALONE = Object(None)  # in the place of the function, where a method is called

FUNCTIONS: dict[Any, Callable] = {
    np.empty: allocating(None),
    np.zeros: allocating(N.ZERO),
    np.ones: allocating(N.ONE),
    np.full: allocating("value"),
    np.empty_like: like(None),
    np.zeros_like: like(N.ZERO),
    np.ones_like: like(N.ONE),
    np.full_like: like("value"),
    np.array: array_of,
    np.asarray: same,
    np.ascontiguousarray: in_one_piece,
    np.copy: lambda reader, function, x: copied(reader, reader.number_or_array(x)),
    np.eye: calls.spelled_as(spelled.identity, calls.integer),
    np.identity: calls.spelled_as(spelled.identity, calls.integer),
    np.linspace: calls.spelled_as(spelled.equally_spaced),
    np.arange: calls.spelled_as(spelled.counted, calls.integer, calls.integer),
    np.diag: calls.diagonal,
    # products
    np.dot: calls.dot,
    np.matmul: calls.dot,
    np.vdot: calls.of_vectors(N.dot),
    np.inner: calls.of_vectors(N.dot),
    np.outer: calls.of_vectors(N.outer),
    np.cross: calls.spelled_as(spelled.crossed, vector, vector),
    np.linalg.solve: calls.solve,
    np.linalg.inv: calls.spelled_as(spelled_arrays.inverse, shaping.matrix),
    np.linalg.det: shaping.determinant,
    np.linalg.matrix_power: shaping.power,
    np.kron: calls.spelled_as(spelled_arrays.kronecker, shaping.matrix, shaping.matrix),
    np.convolve: calls.spelled_as(spelled_arrays.convolved, vector, vector),
    np.einsum: einsum,
    # of all entries
    np.sum: along.total,
    np.mean: along.mean,
    np.prod: along.reduced(spelled.product),
    math.prod: along.reduced(spelled.product),
    np.max: along.reduced(spelled.largest),
    np.min: along.reduced(spelled.smallest),
    np.argmax: calls.spelled_as(spelled.place_of_largest, calls.flat),
    np.argmin: calls.spelled_as(spelled.place_of_smallest, calls.flat),
    np.var: along.reduced(spelled.variance),
    np.std: along.reduced(spelled.deviation),
    np.linalg.norm: lambda reader, function, x, axis=None, keepdims=False: along.reduced(spelled.length)(
        reader, function, x, axis, keepdims
    ),
    np.trace: calls.spelled_as(spelled.trace),
    np.any: calls.any_of,
    np.all: calls.all_of,
    # entries in another order, and parts
    np.transpose: calls.transposed,
    np.reshape: lambda reader, function, x, *shape: calls.reshape(reader, reader.number_or_array(x), *shape),
    np.ravel: lambda reader, function, x: calls.reshape(reader, reader.number_or_array(x), N.const(-1)),
    np.flip: calls.spelled_as(spelled.reversed_entries, vector),
    np.flipud: calls.spelled_as(spelled.reversed_entries, vector),
    np.roll: along.roll,
    np.concatenate: along.concatenate,
    np.hstack: along.side_by_side,
    np.append: append,
    np.stack: along.stack,
    np.vstack: along.on_top,
    np.column_stack: along.columns,
    np.expand_dims: along.expanded,
    np.tile: shaping.tile,
    np.repeat: calls.spelled_as(spelled_arrays.repeated, vector, calls.integer),
    np.pad: shaping.pad,
    np.meshgrid: calls.spelled_as(spelled_arrays.crosswise, vector, vector),
    np.tril: calls.spelled_as(spelled_arrays.lower, shaping.matrix),
    np.triu: calls.spelled_as(spelled_arrays.upper, shaping.matrix),
    np.fill_diagonal: calls.spelled_as(spelled_arrays.put_on_diagonal, shaping.matrix),
    np.split: split,
    # along vectors
    np.diff: along.diff,
    np.cumsum: along.running(spelled.running_sum),
    np.cumprod: along.running(spelled.running_product),
    np.gradient: shaping.gradient,
    np.polyval: calls.spelled_as(spelled_arrays.polynomial, vector),
    np.interp: calls.interp,
    np.searchsorted: calls.searched,
    np.digitize: calls.binned,
    bisect.bisect_left: calls.bisected("left"),
    bisect.bisect_right: calls.bisected("right"),  # which bisect.bisect is
    # by entries
    np.where: calls.where,
    np.clip: calls.spelled_as(spelled.below_and_above),
    np.add: calls.of_two(N.add),
    np.subtract: calls.of_two(N.sub),
    np.multiply: calls.of_two(N.mul),
    np.divide: calls.of_two(N.div),
    np.negative: lambda reader, function, x: N.neg(reader.whole(reader.number_or_array(x))),
    functions.as_matrix: calls.matrix,
    functions.tanh_into: calls.into("tanh"),
    functions.exp_into: calls.into("exp"),
    tables.locate: calls.located,
    tables.turns: calls.turned,
    builtins.len: calls.length,
    builtins.sum: calls.sum_of_items,
    builtins.any: shaping.some,
    builtins.all: shaping.every,
    builtins.map: shaping.mapped,
    builtins.list: shaping.listed,
    builtins.tuple: shaping.listed,
    builtins.dict: shaping.dictionary,
    builtins.divmod: calls.divided,
    builtins.print: lambda reader, function, *values: _ALONE,
}

for _name in ("trapezoid", "trapz"):  # the second one is of NumPy before 2.0
    if hasattr(np, _name):
        FUNCTIONS[getattr(np, _name)] = calls.spelled_as(spelled_arrays.under_trapezoids, vector)

OF_CONSTANTS = {np.cumsum, np.cumprod, np.diff, np.sum, np.prod, math.prod, np.max, np.min}  # which are calculated at once

BY_NAME: dict[str, Callable] = {  # of modules that are not imported for this
    "scipy.special.expit": calls.spelled_as(spelled_arrays.logistic),
    "scipy.special.softmax": calls.spelled_as(spelled_arrays.softmax, vector),
    "scipy.special.logsumexp": calls.spelled_as(spelled_arrays.log_of_sum, vector),
}


def function_name(function: Any) -> str:
    """`scipy.special.expit`, wherever in SciPy it is defined."""
    name, module = getattr(function, "__name__", ""), str(getattr(function, "__module__", "") or "")
    is_special = isinstance(function, np.ufunc) or module.startswith("scipy.special")
    return f"scipy.special.{name}" if is_special else name


def _method(name: str) -> Callable:
    """A method that is the same as a function of NumPy."""
    known, function = FUNCTIONS[getattr(np, name)], Object(getattr(np, name), name)
    parameters = list(inspect.signature(known).parameters.values())

    def method(reader: Any, array: Any, *arguments: Any, **keywords: Any) -> Any:
        return known(reader, function, array, *arguments, **keywords)

    method.__signature__ = inspect.Signature([parameters[0], *parameters[2:]])  # type: ignore[attr-defined]  # see `takes`
    return method


METHODS: dict[str, Callable] = {
    "dot": lambda reader, array, other, out=None: calls.dot(reader, _ALONE, array, other, out),
    "reshape": calls.reshape,
    "ravel": lambda reader, array: calls.reshape(reader, array, N.const(-1)),
    "flatten": lambda reader, array: copied(reader, calls.reshape(reader, array, N.const(-1))),
    "copy": lambda reader, array: copied(reader, array),
    "transpose": lambda reader, array: N.transpose(array),
    "fill": lambda reader, array, value: reader.store(array, (), None, value),
    "astype": calls.as_type,
    "diagonal": lambda reader, array: reader.session.inlined(spelled.diagonal, [array], {}),
}
_SAME = (
    "sum",
    "mean",
    "prod",
    "max",
    "min",
    "argmax",
    "argmin",
    "var",
    "std",
    "trace",
    "any",
    "all",
    "clip",
    "cumsum",
    "cumprod",
    "searchsorted",
)
METHODS |= {name: _method(name) for name in _SAME}

ATTRIBUTES: dict[str, Callable] = {
    "size": lambda reader, array: N.size_of(array),
    "shape": lambda reader, array: array.shape,
    "ndim": lambda reader, array: N.const(len(array.shape)),
    "T": lambda reader, array: N.transpose(array),
}
