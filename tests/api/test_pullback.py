"""The pullback: every cotangent against closed forms, the dot-product identity, and what each subset costs."""

import functools

import numpy as np
import pytest

from adjode import Dynamics, solve
from tests.problems.systems import (
    CLOSED_FORMS,
    DECAY,
    LOGISTIC,
    LV_SPAN,
    LV_THETA,
    LV_U0,
    OSCILLATOR,
    ROTATION,
    cost_g,
    cost_g_vjp,
    lotka_volterra,
)

ADAPTIVE = ["Tsit5", "RK45", "DOP853", "Vern7", "Vern9", "BS3"]
RULES = [("gauss", "all"), ("augmented", "all"), ("augmented", "lam")]
STRATEGIES = [(adjoint, *rule) for adjoint in ("interpolating", "backsolve") for rule in RULES]


def strategy_id(strategy):
    return "-".join(strategy)


def assert_cotangents(bar, exact, tol):
    """Each block within `tol` of the largest entry of the exact block (or of 1e-3 of all, for blocks that vanish)."""
    floor = 1e-3 * max(np.max(np.abs(e), initial=0.0) for e in exact)
    for name, value, wanted in zip(("u0", "theta", "t0", "T"), (bar.u0, bar.theta, bar.t0, bar.T), exact, strict=True):
        scale = max(np.max(np.abs(wanted), initial=0.0), floor)
        assert np.max(np.abs(np.asarray(value) - wanted), initial=0.0) <= tol * scale, name


@pytest.mark.parametrize("direction", ["forwards", "backwards"])
@pytest.mark.parametrize("strategy", STRATEGIES, ids=strategy_id)
@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("problem", CLOSED_FORMS, ids=lambda p: p.name)
def test_closed_forms(problem, method, strategy, direction):
    adjoint, quadrature, error_norm = strategy
    span = problem.t_span if direction == "forwards" else problem.t_span[::-1]
    tol = 1e-6 if method == "BS3" else 1e-8
    solution = solve(problem.dynamics, problem.u0, problem.theta, span, method=method, rtol=tol, atol=tol)
    u_T_bar = np.linspace(1.0, -0.7, problem.u0.size)
    bar = solution.pullback(u_T_bar, adjoint=adjoint, quadrature=quadrature, error_norm=error_norm)
    assert_cotangents(bar, problem.cotangents(u_T_bar, span), (300 if method == "BS3" else 60) * tol)  # many small steps add up


@pytest.mark.parametrize("method", ["Tsit5", "DOP853", "Vern7", "Vern9", "RK4", "Midpoint", "Euler"])
@pytest.mark.parametrize("quadrature", ["gauss", "augmented"])
def test_fixed_steps_converge(method, quadrature):
    order = {"Tsit5": 5, "DOP853": 8, "Vern7": 7, "Vern9": 9, "RK4": 4, "Midpoint": 2, "Euler": 1}[method]
    exact = OSCILLATOR.cotangents(np.array([1.0, 0.0]))
    errors = []
    for n in (12, 24) if order > 5 else (40, 80):
        span = OSCILLATOR.t_span
        solution = solve(OSCILLATOR.dynamics, OSCILLATOR.u0, OSCILLATOR.theta, span, method=method, step=3.5 / n)
        bar = solution.pullback([1.0, 0.0], quadrature=quadrature)
        assert bar.stats.n_steps == n
        errors.append([np.abs(bar.u0 - exact[0]).max(), np.abs(bar.theta - exact[1]).max()])
    rates = np.log2(np.array(errors[0]) / np.array(errors[1]))
    assert (rates > order - 0.5).all()


def _linear_f(t, u, theta, du):  # theta is the matrix, row by row
    n = u.size
    for i in range(n):
        du[i] = 0.0
        for j in range(n):
            du[i] += theta[i * n + j] * u[j]


def _linear_vjp(t, u, theta, lam, u_bar, theta_bar):
    n = u.size
    u_bar[:] = 0.0
    for i in range(n):
        for j in range(n):
            u_bar[j] += theta[i * n + j] * lam[i]
            theta_bar[i * n + j] = lam[i] * u[j]


@pytest.mark.parametrize("adjoint", ["interpolating", "backsolve", "discrete"])
@pytest.mark.parametrize("span", [(0.0, 1.5), (1.5, 0.0)], ids=["forwards", "backwards"])
def test_linear_system_with_its_matrix_as_parameters(span, adjoint):
    """u(T) = exp(A s) u0; the cotangent of A is the derivative of the exponential (Van Loan 1978), transposed."""
    from scipy.linalg import expm

    rng = np.random.default_rng(2)
    n, s = 4, span[1] - span[0]
    A, u0, u_T_bar = rng.normal(size=(n, n)) * 0.7, rng.normal(size=n), rng.normal(size=n)
    solution = solve(Dynamics(_linear_f, _linear_vjp), u0, A.ravel(), span, rtol=1e-10, atol=1e-10)
    bar = solution.pullback(u_T_bar, adjoint=adjoint)
    exact_u0 = expm(A.T * s) @ u_T_bar
    blocks = expm(np.block([[A.T, np.outer(u_T_bar, u0)], [np.zeros((n, n)), A.T]]) * s)
    np.testing.assert_allclose(solution.u_T, expm(A * s) @ u0, rtol=1e-8)
    np.testing.assert_allclose(bar.u0, exact_u0, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(bar.theta.reshape(n, n), blocks[:n, n:], rtol=1e-7, atol=1e-8)
    assert bar.T == pytest.approx(u_T_bar @ A @ solution.u_T, rel=1e-8)
    assert bar.t0 == pytest.approx(-exact_u0 @ A @ u0, rel=1e-7)


@pytest.mark.parametrize("n", [0, 1, 5, 6, 100, 700])
@pytest.mark.parametrize("adjoint", ["interpolating", "backsolve", "discrete"])
def test_any_number_of_states_and_parameters(adjoint, n):
    u0, theta = np.linspace(1, 2, n), np.linspace(0.1, 1, n)
    solution = solve(DECAY.dynamics, u0, theta, (0.0, 1.0), rtol=1e-8, atol=1e-8)
    bar = solution.pullback(np.ones(n), adjoint=adjoint)
    np.testing.assert_allclose(bar.u0, np.exp(-theta), rtol=1e-6)
    np.testing.assert_allclose(bar.theta, -u0 * np.exp(-theta), rtol=1e-6)


# --- observations ---------------------------------------------------------------------------------------------------------
def _sum_of_exact(problem, times, u_bars, span):
    """Exact u0_bar and theta_bar of a sum over observations."""
    u0_bar, theta_bar, t0_bar = np.zeros(problem.u0.size), np.zeros(problem.theta.size), 0.0
    for t, u_bar in zip(times, u_bars, strict=True):
        parts = problem.cotangents(u_bar, (span[0], t))
        u0_bar, theta_bar = u0_bar + parts[0], theta_bar + parts[1]
        t0_bar += parts[2] if t != span[0] else 0.0
    return u0_bar, theta_bar, t0_bar


@pytest.mark.parametrize("adjoint", ["interpolating", "backsolve"])
@pytest.mark.parametrize("direction", ["forwards", "backwards"])
def test_observations_unsorted_repeated_and_at_the_ends(adjoint, direction):
    problem = OSCILLATOR
    span = problem.t_span if direction == "forwards" else problem.t_span[::-1]
    low, high = problem.t_span
    times = np.array([2.0, high, low, 1.1, 2.0, low, 3.3, high, 2.0 + 1e-9])
    u_bars = np.random.default_rng(1).normal(size=(9, 2))
    solution = solve(problem.dynamics, problem.u0, problem.theta, span, rtol=1e-10, atol=1e-10)
    bar = solution.pullback(observations=(times, u_bars), adjoint=adjoint, wrt=("u0", "theta", "t0", "T", "observation_times"))
    u0_bar, theta_bar, t0_bar = _sum_of_exact(problem, times, u_bars, span)
    np.testing.assert_allclose(bar.u0, u0_bar, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(bar.theta, theta_bar, rtol=1e-7, atol=1e-8)
    assert bar.t0 == pytest.approx(t0_bar, rel=1e-7)
    assert bar.T == 0.0  # observation times do not move with T
    exact_times = [problem.cotangents(u_bar, (span[0], t))[3] for t, u_bar in zip(times, u_bars, strict=True)]
    np.testing.assert_allclose(bar.observation_times, exact_times, rtol=1e-6, atol=1e-8)


def test_no_observations_and_no_cotangent():
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN)
    for options in ({}, {"observations": ([], [])}, {"observations": ([], np.zeros((0, 2)))}, {"u_T_bar": [0.0, 0.0]}):
        bar = solution.pullback(**options, wrt=("u0", "theta", "t0", "T", "observation_times"))
        assert not bar.u0.any() and not bar.theta.any() and bar.t0 == 0.0 and bar.T == 0.0
        assert bar.observation_times.size == 0
        assert bar.stats.n_vjp == 0


def test_an_observation_at_t0_alone_needs_no_sweep():
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN)
    bar = solution.pullback(observations=([0.0], [[2.0, 3.0]]))
    np.testing.assert_array_equal(bar.u0, [2.0, 3.0])
    assert not bar.theta.any() and bar.t0 == 0.0 and bar.stats.n_vjp == 0


def test_one_observation_inside_equals_a_shorter_solve():
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN, rtol=1e-9, atol=1e-9)
    shorter = solve(lotka_volterra(), LV_U0, LV_THETA, (0.0, 4.0), rtol=1e-9, atol=1e-9)
    bar, wanted = solution.pullback(observations=([4.0], [[1.0, 1.0]])), shorter.pullback([1.0, 1.0])
    np.testing.assert_allclose(bar.u0, wanted.u0, rtol=1e-7)
    np.testing.assert_allclose(bar.theta, wanted.theta, rtol=1e-7)
    assert bar.stats.n_steps < 1.1 * wanted.stats.n_steps  # nothing is integrated where lam is zero


def test_u_T_bar_and_an_observation_at_T_add_up():
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN)
    both = solution.pullback([1.0, 0.0], observations=([10.0], [[0.0, 1.0]]))
    wanted = solution.pullback([1.0, 1.0])
    np.testing.assert_allclose(both.u0, wanted.u0, rtol=1e-12)
    assert both.T == pytest.approx(solution.pullback([1.0, 0.0], wrt="T").T)


def test_many_observations():
    k = 100_000
    solution = solve(ROTATION.dynamics, ROTATION.u0, [], (0.0, 5.0), rtol=1e-9, atol=1e-9)
    times = np.linspace(0.0, 5.0, k)
    bar = solution.pullback(observations=(times, np.tile([1.0 / k, 0.0], (k, 1))), max_steps=10 * k)
    c, s = np.cos(times).mean(), np.sin(times).mean()
    np.testing.assert_allclose(bar.u0, [c, s], atol=1e-8)
    assert bar.stats.n_steps < 1.01 * k


def test_empty_span():
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, (2.0, 2.0))
    bar = solution.pullback([1.0, 2.0], observations=([2.0], [[0.5, 0.0]]))
    np.testing.assert_array_equal(bar.u0, [1.5, 2.0])
    assert not bar.theta.any()
    rate = 1.0 * (1.5 - 1.0) + 2.0 * (-3.0 + 1.0)
    assert bar.T == pytest.approx(rate)


# --- running costs ----------------------------------------------------------------------------------------------------------
def _g_vjp_returning(t, u, theta):
    u_bar, theta_bar = np.zeros(u.size), np.zeros(theta.size)
    u_bar[0] = 2.0 * t * theta[0] * u[0]
    theta_bar[0] = t * u[0] ** 2
    return u_bar, theta_bar


def _cost(u0, theta, t0, T):
    """The integral of t theta_0 u_0^2 along DECAY."""
    k = 2.0 * theta[0]

    def antiderivative(t):
        return -np.exp(-k * (t - t0)) * (t / k + 1.0 / k**2)

    return theta[0] * u0[0] ** 2 * (antiderivative(T) - antiderivative(t0))


@pytest.mark.parametrize("direction", ["forwards", "backwards"])
@pytest.mark.parametrize("strategy", STRATEGIES, ids=strategy_id)
@pytest.mark.parametrize("with_final", [False, True])
def test_running_cost(strategy, direction, with_final):
    adjoint, quadrature, error_norm = strategy
    span = DECAY.t_span if direction == "forwards" else DECAY.t_span[::-1]
    solution = solve(DECAY.dynamics, DECAY.u0, DECAY.theta, span, rtol=1e-9, atol=1e-9)
    u_T_bar = np.linspace(1, 2, 7) if with_final else np.zeros(7)

    def loss(u0, theta, t0, T):
        return np.dot(u_T_bar, DECAY.final(u0, theta, t0, T)) + _cost(u0, theta, t0, T)

    exact = DECAY.cotangents(np.ones(1), span, final=loss)
    for g_vjp in (cost_g_vjp, _g_vjp_returning):
        bar = solution.pullback(
            u_T_bar, running_cost=(cost_g, g_vjp), adjoint=adjoint, quadrature=quadrature, error_norm=error_norm
        )
        assert_cotangents(bar, exact, 1e-7)
        assert bar.running_cost == pytest.approx(_cost(DECAY.u0, DECAY.theta, *span), rel=1e-8)


def test_running_cost_value_alone_needs_no_vjp():
    solution = solve(DECAY.dynamics, DECAY.u0, DECAY.theta, DECAY.t_span, rtol=1e-9, atol=1e-9)
    bar = solution.pullback(running_cost=(cost_g, cost_g_vjp), wrt=("T",))
    assert bar.running_cost == pytest.approx(_cost(DECAY.u0, DECAY.theta, *DECAY.t_span), rel=1e-8)
    assert bar.T == pytest.approx(1.0 * DECAY.theta[0] * solution.u_T[0] ** 2)
    assert bar.stats.n_vjp == 0 and bar.stats.n_vjp_u == 0


# --- identities -------------------------------------------------------------------------------------------------------------
def _tangent_f(t, y, p, dy):  # Lotka-Volterra with its tangent; p = (theta, dtheta)
    u, v = y[0], y[1]
    du, dv = y[2], y[3]
    dy[0] = p[0] * u - p[1] * u * v
    dy[1] = -p[2] * v + p[3] * u * v
    dy[2] = (p[0] - p[1] * v) * du - p[1] * u * dv + p[4] * u - p[5] * u * v
    dy[3] = p[3] * v * du + (p[3] * u - p[2]) * dv - p[6] * v + p[7] * u * v


def _unused_vjp(t, y, p, lam, y_bar, p_bar):
    y_bar[:] = 0.0
    p_bar[:] = 0.0


@functools.cache
def _tangent():
    return Dynamics(_tangent_f, _unused_vjp)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=strategy_id)
@pytest.mark.parametrize("method", ["Tsit5", "RK45", "DOP853", "Vern7", "Vern9", "BS3", "RK4", "Midpoint", "Euler"])
def test_dot_product_identity(method, strategy):
    """u_T_bar . du(T) = u0_bar . du0 + theta_bar . dtheta, to the solver's tolerance, without any reference."""
    rng = np.random.default_rng(3)
    du0, dtheta, u_T_bar = rng.normal(size=2), rng.normal(size=4), rng.normal(size=2)
    tol = 1e-6 if method == "BS3" else 1e-9
    steps = {"RK4": {"step": 2e-3}, "Midpoint": {"step": 2e-4}, "Euler": {"step": 5e-5}}.get(method, {})
    control = steps or {"rtol": tol, "atol": tol}
    adjoint, quadrature, error_norm = strategy
    y = solve(_tangent(), np.r_[LV_U0, du0], np.r_[LV_THETA, dtheta], (0.0, 4.0), method=method, **control).u_T
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, (0.0, 4.0), method=method, **control)
    bar = solution.pullback(u_T_bar, adjoint=adjoint, quadrature=quadrature, error_norm=error_norm)
    pushed, pulled = u_T_bar @ y[2:], bar.u0 @ du0 + bar.theta @ dtheta
    assert pulled == pytest.approx(pushed, rel={"BS3": 3e-5, "Midpoint": 3e-6, "Euler": 3e-3}.get(method, 3e-7))


def test_lam_along_the_trajectory():
    solution = solve(ROTATION.dynamics, ROTATION.u0, [], (0.0, 5.0), rtol=1e-10, atol=1e-10)
    for adjoint in ("interpolating", "backsolve"):
        bar = solution.pullback([1.0, 0.0], adjoint=adjoint, dense_adjoint=True)
        for t in (0.0, 1.7, 5.0):
            np.testing.assert_allclose(bar.adjoint(t), [np.cos(5 - t), np.sin(5 - t)], atol=1e-8)
    assert solution.pullback([1.0, 0.0]).adjoint is None


def test_any_method_pulls_back():
    forward = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN, method="DOP853", rtol=1e-9, atol=1e-9)
    wanted = forward.pullback([1.0, 1.0])
    for method in ("Tsit5", "RK45"):
        bar = forward.pullback([1.0, 1.0], method=method)
        np.testing.assert_allclose(bar.theta, wanted.theta, rtol=1e-6)
    with pytest.raises(ValueError, match="RK4 has no error estimate"):
        forward.pullback([1.0, 1.0], method="RK4")


def test_tolerances_of_lam_follow_the_cotangent():
    """A loss in other units must not change the relative accuracy of its gradient."""
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN, rtol=1e-8, atol=1e-8)
    wanted = solution.pullback([1.0, 1.0])
    for scale in (1e-12, 1e12):
        bar = solution.pullback([scale, scale])
        np.testing.assert_allclose(bar.theta / scale, wanted.theta, rtol=1e-12)
        assert bar.stats == wanted.stats


# --- paying for what is asked --------------------------------------------------------------------------------------------------
def test_T_alone_costs_one_f():
    solution = solve(lotka_volterra(True), LV_U0, LV_THETA, LV_SPAN)
    bar = solution.pullback([1.0, 1.0], wrt=("T",))
    stats = bar.stats
    assert (stats.n_f, stats.n_vjp, stats.n_vjp_u, stats.n_steps) == (1, 0, 0, 0)
    assert bar.u0 is None and bar.theta is None and bar.t0 is None


def test_u0_alone_costs_no_quadrature():
    solution = solve(lotka_volterra(True), LV_U0, LV_THETA, LV_SPAN)
    for quadrature in ("gauss", "augmented"):
        bar = solution.pullback([1.0, 1.0], wrt=("u0",), quadrature=quadrature)
        stats = bar.stats
        assert stats.n_vjp == 0 and stats.n_f == 0
        assert stats.n_vjp_u == 2 + 6 * (stats.n_steps + stats.n_rejected)
        assert bar.theta is None and bar.T is None and bar.t0 is None
    without = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN).pullback([1.0, 1.0], wrt="u0").stats
    assert (without.n_vjp, without.n_vjp_u) == (stats.n_vjp_u, 0)


def test_theta_by_gauss_costs_three_or_four_nodes_a_step():
    """The end nodes are shared, and free where the stages call the whole vjp."""
    solution = solve(lotka_volterra(True), LV_U0, LV_THETA, LV_SPAN, rtol=1e-8, atol=1e-8)
    stats = solution.pullback([1.0, 1.0]).stats
    assert stats.n_vjp_u == 2 + 6 * (stats.n_steps + stats.n_rejected)
    assert 1 + 4 * stats.n_steps <= stats.n_vjp <= 1 + 4 * (stats.n_steps + stats.n_rejected)
    stats = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN, rtol=1e-8, atol=1e-8).pullback([1.0, 1.0]).stats
    attempts = stats.n_steps + stats.n_rejected
    assert stats.n_vjp_u == 0 and 2 + 6 * attempts + 3 * stats.n_steps <= stats.n_vjp <= 2 + 9 * attempts


def test_theta_augmented_costs_the_stages_only():
    solution = solve(lotka_volterra(True), LV_U0, LV_THETA, LV_SPAN, rtol=1e-8, atol=1e-8)
    stats = solution.pullback([1.0, 1.0], quadrature="augmented").stats
    assert stats.n_vjp == 2 + 6 * (stats.n_steps + stats.n_rejected) and stats.n_vjp_u == 0


def test_t0_costs_one_more_f():
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN)
    with_t0 = solution.pullback([1.0, 1.0], wrt=("u0", "t0")).stats
    assert with_t0.n_f == 1 and with_t0.n_vjp == solution.pullback([1.0, 1.0], wrt="u0").stats.n_vjp


def test_quadrature_tolerance_rejects_steps():
    """Where theta_bar is harder than lam, its own error estimate must make the steps smaller."""
    solution = solve(_pulse(), [1.0], [1.0], (0.0, 1.0), rtol=1e-10, atol=1e-10)
    exact = np.sqrt(np.pi / 4000.0)  # the whole pulse exp(-4000 (t - 1/2)^2) lies inside
    loose = solution.pullback([1.0], rtol=1e-3, atol=1e-3, quadrature_rtol=1e-1, quadrature_atol=1e-1)
    tight = solution.pullback([1.0], rtol=1e-3, atol=1e-3, quadrature_rtol=1e-9, quadrature_atol=1e-10)
    assert tight.theta[0] == pytest.approx(exact, rel=1e-7)
    assert tight.stats.n_rejected > 0 and tight.stats.n_steps > 2 * loose.stats.n_steps


def _pulse_f(t, u, theta, du):
    du[0] = theta[0] * np.exp(-4000.0 * (t - 0.5) ** 2)


def _pulse_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = 0.0
    theta_bar[0] = lam[0] * np.exp(-4000.0 * (t - 0.5) ** 2)


@functools.cache
def _pulse():
    return Dynamics(_pulse_f, _pulse_vjp)


def test_logistic_at_its_fixed_point():
    """f = 0 everywhere: T and t0 have no cotangent, and the steps are as long as they can be."""
    solution = solve(LOGISTIC.dynamics, [2.0], [1.2, 2.0], (0.0, 3.0))
    bar = solution.pullback([1.0])
    assert bar.T == 0.0 and bar.t0 == 0.0
    assert bar.u0[0] == pytest.approx(np.exp(-3.6), rel=1e-5)
