"""Derived rules are held against the differences of f, at states of the first solve that uses them."""

from __future__ import annotations

import numpy as np

from adjode.compile.cache import keep_bytes, kept_bytes
from adjode.derivatives.check import compared
from adjode.derivatives.places import Place
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics

_STATES = 3  # of a trajectory
_FEW = 100  # states and parameters up to which every entry is compared
_DIRECTIONS = 4
_STEPS = 2.0 ** -np.arange(6.0, 22.0, 2.0)
_AGREES = 1e-6  # of the terms of a product


def require_derived(dynamics: Dynamics, times: np.ndarray, states: np.ndarray, theta: np.ndarray) -> None:
    """Raise a ValueError if a derived rule does not agree with f at some of these states (k, n).

    The verdict is kept on disk, beside the compiled callbacks, for each pair of sizes.
    """
    finite = np.flatnonzero(np.isfinite(states).all(axis=1))
    if not finite.size or not np.isfinite(theta).all() or _is_proven(dynamics, states.shape[1], theta.size):
        return
    chosen = finite[np.unique(np.linspace(0, finite.size - 1, _STATES).round().astype(int))]
    points = [Place(float(times[k]), np.array(states[k]), np.array(theta)) for k in chosen]
    compare = _entries if states.shape[1] + theta.size <= _FEW else _products
    try:
        with np.errstate(all="ignore"):
            found = compare(dynamics, points)
    except ValueError as error:
        if "shape" not in str(error):
            raise
        raise ValueError(
            f"the {' and '.join(dynamics.derived)} derived from {dynamics.name} does not fit u of size {states.shape[1]} "
            f"and theta of size {theta.size}: where an array of one entry is stretched over a longer one, as in `theta * u`, "
            f"write the entry, `theta[0] * u` ({error})."
        ) from None
    if found:
        raise ValueError(
            f"the {' and '.join(dynamics.derived)} derived from {dynamics.name} does not agree with it, which is a mistake of "
            f"adjode's, or f is not smooth at its solution: give a vjp. {found}"
        )
    _mark_proven(dynamics, states.shape[1], theta.size)


def require_derived_cost(cost: tuple[Callback, Callback], times: np.ndarray, states: np.ndarray, theta: np.ndarray) -> None:
    """The same for a running cost g and the g_vjp that was derived from it."""
    g, g_vjp = cost
    key = ("derived", states.shape[1], theta.size)
    finite = np.flatnonzero(np.isfinite(states).all(axis=1))
    if key in g_vjp.tried or not finite.size:
        return
    rng, one = np.random.default_rng(5), np.ones(1)
    with np.errstate(all="ignore"):
        for k in finite[np.unique(np.linspace(0, finite.size - 1, _STATES).round().astype(int))]:
            point = Place(float(times[k]), np.array(states[k]), np.array(theta))
            for _ in range(_DIRECTIONS):
                along = _direction(rng, point)
                bars = np.full(point.u.size, np.nan), np.full(theta.size, np.nan)
                g_vjp(point.t, point.u.copy(), point.theta.copy(), *bars)
                given, (expected, error, scale) = sum(map(np.dot, bars, along)), _slope(g, point, one, along)
                if _disagree(given, expected, error, scale):
                    raise ValueError(
                        f"the derivatives of the running cost {g.source.__name__} do not agree with it, which is a mistake of "
                        f"adjode's, or it is not smooth: give (g, g_vjp). Along a random direction at t = {point.t:g} they give "
                        f"{given:.9g}, differences {expected:.9g}."
                    )
    g_vjp.tried.add(key)


def _mark(dynamics: Dynamics, n: int, m: int) -> str | None:
    keys = [part.key for part in dynamics.callbacks if part.name in ("f", *dynamics.derived)]
    return None if None in keys else f"right.{'.'.join(keys)}.{n}.{m}"  # type: ignore[arg-type]


def _is_proven(dynamics: Dynamics, n: int, m: int) -> bool:
    key = ("derived", n, m)
    if key in dynamics.vjp.tried:
        return True
    mark = _mark(dynamics, n, m)
    return mark is not None and kept_bytes(mark) is not None


def _mark_proven(dynamics: Dynamics, n: int, m: int) -> None:
    dynamics.vjp.tried.add(("derived", n, m))
    mark = _mark(dynamics, n, m)
    if mark is not None:
        keep_bytes(mark, b"")


def _entries(dynamics: Dynamics, points: list[Place]) -> str:
    report = compared(dynamics, points)
    return "" if not report.problems else str(report)


def _products(dynamics: Dynamics, points: list[Place]) -> str:
    """What is wrong with lam . (J d) for a few random lam and directions d."""
    rng = np.random.default_rng(5)
    for point in points:
        for _ in range(_DIRECTIONS):
            lam, (du, dtheta) = rng.standard_normal(point.u.size), _direction(rng, point)
            for name in dynamics.derived:
                along = du, dtheta if name == "vjp" else np.zeros_like(dtheta)
                given = _given(dynamics, name, point, lam, along)
                expected, error, scale = _slope(dynamics.f, point, lam, along)
                if _disagree(given, expected, error, scale):
                    return f"Along a random direction at t = {point.t:g} {name} gives {given:.9g}, differences of f {expected:.9g}."
    return ""


def _disagree(given: float, expected: float, error: float, scale: float) -> bool:
    """Whether that can be said."""
    return error <= _AGREES * scale and not abs(given - expected) <= 10.0 * _AGREES * scale


def _direction(rng: np.random.Generator, point: Place) -> tuple[np.ndarray, np.ndarray]:
    du, dtheta = rng.standard_normal(point.u.size), rng.standard_normal(point.theta.size)
    return du * _sizes(point.u), dtheta * _sizes(point.theta)


def _sizes(x: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x), 1e-3 * np.max(np.abs(x), initial=1e-3))


def _given(dynamics: Dynamics, name: str, point: Place, lam: np.ndarray, along: tuple[np.ndarray, np.ndarray]) -> float:
    """The derivative of lam . f along a direction, by a rule."""
    bars = [np.full(x.size, np.nan) for x in ((point.u, point.theta) if name == "vjp" else (point.u,))]
    getattr(dynamics, name)(point.t, point.u.copy(), point.theta.copy(), lam.copy(), *bars)
    return float(sum(bar @ d for bar, d in zip(bars, along, strict=False)))


def _slope(callback: Callback, point: Place, lam: np.ndarray, along: tuple[np.ndarray, np.ndarray]) -> tuple[float, float, float]:
    """The derivative of lam . f along a direction, f being what a callback writes, by extrapolated central differences; its error,
    and the size of its terms."""

    def f(step: float) -> np.ndarray:
        values = np.empty_like(lam)
        callback(point.t, point.u + step * along[0], point.theta + step * along[1], values)
        return values

    quotients = np.array([(f(h) - f(-h)) / (2.0 * h) for h in _STEPS])
    better = quotients[1:] + (quotients[1:] - quotients[:-1]) / 15.0
    sums = better @ lam
    errors = np.abs(np.diff(sums))
    k = int(np.nanargmin(np.where(np.isfinite(errors), errors, np.inf)))
    scale = float(np.abs(better[k + 1] * lam).sum())
    one_sided = (f(_STEPS[-1]) - f(0.0)) @ lam / _STEPS[-1], (f(0.0) - f(-_STEPS[-1])) @ lam / _STEPS[-1]
    kink = abs(one_sided[0] - one_sided[1])
    rough = kink if kink > 1e-3 * scale else 0.0
    return float(sums[k + 1]), float(errors[k] + rough) if np.isfinite(sums[k + 1]) else np.inf, scale
