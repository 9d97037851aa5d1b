"""The graph of expressions: what is equal is one node."""

from __future__ import annotations

import itertools
import threading
import weakref


class Node:
    """One expression.

    Attributes
    ----------
    op : str
    args : tuple
        Nodes, and what else tells this operation from others.
    kind : "f", "i" or "b"
        A float, an integer, a truth value; of the entries, if it is an array.
    shape : tuple of Node
        The lengths of the axes; () for a number.
    serial : int
        Larger than those of its arguments.
    deps : frozenset of Node
        The symbols that it depends on.
    """

    __slots__ = ("__weakref__", "args", "deps", "kind", "op", "serial", "shape")

    def __init__(self, op: str, args: tuple, kind: str, shape: tuple[Node, ...], serial: int):
        self.op, self.args, self.kind, self.shape, self.serial = op, args, kind, shape, serial
        self.deps: frozenset[Node] = frozenset((self,)) if op == "sym" else frozenset().union(*(a.deps for a in self.nodes))

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The arguments that are nodes, also those inside of a slice."""
        return tuple(_nodes_in(self.args))

    def __repr__(self) -> str:
        return f"{self.op}({', '.join(map(repr, self.args))})" if self.op != "sym" else f"sym{self.serial}"


def _nodes_in(args: tuple):
    for arg in args:
        if isinstance(arg, Node):
            yield arg
        elif isinstance(arg, tuple):
            yield from _nodes_in(arg)


_lock = threading.Lock()
_serials = itertools.count()
_known: weakref.WeakValueDictionary[tuple, Node] = weakref.WeakValueDictionary()


def make(op: str, args: tuple, kind: str, shape: tuple[Node, ...] = ()) -> Node:
    """The node with this operation and these arguments."""
    key = (op, kind, _key(args))
    with _lock:
        node = _known.get(key)
        if node is None:
            node = _known[key] = Node(op, args, kind, shape, next(_serials))
        return node


def _key(args: tuple) -> tuple:
    return tuple(id(a) if isinstance(a, Node) else _key(a) if isinstance(a, tuple) else (type(a), repr(a)) for a in args)


def symbol(kind: str = "f", shape: tuple[Node, ...] = ()) -> Node:
    """A new symbol."""
    with _lock:
        return Node("sym", (), kind, shape, next(_serials))
