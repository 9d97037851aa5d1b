"""Whether two places of a program can touch the same entry of an array, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.nodes import Node


def affine(node: Node) -> tuple[dict[Node, int], int]:
    """A sum of multiples of other nodes, and a constant."""
    value = N.value_of(node)
    if isinstance(value, int):
        return {}, value
    if node.op in ("add", "sub", "neg"):
        signs = {"add": (1, 1), "sub": (1, -1), "neg": (-1,)}[node.op]
        terms: dict[Node, int] = {}
        rest = 0
        for sign, arg in zip(signs, node.args, strict=True):
            more, constant = affine(arg)
            rest += sign * constant
            for atom, factor in more.items():
                terms[atom] = terms.get(atom, 0) + sign * factor
        return {atom: factor for atom, factor in terms.items() if factor}, rest
    if node.op == "mul":
        for factor, other in (node.args, node.args[::-1]):  # a number times a sum
            value = N.value_of(factor)
            if isinstance(value, int):
                terms, rest = affine(other)
                return {atom: value * k for atom, k in terms.items() if value}, value * rest
    return {node: 1}, 0


def least(node: Node, loops: tuple[P.For | P.While, ...]) -> int | None:
    """A lower bound of an integer, from the ranges of the loops around it."""
    terms, bound = affine(node)
    for atom, factor in terms.items():
        loop = next((loop for loop in loops if isinstance(loop, P.For) and loop.index is atom), None)
        low = _end(loop, factor > 0, loops) if loop is not None else _bound(atom, factor > 0)
        if low is None:
            return None
        bound += abs(factor) * low
    return bound


def _end(loop: P.For, lowest: bool, outer: tuple) -> int | None:
    """A bound of the index of a loop, as it is, or of its negative."""
    up = (N.value_of(loop.step) or 0) > 0
    if up == lowest:
        return least(loop.start if lowest else N.neg(loop.start), outer)
    end = N.sub(loop.stop, N.I1) if up else N.add(loop.stop, N.I1)
    return least(end if lowest else N.neg(end), outer)


def _bound(atom: Node, lowest: bool) -> int | None:
    """A bound of an integer, or of its negative."""
    if lowest:
        return 0 if _is_natural(atom) else None
    divisor = N.value_of(atom.args[1]) if atom.op == "mod" else None
    return 1 - divisor if divisor is not None and divisor > 0 else None


def _is_natural(node: Node) -> bool:
    """Whether an integer cannot be negative."""
    if node.op == "size":
        return True
    if node.op in ("mod", "floordiv"):
        divisor = N.value_of(node.args[1])
        positive = (divisor is not None and divisor > 0) or (divisor is None and _is_natural(node.args[1]))
        return positive and (node.op == "mod" or (least(node.args[0], ()) or -1) >= 0)
    return node.op == "mul" and all(_is_natural(a) or (N.value_of(a) or -1) >= 0 for a in node.args)


@dataclass(frozen=True, eq=False)
class Access:
    """One place that reads or writes memory."""

    statement: P.Statement
    array: Node
    indices: tuple[Node, ...]
    loops: tuple[P.For | P.While, ...]
    branches: tuple[tuple[P.If, bool], ...]
    position: int
    writes: bool
    adds: bool


class Places:
    """All accesses of a block, by array."""

    def __init__(self, block: P.Block, active: Any = None):
        self.active = active
        self.of: dict[Node, list[Access]] = {}
        self.access: dict[P.Statement, Access] = {}
        self.allocated: dict[Node, tuple] = {}  # the loops around
        self.fills: dict[Node, Node | None] = {}
        self._at: dict[tuple[Node, int | None], list[Access]] = {}  # by array and entry, None for what is not a constant entry
        self._count = 0
        self._collect(block, (), ())

    def _collect(self, block: P.Block, loops: tuple, branches: tuple) -> None:
        for statement in block.statements:
            self._count += 1
            if isinstance(statement, P.Alloc):
                self.allocated[statement.symbol] = loops
                self.fills[statement.symbol] = statement.fill
                if statement.fill is not None and statement.fill.shape:  # a copy
                    self._add(statement, statement.fill, (), loops, branches)
            elif isinstance(statement, (P.Read, P.Store)):
                self._add(statement, statement.array, statement.indices, loops, branches)
            elif isinstance(statement, (P.For, P.While)):
                self._collect(statement.body, (*loops, statement), branches)
            elif isinstance(statement, P.If):
                self._collect(statement.then, loops, (*branches, (statement, True)))
                self._collect(statement.other, loops, (*branches, (statement, False)))

    def _add(self, statement: P.Statement, array: Node, indices: tuple, loops: tuple, branches: tuple) -> None:
        writes = isinstance(statement, P.Store)
        adds = isinstance(statement, P.Store) and statement.adds
        access = Access(statement, array, indices, loops, branches, self._count, writes, adds)
        base = N.root(array)
        self.of.setdefault(base, []).append(access)
        self._at.setdefault((base, _entry(access)), []).append(access)
        self.access[statement] = access

    def _met_by(self, access: Access) -> Iterator[Access]:
        """The accesses that may touch what this one touches: long code with constant indices is not compared pair by pair."""
        base, entry = N.root(access.array), _entry(access)
        if entry is None:
            yield from self.of[base]
        else:
            yield from self._at.get((base, entry), ())
            yield from self._at.get((base, None), ())

    def is_touched_before(self, store: P.Store) -> bool:
        """Whether an entry that is written here may have been read, or written, earlier."""
        here, base = self.access[store], N.root(store.array)
        fill = self.fills.get(base)
        if fill is not None and (fill.shape or (fill.deps and (self.active is None or fill in self.active))):
            return True
        return any(self._matters(other) and self.precedes(other, here) for other in self._met_by(here))

    def _matters(self, access: Access) -> bool:
        """Whether a cotangent is read or added to where this is undone."""
        return self.active is None or not access.writes or access.statement.value in self.active  # type: ignore[attr-defined]

    def is_final(self, store: P.Store) -> bool:
        """Whether what is written here is read later, and never written over."""
        here = self.access[store]
        others = list(self._met_by(here))
        read = any(not other.writes and self.precedes(here, other) for other in others)
        return read and not any(other.writes and self.precedes(here, other) for other in others)

    def is_changed_before(self, store: P.Store) -> bool:
        """Whether something earlier changes the cotangents of what is written here: a read adds to them, an assignment clears."""
        here = self.access[store]
        return any(
            self.precedes(other, here) and (not other.writes or (not other.adds and self.is_touched_before(other.statement)))  # type: ignore[arg-type]
            for other in self._met_by(here)
        )

    def is_reused(self, base: Node) -> bool:
        """Whether memory is read, or written over."""
        for access in self.of.get(base, []):
            if not access.writes or (not access.adds and self.is_touched_before(access.statement)):  # type: ignore[arg-type]
                return True
        return False

    def is_ordered(self, block: P.Block, loop: P.For) -> bool:
        """Whether iterations of a loop with this body must run in their order, apart from what is only added up."""
        inside = Places(P.Block([P.For(loop.index, loop.start, loop.stop, loop.step, block, [])]))
        for base, accesses in inside.of.items():
            if len(inside.allocated.get(base, ())) or all(a.adds for a in accesses) or not any(a.writes for a in accesses):
                continue
            if any(inside.crosses(a, b) for a in accesses for b in accesses if a.writes or b.writes):
                return True
        return False

    def crosses(self, a: Access, b: Access) -> bool:
        return self._compared(a, b, same=False)

    def precedes(self, a: Access, b: Access) -> bool:
        """Whether `a` may touch an entry before `b` touches it, in another iteration or, if it comes first, in the same."""
        return self._compared(a, b, same=True)

    def _compared(self, a: Access, b: Access, same: bool) -> bool:
        base = N.root(a.array)
        outside = len(self.allocated.get(base, ()))  # of loops that see another array in each iteration
        loops = [x for x, y in zip(a.loops, b.loops, strict=False) if x is y]
        distances = _distances(a, b, loops)
        if distances is None:
            return False
        for loop in loops[outside:]:
            step = distances.get(loop)
            if step is None or (-step if isinstance(loop, P.For) and loop.backwards else step) > 0:
                return True
            if step:
                return False
        exclusive = any(x is y and p != q for x, p in a.branches for y, q in b.branches)
        return same and a.position < b.position and not exclusive


def _entry(access: Access) -> int | None:
    """The entry of a vector that an access touches, if it is a constant that does not count from the end."""
    if access.array.op != "sym" or len(access.indices) != 1:
        return None
    entry = N.value_of(access.indices[0])
    return entry if isinstance(entry, int) and entry >= 0 else None


def _distances(a: Access, b: Access, loops: list) -> dict | None:
    """For each loop, how many iterations later `b` meets the entry that `a` has met, where that is known; None if it never does."""
    if a.array is not b.array or not a.indices or not b.indices:
        return None if apart(a.array, b.array) or _extents_apart(a, b) else {}
    distances: dict = {}
    for x, y in zip(a.indices, b.indices, strict=True):
        found = _along(x, y, a, b, loops)
        if found is None:
            return None
        for loop, step in found.items():
            if distances.setdefault(loop, step) != step:
                return None
    return distances


def extent(array: Node, indices: tuple[Node, ...], loops: tuple) -> tuple[int, int] | None:
    """The first entry of a vector that a place can touch, and the one behind the last, where they are known."""
    if array.op == "sym":
        if len(array.shape) != 1:
            return None
        if not indices:
            length = N.value_of(array.shape[0])
            return None if length is None else (0, length)
        low, high = least(indices[0], loops), least(N.neg(indices[0]), loops)
        return None if low is None or high is None or low < 0 else (low, 1 - high)
    if array.op == "matrix":
        start, rows, columns = (N.value_of(i) for i in array.args[2:])
        base = extent(array.args[0], (), loops) if array.args[0].op != "sym" else (0, 0)
        return None if None in (start, rows, columns) or base is None else (base[0] + start, base[0] + start + rows * columns)
    if array.op == "slice" and len(array.args) == 2 and isinstance(array.args[1], tuple):
        _, start, stop, step = array.args[1]
        first, last = 0 if start is None else N.value_of(start), None if stop is None else N.value_of(stop)
        if array.args[0].op != "sym" or step is not None or first is None or last is None or min(first, last) < 0:
            return None
        return first, last
    return extent(array.args[0], (), loops) if array.op in ("T", "reshape") else None


def reach(array: Node, indices: tuple[Node, ...]) -> tuple[Node, Node] | None:
    """The same as expressions; of one entry, with the indices of its loops."""
    if array.op == "sym" and len(array.shape) == 1:
        return (indices[0], N.add(indices[0], N.I1)) if len(indices) == 1 else (N.I0, array.shape[0])
    if array.op == "matrix" and array.args[0].op == "sym":
        start, rows, columns = array.args[2:]
        return start, N.add(start, N.mul(rows, columns))
    if array.op == "slice" and len(array.args) == 2 and array.args[0].op == "sym" and isinstance(array.args[1], tuple):
        _, start, stop, step = array.args[1]
        ends = N.I0 if start is None else start, array.args[0].shape[0] if stop is None else stop
        return ends if step is None and all((least(end, ()) or -1) >= 0 or end is N.I0 for end in ends) else None
    return reach(array.args[0], ()) if array.op in ("T", "reshape") else None


def _extents_apart(a: Access, b: Access) -> bool:
    x, y = extent(a.array, a.indices, a.loops), extent(b.array, b.indices, b.loops)
    if x is not None and y is not None and (x[1] <= y[0] or y[1] <= x[0]):
        return True
    p, q = (reach(one.array, one.indices if one.array.op == "sym" else ()) for one in (a, b))
    if p is None or q is None or _is_below_zero(p, a) or _is_below_zero(q, b) or (_moves(p, a) and _moves(q, b)):
        return False
    loops = (*a.loops, *b.loops)
    return any((low := least(N.sub(second[0], first[1]), loops)) is not None and low >= 0 for first, second in ((p, q), (q, p)))


def _is_below_zero(ends: tuple[Node, Node], access: Access) -> bool:
    """Whether a range may count from the end."""
    low = least(ends[0], access.loops)
    return low is None or low < 0


def _moves(ends: tuple[Node, Node], access: Access) -> bool:
    """Whether a range differs from one iteration to another."""
    return any(not end.deps.isdisjoint(loop.inside) for end in ends for loop in access.loops)


def _below(x: Node, y: Node, a: Access, b: Access) -> bool:
    """Whether one index is always less than the other."""
    high, low = least(N.neg(x), a.loops), least(y, b.loops)
    return high is not None and low is not None and -high < low


def _along(x: Node, y: Node, a: Access, b: Access, loops: list) -> dict | None:
    if (least(x, a.loops) or 0) < 0 or (least(y, b.loops) or 0) < 0 or None in (least(x, a.loops), least(y, b.loops)):
        return {}  # it may count from the end
    if _below(x, y, a, b) or _below(y, x, b, a):
        return None
    (p, c), (q, d) = affine(x), affine(y)
    indices = {loop.index: loop for loop in loops if isinstance(loop, P.For)}
    if any(p.get(atom) != q.get(atom) for atom in {*p, *q}):
        return {}
    moving = [atom for atom in p if atom in indices]
    if any(atom not in indices and _varies(atom, a) for atom in p):
        return {}
    difference = c - d
    if not moving:
        return None if difference else {}
    if len(moving) > 1:
        return _nested(p, difference, moving, indices)
    atom = moving[0]
    step = p[atom] * N.value_of(indices[atom].step)
    return None if difference % step else {indices[atom]: difference // step}


def _nested(p: dict, difference: int, moving: list, indices: dict) -> dict | None:
    """`i * width + j`: one entry is one pair of indices, if j stays below the width."""
    reach = 0
    for atom in sorted(moving, key=lambda atom: abs(p[atom])):
        if abs(p[atom]) <= reach + abs(difference):
            return {}
        loop = indices[atom]
        ends = N.value_of(loop.start), N.value_of(loop.stop)
        reach += abs(p[atom]) * (abs(ends[1] - ends[0]) - 1) if None not in ends else 1 << 62
    return None if difference else dict.fromkeys((indices[atom] for atom in moving), 0)


def _varies(atom: Node, access: Access) -> bool:
    """Whether an index may differ between iterations of the loops around."""
    inside = {s for loop in access.loops for s in loop.inside}
    return not atom.deps.isdisjoint(inside) or any(
        s.op == "sym" and s.kind == "i" and s not in inside for s in atom.deps if not s.shape
    )


def apart(x: Node, y: Node) -> bool:
    """Whether two views of one array show different entries in any case: constant indices of one axis that differ."""
    for p, q in ((p, q) for p in _chain(x) for q in _chain(y)):
        if p.op == q.op == "slice" and p.args[0] is q.args[0]:
            pairs = zip(p.args[1:], q.args[1:], strict=False)
            values = [(N.value_of(i), N.value_of(j)) for i, j in pairs if isinstance(i, Node) and isinstance(j, Node)]
            if any(None not in pair and pair[0] != pair[1] and min(pair) >= 0 for pair in values):
                return True
            if _ranges_apart(p, q):
                return True
    return False


def _ranges_apart(p: Node, q: Node) -> bool:
    """`x[:k]` and `x[k:]`."""
    first, second = p.args[1], q.args[1]
    if not (isinstance(first, tuple) and isinstance(second, tuple)):
        return False
    for a, b in ((first, second), (second, first)):
        if a[2] is not None and b[1] is not None and a[3] is None and b[3] is None:
            gap = N.value_of(N.sub(b[1], a[2]))
            if gap is not None and gap >= 0 and (least(a[2], ()) or -1) >= 0:
                return True
    return False


def _chain(node: Node) -> Iterator[Node]:
    while node.op in N.VIEWS:
        yield node
        node = node.args[0]
