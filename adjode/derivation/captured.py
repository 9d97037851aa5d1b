"""What a function captures: tables, and anything by which it may jump."""

from __future__ import annotations

import dis
import types
from collections.abc import Iterator
from typing import Any

from adjode.compile.fingerprint import names_in
from adjode.derivation.timed_functions import JUMPING, JUMPING_NAMES
from adjode.tables import Table

_OTHERS = ("numpy", "scipy", "math", "numba", "builtins")
_CUTTING = ("%", "//", "%=", "//=")


def compares(function: Any) -> bool:
    """Whether there is any comparison, or division with a rest, in a function or in those that it captures."""
    return any(
        JUMPING_NAMES & names_in(python.__code__)
        or any(map(_is_jumping, dis.get_instructions(python.__code__)))
        or any(value is function for value in _captured(python) for function in JUMPING)  # by a name of the user's
        for python in _functions(function)
    )


def _is_jumping(step: dis.Instruction) -> bool:
    return step.opname == "COMPARE_OP" or (step.opname == "BINARY_OP" and step.argrepr in _CUTTING)


def tables_in(function: Any) -> list[Table]:
    """The tables that a function captures, itself or in functions that it calls."""
    found = (table for python in _functions(function) for value in _captured(python) for table in _tables_of(value))
    return list(dict.fromkeys(found))


def _functions(function: Any) -> Iterator[types.FunctionType]:
    """A function and those that it captures, as they are in Python."""
    waiting, seen = [function], set()
    while waiting:
        value = waiting.pop()
        python = getattr(value, "py_func", value)
        if isinstance(python, types.FunctionType) and id(python) not in seen:
            seen.add(id(python))
            yield python
            waiting += _captured(python)


def _captured(python: types.FunctionType) -> list[Any]:
    """The values of its closure and of the globals that it names, and what it names of its own modules."""
    names, space = names_in(python.__code__), python.__globals__
    values = [cell.cell_contents for cell in python.__closure__ or () if not _is_empty(cell)]
    values += [space[name] for name in names if name in space]
    modules = [value for value in values if isinstance(value, types.ModuleType) and value.__name__.split(".")[0] not in _OTHERS]
    return values + [getattr(module, name) for module in modules for name in names if hasattr(module, name)]


def _tables_of(value: Any) -> Iterator[Table]:
    """A table, or those of a tuple."""
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, Table):
            yield part


def _is_empty(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False
