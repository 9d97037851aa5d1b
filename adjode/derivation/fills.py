"""The first gain of an entry sets it; what is set everywhere need not be filled with zeros before."""

from __future__ import annotations

import itertools
import math

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.dependence import Places, affine, extent, reach
from adjode.derivation.nodes import Node
from adjode.derivation.substitution import substituted

_MOST = 1 << 16  # entries that are looked at one by one


def set_first(block: P.Block, arrays: list[Node]) -> None:
    """Gains that come before all others of their entries become assignments."""
    places = Places(block)
    for array in arrays:
        for access in places.of.get(array, []):
            statement = access.statement
            if isinstance(statement, P.Store) and statement.adds and not places.is_touched_before(statement):
                statement.adds = False


class Coverage:
    """Which entries of a vector are set in any case.

    Attributes
    ----------
    entries : set of int
    ranges : set of tuple
        For loops whose lengths are not known: what tells one range of indices from another.
    whole : bool
    partly : bool
        Whether others may be set as well.
    """

    def __init__(self, block: P.Block, array: Node):
        self.entries: set[int] = set()
        self.ranges: set[tuple] = set()
        self.spans: list[tuple[Node, Node]] = []  # of ranges without gaps: the first entry, and the one behind the last
        self.whole = self.partly = False
        self._collect(block, array, ())

    def _collect(self, block: P.Block, array: Node, loops: tuple[P.For, ...]) -> None:
        for statement in block.statements:
            if isinstance(statement, P.Store):
                self._store(statement, array, loops)
            elif isinstance(statement, P.Alloc) and statement.symbol is array and statement.fill is not None:
                self.whole = True
            elif isinstance(statement, P.For):
                self._collect(statement.body, array, (*loops, statement))
            elif any(_writes(s, array) for b in statement.blocks for s in b.walk()):
                self.partly = True

    def _store(self, store: P.Store, array: Node, loops: tuple[P.For, ...]) -> None:
        if not _writes(store, array) or store.adds:
            return
        if store.array is array and not store.indices:
            self.whole = self.whole or not loops
        elif _is_whole(store, loops):
            ends = extent(store.array, (), ())
            if ends is not None and ends[1] - ends[0] <= _MOST:
                self.entries |= set(range(*ends))
            else:
                self.ranges.add(("view", N.on(store.array, N.I0)))
                self.spans += [span for span in [reach(store.array, ())] if span is not None]
        elif store.array is not array or len(store.indices) != 1:
            self.partly = True
        else:
            self._indices(store.indices[0], loops)

    def _indices(self, index: Node, loops: tuple[P.For, ...]) -> None:
        terms, first = affine(index)
        moving = tuple(loop for loop in loops if loop.index in terms)
        if moving != loops or first < 0 or (terms and not loops):
            self.partly = True
        elif not terms:
            self.entries.add(first)
        else:
            self._range(index, terms, first, moving)

    def _range(self, index: Node, terms: dict[Node, int], first: int, loops: tuple[P.For, ...]) -> None:
        factors = tuple(terms.pop(loop.index) for loop in loops)
        ends = [[N.value_of(end) for end in (loop.start, loop.stop, loop.step)] for loop in loops]
        if not terms and all(None not in end for end in ends) and math.prod(len(range(*end)) for end in ends) <= _MOST:
            steps = itertools.product(*(range(*end) for end in ends))
            self.entries |= {first + sum(f * k for f, k in zip(factors, step, strict=True)) for step in steps}
            return
        rest = tuple(sorted((a.serial, f) for a, f in terms.items()))
        self.ranges.add((rest, first, factors, *((loop.start, loop.stop, loop.step) for loop in loops)))
        loop = loops[0]
        if factors == (1,) and N.value_of(loop.step) == 1:
            first_index, behind = (substituted(index, {loop.index: end}) for end in (loop.start, loop.stop))
            self.spans.append((first_index, behind))

    @property
    def counts(self) -> bool:
        """Whether what is set is told entry by entry."""
        return not (self.whole or self.partly or self.ranges) and bool(self.entries)

    def end(self) -> Node | None:
        """The entry up to which all are set, if that is all that is set."""
        reached, spans = 0, list(self.spans)
        while reached in self.entries:
            reached += 1
        end, used = N.const(reached), 0
        while True:
            span = next((s for s in spans if _same(s[0], end)), None)
            if span is None:
                break
            spans.remove(span)
            end, used = span[1], used + 1
        alone = not spans and used == len(self.ranges) and reached == len(self.entries) and not self.partly
        return end if alone else None

    def covers(self, other: Coverage) -> bool:
        if self.whole:
            return True
        return not other.partly and not other.whole and other.entries <= self.entries and other.ranges <= self.ranges


def _is_whole(store: P.Store, loops: tuple[P.For, ...]) -> bool:
    """Whether a store writes all of a view: at once, or entry by entry in loops over its axes."""
    if not store.indices:
        return not loops
    if len(loops) != len(store.indices) or store.array.op == "sym":
        return False
    ends = zip(store.indices, loops, store.array.shape, strict=True)
    return all(i is p.index and p.start is N.I0 and _same(p.stop, n) and N.value_of(p.step) == 1 for i, p, n in ends)


def _same(a: Node, b: Node) -> bool:
    return a is b or affine(a) == affine(b)


def _writes(statement: P.Statement, array: Node) -> bool:
    return isinstance(statement, P.Store) and N.root(statement.array) is array


def filled(block: P.Block, array: Node, length: Node, known: Coverage | None) -> P.Block:
    """The same with zeros in the entries that nothing sets.

    Parameters
    ----------
    length : Node
        Of the array.
    known : Coverage or None
        What is known to be all of an array of this length.
    """
    own = Coverage(block, array)
    used = any(_writes(s, array) for s in block.walk())
    if own.whole or (known is not None and own.covers(known) and (known.entries or known.ranges)):
        return block
    if known is not None and known.counts and (own.counts or not used) and not _adds(block, array):
        missing = sorted(known.entries - own.entries)
        return P.Block([*block.statements, *(P.Store(array, (N.const(k),), N.ZERO) for k in missing)])
    end = own.end() if used else None
    if end is not None and _same(end, length):
        return block
    if end is not None and not _adds(block, array):
        return P.Block([*block.statements, _rest(array, end, length)])
    return P.Block([P.Store(array, (), N.ZERO), *block.statements])


def unfilled(block: P.Block) -> None:
    """Memory that is set before all else need not be zeros when it is made."""
    places = Places(block)
    for statement in block.walk():
        if isinstance(statement, P.Alloc) and statement.late and statement.fill is N.ZERO:
            accesses = places.of.get(statement.symbol, [])
            loops = places.allocated[statement.symbol]
            first: dict[Node, int] = {}
            for a in accesses:
                store = a.statement
                if a.writes and not a.adds and a.loops == loops and not a.branches and _sets_all(store, a.array):
                    first.setdefault(a.array, a.position)
            sets = {a.array for a in accesses if first.get(a.array, 1 << 60) <= a.position}
            if accesses and sets == {a.array for a in accesses} and all(first[a.array] <= a.position for a in accesses):
                statement.fill = None


def _sets_all(store: P.Statement, array: Node) -> bool:
    return isinstance(store, P.Store) and not store.indices


def _adds(block: P.Block, array: Node) -> bool:
    """Whether entries gain that nothing has set; what is set first is told from its order."""
    own = Coverage(block, array)
    for statement in block.walk():
        if isinstance(statement, P.Store) and statement.adds and N.root(statement.array) is array:
            terms, first = affine(statement.indices[0]) if len(statement.indices) == 1 else ({None: 1}, 0)
            if terms or first not in own.entries:
                return True
    return False


def _rest(array: Node, start: Node, length: Node) -> P.Store:
    """Zeros from an entry to the end: a slice, which compiles in less time than a loop."""
    return P.Store(N.view("slice", array, ("s", start, None, None), shape=(N.sub(length, start),)), (), N.ZERO)
