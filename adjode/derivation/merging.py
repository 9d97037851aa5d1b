"""What two branches leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.nodes import Node
from adjode.derivation.objects import Dictionary, Object, Raises, Undefined, with_items
from adjode.derivation.refusals import Refusal


class Merge:
    """What two branches leave, as one value."""

    def __init__(self, memory: set[Node], hint: Callable[[str, Node], None], statement: P.If, pure: bool):
        self.memory, self.hint, self.statement, self.pure = memory, hint, statement, pure
        self.known: dict[tuple[Node, Node], Node] = {}

    def values(self, a: Any, b: Any, name: str | None) -> Any:
        if a is b or (isinstance(a, Object) and isinstance(b, Object) and a.value is b.value):
            return a
        if (a is Raises) != (b is Raises):
            known = b if a is Raises else a
            if not isinstance(known, (Node, tuple)):
                return known
            zero = N.ZERO if isinstance(known, Node) and not known.shape else known  # never seen
            a, b = (zero, b) if a is Raises else (a, zero)
        if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
            return with_items(a, [self.values(x, y, None) for x, y in zip(a, b, strict=True)])
        if isinstance(a, Dictionary) and isinstance(b, Dictionary) and list(a.value) == list(b.value):
            return Dictionary({key: self.values(a.value[key], b.value[key], None) for key in a.value}, a.text, a.nest)
        if not (isinstance(a, Node) and isinstance(b, Node)) or len(a.shape) != len(b.shape):
            if name is None:
                raise Refusal("the branches return different things", "return the same kind in each")
            return Undefined
        if N.root(a) in self.memory or N.root(b) in self.memory:
            raise Refusal("a name refers to one array or another", "write into one array in both branches")
        return self.nodes(a, b, name)

    def nodes(self, a: Node, b: Node, name: str | None) -> Node:
        if self.pure and not a.shape:
            result = N.where(self.statement.condition, a, b)
        elif (a, b) in self.known:
            result = self.known[a, b]
        else:
            kind = "f" if "f" in (a.kind, b.kind) else a.kind if a.kind == b.kind else "i"
            result = self.known[a, b] = N.symbol(kind, a.shape)
            a, b = (N.as_float(a), N.as_float(b)) if kind == "f" else (a, b)
            self.statement.results.append(P.Result(result, a, b))
        if name is not None:
            self.hint(name, result)
        return result
