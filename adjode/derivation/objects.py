"""Values that are no numbers or arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Object:
    """Something of Python's that is known when f is read: a module, a function, a string, None."""

    value: Any
    text: str = ""


Undefined = Object("undefined")
Raises = Object("raises")  # what a branch that raises returns
