"""Programs of this folder on the adjode of another checkout: the old code beside the new.

Only the reference problems are the other checkout's own, because what they import from adjode may have had other names there.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_START = """
import sys
sys.path.insert(0, {checkout!r})
import adjode
if not adjode.__file__.startswith({checkout!r}):
    sys.exit({checkout!r} + " has no adjode")
import benchmarks.problems, benchmarks.stiff_problems
benchmarks.__path__[:] = [{here!r}]
from {module} import {function}
{function}(*sys.argv[1:])
"""


def command(checkout: Path, module: str, function: str, *arguments: str) -> list[str]:
    """What calls `function(*arguments)` of a module of this tree's benchmarks on the adjode of `checkout`."""
    folders = {"checkout": str(checkout.resolve()), "here": str(Path(__file__).parent)}
    return [sys.executable, "-c", _START.format(module=module, function=function, **folders), *arguments]
