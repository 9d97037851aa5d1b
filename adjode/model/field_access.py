"""Fields of arguments, as `u.prey` and `theta.W`, made entries of vectors: `u[0]`, `as_matrix(theta, 4, 50, 2)`.

The source of a callback is rewritten, not what it is called with, so that compiled code is that of indices. Lines, columns and the
name of the file stay the user's own, and with them messages and tracebacks; the function shares globals and closure with the one it
is made from. Whoever reads its source by `inspect.getsource` finds that of indices, line by line.
"""

from __future__ import annotations

import ast
import copy
import functools
import linecache
import types
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import jit
from numba.core.dispatcher import Dispatcher

from adjode.compile.fingerprint import names_in
from adjode.derivation.origins import SCOPES, Function, is_here, origin_of, own_nodes, parsed, remade, texts_of
from adjode.functions import as_matrix
from adjode.model.fields import Fields

_OF_ARRAYS = frozenset(dir(np.ndarray))
_AS_MATRIX = "adjode_as_matrix"  # the name of that function inside, where it is a variable of the closure


def with_entries(label: str, function: Callable, fields: Sequence[Fields | None]) -> Callable:
    """`function` with entries in place of the fields of its arguments; itself if it has none. A jitted one is jitted likewise.

    Parameters
    ----------
    label : str
        What messages call it.
    function : function or Dispatcher
    fields : sequence of Fields or None
        Of each positional argument.

    Raises
    ------
    TypeError
        If it takes a field that its argument does not have, or its source cannot be read.
    """
    if isinstance(function, Dispatcher):
        return _jitted(label, function, tuple(fields))
    return _rewritten(label, function, fields) if isinstance(function, types.FunctionType) else function


@functools.lru_cache(maxsize=128)
def _jitted(label: str, function: Dispatcher, fields: tuple[Fields | None, ...]) -> Any:
    source = _rewritten(label, function.py_func, fields)
    return function if source is function.py_func else jit(**function.targetoptions)(source)


def _rewritten(label: str, function: Any, fields: Sequence[Fields | None]) -> types.FunctionType:
    code = function.__code__
    known = {name: part for name, part in zip(code.co_varnames, fields, strict=False) if part is not None}
    if all(name in _OF_ARRAYS for name in names_in(code)) or not known:
        return function
    origin = origin_of(function)
    if origin is None:
        if not any(name in names_in(code) for part in known.values() for name in part.names):
            return function
        raise TypeError(
            f"{label} uses fields of its arguments, for which its source is read, but what {code.co_filename} has at line "
            f"{code.co_firstlineno} is not what it was compiled from: define it in a file, and import it again after a change."
        )
    made = _Entries(label, known, copy.deepcopy(origin.tree), code.co_filename, origin.lines)
    tree = made.rewritten()
    if not made.found:
        return function
    inner = origin.compiled_as(code, (_AS_MATRIX,), tree)
    assert inner is not None
    result = remade(function, inner, {_AS_MATRIX: as_matrix})
    _show_entries(result, origin.lines, made)
    return result


def sources_of(given: Any, made: Any) -> set[str]:
    """The text of the file of a function whose fields have been replaced, if they have been.

    It travels with pickles: a function that is sent by value arrives without its file, and without that file's name.
    """
    return set() if made is given else texts_of(given)


# --- the tree -------------------------------------------------------------------------------------------------------------------


class _Entries(ast.NodeTransformer):
    """Puts entries in place of fields, in one function.

    Attributes
    ----------
    found : list of (old node, new node)
    """

    def __init__(self, label: str, known: dict[str, Fields], function: Function, file: str, lines: list[str]):
        self.label, self.function, self.file, self.lines = label, function, file, lines
        self.found: list[tuple[ast.Attribute, ast.expr]] = []
        stored = _stored(function)
        self._known = {name: fields for name, fields in known.items() if not stored[name]}
        self._assigned = {name: fields for name, fields in known.items() if stored[name]}
        self._add_aliases(stored)

    def rewritten(self) -> Function:
        function = self.function
        if isinstance(function, ast.Lambda):
            function.body = self.visit(function.body)
        else:
            function.body = [self.visit(statement) for statement in function.body]
        return function

    def _add_aliases(self, stored: Counter[str]) -> None:
        """Local variables that are another name of an argument: all that is ever assigned to them is this."""
        arguments = _parameters(self.function)
        pairs = [pair for node in own_nodes(self.function) if isinstance(node, ast.Assign) for pair in _assignments(node)]
        for target, value in pairs:
            if not (isinstance(target, ast.Name) and isinstance(value, ast.Name) and value.id in self._known):
                continue
            if stored[target.id] == 1 and target.id not in arguments:
                self._known[target.id] = self._known[value.id]

    def visit(self, node: ast.AST) -> Any:
        if not isinstance(node, SCOPES):
            return super().visit(node)
        outside, inside = self._known, _stored(node) + Counter(_parameters(node))
        self._known = {name: fields for name, fields in outside.items() if name not in inside}
        try:
            return self.generic_visit(node)
        finally:
            self._known = outside

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if not isinstance(node.value, ast.Name) or node.attr in _OF_ARRAYS:
            return self.generic_visit(node)
        array = node.value.id
        if array in self._known:
            fields = self._known[array]
            if node.attr not in fields.places:
                names = ", ".join(map(str, fields.names)) or "none"
                raise self._error(node, f"uses {array}.{node.attr}, but the names that were declared for {array} are {names}")
            new = ast.copy_location(_entry(node, array, fields), node)
            self.found.append((node, new))
            return ast.fix_missing_locations(new)
        if array in self._assigned and node.attr in self._assigned[array].places:
            raise self._error(node, f"assigns to {array}, so it cannot use {array}.{node.attr}: use another variable")
        return node

    def _error(self, node: ast.expr, what: str) -> TypeError:
        line = self.lines[node.lineno - 1].strip()
        return TypeError(f"{self.label} {what} ({self.file}, line {node.lineno}: `{line}`).")


def _entry(node: ast.Attribute, array: str, fields: Fields) -> ast.expr:
    """What takes the place of a field: an entry, or a view."""
    shape, place = dict(fields.shapes)[node.attr], fields.places[node.attr]
    source, store = ast.Name(array, ast.Load()), node.ctx
    start, stop = ast.Constant(place.start), ast.Constant(place.stop)
    if not shape:
        return ast.Subscript(source, start, store)
    part = ast.Slice(start, stop)
    if len(shape) == 1:
        return ast.Subscript(source, part, store)
    lengths: list[ast.expr] = [ast.Constant(length) for length in shape]
    if len(shape) == 2:
        view = ast.Call(ast.Name(_AS_MATRIX, ast.Load()), [source, start, *lengths], [])
    else:
        reshape = ast.Attribute(ast.Subscript(source, part, ast.Load()), "reshape", ast.Load())
        view = ast.Call(reshape, [ast.Tuple(lengths, ast.Load())], [])
    if isinstance(store, ast.Load):
        return view
    return ast.Subscript(view, ast.Tuple([ast.Slice() for _ in shape], ast.Load()), store)


def _assignments(node: ast.Assign) -> list[tuple[ast.expr, ast.expr]]:
    """Targets and values, those of tuples one by one."""
    pairs = []
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple) and len(target.elts) == len(node.value.elts):
            pairs += list(zip(target.elts, node.value.elts, strict=True))
        else:
            pairs.append((target, node.value))
    return pairs


def _stored(scope: ast.AST) -> Counter[str]:
    """How often each name is given a value, in scopes inside too."""
    nodes = [node for node in ast.walk(scope) if node is not scope]
    names = [node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)]
    others = [getattr(node, "name", None) for node in nodes]  # functions inside, and what follows `as`
    return Counter(names + [name for name in others if isinstance(name, str)])


def _parameters(scope: ast.AST) -> list[str]:
    arguments = getattr(scope, "args", None)
    return [node.arg for node in ast.walk(arguments) if isinstance(node, ast.arg)] if arguments is not None else []


# --- the function ---------------------------------------------------------------------------------------------------------------


def _show_entries(function: types.FunctionType, lines: list[str], made: _Entries) -> None:
    """Let `inspect.getsource` find the source with entries, at the same lines of a file that exists in memory only."""
    code, text = function.__code__, [line.encode() for line in lines]
    for old, new in sorted(made.found, key=lambda pair: (pair[0].lineno, pair[0].col_offset), reverse=True):
        _replace(text, old, ast.unparse(new).encode())
    source = b"".join(text).decode()
    if not any(is_here(node, code) and ast.dump(node) == ast.dump(made.function) for node in parsed(source)[0]):
        return  # places inside of an f-string are not those of the file before Python 3.12
    file = f"<adjode: {code.co_filename} with entries {hash(source):x}>"
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
    shown = types.FunctionType(code.replace(co_filename=file), function.__globals__, function.__name__, None, function.__closure__)
    function.__wrapped__ = shown  # type: ignore[attr-defined] # which getsource follows


def _replace(text: list[bytes], old: ast.Attribute, new: bytes) -> None:
    """Put `new` in place of a node, on as many lines: the last of them begins behind the first bracket."""
    first, last = old.lineno - 1, (old.end_lineno or old.lineno) - 1
    bracket = next(k for k, character in enumerate(new) if character in b"[(") + 1
    before, behind = text[first][: old.col_offset] + new[:bracket], new[bracket:] + text[last][old.end_col_offset :]
    if first == last:
        text[first] = before + behind
        return
    indent = text[last][: len(text[last]) - len(text[last].lstrip())]
    text[first : last + 1] = [before + b"\n", *[b"\n"] * (last - first - 1), indent + behind]
