"""The derived vjp of each program against extrapolated differences, as plain Python and compiled."""

import inspect

import numba
import numpy as np
import pytest

from adjode import derive
from tests.problems.programs import PROGRAMS

N = 4


def value(f, x):
    u, theta = x[:N].copy(), x[N:].copy()
    if len(inspect.signature(f).parameters) == 3:
        return f(0.4, u, theta)
    du = np.empty(N)
    f(0.4, u, theta, du)
    return du


def differences(f, x, direction):
    """Of order 8, and their error."""
    steps = 1e-2 / 2.0 ** np.arange(4)
    rows = [np.array([(value(f, x + h * direction) - value(f, x - h * direction)) / (2.0 * h) for h in steps])]
    for k in range(1, 4):
        rows.append(rows[-1][1:] + (rows[-1][1:] - rows[-1][:-1]) / (4.0**k - 1.0))
    return rows[-1][0], np.abs(rows[-1][0] - rows[-2][1]).max()


@pytest.mark.parametrize("name", PROGRAMS)
def test_vjp_agrees_with_differences(name):
    f = PROGRAMS[name]
    derived = derive(f)
    rng = np.random.default_rng(1)
    for _ in range(3):
        x, lam, direction = rng.uniform(0.7, 1.4, 2 * N), rng.normal(size=N), rng.normal(size=2 * N)
        slope, error = differences(f, x, direction)
        bars = np.full(2 * N, np.nan)
        derived.vjp(0.4, x[:N], x[N:], lam, bars[:N], bars[N:])
        expected = lam @ slope
        scale = 1.0 + np.abs(bars * direction).sum()
        if error < 1e-6 * scale:  # no kink in between
            assert bars @ direction == pytest.approx(expected, abs=1e-8 * scale + 10.0 * error)
        alone = np.full(N, np.nan)
        derived.vjp_u(0.4, x[:N], x[N:], lam, alone)
        np.testing.assert_allclose(alone, bars[:N], rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.jitted
@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_compiled_vjp_is_the_plain_one(name):
    derived = derive(PROGRAMS[name])
    rng = np.random.default_rng(2)
    x, lam = rng.uniform(0.7, 1.4, 2 * N), rng.normal(size=N)
    plain, compiled = np.full(2 * N, np.nan), np.full(2 * N, np.nan)
    derived.vjp(0.4, x[:N], x[N:], lam, plain[:N], plain[N:])
    numba.njit(error_model="numpy")(derived.vjp)(0.4, x[:N], x[N:], lam, compiled[:N], compiled[N:])
    np.testing.assert_allclose(compiled, plain, rtol=1e-12, atol=1e-12)
