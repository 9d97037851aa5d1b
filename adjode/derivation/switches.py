"""At which times f switches, as its source shows: where a comparison of what depends on time, constants and theta alone changes."""

from __future__ import annotations

import ast
import dis
import math
import operator
import types
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adjode.compile.fingerprint import names_in
from adjode.derivation.refusals import Refusal
from adjode.derivation.sources import Source, assigned, source_of
from adjode.derivation.timing import (
    STATE,
    TIME,
    Known,
    Linear,
    Other,
    Parameters,
    Rest,
    Steps,
    Value,
    added,
    combined,
    constant,
    depends,
    merged,
    other,
    rest,
    whole,
)

_DEEPEST, _LONGEST = 8, 64  # calls inside of calls; rounds of a loop that are gone through one by one
_ORDERS, _SAMES = (ast.Lt, ast.LtE, ast.Gt, ast.GtE), (ast.Eq, ast.NotEq)
_COMPARING = {np.less, np.less_equal, np.greater, np.greater_equal, np.sign, np.heaviside}
_COMPARING_NAMES = {function.__name__ for function in _COMPARING}
_RESTS = {np.mod, np.fmod, math.fmod}  # np.remainder is np.mod
_WHOLES = {np.floor, math.floor, np.ceil, math.ceil, np.trunc, math.trunc, int}
_UNCHANGED = {float, bool, np.float64, np.asarray, np.array}
_ZERO = Linear()
_COMPARED = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


@dataclass(frozen=True)
class Switch:
    """f switches at the time `at`, in which there is no t: once, or again and again where there is a period."""

    at: Linear
    period: float
    line: str


@dataclass
class Found:
    """The switches of a source, and the lines that switch at times that cannot be told from it."""

    switches: dict[tuple[Linear, float], Switch] = field(default_factory=dict)
    unread: dict[str, None] = field(default_factory=dict)

    def add(self, at: Linear, period: float, line: str) -> None:
        if math.isfinite(at.number):
            self.switches.setdefault((at, period), Switch(at, period, line))

    def compared(self, one: Value, two: Value, line: str) -> None:
        """A comparison, which changes where both are the same."""
        on, difference = depends((one, two)), added(one, two, -1.0)
        if TIME not in on or STATE in on or (isinstance(difference, Linear) and not difference.rate):
            return
        if isinstance(difference, Linear):
            self.add(_zero_of(difference), 0.0, line)
        elif isinstance(difference, Rest):
            self._rest_compared(difference, line)
        elif isinstance(difference, Steps):
            self._whole(difference, line)
        else:
            self.unread[line] = None

    def _whole(self, steps: Steps, line: str) -> None:
        for inner, period in steps.parts:
            self.add(_zero_of(inner), abs(period / inner.rate), line)

    def _rest_compared(self, value: Rest, line: str) -> None:
        self._whole(Steps(frozenset({(value.inner, value.period)})), line)
        level = value.offset.times(-1.0 / value.scale)
        if not level.is_number or 0.0 < abs(level.number) < value.period:  # fmod is negative before zero
            self.add(_zero_of(value.inner.plus(level.times(-1.0))), abs(value.period / value.inner.rate), line)


def _zero_of(value: Linear) -> Linear:
    """The time at which it is zero."""
    return Linear(0.0, value.entries, value.number).times(-1.0 / value.rate)


def switches_in(f: Callable, places: dict[Any, tuple[slice, tuple[int, ...]]]) -> Found:
    """What the source of `f(t, u, theta, ...)` shows; nothing where it cannot be read.

    `places` are those of the fields of theta, with their shapes.
    """
    found = Found()
    if compares(f):
        with suppress(Refusal, RecursionError):
            source = source_of(f)
            known = (Linear(rate=1.0), Other(frozenset({STATE})), Parameters(), Other(frozenset({STATE})))
            _Reader(source, found, places, dict(zip(source.arguments, known, strict=False))).body(source.body)
            return found
    return Found()


def compares(function: Any, seen: set[int] | None = None) -> bool:
    """Whether there is any comparison in a function, or in those that it captures."""
    python, seen = getattr(function, "py_func", function), set() if seen is None else seen
    if not isinstance(python, types.FunctionType) or id(python) in seen:
        return False
    seen.add(id(python))
    names, space, cells = names_in(python.__code__), python.__globals__, python.__closure__ or ()
    if _COMPARING_NAMES & names or any(step.opname == "COMPARE_OP" for step in dis.get_instructions(python.__code__)):
        return True
    held = [cell.cell_contents for cell in cells if cell != types.CellType()]
    return any(compares(value, seen) for value in (*held, *(space[name] for name in names if name in space)))


class _Reader:
    """Goes through a function with values in place of numbers, and notes comparisons."""

    def __init__(self, source: Source, found: Found, places: dict, env: dict[str, Value], depth: int = 0):
        self.source, self.found, self.places, self.env, self.depth = source, found, places, env, depth

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
            value = combined(statement.op, self._name(target.id), value)
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
        if isinstance(over, tuple) and len(over) <= _LONGEST:
            for item in over:
                self._assign(statement.target, item)
                self.body(statement.body)
        else:
            self._assign(statement.target, other(over))
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
        return constant(outside[name] if name in outside else builtin.get(name))

    def value_Tuple(self, node: ast.Tuple) -> Value:
        return tuple(self.value(part) for part in node.elts)

    value_List = value_Tuple

    def value_ListComp(self, node: ast.ListComp) -> Value:
        return self._comprehension(node)

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp) -> Value:
        over = [self.value(generator.iter) for generator in node.generators]
        outside, items = dict(self.env), over[0] if len(over) == 1 and not node.generators[0].ifs else None
        values = []
        for item in items if isinstance(items, tuple) and len(items) <= _LONGEST else (other(*over),):
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
        return value if isinstance(node.op, ast.UAdd) else other(value)

    def value_BinOp(self, node: ast.BinOp) -> Value:
        return combined(node.op, self.value(node.left), self.value(node.right))

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
            of_steps = isinstance(op, _SAMES) and any(isinstance(value, Steps) for value in (one, two))
            if isinstance(op, _ORDERS) or of_steps:
                self.found.compared(one, two, self.source.line(node))
        return other(*values)

    def value_Attribute(self, node: ast.Attribute) -> Value:
        base = self.value(node.value)
        if isinstance(base, Parameters) and base.entries is None and node.attr in self.places:
            place, shape = self.places[node.attr]
            entries = tuple(range(place.start, place.stop))
            return Parameters(entries, shape) if shape else Linear(entries=((entries[0], 1.0),))
        if isinstance(base, Known):
            return constant(getattr(base.value, node.attr, None))
        return Other() if node.attr in ("size", "shape", "ndim") else other(base)

    def value_Subscript(self, node: ast.Subscript) -> Value:
        base, index = self.value(node.value), node.slice
        places = [self.value(part) for part in (index.elts if isinstance(index, ast.Tuple) else [index])]
        if not all(isinstance(place, Linear) and place.is_number for place in places):
            return other(base, *places)
        for place in places:
            base = self._entry(base, int(place.number))  # type: ignore[union-attr]
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
        named = {keyword.arg: self.value(keyword.value) for keyword in node.keywords}
        called = function.value if isinstance(function, Known) else None
        python = getattr(called, "py_func", called)
        if isinstance(python, types.FunctionType) and not str(python.__module__).startswith(("numpy", "scipy")):
            return self._inside(python, given, named, node)
        result = self._of_library(python, given, self.source.line(node)) if given and not named else None
        return other(function, *given, *named.values()) if result is None else result

    def _of_library(self, function: Any, given: list[Value], line: str) -> Value | None:
        try:
            known = {*_COMPARING, *_RESTS, *_WHOLES, *_UNCHANGED}
            if function not in known:
                return self._counted(function, given)
        except TypeError:  # it has no hash
            return None
        if function in _RESTS and len(given) == 2:
            return rest(*given)
        if function in _COMPARING:
            self.found.compared(given[0], _ZERO if function in (np.sign, np.heaviside) else given[-1], line)
            return other(*given)
        if len(given) > 1:
            return other(*given)
        return whole(given[0]) if function in _WHOLES else given[0]

    def _counted(self, function: Any, given: list[Value]) -> Value | None:
        """range, enumerate, zip and len of what has a length that is known."""
        if function is range and all(isinstance(value, Linear) and value.is_number for value in given):
            numbers = range(*(int(value.number) for value in given))  # type: ignore[union-attr]
            return tuple(map(constant, numbers)) if len(numbers) <= _LONGEST else Other()
        if all(isinstance(value, tuple) for value in given):
            if function is len:
                return Linear(number=float(len(given[0])))
            if function in (enumerate, zip):
                many = [tuple(map(constant, range(len(given[0])))), *given] if function is enumerate else given  # type: ignore[arg-type]
                return tuple(zip(*many, strict=False))
        return None

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
