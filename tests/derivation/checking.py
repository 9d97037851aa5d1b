"""Derived products of a program against the complex step, or extrapolated central differences, of its own Python."""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.derivation import derive
from adjode.derivation.derived import Derived
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
        result, *others = values if len(values) > 1 else values[0]
        for value in others:
            result = value if picks(np.real(value), np.real(result)) else result
        return result

    return chosen


def _complexly(name: str) -> Callable:
    function = getattr(np, name)

    def made(shape: Any, *rest: Any) -> Any:
        array = function(shape, *rest)
        return array if rest and isinstance(rest[-1], type) else array.astype(complex)

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


def _not_analytic(*arguments: Any) -> Any:
    raise NotAnalytic


_COMMON = {
    "var": _not_analytic,
    "std": _not_analytic,
    "linalg": types.SimpleNamespace(
        norm=_not_analytic, **{name: getattr(np.linalg, name) for name in ("solve", "inv", "det", "matrix_power")}
    ),
    "hypot": _fsum,
    "gamma": math.gamma,
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


def _step(function: Callable[[], np.ndarray]) -> np.ndarray:
    """The imaginary part per step."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error", np.exceptions.ComplexWarning)  # an array of real numbers took a complex one
        try:
            return function().imag / 1e-30
        except (TypeError, ValueError, np.exceptions.ComplexWarning):
            raise NotAnalytic from None


def complex_jacobian(program: Program, t: float, u: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """The Jacobian by (t, u, theta), one column each."""
    f = program.function(**_COMPLEX)
    x = np.concatenate([[t], u, theta])
    columns = []
    for k in range(x.size):
        at = x.astype(complex)
        at[k] += 1e-30j
        columns.append(_step(lambda at=at: value(f, program.form, at[0], at[1 : 1 + u.size], at[1 + u.size :])))
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
            if any(f".{name}(" in program.text for name in ("var", "std")):  # NumPy's take absolute values
                raise NotAnalytic
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


PRODUCTS = ("vjp", "vjp_u", "jvp", "df_dt", "vjp_dot", "jac", "sparsity")


def verdict(program: Program, products: tuple[str, ...] = PRODUCTS) -> str:
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
                wrong = _COMPARED[name](derived, program, jacobian, point)
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


def _vjp_u(derived: Derived, program: Program, jacobian: np.ndarray, point: tuple) -> str | None:
    return _vjp(derived, program, jacobian, point, by_theta=False)


def _vjp(derived: Derived, program: Program, jacobian: np.ndarray, point: tuple, by_theta: bool = True) -> str | None:
    t, u, theta = point
    vjp = derived.vjp if by_theta else derived.vjp_u
    bars = [np.full(u.size, np.nan), np.full(theta.size, np.nan)][: 1 + by_theta]
    lam = np.random.default_rng(1).uniform(-1.0, 1.0, jacobian.shape[0])
    if program.form == "number":
        lam[:] = 1.0
    given = [u, theta] if program.form == "number" else [u, theta, lam]
    changed = _called(vjp, t, *given, *bars, results=len(bars))
    got, expected = np.concatenate(bars), (lam @ jacobian)[1 : 1 + u.size + by_theta * theta.size]
    return changed or (None if difference(got, expected) < 1e-6 else f"{got} instead of {expected}")


def _directions(program: Program) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tangents of u, theta and lam."""
    rng = np.random.default_rng(2)
    return tuple(rng.uniform(-1.0, 1.0, size) for size in (program.n, program.m, program.n))  # type: ignore[return-value]


def _jvp(derived: Derived, program: Program, jacobian: np.ndarray, point: tuple) -> str | None:
    t, u, theta = point
    u_dot, theta_dot, _ = _directions(program)
    expected = jacobian @ np.concatenate([[0.0], u_dot, theta_dot])
    return _pushed(derived.jvp, program, t, [u, theta, u_dot, theta_dot], expected)


def _df_dt(derived: Derived, program: Program, jacobian: np.ndarray, point: tuple) -> str | None:
    t, u, theta = point
    return _pushed(derived.df_dt, program, t, [u, theta], jacobian[:, 0])


def _pushed(product: Callable, program: Program, t: float, given: list[np.ndarray], expected: np.ndarray) -> str | None:
    du_dot = np.full(expected.size, np.nan)
    if program.form == "number":
        with np.errstate(all="ignore"):
            du_dot[0] = product(t, *given)
        changed = None
    else:
        changed = _called(product, t, *given, du_dot, results=1)
    return changed or (None if difference(du_dot, expected) < 1e-6 else f"{du_dot} instead of {expected}")


def _vjp_dot(derived: Derived, program: Program, jacobian: np.ndarray, point: tuple) -> str | None:
    t, u, theta = point
    by_number = program.form == "number"
    lam = np.random.default_rng(1).uniform(-1.0, 1.0, program.n)
    x, x_dot = np.concatenate([u, theta, lam]), np.concatenate(_directions(program))
    ends = u.size, u.size + theta.size
    expected, error = _along(program, derived, t, x, x_dot)
    if not error < 1e-7 * (1.0 + np.max(np.abs(expected))) or not np.all(np.abs(expected) < 1e8):
        return None
    bars = [np.full(u.size, np.nan), np.full(theta.size, np.nan)]
    given = [part for whole in (x, x_dot) for part in np.split(whole, ends)[: 2 if by_number else 3]]
    changed = _called(derived.vjp_dot, t, *given, *bars, results=2)
    got = np.concatenate(bars)
    return changed or (None if difference(got, expected) < 1e-5 else f"{got} instead of {expected}")


def _along(program: Program, derived: Derived, t: float, x: np.ndarray, x_dot: np.ndarray) -> tuple[np.ndarray, float]:
    """How the vjp changes along a direction, by the complex step or differences, and an estimate of the error."""

    def vjp_at(vjp: Callable, x: np.ndarray) -> np.ndarray:
        u, theta, lam = np.split(x, (program.n, program.n + program.m))
        u_bar, theta_bar = np.zeros(u.size, x.dtype), np.zeros(theta.size, x.dtype)
        with np.errstate(all="ignore"):
            vjp(t, *([u, theta] if program.form == "number" else [u, theta, lam]), u_bar, theta_bar)
        return np.concatenate([u_bar, theta_bar])

    text, space = derived._vjp
    names = {**space, **{name: new for name, new in _COMPLEX.items() if name in space or name not in ("math", "np")}}
    exec(compile(text, "<vjp>", "exec"), names)
    try:
        return _step(lambda: vjp_at(names["vjp"], x + 1e-30j * x_dot)), 0.0
    except NotAnalytic:
        pass
    first, second, third = (
        (vjp_at(derived.vjp, x + h * x_dot) - vjp_at(derived.vjp, x - h * x_dot)) / (2.0 * h) for h in (4e-3, 2e-3, 1e-3)
    )
    a, b = (4.0 * second - first) / 3.0, (4.0 * third - second) / 3.0
    return (16.0 * b - a) / 15.0, float(np.max(np.abs(b - a), initial=0.0))


def _jac(derived: Derived, program: Program, jacobian: np.ndarray, point: tuple) -> str | None:
    t, u, theta = point
    if program.form == "number" or derived.jac is None:
        return None
    J, expected = np.full((u.size, u.size), np.nan), jacobian[:, 1 : 1 + u.size]
    changed = _called(derived.jac, t, u, theta, J, results=1)
    return changed or (None if difference(J, expected) < 1e-6 else f"{J} instead of {expected}")


def _sparsity(derived: Derived, program: Program, jacobian: np.ndarray, point: tuple) -> str | None:
    missing = np.abs(jacobian[:, 1 : 1 + program.n]) > 1e-12
    try:
        derived.sparsity(program.n, program.m)
    except TypeError as error:
        return None if "give the zeros of the Jacobian" in str(error) else str(error)
    missing[derived.sparsity(program.n, program.m)] = False
    return f"entries {np.argwhere(missing).tolist()} are missing" if missing.any() else None


_COMPARED: dict[str, Callable[..., str | None]] = {
    "vjp": _vjp,
    "vjp_u": _vjp_u,
    "jvp": _jvp,
    "df_dt": _df_dt,
    "vjp_dot": _vjp_dot,
    "jac": _jac,
    "sparsity": _sparsity,
}
