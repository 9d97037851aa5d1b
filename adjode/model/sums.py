"""Sums in loops that may be added up in any order, so that the loops vectorise.

`s += x` in a loop that has no other use for `s` becomes `s = adjode_plus(s, x)`, an addition that the compiler may reorder: what
OpenMP calls a reduction. Nothing else changes its order, as it would with `fastmath`, so compensated sums and the like are safe.
"""

from __future__ import annotations

import ast
import copy
import dis
import operator
import types
from typing import Any

from numba import types as of
from numba.extending import intrinsic

from adjode.derivation.origins import origin_of, remade


def with_sums(function: types.FunctionType) -> types.FunctionType:
    """`function` with such sums; itself, if it has none, or its source is not at hand."""
    origin = origin_of(function) if loops(function, "+=", "-=") else None
    if origin is None:
        return function
    made = _Sums()
    tree = ast.fix_missing_locations(made.visit(copy.deepcopy(origin.tree)))
    code = origin.compiled_as(function.__code__, tuple(_INSIDE), tree) if made.found else None
    return function if code is None else remade(function, code, _INSIDE)


def loops(function: types.FunctionType, *operators: str) -> bool:
    """Whether it has a loop, and one of these operators if any are named."""
    codes = [function.__code__, *(part for part in function.__code__.co_consts if isinstance(part, types.CodeType))]
    instructions = [one for code in codes for one in dis.get_instructions(code)]
    has_loop = any(one.opname == "FOR_ITER" or "BACKWARD" in one.opname for one in instructions)
    return has_loop and (not operators or any(one.argrepr in operators for one in instructions))


class _Sums(ast.NodeTransformer):
    def __init__(self) -> None:
        self.found = False
        self._summed: set[str] = set()

    def _loop(self, node: ast.For | ast.While) -> ast.AST:
        before = self._summed
        self._summed = before | _only_summed(node)
        self.generic_visit(node)
        self._summed = before
        return node

    visit_For = visit_While = _loop

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        if not isinstance(node.target, ast.Name) or node.target.id not in self._summed:
            return node
        self.found = True
        name = _NAMES[type(node.op)]
        call = ast.Call(ast.Name(name, ast.Load()), [ast.Name(node.target.id, ast.Load()), node.value], [])
        return ast.copy_location(ast.Assign([node.target], ast.copy_location(call, node)), node)


def _only_summed(loop: ast.AST) -> set[str]:
    """The names that a loop does nothing with but add to them."""
    targets = [node.target for node in ast.walk(loop) if isinstance(node, ast.AugAssign) and type(node.op) in _NAMES]
    summed = {id(target): target.id for target in targets if isinstance(target, ast.Name)}
    others = {node.id for node in ast.walk(loop) if isinstance(node, ast.Name) and id(node) not in summed}
    return set(summed.values()) - others


def _may_reorder(change: Any, name: str) -> Any:
    """A change in place, of floats in any order."""

    @intrinsic
    def changed(typingctx, a, b):
        if isinstance(a, of.Float) and isinstance(b, (of.Float, of.Integer)) and of.float32 not in (a, b):

            def reordered(context, builder, sig, args):
                return getattr(builder, name)(*args, flags=("reassoc", "contract"))

            return of.float64(of.float64, of.float64), reordered

        signature = typingctx.resolve_function_type(change, (a, b), {})
        if signature is None:
            return None

        def as_it_is(context, builder, sig, args):
            return context.get_function(change, signature)(builder, args)

        return signature, as_it_is

    return changed


_NAMES: dict[Any, str] = {ast.Add: "adjode_plus", ast.Sub: "adjode_minus"}
# what stands for these names, which are variables of the closure
_INSIDE = {"adjode_plus": _may_reorder(operator.iadd, "fadd"), "adjode_minus": _may_reorder(operator.isub, "fsub")}
