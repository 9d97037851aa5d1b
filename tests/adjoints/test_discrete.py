"""The discrete adjoint: the transpose of the steps to rounding, for every method, with observations and running costs."""

import itertools

import numpy as np
import pytest

from adjode import solve
from adjode.loops.quadrature import LOBATTO, LOBATTO_NODES
from adjode.tableaus import METHODS, tableau
from benchmarks.problems import PROBLEMS, lv_dynamics, spiral_with_vjp_u
from tests.problems.numerics import complex_step
from tests.problems.systems import DECAY, LV_SPAN, LV_THETA, LV_U0, OSCILLATOR, cost_g, cost_g_vjp, lotka_volterra

NAMES = [name for name in METHODS if name != "RK23" and not tableau(name).implicit]
TIMES = np.array([0.05, 0.13, 0.5, 0.5, 0.77, 1.0, 0.0, 0.9])


def lv(t, u, theta):
    return np.array([theta[0] * u[0] - theta[1] * u[0] * u[1], -theta[2] * u[1] + theta[3] * u[0] * u[1]])


def replay(f, mesh, u, theta, method, times, g=None, pieces=1):
    """The same steps again in NumPy, for complex numbers: u(T), the states at `times`, and the running cost, by `pieces` a step."""
    method = tableau(method)
    u, sign, cost = np.asarray(u), np.sign(mesh[-1] - mesh[0]), 0.0
    seen = np.tile(u.astype(complex), (len(times), 1))
    for start, end in itertools.pairwise(mesh):
        h, K = end - start, []
        for i in range(len(method.c)):
            K.append(f(start + method.c[i] * h, u + h * sum(method.A[i, j] * K[j] for j in range(i)), theta))

        def at(x, h=h, K=K, u=u):
            weights, z = (method.middle, x - 0.5) if method.centred else (method.P, x)
            powers = x * z ** np.arange(weights.shape[1])
            return u + h * sum(b * k for b, k in zip(weights @ powers, K, strict=True))

        new = u + h * sum(method.A[method.stages, j] * K[j] for j in range(method.stages))
        for k, t in enumerate(times):
            if sign * start < sign * t <= sign * end:
                seen[k] = new if t == end else at((t - start) / h)
        if g is not None:
            for left, (w, x) in itertools.product(range(pieces), zip(LOBATTO, [0.0, *LOBATTO_NODES, 1.0], strict=True)):
                place = (left + x) / pieces
                cost = cost + h / pieces * w * g(start + place * h, new if place == 1.0 else at(place), theta)
        u = new
    return u, seen, cost


@pytest.mark.filterwarnings("ignore:.*too long for its adjoint")  # of the steps as they are
@pytest.mark.parametrize("direction", ["forwards", "backwards"])
@pytest.mark.parametrize("cost", [False, True], ids=["", "cost"])
@pytest.mark.parametrize("steps", ["fixed", "adaptive"])
@pytest.mark.parametrize("method", NAMES)
def test_transpose_of_the_steps_to_rounding(method, steps, cost, direction):
    if steps == "adaptive" and not tableau(method).adaptive:
        pytest.skip("no error estimate")
    options = {"step": 0.1} if steps == "fixed" else {"rtol": 1e-5, "atol": 1e-5}
    rng = np.random.default_rng(0)
    u_bars, u_T_bar = rng.normal(size=(TIMES.size, 2)), rng.normal(size=2)
    span = (0.0, 1.0) if direction == "forwards" else (1.0, 0.0)
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, span, method=method, **options)

    def loss(u0, theta):
        u_T, seen, total = replay(lv, solution.t, u0, theta, method, TIMES, cost_g if cost else None, pieces)
        return (u_T * u_T_bar).sum() + (np.where(TIMES[:, None] == span[0], u0, seen) * u_bars).sum() + total

    # with error control the quadrature of the cost chooses its own pieces: against so many that their error is nothing
    pieces, tolerance = (16, options["rtol"]) if cost and steps == "adaptive" else (1, 1e-12)
    exact = complex_step(loss, [LV_U0, LV_THETA])
    running = {"running_cost": (cost_g, cost_g_vjp)} if cost else {}
    bar = solution.pullback(u_T_bar, observations=(TIMES, u_bars), adjoint="discrete", on_inaccurate="warn", **running)
    for got, wanted in ((bar.u0, exact[0]), (bar.theta, exact[1])):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())
    if cost:
        value = replay(lv, solution.t, LV_U0, LV_THETA, method, TIMES, cost_g, pieces)[2]
        assert bar.running_cost == pytest.approx(value, rel=tolerance)


@pytest.mark.parametrize("method", ["Tsit5", "DOP853"])
def test_agrees_with_differences_of_the_numbers_computed(method):
    def final(theta):
        return solve(OSCILLATOR.dynamics, OSCILLATOR.u0, theta, (0.5, 4.0), method=method, step=0.25).u_T.sum()

    bar = solve(OSCILLATOR.dynamics, OSCILLATOR.u0, OSCILLATOR.theta, (0.5, 4.0), method=method, step=0.25).pullback(
        [1.0, 1.0], adjoint="discrete"
    )
    for i in range(3):
        h = np.eye(3)[i] * 1e-5
        difference = (final(OSCILLATOR.theta + h) - final(OSCILLATOR.theta - h)) / 2e-5
        assert bar.theta[i] == pytest.approx(difference, rel=1e-7)


@pytest.mark.filterwarnings("ignore:.*too long for its adjoint")  # of the steps as they are
@pytest.mark.parametrize("method", ["Tsit5", "RK45", "DOP853"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_tends_to_the_continuous_gradient(name, method):
    problem = PROBLEMS[name]()
    errors = []
    for tol in (1e-6, 1e-8, 1e-10):
        options = {"method": method, "rtol": tol, "atol": tol, "on_inaccurate": "warn"}
        _, bar = problem.value_and_gradient(adjoint="discrete", wrt=("u0", "theta", "T"), **options)()
        errors.append(problem.gradient_error(bar))
        if "T" in problem.reference:
            assert bar.T == pytest.approx(problem.reference["T"][0], rel=500 * tol)
    assert errors[1] < 3e-6 and errors[1] < 0.05 * errors[0] and errors[2] < 0.05 * errors[1]


def test_all_four_cotangents_in_closed_form():
    for span in (DECAY.t_span, DECAY.t_span[::-1]):
        solution = solve(DECAY.dynamics, DECAY.u0, DECAY.theta, span, rtol=1e-10, atol=1e-10)
        bar = solution.pullback(np.ones(7), adjoint="discrete")
        for got, wanted in zip((bar.u0, bar.theta, bar.t0, bar.T), DECAY.cotangents(np.ones(7), span), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-8)


def test_work():
    """One f and one vjp a stage; observations cost nothing but their place in the dense output."""
    solution = solve(lotka_volterra(True), LV_U0, LV_THETA, LV_SPAN, rtol=1e-8, atol=1e-10)
    steps = solution.stats.n_steps
    stats = solution.pullback([1.0, 1.0], adjoint="discrete").stats
    assert (stats.n_vjp, stats.n_vjp_u, stats.n_f, stats.n_steps) == (
        6 * steps + 1,
        0,
        6 * steps + 2,
        steps,
    )  # T_bar and t0_bar take one f each
    times = np.linspace(0, 10, 1000)
    many = solution.pullback(observations=(times, np.ones((1000, 2))), adjoint="discrete").stats
    assert (many.n_vjp, many.n_steps) == (6 * steps + 1, steps)
    u0_only = solution.pullback([1.0, 1.0], adjoint="discrete", wrt="u0").stats
    assert (u0_only.n_vjp, u0_only.n_vjp_u) == (0, 6 * steps + 1)
    T_only = solution.pullback([1.0, 1.0], adjoint="discrete", wrt="T").stats
    assert (T_only.n_vjp, T_only.n_f) == (0, 1)
    early = solution.pullback(observations=([0.1], [[1.0, 1.0]]), adjoint="discrete").stats
    assert early.n_steps < 0.1 * steps  # nothing is transposed where the cotangent is zero


def test_value_of_the_running_cost_alone_needs_no_vjp():
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN)
    bar = solution.pullback(running_cost=(cost_g, cost_g_vjp), wrt="T", adjoint="discrete")
    assert bar.stats.n_vjp == 0 and bar.stats.n_g_vjp == 0
    assert bar.running_cost == pytest.approx(solution.pullback(running_cost=(cost_g, cost_g_vjp)).running_cost, rel=1e-4)


def test_nothing_in_nothing_out():
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN)
    for options in ({}, {"observations": ([], [])}, {"u_T_bar": [0.0, 0.0]}):
        bar = solution.pullback(**options, adjoint="discrete")
        assert not bar.u0.any() and not bar.theta.any() and bar.stats.n_vjp == 0
    empty = solve(lotka_volterra(), LV_U0, LV_THETA, (1.0, 1.0)).pullback([1.0, 2.0], adjoint="discrete")
    np.testing.assert_array_equal(empty.u0, [1.0, 2.0])
    assert not empty.theta.any()


def test_vjp_u_where_theta_is_not_wanted():
    problem = spiral_with_vjp_u()
    solution = problem.solve()
    whole = solution.pullback([1.0, 0.0], adjoint="discrete")
    short = solution.pullback([1.0, 0.0], adjoint="discrete", wrt="u0")
    np.testing.assert_allclose(short.u0, whole.u0, rtol=1e-13)
    assert short.stats.n_vjp == 0 and short.theta is None


@pytest.mark.parametrize("option", [{"rtol": 1e-3}, {"quadrature_atol": 1e-3}, {"method": "RK45"}, {"dense_adjoint": True}])
def test_options_of_the_continuous_adjoints_are_refused(option):
    solution = solve(lv_dynamics(), LV_U0, LV_THETA, LV_SPAN)
    with pytest.raises(ValueError, match=f"{next(iter(option))} belongs to the continuous adjoints"):
        solution.pullback([1.0, 1.0], adjoint="discrete", **option)
