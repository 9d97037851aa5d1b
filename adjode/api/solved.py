"""What is read of a `Solution`, which is above those who read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from adjode.api.steady import SteadyState
from adjode.linalg.structure import Structure
from adjode.model.dynamics import Dynamics
from adjode.model.layout import Layout
from adjode.passes.jumps import Jumps
from adjode.passes.options import SolveOptions
from adjode.passes.segmented import SegmentedOutput
from adjode.passes.segments import Segments
from adjode.passes.span import Span
from adjode.passes.trajectory import DenseOutput, Trajectory


class Solved(Protocol):
    """What a pullback reads of a `Solution`."""

    @property
    def dynamics(self) -> Dynamics: ...
    @property
    def theta(self) -> np.ndarray: ...
    @property
    def trajectory(self) -> Trajectory: ...
    @property
    def span(self) -> Span: ...
    @property
    def options(self) -> SolveOptions: ...
    @property
    def structure(self) -> Structure | None: ...
    @property
    def layouts(self) -> tuple[Layout, Layout]: ...
    @property
    def u0(self) -> np.ndarray: ...
    @property
    def jumps(self) -> Jumps: ...
    @property
    def problem(self) -> tuple[Dynamics, np.ndarray]: ...
    def by_inflows(self, elapsed: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]: ...
    @property
    def ended(self) -> int: ...
    @property
    def steady(self) -> SteadyState | None: ...
    @property
    def counts(self) -> np.ndarray: ...
    @property
    def kinds(self) -> np.ndarray: ...
    @property
    def t(self) -> np.ndarray: ...
    @property
    def u(self) -> np.ndarray: ...
    @property
    def dense(self) -> DenseOutput | SegmentedOutput: ...
    @property
    def segments(self) -> Segments | None: ...
    def __call__(self, t: Any) -> np.ndarray: ...


def state_at_step(solution: Solved, k: int) -> np.ndarray:
    """The state at the start of step k, which is the end of the pass for -1."""
    return solution.u[k] if solution.segments is None else solution.segments.state(k)
