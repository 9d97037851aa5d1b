"""Which functions of NumPy, of arrays and of `adjode.functions` are known, and what reads a call of each."""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode import functions, tables
from adjode.derivation import calls, spelled
from adjode.derivation import nodes as N
from adjode.derivation.allocating import allocating, array_of, copied, in_one_piece, like, same
from adjode.derivation.joining import append, columns, concatenate, diff, roll, split, stack, vector
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
    np.linalg.inv: calls.inverse,
    # of all entries
    np.sum: calls.total,
    np.mean: calls.mean,
    np.prod: calls.spelled_as(spelled.product, calls.flat),
    np.max: calls.spelled_as(spelled.largest, calls.flat),
    np.min: calls.spelled_as(spelled.smallest, calls.flat),
    np.argmax: calls.spelled_as(spelled.place_of_largest, calls.flat),
    np.argmin: calls.spelled_as(spelled.place_of_smallest, calls.flat),
    np.var: calls.spelled_as(spelled.variance, calls.flat),
    np.std: calls.spelled_as(spelled.deviation, calls.flat),
    np.linalg.norm: calls.spelled_as(spelled.length, calls.flat),
    np.trace: calls.spelled_as(spelled.trace),
    np.any: calls.any_of,
    np.all: calls.all_of,
    # entries in another order, and parts
    np.transpose: calls.transposed,
    np.reshape: lambda reader, function, x, *shape: calls.reshape(reader, reader.number_or_array(x), *shape),
    np.ravel: lambda reader, function, x: calls.reshape(reader, reader.number_or_array(x), N.const(-1)),
    np.flip: calls.spelled_as(spelled.reversed_entries, vector),
    np.flipud: calls.spelled_as(spelled.reversed_entries, vector),
    np.roll: roll,
    np.concatenate: concatenate,
    np.hstack: lambda reader, function, parts: concatenate(reader, function, parts),
    np.append: append,
    np.stack: stack,
    np.vstack: stack,
    np.column_stack: columns,
    np.split: split,
    # along vectors
    np.diff: diff,
    np.cumsum: calls.spelled_as(spelled.running_sum, calls.flat),
    np.cumprod: calls.spelled_as(spelled.running_product, calls.flat),
    np.interp: calls.interp,
    np.searchsorted: calls.searched,
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
    builtins.divmod: calls.divided,
    builtins.print: lambda reader, function, *values: _ALONE,
}


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
_SAME = ("sum", "mean", "prod", "max", "min", "argmax", "argmin", "var", "std", "trace", "any", "all", "clip", "cumsum", "cumprod")
METHODS |= {name: _method(name) for name in _SAME}

ATTRIBUTES: dict[str, Callable] = {
    "size": lambda reader, array: N.size_of(array),
    "shape": lambda reader, array: array.shape,
    "ndim": lambda reader, array: N.const(len(array.shape)),
    "T": lambda reader, array: N.transpose(array),
}
