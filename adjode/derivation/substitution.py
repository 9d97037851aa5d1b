"""Expressions with others in place of some of their parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adjode.derivation import nodes as N
from adjode.derivation.dependence import affine
from adjode.derivation.nodes import Node


def parts(node: Node) -> Iterator[Node]:
    """A node and all that it is made of."""
    yield node
    for arg in node.nodes:
        yield from parts(arg)


def substituted(node: Node, changes: dict[Node, Node], known: dict[Node, Node] | None = None) -> Node:
    """An expression with others in place of some of its parts."""
    if node in changes:
        return changes[node]
    if not changes or not node.args or (node.deps.isdisjoint(set().union(*(c.deps for c in changes)))):
        return node
    known = {} if known is None else known
    if node not in known:
        known[node] = _rebuilt(node, tuple(_changed(arg, changes, known) for arg in node.args))
    return known[node]


def _changed(arg: object, changes: dict[Node, Node], known: dict[Node, Node]) -> object:
    if isinstance(arg, Node):
        return substituted(arg, changes, known)
    return tuple(_changed(a, changes, known) for a in arg) if isinstance(arg, tuple) else arg


def _rebuilt(node: Node, args: tuple) -> Node:
    simple: dict[str, Any] = {"add": N.add, "sub": N.sub, "mul": N.mul, "div": N.div, "neg": N.neg}
    if node.op in simple:
        return simple[node.op](*args)
    if node.op == "mod" and node.kind == "i":
        return _mod(*args)
    return N.make(node.op, args, node.kind, node.shape)


def _mod(a: Node, n: Node) -> Node:
    """`((i + c) % n + d) % n` is `(i + c + d) % n`, and for an index i below n, `i % n` is i."""
    terms, shift = affine(a)
    inner = next((t for t, factor in terms.items() if t.op == "mod" and t.args[1] is n and factor == 1), None)
    if inner is not None and len(terms) == 1:
        a = N.add(inner.args[0], N.const(shift))
        terms, shift = affine(a)
        if shift == 0 and len(terms) == 1:
            return next(iter(terms))
    return N.whole("mod", a, n)
