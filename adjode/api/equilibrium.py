"""`steady_state`: where a system comes to rest, and its derivatives by the implicit function theorem.

The system is integrated, over spans that grow, until the last one has changed nothing; then Newton's method finds the root of f
there. What is conserved, L^T u for all columns of L with L^T f = 0, is kept: with s a size of the Jacobian J,

    M = J + s L L^T,    M du = -f + s L L^T (u0 - u),

which is singular only where the root is not isolated. A cotangent u_bar gives `mu = M^-T u_bar`, theta_bar = -f_theta^T mu and
u0_bar = s L L^T mu.

Where M is singular, states that stay zero of themselves may be the reason: what an absent inhibitor binds to piles up for ever as
soon as there is some, so the state of rest is isolated among those without it. Then these states are taken out of f, and the
derivatives by what would make them other than zero are not numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from adjode.api.keywords import ForwardKeywords
from adjode.api.solve import solve
from adjode.model.dynamics import Dynamics
from adjode.model.layout import Layout
from adjode.passes.options import SolveOptions
from adjode.status import NEWTON_FAILED, SolveError, Status

_SPANS = 30  # each four times as long as the one before
_RESTS = 1e-2  # of a state, by which the last span may have changed it, and Newton's method what integration has found
_NOISE = 10.0  # absolute tolerances, which states of rest may be off
_ITERATIONS = 12
_CORRECTED = 1e-10  # of a state: a last correction of Newton's method, which leaves the square of that
_ROUNDING = 2e-16
_SINGULAR = 4e12  # the condition of a matrix
_PROBES = 4  # states along the way, at which something must be conserved
_CONSERVED = 1e-12  # of the largest singular value
_KEPT = 1e-6  # of the terms of a sum that is conserved, by which rounding and solves may change it
_SMALL = 1e-8  # of the largest that a state has been, which is as good as zero
_NOTHING = 1e-12  # of the largest of all states
_NOT_ISOLATED = "its steady state is not isolated: the Jacobian is singular there, and not because of a conserved quantity"


@dataclass(frozen=True, eq=False)
class Equilibrium:
    """A steady state.

    Attributes
    ----------
    u : (n,) array, or in the form of u0
    conserved : (q, n) array
        An orthonormal basis of the weights of all sums of states that never change, one in each row.
    t : float
        The time that integration took to reach it.
    """

    u: Any
    conserved: np.ndarray
    t: float
    layouts: tuple[Layout, Layout]
    lu: Any
    of_theta: np.ndarray
    kept: np.ndarray
    undefined: tuple[np.ndarray, np.ndarray]  # entries of u0 (n,) and theta (m,) by which there are no derivatives

    def pull_back(self, u_bar: Any) -> tuple[np.ndarray, np.ndarray]:
        """The cotangents (n,) of u0 and (m,) of theta that one of the state is; not a number where there is no derivative."""
        mu = self._solve(self.layouts[0].flatten("the cotangent of u", u_bar), trans=1)
        bars = self.kept @ mu, -self.of_theta.T @ mu
        for bar, undefined in zip(bars, self.undefined, strict=True):
            bar[undefined] = np.nan
        return bars

    def push_forward(self, u0_dot: np.ndarray, theta_dot: np.ndarray) -> np.ndarray:
        """The tangents (n, k) of the state, from those of u0 (n, k) and theta (m, k)."""
        u_dot = self._solve(self.kept @ u0_dot - self.of_theta @ theta_dot)
        for dot, undefined in zip((u0_dot, theta_dot), self.undefined, strict=True):
            u_dot[:, dot[undefined].any(axis=0)] = np.nan
        return u_dot

    def _solve(self, b: np.ndarray, trans: int = 0) -> np.ndarray:
        from scipy.linalg import lu_solve

        lu, pivots = self.lu
        return lu_solve(
            (lu, pivots.copy()), b, trans
        )  # SciPy counts pivots up and down again, without the GIL: no two threads at a time


def steady_state(dynamics: Dynamics, u0: Any, theta: Any, t0: float = 0.0, **options: Unpack[ForwardKeywords]) -> Equilibrium:
    """The steady state of a system that starts at u0, and its derivatives by u0 and theta.

    Parameters
    ----------
    dynamics : Dynamics
        Must not depend on time, and must have no mass matrix.
    u0, theta
        As for `solve`. The steady state depends on u0 only through conserved quantities.
    t0 : float
        The time that is passed to f.
    **options
        Options of `solve`: `method`, `rtol`, `atol`, ...

    Returns
    -------
    Equilibrium

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid.
    SolveError
        If the system does not come to rest, or its steady state is not isolated.
    """
    if dynamics.mass is not None:
        raise ValueError("steady_state does not support a mass matrix: write the dynamics without one.")
    if options.get("doses") or options.get("events"):
        raise ValueError("a steady state cannot be found with doses or events: leave them out.")
    return _Search(dynamics, u0, theta, t0, dict(options)).run()


class _Search:
    def __init__(self, dynamics: Dynamics, u0: Any, theta: Any, t0: float, options: dict[str, Any]):
        self.dynamics, self.t0 = dynamics, t0
        self.layouts = dynamics.layouts(u0, theta)
        self.start, self.theta = self.layouts[0].flatten("u0", u0), self.layouts[1].flatten("theta", theta)
        self.n, self.probes = self.start.size, self.start[None]
        self.largest = np.abs(self.start)  # that each state has been
        self.absent = np.zeros(self.n, dtype=bool)  # states that stay zero and are taken out
        atol = SolveOptions(**options).at(self.start).absolute_tolerances(self.n)
        self.noise, self._options = _NOISE * atol, {**options, "atol": atol}

    def run(self) -> Equilibrium:
        u, reached, span, why = self.start, 0.0, self._first_span(), "it still changes"
        rests = not self._f(u).any()
        for _ in range(_SPANS):
            if rests:
                found = self._newton(u, reached)
                if found is _NOT_ISOLATED and self._takes_out(u):
                    found = self._newton(np.where(self.absent, 0.0, u), reached)
                if isinstance(found, Equilibrium):
                    return found
                why = found
            before, u = u, self._integrated(u, span, f"after a time of {reached:.3g} {why}")
            rests, reached, span = self._is_near(before, u), reached + span, 4.0 * span
        raise self._failure(f"after a time of {reached:.3g} {why}")

    def _is_near(self, a: np.ndarray, b: np.ndarray, rounding: np.ndarray | float = 0.0) -> bool:
        """Whether two states are the same, as far as integration can tell, and what rounding has made of them."""
        return bool(np.all(np.abs(a - b) <= _RESTS * self._sizes(b) + self.noise + rounding))

    def _integrated(self, u: np.ndarray, span: float, so_far: str) -> np.ndarray:
        given = self.layouts[0].unflatten(u), self.layouts[1].unflatten(self.theta)
        try:
            solution = solve(self.dynamics, *given, (self.t0, self.t0 + span), **self._options)
        except SolveError as error:
            raise self._failure(f"{so_far}: {error}") from error
        self.probes = np.vstack([self.start, solution.u[:: -(-len(solution.u) // _PROBES)]])
        self.largest = np.maximum(self.largest, np.abs(solution.u).max(axis=0))
        return np.array(solution.u[-1])

    def _first_span(self) -> float:
        """A time in which the fastest state would change by a good part."""
        slopes, sizes = np.abs(self._f(self.start)), np.maximum(self.largest, _RESTS * self.largest.max(initial=0.0))
        moves, rate = (slopes > 0.0) & (sizes > 0.0), float(np.linalg.norm(self._jacobians(self.start)[0]))
        times = [*(sizes[moves] / slopes[moves]).tolist(), *([] if rate == 0.0 else [10.0 / rate])]
        return min(times, default=1.0)

    def _sizes(self, u: np.ndarray) -> np.ndarray:
        return np.abs(u) + np.maximum(_SMALL * self.largest, _NOTHING * self.largest.max(initial=0.0))

    def _f(self, u: np.ndarray, t: float | None = None) -> np.ndarray:
        du = np.full(self.n, np.nan)
        self.dynamics.f(self.t0 if t is None else t, u.copy(), self.theta, du)
        if not np.isfinite(du).all():
            raise self._failure("f is not finite on the way")
        return du

    def _takes_out(self, u: np.ndarray) -> bool:
        """Whether there are states that are zero at the start, and stay it whatever the others are."""
        points, zero = [*self.probes, u], (self.start == 0.0) & (np.abs(u) <= self.noise)
        while zero.any():
            stays = zero.copy()
            for point in points:
                at = np.where(zero, 0.0, point)
                stays &= (self._f(at) == 0.0) & ~self._whole_jacobians(at)[0][:, ~zero].any(axis=1)
            if (stays == zero).all():
                break
            zero = stays
        self.absent = zero
        return bool(zero.any())

    def _jacobians(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """df/du (n, n) and df/dtheta (n, m), without the states that are taken out."""
        J, of_theta = self._whole_jacobians(u)
        J[self.absent] = J[:, self.absent] = of_theta[self.absent] = 0.0
        return J, of_theta

    def _whole_jacobians(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same of all, by products with the vjp."""
        J, of_theta = np.full((self.n, self.n), np.nan), np.full((self.n, self.theta.size), np.nan)
        for i in range(self.n):
            lam = np.zeros(self.n)
            lam[i] = 1.0
            self.dynamics.vjp(self.t0, u.copy(), self.theta, lam, J[i], of_theta[i])
        return J, of_theta

    def _conserved(self, u: np.ndarray) -> np.ndarray:
        """L, (n, q): an orthonormal basis of the left null space that the Jacobians at all these states have in common."""
        stacked = np.hstack([self._jacobians(np.where(self.absent, 0.0, one))[0] for one in [*self.probes, u]])
        sizes = np.linalg.norm(stacked, axis=0)
        left, singular, _ = np.linalg.svd(stacked[:, sizes > 0.0] / sizes[sizes > 0.0], full_matrices=True)
        singular = np.append(singular, np.zeros(self.n - singular.size))
        return left[:, singular <= _CONSERVED * max(float(singular.max(initial=0.0)), 1e-300)]

    def _newton(self, guess: np.ndarray, t: float) -> Equilibrium | str:
        """The root of f that Newton's method finds near the guess; else why it is none."""
        from scipy.linalg import lu_factor, lu_solve

        L, u = self._conserved(guess), guess
        allowed = np.abs(L.T) @ (_KEPT * (np.abs(u) + np.abs(self.start)) + self.absent.any() * self.noise)
        if np.any(np.abs(L.T @ (u - self.start)) > allowed):
            return "its Jacobian is singular, and not because of a conserved quantity"
        for _ in range(_ITERATIONS):
            J, _ = self._jacobians(np.where(self.absent, 0.0, u))
            kept = max(float(np.linalg.norm(J, 2)), 1e-300) * (L @ L.T)
            if _is_singular(J + kept):
                return _NOT_ISOLATED
            lu = lu_factor(J + kept)
            step = lu_solve(lu, kept @ (self.start - u) - self._f(u))
            terms = np.abs(J) @ np.abs(u) + np.abs(kept) @ (np.abs(u) + np.abs(self.start))
            rounding = _ROUNDING * np.abs(lu_solve(lu, np.eye(self.n))) @ terms  # a state that is zero at rest is this at best
            u = u + step
            if not self._is_near(u, guess, rounding):
                return "it seems to come to rest, but Newton's method does not find the state"
            if np.all(np.abs(step) <= _CORRECTED * self._sizes(u) + rounding):
                return self._result(u, kept, L, t)
        return "Newton's method does not converge"

    def _result(self, u: np.ndarray, kept: np.ndarray, L: np.ndarray, t: float) -> Equilibrium:
        from scipy.linalg import lu_factor

        u = np.where(self.absent, 0.0, u)  # rounding may have brought them
        J, of_theta = self._jacobians(u)
        if np.any(np.abs(self._f(u, self.t0 + max(t, 1.0)) - self._f(u)) > _RESTS * np.abs(J) @ self._sizes(u)):
            raise self._failure("f depends on time")
        undefined = self.absent, np.any(self._whole_jacobians(u)[1][self.absent], axis=0)
        return Equilibrium(
            self.layouts[0].unflatten(u), L.T.copy(), t, self.layouts, lu_factor(J + kept), of_theta, kept, undefined
        )

    def _failure(self, why: str) -> SolveError:
        message = f"{self.dynamics.name} does not come to rest: {why.rstrip('.')}."
        return SolveError(message, phase="forward", status=Status(NEWTON_FAILED), t=self.t0)


def _is_singular(matrix: np.ndarray) -> bool:
    """Whether it is, whatever the units of equations and unknowns."""
    if not np.isfinite(matrix).all() or not np.abs(matrix).max(axis=1).all():
        return True
    rows = matrix / np.abs(matrix).max(axis=1)[:, None]
    return not np.abs(rows).max(axis=0).all() or not np.linalg.cond(rows / np.abs(rows).max(axis=0)) < _SINGULAR
