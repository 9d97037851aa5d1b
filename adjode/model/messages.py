"""What a user is told about a callback that cannot be used: its arguments are wrong, or Numba cannot compile it."""

from __future__ import annotations

import inspect
import linecache
import re
from collections.abc import Callable

from numba.core.dispatcher import Dispatcher

from adjode.compile.adapters import is_ours
from adjode.compile.kinds import SHAPES, Kind
from adjode.model.fields import Pair


def count_arguments(name: str, function: Callable, form: str) -> int:
    """How many positional arguments `function` takes; a TypeError that names its right `form` if it is no such function."""
    python = getattr(function, "py_func", function)
    if not callable(python):
        raise TypeError(f"{name} must be a function {form}, but a {type(function).__name__} was given.")
    try:
        parameters = inspect.signature(python).parameters.values()
    except ValueError:
        raise TypeError(f"{name} must be a Python or @njit function {form}; {python!r} has no signature.") from None
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.KEYWORD_ONLY) for p in parameters):
        raise TypeError(f"{name} must take plain positional arguments: {form}.")
    return len(parameters)


def takes_in_place(kind: Kind, function: Callable) -> bool:
    """Which of the forms of its kind a callback has; a TypeError if none."""
    if callable(function) and not (inspect.isfunction(function) or isinstance(function, Dispatcher)):
        raise TypeError(
            f"{kind.name} must be a plain Python or @njit function {kind}, but a {type(function).__name__} was given: write a "
            f"function that captures what it needs as constants, and takes from theta what changes."
        )
    count = count_arguments(kind.name, function, str(kind))
    for in_place in kind.forms:
        if count == len(kind.arguments(in_place)):
            return in_place
    raise TypeError(f"{kind.name} takes {count} arguments, but it must be {kind}.")


def compile_message(kind: Kind, error: Exception, function: Callable, in_place: bool, fields: Pair = (None, None)) -> str:
    """Numba's report cut down to the reason and the user's line."""
    python = getattr(function, "py_func", function)
    code = getattr(python, "stands_for", python).__code__
    location = getattr(error, "loc", None)
    file, line = getattr(location, "filename", None) or code.co_filename, getattr(location, "line", None)
    if line is None or is_ours(file):
        file, line = code.co_filename, code.co_firstlineno
    source = linecache.getline(file, line).strip()
    shown = f": `{source}`" if source else ""
    advice = "" if in_place else f" It must return {', '.join(kind.outputs)} as {_what_is_returned(kind)}."
    reason = reason_of(str(error)) if in_place else _about_result(reason_of(str(error)))
    more = _about_fields(reason, fields) + _about_names(reason)
    return f"Numba cannot compile {kind.name}: {reason} ({file}, line {line}{shown}).{more}{advice}"


def _about_result(reason: str) -> str:
    """What has been returned, where it cannot be put into an output."""
    put = r"no implementation of (?:setitem\(array\(float64, 1d, C\), Literal\[int\]\(0\), (.+)\)|len\((none|float64|int64|bool)\))"
    found = re.fullmatch(put, reason)
    if found is None:
        return reason
    what = found[1] or found[2]
    words = {"none": "nothing", "Literal[str]": "a string", "unicode_type": "a string", "array": "an array", "UniTuple": "a tuple"}
    return f"it returns {next((word for start, word in words.items() if what.startswith(start)), f'a {what}')}"


def _about_names(reason: str) -> str:
    """Advice where a name stands for what Numba does not know."""
    found = re.search(r"(?:global|freevar|closure|local) name '(\w+)'|Untyped global name '(\w+)'", reason)
    name = found and (found[1] or found[2])
    if "<class 'function'>" in reason:
        return f" Decorate {name or 'it'} with @numba.njit."
    if "(List(" in reason or "reflected list" in reason:
        return " Turn lists that it captures into tuples, or into arrays with np.array(...)."
    if "scipy.interpolate" in reason:
        return f" For measured inputs there is adjode.Table(times, values), called as {name or 'table'}(t)."
    return ""


def _about_fields(reason: str, fields: Pair) -> str:
    """Advice where an array has been asked for a field."""
    found = re.match(r"Unknown attribute '(\w+)' of type array\(", reason)
    if found is None:
        return ""
    if any(part is not None and found[1] in part.places for part in fields):
        return f" Only the arguments of a callback itself have fields: pass {found[1]} to a function that it calls, not the vector."
    return " Entries have names only if Dynamics(..., states=..., parameters=...) declares them."


def _what_is_returned(kind: Kind) -> str:
    axes = max(len(SHAPES[name]) for name in kind.outputs)
    return ("a float", "one-dimensional float64 arrays", "a two-dimensional float64 array")[axes]


def reason_of(report: str) -> str:
    """The sentence of Numba's report that says most."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", report)
    specific = re.search(r"^\s*TypingError: (.+)$", text, re.MULTILINE)
    call = re.search(r"^\s*>>> (.+)$", text, re.MULTILINE)
    if call:
        return f"no implementation of {call[1].strip()}" + (f" ({specific[1].rstrip('.')})" if specific else "")
    lines = (line.strip() for line in text.splitlines())
    return next((line.rstrip(".: ") for line in lines if line and not line.startswith("Failed in")), "no reason given")
