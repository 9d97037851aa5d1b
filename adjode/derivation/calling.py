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
from adjode.derivation.calls import called_by_key, reshape
from adjode.derivation.expressions import Expressions, Iterable
from adjode.derivation.iterables import enumerated_over, range_over, reversed_over, zipped_over
from adjode.derivation.known import BY_NAME, FUNCTIONS, METHODS, OF_CONSTANTS, function_name
from adjode.derivation.library import TAUGHT, Taught, key_of
from adjode.derivation.lists import GROWS, LONGEST
from adjode.derivation.nodes import Node
from adjode.derivation.objects import Dictionary, Items, Local, Object, Record
from adjode.derivation.reading import Reader
from adjode.derivation.refusals import Refusal
from adjode.derivation.shaping import outer_of
from adjode.derivation.sources import Source, source_of
from adjode.tables import Table

_DEPTH = 40  # of calls inside of calls; a recursion has no end
_ITERATORS = range, enumerate, zip, reversed


class Calling:
    """Calls, for a session."""

    readers: list[Reader]
    space: dict[str, Any]
    known: Any
    bound: Any
    addressable: Any
    numbers: Any
    table: Any
    sliced: Any

    def called(self, reader: Any, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            if node.func.attr in GROWS and (reader.own(owner) is not None or owner in reader.growing):
                return reader.grow(owner, node.func.attr, [reader.value(argument) for argument in node.args])
            base = reader.value(node.func.value)
            if isinstance(base, Dictionary):
                return self.of_dictionary(reader, base, node)
            if not isinstance(base, Object):
                return self.method(reader, base, node)
        function = reader.value(node.func)
        if not isinstance(function, Object) or not (callable(function.value) or isinstance(function.value, Local)):
            raise Refusal("the function that is called is not known", "call functions by their names")
        if function.value in _ITERATORS:
            return self.listed(self.iterable(reader, node))
        arguments = self.given(reader, node, self.places(function.value))
        return self.apply(reader, function, arguments, _keywords(reader, node))

    def listed(self, over: Iterable | tuple) -> tuple:
        """What a range, or `zip` and the like, goes through."""
        items = over.listed(LONGEST) if isinstance(over, Iterable) else over
        if items is None:
            raise Refusal("a range whose length is not constant is used as a list", "loop over it")
        return items

    def places(self, function: Any) -> int | None:
        """How many arguments a function must be given by position; None if that may differ."""
        if isinstance(function, type) and hasattr(function, "_fields"):
            return len(function._fields)
        python = getattr(function, "py_func", function)
        if not isinstance(python, types.FunctionType) or python in FUNCTIONS or python.__defaults__:
            return None
        return python.__code__.co_argcount

    def given(self, reader: Any, node: ast.Call, count: int | None) -> list:
        """The arguments of a call by position."""
        arguments: list = []
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                last = argument is node.args[-1] and not node.keywords
                arguments += reader.spread(argument, count - len(arguments) if last and count is not None else None)
            else:
                arguments.append(reader.value(argument))
        return arguments

    def of_dictionary(self, reader: Any, base: Dictionary, node: ast.Call) -> Any:
        """A method of a dictionary."""
        keys = [self.known("", key) for key in base.value]
        arguments = [reader.value(argument) for argument in node.args]
        match node.func.attr, len(arguments):  # type: ignore[attr-defined]
            case "keys", 0:
                return tuple(keys)
            case "values", 0:
                return tuple(base.value.values())
            case "items", 0:
                return tuple(zip(keys, base.value.values(), strict=True))
            case "copy", 0:
                return Dictionary(dict(base.value), base.text, reader.nest)
            case "get", 1 | 2:
                key = reader.constant(arguments[0])
                return base.value.get(key, arguments[1] if len(arguments) > 1 else Object(None))
        raise Refusal(f"a method `{node.func.attr}` of a dictionary is called", "read its items by their keys")  # type: ignore[attr-defined]

    def apply(self, reader: Expressions, function: Object, arguments: list, keywords: dict) -> Any:
        if isinstance(function.value, Local):
            return self.inlined(function.value, arguments, keywords)
        python = getattr(function.value, "py_func", function.value)
        special = FUNCTIONS.get(python) if isinstance(python, (types.FunctionType, types.BuiltinFunctionType, type)) else None
        special = special or FUNCTIONS.get(_hashable(python)) or BY_NAME.get(function_name(python))
        if isinstance(getattr(python, "__self__", None), np.ufunc) and python.__name__ == "outer":
            special = outer_of
        if _hashable(python) in OF_CONSTANTS and not keywords and (constant := self.calculated(python, arguments)) is not None:
            return constant
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

    def calculated(self, python: Any, arguments: list) -> Node | None:
        """What a function makes of constant lists; None if they are none."""
        values = [self.numbers(argument) for argument in arguments]
        if None in values or not isinstance(arguments[0], tuple) or not arguments[0]:
            return None
        result = np.asarray(python(*values))
        return self.table(self.bound("table", result), result) if np.ndim(result) else N.const(result.item())

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
        instead = "write it with functions of math and numpy, or declare its derivative with adjode.derivative"
        what = f"the derivative of `{function.text}` is not known"
        if str(type(python).__module__).startswith("scipy.interpolate"):
            raise Refusal(what, "use an adjode.Table(times, values) for measured inputs")
        raise Refusal(what, "write a loop over the entries" if of_arrays else instead)

    def recorded(self, kind: Any, arguments: list, keywords: dict) -> Record:
        """A named tuple that f makes."""
        names: tuple[str, ...] = kind._fields
        values = dict(zip(names, arguments, strict=False)) | keywords
        if len(arguments) > len(names) or set(values) != set(names):
            raise Refusal(f"`{kind.__name__}` is called with arguments that it does not have", "give each argument")
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

    def method(self, reader: Expressions, value: Any, node: ast.Call) -> Any:
        name = node.func.attr  # type: ignore[attr-defined]
        if isinstance(value, tuple) and name == "copy":
            return Items.of(value, reader.nest)
        array = reader.number_or_array(value)
        if name not in METHODS:
            instead = (
                "fill an array, made by np.empty(n)" if name == "append" else "use functions of numpy that are known, or a loop"
            )
            raise Refusal(f"a method `{name}` of an array or a list is called", instead)
        arguments, keywords = self.given(reader, node, None), _keywords(reader, node)
        if not _takes(METHODS[name], reader, array, *arguments, **keywords):
            raise Refusal(f"the method `{name}` is called with arguments that are not known here", "write a loop over the entries")
        return METHODS[name](reader, array, *arguments, **keywords)

    def inlined(self, function: Callable | Local, arguments: list, keywords: dict) -> Any:
        """The statements of a function, read into the program where it is called."""
        if isinstance(function, Local):
            source, defaults, captured = function.source, function.defaults, function.reader.env
        else:
            source, captured = source_of(function), {}
            defaults = self.defaults_of(function, source)
        env = _bound(source, defaults, arguments, keywords)
        if len(self.readers) > _DEPTH:
            raise Refusal(f"`{source.name}` calls itself", "write it as a loop")
        reader = Reader(source, self, {**captured, **env})
        self.readers.append(reader)
        for name, value in env.items():
            reader.assign(ast.Name(name), value)
        result = reader.body(source.body)
        self.readers.pop()
        return Object(None) if result is None else result

    def defaults_of(self, function: Any, source: Source) -> dict[str, Any]:
        values = function.__defaults__ or ()
        given = dict(zip(source.arguments[len(source.arguments) - len(values) :], values, strict=True))
        return {name: self.known("", value) for name, value in (given | (function.__kwdefaults__ or {})).items()}

    def reshaped(self, reader: Any, array: Node, *shape: Node) -> Node:
        return reshape(reader, array, *shape)

    def iterable(self, reader: Expressions, node: ast.expr) -> Iterable | tuple:
        if isinstance(node, ast.Call) and (isinstance(node.func, ast.Name) or getattr(node.func, "attr", "") == "prange"):
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
        if isinstance(value, Dictionary):
            return tuple(self.known("", key) for key in value.value)
        if isinstance(value, tuple):
            return value
        array = self.addressable(reader, reader.number_or_array(value))
        if not array.shape:
            raise Refusal("a loop runs over a number", "loop over range(...)")
        item = reader.element if len(array.shape) == 1 else lambda array, where: self.sliced(reader, array, where)
        return Iterable(N.I0, array.shape[0], N.I1, lambda k: item(array, (k,)))


def _keywords(reader: Any, node: ast.Call) -> dict[str, Any]:
    keywords: dict[str, Any] = {}
    for keyword in node.keywords:
        value = reader.value(keyword.value)
        if keyword.arg is not None:
            keywords[keyword.arg] = value
        elif isinstance(value, Dictionary):
            keywords |= value.value
        else:
            raise Refusal("something other than a dictionary is unpacked by **", "write the arguments one by one")
    return keywords


def _bound(source: Source, defaults: dict[str, Any], arguments: list, keywords: dict[str, Any]) -> dict[str, Any]:
    """What each argument of a function is."""
    names, rest = source.arguments, source.rest
    more = arguments[len(names) :]
    env = {**defaults, **dict(zip(names, arguments, strict=False)), **keywords}
    wanted = {*names, *source.by_keyword}
    twice = set(names[: len(arguments)]) & keywords.keys()
    if twice or (more and rest is None) or set(env) != wanted:
        raise Refusal(f"`{source.name}` is called with arguments that it does not have", "give each argument")
    return env if rest is None else env | {rest: tuple(more)}


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
