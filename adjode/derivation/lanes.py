"""A product with one direction as products with many at once, in loops over the directions that a compiler turns into SIMD code.

What does not depend on the direction is calculated once, ahead of these loops: `s_dot += theta[v] * u_dot[j]` becomes

    c1_ = theta[v]
    for d_ in range(lanes_):
        kept_[0, d_] += c1_ * u_dot_[j, d_]

Matrices have a row for each entry and a column for each of up to LANES directions. That number is a constant, so that a compiler
knows how far apart rows are, and that they do not overlap.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable
from typing import Any

import numpy as np

from adjode.compile.kinds import LANES
from adjode.functions import as_matrix

_BETWEEN = (ast.Add, ast.Sub, ast.Mult, ast.Div)
_ANYWHERE = (ast.Name, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Add, ast.Sub, ast.Mult, ast.USub, ast.Load)


class _Unfit(Exception):
    """Something that depends on the direction is not calculated entry by entry."""


def lanes_text(text: str, space: dict[str, Any], name: str) -> tuple[str, dict[str, Any]] | None:
    """The text of `name(t, u, theta, u_dots, theta_dots, lanes, du_dots)`, and the names that it uses, from that of a jvp.

    As many directions as `lanes` has entries; None where that cannot be told from the text. A jvp by u alone has no theta_dot; what
    is made of it takes theta_dots all the same, and does not read them.
    """
    (function,) = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef)
    try:
        _Lanes(function).rewrite(name)
    except _Unfit:
        return None
    return ast.unparse(ast.fix_missing_locations(function)), {**space, "as_matrix_": as_matrix, "empty_": np.empty}


def _names(*nodes: ast.AST) -> set[str]:
    return {node.id for root in nodes for node in ast.walk(root) if isinstance(node, ast.Name)}


def _target(statement: ast.stmt) -> ast.expr | None:
    """What a plain statement writes to."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        return statement.targets[0]
    return statement.target if isinstance(statement, ast.AugAssign) else None


def _written(statement: ast.stmt) -> str | None:
    """The name of a variable, or of an array, that it writes to."""
    target = _target(statement)
    while isinstance(target, ast.Subscript):
        target = target.value
    return target.id if isinstance(target, ast.Name) else None


class _Group(ast.stmt):
    """Statements that depend on the direction, one behind the other: one loop."""

    def __init__(self, statements: list[Any]):
        self.statements = statements


class _Renamed(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]):
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)


class _Lanes:
    def __init__(self, function: ast.FunctionDef):
        self.function = function
        self.given = [argument.arg for argument in function.args.args][3:]
        self.varying = self._depend_on_direction()
        subscripts = [node.value for node in ast.walk(function) if isinstance(node, ast.Subscript)]
        self.arrays = {*self.given, *(_names(*subscripts) & self.varying)}
        self.kept: dict[str, int] = {}  # rows of variables that more than one loop sees
        self.constants: dict[str, str] = {}  # of a loop: their texts, and what they are called
        self.count = 0

    def _depend_on_direction(self) -> set[str]:
        varying, before = set(self.given), 0
        statements = [node for node in ast.walk(self.function) if isinstance(node, (ast.Assign, ast.AugAssign))]
        while len(varying) > before:
            before = len(varying)
            for statement in statements:
                name = _written(statement)
                if _names(statement.value) & varying:
                    if name is None:
                        raise _Unfit
                    varying.add(name)
        return varying

    def rewrite(self, name: str) -> None:
        function = self.function
        body = self._grouped(function.body)
        self._keep(body)
        rewritten = self._finished(body)
        sizes = [f"{function.args.args[k].arg}.size" for k in ((1, 1) if len(self.given) == 2 else (1, 2, 1))]
        head = [
            "lanes_ = lanes.size",
            *(f"{x}_ = as_matrix_({x}, 0, {n}, {LANES})" for x, n in zip(self.given, sizes, strict=True)),
        ]
        if self.kept:
            head.append(f"kept_ = empty_(({len(self.kept)}, {LANES}))")
        function.name, function.body = name, [*ast.parse("\n".join(head)).body, *rewritten]
        unread = [ast.arg("theta_dot_")] if len(self.given) == 2 else []
        function.args.args[-1:-1] = [*unread, ast.arg("lanes")]

    # --- which statements make one loop -------------------------------------------------------------------------------------------

    def _grouped(self, statements: Iterable[ast.stmt]) -> list[ast.stmt]:
        result: list[ast.stmt] = []
        group: list[ast.stmt] = []
        seen: set[str] = set()  # the names in the group
        for statement in statements:
            if _written(statement) in self.varying and not self._makes_array(statement):
                group.append(statement)
                seen |= _names(statement)
                continue
            goes_ahead = isinstance(_target(statement), ast.Name) and isinstance(statement, ast.Assign)
            if group and not (goes_ahead and _written(statement) not in seen):
                result.append(_Group(group))
                group, seen = [], set()
            result.append(self._with_parts(statement))
        return [*result, _Group(group)] if group else result

    def _with_parts(self, statement: ast.stmt) -> ast.stmt:
        if isinstance(statement, (ast.For, ast.While, ast.If)):
            head = statement.iter if isinstance(statement, ast.For) else statement.test
            if _names(head) & self.varying:
                raise _Unfit
            statement.body, statement.orelse = self._grouped(statement.body), self._grouped(statement.orelse)
        elif self._makes_array(statement):
            call = statement.value  # type: ignore[attr-defined]
            call.args[0] = ast.Tuple([call.args[0], ast.Constant(LANES)], ast.Load())
        elif _names(statement) & self.varying:
            raise _Unfit
        return statement

    def _makes_array(self, statement: ast.stmt) -> bool:
        """Whether it is `x_dot = np.empty(n)`, or with zeros."""
        if not (
            isinstance(statement, ast.Assign) and _written(statement) in self.arrays and isinstance(_target(statement), ast.Name)
        ):
            return False
        call = statement.value
        made = isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in ("empty", "zeros")
        if not made or len(call.args) != 1 or isinstance(call.args[0], ast.Tuple) or _names(call) & self.varying:  # type: ignore
            raise _Unfit
        return True

    def _keep(self, body: list[ast.stmt]) -> None:
        """Find the variables that more than one loop sees, or one at more than one time."""
        first: dict[str, Any] = {}
        loops: dict[str, set[_Group]] = {}
        for group in self._groups(body):
            for statement in group.statements:
                for name in _names(statement):
                    first.setdefault(name, statement)
                    loops.setdefault(name, set()).add(group)
        for name in sorted(self.varying - self.arrays):
            begins = isinstance(first[name], ast.Assign) and _written(first[name]) == name and name not in _names(first[name].value)
            if len(loops[name]) > 1 or not begins:
                self.kept[name] = len(self.kept)

    def _groups(self, statements: list[ast.stmt]) -> Iterable[_Group]:
        for statement in statements:
            if isinstance(statement, _Group):
                yield statement
            else:
                yield from self._groups([*getattr(statement, "body", []), *getattr(statement, "orelse", [])])

    # --- the loops ---------------------------------------------------------------------------------------------------------------

    def _finished(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        result: list[ast.stmt] = []
        for statement in statements:
            if isinstance(statement, _Group):
                result += self._loop(statement)
                continue
            if (group := self._sum(statement)) is not None:
                result += self._in_pairs(statement, group)  # type: ignore[arg-type]
                continue
            if isinstance(statement, (ast.For, ast.While, ast.If)):
                statement.body, statement.orelse = self._finished(statement.body), self._finished(statement.orelse)
            result.append(statement)
        return result

    def _sum(self, statement: ast.stmt) -> _Group | None:
        """All that depends on the direction in a loop, where that is a sum of products with the given directions."""
        if (
            not isinstance(statement, ast.For)
            or statement.orelse
            or any(isinstance(one, ast.Return) for one in ast.walk(statement))
        ):
            return None
        groups = list(self._groups([statement]))
        if len(groups) != 1 or groups[0] not in statement.body or len(groups[0].statements) != 1:
            return None
        (added,) = groups[0].statements
        if not isinstance(added, ast.AugAssign) or not isinstance(added.op, ast.Add) or _written(added) not in self.kept:
            return None
        plain = not any(isinstance(one, ast.IfExp) and _names(one) & self.varying for one in ast.walk(added.value))
        return groups[0] if plain and _names(added.value) & self.varying <= set(self.given[:-1]) else None

    def _in_pairs(self, statement: ast.For, group: _Group) -> list[ast.stmt]:
        """The loop with two terms added at a time: reading and writing a sum over many directions is what takes long."""
        *head, loop = self._loop(group)
        assert isinstance(loop, ast.For) and isinstance(loop.body[0], ast.AugAssign)
        added, self.count = loop.body[0], self.count + 1
        arrays = {f"{x}_" for x in self.given}
        at = {name for one in ast.walk(added.value) if isinstance(one, ast.Subscript) for name in _names(one.slice)}
        before = {name: f"{name}_{self.count}_" for name in sorted(_names(added.value) - arrays - {"d_"})}
        place, term = ast.unparse(added.target), ast.unparse(added.value)
        earlier = ast.unparse(_Renamed(before).visit(copy.deepcopy(added.value)))
        odd, lanes = f"odd{self.count}_", "for d_ in range(lanes_):"
        kept = "; ".join([f"{odd} = True", *(f"{other} = {name}" for name, other in before.items())])
        pair = f"if {odd}:\n {odd} = False\n {lanes}\n  {place} += {earlier} + {term}\nelse:\n {kept}"
        k = statement.body.index(group)
        statement.body[k : k + 1] = [*head, *ast.parse(pair).body]
        begins = [f"{odd} = False", *(f"{other} = {0 if name in at else 0.0}" for name, other in before.items())]
        rest = f"if {odd}:\n {lanes}\n  {place} += {earlier}"
        return [*ast.parse("\n".join(begins)).body, statement, *ast.parse(rest).body]

    def _loop(self, group: _Group) -> list[ast.stmt]:
        self.constants = {}
        for statement in group.statements:
            statement.value = self._entry(statement.value)
            place = self._entry(_target(statement))
            if isinstance(statement, ast.Assign):
                statement.targets = [place]
            else:
                statement.target = place
        (loop,) = ast.parse("for d_ in range(lanes_):\n    pass").body
        assert isinstance(loop, ast.For)
        loop.body = group.statements
        return [*ast.parse("\n".join(f"{name} = {text}" for text, name in self.constants.items())).body, loop]

    def _entry(self, node: Any) -> Any:
        """An expression for one direction."""
        if not _names(node) & self.varying:
            return self._constant(node)
        if isinstance(node, ast.Name) and node.id not in self.arrays:
            return self._place(f"kept_[{self.kept[node.id]}, d_]", node.ctx) if node.id in self.kept else node
        if isinstance(node, ast.Subscript):
            return self._in_array(node)
        if isinstance(node, ast.BinOp) and isinstance(node.op, _BETWEEN):
            return ast.BinOp(self._entry(node.left), node.op, self._entry(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            return ast.UnaryOp(node.op, self._entry(node.operand))
        if isinstance(node, ast.IfExp) and not _names(node.test) & self.varying:
            return ast.IfExp(self._constant(node.test), *(self._side(side) for side in (node.body, node.orelse)))
        raise _Unfit

    def _side(self, node: ast.expr) -> ast.expr:
        """One side of a choice: what it alone may calculate must not go ahead of the loop."""
        if any(not isinstance(one, _ANYWHERE) for one in ast.walk(node) if not _names(one) & self.varying):
            raise _Unfit
        return self._entry(node)

    def _in_array(self, node: ast.Subscript) -> ast.expr:
        whole = any(isinstance(one, (ast.Slice, ast.Tuple)) for one in ast.walk(node.slice))
        if not isinstance(node.value, ast.Name) or whole or _names(node.slice) & self.varying:
            raise _Unfit
        index = ast.unparse(self._constant(node.slice))
        return self._place(f"{node.value.id}{'_' if node.value.id in self.given else ''}[{index}, d_]", node.ctx)

    def _constant(self, node: Any) -> Any:
        """What does not depend on the direction, by its name."""
        if isinstance(node, (ast.Name, ast.Constant)):
            return node
        text = ast.unparse(node)
        if text not in self.constants:
            self.count += 1
            self.constants[text] = f"c{self.count}_"
        return ast.Name(self.constants[text], ast.Load())

    def _place(self, text: str, context: ast.expr_context) -> ast.expr:
        (expression,) = ast.parse(text).body
        assert isinstance(expression, ast.Expr) and isinstance(expression.value, ast.Subscript)
        expression.value.ctx = context
        return expression.value
