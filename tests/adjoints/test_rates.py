"""Cotangents of times where the problem is stiff: f alone would multiply the error of the state by the stiffness."""

import numpy as np
import pytest

from adjode import Dynamics, solve
from tests.problems.systems import GROWTH

FAST = 1e6
METHODS = ["Radau", "Kvaerno5", "TRBDF2", "Rodas5P", "auto"]


def relax(t, u, theta, du):
    """u = (cos t, sin 2 t), to which it returns within 1 / FAST, along directions that are not those of the entries."""
    x, y = np.cos(t), np.sin(2.0 * t)
    a, b = u[0] ** 3 - x**3, u[1] - y
    du[0] = -np.sin(t) - theta[0] * (a + 0.3 * b)
    du[1] = 2.0 * np.cos(2.0 * t) - theta[0] * 0.5 * (0.2 * a + b) - (u[1] - y)


def relax_vjp(t, u, theta, lam, u_bar, theta_bar):
    x, y = np.cos(t), np.sin(2.0 * t)
    a, b, a_u = u[0] ** 3 - x**3, u[1] - y, 3.0 * u[0] ** 2
    u_bar[0] = -theta[0] * a_u * (lam[0] + 0.1 * lam[1])
    u_bar[1] = -theta[0] * (0.3 * lam[0] + 0.5 * lam[1]) - lam[1]
    theta_bar[0] = -(a + 0.3 * b) * lam[0] - 0.5 * (0.2 * a + b) * lam[1]


RELAX = Dynamics(relax, relax_vjp)
TIMES = np.array([0.31, 0.0, 1.1, 0.9, 0.55])


def slopes(t):
    return np.stack([-np.sin(t), 2.0 * np.cos(2.0 * t)], axis=-1)


@pytest.mark.parametrize("span", [(0.0, 1.1), (0.0, -1.1)], ids=["forwards", "backwards"])
@pytest.mark.parametrize("method", METHODS)
def test_stiff(method, span):
    rng, rtol, sign = np.random.default_rng(0), 1e-6, np.sign(span[1])
    u_T_bar, u_bars = rng.normal(size=2), rng.normal(size=(TIMES.size, 2))
    solution = solve(RELAX, [1.0, 0.0], [sign * FAST], span, method=method, rtol=rtol, atol=rtol)
    bar = solution.pullback(u_T_bar, observations=(sign * TIMES, u_bars), wrt=("T", "observation_times"))
    exact = np.einsum("kn,kn->k", u_bars, slopes(sign * TIMES))
    np.testing.assert_allclose(bar.observation_times, exact, rtol=0, atol=50 * rtol * np.abs(u_bars).max())
    assert bar.T == pytest.approx(u_T_bar @ slopes(span[1]), abs=50 * rtol)


@pytest.mark.parametrize("method", ["Radau", "Kvaerno5", "TRBDF2", "Rodas5P"])
def test_growth_by_some_e_in_a_step(method):
    """Whatever the steps, of which none brings the system for the slope near a singular one."""
    for rtol in (1e-3, 1e-6):
        for T in np.linspace(0.5, 4.0, 30):
            solution = solve(GROWTH, [1.0], [1.0], (0.0, T), method=method, rtol=rtol, atol=1e-12)
            assert solution.pullback([1.0], wrt=("T",)).T == pytest.approx(solution.u_T[0], rel=10.0 * rtol)


def test_with_a_budget_of_memory_and_from_step_to_step():
    options = {"method": "Radau", "rtol": 1e-6, "atol": 1e-6}
    whole, short = (solve(RELAX, [1.0, 0.0], [FAST], (0.0, 20.0), **options, **memory) for memory in ({}, {"memory": 10_000}))
    assert short.segments is not None
    times = np.concatenate([np.linspace(0.0, 20.0, 40), whole.t[::7]])
    seeds = {"observations": (times, np.ones((times.size, 2))), "wrt": ("T", "observation_times")}
    got, wanted = short.pullback([1.0, 2.0], **seeds), whole.pullback([1.0, 2.0], **seeds)
    np.testing.assert_array_equal(got.observation_times, wanted.observation_times)
    assert got.T == wanted.T


def test_with_a_mass_matrix():
    mass = np.array([[2.0, 1.0], [0.0, 4.0]])

    def f(t, u, theta, out):
        x, y = np.cos(t), np.sin(2.0 * t)
        out[0] = -2.0 * np.sin(t) + 2.0 * np.cos(2.0 * t) - theta[0] * (u[0] ** 3 - x**3)
        out[1] = 8.0 * np.cos(2.0 * t) - theta[0] * (u[1] - y)

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0], u_bar[1] = -3.0 * theta[0] * u[0] ** 2 * lam[0], -theta[0] * lam[1]
        theta_bar[0] = -(u[0] ** 3 - np.cos(t) ** 3) * lam[0] - (u[1] - np.sin(2.0 * t)) * lam[1]

    solution = solve(Dynamics(f, vjp, mass=mass), [1.0, 0.0], [FAST], (0.0, 1.1), method="Radau", rtol=1e-6, atol=1e-6)
    seeds = {"observations": (TIMES, np.tile([0.5, -2.0], (TIMES.size, 1))), "wrt": ("T", "observation_times")}
    bar = solution.pullback([1.0, 3.0], adjoint="discrete", **seeds)
    np.testing.assert_allclose(bar.observation_times, slopes(TIMES) @ [0.5, -2.0], atol=5e-5)
    assert bar.T == pytest.approx(slopes(1.1) @ [1.0, 3.0], abs=5e-5)


def test_work():
    """Three f, one Jacobian and one factorisation for each time; at t0 u is known, and one f is enough."""
    solution = solve(RELAX, [1.0, 0.0], [FAST], (0.0, 1.1), method="Radau")
    times = np.array([0.0, 0.4, 0.7, solution.t[3]])
    stats = solution.pullback([1.0, 1.0], observations=(times, np.ones((4, 2))), wrt=("T", "observation_times")).stats
    assert (stats.n_f, stats.n_jac, stats.n_lu) == (13, 4, 4)
