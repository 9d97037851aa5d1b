"""What nobody reads is taken away; what is read must still be there."""

from __future__ import annotations

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.nodes import Node


def pruned(block: P.Block, live: set[Node], dropped: frozenset[P.Statement] | set[P.Statement] = frozenset()) -> P.Block:
    """The statements that others need, or that write into the arrays that are `live` at the end; without those `dropped`."""
    return _Pruning(dropped).block(block, set(live))


class _Pruning:
    def __init__(self, dropped: frozenset[P.Statement] | set[P.Statement]):
        self.dropped = dropped

    def block(self, block: P.Block, live: set[Node]) -> P.Block:
        """`live` is what is read behind the block, and becomes what is read before it."""
        kept: list[P.Statement] = []
        for statement in reversed(block.statements):
            if statement in self.dropped:
                continue
            if isinstance(statement, P.If):
                self._if(statement, live, kept)
            elif isinstance(statement, (P.For, P.While)):
                self._loop(statement, live, kept)
            elif isinstance(statement, P.Store):
                if N.root(statement.array) in live:
                    kept.append(statement)
                    live |= _needs(statement)
            elif statement.defines[0] in live:
                kept.append(statement)
                live.discard(statement.defines[0])
                live |= _needs(statement)
        return P.Block(kept[::-1])

    def _if(self, statement: P.If, live: set[Node], kept: list[P.Statement]) -> None:
        results = [r for r in statement.results if r.symbol in live]
        live -= {r.symbol for r in results}
        sides = []
        for block, ends in ((statement.then, [r.then for r in results]), (statement.other, [r.other for r in results])):
            inside = set(live).union(*(end.deps for end in ends))
            sides.append((self.block(block, inside), inside))
        (then, a), (other, b) = sides
        if results or then.statements or other.statements:
            kept.append(_marked(P.If(statement.condition, then, other, results), statement))
            live |= a | b | statement.condition.deps

    def _loop(self, statement: P.For | P.While, live: set[Node], kept: list[P.Statement]) -> None:
        wanted = {c.phi for c in statement.carried if c.after in live}
        if isinstance(statement, P.While):
            wanted |= {c.phi for c in statement.carried if c.phi in statement.condition.deps}
        behind = live - {c.after for c in statement.carried}
        while True:
            inside = set(behind)
            for c in statement.carried:
                if c.phi in wanted:
                    inside |= c.next.deps
            body = self.block(statement.body, inside)
            more = {c.phi for c in statement.carried if c.phi in inside} | wanted
            grown = behind | (inside - set(statement.inside))
            if more == wanted and grown == behind:
                break
            wanted, behind = more, grown
        carried = [c for c in statement.carried if c.phi in wanted]
        needed = {c.phi for c in statement.carried if c.after in live}
        if not body.statements and not needed:
            return
        live -= {c.after for c in carried}
        live |= inside - set(statement.inside)
        for c in carried:
            live |= c.start.deps
        if isinstance(statement, P.For):
            s = statement
            loop: P.For | P.While = P.For(s.index, s.start, s.stop, s.step, body, carried, s.backwards)
            live |= s.start.deps | s.stop.deps
        else:
            loop = P.While(statement.condition, body, carried)
            live |= statement.condition.deps - set(statement.inside)
        kept.append(_marked(loop, statement))


def _marked(new: P.Statement, old: P.Statement) -> P.Statement:
    new.late = old.late
    return new


def _needs(statement: P.Statement) -> frozenset[Node]:
    return frozenset().union(*(node.deps for node in statement.uses))
