"""Gradients on meshes that serve u and not lam: refined to what is promised, or refused; how good the estimate of the error is."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from adjode import Dynamics, SolveError, Status, ensemble_value_and_gradient, solve, value_and_gradient
from adjode.losses import FinalState, LeastSquares, Series
from benchmarks.problems import LORENZ_LOSS, LORENZ_SPAN, PROBLEMS, lorenz_dynamics
from tests.problems import random_losses
from tests.problems.numerics import complex_step
from tests.problems.random_problems import family, outcomes, random_problem
from tests.problems.systems import GROWTH, LV_SPAN, LV_THETA, LV_U0, OSCILLATOR, lotka_volterra

EXPLICIT = ("Tsit5", "RK45", "DOP853", "Vern7", "Vern9", "BS3", "auto")
REST = (2.0, 1.0)  # a/b and b


def relaxation_f(t, u, theta, du):
    du[0] = theta[0] - theta[1] * u[0]


def relaxation_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -theta[1] * lam[0]
    theta_bar[0] = lam[0]
    theta_bar[1] = -u[0] * lam[0]


def relaxation(u0, theta, T):
    level = theta[0] / theta[1]
    return level + (u0[0] - level) * np.exp(-theta[1] * T)


def following_f(t, u, theta, du):
    du[0] = -theta[0] * (u[0] - theta[1] * np.cos(t))


def following_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -theta[0] * lam[0]
    theta_bar[0] = -lam[0] * (u[0] - theta[1] * np.cos(t))
    theta_bar[1] = lam[0] * theta[0] * np.cos(t)


def following(u0, theta, T):
    k, a = theta
    smooth = a * k * (k * np.cos(T) + np.sin(T)) / (k * k + 1.0)
    return smooth + (u0[0] - a * k * k / (k * k + 1.0)) * np.exp(-k * T)


RELAXATION, FOLLOWING = Dynamics(relaxation_f, relaxation_vjp), Dynamics(following_f, following_vjp)
# dynamics, value, u0, theta, T: at rest, at rest for long, coming to rest, at a zero, held by stability
CASES = {
    "rest": (RELAXATION, relaxation, [2.0], [2.0, 1.0], 10.0),
    "rest for long": (RELAXATION, relaxation, [2.0], [20.0, 10.0], 100.0),
    "near rest": (RELAXATION, relaxation, [2.0 + 1e-9], [2.0, 1.0], 30.0),
    "coming to rest": (RELAXATION, relaxation, [2.001], [2.0, 1.0], 30.0),
    "nothing there": (RELAXATION, relaxation, [0.0], [0.0, 1.0], 10.0),
    "following": (FOLLOWING, following, [1.0], [1e2, 1.0], 3.0),
    "following fast": (FOLLOWING, following, [1.0], [1e4, 1.0], 3.0),
}


def units(bar, exact, u0, theta, rtol):
    """The error relative to the largest logarithmic derivative, in multiples of rtol; zeros count as 1."""
    size = np.concatenate([np.where(np.abs(x) > 0.0, np.abs(x), 1.0) for x in (np.array(u0), np.array(theta))])
    right = np.concatenate(exact) * size
    return np.abs(np.concatenate([bar.u0, bar.theta]) * size - right).max() / np.abs(right).max() / rtol


@pytest.mark.parametrize("rtol", [1e-6, 1e-8])
@pytest.mark.parametrize("method", EXPLICIT)
@pytest.mark.parametrize("name", CASES)
def test_within_a_hundred_units(name, method, rtol):
    dynamics, value, u0, theta, T = CASES[name]
    exact = complex_step(lambda u, th: value(u, th, T), [np.array(u0), np.array(theta)])
    gradient = value_and_gradient(dynamics, FinalState([1.0]), (0.0, T), method=method, rtol=rtol, atol=1e-3 * rtol)
    got, bar = gradient(u0, theta)
    assert units(bar, exact, u0, theta, rtol) < 100.0
    assert got == pytest.approx(value(np.array(u0), np.array(theta), T), rel=100 * rtol, abs=1e-3 * rtol)
    assert max(bar.error.values()) < 100.0 * rtol and (bar.stats.n_refined > 0 or "following" in name)


@pytest.mark.parametrize("method", ["Radau", "Kvaerno5", "TRBDF2"])
@pytest.mark.parametrize("name", CASES)
def test_implicit_steps_within_a_hundred_units(name, method):
    rtol, (dynamics, value, u0, theta, T) = 1e-6, CASES[name]
    exact = complex_step(lambda u, th: value(u, th, T), [np.array(u0), np.array(theta)])
    gradient = value_and_gradient(dynamics, FinalState([1.0]), (0.0, T), method=method, rtol=rtol, atol=1e-3 * rtol)
    _, bar = gradient(u0, theta)
    assert units(bar, exact, u0, theta, rtol) < 100.0 and max(bar.error.values()) < 100.0 * rtol


@pytest.mark.parametrize("method", ["Tsit5", "DOP853", "Vern7", "Radau", "Kvaerno5", "TRBDF2", "auto"])
def test_observed_inside_of_long_steps_at_rest(method):
    """Dense output there is no better than such a step, and what it makes wrong in the first one no step mends.

    A few may be wrong, where the first term of that happens to vanish.
    """
    rtol, u0, theta, rng, wrong = 1e-4, [2.0], [14.0, 7.0], np.random.default_rng(0), 0
    solution = solve(RELAXATION, u0, theta, (0.0, 10.0), method=method, rtol=rtol, atol=1e-3 * rtol)
    for k in range(300):
        seen, weights = np.sort(rng.uniform(0.0, 10.0 if k % 2 else 2.0, 3)), rng.normal(size=3)
        by_u0, by_a = np.exp(-theta[1] * seen), (1.0 - np.exp(-theta[1] * seen)) / theta[1]  # and by b: -u times the latter
        exact = [np.array([weights @ by_u0]), weights @ by_a * np.array([1.0, -u0[0]])]
        bar = solution.pullback([0.0], observations=(seen, weights[:, None]), adjoint="discrete")
        wrong += units(bar, exact, u0, theta, rtol) > 100.0
    assert wrong <= 4


def test_with_defaults_and_what_it_says():
    for T in (10.0, 100.0):
        _, bar = value_and_gradient(RELAXATION, FinalState([1.0]), (0.0, T))([2.0], [2.0, 1.0])
        assert abs(bar.u0[0] - np.exp(-T)) < 1e-5
        np.testing.assert_allclose(bar.theta, [1.0, -2.0], rtol=1e-4)
    gradient = value_and_gradient(RELAXATION, FinalState([1.0]), (0.0, 10.0), on_inaccurate="raise")
    with pytest.raises(
        SolveError, match=r"may be off by .* times rtol.* too long for its adjoint.*choose method='Radau'"
    ) as caught:
        gradient([2.0], [2.0, 1.0])
    assert (caught.value.phase, caught.value.status, caught.value.component) == ("adjoint", Status.INACCURATE, 0)
    assert 0.0 <= caught.value.t < 10.0 and caught.value.step_size > 0.1
    gradient = value_and_gradient(RELAXATION, FinalState([1.0]), (0.0, 10.0), on_inaccurate="warn")
    with pytest.warns(RuntimeWarning, match="too long for its adjoint"):
        _, bar = gradient([2.0], [2.0, 1.0])
    assert bar.error["u0"] > 1e-4 and bar.stats.n_refined == 0
    with pytest.warns(RuntimeWarning, match="too long for its adjoint"):
        solve(RELAXATION, [2.0], [2.0, 1.0], (0.0, 10.0)).pullback([1.0], adjoint="discrete", on_inaccurate="warn")
    with pytest.raises(ValueError, match="on_inaccurate='warn' belongs to adjoint='discrete'"):
        value_and_gradient(RELAXATION, FinalState([1.0]), (0.0, 10.0), adjoint="interpolating", on_inaccurate="warn")
    with pytest.raises(ValueError, match="on_inaccurate must be one of 'refine', 'raise', 'warn'"):
        value_and_gradient(RELAXATION, FinalState([1.0]), (0.0, 10.0), on_inaccurate="ignore")


def test_a_failure_of_shorter_steps_is_told_from_that_of_the_solve():
    inputs, repeated = ([2.0], [2.0, 1.0]), "cap of 30 steps was reached.*The solve had succeeded: this is its repetition"
    assert solve(RELAXATION, *inputs, (0.0, 10.0)).stats.n_steps < 25
    with pytest.raises(SolveError, match=repeated) as caught:
        value_and_gradient(RELAXATION, FinalState([1.0]), (0.0, 10.0), max_steps=30)(*inputs)
    assert (caught.value.phase, caught.value.status) == ("forward", Status.MAX_STEPS)
    with pytest.raises(SolveError) as caught:
        value_and_gradient(RELAXATION, FinalState([1.0]), (0.0, 10.0), max_steps=3)(*inputs)
    assert "cap of 3 steps" in str(caught.value) and "repetition" not in str(caught.value)


def test_fixed_steps_are_not_judged():
    _, bar = value_and_gradient(RELAXATION, FinalState([1.0]), (0.0, 10.0), step=2.0)([2.0], [2.0, 1.0])
    assert bar.stats.n_steps == 5 and bar.stats.n_refined == 0


def test_every_way_to_the_same_gradient():
    """Of a pullback, of compiled code, backwards in time, of a loss in Python, on a budget of memory, and in an ensemble."""
    loss, inputs, span = FinalState([1.0]), (np.array([2.0]), np.array([2.0, 1.0])), (0.0, 10.0)
    gradient = value_and_gradient(RELAXATION, loss, span)
    value, bar = gradient(*inputs)
    again = gradient(*inputs)[1]
    u0_bar, theta_bar = np.empty(1), np.empty(2)
    assert gradient.jitted(1, 2)(*inputs, u0_bar, theta_bar) == (0, value)
    by_series = Series([10.0], lambda k, t, u, u_bar: (u_bar.__setitem__(0, 1.0), u[0])[1])
    for one in (
        again,
        value_and_gradient(RELAXATION, by_series, span)(*inputs)[1],
        value_and_gradient(RELAXATION, loss, span, memory="10kB")(*inputs)[1],
    ):
        np.testing.assert_array_equal(np.concatenate([one.u0, one.theta]), np.concatenate([bar.u0, bar.theta]))
    np.testing.assert_array_equal(np.concatenate([u0_bar, theta_bar]), np.concatenate([bar.u0, bar.theta]))
    for options in ({}, {"memory": "10kB"}):
        solution = solve(RELAXATION, *inputs, span, **options)
        pulled = solution.pullback([1.0], adjoint="discrete")
        np.testing.assert_allclose(pulled.theta, bar.theta, rtol=1e-12)
        np.testing.assert_allclose(pulled.u0, bar.u0, rtol=1e-12)
        assert pulled.stats.n_refined == bar.stats.n_refined > 0
    values, bars = ensemble_value_and_gradient(RELAXATION, loss, span)(np.array([[2.0], [2.0], [7.0]]), inputs[1])
    np.testing.assert_array_equal(bars.u0[:2, 0], bar.u0[[0, 0]])
    assert values[0] == values[1] == value


@pytest.mark.parametrize("executor", [None, ThreadPoolExecutor(2)], ids=["threads", "executor"])
@pytest.mark.parametrize("bT", [10.0, 100.0])
@pytest.mark.parametrize("method", ["Tsit5", "DOP853"])
@pytest.mark.jitted
def test_members_at_rest(method, bT, executor):
    """Each is judged and refined by itself, as a single call is, whatever the others need."""
    u0, theta = np.array([[2.0], [20.0], [0.3], [2.0]]), np.array([[2.0, 1.0], [20.0, 1.0], [2.0, 1.0], [1.0, 0.5]])
    spans = np.stack([np.zeros(4), bT / theta[:, 1]], axis=1)
    gradient = ensemble_value_and_gradient(RELAXATION, FinalState([1.0]), spans, method=method, executor=executor)
    _, bars = gradient(u0, theta)
    for i, span in enumerate(spans):
        _, bar = value_and_gradient(RELAXATION, FinalState([1.0]), tuple(span), method=method)(u0[i], theta[i])
        np.testing.assert_array_equal(np.append(bars.u0[i], bars.theta[i]), np.append(bar.u0, bar.theta))
        assert {name: errors[i] for name, errors in bars.error.items()} == bar.error
        exact = complex_step(lambda u, th, T=span[1]: relaxation(u, th, T), [u0[i], theta[i]])
        assert units(bar, exact, u0[i], theta[i], 1e-6) < 100.0


def test_backwards_in_time():
    def turned_f(t, u, theta, du):
        du[0] = -(theta[0] - theta[1] * u[0])

    def turned_vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0] = theta[1] * lam[0]
        theta_bar[0] = -lam[0]
        theta_bar[1] = u[0] * lam[0]

    forwards = value_and_gradient(RELAXATION, FinalState([1.0]), (0.0, 10.0))([2.0], [2.0, 1.0])[1]
    bar = value_and_gradient(Dynamics(turned_f, turned_vjp), FinalState([1.0]), (10.0, 0.0))([2.0], [2.0, 1.0])[1]
    np.testing.assert_allclose(bar.u0, forwards.u0, rtol=1e-6)
    np.testing.assert_allclose(bar.theta, forwards.theta, rtol=1e-10)


def test_observations_inside_long_steps():
    times = np.linspace(0.5, 30.0, 60)
    loss = LeastSquares(times, np.ones((60, 1)), sigma=0.5)
    exact = complex_step(
        lambda u, th: 2.0 * sum((relaxation(u, th, t) - 1.0) ** 2 for t in times), [np.array([2.0]), np.array([2.0, 1.0])]
    )
    for method in EXPLICIT[:-1]:
        _, bar = value_and_gradient(RELAXATION, loss, (0.0, 30.0), method=method)([2.0], [2.0, 1.0])
        assert units(bar, exact, [2.0], [2.0, 1.0], 1e-6) < 100.0


def test_units_of_states_make_no_difference():
    def cells_f(t, u, theta, du):
        du[0] = theta[0] * u[0] * (1.0 - u[0] / theta[1])
        du[1] = theta[2] * u[0] - theta[3] * u[1]

    def cells_vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0] = lam[0] * theta[0] * (1.0 - 2.0 * u[0] / theta[1]) + lam[1] * theta[2]
        u_bar[1] = -theta[3] * lam[1]
        theta_bar[0] = lam[0] * u[0] * (1.0 - u[0] / theta[1])
        theta_bar[1] = lam[0] * theta[0] * (u[0] / theta[1]) ** 2
        theta_bar[2] = lam[1] * u[0]
        theta_bar[3] = -lam[1] * u[1]

    cells, found = Dynamics(cells_f, cells_vjp), []
    for K in (1.0, 1e-9, 1e12):
        u0, theta = np.array([0.01 * K, 0.5]), np.array([1.0, K, 0.4 / K, 0.4])
        options = {"rtol": 1e-6, "atol": 1e-9 * u0, "method": "BS3"}
        _, bar = value_and_gradient(cells, FinalState([0.0, 1.0]), (0.0, 10.0), **options)(u0, theta)
        assert bar.stats.n_refined > 0
        found.append(np.concatenate([u0 * bar.u0, theta * bar.theta]))
    for one in found[1:]:
        np.testing.assert_allclose(one, found[0], rtol=1e-6)


def test_explicit_steps_before_a_switch():
    """A rod of heat: one step beyond stability, before the implicit ones, had lam grow by thousands."""
    n = 40

    def rod_f(t, u, theta, du):
        for i in range(n):
            left, right = u[i - 1] if i > 0 else 0.0, u[i + 1] if i < n - 1 else 0.0
            du[i] = theta[0] * (n + 1) ** 2 * (left - 2.0 * u[i] + right)

    def rod_vjp(t, u, theta, lam, u_bar, theta_bar):
        theta_bar[0] = 0.0
        for i in range(n):
            left, right = lam[i - 1] if i > 0 else 0.0, lam[i + 1] if i < n - 1 else 0.0
            u_bar[i] = theta[0] * (n + 1) ** 2 * (left - 2.0 * lam[i] + right)
            below, above = u[i - 1] if i > 0 else 0.0, u[i + 1] if i < n - 1 else 0.0
            theta_bar[0] += lam[i] * (n + 1) ** 2 * (below - 2.0 * u[i] + above)

    shape = np.sin(np.pi * np.arange(1, n + 1) / (n + 1))
    rate = 2.0 * (n + 1) ** 2 * (1.0 - np.cos(np.pi / (n + 1)))
    for atol in (1e-9, 1e-6):
        gradient = value_and_gradient(Dynamics(rod_f, rod_vjp), FinalState(shape), (0.0, 1.0), method="auto", atol=atol)
        _, bar = gradient(shape, [0.1])
        np.testing.assert_allclose(bar.u0, np.exp(-0.1 * rate) * shape, rtol=1e-3)
        assert bar.theta[0] == pytest.approx(-rate * np.exp(-0.1 * rate) * shape @ shape, rel=1e-4)


@pytest.mark.parametrize("method", ["Tsit5", "RK45", "DOP853"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_estimate_within_a_factor_of_ten(name, method):
    problem = PROBLEMS[name]()
    for tol in (1e-6, 1e-8, 1e-10):
        _, bar = problem.value_and_gradient(method=method, rtol=tol, atol=tol)()
        exact = problem.reference["u0"], problem.reference["theta"]
        true = tol * units(bar, exact, problem.u0, problem.theta, tol)
        assert true < 100.0 * tol
        assert 0.1 * true < bar.error["theta"] < 10.0 * true or bar.stats.n_refined > 0


def alike(error, true, unit):
    """Within a factor of ten, or both less than a unit."""
    return 0.1 * true < error < 10.0 * true or max(error, true) < unit


@pytest.mark.parametrize("method", ["Tsit5", "RK45", "DOP853"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_estimate_of_the_interpolating_adjoint(name, method):
    problem = PROBLEMS[name]()
    for tol in (1e-6, 1e-8, 1e-10):
        _, bar = problem.value_and_gradient(method=method, rtol=tol, atol=tol, adjoint="interpolating")()
        true = tol * units(bar, (problem.reference["u0"], problem.reference["theta"]), problem.u0, problem.theta, tol)
        assert alike(bar.error["theta"], true, tol) and 0.0 < bar.error["u0"] <= bar.error["theta"]


@pytest.mark.parametrize("method", ["Tsit5", "BS3", "DOP853", "auto"])
@pytest.mark.parametrize("name", CASES)
def test_interpolating_adjoint_where_steps_are_not_those_of_lam(name, method):
    rtol, (dynamics, value, u0, theta, T) = 1e-6, CASES[name]
    exact = complex_step(lambda u, th: value(u, th, T), [np.array(u0), np.array(theta)])
    options = {"method": method, "rtol": rtol, "atol": 1e-3 * rtol, "adjoint": "interpolating"}
    _, bar = value_and_gradient(dynamics, FinalState([1.0]), (0.0, T), **options)(u0, theta)
    true = units(bar, exact, u0, theta, rtol)
    assert true < 100.0 and bar.error["theta"] > 0.1 * rtol * (true if true > 1.0 else 0.0)
    if not (name in ("following fast", "rest for long") and method != "auto"):  # at the limit of stability it is too large
        assert bar.error["theta"] < 20.0 * rtol * max(true, 1.0)


def test_estimate_of_the_interpolating_adjoint_in_every_way():
    """Of a pullback, on a budget of memory, with tolerances of its own; not of fixed steps."""
    loss, inputs, options = FinalState([1.0, 1.0]), (LV_U0, LV_THETA), {"adjoint": "interpolating"}
    _, bar = value_and_gradient(lotka_volterra(), loss, LV_SPAN, **options)(*inputs)
    for memory in (None, "20kB"):
        pulled = solve(lotka_volterra(), *inputs, LV_SPAN, memory=memory).pullback([1.0, 1.0], **options)
        assert pulled.error == pytest.approx(bar.error, rel=1e-6)
    _, loose = value_and_gradient(lotka_volterra(), loss, LV_SPAN, adjoint_rtol=1e-4, adjoint_atol=1e-4, **options)(*inputs)
    assert loose.error["theta"] > 20.0 * bar.error["theta"]
    assert value_and_gradient(lotka_volterra(), loss, LV_SPAN, step=0.01, **options)(*inputs)[1].error is None


def test_what_passes_is_not_refined():
    """The reference problems take the steps that they took; a gradient takes no evaluation more than the transpose needs."""
    problem = PROBLEMS["lv_final"]()
    for method in ("Tsit5", "RK45", "Vern7"):
        options = {"method": method, "rtol": 1e-8, "atol": 1e-8}
        _, bar = problem.value_and_gradient(**options)()
        assert bar.stats.n_refined == 0 and bar.stats.n_steps == problem.solve(**options).stats.n_steps
    _, bar = value_and_gradient(lotka_volterra(), FinalState([1.0, 1.0]), LV_SPAN)(LV_U0, LV_THETA)
    assert bar.stats.n_vjp == 6 * bar.stats.n_steps + 1
    _, bar = value_and_gradient(lorenz_dynamics(), LORENZ_LOSS, LORENZ_SPAN, rtol=1e-8, atol=1e-8)(
        [1.0, 1.0, 1.0], [10.0, 28.0, 2.7]
    )
    assert bar.stats.n_refined == 0


def _wrong(seeds, methods, adjoint="discrete"):
    found = outcomes(seeds, methods, adjoint)
    assert sum(one in ("refused", "unknown") for one in found.values()) < 0.02 * len(found) + 1
    return [seed for seed, one in found.items() if one == "wrong"]


def test_random_problems():
    assert _wrong(range(160), ("Tsit5", "RK45", "Vern7", "Radau")) == []


@pytest.mark.slow
@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
@pytest.mark.parametrize(
    "methods", [("Tsit5", "RK45", "DOP853", "Vern7", "BS3"), ("Radau", "Kvaerno5", "TRBDF2", "auto")], ids=["explicit", "implicit"]
)
def test_many_random_problems(methods, adjoint):
    """But for a few: where the error is that of u, or where J has a feature that is narrower than a step."""
    assert len(_wrong(range(1000), methods, adjoint)) <= 8


@pytest.mark.slow
@pytest.mark.parametrize("has_cost", [False, True], ids=["observations", "cost"])
@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
@pytest.mark.parametrize("methods", [("Tsit5", "DOP853", "Vern7"), ("Radau", "Kvaerno5", "auto")], ids=["explicit", "implicit"])
def test_random_losses(methods, adjoint, has_cost):
    """Observations or a running cost, and cotangents of times: but for a few, which are chaotic, or f has the error of a fast u."""
    found = random_losses.outcomes(range(480), methods, adjoint, has_cost).values()
    assert sum(one == "wrong" for one, _ in found) <= 2 and sum(one == "refused" for one, _ in found) == 0
    assert sum(not times for _, times in found) <= 4


@pytest.mark.parametrize("rate", [1.0, -1.0], ids=["growth", "decay"])
@pytest.mark.parametrize("method", ["BS3", "RK45", "Tsit5", "Vern7", "Kvaerno5", "TRBDF2"])
def test_errors_that_last(method, rate):
    """Over forty factors of e each step's relative error remains in theta_bar, and the estimate is that of all."""
    u0, theta, exact = np.array([1.0]), np.array([rate]), np.exp(40.0 * rate)
    evaluate = value_and_gradient(GROWTH, FinalState([1.0]), (0.0, 40.0), method=method, rtol=1e-6, atol=1e-30)
    _, bar = evaluate(u0, theta)
    error = abs(bar.theta[0] / (40.0 * exact) - 1.0)
    assert 0.25 * error < bar.error["theta"] < 10.0 * error < 1e-3


def test_errors_that_add_up_over_many_decades():
    """What many steps of TRBDF2 come to, each good enough: all of them are shortened, once."""
    rtol, T = 1e-4, 150.0
    _, bar = value_and_gradient(GROWTH, FinalState([1.0]), (0.0, T), method="TRBDF2", rtol=rtol, atol=1e-30)([1.0], [1.0])
    error = abs(bar.theta[0] / (T * np.exp(T)) - 1.0) / rtol
    assert error < 60.0 and 0.5 * error < bar.error["theta"] / rtol < 2.0 * error and bar.stats.n_refined == 1


@pytest.mark.parametrize("method", ["BS3", "Tsit5", "TRBDF2"])
def test_growth_of_lam_where_there_is_nothing(method):
    """There is no theta_bar for errors to remain in, but dL/du0 has them all."""
    _, bar = value_and_gradient(GROWTH, FinalState([1.0]), (0.0, 20.0), method=method, atol=1e-9)([0.0], [1.0])
    error = abs(bar.u0[0] / np.exp(20.0) - 1.0) / 1e-6
    assert error < 100.0 and 0.1 * error < bar.error["u0"] / 1e-6 < 100.0 and bar.theta[0] == 0.0


@pytest.mark.parametrize("method", ["Radau", "Kvaerno5", "Tsit5"])
def test_steps_that_are_not_judged_are_counted(method):
    """Of steps alike half are judged, or a quarter of many explicit ones; and errors last, carried over one step or over two."""
    u0, theta, span, rtol, weights = OSCILLATOR.u0, OSCILLATOR.theta, (0.0, 30.0), 1e-6, [1.0, 0.5]
    evaluate = value_and_gradient(OSCILLATOR.dynamics, FinalState(weights), span, method=method, rtol=rtol, atol=1e-9)
    _, bar = evaluate(u0, theta)
    true = rtol * units(bar, OSCILLATOR.cotangents(np.array(weights), span)[:2], u0, theta, rtol)
    assert bar.stats.n_steps > 100 and bar.stats.n_refined == 0
    assert true < bar.error["theta"] < 4.0 * true < 100.0 * rtol


def test_more_is_counted_than_there_are_steps():
    """Of steps that differ in size each is judged, of others one that counts for more: both may come together."""
    problem = random_problem(6429)
    options = {"method": "BS3", "rtol": 1e-6, "atol": 1e-9 * problem.u_size}
    _, bar = value_and_gradient(family(), FinalState(problem.weights), problem.t_span, **options)(problem.u0, problem.theta)
    assert problem.error(bar.u0, bar.theta, problem.exact()) < 1e-4


def test_a_small_part_of_lam_that_decays_fast():
    """An estimate that is raised to a high power hides it behind a slow one, and much longer steps than those behind err in it."""
    problem = random_problem(7766)
    options = {"method": "Vern9", "rtol": 1e-8, "atol": 1e-11 * problem.u_size}
    _, bar = value_and_gradient(family(), FinalState(problem.weights), problem.t_span, **options)(problem.u0, problem.theta)
    assert problem.error(bar.u0, bar.theta, problem.exact()) < 1e-6
