"""Programs: blocks of statements, each of which defines symbols or writes into an array.

Numbers have one definition each. What a loop or a branch changes is in the lists `carried` and `results`; arrays that are written
into entry by entry are *memory*, and what is read from them has its place among the statements.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from adjode.derivation.nodes import Node


@dataclass(eq=False)
class Block:
    statements: list[Statement] = field(default_factory=list)

    def add(self, statement: Statement) -> None:
        self.statements.append(statement)

    def walk(self) -> Iterator[Statement]:
        """All statements, also those inside of others."""
        for statement in self.statements:
            yield statement
            for block in statement.blocks:
                yield from block.walk()


@dataclass(eq=False)
class Statement:
    """`uses` are the nodes that it evaluates itself, `defines` the symbols that are known behind it.

    `late` marks what belongs to the way back.
    """

    late = False

    @property
    def blocks(self) -> tuple[Block, ...]:
        return ()

    @property
    def uses(self) -> tuple[Node, ...]:
        return ()

    @property
    def defines(self) -> tuple[Node, ...]:
        return ()

    @property
    def needs(self) -> tuple[Node, ...]:
        """The nodes that it evaluates, also at the ends of its blocks; not those of the statements inside."""
        return self.uses


@dataclass(eq=False)
class Let(Statement):
    """`symbol = value`, evaluated here: it reads memory."""

    symbol: Node
    value: Node

    @property
    def uses(self):
        return (self.value,)

    @property
    def defines(self):
        return (self.symbol,)


@dataclass(eq=False)
class Read(Statement):
    """`symbol = array[indices]`; without indices the array itself, as it is here. `array` is a view of memory."""

    symbol: Node
    array: Node
    indices: tuple[Node, ...]

    @property
    def uses(self):
        return (self.array, *self.indices)

    @property
    def defines(self):
        return (self.symbol,)


@dataclass(eq=False)
class Alloc(Statement):
    """New memory: of the shape of its symbol, filled with a constant, or as it comes (None), or a copy of an array."""

    symbol: Node
    fill: Node | None
    dtype: str = "f"

    @property
    def uses(self):
        if self.fill is None:
            return self.symbol.shape
        return (self.fill,) if self.fill.shape else (*self.symbol.shape, self.fill)

    @property
    def defines(self):
        return (self.symbol,)


@dataclass(eq=False)
class Store(Statement):
    """`array[indices] = value`, or `+=`; without indices every entry of the view."""

    array: Node
    indices: tuple[Node, ...]
    value: Node
    adds: bool = False

    @property
    def uses(self):
        return (self.array, *self.indices, self.value)


@dataclass(eq=False)
class Carried:
    """What a loop changes: `phi` is its value at the start of an iteration, `after` that behind the loop."""

    phi: Node
    start: Node
    next: Node
    after: Node


@dataclass(eq=False)
class For(Statement):
    index: Node
    start: Node
    stop: Node
    step: Node
    body: Block
    carried: list[Carried]
    backwards: bool = False

    @property
    def blocks(self):
        return (self.body,)

    @property
    def uses(self):
        return (self.start, self.stop, self.step, *(c.start for c in self.carried))

    @property
    def defines(self):
        return tuple(c.after for c in self.carried)

    @property
    def needs(self):
        return (*self.uses, *(c.next for c in self.carried))

    @property
    def inside(self) -> tuple[Node, ...]:
        """The symbols that it defines for its body."""
        return (self.index, *(c.phi for c in self.carried))


@dataclass(eq=False)
class While(Statement):
    condition: Node
    body: Block
    carried: list[Carried]

    @property
    def blocks(self):
        return (self.body,)

    @property
    def uses(self):
        return tuple(c.start for c in self.carried)

    @property
    def defines(self):
        return tuple(c.after for c in self.carried)

    @property
    def needs(self):
        return (*self.uses, self.condition, *(c.next for c in self.carried))

    @property
    def inside(self) -> tuple[Node, ...]:
        return tuple(c.phi for c in self.carried)


@dataclass(eq=False)
class Result:
    """What a branch decides: `symbol` is `then` or `other`."""

    symbol: Node
    then: Node
    other: Node


@dataclass(eq=False)
class If(Statement):
    condition: Node
    then: Block
    other: Block
    results: list[Result]

    @property
    def blocks(self):
        return (self.then, self.other)

    @property
    def uses(self):
        return (self.condition,)

    @property
    def defines(self):
        return tuple(r.symbol for r in self.results)

    @property
    def needs(self):
        return (*self.uses, *(end for _, ends in self.sides for end in ends))

    @property
    def sides(self) -> tuple[tuple[Block, list[Node]], tuple[Block, list[Node]]]:
        """Each branch, and what the results are behind it."""
        return (self.then, [r.then for r in self.results]), (self.other, [r.other for r in self.results])


@dataclass
class Function:
    """What a source says.

    Attributes
    ----------
    name : str
    arguments : dict of Node
        By name: t, u, theta, ... in order.
    result : Node or None
        Where results are written: an argument, or memory that is returned; a number that is returned.
    body : Block
    hints : dict of str
        What the user calls a node.
    space : dict
        The names that its text may use: modules, functions, constants.
    memory : set of Node
        The arrays that are written into.
    tables : dict of array
        The arrays outside that it reads.
    """

    name: str
    arguments: dict[str, Node]
    result: Node | None
    body: Block
    hints: dict[Node, str]
    space: dict[str, object]
    memory: set[Node]
    tables: dict[Node, np.ndarray] = field(default_factory=dict)
