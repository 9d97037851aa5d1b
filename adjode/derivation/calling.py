"""What calls mean: of functions that are known, and of those that are read as well."""

from __future__ import annotations

import ast
import builtins
import inspect
import types
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher

from adjode.derivation import nodes as N
from adjode.derivation.calls import FUNCTIONS, METHODS, called_by_key
from adjode.derivation.expressions import Expressions, Iterable
from adjode.derivation.iterables import enumerated_over, range_over, reversed_over, zipped_over
from adjode.derivation.library import TAUGHT, Taught, key_of
from adjode.derivation.nodes import Node
from adjode.derivation.objects import Object
from adjode.derivation.reading import Reader
from adjode.derivation.refusals import Refusal
from adjode.derivation.sources import source_of
from adjode.tables import Table

_DEPTH = 40  # of calls inside of calls; a recursion has no end


class Calling:
    """Calls, for a session."""

    depth: int
    space: dict[str, Any]
    known: Any
    bound: Any
    addressable: Any

    def called(self, reader: Expressions, node: ast.Call) -> Any:
        if any(isinstance(argument, ast.Starred) for argument in node.args) or any(k.arg is None for k in node.keywords):
            raise Refusal("arguments are unpacked by *", "write them one by one")
        if isinstance(node.func, ast.Attribute):
            base = reader.value(node.func.value)
            if not isinstance(base, Object):
                return self.method(reader, reader.number_or_array(base), node)
        function = reader.value(node.func)
        if not isinstance(function, Object) or not callable(function.value):
            raise Refusal("what is called is no function that is known", "call functions by their names")
        arguments = [reader.value(argument) for argument in node.args]
        keywords = {str(k.arg): reader.value(k.value) for k in node.keywords}
        return self.apply(reader, function, arguments, keywords)

    def apply(self, reader: Expressions, function: Object, arguments: list, keywords: dict) -> Any:
        python = getattr(function.value, "py_func", function.value)
        special = FUNCTIONS.get(python) if isinstance(python, (types.FunctionType, types.BuiltinFunctionType, type)) else None
        special = special or FUNCTIONS.get(_hashable(python))
        if special is not None:
            if not _takes(special, reader, function, *arguments, **keywords):
                raise Refusal(
                    f"`{function.text}` is called with arguments that are not known here", "write a loop over the entries"
                )
            return special(reader, function, *arguments, **keywords)
        if isinstance(python, Table):
            return self.inlined(python.rule, arguments, keywords)
        if python in TAUGHT:
            return self.taught(reader, function, TAUGHT[python], [reader.number_or_array(a) for a in arguments], keywords)
        key = key_of(python)
        if key is not None:
            self.bind_root(function)
            return called_by_key(reader, key, function.text, arguments, keywords)
        ours = str(getattr(python, "__module__", "")).split(".")[0] not in ("numpy", "scipy", "math")
        if ours and isinstance(function.value, (types.FunctionType, Dispatcher)):
            return self.inlined(python, arguments, keywords)
        of_arrays = any(isinstance(argument, tuple) or getattr(argument, "shape", ()) for argument in arguments)
        instead = "write it with functions of math and numpy, or teach it by adjode.derivative"
        what = f"the derivative of `{function.text}` is not known"
        if str(type(python).__module__).startswith("scipy.interpolate"):
            raise Refusal(what, "take an adjode.Table(times, values) for measured inputs")
        raise Refusal(what, "write a loop over the entries" if of_arrays else instead)

    def taught(self, reader: Expressions, function: Object, rules: Taught, arguments: list[Node], keywords: dict) -> Node:
        """A call of a function whose derivative the user has given."""
        if keywords or any(argument.shape for argument in arguments):
            raise Refusal(f"`{function.text}` is called with arrays or keywords", "give it numbers, by position")
        name = self.bound(function.text.split(".")[-1], function.value)
        known = {"vjp": rules.vjp, "jvp": rules.jvp}
        names = tuple(None if rule is None else self.bound(f"{name}_{kind}", rule) for kind, rule in known.items())
        return reader.seen(N.make("taught", (name, names, *map(N.as_float, arguments)), "f"))

    def bind_root(self, function: Object) -> None:
        first, _, rest = function.text.partition(".")
        value = function.value
        if rest:
            import sys

            value = next((m for m in (np, sys.modules["math"]) if getattr(m, rest.split(".")[-1], None) is function.value), value)
        elif hasattr(builtins, first) and getattr(builtins, first) is function.value:
            return
        self.space.setdefault(first, value)

    def method(self, reader: Expressions, array: Node, node: ast.Call) -> Any:
        name = node.func.attr  # type: ignore[attr-defined]
        if name not in METHODS:
            raise Refusal(f"a method `{name}` of an array is called", "use functions of numpy that are known, or a loop")
        keywords = {str(k.arg): reader.value(k.value) for k in node.keywords}
        return METHODS[name](reader, array, *(reader.value(argument) for argument in node.args), **keywords)

    def inlined(self, function: Callable, arguments: list, keywords: dict) -> Any:
        """The statements of a function, read into the program where it is called."""
        source = source_of(function)
        names, defaults = source.arguments, function.__defaults__ or ()
        env: dict[str, Any] = {
            name: self.known("", value) for name, value in zip(names[len(names) - len(defaults) :], defaults, strict=True)
        }
        env.update(zip(names, arguments, strict=False))
        env.update(keywords)
        if len(arguments) > len(names) or set(env) != set(names):
            raise Refusal(f"`{source.name}` is called with other arguments than it has", "give each argument")
        if self.depth >= _DEPTH:
            raise Refusal(f"`{source.name}` calls itself", "write it as a loop")
        self.depth += 1
        reader = Reader(source, self, env)
        for name in names:
            reader.assign(ast.Name(name), env[name])
        result = reader.body(source.body)
        self.depth -= 1
        return Object(None) if result is None else result

    def iterable(self, reader: Expressions, node: ast.expr) -> Iterable | tuple:
        if isinstance(node, ast.Call):
            function = reader.value(node.func)
            over = getattr(function, "value", None)
            if over is range or getattr(over, "__name__", "") == "prange":
                return range_over([reader.integer(argument) for argument in node.args])
            if over is enumerate and len(node.args) == 1:
                return enumerated_over(self.iterable(reader, node.args[0]))
            if over is zip:  # whatever its `strict`
                return zipped_over([self.iterable(reader, argument) for argument in node.args])
            if over is reversed and len(node.args) == 1:
                return reversed_over(self.iterable(reader, node.args[0]))
        value = reader.value(node)
        if isinstance(value, tuple):
            return value
        array = self.addressable(reader, reader.number_or_array(value))
        if len(array.shape) != 1:
            raise Refusal("a loop runs over the rows of a matrix", "loop over range(...)")
        return Iterable(N.I0, array.shape[0], N.I1, lambda k: reader.element(array, (k,)))


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return None
    return value


def _takes(function: Callable, *arguments: Any, **keywords: Any) -> bool:
    try:
        inspect.signature(function).bind(*arguments, **keywords)
    except TypeError:
        return False
    return True
