"""Values that are no numbers or arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Object:
    """Something of Python's that is known when f is read: a module, a function, a string, None."""

    value: Any
    text: str = ""


class Record(tuple):
    """The values of a named tuple."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, names: tuple[str, ...], values: Iterable[Any]) -> Record:
        made = cls(values)
        made.names = names
        return made


class Items(tuple):
    """What a list that f makes holds now.

    `nest` are the loops, of those that are read once for all of their rounds, in which it was made.
    """

    nest: tuple = ()

    @classmethod
    def of(cls, values: Iterable[Any], nest: tuple) -> Items:
        made = cls(values)
        made.nest = nest
        return made


def with_items(old: tuple, items: Iterable[Any]) -> tuple:
    """A tuple of the kind of an old one."""
    if isinstance(old, Record):
        return Record.of(old.names, items)
    return Items.of(items, old.nest) if isinstance(old, Items) else tuple(items)


@dataclass(frozen=True, eq=False)
class Dictionary(Object):
    """A dictionary of values, whose keys are constants of Python's; `nest` as in `Items`."""

    nest: tuple = ()


@dataclass(frozen=True, eq=False)
class Local:
    """A function that is defined inside of another: its source, its defaults, and the reader that knows what it captures."""

    source: Any
    defaults: dict[str, Any]
    reader: Any


Undefined = Object("undefined")
Raises = Object("raises")  # what a branch that raises returns
