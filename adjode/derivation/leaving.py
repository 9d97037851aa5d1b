"""Loops that are left early become loops that go on with nothing to do.

    for i in range(n):                      done = False
        x = step(x)                         for i in range(n):
        if abs(x) < 1e-9:                       if not done:
            break                                   x = step(x)
                                                    if abs(x) < 1e-9:
                                                        done = True

A `while` loop ends where `done` is true. A `return` inside of a loop leaves its value behind, which is returned after the loop.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from typing import Any

_LOOPS = ast.For, ast.While
_APART = ast.FunctionDef, ast.Lambda, ast.ClassDef


def leaves_loops(body: list[ast.stmt]) -> bool:
    """Whether a loop is left early."""
    return any(isinstance(node, _LOOPS) and _leaving(node.body) for node in _all(body))


class Left(ast.Name):
    """What a loop was left with."""


class Loops:
    """Takes the early ends out of the loops of a function; what it changes are copies.

    Parameters
    ----------
    body : list of stmt
        All that the function does, to tell which names are free.
    """

    def __init__(self, body: list[ast.stmt]):
        self.taken = {node.id for statement in body for node in ast.walk(statement) if isinstance(node, ast.Name)}

    def fresh(self, name: str) -> str:
        found = next(n for n in itertools.chain([name], (f"{name}_{k}" for k in itertools.count(2))) if n not in self.taken)
        self.taken.add(found)
        return found

    def closed(self, body: list[ast.stmt]) -> list[ast.stmt]:
        return [part for statement in body for part in self._statement(statement)]

    def _statement(self, statement: ast.stmt) -> list[ast.stmt]:
        if isinstance(statement, ast.If):
            return [changed(statement, body=self.closed(statement.body), orelse=self.closed(statement.orelse))]
        if not isinstance(statement, _LOOPS):
            return [statement]
        loop = changed(statement, body=self.closed(statement.body), orelse=self.closed(statement.orelse))
        return self._loop(loop) if _leaving(loop.body) else [loop]

    def _loop(self, loop: ast.For | ast.While) -> list[ast.stmt]:
        done = self.fresh("done")
        returns = [node for node in _leaving(loop.body) if isinstance(node, ast.Return)]
        value = self.fresh("returned") if any(node.value is not None for node in returns) else None
        leave = _Leave(loop, done, value)
        body = leave.block(straightened(loop.body, (ast.Break, ast.Continue, ast.Return)))
        goes_on = ast.UnaryOp(ast.Not(), leave.name(done))
        before, after = [leave.set(done, ast.Constant(False))], []
        if isinstance(loop, ast.For):
            closed = changed(loop, body=[ast.If(goes_on, body, [])], orelse=[])
        else:
            closed = changed(loop, test=ast.BoolOp(ast.And(), [goes_on, loop.test]), body=body, orelse=[])
        if loop.orelse:
            after.append(ast.If(goes_on, loop.orelse, []))
        if returns:
            before += [] if value is None else [leave.set(value, ast.Constant(0))]
            after.append(ast.If(leave.name(done), [ast.Return(None if value is None else Left(value, ast.Load()))], []))
        return [leave.placed(statement) for statement in (*before, closed, *after)]


class _Leave:
    """What stands in the place of `break` and `return` in a loop."""

    def __init__(self, loop: ast.stmt, done: str, value: str | None):
        self.loop, self.done, self.value = loop, done, value

    def name(self, name: str) -> ast.Name:
        return ast.Name(name, ast.Load())

    def set(self, name: str, value: ast.expr) -> ast.stmt:
        return ast.Assign([ast.Name(name, ast.Store())], value)

    def block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        return [part for statement in body for part in self._statement(statement)] or [ast.Pass()]

    def _statement(self, statement: ast.stmt) -> list[ast.stmt]:
        if isinstance(statement, ast.If):
            return [changed(statement, body=self.block(statement.body), orelse=self.block(statement.orelse))]
        if not isinstance(statement, (ast.Break, ast.Return)):
            return [statement]
        made = [self.set(self.done, ast.Constant(True))]
        if isinstance(statement, ast.Return) and statement.value is not None and self.value is not None:
            made.append(self.set(self.value, statement.value))
        return [_placed(one, statement) for one in made]

    def placed(self, statement: ast.stmt) -> ast.stmt:
        return _placed(statement, self.loop)


def _placed(statement: ast.stmt, like: ast.stmt) -> ast.stmt:
    """A statement in the line of another, where it has none of its own."""
    for node in ast.walk(statement):
        if not hasattr(node, "lineno"):
            ast.copy_location(node, like)
    return statement


def _all(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements of a function, also those inside of others."""
    for statement in body:
        yield statement
        if not isinstance(statement, _APART):
            yield from _all([*getattr(statement, "body", []), *getattr(statement, "orelse", [])])


def _leaving(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements that leave the loop with this body early."""
    found: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, (ast.Break, ast.Return)):
            found.append(statement)
        elif isinstance(statement, ast.If):
            found += _leaving([*statement.body, *statement.orelse])
        elif isinstance(statement, _LOOPS):
            found += [one for one in _leaving([*statement.body, *statement.orelse]) if isinstance(one, ast.Return)]
    return found


# --- branches that end early --------------------------------------------------------------------------------------------------


Leave = type[ast.stmt] | tuple[type[ast.stmt], ...]


def straightened(body: list[ast.stmt], leave: Leave = ast.Return) -> list[ast.stmt]:
    """The same statements, where what comes after a branch that returns stands in its other branch."""
    result: list[ast.stmt] = []
    for k, statement in enumerate(body):
        if isinstance(statement, leave):
            result.append(statement)
            return result
        if isinstance(statement, ast.If) and any(_leaves(part, leave) for part in (statement.body, statement.orelse)):
            rest = body[k + 1 :]
            then = statement.body if _always(statement.body, leave) else [*statement.body, *rest]
            other = statement.orelse if _always(statement.orelse, leave) else [*statement.orelse, *rest]
            result.append(changed(statement, body=straightened(then, leave), orelse=straightened(other, leave)))
            return result
        if isinstance(statement, ast.If):
            sides = {"body": straightened(statement.body, leave), "orelse": straightened(statement.orelse, leave)}
            result.append(changed(statement, **sides))
            continue
        if isinstance(statement, (ast.For, ast.While)):
            result.append(changed(statement, body=straightened(statement.body, ast.Continue) or [ast.Pass()]))
            result += straightened(statement.orelse, leave)  # it is left by nothing else than its end
            continue
        result.append(statement)
    return result


def changed(statement: ast.stmt, **changed: Any) -> Any:
    fields = {name: getattr(statement, name) for name in statement._fields if hasattr(statement, name)}
    return ast.copy_location(type(statement)(**{**fields, **changed}), statement)


def _leaves(body: list[ast.stmt], leave: Leave) -> bool:
    """Whether a branch may end early here, or inside of its own branches."""
    return any(
        isinstance(s, leave) or (isinstance(s, ast.If) and (_leaves(s.body, leave) or _leaves(s.orelse, leave))) for s in body
    )


def _always(body: list[ast.stmt], leave: Leave) -> bool:
    """Whether a branch ends early in any case."""
    return any(
        isinstance(s, leave) or (isinstance(s, ast.If) and _always(s.body, leave) and _always(s.orelse, leave)) for s in body
    )
