"""At which times f switches, as its source shows: where a comparison of what depends on time, constants and theta alone changes."""

from __future__ import annotations

import ast
import math
import operator
import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from adjode.derivation.captured import compares, tables_in
from adjode.derivation.found import Found, Line
from adjode.derivation.refusals import Refusal
from adjode.derivation.sources import Source, assigned, source_of
from adjode.derivation.timed_functions import LONGEST, library_value
from adjode.derivation.timing import (
    STATE,
    Known,
    Linear,
    Other,
    Parameters,
    Value,
    choice,
    combined,
    constant,
    depends,
    merged,
    other,
    truth,
)
from adjode.tables import Table

_DEEPEST, _MOST = 8, 1_000  # calls inside of calls; entries of an array that may be any of them
_ORDERS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_COMPARED = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}

_STATE = Other(frozenset({STATE}))
_ARGUMENTS = (Linear(rate=1.0), _STATE, Parameters(), _STATE)  # t, u, theta, and what is written


def switches_in(f: Callable, places: dict[Any, tuple[slice, tuple[int, ...]]], zeros: bool = False) -> Found:
    """What the source of `f(t, u, theta, ...)` shows; nothing where it cannot be read.

    `places` are those of the fields of theta, with their shapes. Where asked for, the times at which what is returned is zero
    count too. Tables that are called in a way that cannot be told count as called with t: a stop where nothing jumps does no harm.
    """
    found, tables = Found(), tables_in(f)
    if tables or zeros or compares(f):
        try:
            source = source_of(f)
            value = _Reader(source, found, places, dict(zip(source.arguments, _ARGUMENTS, strict=False))).body(source.body)
            if zeros and value is not None:
                Line(found, source.name).compared(value, Linear())
        except (Refusal, RecursionError):
            found = Found()
        for table in tables:
            if table not in found.tables:
                Line(found, f"the call of {table!r}").looked_up(table, _ARGUMENTS[0])
    return found


class _Reader:
    """Goes through a function with values in place of numbers, and notes comparisons."""

    def __init__(self, source: Source, found: Found, places: dict, env: dict[str, Value], depth: int = 0):
        self.source, self.found, self.places, self.env, self.depth = source, found, places, env, depth
        self.constants: dict[str, Value] = {}

    # --- statements -------------------------------------------------------------------------------------------------------

    def body(self, statements: list[ast.stmt]) -> Value | None:
        """What is returned."""
        for statement in statements:
            read = getattr(self, f"read_{type(statement).__name__}", self._read_anything)
            result = read(statement)
            if result is not None:
                return result
        return None

    def read_Return(self, statement: ast.Return) -> Value:
        return Known(None) if statement.value is None else self.value(statement.value)

    def read_Expr(self, statement: ast.Expr) -> None:
        self.value(statement.value)

    def read_Assign(self, statement: ast.Assign) -> None:
        value = self.value(statement.value)
        for target in statement.targets:
            self._assign(target, value)

    def read_AnnAssign(self, statement: ast.AnnAssign) -> None:
        if statement.value is not None:
            self._assign(statement.target, self.value(statement.value))

    def read_AugAssign(self, statement: ast.AugAssign) -> None:
        target, value = statement.target, self.value(statement.value)
        if isinstance(target, ast.Name):
            value = self._calculated(statement, self._name(target.id), value)
        self._assign(target, value)

    def read_If(self, statement: ast.If) -> Value | None:
        if all(isinstance(inside, ast.Raise) for inside in statement.body):  # no place where f goes on
            return self.body(statement.orelse)
        test = self.value(statement.test)
        if isinstance(test, Linear) and test.is_number:
            return self.body(statement.body if test.number else statement.orelse)
        before = dict(self.env)
        one = self.body(statement.body)
        self.env, first = before, self.env
        two = self.body(statement.orelse)
        self._merge(first, test)
        return merged(one or Known(None), two or Known(None), test) if one is not None or two is not None else None

    def _merge(self, env: dict[str, Value], *conditions: Value) -> None:
        names = {**env, **self.env}
        self.env = {name: merged(env.get(name, Other()), self.env.get(name, Other()), *conditions) for name in names}

    def read_For(self, statement: ast.For) -> None:
        over = self.value(statement.iter)
        if isinstance(over, tuple) and len(over) <= LONGEST:
            for item in over:
                self._assign(statement.target, item)
                self.body(statement.body)
        else:
            self._assign(statement.target, _any_entry(over))
            self._repeat(statement.body)

    def read_While(self, statement: ast.While) -> None:
        self._repeat([ast.copy_location(ast.Expr(statement.test), statement), *statement.body])

    def _repeat(self, statements: list[ast.stmt]) -> None:
        """A loop of unknown length: what changes in it is not known, but for what it depends on."""
        found, self.found = self.found, Found()
        for _ in range(len(assigned(statements)) + 1):
            before = dict(self.env)
            self.body(statements)
            self._merge(before)
            if self.env == before:
                break
        self.found = found
        self.body(statements)

    def _read_anything(self, statement: ast.stmt) -> None:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            self.env[statement.name] = Other(frozenset({STATE}))
        for name in assigned([statement]):
            self.env[name] = Other(frozenset({STATE}))

    def _assign(self, target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Name):
            self.env[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            for place, part in enumerate(target.elts):
                self._assign(part, self._entry(value, place) if not isinstance(part, ast.Starred) else other(value))
        elif isinstance(target, ast.Starred):
            self._assign(target.value, other(value))
        else:  # an entry of an array, of which no more is known than what it depends on
            while isinstance(target, (ast.Subscript, ast.Attribute)):
                target = target.value
            if isinstance(target, ast.Name):
                self.env[target.id] = other(self._name(target.id), value)

    # --- expressions ------------------------------------------------------------------------------------------------------

    def value(self, node: ast.expr) -> Value:
        read = getattr(self, f"value_{type(node).__name__}", None)
        if read is not None:
            return read(node)
        return other(*(self.value(inside) for inside in ast.iter_child_nodes(node) if isinstance(inside, ast.expr)))

    def value_Constant(self, node: ast.Constant) -> Value:
        return constant(node.value)

    def value_Name(self, node: ast.Name) -> Value:
        return self._name(node.id)

    def _name(self, name: str) -> Value:
        if name in self.env:
            return self.env[name]
        if name in self.source.local:
            return Other()
        outside = self.source.outside
        builtin = outside.get("__builtins__", {})
        builtin = builtin if isinstance(builtin, dict) else vars(builtin)
        if name not in self.constants:
            self.constants[name] = constant(outside[name] if name in outside else builtin.get(name))
        return self.constants[name]

    def value_Tuple(self, node: ast.Tuple) -> Value:
        return tuple(self.value(part) for part in node.elts)

    value_List = value_Tuple

    def value_ListComp(self, node: ast.ListComp) -> Value:
        return self._comprehension(node)

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp) -> Value:
        over = [self.value(generator.iter) for generator in node.generators]
        outside, items = dict(self.env), over[0] if len(over) == 1 and not node.generators[0].ifs else None
        values = []
        for item in items if isinstance(items, tuple) and len(items) <= LONGEST else (other(*over),):
            for generator in node.generators:
                self._assign(generator.target, item)
            values.append(self.value(node.elt))
        self.env = outside
        return tuple(values) if isinstance(items, tuple) and len(values) == len(items) else other(*values)

    value_GeneratorExp = _comprehension

    def value_UnaryOp(self, node: ast.UnaryOp) -> Value:
        value = self.value(node.operand)
        if isinstance(node.op, ast.USub):
            return combined(ast.Mult(), Linear(number=-1.0), value)
        if isinstance(node.op, ast.Not) and isinstance(value, Linear) and value.is_number:
            return Linear(number=float(not value.number))
        return value if isinstance(node.op, ast.UAdd) else truth(value)

    def value_BinOp(self, node: ast.BinOp) -> Value:
        return self._calculated(node, self.value(node.left), self.value(node.right))

    def _calculated(self, node: ast.BinOp | ast.AugAssign, one: Value, two: Value) -> Value:
        if isinstance(node.op, (ast.Mod, ast.FloorDiv)):
            self._note(node).cut(one, two)
        return combined(node.op, one, two)

    def _note(self, node: ast.AST) -> Line:
        place = (self.source.file, node.lineno, node.col_offset) if isinstance(node, ast.expr) else None
        return Line(self.found, self.source.line(node), place)

    def value_IfExp(self, node: ast.IfExp) -> Value:
        test = self.value(node.test)
        if isinstance(test, Linear) and test.is_number:
            return self.value(node.body if test.number else node.orelse)
        return merged(self.value(node.body), self.value(node.orelse), test)

    def value_Compare(self, node: ast.Compare) -> Value:
        values = [self.value(side) for side in (node.left, *node.comparators)]
        numbers = [value.number for value in values if isinstance(value, Linear) and value.is_number]
        if len(numbers) == len(values) and all(type(op) in _COMPARED for op in node.ops):
            pairs = zip(node.ops, numbers[:-1], numbers[1:], strict=True)
            return constant(all(_COMPARED[type(op)](one, two) for op, one, two in pairs))
        for op, one, two in zip(node.ops, values[:-1], values[1:], strict=True):
            if isinstance(op, _ORDERS):
                self._note(node).compared(one, two)
        return truth(*values)

    def value_BoolOp(self, node: ast.BoolOp) -> Value:
        return truth(*map(self.value, node.values))

    def value_Attribute(self, node: ast.Attribute) -> Value:
        base = self.value(node.value)
        if isinstance(base, Parameters) and base.entries is None and node.attr in self.places:
            place, shape = self.places[node.attr]
            entries = tuple(range(place.start, place.stop))
            return Parameters(entries, shape) if shape else Linear(entries=((entries[0], 1.0),))
        if isinstance(base, Known):
            return constant(getattr(base.value, node.attr, None))
        if node.attr in ("size", "shape", "ndim"):
            return constant(getattr(np.empty(_shape_of(base)), node.attr)) if isinstance(base, tuple) else Other()
        return other(base)

    def value_Subscript(self, node: ast.Subscript) -> Value:
        base, index = self.value(node.value), node.slice
        for place in [self.value(part) for part in (index.elts if isinstance(index, ast.Tuple) else [index])]:
            if isinstance(place, Linear) and place.is_number:
                base = self._entry(base, int(place.number))
            else:
                base = other(base, place) if STATE in depends(place) else _any_entry(base)
        return base

    def _entry(self, value: Value, place: int) -> Value:
        """Entry `place` of an array, along its first axis."""
        if isinstance(value, Parameters) and value.entries is None:
            return Linear(entries=((place, 1.0),))
        if isinstance(value, Parameters) and value.shape and -value.shape[0] <= place < value.shape[0]:
            inner = math.prod(value.shape[1:])
            entries = value.entries[place % value.shape[0] * inner :][:inner]  # type: ignore[index]
            return Parameters(entries, value.shape[1:]) if value.shape[1:] else Linear(entries=((entries[0], 1.0),))
        if isinstance(value, tuple) and -len(value) <= place < len(value):
            return value[place]
        return other(value)

    # --- calls ------------------------------------------------------------------------------------------------------------

    def value_Call(self, node: ast.Call) -> Value:
        function = self.value(node.func)
        given = [self.value(argument) for argument in node.args]
        if isinstance(node.func, ast.Attribute) and isinstance(array := self.value(node.func.value), tuple):
            function, given = Known(getattr(np, node.func.attr, None)), [array, *given]
        named = {keyword.arg: self.value(keyword.value) for keyword in node.keywords}
        called = function.value if isinstance(function, Known) else None
        python = getattr(called, "py_func", called)
        if isinstance(called, Table) and given:
            self._note(node).looked_up(called, given[0])
            return other(*given)
        if isinstance(python, types.FunctionType) and not str(python.__module__).startswith(("numpy", "scipy")):
            return self._inside(python, given, named, node)
        result = library_value(self._note(node), python, given, named)
        return other(function, *given, *named.values()) if result is None else result

    def _inside(self, python: types.FunctionType, given: list[Value], named: dict, node: ast.Call) -> Value:
        """What a function returns; arrays that it is given may be written into."""
        unknown, result = other(*given, *named.values()), None
        with suppress(Refusal, RecursionError):
            if self.depth < _DEEPEST:
                source = source_of(python)
                defaults = python.__defaults__ or ()
                env = dict(zip(source.arguments[::-1], map(constant, defaults[::-1]), strict=False))
                env |= dict(zip(source.arguments, given, strict=False)) | named
                result = _Reader(source, self.found, self.places, env, self.depth + 1).body(source.body)
        for argument in node.args:
            if isinstance(argument, ast.Name) and isinstance(self._name(argument.id), Other):
                self.env[argument.id] = unknown
        return unknown if result is None else result


def _any_entry(value: Value) -> Value:
    """An entry of an array, it is not known which."""
    flat = isinstance(value, tuple) and 0 < len(value) <= _MOST and not any(isinstance(part, tuple) for part in value)
    return choice(*value) if flat else other(value)  # type: ignore[misc]


def _shape_of(value: Value) -> tuple[int, ...]:
    return (len(value), *_shape_of(value[0] if value else None)) if isinstance(value, tuple) else ()  # type: ignore[arg-type]
