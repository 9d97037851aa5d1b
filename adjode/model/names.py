"""Names of entries against those that a callback gives to them: callbacks take entries by position, dicts have names.

`growth, hunting, death = theta` and `growth = theta[0]` in the source of f say which name belongs to which position.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import warnings
from collections.abc import Callable

from adjode.model.layout import Layout


def require_order(layout: Layout, unpacked: dict[str, int], seen: dict[frozenset[str], list[str]]) -> None:
    """Raise a ValueError if named entries lie elsewhere than f looks for them, or came in another order before.

    Parameters
    ----------
    layout : Layout
        With names.
    unpacked : dict of name -> position
        See `unpacked_names`.
    seen : dict
        The orders of earlier calls, to which this one is added.
    """
    assert layout.names is not None
    position, moved = 0, "the callbacks take entries by their position, so give them in that order"
    for name, size in layout.names.items():
        if size == 1 and unpacked.get(name, position) != position:
            raise ValueError(
                f"{layout.name}[{name!r}] is entry {position}, but f takes {name} from entry {unpacked[name]}: {moved}."
            )
        position += size
    if layout.is_declared:
        return
    order = seen.setdefault(frozenset(layout.names), list(layout.names))
    if order != list(layout.names):
        raise ValueError(
            f"{layout.name} has the entries {list(layout.names)}, which came in the order {order} before: {moved}; if the earlier "
            f"one was wrong, make a new Dynamics."
        )


def warn_of_unread(layout: Layout, read: list[set[int] | None], stacklevel: int) -> None:
    """Warn of named entries that none of the callbacks reads; `read` has what each reads, None where that cannot be told."""
    if None in read:
        return
    unread = [name for k, name in enumerate(layout.entry_names()) if not any(k in entries for entries in read if entries)]
    if unread:
        message = f"no callback reads {', '.join(unread)}: is {layout.name} longer than f expects, or a name misspelt?"
        warnings.warn(message, UserWarning, stacklevel=stacklevel)


def unpacked_names(function: Callable, argument: int) -> dict[str, int]:
    """Which names the source of a function gives to entries of one of its arguments; those that it gives to one entry alone."""
    tree, found = _parsed(function), dict[str, set[int]]()
    if tree is None:
        return {}
    array = tree.args.args[argument].arg
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for name, position in _named(target, node.value, array):
                    found.setdefault(name, set()).add(position)
    return {name: positions.pop() for name, positions in found.items() if len(positions) == 1}


def entries_read(function: Callable, argument: int) -> set[int] | None:
    """Which entries of an argument a function reads; None where its source does not tell, as for `theta[i]` in a loop."""
    tree = _parsed(function)
    if tree is None:
        return None
    array, read, told, uses = tree.args.args[argument].arg, set[int](), 0, 0
    for node in ast.walk(tree):
        uses += isinstance(node, ast.Name) and node.id == array
        if (position := _entry(node, array)) is not None and position >= 0:
            read.add(position)
            told += 1
        elif isinstance(node, ast.Assign) and _is_name(node.value, array) and isinstance(node.targets[0], ast.Tuple):
            read.update(range(len(node.targets[0].elts)))
            told += not any(isinstance(part, ast.Starred) for part in node.targets[0].elts)
    return read if told == uses else None


def reads(function: Callable, argument: int) -> bool:
    """Whether a function reads one of its arguments; it may, where its source is not known."""
    tree = _parsed(function)
    return tree is None or any(_is_name(node, tree.args.args[argument].arg) for node in ast.walk(tree))


def _parsed(function: Callable) -> ast.FunctionDef | None:
    """None without source, or for a lambda."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError):
        return None
    return tree if isinstance(tree, ast.FunctionDef) else None


def _named(target: ast.expr, value: ast.expr, array: str) -> list[tuple[str, int]]:
    if isinstance(target, (ast.Tuple, ast.List)):
        if _is_name(value, array):
            return [(part.id, k) for k, part in enumerate(target.elts) if isinstance(part, ast.Name)]
        if isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts):
            return [found for pair in zip(target.elts, value.elts, strict=True) for found in _named(*pair, array)]
    position = _entry(value, array)
    return [(target.id, position)] if position is not None and isinstance(target, ast.Name) else []


def _entry(node: ast.AST, array: str) -> int | None:
    """k where the node is `array[k]` with a number k."""
    if isinstance(node, ast.Subscript) and _is_name(node.value, array) and isinstance(node.slice, ast.Constant):
        return node.slice.value if type(node.slice.value) is int else None
    return None


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
