"""Reverse mode: from the program of f to that of its vjp.

The program runs forward once, and then each statement again, in the opposite order, with cotangents. What a statement in a loop
needs is calculated anew in the loop that runs back; what a loop carries from one iteration to the next is kept on a *tape*. Most of
that turns out not to be needed: `liveness` takes away what nobody reads, in the end the whole first run.
"""

from __future__ import annotations

import functools

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.activity import Activity
from adjode.derivation.dependence import Places
from adjode.derivation.nodes import Node
from adjode.derivation.refusals import Refusal
from adjode.derivation.rules import pushed
from adjode.derivation.sums import summed


class Reverse:
    """The transpose of a function.

    Parameters
    ----------
    function : Function
    bars : dict of Node
        For each array that is differentiated by, the array of its cotangent, which is added to.
    lam : Node
        The cotangent of the result.
    """

    def __init__(self, function: P.Function, bars: dict[Node, Node], lam: Node):
        self.function = function
        self.loaded = reloads(function.body, Places(function.body), function.result)  # what is calculated once, and then read
        self.active = Activity(function.body, set(bars))
        self.inputs = frozenset(bars)
        self.bars = dict(bars)  # of memory and arguments
        self.again: dict[P.Read, P.Read] = {}
        self.tapes: dict[P.Statement, list[tuple[P.Carried, Node]]] = {}
        self.trips: dict[P.Statement, Node] = {}
        self.anchors: dict[Node, Node] = {}
        self.places = Places(function.body, self.active)
        self.reloads: dict[P.Read, P.Store] = {}
        self.lam, self.is_fixed = lam, False
        for statement in function.body.walk():
            if isinstance(statement, P.Let):
                self.anchors[statement.value] = statement.symbol

    def block(self) -> P.Block:
        """The whole program of the transpose."""
        result = self.function.result
        forward = self.forward(self.function.body)
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
        return None if array is None or None in parts or "-" in "".join(parts) else "_".join([array, *parts])  # type: ignore[arg-type]

    # --- the run forward ----------------------------------------------------------------------------------------------------

    def forward(self, block: P.Block, inside: bool = False) -> P.Block:
        """The statements of a block, with tapes. `inside` a loop that runs back what lies outside has its final contents."""
        own = {s.symbol for s in block.walk() if isinstance(s, P.Alloc)} if inside else None
        return self._copied(block, own)

    def _copied(self, block: P.Block, own: set[Node] | None) -> P.Block:
        result = P.Block()
        for statement in block.statements:
            if isinstance(statement, P.For):
                self._for(statement, result, own)
            elif isinstance(statement, P.While):
                self._while(statement, result, own)
            elif isinstance(statement, P.If):
                then, other = self._copied(statement.then, own), self._copied(statement.other, own)
                result.add(P.If(statement.condition, then, other, list(statement.results)))
            elif isinstance(statement, P.Read) and own is not None and N.root(statement.array) not in own:
                read = P.Read(statement.symbol, statement.array, statement.indices)
                self.again[read] = statement
                result.add(read)
            elif own is not None and statement in self.loaded and N.root(self.loaded[statement].array) not in own:
                store = self.loaded[statement]
                read = P.Read(statement.symbol, store.array, store.indices)  # type: ignore[attr-defined]
                self.reloads[read] = store
                result.add(read)
            elif not isinstance(statement, P.Store) or own is None or N.root(statement.array) in own:
                result.add(statement)
        return result

    def _tapes(self, statement: P.For | P.While, trips: Node, result: P.Block) -> list[tuple[P.Carried, Node]]:
        if statement not in self.tapes:
            tapes = []
            for c in statement.carried:
                tape = N.symbol(c.phi.kind, (trips, *c.phi.shape))
                self.function.memory.add(tape)
                self.hint(tape, c.phi, "_tape")
                tapes.append((c, tape))
            self.tapes[statement] = tapes
        for c, tape in self.tapes[statement]:
            result.add(P.Alloc(tape, None, c.phi.kind))
        return self.tapes[statement]

    def _for(self, statement: P.For, result: P.Block, own: set[Node] | None) -> None:
        tapes = self._tapes(statement, trip_count(statement), result)
        body = self._copied(statement.body, own)
        keep = [_kept(tape, trip_number(statement), c.phi) for c, tape in tapes]
        body.statements[:0] = keep
        s = statement
        result.add(P.For(s.index, s.start, s.stop, s.step, body, list(s.carried)))

    def _while(self, statement: P.While, result: P.Block, own: set[Node] | None) -> None:
        """The rounds are counted first; then tapes are as long as they must be."""
        reads = {s.symbol for s in statement.body.walk() if isinstance(s, (P.Read, P.Let))}
        if any(c.phi.kind != "f" and not c.next.deps.isdisjoint(reads) for c in statement.carried):
            raise Refusal("the rounds of a `while` loop depend on an array that f writes", "count them with an integer")
        if statement not in self.trips:
            self.trips[statement] = N.symbol("i")
            self.function.hints[self.trips[statement]] = "rounds"
        count, k, after = N.symbol("i"), N.symbol("i"), N.symbol("i")
        self.function.hints.update({count: "rounds", k: "k", after: "k"})
        counting = [P.Carried(c.phi, c.start, c.next, N.symbol(c.phi.kind, c.phi.shape)) for c in statement.carried]
        counting.append(P.Carried(count, N.I0, N.add(count, N.I1), self.trips[statement]))
        result.add(P.While(statement.condition, self._copied(statement.body, own if own is not None else set()), counting))
        tapes = self._tapes(statement, self.trips[statement], result)
        body = self._copied(statement.body, own)
        body.statements[:0] = [_kept(tape, k, c.phi) for c, tape in tapes]
        carried = [*statement.carried, P.Carried(k, N.I0, N.add(k, N.I1), after)]
        result.add(P.While(statement.condition, body, carried))


def _kept(tape: Node, k: Node, value: Node) -> P.Store:
    if not value.shape:
        return P.Store(tape, (k,), value)
    return P.Store(N.make("slice", (tape, k), value.kind, value.shape), (), value)


def trip_number(loop: P.For) -> Node:
    """Which iteration this is, counted from 0."""
    if N.value_of(loop.step) == 1:
        return N.sub(loop.index, loop.start)
    if N.value_of(loop.step) == -1:
        return N.sub(loop.start, loop.index)
    return N.whole("floordiv", N.sub(loop.index, loop.start), loop.step)


def trip_count(loop: P.For) -> Node:
    if loop.start is N.I0 and N.value_of(loop.step) == 1:
        return loop.stop
    return N.make("trips", (loop.start, loop.stop, loop.step), "i")


def reloads(block: P.Block, places: Places, result: Node | None) -> dict[P.Statement, P.Store]:
    """Give a symbol to what is stored for good and costs more to calculate than to read again; where it is stored, by its `Let`."""
    found: dict[P.Statement, P.Store] = {}
    for inside in (block, *(b for s in block.walk() for b in s.blocks)):
        for store in [s for s in inside.statements if isinstance(s, P.Store) and s.indices and not s.adds]:
            if store.value.op in ("call", "pow", "div") and inside is not block and places.is_final(store):
                let = P.Let(N.symbol("f"), store.value)
                store.value = let.symbol
                inside.statements.insert(inside.statements.index(store), let)
                found[let] = store
    return found


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

    def __init__(self, reverse: Reverse, block: P.Block, above: Sweep | None, loop: P.For | P.While | None = None):
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
            todo += [node for s in self.source.statements if isinstance(s, P.If) for r in s.results for node in ()]
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
        blocks = [P.Block([*self.reverse.forward(sweep.source, inside=True).statements, *sweep.out.statements]) for sweep in sweeps]
        if results or any(sweep.out.statements for sweep in sweeps):
            self.out.add(P.If(statement.condition, *blocks, results))

    # --- loops ------------------------------------------------------------------------------------------------------------------

    def _for(self, statement: P.For) -> None:
        self._loop(statement, trip_number(statement))

    def _while(self, statement: P.While) -> None:
        self._loop(statement, N.symbol("i"))

    def _loop(self, statement: P.For | P.While, number: Node) -> None:
        reverse = self.reverse
        ends = {c: self.taken(c.after) for c in statement.carried}
        carried = [c for c in statement.carried if c.phi in reverse.active]
        constant: set[P.Carried] = set()  # whose cotangents no iteration changes
        starts = {c: self.zeros(c.phi.shape) if ends[c] is None else ends[c] for c in carried}
        while True:
            phis = {}
            for c in carried:
                phis[c] = starts[c] if c in constant else N.symbol("f", c.phi.shape)
            sweep = Sweep(reverse, statement.body, self, statement)
            for c in carried:
                sweep.gain(c.next, phis[c])
            sweep.run()
            sweep.finish()
            same = {c for c in carried if c not in constant and sweep.gains.get(c.phi) == [phis[c]]}
            if not same:
                break
            constant |= same
        rounds, passed, backwards = [], [], False
        for c in carried:
            if c in constant:
                sweep.gains.pop(c.phi, None)
                passed.append((c.start, starts[c]))
                continue
            bar = sweep.taken(c.phi)
            if bar is None and c.next not in reverse.active:
                continue
            after = N.symbol("f", c.phi.shape)
            for symbol in (phis[c], after):
                reverse.hint(symbol, c.phi)
            rounds.append(P.Carried(phis[c], starts[c], sweep.zeros(c.phi.shape) if bar is None else bar, after))
            backwards = True
            passed.append((c.start, after))
        for node in list(sweep.gains):
            bar = sweep.taken(node)
            if bar is not None:
                rounds.append(self._accumulator(node, bar, sweep))
        for node, bar in passed:
            self.gain(node, bar)
        if rounds or sweep.out.statements:
            self._add_loop(statement, number, sweep, rounds, backwards)

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
        return P.Carried(phi, self.zeros(node.shape) if before is None else before, bar if node in inside.counters else N.add(phi, bar), after)

    def _add_loop(self, statement: P.For | P.While, number: Node, sweep: Sweep, rounds: list[P.Carried], backwards: bool) -> None:
        reverse = self.reverse
        restored: list[P.Statement] = []
        for c, tape in reverse.tapes[statement]:
            where = (number,) if not c.phi.shape else ()
            array = tape if not c.phi.shape else N.make("slice", (tape, number), c.phi.kind, c.phi.shape)
            restored.append(P.Read(c.phi, array, where))
        again = reverse.forward(statement.body, inside=True).statements
        body = P.Block([*restored, *again, *sweep.out.statements])
        if isinstance(statement, P.For):
            s = statement
            backwards = backwards or reverse.places.is_ordered(sweep.out, s)
            self.out.add(P.For(s.index, s.start, s.stop, s.step, body, rounds, backwards))
        else:
            self.out.add(P.For(number, N.I0, reverse.trips[statement], N.I1, body, rounds, backwards=True))
