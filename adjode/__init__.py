"""Exact, fast gradients through ODE solves."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

__version__ = "0.1.0"


def _homes() -> dict[str, str]:
    """The module of each public name, as the stub beside this file says to editors and type checkers."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text("utf-8"))
    return {name.name: str(node.module) for node in stub.body if isinstance(node, ast.ImportFrom) for name in node.names}


_HOMES = _homes()
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first asked for, so that importing adjode is light and a solve loads no fits."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    value: Any
    if home == __name__:
        value = importlib.import_module(f"{home}.{name}")
    else:
        value = getattr(importlib.__import__(home, fromlist=[name]), name)  # which may be a module of that package
    globals()[name] = value  # beside it a module may have the same name: the public one stays
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
