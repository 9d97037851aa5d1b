"""The C floor, as a contender."""

from __future__ import annotations

import shutil
from functools import partial

from benchmarks.floor import FLAGS, NO_GCC, Floor
from benchmarks.peers import Contender

REQUIRES = ()


def why_not() -> str | None:
    return None if shutil.which("gcc") else NO_GCC


def contenders() -> list[Contender]:
    return [
        Contender("floor", f"{algorithm}, gcc {flags}", partial(_make, algorithm, flags))
        for flags in FLAGS
        for algorithm in ("augmented", "quadrature", "discrete")
    ]


def _make(algorithm, flags, case, tol):
    return Floor(case, algorithm, tol, flags)
