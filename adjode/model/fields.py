"""Named parts of a vector: which names there are, in which order, and the shape of each."""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adjode.compile.kinds import SHAPES

_ENTRY = re.compile(r"theta\[(\d+)\]$")
_FORMS = "a tuple of names, of which ('W', (50, 2)) is an array, or a dict of names and shapes"


@dataclass(frozen=True)
class Fields:
    """Names, each with a shape: () for a number; an array lies in C order.

    Attributes
    ----------
    shapes : tuple of (name, tuple of int)
        In the order in which they lie in the vector.
    """

    shapes: tuple[tuple[Any, tuple[int, ...]], ...]

    @classmethod
    def declared(cls, option: str, given: Any) -> Fields:
        """What a user declares by an option: names, pairs (name, shape), or a dict of them; errors say what is wrong."""
        if isinstance(given, str) or not isinstance(given, (Mapping, Iterable)):
            raise TypeError(f"{option} must be {_FORMS}, but {given!r} was given.")
        items = given.items() if isinstance(given, Mapping) else [(item, ()) if isinstance(item, str) else item for item in given]
        shapes = tuple(_declared_pair(option, item) for item in items)
        twice = [name for name, count in Counter(name for name, _ in shapes).items() if count > 1]
        if twice:
            raise ValueError(f"{option} has the name {twice[0]!r} more than once.")
        return cls(shapes)

    @functools.cached_property
    def places(self) -> dict[Any, slice]:
        """Where each lies in the vector."""
        places, start = {}, 0
        for name, shape in self.shapes:
            places[name] = slice(start, start + math.prod(shape))
            start = places[name].stop
        return places

    @property
    def names(self) -> list[Any]:
        return [name for name, _ in self.shapes]

    @functools.cached_property
    def size(self) -> int:
        return sum(math.prod(shape) for _, shape in self.shapes)

    @functools.cached_property
    def entries(self) -> list[tuple[Any, str]]:
        """For each entry of the vector its name, and its index if that is the name of an array: `[2]`, `[0, 1]`."""
        return [(name, str(list(index)) if shape else "") for name, shape in self.shapes for index in np.ndindex(*shape)]

    def split(self, array: np.ndarray) -> dict[Any, np.ndarray]:
        """The parts of vectors along the last axis, each in its shape."""
        return {name: array[..., self.places[name]].reshape(array.shape[:-1] + shape) for name, shape in self.shapes}

    def joined(self, parts: Mapping[Any, np.ndarray], rows: tuple[int, ...] = ()) -> np.ndarray:
        """The vectors (*rows, size) whose parts are arrays (*rows, *shape)."""
        flat = [np.zeros((*rows, 0)), *(np.reshape(parts[name], (*rows, math.prod(shape))) for name, shape in self.shapes)]
        return np.concatenate(flat, axis=-1, dtype=np.float64)


Pair = tuple[Fields | None, Fields | None]  # of the states and of the parameters


def fields_of(array: str, fields: Pair) -> Fields | None:
    """Those of an array of callbacks."""
    shape = SHAPES[array]
    return fields[0] if shape == ("n",) else fields[1] if shape == ("m",) else None


def entry_name(array: str, fields: Fields | None, k: int) -> str:
    """What messages call entry k of an array: `u[0]`, `lam['prey']`, `theta_bar['W'][0, 1]`."""
    if fields is None:
        return f"{array}[{k}]"
    name, index = fields.entries[k]
    return f"{array}[{name!r}]{index}"


def entry_of(name: str, what: str, parameters: Fields | None, m: int) -> int:
    """The entry of theta that something names, by its name or as "theta[3]"; a ValueError if there is none."""
    match = _ENTRY.match(name)
    entry = int(match[1]) if match else -1
    if parameters is not None:
        entry = next((k for k, parts in enumerate(parameters.entries) if "".join(parts) == name), entry)
    if not 0 <= entry < m:
        known = (
            f"the parameters {', '.join(map(''.join, parameters.entries))}"
            if parameters is not None
            else f"theta[0] to theta[{m - 1}]"
        )
        raise ValueError(f"{what} names {name!r}, which is not among {known}.")
    return entry


def component(fields: Fields | None, k: int) -> int | str:
    """What `SolveError.component` calls entry k."""
    return k if fields is None else "".join(fields.entries[k])


def _declared_pair(option: str, item: Any) -> tuple[str, tuple[int, ...]]:
    try:
        name, shape = item
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    except (TypeError, ValueError):
        raise TypeError(f"{option} must be {_FORMS}, but {item!r} is among them.") from None
    if not isinstance(name, str) or not all(isinstance(length, (int, np.integer)) and length >= 0 for length in shape):
        raise TypeError(f"{option} must be {_FORMS}, but {item!r} is among them.")
    if hasattr(np.ndarray, name) or not name:
        raise ValueError(
            f"{option} cannot have the name {name!r}, which means something else for an array: choose another, such as '{name}_'."
        )
    return name, tuple(int(length) for length in shape)
