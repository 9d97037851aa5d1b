"""Texts of products in forward mode: of f, and of its vjp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adjode.derivation import nodes as N
from adjode.derivation import program as P
from adjode.derivation.deriving import reading, vjp_program, written
from adjode.derivation.forward import Forward
from adjode.derivation.liveness import pruned
from adjode.derivation.nodes import Node

Text = tuple[str, dict[str, Any]]


def jvp_text(function: Callable, arguments: tuple[str, ...], wrt: tuple[str, ...], name: str) -> Text:
    """The text of the sum of `df/dx x_dot` for each x in `wrt`, and the names that it uses.

    With `wrt=("t",)` t_dot is 1, and no argument.

    Raises
    ------
    TypeError
        If f has something in it that cannot be differentiated here.
    """
    with reading(function, arguments) as own:
        result = own.result
        assert result is not None
        dots = _dots(own, wrt)
        if result.shape:
            dots[result] = _named(own, "du_dot", result)
        forward = Forward(own.body, dots, own.hints, own.memory)
        block = forward.block()
        returned = None if result.shape else forward.tangents.whole(result)
        block = pruned(block, {dots[result]} if returned is None else set(returned.deps))
        if "du" in own.arguments and _uses(block, result):
            block = P.Block([P.Alloc(result, None), *block.statements])
        taken = {x: own.arguments[x] for x in own.arguments if x != "du"}
        taken.update({f"{x}_dot": dots[own.arguments[x]] for x in wrt if x != "t"})
        if returned is None:
            taken["du_dot"] = dots[result]
        return written(own, name, taken, block, returned)


def vjp_dot_text(function: Callable, arguments: tuple[str, ...], wrt: tuple[str, ...], name: str, square: bool) -> Text:
    """The text of the tangents of `(df/dx)^T lam` for each x in `wrt`, when these and lam have tangents.

    For a number g these are products with its Hessian.

    Raises
    ------
    TypeError
        If f has something in it that cannot be differentiated here.
    """
    with reading(function, arguments) as own:
        block, taken = vjp_program(own, wrt, square)
        outputs = {x: taken[f"{x}_bar"] for x in wrt}
        dots = _dots(own, wrt)
        given = {f"{x}_dot": dots[own.arguments[x]] for x in wrt}
        if "lam" in taken:
            dots[taken["lam"]] = given["lam_dot"] = _named(own, "lam_dot", taken["lam"])
        for x, bar in outputs.items():
            dots[bar] = given[f"{x}_bar_dot"] = _named(own, f"{x}_bar_dot", bar)
        block = Forward(block, dots, own.hints, own.memory).block()
        block = pruned(block, {dots[bar] for bar in outputs.values()})
        scratch = [P.Alloc(bar, None) for bar in outputs.values() if _uses(block, bar)]
        own_arguments = {x: symbol for x, symbol in taken.items() if symbol not in outputs.values()}
        return written(own, name, {**own_arguments, **given}, P.Block([*scratch, *block.statements]))


def _dots(own: P.Function, wrt: tuple[str, ...]) -> dict[Node, Node]:
    """The tangents of arguments."""
    return {own.arguments[x]: N.ONE if x == "t" else _named(own, f"{x}_dot", own.arguments[x]) for x in wrt}


def _named(own: P.Function, name: str, like: Node) -> Node:
    symbol = N.symbol("f", like.shape)
    own.hints[symbol] = name
    return symbol


def _uses(block: P.Block, array: Node) -> bool:
    return any(array in node.deps for statement in block.walk() for node in statement.uses)
