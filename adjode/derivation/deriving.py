"""The derived functions: their programs, their texts, and the functions that these define."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.dependence import Places
from adjode.derivation.fills import Coverage, filled, set_first, unfilled
from adjode.derivation.flow import minimal
from adjode.derivation.gathering import gathered
from adjode.derivation.liveness import pruned
from adjode.derivation.nodes import Node
from adjode.derivation.refusals import Refusal
from adjode.derivation.reverse import Reverse
from adjode.derivation.session import RESULTS, read_function
from adjode.derivation.taping import Lost, reloads
from adjode.derivation.tidying import tidied
from adjode.derivation.writing import Writer


@contextmanager
def deep_recursion() -> Iterator[None]:
    """Long sums are deep trees."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 20_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def vjp_text(
    function: Callable, arguments: tuple[str, ...], wrt: tuple[str, ...], name: str, square: bool
) -> tuple[str, dict[str, Any]]:
    """The text of the product `(df/dx)^T lam` for each x in `wrt`, and the names that it uses; `square` says that f has as many
    results as u has entries.

    Raises
    ------
    TypeError
        If f has something in it that cannot be differentiated here.
    """
    with reading(function, arguments) as own:
        block, taken = vjp_program(own, wrt, square)
        return written(own, name, taken, block)


def program_text(function: Callable, arguments: tuple[str, ...], name: str) -> tuple[str, dict[str, Any]]:
    """The text of what is read in a function, and the names that it uses."""
    with reading(function, arguments) as own:
        assert own.result is not None
        returned = None if own.result in own.arguments.values() else own.result
        block = pruned(own.body, set(own.result.deps))
        return written(own, name, own.arguments, block, returned)


@contextmanager
def reading(function: Callable, arguments: tuple[str, ...]) -> Iterator[P.Function]:
    """The program of a function, to be differentiated; what is refused meanwhile is told with its name."""
    with deep_recursion():
        own = read_function(function, arguments)
        try:
            yield own
        except Refusal as refusal:
            raise TypeError(f"{own.name} cannot be differentiated: {refusal.what}; {refusal.instead}.") from None


def written(
    own: P.Function, name: str, taken: dict[str, Node], block: P.Block, returned: Node | None = None
) -> tuple[str, dict[str, Any]]:
    """The text of a program with these arguments, and the names that it uses."""
    writer = Writer(own.space, own.hints)
    return writer.function(name, taken, block, returned), writer.space


def vjp_program(own: P.Function, wrt: tuple[str, ...], square: bool) -> tuple[P.Block, dict[str, Node]]:
    """The program of the transpose, and its arguments by name."""
    result = own.result
    assert result is not None
    lam = N.symbol("f", result.shape) if result.shape else N.ONE
    bars = {x: N.symbol("f", own.arguments[x].shape) for x in wrt}
    own.hints.update({bar: f"{x}_bar" for x, bar in bars.items()})
    reverse, block = _transposed(own, {own.arguments[x]: bars[x] for x in wrt}, lam)
    if any(result in node.deps for s in block.walk() for node in s.uses) and result in own.arguments.values():
        block = P.Block([P.Alloc(result, None), *block.statements])
    tidied(block)
    gathered(block, set(bars.values()), reverse.is_whole)
    block = pruned(block, set(bars.values()))
    known = Coverage(own.body, result) if result.shape and square else None
    set_first(block, [*bars.values(), *_zeroed(block)])
    unfilled(block)
    for x, bar in bars.items():
        length = own.arguments[x].shape[0]
        block = filled(block, bar, length, known if x == "u" else None)
    arguments = {x: own.arguments[x] for x in own.arguments if x not in RESULTS}
    if result.shape:
        arguments["lam"] = lam
        own.hints[lam] = "lam"
    arguments.update({f"{x}_bar": bar for x, bar in bars.items()})
    return block, arguments


def _transposed(own: P.Function, bars: dict[Node, Node], lam: Node) -> tuple[Reverse, P.Block]:
    """The program of the transpose; again, with tapes, where it reads what has been written over."""
    loaded, places = reloads(own.body, Places(own.body)), Places(own.body)
    lost: list[P.Read] = []
    while True:
        reverse = Reverse(own, bars, lam, loaded, Lost(own, lost, places))
        taping = reverse.taping
        block, more = minimal(reverse.block(), set(bars.values()), reverse.places, taping.again, taping.reloads)
        more = [read for read in more if read not in lost]
        if not more:
            return reverse, block
        lost += more


def _zeroed(block: P.Block) -> list[Node]:
    return [s.symbol for s in block.walk() if isinstance(s, P.Alloc) and s.late and s.fill is N.ZERO]
