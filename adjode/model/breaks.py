"""The times at which f may jump, as far as its source tells: those of the tables that it calls with t."""

from __future__ import annotations

import ast
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from adjode.compile.fingerprint import names_in
from adjode.derivation.refusals import Refusal
from adjode.derivation.sources import Source, source_of
from adjode.tables import Table

_TIME, _OF_TIME = "t", "of t"  # what an argument is: t itself, or calculated from it
_Roles = tuple[str | None, ...]
_OTHERS = ("numpy", "scipy", "math", "numba", "builtins")


def breaks_of(f: Callable, given: np.ndarray | None) -> np.ndarray:
    """Where a right-hand side `f(t, ...)` may jump, in order: at the times that are given, and at the breaks of all tables that it
    calls with t, itself or in functions that it calls.

    If none are given, not even that there are none, warns of tables whose breaks cannot be told, as of `table(t - delay)`.
    Those of periodic tables are for `repeats_of` to tell.
    """
    own = np.zeros(0) if given is None else given
    if not reaches_table(f):
        return np.unique(own)
    scan = _scanned(f)
    if scan.unknown and given is None:
        warnings.warn(
            f"{scan.unknown[0]} calls a Table with a time that is calculated from t, so that steps may pass over its breaks: name "
            f"the times at which they are by breaks=, or say by breaks=() that there are none.",
            stacklevel=3,
        )
    return np.unique(np.concatenate([own, *(table.breaks for table in scan.found if not table.period)]))


def repeats_of(f: Callable) -> list[tuple[np.ndarray, float]]:
    """The breaks in one period, and the period, of each periodic table that f calls with t."""
    if not reaches_table(f):
        return []
    return [(table.breaks, table.period) for table in dict.fromkeys(_scanned(f).found) if table.period and table.breaks.size]


def _scanned(f: Callable) -> _Scan:
    scan = _Scan()
    scan.function(f, (_TIME,))
    return scan


class _Scan:
    """Looks for calls of tables.

    Attributes
    ----------
    found : list of Table
        Those that are called with t.
    unknown : list of str
        Where others are called with what is calculated from t.
    """

    def __init__(self) -> None:
        self.found: list[Table] = []
        self.unknown: list[str] = []
        self._seen: set[tuple[Any, _Roles]] = set()

    def function(self, function: Callable, roles: _Roles) -> None:
        """Look into a function whose first arguments are these, and into those that it calls."""
        python = getattr(function, "py_func", function)
        if (python, roles) in self._seen:
            return
        self._seen.add((python, roles))
        try:
            source = source_of(python)
            variables = _variables(source, dict(zip(source.arguments, roles, strict=False)))
        except Refusal:  # a stop at which nothing jumps does no harm
            self.found += _reached(python)
            return
        calls = [node for node in ast.walk(source.tree) if isinstance(node, ast.Call)]
        for call in calls:
            self._call(source, call, variables)
        called = {id(call.func) for call in calls}
        for node in ast.walk(source.tree):
            if isinstance(node, (ast.Name, ast.Attribute)) and id(node) not in called:
                self.found += _tables_of(_value(source, node))  # it has another name, or is handed on

    def _call(self, source: Source, call: ast.Call, variables: dict[str, str]) -> None:
        called = _value(source, call.func)
        given = (*call.args, *(keyword.value for keyword in call.keywords))
        roles = tuple(_role(argument, variables) for argument in given)
        if isinstance(called, Table):
            if _TIME in roles[:1]:
                self.found.append(called)
            elif _OF_TIME in roles[:1]:
                self.unknown.append(f"{source.name} ({source.line(call)})")
        elif reaches_table(called):
            self.function(called, tuple(_role(argument, variables) for argument in call.args))


def _variables(source: Source, known: dict[str, str | None]) -> dict[str, str]:
    """What is t, or made of it: arguments, and local variables whatever way the program takes."""
    nodes = list(ast.walk(source.tree))
    stored = Counter(node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    variables = {name: _OF_TIME if stored[name] else role for name, role in known.items() if role is not None}
    while True:
        before = dict(variables)
        for target, value in _assignments(nodes):
            role = _role(value, variables)
            if role is not None:
                only = isinstance(target, ast.Name) and stored[target.id] == 1 and target.id not in known
                names = [node.id for node in ast.walk(target) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
                variables.update(dict.fromkeys(names, role if only else _OF_TIME))
        if variables == before:
            return variables


def _assignments(nodes: list[ast.AST]) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Targets and values, those of tuples one by one."""
    for node in nodes:
        for target in node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]:
            value = getattr(node, "value", getattr(node, "iter", None))
            if not isinstance(target, ast.expr) or not isinstance(value, ast.expr):
                continue
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
                yield from zip(target.elts, value.elts, strict=True)
            else:
                yield target, value


def _role(value: ast.expr, variables: dict[str, str]) -> str | None:
    if isinstance(value, ast.Name):
        return variables.get(value.id)
    return _OF_TIME if any(isinstance(node, ast.Name) and node.id in variables for node in ast.walk(value)) else None


def _value(source: Source, node: ast.expr) -> Any:
    """The value of a global or captured name, or of an attribute of a module; else None."""
    if isinstance(node, ast.Name):
        return None if node.id in source.local else source.outside.get(node.id)
    if isinstance(node, ast.Attribute):
        module = _value(source, node.value)
        return getattr(module, node.attr, None) if isinstance(module, types.ModuleType) else None
    return None


def reaches_table(function: Any) -> bool:
    """Whether a function captures a table, itself or in functions that it calls."""
    return next(_reached(function), None) is not None


def _reached(function: Any, seen: set[int] | None = None) -> Iterator[Table]:
    """The tables that a function captures, itself or in functions that it calls."""
    python, seen = getattr(function, "py_func", function), set() if seen is None else seen
    if not isinstance(python, types.FunctionType) or id(python) in seen:
        return
    seen.add(id(python))
    names, space = names_in(python.__code__), python.__globals__
    values = [cell.cell_contents for cell in python.__closure__ or () if not _is_empty(cell)]
    values += [space[name] for name in names if name in space]
    modules = [value for value in values if isinstance(value, types.ModuleType) and value.__name__.split(".")[0] not in _OTHERS]
    for value in values + [getattr(module, name) for module in modules for name in names if hasattr(module, name)]:
        yield from _tables_of(value)
        yield from _reached(value, seen)


def _tables_of(value: Any) -> Iterator[Table]:
    """A table, or those of a tuple."""
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, Table):
            yield part


def _is_empty(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False
