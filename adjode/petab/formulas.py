"""Formulas as Python expressions: read from SBML's MathML and from PEtab's text, substituted, evaluated, written."""

from __future__ import annotations

import ast
import functools
import itertools
import keyword
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from adjode.petab.extra import require

TIME = "time"  # SBML's csymbol, and PEtab's name of it

# those of PEtab and SBML's L3 infix that are called otherwise in Python, or that are no function there
_FUNCTIONS = {
    **{name: name for name in ("exp", "log10", "log2", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh", "floor", "ceil")},
    "log": "log",
    "ln": "log",
    "ceiling": "ceil",
    **{form: f"a{name}" for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh") for form in (f"a{name}", f"arc{name}")},
}
_BUILTINS = ("abs", "min", "max")
_COMPARE = {"lt": ast.Lt, "leq": ast.LtE, "gt": ast.Gt, "geq": ast.GtE, "eq": ast.Eq, "neq": ast.NotEq}


# what generated functions call something else, and what is an attribute of the arrays whose entries they name
_TAKEN = frozenset(("t", "u", "theta", "du", "y", "v", "w", "math", "np", "u_new", "i", *_BUILTINS, *dir(np.ndarray)))


def safe(identifier: str) -> str:
    """The name that an element has in Python: its own, where that is not taken."""
    taken = identifier in _TAKEN or keyword.iskeyword(identifier) or identifier == TIME
    return f"{identifier}_" if taken else identifier


def number(value: float) -> ast.expr:
    """A number: a float, so that nothing is calculated in integers, which overflow."""
    if not math.isfinite(value):
        return ast.Attribute(ast.Name("math"), "nan" if math.isnan(value) else "inf")
    return ast.UnaryOp(ast.USub(), ast.Constant(-float(value))) if value < 0 else ast.Constant(float(value))


def name(identifier: str) -> ast.expr:
    return ast.Name(identifier)


def call(function: str, *arguments: ast.expr) -> ast.expr:
    """A function of `math`, or a builtin one."""
    target = ast.Name(function) if function in _BUILTINS else ast.Attribute(ast.Name("math"), function)
    return ast.Call(target, list(arguments), [])


def binary(left: ast.expr, operator: type[ast.operator], right: ast.expr) -> ast.expr:
    return ast.BinOp(left, operator(), right)


def total(terms: Iterable[tuple[float, ast.expr]]) -> ast.expr:
    """The sum of products of numbers and expressions."""
    found: ast.expr | None = None
    for value, term in terms:
        size = number(abs(value) if found else value)
        product = term if abs(value) == 1.0 else binary(size, ast.Mult, term)
        if found is None:
            found = ast.UnaryOp(ast.USub(), term) if value == -1.0 else product
        else:
            found = binary(found, ast.Add if value > 0 else ast.Sub, product)
    return number(0.0) if found is None else found


def text(expression: ast.expr) -> str:
    return ast.unparse(ast.fix_missing_locations(expression))


def names(expression: ast.AST) -> dict[str, None]:
    """The names of quantities in it, each once."""
    called = {id(node.func) for node in ast.walk(expression) if isinstance(node, ast.Call)}
    modules = {id(node.value) for node in ast.walk(expression) if isinstance(node, ast.Attribute)}
    found = (node for node in ast.walk(expression) if isinstance(node, ast.Name) and id(node) not in called | modules)
    return dict.fromkeys(node.id for node in found)


class _Substitution(ast.NodeTransformer):
    def __init__(self, meaning: Callable[[str], ast.expr | None]):
        self.meaning = meaning

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.meaning(node.id) or node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return node  # math.exp

    def visit_Call(self, node: ast.Call) -> ast.expr:
        return ast.Call(node.func, [self.visit(argument) for argument in node.args], [])


def substitute(expression: ast.expr, meanings: Mapping[str, ast.expr] | Callable[[str], ast.expr | None]) -> ast.expr:
    """The expression with others in place of names."""
    meaning = meanings if callable(meanings) else meanings.get
    return _Substitution(meaning).visit(ast.parse(text(expression), mode="eval").body)


class _Guarding(ast.NodeTransformer):
    def __init__(self, varies: Callable[[ast.expr], bool]):
        self.varies = varies

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        left, right = self.visit(node.left), self.visit(node.right)
        found = ast.BinOp(left, node.op, right)
        if isinstance(node.op, ast.Div) and self.varies(node.right):
            return ast.IfExp(ast.Compare(right, [ast.NotEq()], [number(0.0)]), found, number(math.nan))
        return found

    def visit_Call(self, node: ast.Call) -> ast.expr:
        arguments = [self.visit(argument) for argument in node.args]
        found = ast.Call(node.func, arguments, [])
        if isinstance(node.func, ast.Attribute) and node.func.attr.startswith("log") and self.varies(node.args[0]):
            return ast.IfExp(ast.Compare(arguments[0], [ast.Gt()], [number(0.0)]), found, number(math.nan))
        return found


def guarded(expression: ast.expr, varies: Callable[[ast.expr], bool]) -> ast.expr:
    """Not a number, and no slope, where what varies is a divisor that is zero, or has no logarithm."""
    return _Guarding(varies).visit(expression)


class _Simplification(ast.NodeTransformer):
    """Products with 0 and 1, sums with 0, and whole exponents."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        left, right = self.visit(node.left), self.visit(node.right)
        if isinstance(node.op, ast.Pow):
            return ast.BinOp(left, node.op, _whole(right))
        if isinstance(node.op, ast.Mult):
            if _is(left, 0) or _is(right, 0):
                return number(0.0)
            if _is(left, 1) or _is(right, 1):
                return right if _is(left, 1) else left
        if isinstance(node.op, ast.Add) and (_is(left, 0) or _is(right, 0)):
            return right if _is(left, 0) else left
        if isinstance(node.op, ast.Sub | ast.Div) and _is(right, int(isinstance(node.op, ast.Div))):
            return left
        if isinstance(node.op, ast.Sub) and _is(left, 0):
            return ast.UnaryOp(ast.USub(), right)
        return ast.BinOp(left, node.op, right)


def _whole(exponent: ast.expr) -> ast.expr:
    """A small whole exponent as an integer, of which powers are products."""
    inner = exponent.operand if isinstance(exponent, ast.UnaryOp) and isinstance(exponent.op, ast.USub) else exponent
    if not isinstance(inner, ast.Constant) or not isinstance(inner.value, float):
        return exponent
    if inner.value != int(inner.value) or inner.value > 64.0:
        return exponent
    found = ast.Constant(int(inner.value))
    return found if inner is exponent else ast.UnaryOp(ast.USub(), found)


def _is(expression: ast.expr, value: int) -> bool:
    return isinstance(expression, ast.Constant) and expression.value == value and not isinstance(expression.value, bool)


def simplified(expression: ast.expr) -> ast.expr:
    """Without factors 1, terms 0, and products with 0; whole exponents are integers."""
    return _Simplification().visit(expression)


def evaluate(expression: ast.expr, values: Mapping[str, float]) -> float:
    """Its value; a KeyError names what has none."""
    missing = [identifier for identifier in names(expression) if identifier not in values]
    if missing:
        raise KeyError(missing[0])
    space = {"__builtins__": {}, "math": math, "abs": abs, "min": min, "max": max}
    return float(eval(compile(text(expression), "<formula>", "eval"), space, dict(values)))


# --- PEtab's text -------------------------------------------------------------------------------


class _Reading(ast.NodeTransformer):
    """Python's tree of a PEtab formula, with its functions."""

    _ALLOWED = (
        ast.BinOp,
        ast.UnaryOp,
        ast.BoolOp,
        ast.Compare,
        ast.operator,
        ast.unaryop,
        ast.boolop,
        ast.cmpop,
        ast.Load,
        ast.Name,
    )

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if not isinstance(node, self._ALLOWED):
            raise ValueError(f"`{ast.unparse(node)}` is not a PEtab formula")
        return super().generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            raise ValueError(f"`{node.value!r}` is not a PEtab formula")
        return number(float(node.value))

    def visit_Call(self, node: ast.Call) -> ast.expr:
        function = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
        arguments = [self.visit(argument) for argument in node.args]
        if function == "piecewise":
            return pieces(arguments)
        if function == "pow" and len(arguments) == 2:
            return binary(arguments[0], ast.Pow, arguments[1])
        if function == "log" and len(arguments) == 2:
            return binary(call("log", arguments[1]), ast.Div, call("log", arguments[0]))
        if function in _BUILTINS:
            return call(function, *arguments)
        if function not in _FUNCTIONS or len(arguments) != 1:
            raise ValueError(f"`{ast.unparse(node)}` is not a PEtab function")
        return call(_FUNCTIONS[function], *arguments)


def _word(word: str) -> str:
    return word if word in (TIME, "and", "or", "not") else safe(word)


def from_text(formula: str | float) -> ast.expr:
    """A formula of PEtab's tables.

    Raises
    ------
    ValueError
        If it is none.
    """
    python = str(formula).replace("^", "**").replace("&&", " and ").replace("||", " or ")
    python = re.sub(r"[A-Za-z_]\w*(?!\w*\s*\()", lambda match: _word(match[0]), python)
    try:
        return _Reading().visit(ast.parse(python.strip(), mode="eval").body)
    except SyntaxError:
        raise ValueError(f"`{formula}` is not a PEtab formula") from None


def pieces(arguments: list[ast.expr]) -> ast.expr:
    """SBML's piecewise(value, condition, value, condition, ..., otherwise); not a number where nothing holds."""
    found = arguments[-1] if len(arguments) % 2 else number(math.nan)
    for k in range(len(arguments) // 2 - 1, -1, -1):
        found = ast.IfExp(arguments[2 * k + 1], arguments[2 * k], found)
    return found


# --- SBML ---------------------------------------------------------------------------------------


def from_sbml(node: Any, functions: Mapping[str, tuple[list[str], ast.expr]]) -> ast.expr:
    """The expression of a libsbml.ASTNode; calls of the model's functions are replaced by what these say.

    Raises
    ------
    ValueError
        If there is something in it that is not supported.
    """
    arguments = [from_sbml(node.getChild(k), functions) for k in range(node.getNumChildren())]
    if node.isName():
        return _symbol(node)
    if node.isNumber():
        return number(node.getValue())
    if node.isConstant():
        return _constant(node)
    if node.isOperator() or node.getType() == require("libsbml").AST_FUNCTION_POWER:
        return _operation(node, arguments)
    if node.isLogical() or node.isRelational():
        return _condition(node.getName(), arguments)
    return _call(node, arguments, functions)


def _symbol(node: Any) -> ast.expr:
    libsbml = require("libsbml")
    if node.getType() == libsbml.AST_NAME_TIME:
        return ast.Name(TIME)
    if node.getType() == libsbml.AST_NAME_AVOGADRO:
        return number(6.02214179e23)  # SBML Level 3 Version 1 Core, section 3.4.6
    return ast.Name(safe(node.getName()))


def _constant(node: Any) -> ast.expr:
    libsbml = require("libsbml")
    values = {libsbml.AST_CONSTANT_PI: math.pi, libsbml.AST_CONSTANT_E: math.e}
    truths = {libsbml.AST_CONSTANT_TRUE: True, libsbml.AST_CONSTANT_FALSE: False}
    return ast.Constant(truths[node.getType()]) if node.getType() in truths else number(values[node.getType()])


def _operation(node: Any, arguments: list[ast.expr]) -> ast.expr:
    libsbml, kind = require("libsbml"), node.getType()
    if kind in (libsbml.AST_PLUS, libsbml.AST_TIMES):
        if not arguments:
            return number(0.0 if kind == libsbml.AST_PLUS else 1.0)
        operator: type[ast.operator] = ast.Add if kind == libsbml.AST_PLUS else ast.Mult
        return functools.reduce(lambda left, right: binary(left, operator, right), arguments)
    if kind == libsbml.AST_MINUS and len(arguments) == 1:
        return ast.UnaryOp(ast.USub(), arguments[0])
    operators = {libsbml.AST_MINUS: ast.Sub, libsbml.AST_DIVIDE: ast.Div}
    return binary(arguments[0], operators.get(kind, ast.Pow), arguments[1])


def _condition(kind: str, arguments: list[ast.expr]) -> ast.expr:
    if kind in ("and", "or"):
        return ast.BoolOp(ast.And() if kind == "and" else ast.Or(), arguments) if len(arguments) > 1 else arguments[0]
    if kind == "not":
        return ast.UnaryOp(ast.Not(), arguments[0])
    if kind not in _COMPARE:
        raise ValueError(f"the operator {kind} is not supported")
    pairs = itertools.pairwise(arguments)
    found: list[ast.expr] = [ast.Compare(left, [_COMPARE[kind]()], [right]) for left, right in pairs]
    return found[0] if len(found) == 1 else ast.BoolOp(ast.And(), found)


def _call(node: Any, arguments: list[ast.expr], functions: Mapping[str, tuple[list[str], ast.expr]]) -> ast.expr:
    libsbml, kind, called = require("libsbml"), node.getType(), node.getName()
    if kind == libsbml.AST_FUNCTION:
        if called not in functions:
            raise ValueError(f"the function {called} is not defined")
        parameters, body = functions[called]
        return substitute(body, dict(zip(parameters, arguments, strict=True)))
    if kind == libsbml.AST_FUNCTION_PIECEWISE:
        return pieces(arguments)
    if kind == libsbml.AST_FUNCTION_ROOT:
        degree, base = arguments if len(arguments) == 2 else (number(2.0), arguments[0])
        root = text(degree) == "2.0"
        return call("sqrt", base) if root else binary(base, ast.Pow, binary(number(1.0), ast.Div, degree))
    if kind == libsbml.AST_FUNCTION_LOG:
        base, of = arguments if len(arguments) == 2 else (number(10.0), arguments[0])
        return call("log10", of) if text(base) == "10.0" else binary(call("log", of), ast.Div, call("log", base))
    if called in _BUILTINS:
        return call(called, *arguments)
    if called in _FUNCTIONS and len(arguments) == 1:
        return call(_FUNCTIONS[called], *arguments)
    raise ValueError(f"the function {called or kind} is not supported")
