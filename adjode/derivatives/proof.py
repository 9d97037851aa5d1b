"""Derived rules are held against the differences of f, at states of the first solve that uses them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from adjode.compile.cache import keep_bytes, kept_bytes
from adjode.compile.kinds import LANES, size_of
from adjode.derivatives.check import compared
from adjode.derivatives.places import Place
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics
from adjode.model.losses import PreparedLoss, PreparedObserved

_STATES = 3  # of a trajectory
_FEW = 100  # states and parameters up to which every entry is compared
_DIRECTIONS = 4
_STEPS = 2.0 ** -np.arange(6.0, 22.0, 2.0)
_AGREES = 1e-6  # of the terms of a product
_ROUNDING = 2.0**-51  # of values, in differences of two


def require_derived(dynamics: Dynamics, times: np.ndarray, states: np.ndarray, theta: np.ndarray) -> None:
    """Raise a ValueError if a derived rule does not agree with f at some of these states (k, n).

    The verdict is kept on disk, beside the compiled callbacks, for each pair of sizes.
    """
    n, m, points = states.shape[1], theta.size, _places(times, states, theta)
    if not points or is_proven(dynamics, n, m):
        return
    try:
        with np.errstate(all="ignore"):
            if n + m <= _FEW:
                found = _entries(dynamics, points)
            else:
                rules, calls = [getattr(dynamics, name) for name in dynamics.derived], [_Call((p.t,), p.u, p.theta) for p in points]
                found = _products(dynamics.f, rules, calls, n)
    except ValueError as error:
        if "shape" not in str(error):
            raise
        raise ValueError(
            f"the {' and '.join(dynamics.derived)} derived from {dynamics.name} does not fit u of size {n} and theta of size {m}: "
            f"where an array of one entry is broadcast over a longer one, as in `theta * u`, write the entry, "
            f"`theta[0] * u` ({error})."
        ) from None
    if found:
        raise ValueError(
            f"the {' and '.join(dynamics.derived)} derived from {dynamics.name} does not agree with it, which is a bug in adjode, "
            f"unless f is not smooth at its solution: give a vjp. {found}"
        )
    _mark_proven(dynamics, n, m)


def require_derived_rule(
    what: str, pair: tuple[Callback, Callback], times: np.ndarray, states: np.ndarray, theta: np.ndarray, instead: str = ""
) -> None:
    """The same for a running cost, a guard or a reset, and the rule that was derived from its source; `instead` says what a user
    may give in its place.
    """
    rows = 1 if pair[0].kind.returns_number else states.shape[1]
    _require_pair(pair, rows, [_Call((p.t,), p.u, p.theta) for p in _places(times, states, theta)], what, instead)


def require_derived_loss(loss: PreparedLoss, theta: np.ndarray) -> None:
    """The same for a loss of a function of state and parameters, at some of the states that it has just seen."""
    loss = loss.observing
    if not isinstance(loss, PreparedObserved):
        return
    for rule in loss.rules:
        if not rule.derived:
            continue
        calls = [_Call(numbers, u.copy(), theta) for numbers, u in loss.calls(rule)]
        finite = [call for call in calls if np.isfinite(call.u).all() and np.isfinite(theta).all()]
        function, name = rule.function, rule.function.kind.name
        what, instead = f"the {name} {function.source.__name__}", f": give ({name}, {name}_vjp)"
        _require_pair((function, rule.vjp), loss.c, _some(finite), what, instead)


def _require_pair(pair: tuple[Callback, Callback], rows: int, calls: Sequence[_Call], what: str, instead: str) -> None:
    """The same for a function with so many results and its vjp."""
    function, vjp = pair
    if not calls or (key := ("derived", calls[0].u.size, calls[0].theta.size)) in vjp.tried:
        return
    with np.errstate(all="ignore"):
        found = _products(function, [vjp], calls, rows)
    if found:
        raise ValueError(
            f"the derivatives of {what} do not agree with it, which is a bug in adjode, unless it is not smooth{instead}. {found}"
        )
    vjp.tried.add(key)


class _Call(NamedTuple):
    """Arguments of a callback: numbers, such as t, and arrays."""

    numbers: tuple[float, ...]
    u: np.ndarray
    theta: np.ndarray


def _some(things: Sequence[Any]) -> list[Any]:
    """A few of these, from the first to the last."""
    return [things[k] for k in np.unique(np.linspace(0, len(things) - 1, _STATES).round().astype(int))] if len(things) else []


def require_jvp(dynamics: Dynamics, times: np.ndarray, states: np.ndarray, theta: np.ndarray) -> None:
    """The same for the jvp of a dynamics, also for one that was given."""
    jvp, points = dynamics.jvp, _places(times, states, theta)
    assert jvp is not None
    key = "right", states.shape[1], theta.size
    mark = None if None in (jvp.key, dynamics.f.key) else f"right.{dynamics.f.key}.{jvp.key}.{key[1]}.{key[2]}"
    if not points or key in jvp.tried or (mark is not None and kept_bytes(mark) is not None):
        return
    try:
        with np.errstate(all="ignore"):
            found = _products(dynamics.f, [jvp], [_Call((p.t,), p.u, p.theta) for p in points], states.shape[1])
    except Exception:  # what a callback raises, the pass will report
        return
    if found:
        raise ValueError(
            f"the jvp of {dynamics.name} does not agree with it: it must be (df/du) v + (df/dtheta) w, and f smooth at its "
            f"solution. {found}"
        )
    jvp.tried.add(key)
    if mark is not None:
        keep_bytes(mark, b"")


def require_vjp_dot(dynamics: Dynamics, times: np.ndarray, states: np.ndarray, theta: np.ndarray) -> None:
    """The same for the second derivatives of a dynamics, given or derived, against differences of its vjp."""
    calls = [_Call((p.t,), p.u, p.theta) for p in _places(times, states, theta)]
    _require_second(dynamics.vjp, dynamics.vjp_dot, calls, states.shape[1], f"vjp_dot of {dynamics.name}")


def require_second_of_loss(loss: PreparedObserved, theta: np.ndarray) -> None:
    """The same for those of the functions of a loss."""
    for rule in loss.rules:
        calls, name = [_Call(numbers, u.copy(), theta) for numbers, u in loss.calls(rule)], rule.function.kind.name
        _require_second(rule.vjp, rule.vjp_dot, _some(calls), loss.c, f"second derivatives of the {name} of the loss")


def _require_second(vjp: Callback, vjp_dot: Callback, calls: Sequence[_Call], rows: int, what: str) -> None:
    """Raise a ValueError if `vjp_dot` is not how the results of `vjp` change; tried once for each pair of sizes."""
    if not calls or (key := ("second", calls[0].u.size, calls[0].theta.size)) in vjp_dot.tried:
        return
    rng = np.random.default_rng(7)
    for call, _ in itertools.product(calls, range(_DIRECTIONS)):
        (du, dtheta), lam, lam_dot = _direction(rng, call), rng.standard_normal(rows), rng.standard_normal(rows)
        inputs = {"u": call.u, "theta": call.theta, "lam": lam, "y_bar": lam, "v": du, "w": dtheta, "lam_dot": lam_dot}
        inputs["y_bar_dot"] = lam_dot
        outputs = [np.full(size_of(name, call.u.size, call.theta.size), np.nan) for name in vjp_dot.kind.outputs]
        weights = np.concatenate(_direction(rng, call))
        with np.errstate(all="ignore"):
            vjp_dot(*call.numbers, *(inputs[name].copy() for name in vjp_dot.kind.inputs), *outputs)
            given, (expected, error, scale) = np.concatenate(outputs) @ weights, _slope_of(_moved(vjp, call, inputs), weights)
        if error <= _AGREES * scale and not abs(given - expected) <= 10.0 * _AGREES * scale:
            raise ValueError(
                f"the {what} does not agree with differences of the vjp, unless that is not smooth: along a random direction it "
                f"gives {given:.9g}, and the differences {expected:.9g}."
            )
    vjp_dot.tried.add(key)


def _moved(vjp: Callback, call: _Call, inputs: dict[str, np.ndarray]) -> Callable[[float], np.ndarray]:
    """The results of a vjp, one behind the other, as a function of a step along the directions among `inputs`."""
    moving = {"u": "v", "theta": "w", "lam": "lam_dot", "y_bar": "y_bar_dot"}

    def results(step: float) -> np.ndarray:
        outputs = [np.full(size_of(name, call.u.size, call.theta.size), np.nan) for name in vjp.kind.outputs]
        vjp(*call.numbers, *(inputs[name] + step * inputs[moving[name]] for name in vjp.kind.inputs), *outputs)
        return np.concatenate(outputs)

    return results


def require_jvps(dynamics: Dynamics, jvps: Callback, times: np.ndarray, states: np.ndarray, theta: np.ndarray) -> None:
    """Raise a ValueError if the products with many directions at once are not those with each, at some of these states."""
    jvp = dynamics.jvp
    assert jvp is not None
    n, m, points = states.shape[1], theta.size, _places(times, states, theta)
    if not points or (key := ("right", n, m)) in jvps.tried:
        return
    rng = np.random.default_rng(6)
    V, W, many, one = rng.normal(size=(n, LANES)), rng.normal(size=(m, LANES)), np.full(n * LANES, np.nan), np.full(n, np.nan)
    if jvps is dynamics.jvps_u:
        W[:] = 0.0
    for p in points:
        with np.errstate(all="ignore"):
            jvps(p.t, p.u, p.theta, V.ravel(), W.ravel(), np.zeros(LANES), many)
            for d in range(LANES):
                jvp(p.t, p.u, p.theta, V[:, d].copy(), W[:, d].copy(), one)
                found = many.reshape(n, LANES)[:, d]
                if np.isfinite(one).all() and not np.allclose(
                    found, one, rtol=_AGREES, atol=_AGREES * np.abs(one).max(initial=0.0)
                ):
                    raise ValueError(
                        f"the jvps derived from {dynamics.name} do not agree with its jvp at t = {p.t:g}, which is a bug in "
                        "adjode: give the jvp as Dynamics(f, jvp=...)."
                    )
    jvps.tried.add(key)


def _places(times: np.ndarray, states: np.ndarray, theta: np.ndarray) -> list[Place]:
    """A few of these, where all is finite."""
    finite = np.flatnonzero(np.isfinite(states).all(axis=1) & np.isfinite(theta).all())
    return [Place(float(times[k]), np.array(states[k]), np.array(theta)) for k in _some(finite.tolist())]


def _mark(dynamics: Dynamics, n: int, m: int) -> str | None:
    keys = [part.key for part in dynamics.callbacks if part.name in ("f", *dynamics.derived)]
    return None if None in keys else f"right.{'.'.join(keys)}.{n}.{m}"  # type: ignore[arg-type]


def is_proven(dynamics: Dynamics, n: int, m: int) -> bool:
    """Whether its derived rules have been held against f, for so many states and parameters."""
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


def _products(values: Callback, rules: list[Callback], points: Sequence[_Call], rows: int) -> str:
    """What is wrong with products of rules and the Jacobian of `values`, of so many rows, for a few random lam and directions."""
    rng = np.random.default_rng(5)
    for point in points:
        for _ in range(_DIRECTIONS):
            lam = np.ones(1) if values.kind.returns_number else rng.standard_normal(rows)
            du, dtheta = _direction(rng, point)
            for rule in rules:
                along = du, dtheta if {"theta_bar", "w"} & {*rule.kind.arrays} else np.zeros_like(dtheta)
                given = _given(rule, point, lam, along)
                expected, error, scale = _slope(values, point, lam, along)
                if error <= _AGREES * scale and not abs(given - expected) <= 10.0 * _AGREES * scale:
                    where = ", ".join(f"{name} = {x:g}" for name, x in zip(values.kind.numbers, point.numbers, strict=True))
                    return (
                        f"Along a random direction{where and f' at {where}'} {rule.name} gives {given:.9g}, "
                        f"differences of {values.name} {expected:.9g}."
                    )
    return ""


def _direction(rng: np.random.Generator, point: _Call) -> tuple[np.ndarray, np.ndarray]:
    du, dtheta = rng.standard_normal(point.u.size), rng.standard_normal(point.theta.size)
    return du * _sizes(point.u), dtheta * _sizes(point.theta)


def _sizes(x: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x), 1e-3 * np.max(np.abs(x), initial=1e-3))


def _given(rule: Callback, point: _Call, lam: np.ndarray, along: tuple[np.ndarray, np.ndarray]) -> float:
    """The derivative of lam . f along a direction, by a rule."""
    inputs = {"u": point.u, "theta": point.theta, "lam": lam, "y_bar": lam, "v": along[0], "w": along[1]}
    outputs = [np.full(size_of(name, point.u.size, point.theta.size), np.nan) for name in rule.kind.outputs]
    rule(*point.numbers, *(inputs[name].copy() for name in rule.kind.inputs), *outputs)
    weights = (lam,) if "v" in rule.kind.inputs else along
    return float(sum(output @ weight for output, weight in zip(outputs, weights, strict=False)))


def _slope(callback: Callback, point: _Call, lam: np.ndarray, along: tuple[np.ndarray, np.ndarray]) -> tuple[float, float, float]:
    """The derivative of lam . f along a direction, f being what a callback writes; its error, and the size of its terms."""

    def f(step: float) -> np.ndarray:
        values = np.empty_like(lam)
        callback(*point.numbers, point.u + step * along[0], point.theta + step * along[1], values)
        return values

    return _slope_of(f, lam)


def _slope_of(f: Callable[[float], np.ndarray], lam: np.ndarray) -> tuple[float, float, float]:
    """The derivative of lam . f(step) at 0 by extrapolated central differences; its error, and the size of its terms."""
    quotients = np.array([(f(h) - f(-h)) / (2.0 * h) for h in _STEPS])
    better = quotients[1:] + (quotients[1:] - quotients[:-1]) / 15.0
    sums = better @ lam
    errors = np.abs(np.diff(sums))
    k = int(np.nanargmin(np.where(np.isfinite(errors), errors, np.inf)))
    scale = float(np.abs(better[k + 1] * lam).sum())
    blur = _ROUNDING * float(np.abs(f(0.0) * lam).sum()) / _STEPS[k + 2]
    one_sided = (f(_STEPS[-1]) - f(0.0)) @ lam / _STEPS[-1], (f(0.0) - f(-_STEPS[-1])) @ lam / _STEPS[-1]
    kink = abs(one_sided[0] - one_sided[1])
    rough = kink if kink > 1e-3 * scale else 0.0
    return float(sums[k + 1]), float(errors[k] + rough + blur) if np.isfinite(sums[k + 1]) else np.inf, scale
