"""Derived rules are held against the differences of f, at states of the first solve that uses them."""

from __future__ import annotations

import numpy as np

from adjode.compile.cache import keep_bytes, kept_bytes
from adjode.compile.kinds import size_of
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
    n, m, points = states.shape[1], theta.size, _places(times, states, theta)
    if not points or _is_proven(dynamics, n, m):
        return
    try:
        with np.errstate(all="ignore"):
            if n + m <= _FEW:
                found = _entries(dynamics, points)
            else:
                found = _products(dynamics.f, [getattr(dynamics, name) for name in dynamics.derived], points)
    except ValueError as error:
        if "shape" not in str(error):
            raise
        raise ValueError(
            f"the {' and '.join(dynamics.derived)} derived from {dynamics.name} does not fit u of size {n} and theta of size {m}: "
            f"where an array of one entry is stretched over a longer one, as in `theta * u`, write the entry, "
            f"`theta[0] * u` ({error})."
        ) from None
    if found:
        raise ValueError(
            f"the {' and '.join(dynamics.derived)} derived from {dynamics.name} does not agree with it, which is a mistake of "
            f"adjode's, or f is not smooth at its solution: give a vjp. {found}"
        )
    _mark_proven(dynamics, n, m)


def require_derived_rule(
    what: str, values: Callback, rule: Callback, times: np.ndarray, states: np.ndarray, theta: np.ndarray, instead: str = ""
) -> None:
    """The same for a rule that was derived from the source of a callback, a running cost, a guard or a reset; `instead` says what
    a user may give in its place.
    """
    key, points = ("derived", states.shape[1], theta.size), _places(times, states, theta)
    if key in rule.tried or not points:
        return
    with np.errstate(all="ignore"):
        found = _products(values, [rule], points)
    if found:
        raise ValueError(
            f"the derivatives of {what} do not agree with it, which is a mistake of adjode's, or it is not smooth{instead}. {found}"
        )
    rule.tried.add(key)


def _places(times: np.ndarray, states: np.ndarray, theta: np.ndarray) -> list[Place]:
    """A few of these, where all is finite."""
    finite = np.flatnonzero(np.isfinite(states).all(axis=1) & np.isfinite(theta).all())
    chosen = finite[np.unique(np.linspace(0, finite.size - 1, _STATES).round().astype(int))] if finite.size else finite
    return [Place(float(times[k]), np.array(states[k]), np.array(theta)) for k in chosen]


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


def _products(values: Callback, rules: list[Callback], points: list[Place]) -> str:
    """What is wrong with products of rules and the Jacobian of `values`, for a few random lam, of f, and directions."""
    rng = np.random.default_rng(5)
    for point in points:
        for _ in range(_DIRECTIONS):
            lam = rng.standard_normal(point.u.size) if not values.kind.returns_number else np.ones(1)
            du, dtheta = _direction(rng, point)
            for rule in rules:
                along = du, dtheta if "theta_bar" in rule.kind.outputs else np.zeros_like(dtheta)
                given = _given(rule, point, lam, along)
                expected, error, scale = _slope(values, point, lam, along)
                if error <= _AGREES * scale and not abs(given - expected) <= 10.0 * _AGREES * scale:
                    return (
                        f"Along a random direction at t = {point.t:g} {rule.name} gives {given:.9g}, "
                        f"differences of {values.name} {expected:.9g}."
                    )
    return ""


def _direction(rng: np.random.Generator, point: Place) -> tuple[np.ndarray, np.ndarray]:
    du, dtheta = rng.standard_normal(point.u.size), rng.standard_normal(point.theta.size)
    return du * _sizes(point.u), dtheta * _sizes(point.theta)


def _sizes(x: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x), 1e-3 * np.max(np.abs(x), initial=1e-3))


def _given(rule: Callback, point: Place, lam: np.ndarray, along: tuple[np.ndarray, np.ndarray]) -> float:
    """The derivative along a direction, by a rule."""
    inputs = {"u": point.u, "theta": point.theta, "lam": lam}
    bars = [np.full(size_of(name, point.u.size, point.theta.size), np.nan) for name in rule.kind.outputs]
    rule(point.t, *(inputs[name].copy() for name in rule.kind.inputs), *bars)
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
