"""The way forward is cut down to what the way back reads; what is read must not have been written over."""

from __future__ import annotations

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.dependence import Places
from adjode.derivation.liveness import pruned
from adjode.derivation.nodes import Node
from adjode.derivation.refusals import Refusal


def minimal(
    block: P.Block,
    outputs: set[Node],
    original: Places,
    again: dict[P.Statement, P.Read],
    reloads: dict[P.Statement, P.Store],
    hints: dict[Node, str],
) -> P.Block:
    """The statements that the outputs need.

    Parameters
    ----------
    original : Places
        Of the function's own program.
    again : dict
        The reads that are repeated on the way back, when all is written, and what each repeats.
    reloads : dict
        The reads of what has been stored for good, and where it was stored.

    Raises
    ------
    Refusal
        If what the way back reads has been written over.
    """
    dropped: set[P.Statement] = set()
    while True:
        result = pruned(block, outputs, dropped)
        reads = {again.get(s, s) for s in result.walk() if isinstance(s, P.Read)}
        stores = {s for s in result.walk() if isinstance(s, P.Store) and s in original.access}
        loaded = {reloads[s] for s in result.walk() if s in reloads}
        idle = {s for s in stores - loaded if not _reaches(s, reads, original)}
        if not idle:
            _require_kept(result, stores, original, again, hints)
            return result
        dropped |= idle


def _reaches(store: P.Store, reads: set[P.Read], original: Places) -> bool:
    here = original.access[store]
    return any(
        original.precedes(here, original.access[read])
        for read in reads
        if read in original.access and N.root(read.array) is N.root(store.array)
    )


def _require_kept(
    block: P.Block, stores: set[P.Store], original: Places, again: dict[P.Statement, P.Read], hints: dict[Node, str]
) -> None:
    late = set().union(*(node.deps for s in block.walk() if s.late for node in s.needs))
    for statement in block.walk():
        if not isinstance(statement, P.Read):
            continue
        source = again.get(statement)
        if source is None and not statement.indices and statement.symbol in late:
            source = statement
        if source is None or source not in original.access:
            continue
        here = original.access[source]
        for store in stores:
            if N.root(store.array) is N.root(source.array) and original.precedes(here, original.access[store]):
                name = hints.get(N.root(source.array), "an array")
                raise Refusal(
                    f"entries of `{name}` are written over, but the derivative needs their earlier values",
                    "write the new values to an array of their own",
                )
