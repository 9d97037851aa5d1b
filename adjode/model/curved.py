"""`Curved`: a guard or a reset with its first and second derivatives, by time too, to be called from Python."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from adjode.model.callbacks import Callback, callback
from adjode.model.derived import derived


class Curved:
    """
    Parameters
    ----------
    of : Callback
        Of the kind "guard", which has one result, or "reset", which has as many as there are states.
    """

    def __init__(self, of: Callback):
        self.of, self._is_guard = of, of.kind.returns_number
        found = derived(of.function)
        prefix = "g_" if self._is_guard else ""
        self._vjp, self._vjp_dot = callback(f"{prefix}vjp", found.vjp), callback(f"{prefix}vjp_dot", found.vjp_dot)
        self._rate = None if found.is_autonomous else _Rate(found.df_dt, of, prefix)

    def at(self, t: float, u: np.ndarray, theta: np.ndarray) -> CurvedAt:
        return CurvedAt(self, (t, u, theta))

    def _rows(self, vjp: Callback, place: tuple) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of all results by u and by theta, by one vjp for each."""
        n, m = place[1].size, place[2].size
        by_u, by_theta = np.zeros((1 if self._is_guard else n, n)), np.zeros((1 if self._is_guard else n, m))
        for k, unit in enumerate(np.eye(len(by_u))):
            vjp(*place, *(() if self._is_guard else (unit,)), by_u[k], by_theta[k])
        return by_u, by_theta


class _Rate:
    """The derivative by time of a guard or a reset, and its derivatives."""

    def __init__(self, df_dt: Any, of: Callback, prefix: str):
        found = derived(df_dt, ("t", "u", "theta") if prefix else ("t", "u", "theta", "du"))
        self.value, self.vjp = callback(of.name, df_dt), callback(f"{prefix}vjp", found.vjp)
        self.dt = None if found.is_autonomous else callback(of.name, found.df_dt)


class CurvedAt:
    """The derivatives of a `Curved` at a place (t, u, theta), of r results.

    Attributes
    ----------
    by_u, by_theta, by_t : (r, n), (r, m), (r,) arrays
    """

    def __init__(self, of: Curved, place: tuple[float, np.ndarray, np.ndarray]):
        self._of, self._place = of, place
        self.by_u, self.by_theta = of._rows(of._vjp, place)
        self.by_t = self._value(None if of._rate is None else of._rate.value)

    def _value(self, rate: Callback | None) -> np.ndarray:
        out = np.zeros(len(self.by_u))
        if rate is not None:
            rate(*self._place, out)
        return out

    @functools.cached_property
    def _of_rate(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Derivatives of `by_t`, by u, theta and t."""
        rate = self._of._rate
        if rate is None:
            return np.zeros_like(self.by_u), np.zeros_like(self.by_theta), np.zeros_like(self.by_t)
        return (*self._of._rows(rate.vjp, self._place), self._value(rate.dt))

    def push(self, u_dots: np.ndarray, theta_dots: np.ndarray, t_dots: np.ndarray) -> np.ndarray:
        """Tangents (p, r) of the results, from those of u (p, n), theta (p, m) and t (p,)."""
        return u_dots @ self.by_u.T + theta_dots @ self.by_theta.T + np.outer(t_dots, self.by_t)

    def pull(
        self, bars: np.ndarray, u_dots: np.ndarray, theta_dots: np.ndarray, t_dots: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What cotangents (1 + p, r) of the results, with their tangents behind, are as such of u, theta and t."""
        bar = bars[0]
        of_u, of_theta, of_t = bars @ self.by_u, bars @ self.by_theta, bars @ self.by_t
        rate_u, rate_theta, rate_t = self._of_rate
        given = () if self._of._is_guard else (bar,)
        none = () if self._of._is_guard else (np.zeros_like(bar),)
        scale = bar[0] if self._of._is_guard else 1.0
        out = np.zeros(self.by_u.shape[1]), np.zeros(self.by_theta.shape[1])
        for d, (v, w) in enumerate(zip(u_dots, theta_dots, strict=True)):
            self._of._vjp_dot(*self._place, *given, v, w, *none, *out)
            of_u[1 + d] += scale * out[0] + t_dots[d] * (bar @ rate_u)
            of_theta[1 + d] += scale * out[1] + t_dots[d] * (bar @ rate_theta)
        of_t[1:] += u_dots @ (bar @ rate_u) + theta_dots @ (bar @ rate_theta) + t_dots * (bar @ rate_t)
        return of_u, of_theta, of_t
