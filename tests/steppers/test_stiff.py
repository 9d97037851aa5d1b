"""Implicit methods: orders, stiff accuracy, gradients by every adjoint, work."""

import warnings

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from adjode import Dynamics, solve, value_and_gradient
from adjode.linalg import gmres
from adjode.losses import FinalState, Series
from adjode.tableaus import tableau
from tests.problems.methods import COMBINATIONS, STIFF, TIGHT, TRANSPOSED
from tests.problems.numerics import complex_step, jacobian, rate, slope
from tests.problems.stiff_systems import (
    REFLECTED_RATES,
    REFLECTED_U0,
    ROBERTSON_THETA,
    ROBERTSON_U0,
    fed,
    fed_solution,
    prothero,
    pushed_van_der_pol,
    reflected,
    reflected_solution,
    rober_reference,
    rober_weighted,
    robertson,
    robertson_f,
    robertson_vjp,
    van_der_pol,
    van_der_pol_f,
    van_der_pol_vjp,
)
from tests.problems.systems import DECAY, LOGISTIC, OSCILLATOR, cost_g, cost_g_vjp


# --- orders ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("problem", [LOGISTIC, OSCILLATOR], ids=lambda p: p.name)
@pytest.mark.parametrize("method", STIFF)
def test_orders_of_step_and_dense_output(method, problem):
    (t0, T), chosen = problem.t_span, tableau(method)
    # that of a dense output shows where it is less than the step's: halfway in some steps, up to one power of h more than stated
    inside = t0 + (T - t0) * np.array([0.13, 0.37, 0.61, 0.83])
    exact = np.array([problem.final(problem.u0, problem.theta, t0, t) for t in inside])
    final, dense = [], []
    for n in (8, 16):
        step = (T - t0) / n
        # one step more: Kvaerno5, which has a stage behind each step, takes shorter ones before the end
        solution = solve(problem.dynamics, problem.u0, problem.theta, (t0, T + step), method=method, step=step, **TIGHT)
        final.append(np.max(np.abs(solution.u[n] - problem.final(problem.u0, problem.theta, t0, T))))
        dense.append(np.max(np.abs(solution(inside) - exact)))
    assert chosen.order - 0.4 < rate(final) < chosen.order + 1.6
    assert rate(dense) > chosen.dense_order - 0.2


@pytest.mark.parametrize(("method", "adjoint"), COMBINATIONS)
def test_orders_of_the_gradient(method, adjoint):
    problem, u_T_bar = LOGISTIC, np.array([1.0])
    exact, errors = problem.cotangents(u_T_bar)[1], []
    for n in (8, 16):
        step = 3.0 / n
        solution = solve(problem.dynamics, problem.u0, problem.theta, problem.t_span, method=method, step=step, **TIGHT)
        errors.append(np.max(np.abs(solution.pullback(u_T_bar, adjoint=adjoint).theta - exact)))
    least = tableau(method).order if adjoint == "discrete" else min(tableau(method).order, tableau(method).dense_order + 1)
    assert rate(errors) > least - 0.4


@pytest.mark.parametrize("method", STIFF)
def test_order_reduction_where_the_problem_is_stiff(method):
    """Prothero and Robinson's problem: the order falls to that of the stages, but errors shrink with the stiffness."""
    errors = []
    for n in (32, 64):
        solution = solve(prothero(), [np.sin(1.0)], [1e6, 1.0], (0.0, 4.0 + 4.0 / n), method=method, step=4.0 / n, **TIGHT)
        errors.append(abs(solution.u[n, 0] - np.sin(5.0)))
    assert errors[0] < 1e-3 * 1e-6  # of which 1e-6 = 1 / stiffness
    if method == "Rodas5P":  # made for this problem
        assert errors[1] < 1e-10
    else:
        assert rate(errors) == pytest.approx(3.0 if method == "Radau" else 2.0, abs=0.3)


# --- gradients against closed forms and references -------------------------------------------------------------------------
@pytest.mark.parametrize(("method", "adjoint"), COMBINATIONS)
def test_linear_system_with_rates_to_1e8(method, adjoint):
    w, T = np.array([1.0, -0.5, 0.3, 2.0]), 2.0
    exact = complex_step(lambda u0, theta: (reflected_solution(u0, theta, T) * w).sum(), [REFLECTED_U0, REFLECTED_RATES])
    errors = []
    for tol in (1e-4, 1e-6, 1e-8):
        solution = solve(reflected(), REFLECTED_U0, REFLECTED_RATES, (0.0, T), method=method, rtol=tol, atol=1e-3 * tol)
        bar = solution.pullback(w, adjoint=adjoint)
        assert np.max(np.abs(solution.u_T - reflected_solution(REFLECTED_U0, REFLECTED_RATES, T))) < 10 * tol
        pairs = zip((bar.u0, bar.theta), exact, strict=True)
        errors.append(max(np.max(np.abs(got - wanted)) / np.max(np.abs(wanted)) for got, wanted in pairs))
        assert errors[-1] < 100 * tol
    assert errors[-1] < 0.1 * errors[0]


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["forwards", "backwards"])
@pytest.mark.parametrize("method", ["Radau", "Rodas5P"])
def test_transients_shorter_than_the_spacing_of_times(method, sign):
    """Behind each observation lam falls by a rate of 1e8, which makes theta_bar; numbers around t are 1e-8 apart."""
    t0, w, theta = 1e8, np.array([1.0, 2.0]), sign * np.array([0.3, 1e8, 2e8])
    u0, times = np.array([1.0, theta[2] / (theta[1] - theta[0])]), t0 + sign * np.array([0.5, 1.0, 2.0])
    exact = complex_step(lambda u0, theta: sum((fed_solution(u0, theta, t - t0) * w).sum() for t in times), [u0, theta])
    solution = solve(fed(), u0, theta, (t0, times[-1]), method=method, rtol=1e-8, atol=1e-11)
    bar = solution.pullback(observations=(times, np.tile(w, (3, 1))), dense_adjoint=True)
    np.testing.assert_allclose(bar.u0, exact[0], rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(bar.theta, exact[1], rtol=1e-7)
    steps = np.diff(bar.adjoint.t)
    assert (steps == 0.0).sum() > 20 and (sign * steps <= 0.0).all()
    assert np.isfinite(bar.adjoint(np.linspace(*sorted([t0, times[-1]]), 50))).all()


def rober(**options):
    """Value and gradient of Robertson's problem with a loss over ten decades of time, and their stored reference."""
    evaluate = value_and_gradient(robertson(), Series(10.0 ** np.arange(-5, 6), rober_weighted), (0.0, 1e5), **options)
    return evaluate(ROBERTSON_U0, ROBERTSON_THETA), rober_reference()


@pytest.mark.filterwarnings("ignore:the adjoint solve:RuntimeWarning")
@pytest.mark.parametrize(("method", "adjoint"), COMBINATIONS)
def test_robertson_against_the_reference(method, adjoint):
    """Every component by itself: one of u0_bar is a thousand times the others."""
    needed = {"Radau": 1e-8, "Kvaerno5": 1e-9, "TRBDF2": 1e-8, "Rodas5P": 1e-8}[method]
    errors = []
    for tol in (100.0 * needed, needed):
        (value, bar), true = rober(method=method, adjoint=adjoint, rtol=tol, atol=1e-5 * tol, max_steps=200_000)
        assert value == pytest.approx(true["loss"][0], rel=max(1e3 * tol, 1e-9))
        got, wanted = np.concatenate([bar.u0, bar.theta]), np.concatenate([true["u0"], true["theta"]])
        errors.append(np.max(np.abs(got / wanted - 1.0)))
    assert errors[1] < 1e-7 and errors[1] < max(0.2 * errors[0], 3e-8)


# --- the discrete adjoint is the transpose of the steps ---------------------------------------------------------------------
def replay(f, vjp, solution, u, theta, times):
    """The same steps again in NumPy, for complex numbers, with the stage equations solved to rounding: u(T), and u at `times`."""
    method, mesh = tableau(solution.method), solution.t
    s, n, sign = method.stages, u.size, np.sign(mesh[-1] - mesh[0])
    u = np.asarray(u, dtype=complex)
    seen, K_start = np.tile(u, (len(times), 1)), slope(f, mesh[0], u, theta)
    for step in range(len(mesh) - 1):
        t, h = mesh[step], mesh[step + 1] - mesh[step]
        Y = solution.stages[step, 1:].astype(complex)
        for _ in range(4):
            F = np.array([slope(f, t + c * h, y, theta) for c, y in zip(method.c[1:], Y, strict=True)])
            residual = Y - u - h * (np.outer(method.A[1:, 0], K_start) + method.A[1:, 1:] @ F)
            J = [jacobian(vjp, t + c * h, y, theta) for c, y in zip(method.c[1:], Y, strict=True)]
            blocks = [[(i == j) * np.eye(n) - h * method.A[i + 1, j + 1] * J[j] for j in range(s)] for i in range(s)]
            Y = Y - np.linalg.solve(np.block(blocks), residual.ravel()).reshape(s, n)
        K = np.vstack([K_start, F])
        for k, time in enumerate(times):
            if sign * t < sign * time <= sign * mesh[step + 1]:
                x = (time - t) / h
                seen[k] = Y[-1] if time == mesh[step + 1] else u + h * (x ** np.arange(1, method.P.shape[1] + 1) @ method.P.T @ K)
        u, K_start = Y[-1], K[-1]
    return u, seen


CASES = {
    "Robertson": (robertson, robertson_f, robertson_vjp, ROBERTSON_U0, ROBERTSON_THETA, (0.0, 10.0)),
    "van der Pol": (van_der_pol, van_der_pol_f, van_der_pol_vjp, np.array([2.0, -0.6]), np.array([50.0]), (0.0, 60.0)),
    "backwards": (van_der_pol, van_der_pol_f, van_der_pol_vjp, np.array([1.0, -0.6]), np.array([1.0]), (1.0, 0.0)),
}


def transpose_error(case, method, T, **options):
    """The largest error of the gradient beside complex numbers through the same steps; observations at ends, many in one step."""
    build, f, vjp, u0, theta, (t0, _) = CASES[case]
    solution, rng = solve(build(), u0, theta, (t0, T), method=method, **options), np.random.default_rng(0)
    inside = solution.t[3] + 0.1 * np.diff(solution.t)[3] * np.arange(4)
    times = np.concatenate([t0 + (T - t0) * rng.uniform(0.0, 1.0, 6), inside, [t0, T, T]])
    u_bars, u_T_bar = rng.normal(size=(times.size, u0.size)), rng.normal(size=u0.size)

    def loss(u, theta):
        u_T, seen = replay(f, vjp, solution, u, theta, times)
        return (u_T * u_T_bar).sum() + (seen * u_bars).sum()

    exact = complex_step(loss, [u0, theta])
    bar = solution.pullback(u_T_bar, observations=(times, u_bars), adjoint="discrete", on_inaccurate="warn")
    return max(np.max(np.abs(got - wanted) / np.abs(wanted).max()) for got, wanted in zip((bar.u0, bar.theta), exact, strict=True))


@pytest.mark.filterwarnings("ignore:the adjoint solve:RuntimeWarning")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", TRANSPOSED)
def test_transpose_of_the_steps(method, case):
    """To rounding, where Newton's iteration goes so far; else to where it stops, far below the tolerance."""
    t0, T = CASES[case][-1]
    assert transpose_error(case, method, T, rtol=1e-6, atol=1e-9) < 1e-5
    short = {"Robertson": 0.005, "van der Pol": 1.0, "backwards": 0.0}[case]
    assert transpose_error(case, method, short, step=abs(short - t0) / 40, **TIGHT) < 1e-10


def test_a_full_krylov_space_is_started_anew(monkeypatch):
    build, _, _, u0, theta, t_span = CASES["van der Pol"]
    solution, bars = solve(build(), u0, theta, t_span, method="Radau", rtol=1e-6, atol=1e-9), []
    for size in (24, 3):
        monkeypatch.setattr(gmres, "_BASIS", size)
        bars.append(solution.pullback([1.0, 0.0], adjoint="discrete"))
    assert bars[1].stats.n_newton > bars[0].stats.n_newton
    np.testing.assert_allclose(bars[1].u0, bars[0].u0, rtol=1e-10)
    np.testing.assert_allclose(bars[1].theta, bars[0].theta, rtol=1e-10)


@pytest.mark.parametrize("method", TRANSPOSED)
def test_a_state_that_decays_long_before_the_first_step_ends(method):
    """Its cotangent is the difference of products by the rate; rounding must not be multiplied by that twice."""

    def f(t, u, theta, du):
        du[0] = theta[1] * u[1] - theta[0] * u[0]
        du[1] = -theta[1] * u[1]

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0] = -theta[0] * lam[0]
        u_bar[1] = theta[1] * (lam[0] - lam[1])
        theta_bar[0] = -u[0] * lam[0]
        theta_bar[1] = u[1] * (lam[0] - lam[1])

    solution = solve(Dynamics(f, vjp), [1.0, 0.0], [1.0, 1e9], (0.0, 1.0), method=method, step=0.1, **TIGHT)
    bar = solution.pullback([1.0, 0.0], adjoint="discrete")
    assert bar.u0[0] == pytest.approx(np.exp(-1.0), rel=1e-2)
    assert bar.u0[1] == pytest.approx(bar.u0[0], rel=1e-5)


@pytest.mark.parametrize("method", TRANSPOSED)
def test_running_cost_of_the_discrete_adjoint(method):
    """Against differences of the cost of the same steps, and the interpolating adjoint."""
    problem, step = OSCILLATOR, 0.1

    def cost(theta):
        solution = solve(problem.dynamics, problem.u0, theta, problem.t_span, method=method, step=step, **TIGHT)
        return solution.pullback(running_cost=(cost_g, cost_g_vjp), adjoint="discrete")

    bar = cost(problem.theta)
    for i in range(3):
        h = 1e-5 * np.eye(3)[i]
        difference = (cost(problem.theta + h).running_cost - cost(problem.theta - h).running_cost) / 2e-5
        assert bar.theta[i] == pytest.approx(difference, rel=1e-7, abs=1e-8)
    solution = solve(problem.dynamics, problem.u0, problem.theta, problem.t_span, method=method, rtol=1e-7, atol=1e-7)
    one, other = (solution.pullback(running_cost=(cost_g, cost_g_vjp), adjoint=a) for a in ("discrete", "interpolating"))
    np.testing.assert_allclose(one.theta, other.theta, rtol=5e-3 if method == "TRBDF2" else 2e-4)


# --- identities ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("span", [DECAY.t_span, DECAY.t_span[::-1]], ids=["forwards", "backwards"])
@pytest.mark.parametrize(("method", "adjoint"), COMBINATIONS)
def test_all_four_cotangents_in_closed_form(method, adjoint, span):
    tol = 1e-5 if method == "TRBDF2" else 1e-8
    solution = solve(DECAY.dynamics, DECAY.u0, DECAY.theta, span, method=method, rtol=tol, atol=tol)
    bar = solution.pullback(np.ones(7), adjoint=adjoint)
    for got, wanted in zip((bar.u0, bar.theta, bar.t0, bar.T), DECAY.cotangents(np.ones(7), span), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=300 * tol)


@pytest.mark.parametrize("mu", [1.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize(("method", "adjoint"), COMBINATIONS)
def test_dot_product_identity_of_van_der_pol(method, adjoint, mu):
    """lam . du against the pushforward; on the slow part of the cycle."""
    tol = 1e-5 if method == "TRBDF2" else 1e-7
    u0, theta, T = np.array([2.0, -2.0 / (3.0 * mu)]), np.array([mu]), 0.5 * mu
    solution = solve(van_der_pol(), u0, theta, (0.0, T), method=method, rtol=tol, atol=1e-3 * tol)
    u_T_bar = np.array([1.0, 0.1 * mu])
    bar = solution.pullback(u_T_bar, adjoint=adjoint)
    pushed = pushed_van_der_pol(tuple(u0), mu, T)
    np.testing.assert_allclose(u_T_bar @ pushed[:, 0], bar.u0[0], rtol=1e3 * tol)
    np.testing.assert_allclose(u_T_bar @ pushed[:, 1], bar.u0[1], rtol=1e3 * tol, atol=1e3 * tol * abs(bar.u0[0]))
    np.testing.assert_allclose(u_T_bar @ pushed[:, 2], bar.theta[0], rtol=1e3 * tol, atol=1e2 * tol / mu)


# --- work ------------------------------------------------------------------------------------------------------------------
PROBLEMS = {
    "Robertson": (robertson, robertson_f, robertson_vjp, ROBERTSON_U0, ROBERTSON_THETA, (0.0, 1e4)),
    "van der Pol": (van_der_pol, van_der_pol_f, van_der_pol_vjp, np.array([2.0, -0.6]), np.array([1e3]), (0.0, 2e3)),
}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("tol", [1e-3, 1e-5, 1e-7])
def test_no_more_work_than_scipy(name, tol):
    build, f, vjp, u0, theta, span = PROBLEMS[name]
    ours = solve(build(), u0, theta, span, method="Radau", rtol=tol, atol=1e-4 * tol).stats
    theirs = solve_ivp(
        lambda t, u: slope(f, t, u, theta).real,
        span,
        u0,
        method="Radau",
        rtol=tol,
        atol=1e-4 * tol,
        jac=lambda t, u: jacobian(vjp, t, u, theta).real,
    )
    assert ours.n_steps <= 1.3 * (theirs.t.size - 1)
    assert ours.n_f <= 1.1 * theirs.nfev
    assert ours.n_lu <= 1.3 * theirs.nlu and ours.n_jac <= 1.3 * theirs.njev
    # each of theirs takes three evaluations; one is for the end of the step
    assert ours.n_newton <= 1.3 * (theirs.nfev - theirs.t.size) / 3 and ours.n_newton < 3 * (ours.n_steps + ours.n_rejected)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("method", TRANSPOSED)
def test_the_discrete_adjoint_factors_less_than_the_forward_pass(method, name):
    build, _, _, u0, theta, span = PROBLEMS[name]
    for tol in (1e-4, 1e-7):
        solution = solve(build(), u0, theta, span, method=method, rtol=tol, atol=1e-4 * tol)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the jump of van der Pol's oscillator is worth one
            stats = solution.pullback(np.ones(u0.size), adjoint="discrete", wrt=("u0", "theta"), on_inaccurate="warn").stats
        # each stage is solved for once: one product for each stage of a block in each iteration, one more when it is solved; and
        # the rows of the Jacobians
        block, shared = tableau(method).stages if method == "Radau" else 1, method != "Radau"
        steps, s = stats.n_steps, tableau(method).stages
        stages = block * stats.n_newton + s * steps + u0.size * stats.n_jac + 1
        # to carry errors along is one more, which a step may share with up to three behind, and so is a first slope that is shared
        # with the step before; it is done again where the Jacobian is made anew for it
        of_errors, most, matrices = stats.n_vjp - stages, (1 + shared) * steps, 1 if shared else 2
        assert 0.25 * most <= of_errors <= most + stats.n_jac
        assert of_errors < 0.35 * most or method == "TRBDF2" or tol > 1e-7
        assert stats.n_lu <= solution.stats.n_lu + matrices * stats.n_jac and stats.n_jac <= solution.stats.n_jac
        assert stats.n_newton <= 8 * steps * s / block


def test_a_linear_problem_takes_little_more_than_one_iteration_a_step():
    solution = solve(reflected(), REFLECTED_U0, REFLECTED_RATES, (0.0, 2.0), method="Radau", rtol=1e-7, atol=1e-10)
    bar = solution.pullback(np.ones(4), wrt=("u0", "theta"))
    assert solution.stats.n_jac == 1 and solution.stats.n_newton < 1.5 * solution.stats.n_steps
    assert bar.stats.n_jac == 1 and bar.stats.n_newton < 1.5 * (bar.stats.n_steps + bar.stats.n_rejected)
    discrete = solution.pullback(np.ones(4), adjoint="discrete", wrt=("u0", "theta")).stats
    assert discrete.n_jac == 1 and discrete.n_newton < 4 * discrete.n_steps  # step sizes share a preconditioner


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
def test_who_asks_for_less_pays_less(adjoint):
    solution = solve(robertson(), ROBERTSON_U0, ROBERTSON_THETA, (0.0, 1e2), method="Radau", rtol=1e-5, atol=1e-9)
    work = {}
    for wrt in ("u0", "theta", "T"):
        bar = solution.pullback([1.0, 1.0, 1.0], wrt=wrt, adjoint=adjoint)
        work[wrt] = bar.stats.n_vjp
        assert [name for name in ("u0", "theta", "T") if getattr(bar, name) is not None] == [wrt]
    assert work["T"] == solution.u.shape[1] < work["u0"] <= work["theta"]  # one Jacobian


def with_vjp_u():
    def vjp_u(t, u, theta, lam, u_bar):
        a, b = lam[1] - lam[0], lam[2] - lam[1]
        u_bar[0] = theta[0] * a
        u_bar[1] = -theta[2] * u[2] * a + 2.0 * theta[1] * u[1] * b
        u_bar[2] = -theta[2] * u[1] * a

    return Dynamics(robertson_f, robertson_vjp, vjp_u=vjp_u)


def test_vjp_u_serves_jacobians_and_iterations():
    options = {"method": "Radau", "rtol": 1e-5, "atol": 1e-9}
    bars = []
    for dynamics in (robertson(), with_vjp_u()):
        solution = solve(dynamics, ROBERTSON_U0, ROBERTSON_THETA, (0.0, 1e2), **options)
        bars.append(solution.pullback([1.0, 1.0, 1.0], adjoint="discrete"))
    np.testing.assert_allclose(bars[0].theta, bars[1].theta, rtol=1e-12)
    steps = bars[1].stats.n_steps  # see the test of the work above
    assert 0.25 * steps <= bars[1].stats.n_vjp - 3 * steps - 1 <= steps + bars[1].stats.n_jac
    assert bars[1].stats.n_vjp + bars[1].stats.n_vjp_u == bars[0].stats.n_vjp


def test_value_and_gradient_is_solve_and_pullback():
    w = np.array([1.0, 1e3, 2.0])
    for method, adjoint in COMBINATIONS:
        options = {"method": method, "rtol": 1e-5, "atol": 1e-10}
        evaluate = value_and_gradient(robertson(), FinalState(w), (0.0, 1e3), adjoint=adjoint, **options)
        value, bar = evaluate(ROBERTSON_U0, ROBERTSON_THETA)
        solution = solve(robertson(), ROBERTSON_U0, ROBERTSON_THETA, (0.0, 1e3), **options)
        other = solution.pullback(w, adjoint=adjoint)
        assert value == pytest.approx(w @ solution.u_T, rel=1e-14)
        np.testing.assert_allclose(bar.u0, other.u0, rtol=1e-12 if adjoint == "discrete" else 1e-4)
        np.testing.assert_allclose(bar.theta, other.theta, rtol=1e-12 if adjoint == "discrete" else 1e-4)
