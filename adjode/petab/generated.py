"""The module that is written for a problem: its text, its file, and the functions in it."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import linecache
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adjode.petab.formulas import binary, text
from adjode.petab.sbml import Happening
from adjode.petab.scenarios import Channel
from adjode.petab.writing import Source


def module_text(title: str, source: Source, channels: Sequence[Channel]) -> str:
    """The text of the module."""
    observed = {f"y[{k}]": channel.expression(channel.observable.formula) for k, channel in enumerate(channels)}
    noise = {f"y[{k}]": channel.expression(channel.observable.noise) for k, channel in enumerate(channels)}
    parts = [
        f'"""{title}, written by adjode.petab.\n\nStates: {_listed(source.places)}.\nParameters: {_listed(source.inputs)}.\n"""\n',
        "import math\n\nimport numpy as np\n",
        source.f(),
        source.start(),
        source.function("observe(t, u, theta, y)", observed, "What is observed.", partial=True),
        source.function("noise(t, u, theta, y)", noise, "The scale of the noise of each.", partial=True),
        *events(source),
    ]
    return "\n\n".join(part.rstrip() + "\n" for part in parts)


def events(source: Source) -> list[str]:
    """Guards, which rise through zero when an event happens, and resets."""
    parts = []
    for k, event in enumerate(source.model.events):
        assigned = {f"u_new[{source.places[state]}]": value for state, value in event.assignments.items()}
        guard = {"return": source.resolved(guard_of(event))}
        parts.append(source.function(f"guard_{k}(t, u, theta)", guard, f"Rises through zero when {event.name} happens."))
        parts.append(source.function(f"reset_{k}(t, u, theta, u_new)", assigned, f"What {event.name} changes."))
    return parts


def guard_of(event: Happening) -> ast.expr:
    """What is positive where the trigger of an event is true."""
    trigger = event.trigger
    if isinstance(trigger, ast.Compare) and isinstance(trigger.ops[0], ast.Lt | ast.LtE):
        return binary(trigger.comparators[0], ast.Sub, trigger.left)
    if isinstance(trigger, ast.Compare) and isinstance(trigger.ops[0], ast.Gt | ast.GtE):
        return binary(trigger.left, ast.Sub, trigger.comparators[0])
    raise ValueError(f"the trigger of event {event.name} is {text(trigger)}, but one comparison by <, <=, > or >= was expected.")


def _listed(names: Any) -> str:
    lines, line = [], ""
    for one in names:
        if len(line) > 100:
            lines.append(line)
            line = ""
        line += f"{one}, "
    return "\n    ".join([*lines, line]).rstrip(", ")


def load_module(source: str, title: str) -> dict[str, Callable]:
    """The functions of a source, which lies in a file that tracebacks and people can read."""
    mark = hashlib.sha256(source.encode()).hexdigest()[:12]
    path = _folder() / f"{title}-{mark}.py"
    with contextlib.suppress(OSError):  # where nothing can be written it is in memory alone
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(source)
    linecache.cache[str(path)] = len(source), None, source.splitlines(keepends=True), str(path)
    space: dict[str, Any] = {"__name__": f"adjode_petab_{mark}"}
    exec(compile(source, str(path), "exec"), space)
    return space


def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "adjode" / "petab"
