"""The numbers of the reference problems, for whoever solves them: states, parameters, times, data, the loss.

Nothing here imports adjode, so that a process which measures another library pays for that library alone.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

REFERENCES = Path(__file__).parents[1] / "tests" / "references"
HIDDEN = 50  # hidden units of the spiral


class Gradient(NamedTuple):
    """A loss and its cotangents, (n,) and (m,); the names are those of `adjode.Cotangents`.

    Of residuals (N,): half the sum of their squares, and their Jacobians, (N, n) and (N, m).
    """

    value: float
    u0: np.ndarray
    theta: np.ndarray


@dataclass(frozen=True, eq=False)
class Case:
    """An initial value problem whose loss is a sum over observation times.

    Attributes
    ----------
    name, system : str
        The system is "lotka_volterra" or "spiral".
    u0, theta : (n,), (m,) arrays
    t_span : (t0, T)
    times : (k,) array
        Rising, the last is T.
    data : (k, n) array or None
        None: the loss is the sum of the states at all times. Otherwise it is the sum of squared residuals.
    """

    name: str
    system: str
    u0: np.ndarray
    theta: np.ndarray
    t_span: tuple[float, float]
    times: np.ndarray
    data: np.ndarray | None = None

    def loss(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss of the states at the observation times, (k, n), and its derivative by them."""
        if self.data is None:
            return float(u.sum()), np.ones_like(u)
        residual = u - self.data
        return float((residual * residual).sum()), 2.0 * residual


@dataclass(frozen=True, eq=False)
class ResidualCase:
    """Residuals `(u(t_k) - data) / sigma` of all states at all observation times of another case; their Jacobian is wanted.

    Attributes
    ----------
    name, system : str
        The system is "lotka_volterra", "spiral", or the name of a stiff case.
    u0, theta, t_span, times
        As in `Case`.
    data : (k, n) array
    sigma : (n,) array
        How small the states are where they matter: 1, or the scales of a stiff case.
    """

    name: str
    system: str
    u0: np.ndarray
    theta: np.ndarray
    t_span: tuple[float, float]
    times: np.ndarray
    data: np.ndarray
    sigma: np.ndarray

    def scales(self) -> np.ndarray:
        """As those of `StiffCase`, for absolute tolerances."""
        return self.sigma

    def residuals(self, u: np.ndarray) -> np.ndarray:
        """Those of the states at the observation times, (k, n), by rows."""
        return ((u - self.data) / self.sigma).ravel()


def derivatives_from_tangents(case: Any, u: np.ndarray, tangents: np.ndarray) -> Gradient:
    """The gradient, or the Jacobian, from the states at the observation times (k, n) and their derivatives (k, n, n + m)."""
    n = u.shape[1]
    if isinstance(case, ResidualCase):
        r = case.residuals(u)
        J = (tangents / case.sigma[:, None]).reshape(r.size, -1)
        return Gradient(0.5 * float(r @ r), J[:, :n], J[:, n:])
    value, u_bars = case.loss(u)
    bar = np.einsum("ki,kij->j", u_bars, tangents)
    return Gradient(value, bar[:n], bar[n:])


@functools.cache
def references() -> dict[str, Any]:
    """The stored references, by problem."""
    return json.loads((REFERENCES / "problems.json").read_text())


def spiral_theta() -> np.ndarray:
    """W1 (50, 2), b1, W2 (2, 50), b2, rows first."""
    rng = np.random.default_rng(0)
    w1 = rng.normal(size=(HIDDEN, 2)) * 0.1
    w2 = rng.normal(size=(2, HIDDEN)) * 0.1
    return np.concatenate([w1.ravel(), np.zeros(HIDDEN), w2.ravel(), np.zeros(2)])


def spiral_data() -> tuple[np.ndarray, np.ndarray]:
    """Times (30,) and states (30, 2) of the cubic spiral du/dt = A^T u^3, A = [[-0.1, 2], [-2, -0.1]], u(0) = (2, 0)."""
    table = np.loadtxt(REFERENCES / "spiral_data.csv", delimiter=",", skiprows=2)
    return table[:, 0], table[:, 1:]


def series_times() -> np.ndarray:
    return np.arange(1, 101) / 10.0


@functools.cache
def case(name: str) -> Any:
    """The case "lv_final", "lv_series" or "spiral", or one of benchmarks/stiff_cases.py; with "J_" before it, its residuals."""
    if name.startswith("J_"):
        return residual_case(name)
    if name not in CASES:
        from benchmarks.stiff_cases import stiff_case

        return stiff_case(name)
    stored = references()[name]
    u0 = np.array(stored["u0"], dtype=float)
    start, end = map(float, stored["t_span"])
    if name == "spiral":
        times, states = spiral_data()
        return Case(name, "spiral", u0, spiral_theta(), (start, end), times, states)
    times = np.array([end]) if name == "lv_final" else series_times()
    return Case(name, "lotka_volterra", u0, np.array(stored["theta"], dtype=float), (start, end), times)


def residual_case(name: str) -> ResidualCase:
    whole = case(name.removeprefix("J_"))
    data = getattr(whole, "data", None)
    shape = whole.times.size, whole.u0.size
    return ResidualCase(
        name,
        whole.system,
        whole.u0,
        whole.theta,
        whole.t_span,
        whole.times,
        np.zeros(shape) if data is None else data,
        np.ones(whole.u0.size) if isinstance(whole, Case) else whole.scales(),
    )


CASES = ("lv_final", "lv_series", "spiral")
JACOBIANS = ("J_lv_series", "J_spiral")
STIFF_JACOBIANS = ("J_rober", "J_hires", "J_pollu")


def gradient_error(name: str, gradient: Any) -> float:
    """The error of a gradient or Jacobian of the problem `name`; of a stiff one with the derivatives by log(theta) in place of
    those by theta."""
    reference = jacobians()[name] if name.startswith("J_") else references()[name]["reference"] if name in CASES else None
    if name in CASES + JACOBIANS:
        return largest_error(reference, gradient)
    theta, reference = case(name).theta, reference or stiff_references()[name]
    scaled = {"u0": reference["u0"], "theta": theta * reference["theta"]}
    return largest_error(scaled, Gradient(gradient.value, gradient.u0, theta * np.asarray(gradient.theta)))


@functools.cache
def stiff_references() -> dict[str, dict[str, np.ndarray]]:
    """The stored gradients of the stiff problems: "loss", "u0", "theta", "final" by name."""
    found = {"rober": {block: np.array(values) for block, values in references()["rober"]["reference"].items()}}
    with np.load(REFERENCES / "stiff.npz") as stored:
        for key in stored.files:
            name, block = key.split("/")
            found.setdefault(name, {})[block] = stored[key]
    return found


@functools.cache
def jacobians() -> dict[str, dict[str, np.ndarray]]:
    """The stored Jacobians of residuals: "u0" (N, n) and "theta" (N, m) by the name of the case."""
    with np.load(REFERENCES / "jacobians.npz") as stored:
        return {name: {block: stored[f"{name}/{block}"] for block in ("u0", "theta")} for name in (*JACOBIANS, *STIFF_JACOBIANS)}


def largest_error(reference: Mapping[str, Any], gradient: Any) -> float:
    """The largest error among the cotangents of u0 and theta, each relative to the largest entry of its reference."""
    pairs = [(getattr(gradient, block), np.array(reference[block])) for block in ("u0", "theta")]
    return max(float(np.max(np.abs(got - true)) / np.max(np.abs(true))) for got, true in pairs if got is not None)
