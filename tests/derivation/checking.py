"""Derived products of a program against the complex step, or extrapolated central differences, of its own Python."""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.derivation import derive
from tests.derivation.programs import Program

# --- a callback of complex numbers --------------------------------------------------------------------------------------------


class NotAnalytic(Exception):
    """Raised where the complex step does not go."""


def _abs(x: Any) -> Any:
    return np.where(np.real(x) < 0.0, -x, x)[()]


def _by_real(picks: Callable) -> Callable:
    def chosen(x: Any, y: Any) -> Any:
        return np.where(picks(np.real(x), np.real(y)), x, y)[()]

    return chosen


def _first(picks: Callable) -> Callable:
    def chosen(*values: Any) -> Any:
        result = values[0]
        for value in values[1:]:
            result = value if picks(np.real(value), np.real(result)) else result
        return result

    return chosen


def _complexly(name: str) -> Callable:
    function = getattr(np, name)

    def made(shape: Any, *rest: Any) -> Any:
        return function(shape, *rest).astype(complex)

    return made


class _Module(types.SimpleNamespace):
    def __getattr__(self, name: str) -> Any:
        return getattr(np, {"atan": "arctan", "asin": "arcsin", "asinh": "arcsinh"}.get(name, name))


def _fsum(x: Any, y: Any) -> Any:
    return np.sqrt(x * x + y * y)


def _atan2(y: Any, x: Any) -> Any:
    if np.any(np.real(x) <= 0.0):
        raise NotAnalytic
    return np.arctan(y / x)


_COMMON = {
    "hypot": _fsum,
    "atan2": _atan2,
    "arctan2": _atan2,
    "pow": lambda x, y: x**y,
    "abs": _abs,
    "sign": lambda x: np.sign(np.real(x)),
    "maximum": _by_real(lambda x, y: x >= y),
    "minimum": _by_real(lambda x, y: x <= y),
    "cosh": lambda x: (np.exp(x) + np.exp(-x)) / 2.0,
}
_COMPLEX = {
    "math": _Module(**_COMMON),
    "np": _Module(**_COMMON, **{name: _complexly(name) for name in ("empty", "zeros", "full", "empty_like")}),
    "abs": _abs,
    "min": _first(lambda new, old: new < old),
    "max": _first(lambda new, old: new > old),
    "float": lambda x: x,
}


def value(function: Callable, form: str, t: Any, u: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """What f says, as a vector."""
    if form == "in place":
        du = np.full(u.size, np.nan, dtype=u.dtype)
        function(t, u, theta, du)
        return du
    return np.atleast_1d(np.array(function(t, u, theta)))


def complex_jacobian(program: Program, t: float, u: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """The Jacobian by (t, u, theta), one column each."""
    f = program.function(**_COMPLEX)
    x = np.concatenate([[t], u, theta])
    columns = []
    for k in range(x.size):
        at = x.astype(complex)
        at[k] += 1e-30j
        try:
            columns.append(value(f, program.form, at[0], at[1 : 1 + u.size], at[1 + u.size :]).imag / 1e-30)
        except TypeError:
            raise NotAnalytic from None
    return np.array(columns).T


def differences(program: Program, t: float, u: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, float]:
    """The same by central differences, extrapolated, and an estimate of the error."""
    f, x = program.function(), np.concatenate([[t], u, theta])

    def central(h: float) -> np.ndarray:
        columns = []
        for k in range(x.size):
            up, down = x.copy(), x.copy()
            up[k] += h
            down[k] -= h
            ends = [value(f, program.form, at[0], at[1 : 1 + u.size], at[1 + u.size :]) for at in (up, down)]
            columns.append((ends[0] - ends[1]) / (2.0 * h))
        return np.array(columns).T

    first, second, third = (central(h) for h in (4e-3, 2e-3, 1e-3))
    a, b = (4.0 * second - first) / 3.0, (4.0 * third - second) / 3.0
    best = (16.0 * b - a) / 15.0
    return best, float(np.max(np.abs(best - b), initial=0.0))


# --- verdicts -------------------------------------------------------------------------------------------------------------------


def points(program: Program, count: int = 2) -> list[tuple[float, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(program.seed)
    return [(rng.uniform(0.2, 1.0), rng.uniform(-1.2, 1.2, program.n), rng.uniform(-1.2, 1.2, program.m)) for _ in range(count)]


def reference(program: Program, t: float, u: np.ndarray, theta: np.ndarray) -> np.ndarray | None:
    """The Jacobian; None where the program has none that could be checked: what it calculates is not finite, or has a kink."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            there = value(program.function(), program.form, t, u.copy(), theta.copy())
        except (OverflowError, ZeroDivisionError, ValueError, IndexError):
            return None
        if not np.all(np.abs(there) < 1e6):
            return None
        try:
            jacobian = complex_jacobian(program, t, u, theta)
        except NotAnalytic:
            jacobian, error = differences(program, t, u, theta)
            if not error < 1e-7:
                return None
    return jacobian if np.all(np.abs(jacobian) < 1e8) else None


def difference(got: np.ndarray, expected: np.ndarray) -> float:
    """Relative to the largest; infinite if something is not a number."""
    scale = 1.0 + np.max(np.abs(expected), initial=0.0)
    worst = np.max(np.abs(got - expected), initial=0.0) / scale
    return worst if np.isfinite(worst) else math.inf


def verdict(program: Program, products: tuple[str, ...] = ("vjp", "vjp_u")) -> str:
    """`right`, `refused: ...`, `unchecked`, or `wrong: ...`, with the reason."""
    try:
        derived = derive(program.function())
        checked = False
        for point in points(program):
            jacobian = reference(program, *point)
            if jacobian is None:
                continue
            checked = True
            for name in products:
                wrong = _COMPARED[name](getattr(derived, name), program, jacobian, point)
                if wrong is not None:
                    return f"wrong: {name}: {wrong}"
    except Exception as error:
        refused = isinstance(error, TypeError) and "cannot be differentiated" in str(error)
        return f"refused: {error}" if refused else f"wrong: {error!r}"
    return "right" if checked else "unchecked"


def _called(function: Callable, t: float, *given: np.ndarray, results: int = 0) -> str | None:
    """Call it; what it must leave alone comes first among the arrays."""
    kept = [array.copy() for array in given]
    with np.errstate(all="ignore"):
        function(t, *given)
    same = (np.array_equal(a, b) for a, b in zip(given, kept[: len(kept) - results], strict=False))
    return None if all(same) else "an argument was written into"


def _vjp(vjp: Callable, program: Program, jacobian: np.ndarray, point: tuple) -> str | None:
    t, u, theta = point
    by_theta = vjp.__name__ == "vjp"
    bars = [np.full(u.size, np.nan), np.full(theta.size, np.nan)][: 1 + by_theta]
    lam = np.random.default_rng(1).uniform(-1.0, 1.0, jacobian.shape[0])
    if program.form == "number":
        lam[:] = 1.0
    given = [u, theta] if program.form == "number" else [u, theta, lam]
    changed = _called(vjp, t, *given, *bars, results=len(bars))
    got, expected = np.concatenate(bars), (lam @ jacobian)[1 : 1 + u.size + by_theta * theta.size]
    return changed or (None if difference(got, expected) < 1e-6 else f"{got} instead of {expected}")


_COMPARED: dict[str, Callable[..., str | None]] = {"vjp": _vjp, "vjp_u": _vjp}
