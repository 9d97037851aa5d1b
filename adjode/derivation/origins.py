"""Where a function comes from: the text of its file, and its tree there, which compiles to what the function runs."""

from __future__ import annotations
import __future__

import ast
import contextlib
import functools
import inspect
import operator
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

_FUTURE = functools.reduce(operator.or_, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names))
Function = ast.FunctionDef | ast.Lambda
SCOPES = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp

_arrived: dict[str, None] = {}


def remember(sources: set[str]) -> None:
    """Look for functions in these texts too, in which they have arrived: one that is sent by value has no file."""
    _arrived.update(dict.fromkeys(sources))


def text_of_file(function: types.FunctionType) -> str | None:
    """Of the file that a function says it is from, as that is now."""
    try:
        return "".join(inspect.findsource(function)[0])
    except OSError:
        return None


class Origin(NamedTuple):
    """The lines of a function's file, its tree there, and what that file imports."""

    lines: list[str]
    tree: Function
    imports: list[ast.stmt]

    def compiled_as(
        self, code: types.CodeType, beside: tuple[str, ...] = (), tree: Function | None = None
    ) -> types.CodeType | None:
        """The code of its tree, or of another one, in the place of `code`: with the same variables of a closure, and more `beside`.

        How Python compiles a call such as `np.exp(x)` depends on whether the module imports that name.
        """
        node = self.tree if tree is None else tree
        outer = ast.parse("def outer(): pass").body[0]
        assert isinstance(outer, ast.FunctionDef)
        outer.args.args = [ast.arg(name) for name in (*code.co_freevars, *beside)]
        outer.body = [ast.Expr(node) if isinstance(node, ast.Lambda) else node]
        if code.co_name not in code.co_freevars and not isinstance(node, ast.Lambda):  # it may call itself
            outer.body.insert(0, ast.Global([code.co_name]))
        module = ast.fix_missing_locations(ast.Module([*self.imports, outer], type_ignores=[]))
        compiled = compile(module, code.co_filename, "exec", flags=code.co_flags & _FUTURE, dont_inherit=True)
        outside = next(part for part in compiled.co_consts if isinstance(part, types.CodeType))
        inside = (part for part in outside.co_consts if isinstance(part, types.CodeType) and part.co_name == code.co_name)
        return next((part.replace(co_qualname=code.co_qualname) for part in inside), None)


def origin_of(function: types.FunctionType) -> Origin | None:
    """Where a function comes from; None if there is no text that it was compiled from.

    Of a function in which something has been replaced, those that show it, as `inspect.getsource` does.
    """
    code, shown = function.__code__, inspect.unwrap(function)
    if _same(shown.__code__, code):
        function = shown
    for text in filter(None, (text_of_file(function), *_arrived)):
        with contextlib.suppress(SyntaxError):
            nodes, imports = parsed(text)
            for node in (node for node in nodes if is_here(node, code)):
                origin = Origin(text.splitlines(keepends=True), node, imports)
                if _same(origin.compiled_as(code), code):
                    return origin
    return None


@functools.lru_cache(maxsize=4)
def parsed(source: str) -> tuple[list[Function], list[ast.stmt]]:
    """All functions, and what is imported outside of them."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, Function)]
    return functions, [node for node in own_nodes(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]


def texts_of(*functions: Any) -> set[str]:
    """The texts of the files of functions, to travel with pickles of them, see `remember`."""
    plain = (getattr(function, "py_func", function) for function in functions)
    found = [origin_of(function) for function in plain if isinstance(function, types.FunctionType)]
    return {"".join(origin.lines) for origin in found if origin is not None}


def is_here(node: Function, code: types.CodeType) -> bool:
    name = "<lambda>" if isinstance(node, ast.Lambda) else node.name
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])
    return name == code.co_name and first == code.co_firstlineno


def _same(a: Any, b: Any) -> bool:
    """Whether two are the same code, or the same constant."""
    if not (isinstance(a, types.CodeType) and isinstance(b, types.CodeType)):
        return repr(a) == repr(b)
    parts = ("co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars")
    if any(getattr(a, part) != getattr(b, part) for part in parts) or len(a.co_consts) != len(b.co_consts):
        return False
    return all(map(_same, a.co_consts, b.co_consts))


def remade(function: types.FunctionType, code: types.CodeType, beside: dict[str, Any]) -> types.FunctionType:
    """A function with other code, of `Origin.compiled_as`, and these further variables of its closure."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    cells |= {name: types.CellType(value) for name, value in beside.items() if name not in cells}
    closure = tuple(cells[name] for name in code.co_freevars)
    made = types.FunctionType(code, function.__globals__, function.__name__, function.__defaults__, closure)
    made.__qualname__, made.__module__, made.__doc__ = function.__qualname__, function.__module__, function.__doc__
    return made


def own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """Those in order that are in no scope inside."""
    for node in ast.iter_child_nodes(scope):
        yield node
        if not isinstance(node, SCOPES):
            yield from own_nodes(node)
