"""A function that tells on which sides of its comparisons with the state f is: where that changes, f has a kink or a jump.

`u[0] > theta[0]` becomes `note(sides, u[0] > theta[0])`, and `max(u[1], 0.0)`, which is the one or the other,
`note_if_same(sides, note_if_same(sides, max(u[1], 0.0), u[1]), 0.0)`.
"""

from __future__ import annotations

import ast
import copy
import types
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numba import types as of
from numba.extending import overload

from adjode.derivation.captured import compares
from adjode.derivation.found import Place
from adjode.derivation.origins import origin_of, remade
from adjode.derivation.refusals import Refusal
from adjode.derivation.sources import source_of
from adjode.derivation.switches import switches_in

_SIDES, _NOTE, _NOTE_IF_SAME = "adjode_sides", "adjode_note", "adjode_note_if_same"
_CHOOSE = {"abs", "fabs", "max", "min", "maximum", "minimum", "fmax", "fmin", "clip"}
_STEP = {"sign", "heaviside", "floor", "ceil", "trunc", "fix", "int", "round", "rint"}
_MOST = 2**50 - 1  # a float tells whole numbers apart up to there


def sides_of(f: Callable, arguments: tuple[str, ...]) -> Callable | None:
    """`sides(t, u, theta, du, values)` for a function of these arguments: values[0] becomes a number that stands for all sides.

    None where its source shows no comparison with the state, or cannot be read.
    """
    if not compares(f):
        return None
    try:
        places = switches_in(f, {}).of_state
        python: Any = getattr(f, "py_func", f)
        marked = _Marked(places).of(python) if places else None
    except (Refusal, RecursionError):
        return None
    return None if marked is None else _alone(marked, "du" in arguments)


def _alone(marked: Callable, in_place: bool) -> Callable:
    """`marked(sides, t, u, theta, ...)` as a function of all that it writes."""
    if in_place:

        def sides(t, u, theta, du, values):
            values[0] = 0.0
            marked(values, t, u, theta, du)

        return sides

    def sides_besides(t, u, theta, du, values):
        values[0] = 0.0
        marked(values, t, u, theta)

    return sides_besides


# --- what is put down ------------------------------------------------------------------------------------------------------------


@njit(error_model="numpy", nogil=True)
def _put(sides, value):
    sides[0] = (3 * int(sides[0]) + int(value) + 1) & _MOST


def _note(sides, value):
    """The value, of which note is taken."""
    for one in np.ravel(value):
        _put(sides, one)
    return value


@overload(_note, jit_options={"error_model": "numpy", "nogil": True})
def _compiled_note(sides, value):
    if not isinstance(value, of.Array):

        def note_number(sides, value):
            _put(sides, value)
            return value

        return note_number

    def note_array(sides, value):
        for one in value.flat:
            _put(sides, one)
        return value

    return note_array


@njit(error_model="numpy", nogil=True)
def _note_if_same(sides, value, given):
    """The value; note is taken of whether it is what is given."""
    _note(sides, value == given)
    return value


# --- where ----------------------------------------------------------------------------------------------------------------------


class _Marked:
    """Functions that put down what happens at these places, each made once."""

    def __init__(self, places: set[Place]):
        self.places, self._made = places, dict[types.FunctionType, Any]()

    def of(self, python: types.FunctionType) -> Callable | None:
        """The function with one more argument ahead of its own; None where it has no text."""
        if python not in self._made:
            self._made[python] = None  # one that calls itself stays as it is inside
            origin, code = origin_of(python), None
            if origin is not None and isinstance(origin.tree, ast.FunctionDef):
                tree, beside = copy.deepcopy(origin.tree), {_NOTE: _note, _NOTE_IF_SAME: _note_if_same}
                tree.args.args.insert(0, ast.arg(_SIDES))
                tree.body = [_Marks(self, python, beside).visit(statement) for statement in tree.body]
                code = origin.compiled_as(python.__code__, tuple(beside), tree)
                if code is not None:
                    self._made[python] = njit(error_model="numpy", nogil=True)(remade(python, code, beside))
        return self._made[python]

    def is_at(self, python: types.FunctionType, node: ast.expr) -> bool:
        return (python.__code__.co_filename, node.lineno, node.col_offset) in self.places


class _Marks(ast.NodeTransformer):
    """Wraps what is at such places; `beside` are the names that this needs."""

    def __init__(self, marked: _Marked, python: types.FunctionType, beside: dict[str, Any]):
        self.marked, self.python, self.beside = marked, python, beside
        self._inside = source_of(python).outside

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        at = self.marked.is_at(self.python, node)
        self.generic_visit(node)
        return _call(_NOTE, node) if at else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        at, name = self.marked.is_at(self.python, node), ast.unparse(node.func).split(".")[-1]
        self.generic_visit(node)
        if at and name in _STEP:
            return _call(_NOTE, node)
        if at and name in _CHOOSE:
            first = node.args[0]
            found: ast.expr = node
            for given in first.elts if len(node.args) == 1 and isinstance(first, (ast.Tuple, ast.List)) else node.args:
                found = _call(_NOTE_IF_SAME, found, copy.deepcopy(given))
            return found
        return self._call_inside(node) if isinstance(node.func, ast.Name) else node

    def _call_inside(self, node: ast.Call) -> ast.expr:
        """The call of a function with such places in it."""
        assert isinstance(node.func, ast.Name)
        called = self._inside.get(node.func.id)
        python = getattr(called, "py_func", called)
        if not isinstance(python, types.FunctionType) or not self._has_places(python):
            return node
        marked = self.marked.of(python)
        if marked is None:
            return node
        self.beside[f"adjode_{node.func.id}"] = marked
        return ast.copy_location(_call(f"adjode_{node.func.id}", *node.args, keywords=node.keywords), node)

    def _has_places(self, python: types.FunctionType) -> bool:
        return compares(python) and any(file == python.__code__.co_filename for file, *_ in self.marked.places)


def _call(name: str, *arguments: ast.expr, keywords: list[ast.keyword] | None = None) -> ast.Call:
    """The call of a name with the argument for notes, and these."""
    given = [ast.Name(_SIDES, ast.Load()), *arguments]
    call = ast.Call(ast.Name(name, ast.Load()), given, keywords or [])
    return ast.copy_location(call, arguments[0]) if arguments else call
