"""Contenders: libraries that compute a value and its gradient, each in a file of its own, behind one small interface.

A file here offers `REQUIRES`, the modules that it needs, and `contenders()`; also `why_not()` where it needs something else.
Nothing is imported before it is needed, so that a library which is missing is missing alone, and a process pays for the one that
it measures. Each runs as its own users would tune it: compiled, in double precision, on one thread.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from benchmarks.cases import CASES, Case, Gradient

# Files of this package: the library's name. The order is that of the tables.
PEERS = ("floor", "cvodes", "adjode", "heyoka", "numbalsoda", "diffrax", "casadi", "pydiffsol", "torchdiffeq", "scipy")

# (u0, theta) -> value and gradient. It may have a method `seconds(u0, theta, repeats)` that times itself, without Python.
Evaluate = Callable[[np.ndarray, np.ndarray], Gradient]


@dataclass(frozen=True)
class Contender:
    """One way to use a library.

    Attributes
    ----------
    peer : str
        One of `PEERS`.
    variant : str
        What is chosen in it: tier, adjoint, method.
    make : (case, tol) -> Evaluate
        Builds and compiles; rtol = atol = tol, or what comes closest.
    cases : names of cases that it can solve
    floor : str, optional
        The algorithm of the C floor that it uses as well.
    startup : bool
        Whether its first gradient in a fresh process is measured: one or two variants of each library.
    fine : bool
        Whether it is measured at the tightest tolerances too: methods of high order.
    """

    peer: str
    variant: str
    make: Callable[[Case, float], Evaluate]
    cases: tuple[str, ...] = CASES
    floor: str | None = None
    startup: bool = False
    fine: bool = False

    @property
    def name(self) -> str:
        return f"{self.peer}: {self.variant}"


def module(peer: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.peers.{peer}")


def why_not(peer: str) -> str | None:
    """Why this peer cannot run here: modules that are not installed, or what its own `why_not` says."""
    missing = [name for name in module(peer).REQUIRES if importlib.util.find_spec(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    return getattr(module(peer), "why_not", lambda: None)()


def versions(peer: str) -> dict[str, str]:
    found = {}
    for name in module(peer).REQUIRES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found
