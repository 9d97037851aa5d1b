"""What is derived from a user's functions, once for each function and the constants that it captures."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from adjode.compile.kinds import KINDS
from adjode.derivation import derive
from adjode.model.callbacks import Callback, callback
from adjode.model.constants import captured
from adjode.model.fields import Pair

if TYPE_CHECKING:
    from adjode.derivation.derived import Derived


def derived(function: Callable, arguments: tuple[str, ...] | None = None) -> Derived:
    """The derivatives of `function`; the same ones for the same function, so that each is compiled once."""
    try:
        return _cached(function, arguments, captured(function))
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        return derive(function, arguments)


@functools.lru_cache(maxsize=128)
def _cached(function: Callable, arguments: tuple[str, ...] | None, captured: tuple) -> Derived:
    return derive(function, arguments)


def require_rank(name: str, function: Callback, found: Derived) -> None:
    """Raise a TypeError if a callback returns a number where it must return an array, or the other way round."""
    if function.kind.returns_number and found.returns_array:
        raise TypeError(f"{name} must return a number, but it returns an array: sum it up, or take one entry.")
    if not function.kind.returns_number and not found.returns_array:
        form = f"{name}({', '.join(function.kind.arguments(in_place=False))})"
        raise TypeError(f"{form} must return an array, such as np.array([...]), but with these arguments it returns a number.")


def time_derivative(of: Callback, kind: str, debug: bool = False) -> Callback | str | None:
    """The derivative by time of a callback, as one of this kind; None where it is zero, or why it cannot be derived."""
    try:
        found = derived(of.function, of.kind.arguments(of.takes_in_place))
        return None if found.is_autonomous else callback(kind, found.df_dt, debug)
    except TypeError as error:
        return str(error)


def with_derivative(option: str, kind: str, given: Any, fields: Pair) -> tuple[Callback, Callback]:
    """A callback of this kind and its vjp, which is derived from its source where it is given alone.

    Raises
    ------
    TypeError
        If `given` is neither a function nor a pair of functions, or something in it cannot be differentiated.
    """
    if callable(given):
        alone = callback(kind, given, fields=fields)
        found = derived(alone.function, alone.kind.arguments(alone.takes_in_place))
        require_rank(option, alone, found)
        return alone, callback(f"{kind}_vjp", found.vjp, fields=fields)
    try:
        function, vjp = given
    except (TypeError, ValueError):
        name = KINDS[kind].name
        raise TypeError(f"{option} must be a function {name}, or a pair of functions ({name}, {name}_vjp).") from None
    return callback(kind, function, fields=fields), callback(f"{kind}_vjp", vjp, fields=fields)
