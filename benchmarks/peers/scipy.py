"""SciPy: `solve_ivp` with DOP853 on right-hand sides compiled by Numba.

"back": (u, lam, theta_bar) is integrated back from one observation to the one before, u put back onto the forward solution at
each. "forward sensitivities": u and its derivatives in one pass, of which implicit methods get a Jacobian with a block for each
column, that of f.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.cases import CASES, JACOBIANS, STIFF_JACOBIANS, Gradient, derivatives_from_tangents
from benchmarks.peers import Contender
from benchmarks.peers.scipy_stiff import make_stiff, make_stiff_jacobian
from benchmarks.stiff_cases import STIFF_CASES

REQUIRES = ("scipy", "numba")


def contenders() -> list[Contender]:
    return [
        Contender("scipy", "adjoint, DOP853", _make_back, startup=True),
        Contender("scipy", "forward sensitivities, DOP853", _make_tangent, cases=(*CASES, *JACOBIANS)),
        Contender("scipy", "adjoint, Radau", partial(make_stiff, "Radau"), cases=STIFF_CASES, startup=True),
        Contender("scipy", "adjoint, BDF", partial(make_stiff, "BDF"), cases=STIFF_CASES),
        *(
            Contender("scipy", f"forward sensitivities, {method}", partial(make_stiff_jacobian, method), cases=STIFF_JACOBIANS)
            for method in ("Radau", "BDF")
        ),
    ]


def _solver(function, tol):
    from scipy.integrate import solve_ivp

    def solve(y0, theta, span, t_eval):
        def right_hand_side(t, y):
            dy = np.empty(y.size)
            function(y, theta, dy)
            return dy

        return solve_ivp(right_hand_side, span, y0, method="DOP853", t_eval=t_eval, rtol=tol, atol=tol).y.T

    return solve


def _make_back(case, tol):
    from benchmarks.peers.systems import BACK, F

    forward, backward = _solver(F[case.system], tol), _solver(BACK[case.system], tol)
    stops = np.concatenate([[case.t_span[0]], case.times])

    def value_and_gradient(u0, theta):
        n = u0.size
        u = forward(u0, theta, case.t_span, case.times)
        value, u_bars = case.loss(u)
        y = np.zeros(2 * n + theta.size)
        for k in range(len(u) - 1, -1, -1):
            y[:n] = u[k]
            y[n : 2 * n] += u_bars[k]
            length = stops[k + 1] - stops[k]
            if length > 0.0:
                y = backward(y, theta, (0.0, length), (length,))[-1].copy()
        return Gradient(value, y[n : 2 * n], y[2 * n :])

    return value_and_gradient


def tangent_start(u0, theta):
    n, m = u0.size, theta.size
    return np.concatenate([u0, np.eye(n, n + m).ravel()])


def from_rows(case, y, n):
    """The gradient or Jacobian from rows (u, du/du0, du/dtheta) at the observation times."""
    return derivatives_from_tangents(case, y[:, :n], y[:, n:].reshape(len(y), n, -1))


def _make_tangent(case, tol):
    from benchmarks.peers.systems import TANGENT

    forward = _solver(TANGENT[case.system], tol)

    def value_and_gradient(u0, theta):
        y = forward(tangent_start(u0, theta), theta, case.t_span, case.times)
        return from_rows(case, y, u0.size)

    return value_and_gradient
