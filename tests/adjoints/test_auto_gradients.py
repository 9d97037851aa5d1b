"""Gradients by method="auto": references, closed forms, identities; the transpose of the steps across the switches."""

import itertools

import numpy as np
import pytest
from scipy.linalg import expm

from adjode import Dynamics, solve, value_and_gradient
from adjode.loops.quadrature import LOBATTO, LOBATTO_NODES
from adjode.losses import FinalState
from adjode.passes import base
from adjode.tableaus import tableau
from benchmarks.stiff_problems import STIFF_PROBLEMS
from tests.problems.methods import AUTO_ADJOINTS
from tests.problems.numerics import complex_step, jacobian, slope
from tests.problems.stiff_systems import (
    CYCLE,
    CYCLE_THETA,
    CYCLE_U0,
    REFLECTED_RATES,
    REFLECTED_U0,
    cycle,
    prothero,
    pushed_van_der_pol,
    reflected,
    reflected_solution,
    van_der_pol,
    van_der_pol_f,
    van_der_pol_vjp,
)
from tests.problems.systems import DECAY, cost_g, cost_g_vjp


@pytest.mark.parametrize("adjoint", AUTO_ADJOINTS)
@pytest.mark.parametrize("name", ["rober", "hires", "orego", "van_der_pol_1e+00", "van_der_pol_1e+06", "linear"])
def test_gradients_of_references(name, adjoint):
    problem, errors = STIFF_PROBLEMS[name](), []
    for tol in (1e-5, 1e-7):
        value, bar = problem.value_and_gradient(rtol=tol, atol=1e-5 * tol, method="auto", adjoint=adjoint)()
        assert value == pytest.approx(problem.reference["loss"][0], rel=max(1e3 * tol, 1e-9))
        errors.append(problem.gradient_error(bar))
    assert errors[1] < 5e-6 and errors[1] < 0.2 * errors[0]


@pytest.mark.parametrize("name", ["rober", "hires", "van_der_pol_1e+06", "linear"])
def test_discrete_gradients_at_loose_tolerances(name):
    """What the steps at the limit of stability, before the first switch, leave of what has decayed is little."""
    problem = STIFF_PROBLEMS[name]()
    for tol in (1e-3, 1e-4, 1e-5, 1e-6):
        bar = problem.value_and_gradient(rtol=tol, atol=1e-5 * tol, method="auto")()[1]
        assert problem.gradient_error(bar) < 3 * tol


@pytest.mark.parametrize("adjoint", AUTO_ADJOINTS)
def test_linear_system_with_rates_to_1e8(adjoint):
    w, T = np.array([1.0, -0.5, 0.3, 2.0]), 2.0
    exact = complex_step(lambda u0, theta: (reflected_solution(u0, theta, T) * w).sum(), [REFLECTED_U0, REFLECTED_RATES])
    for tol in (1e-4, 1e-6, 1e-8):
        solution = solve(reflected(), REFLECTED_U0, REFLECTED_RATES, (0.0, T), method="auto", rtol=tol, atol=1e-3 * tol)
        bar = solution.pullback(w, adjoint=adjoint)
        for got, wanted in zip((bar.u0, bar.theta), exact, strict=True):
            assert np.max(np.abs(got - wanted)) < 100 * tol * np.max(np.abs(wanted))


@pytest.mark.parametrize("adjoint", AUTO_ADJOINTS)
@pytest.mark.parametrize("span", [DECAY.t_span, DECAY.t_span[::-1]], ids=["forwards", "backwards"])
def test_all_four_cotangents_in_closed_form(adjoint, span):
    solution = solve(DECAY.dynamics, DECAY.u0, DECAY.theta, span, method="auto", rtol=1e-8, atol=1e-8)
    bar = solution.pullback(np.ones(7), adjoint=adjoint)
    for got, wanted in zip((bar.u0, bar.theta, bar.t0, bar.T), DECAY.cotangents(np.ones(7), span), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=3e-6)


@pytest.mark.parametrize("adjoint", AUTO_ADJOINTS)
def test_four_cotangents_of_a_stiff_problem_backwards_in_time(adjoint):
    """Prothero and Robinson's problem with a negative rate decays towards sin(theta_1 t + 1) as time runs back."""
    theta, (t0, T), tol = np.array([-1e4, 1.0]), (4.0, 0.0), 1e-7
    solution = solve(prothero(), [np.sin(5.0) + 1.0], theta, (t0, T), method="auto", rtol=tol, atol=1e-3 * tol)
    assert solution.stiff[-1] and solution.u_T[0] == pytest.approx(np.sin(1.0), rel=10 * tol)
    bar = solution.pullback([1.0], adjoint=adjoint)
    assert abs(bar.u0[0]) < tol and abs(bar.t0) < 1e-4 and bar.theta[1] == pytest.approx(0.0, abs=100 * tol)
    assert bar.T == pytest.approx(np.cos(1.0), rel=1e-2)  # by f, where what is left of the error is multiplied by the rate
    early = solution.pullback(observations=([2.0], [[1.0]]), adjoint=adjoint)
    assert early.theta[1] == pytest.approx(2.0 * np.cos(3.0), rel=1e4 * tol)


def pushed_cycle(T):
    return pushed_van_der_pol(tuple(CYCLE_U0), CYCLE_THETA[0], T)


@pytest.mark.parametrize("adjoint", AUTO_ADJOINTS)
def test_dot_product_identity_across_the_switches(adjoint):
    solution, u_T_bar = cycle(1e-7, 1e-10), np.array([1.0, 5.0])
    assert solution.stats.n_switch >= 3
    bar, pushed = solution.pullback(u_T_bar, adjoint=adjoint), u_T_bar @ pushed_cycle(CYCLE[1])
    np.testing.assert_allclose([*bar.u0, *bar.theta], pushed, rtol=1e-3, atol=1e-4 * np.abs(pushed).max())


# --- the discrete adjoint is the transpose of the steps, of whichever method ----------------------------------------------------
def replay(f, vjp, solution, u, theta, times, g=None):
    """The same steps again in NumPy, for complex numbers: u(T), u at `times`, and the running cost."""
    mesh, sign, cost = solution.t, np.sign(solution.t[-1] - solution.t[0]), 0.0
    u = np.asarray(u, dtype=complex)
    seen, n = np.tile(u, (len(times), 1)), u.size
    for step, (t, end) in enumerate(itertools.pairwise(mesh)):
        h, method = end - t, tableau("auto")
        if solution.stiff[step]:
            method = method.partner
            Y = solution.stages[step, 1:4].astype(complex)
            for _ in range(4):
                F = np.array([slope(f, t + c * h, y, theta) for c, y in zip(method.c[1:], Y, strict=True)])
                J = [jacobian(vjp, t + c * h, y, theta) for c, y in zip(method.c[1:], Y, strict=True)]
                blocks = [[(i == j) * np.eye(n) - h * method.A[i + 1, j + 1] * J[j] for j in range(3)] for i in range(3)]
                Y = Y - np.linalg.solve(np.block(blocks), (Y - u - h * method.A[1:, 1:] @ F).ravel()).reshape(3, n)
            K, new = np.vstack([0.0 * u, F]), Y[-1]
        else:
            K = np.zeros((7, n), dtype=complex)
            for i, c in enumerate(method.c):
                new = u + h * method.A[i, :i] @ K[:i]
                K[i] = slope(f, t + c * h, new, theta)

        def at(x, h=h, K=K, u=u, P=method.P):
            return u + h * (x ** np.arange(1, P.shape[1] + 1) @ P.T @ K)

        for k, time in enumerate(times):
            if sign * t < sign * time <= sign * end:
                seen[k] = new if time == end else at((time - t) / h)
        if g is not None:
            states = [u, *(at(x) for x in LOBATTO_NODES), new]
            costs = [g(t + x * h, s, theta) for x, s in zip((0.0, *LOBATTO_NODES, 1.0), states, strict=True)]
            cost = cost + h * sum(w * value for w, value in zip(LOBATTO, costs, strict=True))
        u = new
    return u, seen, cost


@pytest.mark.parametrize("cost", [False, True], ids=["", "cost"])
@pytest.mark.parametrize("span", [(0.0, 90.0), (0.0, -1.6)], ids=["forwards", "backwards"])
@pytest.mark.filterwarnings(
    "ignore:the adjoint solve .* the gradient may be off:RuntimeWarning"
)  # of the steps it is the transpose all the same
def test_transpose_of_the_steps_to_rounding(span, cost, monkeypatch):
    """With Newton's iteration carried to rounding; observations in both kinds of steps, many in one."""
    monkeypatch.setattr(base, "newton_tolerance", lambda rtol: 1e-9)
    theta = CYCLE_THETA if span[1] > 0 else -CYCLE_THETA
    rng = np.random.default_rng(0)
    solution = solve(van_der_pol(), CYCLE_U0, theta, span, method="auto", rtol=1e-4, atol=1e-6)
    assert solution.stats.n_switch >= (3 if span[1] > 0 else 1)
    starts, widths = solution.t[:-1], np.diff(solution.t)
    explicit, stiff = (np.flatnonzero(solution.stiff == kind) for kind in (False, True))
    chosen = np.concatenate([rng.choice(explicit, 4), rng.choice(stiff, 4), np.full(3, stiff[0])])
    inside = starts[chosen] + widths[chosen] * rng.uniform(0.1, 0.9, chosen.size)
    times = np.concatenate([inside, [span[0], span[1], span[1], solution.t[stiff[0]], solution.t[explicit[-1]]]])
    u_bars, u_T_bar = rng.normal(size=(times.size, 2)), rng.normal(size=2)
    g = cost_g if cost else None

    def loss(u, theta):
        u_T, seen, total = replay(van_der_pol_f, van_der_pol_vjp, solution, u, theta, times, g)
        return (u_T * u_T_bar).sum() + (np.where(times[:, None] == span[0], u, seen) * u_bars).sum() + total

    exact = complex_step(loss, [CYCLE_U0, theta])
    running = {"running_cost": (cost_g, cost_g_vjp)} if cost else {}
    bar = solution.pullback(u_T_bar, observations=(times, u_bars), adjoint="discrete", on_inaccurate="warn", **running)
    for got, wanted in zip((bar.u0, bar.theta), exact, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-8 * np.abs(wanted).max())


def test_lam_along_the_trajectory():
    """lam . du/du0 does not change from stop to stop, whichever method has found lam there."""
    solution = cycle(1e-7, 1e-10)
    bar = solution.pullback([1.0, 5.0], dense_adjoint=True)
    for t in (30.0, 75.0, 120.0):
        np.testing.assert_allclose(bar.adjoint(t) @ pushed_cycle(t)[:, 1], bar.u0[1], rtol=1e-3, atol=1e-4 * np.abs(bar.u0).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rober", "hires", "orego"])
def test_draws_over_two_decades(name):
    """Every draw gives gradients by both adjoints that agree with a tight one by Radau."""
    problem, rng = STIFF_PROBLEMS[name](), np.random.default_rng(0)

    def prepared(tol, **options):
        options |= {"rtol": tol, "atol": 1e-5 * tol, "max_steps": 20000}
        return value_and_gradient(problem.dynamics, problem.loss, problem.t_span, **options)

    tight, loose = prepared(1e-8, method="Radau"), [prepared(1e-6, method="auto", adjoint=adjoint) for adjoint in AUTO_ADJOINTS]
    for _ in range(100):
        theta = problem.theta * 10.0 ** rng.uniform(-1.0, 1.0, problem.theta.size)
        exact_value, exact = tight(problem.u0, theta)
        scale = np.abs(exact.theta * theta).max() + 1e-12 * abs(exact_value)
        for evaluate in loose:
            value, bar = evaluate(problem.u0, theta)
            assert value == pytest.approx(exact_value, rel=1e-4)
            np.testing.assert_allclose(bar.theta * theta, exact.theta * theta, rtol=0, atol=2e-4 * scale)


def switched_off_f(t, u, theta, du):
    """A fast signal that its input, which is zero, would drive; one that follows a slow state; and that."""
    du[0] = theta[1] * (theta[0] - u[0])
    du[1] = -theta[2] * (u[1] - u[2])
    du[2] = -theta[3] * u[2] + u[0]


SWITCHED_OFF = Dynamics(switched_off_f)


@pytest.mark.parametrize("fast", [1e3, 1e5])
@pytest.mark.parametrize("rtol", [1e-6, 1e-8])
def test_what_is_stiff_and_at_rest_does_not_take_explicit_steps(fast, rtol):
    """No step of the solve sees the signal. In lam explicit steps would amplify it, or have to be far too many."""
    theta, T, u_T_bar = [0.0, fast, 10.0, 0.3], 20.0, np.array([1.0, 0.5, 1.0])
    evaluate = value_and_gradient(SWITCHED_OFF, FinalState(u_T_bar), (0.0, T), method="auto", rtol=rtol, atol=1e-4 * rtol)
    _, bar = evaluate([0.0, 0.0, 1.0], theta)
    J = np.array([[-fast, 0.0, 0.0, fast], [0.0, -10.0, 10.0, 0.0], [1.0, 0.0, -0.3, 0.0], [0.0, 0.0, 0.0, 0.0]])
    exact = u_T_bar @ expm(T * J)[:3, 3]
    assert abs(bar.theta[0] / exact - 1.0) < rtol
    assert bar.stats.n_refined <= 4 and bar.stats.n_steps < 5000
