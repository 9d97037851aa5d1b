"""The text of the Jacobian df/du of straight-line code: one assignment for each entry that is not zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.activity import Activity
from adjode.derivation.deriving import reading, written
from adjode.derivation.forward import Tangents
from adjode.derivation.nodes import Node

_MOST = 400  # entries; products with unit vectors are shorter beyond


def jac_text(function: Callable, arguments: tuple[str, ...], name: str) -> tuple[str, dict[str, Any]] | None:
    """The text of `jac(t, u, theta, J)` and the names that it uses; None for code with loops or branches, or with many entries.

    Raises
    ------
    TypeError
        If f has something in it that cannot be differentiated here.
    """
    with reading(function, arguments) as own:
        values = _values(own)
        u = own.arguments["u"]
        states = None if values is None else {i: _states(value, u) for i, value in values.items()}
        if values is None or states is None or None in states.values() or sum(map(len, states.values())) > _MOST:  # type: ignore[arg-type]
            return None
        J = N.symbol("f", (u.shape[0], u.shape[0]))
        stores = _entries(J, values, states, Activity(own.body, {u}))  # type: ignore[arg-type]
        zeros = [] if len(stores) == len(values) ** 2 and not _is_filled(own) else [P.Store(J, (), N.ZERO)]
        block = P.Block([*zeros, *stores])
        taken = {x: symbol for x, symbol in own.arguments.items() if x != "du"}
        return written(own, name, {**taken, "J": J}, block)


def _values(own: P.Function) -> dict[int, Node] | None:
    """What each entry of du is; None if that is not said in so many words."""
    result = own.result
    values: dict[int, Node] = {}
    assert result is not None
    for s in own.body.statements:
        if isinstance(s, P.Alloc) and s.symbol is result and (s.fill is None or N.is_zero(s.fill)):
            continue
        index = N.value_of(s.indices[0]) if isinstance(s, P.Store) and s.array is result and len(s.indices) == 1 else None
        if index is None or index < 0 or (s.adds and index not in values):  # type: ignore[attr-defined]
            return None
        values[index] = N.add(values[index], s.value) if s.adds else s.value  # type: ignore[attr-defined]
    return values or None


def _is_filled(own: P.Function) -> bool:
    """Whether du has entries that nothing is written to."""
    return any(isinstance(s, P.Alloc) and s.symbol is own.result and s.fill is not None for s in own.body.statements)


def _states(value: Node, u: Node) -> set[Node] | None:
    """The entries of u in an expression; None if they are not known, or if it has others besides."""
    found, todo, seen = set(), [value], set()
    while todo:
        node = todo.pop()
        if node in seen or u not in node.deps or node.op == "size":
            continue
        seen.add(node)
        if node.op == "load" and node.args[0] is u:
            if (N.value_of(node.args[1]) or 0) < 0 or N.value_of(node.args[1]) is None:
                return None
            found.add(node)
        elif node is u or node.op in N.VIEWS or node.shape:
            return None
        else:
            todo += node.nodes
    return found


class _Partial(Tangents):
    """Derivatives by one entry of u."""

    def __init__(self, entry: Node, active: Activity):
        self.entry, self.active, self.hints, self._known = entry, active, {}, {}

    def calculated(self, node: Node, value: Callable[[Node], Node]) -> Node | None:
        if node.op == "load":
            return N.ONE if node is self.entry else None
        return super().calculated(node, value)


def _entries(J: Node, values: dict[int, Node], states: dict[int, set[Node]], active: Activity) -> list[P.Statement]:
    entries = sorted({entry for there in states.values() for entry in there}, key=lambda entry: N.value_of(entry.args[1]))
    partials = {entry: _Partial(entry, active) for entry in entries}
    stores: list[P.Statement] = []
    for i in sorted(values):
        for entry in entries:
            dot = partials[entry].of(values[i]) if entry in states[i] else None
            if dot is not None:
                stores.append(P.Store(J, (N.const(i), N.const(N.value_of(entry.args[1]))), dot))
    return stores
