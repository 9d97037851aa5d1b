"""Where each expression is evaluated, and which ones get a name: what is needed twice, and what a loop need not repeat."""

from __future__ import annotations

import heapq
from collections.abc import Container
from dataclasses import dataclass, field

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.nodes import Node


@dataclass(eq=False)
class Scope:
    """A block while it is written."""

    block: P.Block
    above: Scope | None
    is_loop: bool
    binds: set[Node] = field(default_factory=set)

    def chain(self):
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.above


class Placing:
    """`scopes` by block; `count[node, scope]` is how often a node that is evaluated in a scope is needed."""

    def __init__(self, block: P.Block, hints: Container[Node], returned: Node | None = None):
        self.hints = hints
        self.scopes: dict[P.Block, Scope] = {}
        self.places: dict[Node, list[Scope]] = {}
        self.count: dict[tuple[Node, Scope], int] = {}
        self.inner: set[tuple[Node, Scope]] = set()  # what is needed in a loop inside of the scope
        self.symbol_uses: dict[Node, int] = {}
        self.users: dict[Node, set[int]] = {}  # by symbol, the places in statements that it is needed for
        self.slots: dict[tuple, int] = {}
        self._queue: list[tuple[int, int, Node]] = []
        self._wanted: dict[Node, list[Scope]] = {}
        whole = Scope(block, None, False)
        self._visit(block, whole)
        if returned is not None:
            self._use(returned, whole, (block, "returned"))
        self._place()

    def _visit(self, block: P.Block, scope: Scope) -> None:
        self.scopes[block] = scope
        for statement in block.statements:
            scope.binds |= set(statement.defines)
            for k, node in enumerate(statement.uses):
                self._use(node, scope, (statement, k))
            if isinstance(statement, (P.For, P.While)):
                inside = Scope(statement.body, scope, True, set(statement.inside))
                self._visit(statement.body, inside)
                for c in statement.carried:
                    self._use(c.next, inside, (c, "next"))
                if isinstance(statement, P.While):
                    self._use(statement.condition, inside, (statement, "condition"))
            elif isinstance(statement, P.If):
                for side, ends in statement.sides:
                    inside = Scope(side, scope, False)
                    self._visit(side, inside)
                    for result, end in zip(statement.results, ends, strict=True):
                        self._use(end, inside, (result, side))

    def _use(self, node: Node, scope: Scope, slot: tuple) -> None:
        number = self.slots.setdefault(slot, len(self.slots))
        for symbol in node.deps:
            self.users.setdefault(symbol, set()).add(number)
        self.want(node, scope)

    def is_used_only(self, symbol: Node, *slots: tuple) -> bool:
        """Whether nothing but these places needs a symbol."""
        return self.users.get(symbol, set()) <= {self.slots[slot] for slot in slots}

    def want(self, node: Node, scope: Scope) -> None:
        if node.op == "sym":
            self.symbol_uses[node] = self.symbol_uses.get(node, 0) + 1
        elif node.op not in ("const", "named"):
            if node not in self._wanted:
                self._wanted[node] = []
                heapq.heappush(self._queue, (-node.serial, id(node), node))
            self._wanted[node].append(scope)

    def _place(self) -> None:
        while self._queue:
            _, _, node = heapq.heappop(self._queue)
            wanted = self._wanted.pop(node)
            targets = [self._target(node, scope) for scope in wanted]
            final: list[Scope] = []
            for target in sorted(set(targets), key=lambda s: len(list(s.chain()))):
                if not any(scope in final for scope in target.chain()):
                    final.append(target)
            self.places[node] = final
            for target, scope in zip(targets, wanted, strict=True):
                place = next(s for s in target.chain() if s in final)
                self.count[node, place] = self.count.get((node, place), 0) + 1
                if any(s.is_loop for s in scope.chain() if s not in set(place.chain())):
                    self.inner.add((node, place))
            for place in final:
                key = (node, place)
                named = is_named(node, self.count[key], key in self.inner, node in self.hints, place.is_loop)
                times = 1 if named else min(self.count[key], 3)
                for arg in node.nodes * times:
                    self.want(arg, place)

    def _target(self, node: Node, scope: Scope) -> Scope:
        """The block to evaluate a node in that is needed in a scope: outside of loops, but not of branches."""
        while scope.above is not None and scope.is_loop and node.deps.isdisjoint(scope.binds):
            scope = scope.above
        return scope

    def place_of(self, node: Node, scope: Scope) -> Scope | None:
        """Where a node is evaluated that is needed in a scope."""
        final = self.places.get(node, ())
        return next((s for s in scope.chain() if s in final), None)


_CHEAP = {"item", "size", "slice", "T", "trips"}


def is_named(node: Node, count: int, inner: bool, hinted: bool, in_loop: bool = False) -> bool:
    """Whether an expression gets a name of its own."""
    if node.op == "size":
        return hinted and count > 1
    if node.op in ("sym", "const", "named", *_CHEAP):
        return node.op == "slice" and bool(node.shape) and ((hinted and count > 1) or inner)
    if node.op == "load":
        is_computed = any(index.op not in ("sym", "const") for index in node.args[1:])
        return count > 1 and (hinted or (in_loop and (is_computed or count > 2)))
    if node.op in ("matrix", "reshape"):
        return count > 1 or inner
    if node.op == "neg" and node.args[0].op in ("sym", "load", "const", "named"):
        return False
    if node.kind == "i" and not _is_slow(node):
        return hinted and count > 1
    return count > 1 or (inner and (_is_slow(node) or node.kind == "f"))


def _is_slow(node: Node) -> bool:
    return node.op in ("mod", "floordiv", "div", "call", "taught", "pow", "dot", "solve", "sum") or any(
        _is_slow(arg) for arg in node.nodes if arg.op != "load"
    )


__all__ = ["N", "Placing", "Scope", "is_named"]
