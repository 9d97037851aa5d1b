"""The run forward: what loops carry is kept on tapes, and what a loop that runs back needs of it is said once more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.dependence import Places, affine
from adjode.derivation.nodes import Node
from adjode.derivation.refusals import Refusal
from adjode.derivation.substitution import substituted


class Taping:
    """The program of a function with tapes.

    Parameters
    ----------
    function : Function
    hint : callable
        `hint(node, of, ending)` names a node after another.
    loaded : dict
        What is calculated once, and then read, see `reloads`.
    lost : Lost
        The reads of what is written over later.

    Attributes
    ----------
    tapes : dict
        By loop, what it carries and where that is kept.
    again : dict
        The reads that are repeated on the way back, and copies in place of reads; and what each of them repeats.
    reloads : dict
        The reads of what has been stored for good, and where it was stored.
    """

    def __init__(
        self, function: P.Function, hint: Callable[[Node, Node, str], None], loaded: dict[P.Statement, P.Store], lost: Lost
    ):
        self.function, self.hint = function, hint
        self.loaded, self.lost = loaded, lost
        self.again: dict[P.Statement, P.Read] = {}
        self.reloads: dict[P.Statement, P.Store] = {}
        self.tapes: dict[P.Statement, list[tuple[P.Carried, Node]]] = {}

    def forward(self, block: P.Block, inside: bool = False) -> P.Block:
        """The statements of a block, with tapes. `inside` a loop that runs back what lies outside has its final contents."""
        own = {s.symbol for s in block.walk() if isinstance(s, P.Alloc)} if inside else None
        result = self._copied(block, own)
        if own is None:
            result.statements[:0] = [P.Alloc(tape, None) for tape in self.lost.tapes_at(None)]
        return result

    def _copied(self, block: P.Block, own: set[Node] | None) -> P.Block:
        result = P.Block()
        for statement in block.statements:
            if not isinstance(statement, P.While):
                result.statements += [P.Alloc(tape, None) for tape in self.lost.tapes_at(statement) if self._is_here(tape, own)]
            if statement.blocks:
                self._compound(statement, result, own)
            elif isinstance(statement, P.Read) and statement in self.lost.tapes:
                self._read(statement, result, own)
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

    def _is_here(self, tape: Node, own: set[Node] | None) -> bool:
        return own is None or self.lost.base_of[tape] in own

    def _compound(self, statement: P.Statement, result: P.Block, own: set[Node] | None) -> None:
        if isinstance(statement, P.For):
            self._for(statement, result, own)
        elif isinstance(statement, P.While):
            self._while(statement, result, own)
        elif isinstance(statement, P.If):
            then, other = self._copied(statement.then, own), self._copied(statement.other, own)
            result.add(P.If(statement.condition, then, other, list(statement.results)))

    def _read(self, statement: P.Read, result: P.Block, own: set[Node] | None) -> None:
        """What is written over later is kept where it is read, and read again from there."""
        tape, where = self.lost.tapes[statement]
        array, indices = (tape, where) if statement.indices else (_row(tape, where), ())
        if own is not None and N.root(statement.array) not in own:
            result.add(P.Read(statement.symbol, array, indices))
            return
        if not statement.indices and not where:  # statements of the same block need it on the way back
            copy = P.Alloc(statement.symbol, statement.array, statement.symbol.kind)
            self.again[copy] = statement
            result.add(copy)
        else:
            result.add(statement)
        result.add(P.Store(array, indices, statement.symbol))

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
        """The rounds are counted first; then tapes are as long as they must be, and the loop makes that many rounds."""
        if not statement.condition.deps.isdisjoint(_changing(statement)):
            raise Refusal(
                "the number of iterations of a `while` loop depends on an array that it writes into", "count them with numbers"
            )
        rounds = self.lost.rounds_of(statement)
        count = N.symbol("i")
        self.function.hints[count] = "rounds"
        counting = [P.Carried(c.phi, c.start, c.next, N.symbol(c.phi.kind, c.phi.shape)) for c in statement.carried]
        counting.append(P.Carried(count, N.I0, N.add(count, N.I1), rounds.count))
        result.add(P.While(statement.condition, _without_stores(self._copied(statement.body, own)), counting))
        result.statements += [P.Alloc(tape, None) for tape in self.lost.tapes_at(statement) if self._is_here(tape, own)]
        tapes = self._tapes(statement, rounds.count, result)
        body = self._copied(statement.body, own)
        body.statements[:0] = [_kept(tape, rounds.number, c.phi) for c, tape in tapes]
        result.add(P.For(rounds.number, N.I0, rounds.count, N.I1, body, list(statement.carried)))


def _without_stores(block: P.Block) -> P.Block:
    """What a block calculates, without what it writes into memory."""
    kept = P.Block()
    for s in block.statements:
        if isinstance(s, P.For):
            s = P.For(s.index, s.start, s.stop, s.step, _without_stores(s.body), s.carried, s.backwards)
        elif isinstance(s, P.While):
            s = P.While(s.condition, _without_stores(s.body), s.carried)
        elif isinstance(s, P.If):
            s = P.If(s.condition, _without_stores(s.then), _without_stores(s.other), s.results)
        if not isinstance(s, P.Store):
            kept.add(s)
    return kept


def _changing(loop: P.While) -> set[Node]:
    """The symbols in a loop that depend on memory which it writes into."""
    inside = [loop, *loop.body.walk()]
    written = {N.root(s.array) for s in inside if isinstance(s, P.Store)}
    found = {s.symbol for s in inside if isinstance(s, P.Read) and N.root(s.array) in written}
    while True:
        before = len(found)
        for s in inside:
            if isinstance(s, (P.For, P.While)):
                for c in s.carried:
                    if not (c.start.deps | c.next.deps).isdisjoint(found):
                        found |= {c.phi, c.after}
            elif any(not node.deps.isdisjoint(found) for node in s.needs):
                found |= set(s.defines)
        if len(found) == before:
            return found


@dataclass(frozen=True)
class Rounds:
    """How many rounds a `while` loop makes, and which of them this is."""

    count: Node
    number: Node


class Lost:
    """Reads of entries that are written over later, while the way back needs what they were; each has a tape.

    Attributes
    ----------
    tapes : dict
        By read, its tape and the place in it.
    base_of : dict
        By tape, the array that is read.
    """

    def __init__(self, function: P.Function, reads: list[P.Read], places: Places):
        self.tapes: dict[P.Statement, tuple[Node, tuple[Node, ...]]] = {}
        self.base_of: dict[Node, Node] = {}
        self._at: dict[P.Statement | None, list[Node]] = {}
        self._rounds: dict[P.While, Rounds] = {}
        self.hints = function.hints
        for read in reads:
            base, access = N.root(read.array), places.access[read]
            around = access.loops[len(places.allocated.get(base, ())) :]
            loops = around
            if any(isinstance(loop, P.While) for loop in around[1:]):
                raise Refusal(
                    f"`{function.hints.get(base, 'an array')}` is overwritten in a `while` loop inside another loop",
                    "make the inner loop a `for` loop",
                )
            if any(not base.deps.isdisjoint(length.deps) for length in read.symbol.shape):
                name = function.hints.get(base, "an array")
                raise Refusal(
                    f"`{name}` is overwritten, but the derivative needs its old value",
                    "write the new values to an array of their own",
                )
            lengths = tuple(self._length(loop, loops) for loop in loops)
            tape = N.symbol(read.symbol.kind, (*lengths, *read.symbol.shape) or (N.I1,))
            function.memory.add(tape)
            function.hints[tape] = f"{function.hints.get(base, 'v')}_tape"
            first = (N.I0,) if read.indices else ()
            self.tapes[read] = tape, tuple(map(self.number, loops)) or first
            self.base_of[tape] = base
            at = loops[0] if loops else next((s for s in function.body.walk() if s.defines == (base,)), None)
            self._at.setdefault(at, []).append(tape)

    def number(self, loop: P.For | P.While) -> Node:
        """Which iteration this is, counted from 0."""
        return trip_number(loop) if isinstance(loop, P.For) else self.rounds_of(loop).number

    def _length(self, loop: P.For | P.While, loops: tuple[P.For | P.While, ...]) -> Node:
        if isinstance(loop, P.While):
            return self.rounds_of(loop).count
        most = _most(loop, tuple(outer for outer in loops if isinstance(outer, P.For)))
        inside = {s for outer in loops for one in (outer, *outer.body.walk()) for s in (*one.defines, *getattr(one, "inside", ()))}
        if not most.deps.isdisjoint(inside):
            raise Refusal("the length of a loop differs between the rounds of another", "write new values to another array")
        return most

    def rounds_of(self, loop: P.While) -> Rounds:
        if loop not in self._rounds:
            self._rounds[loop] = made = Rounds(N.symbol("i"), N.symbol("i"))
            self.hints.update({made.count: "rounds", made.number: "k"})
        return self._rounds[loop]

    def tapes_at(self, statement: P.Statement | None) -> list[Node]:
        """The tapes that begin in front of a statement; None for those that begin with the function."""
        return self._at.get(statement, [])


def _most(loop: P.For, loops: tuple[P.For, ...]) -> Node:
    """The most iterations that a loop can make, whatever the indices of those around it."""
    span = N.sub(loop.stop, loop.start) if (N.value_of(loop.step) or 0) > 0 else N.sub(loop.start, loop.stop)
    for outer in reversed(loops[: loops.index(loop)]):
        factor = affine(span)[0].get(outer.index, 0)
        end = N.sub(outer.stop, N.I1) if (N.value_of(outer.step) or 0) > 0 else N.add(outer.stop, N.I1)
        rising = (factor > 0) == ((N.value_of(outer.step) or 0) > 0)
        span = substituted(span, {outer.index: end if rising else outer.start})
        if outer.index in span.deps or (factor == 0 and outer.index in loop.stop.deps | loop.start.deps):
            raise Refusal(
                "the length of a loop is no linear function of the indices around it", "write new values to another array"
            )
    return span if N.value_of(span) is None or N.value_of(span) > 0 else N.I1


def _kept(tape: Node, k: Node, value: Node) -> P.Store:
    return P.Store(_row(tape, (k,)), (), value) if value.shape else P.Store(tape, (k,), value)


def _row(tape: Node, where: tuple[Node, ...]) -> Node:
    """The part of a tape that an array is kept in."""
    return N.make("slice", (tape, *where), tape.kind, tape.shape[len(where) :]) if where else tape


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


def reloads(block: P.Block, places: Places) -> dict[P.Statement, P.Store]:
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
