"""Where f jumps: conditions in formulas, as times at which solves stop, and what is refused."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from adjode.petab.formulas import TIME, binary, evaluate, names, number, simplified, substitute, text
from adjode.petab.sbml import Model
from adjode.petab.writing import Source

_STEPS = ("floor", "ceil")


@dataclass(frozen=True)
class Switch:
    """A condition on time: what passes through zero, in inputs and time, and where it stands."""

    difference: ast.expr
    where: str


def switches(source: Source) -> list[Switch]:
    """The conditions on time in f.

    Raises
    ------
    ValueError
        If there are others at which f may jump: those on states, unless both sides agree there.
    """
    found: dict[str, Switch] = {}
    for where, expression in _parts(source):
        for node in ast.walk(expression):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _STEPS:
                _refuse_steps(source, node, where)
            if isinstance(node, ast.IfExp):
                for switch in _of(source, node, where):
                    found.setdefault(text(switch.difference), switch)
    return list(found.values())


def _parts(source: Source) -> Iterator[tuple[str, ast.expr]]:
    model = source.model
    leaves = [*model.rates.values(), *model.rate_rules.values()]
    _, calculated = source.needed(map(source.plain, leaves))
    for title, expressions in (("the rule of", calculated), ("the rate of", model.rates), ("the rate rule of", model.rate_rules)):
        for identifier, expression in expressions.items():
            yield f"{title} {identifier}", expression


def _refuse_steps(source: Source, node: ast.expr, where: str) -> None:
    read = names(source.resolved(node))
    if TIME in read or any(state in read for state in source.places):
        raise ValueError(f"{where} has steps, {text(node)}, which are not supported: write them as piecewise or as events.")


def _of(source: Source, node: ast.IfExp, where: str) -> Iterator[Switch]:
    for comparison in _comparisons(node.test):
        difference = source.resolved(binary(comparison.left, ast.Sub, comparison.comparators[0]))
        read = names(difference)
        on_states = any(state in read for state in source.places)
        if on_states and not _agrees(source, node, comparison):
            raise ValueError(
                f"{where} may jump where {text(comparison)} changes, which is not supported: make the change of a state an event."
            )
        if not on_states and TIME in read:
            yield Switch(difference, where)


def _comparisons(test: ast.expr) -> Iterable[ast.Compare]:
    return [node for node in ast.walk(test) if isinstance(node, ast.Compare)]


def _agrees(source: Source, node: ast.IfExp, comparison: ast.Compare) -> bool:
    """Whether both values are the same where the two sides of a comparison are equal, at random states and parameters."""
    if node.test is not comparison:
        return False
    left, right = source.resolved(comparison.left), source.resolved(comparison.comparators[0])
    if not isinstance(left, ast.Name) or left.id not in source.places:
        left, right = right, left
    if not isinstance(left, ast.Name) or left.id in names(right):
        return False
    first, second = (substitute(source.resolved(value), {left.id: right}) for value in (node.body, node.orelse))
    draw = random.Random(1)
    for _ in range(5):
        values = {identifier: draw.uniform(0.5, 2.0) for identifier in {**names(first), **names(second)}}
        one, other = evaluate(first, values), evaluate(second, values)
        if abs(one - other) > 1e-9 * max(abs(one), abs(other), 1e-300):
            return False
    return True


# --- when ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class When:
    """The time of a switch: a number, and the input that is added to it, or None; and whether the difference rises there."""

    time: float
    lag: str | None
    rises: bool


def when(switch: Switch, theta: Mapping[str, float | str]) -> When:
    """When a switch happens under these inputs, of which those that are names are estimated.

    Raises
    ------
    ValueError
        If that is no number, nor the sum of a number and one estimated input.
    """
    fixed = {key: value for key, value in theta.items() if not isinstance(value, str)}
    difference = simplified(substitute(switch.difference, {key: number(value) for key, value in fixed.items()}))
    free = [identifier for identifier in names(difference) if identifier != TIME]
    if len(free) > 1:
        raise ValueError(
            f"{switch.where} switches at a time that depends on {' and '.join(free)}, but one estimated parameter was expected."
        )
    base = dict.fromkeys(free, 0.0)
    at = [evaluate(difference, {**base, TIME: t}) for t in (0.0, 1.0, 2.0)]
    slope = at[1] - at[0]
    if abs(at[2] - at[1] - slope) > 1e-9 * max(map(abs, at)) or slope == 0.0:
        raise ValueError(f"{switch.where} has a condition that is not linear in time, which is not supported.")
    for value in (1.0, 2.0) if free else ():
        shifted = evaluate(difference, {free[0]: value, TIME: value})
        if abs(shifted - at[0]) > 1e-9 * max(abs(shifted), abs(at[0]), abs(slope)):
            raise ValueError(
                f"{switch.where} switches at a time that is not the sum of a number and {free[0]}, which is estimated: "
                "this is not supported."
            )
    return When(-at[0] / slope, free[0] if free else None, slope > 0.0)


# --- switches as states --------------------------------------------------------------------------------------------


def with_modes(source: Source, moving: Mapping[str, Switch], rises: Mapping[str, bool]) -> Model:
    """The model with a state for each of these switches, 0 before and 1 behind it, which conditions ask in place of time.

    So that f is smooth in time, and a gradient by the time of a switch is that of the time of a jump of the state.
    """
    model = source.model

    class Asking(ast.NodeTransformer):
        def visit_Compare(self, node: ast.Compare) -> ast.expr:
            key = text(source.resolved(binary(node.left, ast.Sub, node.comparators[0])))
            state = next((state for state, switch in moving.items() if text(switch.difference) == key), None)
            if state is None:
                return node
            before = isinstance(node.ops[0], ast.Lt | ast.LtE) == rises[state]
            return ast.Compare(ast.Name(state), [ast.Lt() if before else ast.Gt()], [ast.Constant(0.5)])

    def asking(formulas: Mapping[str, ast.expr]) -> dict[str, ast.expr]:
        return {key: Asking().visit(ast.parse(text(formula), mode="eval").body) for key, formula in formulas.items()}

    return replace(
        model,
        states=[*model.states, *moving],
        initial={**model.initial, **dict.fromkeys(moving, number(0.0))},
        rates=asking(model.rates),
        rules=asking(model.rules),
        rate_rules=asking(model.rate_rules),
    )
