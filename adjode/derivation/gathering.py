"""Loops that scatter gains over neighbours become loops that gather them, which compilers vectorise.

`x_bar[(i + 1) % n] += g(i)` for all i below n is `x_bar[i] += g((i - 1) % n)`. Where neighbours are not periodic, each of them gets
a loop of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.dependence import affine
from adjode.derivation.nodes import Node
from adjode.derivation.substitution import parts, substituted
from adjode.derivation.sums import addends, summed

_LIGHT = 48  # operations that may be repeated for the sake of a loop of their own


def gathered(block: P.Block, arrays: set[Node], whole: Callable[[Node], bool]) -> None:
    """Change the loops of the way back that add to `arrays`, which nothing reads."""
    statements: list[P.Statement] = []
    for statement in block.statements:
        statements.append(statement)
        if isinstance(statement, P.For) and statement.late and not statement.backwards:
            _gather(statement, [statement], arrays, whole)
            statements += _split(statement, arrays)
    block.statements[:] = statements


def _gather(loop: P.For, nest: list[P.For], arrays: set[Node], whole: Callable[[Node], bool]) -> None:
    body = loop.body
    if len(body.statements) == 1 and isinstance(body.statements[0], P.For) and not body.statements[0].backwards:
        _gather(body.statements[0], [*nest, body.statements[0]], arrays, whole)
        return
    lets = _lets(body)
    if lets is None:
        return
    inside = {s for one in nest for s in one.inside} - {one.index for one in nest}
    merged: dict[tuple, list[tuple[P.Store, Node]]] = {}
    changed = False
    for store in [s for s in body.statements if isinstance(s, P.Store)]:
        value = substituted(store.value, lets)
        if store.array not in arrays or len(store.indices) != 1 or not store.adds or not value.deps.isdisjoint(inside):
            continue
        index, moves = _turned(store.indices[0], nest)
        if index is None:
            continue
        changed = changed or bool(moves)
        merged.setdefault((store.array, index), []).append((store, substituted(value, moves) if moves else value))
    if not changed:
        return
    for (_, index), group in merged.items():
        first = group[0][0]
        for store, _ in group[1:]:
            body.statements.remove(store)
        first.indices, first.value = (index,), summed([part for _, value in group for part in addends(value)], whole)


def _lets(body: P.Block) -> dict[Node, Node] | None:
    """What is calculated in a body that does nothing else but store; None if it does."""
    lets: dict[Node, Node] = {}
    for statement in body.statements:
        if isinstance(statement, P.Let):
            lets[statement.symbol] = substituted(statement.value, lets)
        elif not isinstance(statement, P.Store):
            return None
    return lets


def _turned(index: Node, nest: list[P.For]) -> tuple[Node | None, dict[Node, Node]]:
    """An index in which `(i + c) % n` has become i, and what i becomes in return; None where i is there as well."""
    places, moves = {}, {}
    for loop in nest:
        i, n = loop.index, loop.stop
        if i not in index.deps or loop.start is not N.I0 or N.value_of(loop.step) != 1:
            continue
        found = {node for node in parts(index) if node.op == "mod" and node.args[1] is n and affine(node.args[0])[0] == {i: 1}}
        if len(found) == 1:
            shifted = found.pop()
            places[shifted] = i
            moves[i] = N.whole("mod", N.sub(i, N.const(affine(shifted.args[0])[1])), n)
    result = substituted(index, places)
    symbols = {i: N.symbol("i") for i in moves}
    left = substituted(index, {node: symbols[i] for node, i in places.items()})
    if any(i in left.deps for i in moves):
        return None, {}
    return result, moves


# --- loops of their own -----------------------------------------------------------------------------------------------------


def _split(loop: P.For, arrays: set[Node]) -> list[P.For]:
    """Stores to neighbours of an entry that is stored to as well, taken out of a loop, each into one of its own."""
    lets = _lets(loop.body)
    if lets is None:
        return []
    stores = [s for s in loop.body.statements if isinstance(s, P.Store) and s.array in arrays and s.adds and len(s.indices) == 1]
    based = {store.array for store in stores if store.indices[0] is loop.index}
    loops = []
    for store in stores:
        terms, shift = affine(store.indices[0])
        value = substituted(store.value, lets)
        moved = terms == {loop.index: 1} and shift and store.array in based
        if moved and value.deps.isdisjoint({c.phi for c in loop.carried}) and _is_light(value):
            loop.body.statements.remove(store)
            alone = P.Store(store.array, store.indices, value, adds=True)
            own = P.For(loop.index, loop.start, loop.stop, loop.step, P.Block([alone]), [])
            own.late = alone.late = True
            loops.append(own)
    return loops


def _is_light(node: Node) -> bool:
    nodes = list(parts(node))
    return len(nodes) <= _LIGHT and all(
        n.op in ("add", "sub", "mul", "neg", "load", "sym", "const", "named", "size") for n in nodes
    )
