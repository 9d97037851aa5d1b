"""What loops run over."""

from __future__ import annotations

from adjode.derivation import nodes as N
from adjode.derivation.expressions import Iterable
from adjode.derivation.nodes import Node
from adjode.derivation.refusals import Refusal


def range_over(ends: list[Node]) -> Iterable:
    start, stop, step = {1: (N.I0, *ends, N.I1), 2: (*ends, N.I1), 3: tuple(ends)}[len(ends)]
    if N.value_of(step) in (None, 0):
        raise Refusal("the step of a range is not a constant", "use a constant step")
    return Iterable(start, stop, step, lambda k: k)


def enumerated_over(over: Iterable | tuple, start: Node = N.I0) -> Iterable | tuple:
    if isinstance(over, tuple):
        return tuple((N.add(start, N.const(k)), item) for k, item in enumerate(over))
    if over.step is not N.I1:
        raise Refusal("a range with a step is enumerated", "count with the index")
    return Iterable(over.start, over.stop, over.step, lambda k: (N.add(N.sub(k, over.start), start), over.item(k)))


def zipped_over(parts: list[Iterable | tuple]) -> Iterable | tuple:
    if all(isinstance(part, tuple) for part in parts):
        return tuple(zip(*parts, strict=False))
    over = [part for part in parts if isinstance(part, Iterable)]
    if len(over) < len(parts):
        return _zipped_with_tuples(parts)
    if any(p.start is not N.I0 or p.step is not N.I1 for p in over):
        raise Refusal("a loop runs over a range and something else at once", "use an index")
    stop = over[0].stop
    for part in over[1:]:
        stop = stop if part.stop is stop else N.call("min", "min", stop, part.stop, kind="i")
    return Iterable(N.I0, stop, N.I1, lambda k: tuple(part.item(k) for part in over))


def reversed_over(over: Iterable | tuple) -> Iterable | tuple:
    if isinstance(over, tuple):
        return tuple(reversed(over))
    if over.step is not N.I1:
        raise Refusal("a range with a step is reversed", "write the range that runs backwards")
    last = N.sub(over.stop, N.I1)
    return Iterable(last, N.sub(over.start, N.I1), N.const(-1), over.item)


def _zipped_with_tuples(parts: list[Iterable | tuple]) -> tuple:
    """Tuples and arrays, which are taken to be as long as these."""
    count = min(len(part) for part in parts if isinstance(part, tuple))
    return tuple(zip(*(_first(part, count) if isinstance(part, Iterable) else part for part in parts), strict=False))


def _first(over: Iterable, count: int) -> tuple:
    known = over.listed(count)
    return tuple(over.item(N.add(over.start, N.mul(N.const(k), over.step))) for k in range(count)) if known is None else known
