"""NumbaLSODA: its DOP853 on compiled right-hand sides, driven by compiled loops. The two variants are those of SciPy's file."""

from __future__ import annotations

import numpy as np

from benchmarks.cases import CASES, JACOBIANS, Gradient
from benchmarks.peers import Contender
from benchmarks.peers.scipy import from_rows, tangent_start

REQUIRES = ("numbalsoda", "numba")


def contenders() -> list[Contender]:
    return [
        Contender("numbalsoda", "adjoint, DOP853", _make_back, startup=True),
        Contender("numbalsoda", "forward sensitivities, DOP853", _make_tangent, cases=(*CASES, *JACOBIANS)),
    ]


def _address(function, size, parameters):
    """The address of `function` as NumbaLSODA calls it; theta comes through the pointer to data."""
    from numba import carray, cfunc
    from numbalsoda import lsoda_sig

    @cfunc(lsoda_sig)
    def right_hand_side(t, y, dy, data):
        function(carray(y, (size,)), carray(data, (parameters,)), carray(dy, (size,)))

    right_hand_side_kept.append(right_hand_side)  # the address is valid while the object lives
    return right_hand_side.address


right_hand_side_kept: list = []


def _make_back(case, tol):
    from numba import njit
    from numbalsoda import dop853

    from benchmarks.peers.systems import BACK, F

    n, m = case.u0.size, case.theta.size
    forward, backward = _address(F[case.system], n, m), _address(BACK[case.system], 2 * n + m, m)
    skip = 1 if case.times[0] > case.t_span[0] else 0
    stops = np.concatenate([[case.t_span[0]], case.times])
    grid = stops[1 - skip :]

    @njit
    def sweep(address, u, u_bars, theta):
        y, span = np.zeros(2 * n + m), np.zeros(2)
        for k in range(len(u) - 1, -1, -1):
            for i in range(n):
                y[i] = u[k, i]
                y[n + i] += u_bars[k, i]
            span[1] = stops[k + 1] - stops[k]
            if span[1] > 0.0:
                states, success = dop853(address, y, span, theta, tol, tol, 100_000)
                if not success:
                    y[:] = np.nan
                    break
                y = states[1]
        return y

    @njit
    def solve(address, u0, theta):
        return dop853(address, u0, grid, theta, tol, tol, 100_000)

    def value_and_gradient(u0, theta):
        states, success = solve(forward, u0, theta)
        if not success:
            raise RuntimeError("dop853 failed")
        u = states[skip:]
        value, u_bars = case.loss(u)
        y = sweep(backward, u, u_bars, theta)
        return Gradient(value, y[n : 2 * n], y[2 * n :])

    return value_and_gradient


def _make_tangent(case, tol):
    from numba import njit
    from numbalsoda import dop853

    from benchmarks.peers.systems import TANGENT

    n, m = case.u0.size, case.theta.size
    address = _address(TANGENT[case.system], n * (1 + n + m), m)
    skip = 1 if case.times[0] > case.t_span[0] else 0
    grid = np.concatenate([[case.t_span[0]], case.times])[1 - skip :]

    @njit
    def solve(address, y0, theta):
        return dop853(address, y0, grid, theta, tol, tol, 100_000)

    def value_and_gradient(u0, theta):
        y, success = solve(address, tangent_start(u0, theta), theta)
        if not success:
            raise RuntimeError("dop853 failed")
        return from_rows(case, y[skip:], n)

    return value_and_gradient
