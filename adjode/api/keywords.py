"""The keywords that functions hand on to `solve` and `pullback`, for their signatures: `**options: Unpack[SolveKeywords]`.

What the keywords mean stands at `solve` and `Solution.pullback`. Types are written as there, which a test compares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

from adjode.model.doses import Doses
from adjode.model.events import Event


class ForwardKeywords(TypedDict, total=False):
    """How a forward pass is run: what every function takes that solves."""

    method: str
    rtol: float
    atol: Any
    first_step: float | None
    max_step: float
    max_steps: int
    step: float | None
    max_seconds: float | None
    linear_solver: str
    stops: Any
    memory: float | str | None
    doses: Doses | Sequence[Doses] | None
    events: Event | Callable | Sequence[Event | Callable] | None


class SolveKeywords(ForwardKeywords, total=False):
    """All of `solve`, as `vjp` takes them."""

    t_eval: Any


class PullbackKeywords(TypedDict, total=False):
    """All of `pullback`, as `Solution.pullback` takes them."""

    observations: tuple[Any, Any] | None
    side: str
    event_times: Any
    theta_bar: Any
    running_cost: Callable | tuple[Callable, Callable] | None
    wrt: Sequence[str]
    adjoint: str
    quadrature: str
    rtol: float | None
    atol: float | None
    quadrature_rtol: float | None
    quadrature_atol: float | None
    error_norm: str
    method: str | None
    max_steps: int | None
    max_seconds: float | None
    reanchor: bool
    on_drift: str
    on_inaccurate: str
    dense_adjoint: bool
    certify: bool


class PushforwardKeywords(TypedDict, total=False):
    """Of `pushforward`, as `Solution.pushforward` takes them."""

    side: str
    t0_dot: Any
    T_dot: Any
    dense: bool
    max_seconds: float | None
    on_inaccurate: str


class SweepKeywords(TypedDict, total=False):
    """How a continuous adjoint is run, where options of the forward pass are given beside it: these are then `adjoint_rtol`, ...

    As `EnsembleSolution.pullback` takes them.
    """

    quadrature: str
    on_inaccurate: str
    adjoint_rtol: float | None
    adjoint_atol: float | None
    quadrature_rtol: float | None
    quadrature_atol: float | None
    error_norm: str
    adjoint_method: str | None
    adjoint_max_steps: int | None


class GradientKeywords(ForwardKeywords, SweepKeywords, total=False):
    """Of both passes, as `value_and_gradient` takes them."""

    running_cost: Callable | tuple[Callable, Callable] | None
    reanchor: bool
    on_drift: str
    dense_adjoint: bool
    certify: bool


class FitKeywords(GradientKeywords, total=False):
    """Those of `value_and_gradient` but `wrt`, as `Fit` takes them."""

    adjoint: str


class ExperimentsKeywords(FitKeywords, total=False):
    """As a `Fit` of experiments takes them."""

    workers: int | None
    executor: Any


class DeviceKeywords(TypedDict, total=False):
    """Of backend="cuda" alone, which has a meaning of its own for `memory`, too."""

    dtype: Any
    device_output: bool | None


class EnsembleSolveKeywords(ForwardKeywords, DeviceKeywords, total=False):
    """As `solve_ensemble` takes them."""


class EnsembleGradientKeywords(ForwardKeywords, SweepKeywords, DeviceKeywords, total=False):
    """As `ensemble_value_and_gradient` takes them."""
