"""Reverse mode: from the program of f to that of its vjp.

The program runs forward once, and then each statement again, in the opposite order, with cotangents. What a statement in a loop
needs is calculated anew in the loop that runs back; what a loop carries from one iteration to the next is kept on a *tape*. Most of
that turns out not to be needed: `liveness` takes away what nobody reads, in the end the whole first run.
"""

from __future__ import annotations

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.activity import Activity
from adjode.derivation.dependence import Places
from adjode.derivation.nodes import Node
from adjode.derivation.sweeping import Sweep
from adjode.derivation.taping import Lost, Taping


class Reverse:
    """The transpose of a function.

    Parameters
    ----------
    function : Function
    bars : dict of Node
        For each array that is differentiated by, the array of its cotangent, which is added to.
    lam : Node
        The cotangent of the result.
    loaded, lost
        See `taping`.
    """

    def __init__(self, function: P.Function, bars: dict[Node, Node], lam: Node, loaded: dict[P.Statement, P.Store], lost: Lost):
        self.function = function
        self.taping = Taping(function, self.hint, loaded, lost)
        self.active = Activity(function.body, set(bars))
        self.inputs = frozenset(bars)
        self.bars = dict(bars)  # of memory and arguments
        self.anchors: dict[Node, Node] = {}
        self.places = Places(function.body, self.active)
        self.lam, self.is_fixed = lam, False
        for statement in function.body.walk():
            if isinstance(statement, P.Let):
                self.anchors[statement.value] = statement.symbol

    def block(self) -> P.Block:
        """The whole program of the transpose."""
        result = self.function.result
        forward = self.taping.forward(self.function.body)
        backward = Sweep(self, self.function.body, None)
        if result is not None and result.shape:
            self.is_fixed = not self.places.is_reused(result)
            if self.is_fixed:
                self.bars[result] = self.lam
            else:
                self.bars[result] = copy = N.symbol("f", result.shape)
                self.function.memory.add(copy)
                self.function.hints[copy] = f"{self.function.hints.get(result, 'du')}_bar"
                backward.out.add(P.Alloc(copy, self.lam))
        elif result is not None:
            backward.gain(result, self.lam)
        backward.run()
        backward.finish()
        return P.Block([*forward.statements, *backward.out.statements])

    def is_whole(self, product: Node) -> bool:
        """Whether a product has a name, the user's or that of its cotangent."""
        return product in self.function.hints

    def hint(self, node: Node, of: Node, ending: str = "_bar") -> None:
        name = self.function.hints.get(of) or self._entry(of)
        if name is not None and node.op not in ("const", "named", "load"):
            self.function.hints.setdefault(node, name + ending)

    def bar_view(self, array: Node, base: Node) -> Node:
        """The part of the cotangents of an array that belongs to a view of it."""
        part = N.on(array, base)
        if part is not base:
            self.hint(part, array)
        return part

    def _entry(self, node: Node) -> str | None:
        """What an entry of an array is called that the user has not named: `u_i`, `theta_0`."""
        if node.op != "load":
            return None
        array = self.function.hints.get(N.root(node.args[0]))
        parts = [str(N.value_of(i)) if i.op == "const" else self.function.hints.get(i) for i in node.args[1:]]
        known = [part for part in (array, *parts) if part is not None]
        return "_".join(known) if len(known) == len(parts) + 1 and "-" not in "".join(known) else None
