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
from adjode.derivation.calls import called_by_key
from adjode.derivation.expressions import Expressions, Iterable
from adjode.derivation.iterables import enumerated_over, range_over, reversed_over, zipped_over
from adjode.derivation.known import FUNCTIONS, METHODS
from adjode.derivation.library import TAUGHT, Taught, key_of
from adjode.derivation.nodes import Node
from adjode.derivation.objects import Local, Object, Record
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
    sliced: Any

    def called(self, reader: Expressions, node: ast.Call) -> Any:
        if any(k.arg is None for k in node.keywords):
            raise Refusal("arguments are unpacked by **", "write them one by one")
        if isinstance(node.func, ast.Attribute):
            base = reader.value(node.func.value)
            if not isinstance(base, Object):
                return self.method(reader, reader.number_or_array(base), node)
        function = reader.value(node.func)
        if not isinstance(function, Object) or not (callable(function.value) or isinstance(function.value, Local)):
            raise Refusal("what is called is no function that is known", "call functions by their names")
        arguments = _given(reader, node)
        keywords = {str(k.arg): reader.value(k.value) for k in node.keywords}
        return self.apply(reader, function, arguments, keywords)

    def apply(self, reader: Expressions, function: Object, arguments: list, keywords: dict) -> Any:
        if isinstance(function.value, Local):
            return self.inlined(function.value, arguments, keywords)
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
        return self.apply_other(reader, function, python, arguments, keywords)

    def apply_other(self, reader: Expressions, function: Object, python: Any, arguments: list, keywords: dict) -> Any:
        """A call of what is known neither by name nor by rules."""
        if isinstance(python, type) and issubclass(python, tuple) and hasattr(python, "_fields"):
            return self.recorded(python, arguments, keywords)
        if _is_library(python) and not keywords and all(isinstance(a, Node) and N.value_of(a) is not None for a in arguments):
            return N.const(np.asarray(python(*map(N.value_of, arguments))).item())
        ours = str(getattr(python, "__module__", "")).split(".")[0] not in ("numpy", "scipy", "math")
        if ours and isinstance(function.value, (types.FunctionType, Dispatcher)):
            return self.inlined(python, arguments, keywords)
        if ".random." in function.text:
            raise Refusal(f"a random number is drawn by `{function.text}`", "put noise into data or into theta")
        of_arrays = any(isinstance(argument, tuple) or getattr(argument, "shape", ()) for argument in arguments)
        instead = "write it with functions of math and numpy, or teach it by adjode.derivative"
        what = f"the derivative of `{function.text}` is not known"
        if str(type(python).__module__).startswith("scipy.interpolate"):
            raise Refusal(what, "take an adjode.Table(times, values) for measured inputs")
        raise Refusal(what, "write a loop over the entries" if of_arrays else instead)

    def recorded(self, kind: Any, arguments: list, keywords: dict) -> Record:
        """A named tuple that f makes."""
        names: tuple[str, ...] = kind._fields
        values = dict(zip(names, arguments, strict=False)) | keywords
        if len(arguments) > len(names) or set(values) != set(names):
            raise Refusal(f"`{kind.__name__}` is called with other arguments than it has", "give each argument")
        return Record.of(names, (values[name] for name in names))

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
            instead = (
                "fill an array, made by np.empty(n)" if name == "append" else "use functions of numpy that are known, or a loop"
            )
            raise Refusal(f"a method `{name}` of an array or a list is called", instead)
        keywords = {str(k.arg): reader.value(k.value) for k in node.keywords}
        arguments = _given(reader, node)
        if not _takes(METHODS[name], reader, array, *arguments, **keywords):
            raise Refusal(f"the method `{name}` is called with arguments that are not known here", "write a loop over the entries")
        return METHODS[name](reader, array, *arguments, **keywords)

    def inlined(self, function: Callable | Local, arguments: list, keywords: dict) -> Any:
        """The statements of a function, read into the program where it is called."""
        if isinstance(function, Local):
            source, defaults, captured = function.source, function.defaults, function.reader.env
        else:
            source, captured = source_of(function), {}
            defaults = tuple(self.known("", value) for value in function.__defaults__ or ())
        names = source.arguments
        env = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
        env.update(zip(names, arguments, strict=False))
        env.update(keywords)
        if len(arguments) > len(names) or set(env) != set(names):
            raise Refusal(f"`{source.name}` is called with other arguments than it has", "give each argument")
        if self.depth >= _DEPTH:
            raise Refusal(f"`{source.name}` calls itself", "write it as a loop")
        self.depth += 1
        reader = Reader(source, self, {**captured, **env})
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
            if over is enumerate:
                starts = [*node.args[1:], *(keyword.value for keyword in node.keywords)]
                return enumerated_over(self.iterable(reader, node.args[0]), *map(reader.integer, starts))
            if over is zip:  # whatever its `strict`
                return zipped_over([self.iterable(reader, argument) for argument in node.args])
            if over is reversed and len(node.args) == 1:
                return reversed_over(self.iterable(reader, node.args[0]))
        value = reader.value(node)
        if isinstance(value, tuple):
            return value
        array = self.addressable(reader, reader.number_or_array(value))
        if not array.shape:
            raise Refusal("a loop runs over a number", "loop over range(...)")
        item = reader.element if len(array.shape) == 1 else lambda array, where: self.sliced(reader, array, where)
        return Iterable(N.I0, array.shape[0], N.I1, lambda k: item(array, (k,)))


def _given(reader: Expressions, node: ast.Call) -> list:
    """The arguments of a call by position."""
    arguments: list = []
    for argument in node.args:
        if not isinstance(argument, ast.Starred):
            arguments.append(reader.value(argument))
            continue
        items = reader.value(argument.value)
        if not isinstance(items, tuple):
            raise Refusal("an array is unpacked by *", "write its entries one by one")
        arguments += items
    return arguments


def _is_library(function: Any) -> bool:
    """Whether it is a function of numbers of `math` or NumPy."""
    return isinstance(function, np.ufunc) or getattr(function, "__module__", "") == "math"


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
