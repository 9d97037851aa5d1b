"""The way forward is cut down to what the way back reads; what has been written over by then is found."""

from __future__ import annotations

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.dependence import Places
from adjode.derivation.liveness import pruned
from adjode.derivation.nodes import Node


def minimal(
    block: P.Block,
    outputs: set[Node],
    original: Places,
    again: dict[P.Statement, P.Read],
    reloads: dict[P.Statement, P.Store],
) -> tuple[P.Block, list[P.Read]]:
    """The statements that the outputs need, and the reads on the way back of what has been written over by then.

    Parameters
    ----------
    original : Places
        Of the function's own program.
    again : dict
        The reads that are repeated on the way back, when all is written, and copies in place of reads; and what each repeats.
    reloads : dict
        The reads of what has been stored for good, and where it was stored.
    """
    dropped: set[P.Statement] = set()
    while True:
        result = pruned(block, outputs, dropped)
        reads = {s for s in (again.get(s, s) for s in result.walk()) if isinstance(s, P.Read)}
        stores = {s for s in result.walk() if isinstance(s, P.Store) and s in original.access}
        loaded = {reloads[s] for s in result.walk() if s in reloads}
        idle = {s for s in stores - loaded if not _reaches(s, reads, original)}
        if not idle:
            return result, _lost(result, stores, original, again)
        dropped |= idle


def _reaches(store: P.Store, reads: set[P.Read], original: Places) -> bool:
    here = original.access[store]
    return any(
        original.precedes(here, original.access[read])
        for read in reads
        if read in original.access and N.root(read.array) is N.root(store.array)
    )


def _lost(block: P.Block, stores: set[P.Store], original: Places, again: dict[P.Statement, P.Read]) -> list[P.Read]:
    late = set().union(*(node.deps for s in block.walk() if s.late for node in s.needs))
    found: dict[P.Read, None] = {}
    for statement in block.walk():
        if not isinstance(statement, P.Read):
            continue
        source = again.get(statement)
        if source is None and not statement.indices and statement.symbol in late:
            source = statement
        if source is None or source not in original.access:
            continue
        here = original.access[source]
        over = (s for s in stores if N.root(s.array) is N.root(source.array))
        if any(original.precedes(here, original.access[store]) for store in over):
            found[source] = None
    return list(found)
