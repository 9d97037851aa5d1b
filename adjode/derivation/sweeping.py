"""The way back: the transpose of a block, statement by statement."""

from __future__ import annotations

import functools
from typing import Any

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.nodes import Node
from adjode.derivation.rules import pushed
from adjode.derivation.sums import summed
from adjode.derivation.taping import trip_number


class Late(P.Block):
    """A block of the way back."""

    def add(self, statement: P.Statement) -> None:
        statement.late = True
        self.statements.append(statement)


class Sweep:
    """The transpose of one block.

    Parameters
    ----------
    reverse : Reverse
    block : Block
    above : Sweep or None
        That of the block around it.
    loop : For or While or None
        The loop whose body it is.
    """

    def __init__(self, reverse: Any, block: P.Block, above: Sweep | None, loop: P.For | P.While | None = None):
        self.reverse, self.source, self.above, self.loop = reverse, block, above, loop
        self.out = Late()
        self.gains: dict[Node, list[Node]] = {}
        self.counters: dict[Node, Node] = {}  # what a node outside of this loop has gained before an iteration
        self.own = {s for statement in block.walk() for s in statement.defines}
        self.own |= {s for statement in block.walk() if isinstance(statement, (P.For, P.While)) for s in statement.inside}
        if loop is not None:
            self.own |= set(loop.inside)
        self._evaluated: set[Node] | None = None

    # --- cotangents -----------------------------------------------------------------------------------------------------------

    def gain(self, node: Node, bar: Node) -> None:
        if node in self.reverse.active and not N.is_zero(bar):
            self.gains.setdefault(node, []).append(bar)

    def taken(self, node: Node) -> Node | None:
        """The cotangent of a node, which has all that it gains by now; None if that is nothing."""
        gains = self.gains.pop(node, None)
        if gains is None:
            return None
        bar = summed(gains[::-1], self.reverse.is_whole)
        self.reverse.hint(bar, node)
        return bar

    def push(self, symbols: tuple[Node, ...] | None = None) -> None:
        """Hand the cotangents of operations on to their arguments: of those that depend on the symbols, or of all own ones."""
        while True:
            ready = [n for n in self.gains if n.op not in ("sym", "load") and not self._is_input(n) and self._is_due(n, symbols)]
            if not ready:
                return
            node = max(ready, key=lambda n: n.serial)
            bar = self.taken(node)
            if bar is None:
                continue
            for arg, more in pushed(node, self._named(bar, node), self.value):
                self.gain(arg, more)

    def _named(self, bar: Node, of: Node) -> Node:
        """The cotangent of what the user has named, as a variable of its own."""
        if of not in self.reverse.function.hints or bar.op in ("sym", "load", "const", "named") or bar.shape:
            return bar
        if bar.op == "neg" and bar.args[0].op in ("sym", "load"):
            return bar
        let = P.Let(N.symbol("f"), bar)
        self.reverse.function.hints.pop(bar, None)
        self.reverse.hint(let.symbol, of)
        self.out.add(let)
        return let.symbol

    def value(self, node: Node) -> Node:
        """How the value of an operation is had again: it may have been calculated, from memory, once and for all."""
        symbol = self.reverse.anchors.get(node)
        sweep: Sweep | None = self
        while symbol is not None and sweep is not None:
            if symbol in sweep.defined:
                return symbol
            sweep = sweep.above
        return node

    @functools.cached_property
    def defined(self) -> set[Node]:
        """What the statements of this block define behind them."""
        return {symbol for statement in self.source.statements for symbol in statement.defines}

    def _is_due(self, node: Node, symbols: tuple[Node, ...] | None) -> bool:
        if symbols is not None:
            return not node.deps.isdisjoint(symbols)
        return self.is_own(node)

    def _is_input(self, node: Node) -> bool:
        return node.op in ("sym", "slice", "reshape", "matrix") and N.root(node) in self.reverse.inputs

    def is_own(self, node: Node) -> bool:
        """Whether a node belongs to this block: the one around it does not know it."""
        if self.above is None or self._is_input(node):
            return True
        if self.loop is not None:
            linear = node.op in ("add", "sub", "neg") and not node.shape  # what is added up may be handed on at once
            return linear or not node.deps.isdisjoint(self.own)
        if not node.deps.isdisjoint(self.own):
            return True
        if node.op == "sym" or (node.op == "load" and all(N.value_of(i) is not None for i in node.args[1:])):
            return False
        above: Sweep | None = self.above
        while above is not None:
            if node in above.evaluated:
                return False
            above = above.above
        return True

    @property
    def evaluated(self) -> set[Node]:
        """What the statements of this block evaluate in any case."""
        if self._evaluated is None:
            self._evaluated = set()
            todo = [node for statement in self.source.statements for node in statement.uses]
            if self.loop is not None:
                todo += [c.next for c in self.loop.carried]
            while todo:
                node = todo.pop()
                if node not in self._evaluated:
                    self._evaluated.add(node)
                    todo += node.nodes
        return self._evaluated

    # --- statements -----------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        for statement in reversed(self.source.statements):
            if statement.defines:
                self.push(statement.defines)
            getattr(self, f"_{type(statement).__name__.lower()}")(statement)
        self.push()

    def finish(self) -> None:
        """Write down what entries of arrays gain here; what belongs to blocks around stays in `gains`."""
        entries = [node for node in self.gains if (node.op == "load" or self._is_input(node)) and self.is_own(node)]
        for node in sorted(entries, key=self._order):
            self._write(node)

    def _order(self, node: Node) -> tuple:
        """First by array, then by index."""
        indices = [N.value_of(i) for i in node.args[1:]] if node.op == "load" else []
        return (
            N.root(node).serial if node.op != "load" else N.root(node.args[0]).serial,
            [-1 if i is None else i for i in indices],
            node.serial,
        )

    def _write(self, node: Node) -> None:
        array, indices = (node.args[0], node.args[1:]) if node.op == "load" else (node, ())
        base = N.root(array)
        bar = self.taken(node)
        if bar is not None and base in self.reverse.bars:
            self.out.add(P.Store(self.reverse.bar_view(array, self.reverse.bars[base]), indices, bar, adds=True))

    def _let(self, statement: P.Let) -> None:
        bar = self.taken(statement.symbol)
        if bar is not None:
            self.gain(statement.value, bar)

    def _bar_of(self, base: Node) -> Node:
        """The memory of the cotangents of an array that f has made."""
        reverse = self.reverse
        if base not in reverse.bars:
            reverse.bars[base] = bar = N.symbol("f", base.shape)
            reverse.function.memory.add(bar)
            reverse.hint(bar, base)
        return reverse.bars[base]

    def _alloc(self, statement: P.Alloc) -> None:
        symbol = statement.symbol
        if symbol not in self.reverse.active or symbol not in self.reverse.bars:
            return
        bar = self.reverse.bars[symbol]
        if bar is not self.reverse.lam and symbol is not self.reverse.function.result:
            zeros = P.Alloc(bar, N.ZERO)
            zeros.late = True
            self.out.statements.insert(0, zeros)
        if statement.fill is not None and statement.fill in self.reverse.active:
            whole = P.Read(N.symbol("f", symbol.shape), bar, ())
            self.out.add(whole)
            self.gain(statement.fill, whole.symbol if statement.fill.shape else N.total(whole.symbol))

    def _read(self, statement: P.Read) -> None:
        base = N.root(statement.array)
        bar = self.taken(statement.symbol)
        if bar is not None and base in self.reverse.active:
            self.out.add(P.Store(self.reverse.bar_view(statement.array, self._bar_of(base)), statement.indices, bar, adds=True))

    def _store(self, statement: P.Store) -> None:
        base, reverse = N.root(statement.array), self.reverse
        if base not in reverse.active:
            return
        array = reverse.bar_view(statement.array, self._bar_of(base))
        fixed = base is reverse.function.result and reverse.is_fixed
        clears = not statement.adds and not fixed and reverse.places.is_touched_before(statement)
        if statement.value in reverse.active:
            if fixed:
                bar = N.load(array, statement.indices) if statement.indices else array
            else:
                bar = self._read_bar(array, statement.indices, clears or reverse.places.is_changed_before(statement))
            if not statement.indices and not statement.value.shape and bar.shape:
                bar = N.total(bar)
            self.gain(statement.value, bar)
        if clears:
            self.out.add(P.Store(array, statement.indices, N.ZERO))

    def _read_bar(self, array: Node, indices: tuple[Node, ...], changes: bool) -> Node:
        """The cotangents of an array as they are now, in a copy if they may change."""
        shape = () if indices else array.shape
        if shape and changes:
            copy = P.Alloc(N.symbol("f", shape), array)
            self.reverse.function.memory.add(copy.symbol)
            self.out.add(copy)
            return copy.symbol
        read = P.Read(N.symbol("f", shape), array, indices)
        self.out.add(read)
        return read.symbol

    def zeros(self, shape: tuple[Node, ...]) -> Node:
        """Nothing, as a number or an array."""
        if not shape:
            return N.ZERO
        made = P.Alloc(N.symbol("f", shape), N.ZERO)
        self.reverse.function.memory.add(made.symbol)
        self.out.add(made)
        return made.symbol

    # --- branches ---------------------------------------------------------------------------------------------------------------

    def _if(self, statement: P.If) -> None:
        bars = [self.taken(r.symbol) for r in statement.results]
        sweeps = []
        for block, ends in statement.sides:
            sweep = Sweep(self.reverse, block, self)
            for bar, end in zip(bars, ends, strict=True):
                if bar is not None:
                    sweep.gain(end, bar)
            sweep.run()
            sweep.finish()
            sweeps.append(sweep)
        then, other = sweeps
        results = []
        for node in dict.fromkeys([*then.gains, *other.gains]):
            a, b = then.gains.get(node), other.gains.get(node)
            first, second = (
                summed(g[::-1], self.reverse.is_whole) if g else sweep.zeros(node.shape) for g, sweep in ((a, then), (b, other))
            )
            if first is second:
                self.gains.setdefault(node, []).append(first)
                continue
            before = self.taken(node)
            if before is not None:
                first, second = N.add(before, first), N.add(before, second)
            symbol = N.symbol("f", node.shape)
            self.reverse.hint(symbol, node)
            results.append(P.Result(symbol, first, second))
            self.gains[node] = [symbol]
        blocks = [
            P.Block([*self.reverse.taping.forward(sweep.source, inside=True).statements, *sweep.out.statements]) for sweep in sweeps
        ]
        if results or any(sweep.out.statements for sweep in sweeps):
            self.out.add(P.If(statement.condition, blocks[0], blocks[1], results))

    # --- loops ------------------------------------------------------------------------------------------------------------------

    def _for(self, statement: P.For) -> None:
        self._loop(statement, trip_number(statement))

    def _while(self, statement: P.While) -> None:
        self._loop(statement, self.reverse.taping.lost.rounds_of(statement).number)

    def _loop(self, statement: P.For | P.While, number: Node) -> None:
        carried = [c for c in statement.carried if c.phi in self.reverse.active]
        ends = {c: self.taken(c.after) or N.ZERO for c in carried}
        bars, sweep = self._swept(statement, carried, ends)
        rounds: list[P.Carried] = []
        starts: list[tuple[Node, Node]] = []  # what the values before the loop gain by it
        for c in bars:
            if bars[c] is ends[c]:  # no iteration changes it
                sweep.gains.pop(c.phi, None)
                starts.append((c.start, ends[c]))
            else:
                rounds.append(self._carried_back(c, bars[c], ends[c], sweep))
                starts.append((c.start, rounds[-1].after))
        backwards = bool(rounds)
        for node in list(sweep.gains):
            bar = sweep.taken(node)
            if bar is not None:
                rounds.append(self._accumulator(node, bar, sweep))
        for start, gain in starts:
            self.gain(start, gain)
        if rounds or sweep.out.statements:
            self._add_loop(statement, number, sweep, rounds, backwards)

    def _swept(
        self, statement: P.For | P.While, carried: list[P.Carried], ends: dict[P.Carried, Node]
    ) -> tuple[dict[P.Carried, Node], Sweep]:
        """The transpose of a body, and the cotangents of what it carries that has any; again where some turn out to be constant."""
        bars = {c: N.symbol("f", c.phi.shape) for c in carried if not N.is_zero(ends[c])}
        while True:
            sweep = Sweep(self.reverse, statement.body, self, statement)
            for c in bars:
                sweep.gain(c.next, bars[c])
            sweep.run()
            sweep.finish()
            more = [c for c in carried if c not in bars and c.phi in sweep.gains]
            same = [c for c in bars if bars[c] is not ends[c] and sweep.gains.get(c.phi) == [bars[c]]]
            if more:
                bars = {c: N.symbol("f", c.phi.shape) for c in carried if c in bars or c in more}
            elif same:
                bars.update({c: ends[c] for c in same})
            else:
                return bars, sweep

    def _carried_back(self, c: P.Carried, bar: Node, end: Node, sweep: Sweep) -> P.Carried:
        """What a loop hands from an iteration to the one before."""
        before, after = sweep.taken(c.phi) or sweep.zeros(c.phi.shape), N.symbol("f", c.phi.shape)
        for symbol in (bar, after):
            self.reverse.hint(symbol, c.phi)
        return P.Carried(bar, self.zeros(c.phi.shape) if N.is_zero(end) else end, before, after)

    def _accumulator(self, node: Node, bar: Node, inside: Sweep) -> P.Carried:
        """What a node outside of a loop gains in all of its iterations."""
        before = self.taken(node)
        if before is None and self.loop is not None and not self.is_own(node):
            before = self.counters[node] = N.symbol("f", node.shape)
            self.reverse.hint(before, node)
        phi = inside.counters.get(node) or N.symbol("f", node.shape)
        after = N.symbol("f", node.shape)
        for symbol in (phi, after):
            self.reverse.hint(symbol, node)
        self.gains[node] = [after]
        start = self.zeros(node.shape) if before is None else before
        return P.Carried(phi, start, bar if node in inside.counters else N.add(phi, bar), after)

    def _add_loop(self, statement: P.For | P.While, number: Node, sweep: Sweep, rounds: list[P.Carried], backwards: bool) -> None:
        reverse = self.reverse
        restored: list[P.Statement] = []
        for c, tape in reverse.taping.tapes[statement]:
            where = (number,) if not c.phi.shape else ()
            array = tape if not c.phi.shape else N.make("slice", (tape, number), c.phi.kind, c.phi.shape)
            restored.append(P.Read(c.phi, array, where))
        again = reverse.taping.forward(statement.body, inside=True).statements
        body = P.Block([*restored, *again, *sweep.out.statements])
        if isinstance(statement, P.For):
            s = statement
            backwards = backwards or reverse.places.is_ordered(sweep.out, s)
            self.out.add(P.For(s.index, s.start, s.stop, s.step, body, rounds, backwards))
        else:
            self.out.add(P.For(number, N.I0, reverse.taping.lost.rounds_of(statement).count, N.I1, body, rounds, backwards=True))
