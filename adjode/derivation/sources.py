"""The source of a function as a syntax tree that has no early `return` and no `continue`."""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adjode.derivation.leaving import Loops, leaves_loops, straightened
from adjode.derivation.library import UNARY
from adjode.derivation.origins import origin_of, text_of_file
from adjode.derivation.refusals import Refusal


@dataclass
class Source:
    """A function's file, its tree, with the lines of that file, and the names that it finds outside."""

    name: str
    file: str
    tree: ast.FunctionDef | ast.Lambda
    outside: dict[str, Any]
    lines: list[str]

    @property
    def arguments(self) -> list[str]:
        """The names of those that may be given by position."""
        given = self.tree.args
        if given.kwarg:
            raise Refusal(f"{self.name} takes **{given.kwarg.arg}", "give each argument a name")
        return [argument.arg for argument in (*given.posonlyargs, *given.args)]

    @property
    def by_keyword(self) -> list[str]:
        """The names of those that are given by keyword alone."""
        return [argument.arg for argument in self.tree.args.kwonlyargs]

    @property
    def rest(self) -> str | None:
        """The name of the tuple of all other arguments, `*args`."""
        return None if self.tree.args.vararg is None else self.tree.args.vararg.arg

    @property
    def defaults(self) -> dict[str, ast.expr]:
        given = self.tree.args
        last = self.arguments[len(self.arguments) - len(given.defaults) :]
        named = zip(self.by_keyword, given.kw_defaults, strict=True)
        return dict(zip(last, given.defaults, strict=True)) | {name: node for name, node in named if node is not None}

    @functools.cached_property
    def local(self) -> set[str]:
        """The names that are bound somewhere in the function."""
        return set() if isinstance(self.tree, ast.Lambda) else assigned(self.body)

    @functools.cached_property
    def addressed(self) -> set[str]:
        """The names of arrays whose entries may be read or written: these are in memory from the start."""
        found: set[str] = set()
        while True:
            before = len(found)
            for node in ast.walk(self.tree):
                if isinstance(node, ast.Subscript):
                    found |= _names(node.value)
                elif isinstance(node, ast.Call):
                    found |= self._handed_on(node)
                elif isinstance(node, ast.Assign) and any(_bound(target) & found for target in node.targets):
                    found |= _names(node.value)
            if len(found) == before:
                return found

    def _handed_on(self, call: ast.Call) -> set[str]:
        """What a call may write into."""
        if isinstance(call.func, ast.Name):
            function = self.outside.get(call.func.id)
            plain = function is None or not isinstance(getattr(function, "py_func", function), types.FunctionType)
            return set() if plain else set().union(*map(_names, call.args))
        if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
            name = call.func.value.id
            if name in self.outside and name not in self.local:
                library = getattr(self.outside[name], "__name__", "") in ("numpy", "math")
                return set().union(*map(_names, _outputs(call) if library else call.args))
        return (
            _names(call.func.value)
            if isinstance(call.func, ast.Attribute) and call.func.attr in ("fill", "reshape", "ravel")
            else set()
        )

    @functools.cached_property
    def body(self) -> list[ast.stmt]:
        if isinstance(self.tree, ast.Lambda):
            return [ast.copy_location(ast.Return(self.tree.body), self.tree.body)]
        body = self.tree.body
        return straightened(Loops(body).closed(body) if leaves_loops(body) else body)

    def line(self, node: ast.AST) -> str:
        """Where a node is, and how that line reads."""
        number = getattr(node, "lineno", self.tree.lineno)
        text = (linecache.getline(self.file, number) or self.lines[number - 1]).strip()
        return f"{self.file}, line {number}" + (f": `{text}`" if text else "")


def _outputs(call: ast.Call) -> list[ast.expr]:
    """What a function of NumPy overwrites: an argument behind those that it reads."""
    assert isinstance(call.func, ast.Attribute)
    if call.func.attr == "fill_diagonal":
        return call.args[:1]
    read = 2 if call.func.attr in ("dot", "matmul", "add", "subtract", "multiply", "divide") else 1
    by_position = call.args[read:] if read == 2 or call.func.attr in UNARY else []
    return [*by_position, *(keyword.value for keyword in call.keywords if keyword.arg == "out")]


def _names(node: ast.expr) -> set[str]:
    """The names that an expression may stand for, or for parts of which."""
    if isinstance(node, ast.Name):
        return {node.id}
    if isinstance(node, (ast.Tuple, ast.List)):
        return set().union(*map(_names, node.elts))
    if isinstance(node, ast.IfExp):
        return _names(node.body) | _names(node.orelse)
    if isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred, ast.NamedExpr)):
        return _names(node.value)
    return _names(node.func.value) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else set()


def _bound(target: ast.expr) -> set[str]:
    """The names that a target gives to what is assigned."""
    return set() if isinstance(target, ast.Subscript) else _names(target)


def source_of(function: Callable) -> Source:
    """The source of a Python or jitted function."""
    python = getattr(function, "py_func", function)
    if not isinstance(python, types.FunctionType):
        raise Refusal(f"{python!r} is not a Python function", "give a function written in Python")
    code, origin = python.__code__, origin_of(python)
    if origin is None:
        raise _no_origin(python, known=text_of_file(python) is not None)
    inside = inspect.getclosurevars(python)
    return Source(python.__name__, code.co_filename, origin.tree, {**python.__globals__, **inside.nonlocals}, origin.lines)


def _no_origin(python: types.FunctionType, *, known: bool) -> Refusal:
    code = python.__code__
    where = f"{code.co_filename}, line {code.co_firstlineno}"
    if known:
        return Refusal(f"the source of {python.__name__} has changed since it was compiled ({where})", "import it again")
    return Refusal(f"the source of {python.__name__} cannot be found ({where})", "define it in a file, or give its vjp")


def assigned(body: list[ast.stmt]) -> set[str]:
    """The names that statements bind."""
    found = set()
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.FunctionDef):
                found.add(node.name)
    return found


def bound_by(body: list[ast.stmt]) -> set[str]:
    """The names that statements bind anew, other than by `+=` and the like."""
    changed = {id(node.target) for statement in body for node in ast.walk(statement) if isinstance(node, ast.AugAssign)}
    names = (node for statement in body for node in ast.walk(statement) if isinstance(node, ast.Name) and id(node) not in changed)
    return {node.id for node in names if isinstance(node.ctx, ast.Store)}
