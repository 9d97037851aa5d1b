"""Sums of what a cotangent gains, with common factors taken out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from adjode.derivation import nodes as N
from adjode.derivation.nodes import Node

Term = tuple[bool, list[Node]]  # whether it is negative, and its factors


def summed(gains: list[Node], whole: Callable[[Node], bool]) -> Node:
    """The sum of gains, in their order; numbers have their common factors taken out.

    `whole(product)` says that a product is to stay as it is.
    """
    if len(gains) == 1 or any(gain.shape for gain in gains):
        return _added(gains)
    return _factored([_term(gain, whole) for gain in gains])


def addends(node: Node) -> list[Node]:
    """The terms of a sum of numbers."""
    if node.op in ("add", "sub") and not node.shape:
        a, b = map(addends, node.args)
        return [*a, *(b if node.op == "add" else map(N.neg, b))]
    return [node]


def _added(gains: list[Node]) -> Node:
    result = gains[0]
    for gain in gains[1:]:
        result = N.add(result, gain)
    return result


def _term(gain: Node, whole: Callable[[Node], bool]) -> Term:
    negative = gain.op == "neg"
    return negative, _factors(gain.args[0] if negative else gain, whole)


def _factors(node: Node, whole: Callable[[Node], bool]) -> list[Node]:
    if node.op == "mul" and not whole(node):
        return [f for arg in node.args for f in _factors(arg, whole)]
    return [node]


def _factored(terms: list[Term]) -> Node:
    counts = Counter(f for _, factors in terms for f in dict.fromkeys(factors) if f.op != "const")
    often = max(counts.values(), default=0)
    if often < 2:
        return _sum_of(terms)
    factor = next(f for f, count in counts.items() if count == often)
    sharing = [factor in factors for _, factors in terms]
    if all(len(factors) == 1 for (_, factors), shares in zip(terms, sharing, strict=True) if shares):
        return _sum_of(terms)
    first = sharing.index(True)
    inside = [(negative, _without(factors, factor)) for (negative, factors), s in zip(terms, sharing, strict=True) if s]
    inner = _factored(inside)
    group: Term = (True, [factor, inner.args[0]]) if inner.op == "neg" else (False, [factor, inner])
    rest = [group if k == first else term for k, term in enumerate(terms) if k == first or not sharing[k]]
    return _factored(rest) if len(rest) > 1 else _sum_of(rest)


def _without(factors: list[Node], factor: Node) -> list[Node]:
    at = factors.index(factor)
    return factors[:at] + factors[at + 1 :] or [N.ONE]


def _sum_of(terms: list[Term]) -> Node:
    """The sum, what is added first; a term that comes again is counted."""
    result: Node | None = None
    for negative, product in sorted(_counted(terms), key=lambda term: term[0]):
        if result is None:
            result = N.neg(product) if negative else product
        else:
            result = N.sub(result, product) if negative else N.add(result, product)
    return N.ZERO if result is None else result


def _counted(terms: list[Term]) -> list[tuple[bool, Node]]:
    counts: dict[Node, int] = {}
    known: dict[tuple[int, ...], Node] = {}
    for negative, factors in terms:
        product = factors[0]
        for factor in factors[1:]:
            product = N.mul(product, factor)
        if product.op == "neg":
            negative, product = not negative, product.args[0]
        product = known.setdefault(tuple(sorted(f.serial for f in factors)), product)
        counts[product] = counts.get(product, 0) + (-1 if negative else 1)
    return [(n < 0, product if abs(n) == 1 else N.mul(N.const(float(abs(n))), product)) for product, n in counts.items() if n]
