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


@dataclass(frozen=True, eq=False)
class Local:
    """A function that is defined inside of another: its source, its defaults, and the reader that knows what it captures."""

    source: Any
    defaults: tuple
    reader: Any


Undefined = Object("undefined")
Raises = Object("raises")  # what a branch that raises returns
