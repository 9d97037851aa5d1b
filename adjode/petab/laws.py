"""Rate laws that differ only in what they read, as loops over tables of indices."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from adjode.petab.formulas import binary, text

_FEW = 4  # laws of one form that are written one by one


@dataclass
class Loops:
    """The lines of the loops, and what they read."""

    lines: list[str] = field(default_factory=list)
    reads: set[str] = field(default_factory=set)


def laws(rates: Mapping[str, ast.expr], kind: Callable[[str], tuple[str, int]]) -> tuple[list[str], Loops, dict[str, ast.expr]]:
    """Tables, loops over them, and the rates of which there are few alike.

    Parameters
    ----------
    rates : dict of reaction -> expression
    kind : callable
        The array that a name is an entry of, and the index.
    """
    forms: dict[str, list[tuple[int, str, list[str]]]] = {}
    for k, (reaction, rate) in enumerate(rates.items()):
        form = _Form(kind)
        shape = text(form.visit(_sorted(rate, kind)))
        forms.setdefault(shape, []).append((k, reaction, form.found))
    tables, loops, single = [], Loops(), {}
    for number, (shape, members) in enumerate(forms.items()):
        if len(members) < _FEW or not members[0][2]:
            single.update({reaction: rates[reaction] for _, reaction, _ in members})
            continue
        title = f"LAW{number}"
        tables.append(_array(f"{title}_v", [k for k, _, _ in members]))
        for position in range(len(members[0][2])):
            tables.append(_array(f"{title}_{position}", [kind(found[position])[1] for _, _, found in members]))
        body = shape
        for position in range(len(members[0][2])):
            body = body.replace(f"_at{position}_", f"{title}_{position}[i]")
        loops.lines += [f"for i in range({len(members)}):", f"    v[{title}_v[i]] = {body}"]
        loops.reads.update(identifier for _, _, found in members for identifier in found)
    return tables, loops, single


def _array(title: str, values: list[int]) -> str:
    shown = [str(value) for value in values]
    lines = [", ".join(shown[k : k + 24]) for k in range(0, len(shown), 24)]
    return f"{title} = np.array([\n    " + ",\n    ".join(lines) + "])"


class _Form(ast.NodeTransformer):
    """Entries of arrays in place of names; `found` are the names, in order."""

    def __init__(self, kind: Callable[[str], tuple[str, int]]):
        self.kind = kind
        self.found: list[str] = []

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in self.found:
            self.found.append(node.id)
        place = ast.Name(f"_at{self.found.index(node.id)}_")
        return ast.Subscript(ast.Name(self.kind(node.id)[0]), place)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        return ast.Call(node.func, [self.visit(argument) for argument in node.args], [])


def _factors(expression: ast.expr) -> list[ast.expr]:
    if isinstance(expression, ast.BinOp) and isinstance(expression.op, ast.Mult):
        return _factors(expression.left) + _factors(expression.right)
    return [expression]


def _sorted(expression: ast.expr, kind: Callable[[str], tuple[str, int]]) -> ast.expr:
    """The same with the factors of each product in one order, so that laws alike are found to be: numbers, theta, u, w, others."""

    def rank(factor: ast.expr) -> tuple[int, str]:
        if isinstance(factor, ast.Constant):
            return 0, ""
        if isinstance(factor, ast.Name):
            return {"theta": 1, "u": 2, "w": 3}[kind(factor.id)[0]], ""
        return 4, text(_Form(kind).visit(ast.parse(text(factor), mode="eval").body))

    class Sorting(ast.NodeTransformer):
        def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
            if not isinstance(node.op, ast.Mult):
                return self.generic_visit(node)  # type: ignore[return-value]
            factors = [self.visit(factor) for factor in _factors(node)]
            factors = [factor for factor in factors if text(factor) != "1.0"] or [ast.Constant(1.0)]
            first, *others = sorted(factors, key=rank)
            for other in others:
                first = binary(first, ast.Mult, other)
            return first

    return Sorting().visit(ast.parse(text(expression), mode="eval").body)
