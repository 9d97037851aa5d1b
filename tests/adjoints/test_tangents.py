"""Tangents: the dual of the discrete adjoint to rounding, for every method; against closed forms and differences; their work."""

import copy
import pickle

import cloudpickle
import numpy as np
import pytest

import adjode.passes.tangents
from adjode import Dynamics, SolveError, solve
from adjode.status import Status
from benchmarks.problems import lv_f, lv_vjp
from tests.problems.duality import assert_the_same_at_all_times, off_duality
from tests.problems.mass_systems import CHAIN_THETA, CHAIN_U0, CUBIC_THETA, CUBIC_U0, FULL, chain_f, chain_vjp, conserved, cubic
from tests.problems.methods import TRANSPOSED
from tests.problems.stiff_systems import ROBERTSON_THETA, ROBERTSON_U0, pushed_van_der_pol, robertson, van_der_pol
from tests.problems.systems import CLOSED_FORMS, DECAY, LV_THETA, LV_U0, OSCILLATOR, lotka_volterra

EXPLICIT = ["Tsit5", "DOP853", "RK45", "BS3", "Vern7", "Vern9"]
STIFF_OPTIONS = {"rtol": 1e-6, "atol": 1e-10}


@pytest.fixture
def iterated(monkeypatch):
    """Stages of implicit methods are solved for by GMRES, however small."""
    monkeypatch.setattr(adjode.passes.tangents, "_solves_directly", lambda *given: False)


# --- duality ----------------------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:.*too long for its adjoint")
@pytest.mark.parametrize("options", [{}, {"stops": [0.7, 1.3]}, {"step": 0.1}], ids=["", "stops", "fixed"])
@pytest.mark.parametrize("span", [(0.0, 2.0), (2.0, 0.0)], ids=["forwards", "backwards"])
@pytest.mark.parametrize("method", [*EXPLICIT, *TRANSPOSED])
def test_dual_of_the_discrete_adjoint(method, span, options):
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, span, method=method, **options)
    for directions in (1, 3, 9, 40):
        assert off_duality(solution, directions) < 1e-13


@pytest.mark.filterwarnings("ignore:.*too long for its adjoint")
@pytest.mark.parametrize("stops", [(), (0.5, 40.0)], ids=["", "stops"])
@pytest.mark.parametrize("method", [*TRANSPOSED, "auto"])
def test_dual_on_a_stiff_problem(method, stops):
    solution = solve(robertson(), ROBERTSON_U0, ROBERTSON_THETA, (0.0, 1e4), method=method, stops=stops, **STIFF_OPTIONS)
    assert off_duality(solution, 1) < 1e-13
    assert off_duality(solution, 5) < 1e-13


@pytest.mark.filterwarnings("ignore:.*too long for its adjoint")
@pytest.mark.parametrize("method", [*TRANSPOSED, "auto"])
def test_dual_on_a_stiff_problem_by_iterations(method, iterated):
    solution = solve(robertson(), ROBERTSON_U0, ROBERTSON_THETA, (0.0, 1e4), method=method, **STIFF_OPTIONS)
    assert off_duality(solution, 2) < 1e-13
    assert solution.pushforward(np.eye(3)[0]).stats.n_iterations > 0


def test_dual_where_methods_switch():
    solution = solve(van_der_pol(), [2.0, -0.6], [50.0], (0.0, 45.0), method="auto")
    assert solution.stats.n_switch > 1
    assert off_duality(solution, 1) < 1e-12
    assert off_duality(solution, 4) < 1e-12
    assert off_duality(solution, 40) < 1e-12


def test_many_directions_where_methods_switch_and_stages_are_iterated(iterated):
    solution = solve(van_der_pol(), [2.0, -0.6], [50.0], (0.0, 45.0), method="auto")
    assert solution.pushforward(np.eye(2)).stats.n_iterations > 0
    assert off_duality(solution, 40) < 1e-12


def massed():
    return [
        (conserved(), ROBERTSON_U0, ROBERTSON_THETA, (0.0, 1e4), STIFF_OPTIONS),
        (cubic(), CUBIC_U0, CUBIC_THETA, (0.0, 2.0), {}),
        (Dynamics(chain_f, chain_vjp, mass=FULL), CHAIN_U0, CHAIN_THETA, (0.2, 1.0), {}),
    ]


@pytest.mark.parametrize("k", range(3))
def test_dual_with_a_mass_matrix(k, monkeypatch):
    dynamics, u0, theta, span, options = massed()[k]
    solution = solve(dynamics, u0, theta, span, method="Radau", **options)
    assert off_duality(solution, 2) < 1e-13
    monkeypatch.setattr(adjode.passes.tangents, "_solves_directly", lambda *given: False)
    assert off_duality(solution, 2) < 1e-13


# --- what they are ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("problem", CLOSED_FORMS, ids=lambda problem: problem.name)
def test_of_closed_forms(problem):
    rng, (t0, T) = np.random.default_rng(1), problem.t_span
    u0_dot, theta_dot = rng.normal(size=problem.u0.size), rng.normal(size=problem.theta.size)
    solution = solve(problem.dynamics, problem.u0, problem.theta, problem.t_span, rtol=1e-9, atol=1e-11)
    times = np.array([t0, 0.3 * t0 + 0.7 * T, T])
    dots = solution.pushforward(u0_dot, theta_dot, times)
    for t, got in zip(times, dots.u, strict=True):
        exact = problem.final(problem.u0 + 1e-30j * u0_dot, problem.theta + 1e-30j * theta_dot, t0, t).imag / 1e-30
        np.testing.assert_allclose(got, exact, rtol=0, atol=100 * 1e-9 * np.abs(exact).max())
    np.testing.assert_array_equal(dots.u[-1], dots.u_T)


@pytest.mark.parametrize("method", ["Radau", "Kvaerno5", "auto"])
def test_of_a_stiff_problem_by_another_solver(method):
    start, mu, T = (2.0, -0.6), 50.0, 30.0
    wanted = pushed_van_der_pol(start, mu, T)
    solution = solve(van_der_pol(), start, [mu], (0.0, T), method=method, rtol=1e-9, atol=1e-11)
    dots = solution.pushforward(np.eye(2, 3), np.eye(3)[2:])
    np.testing.assert_allclose(dots.u_T, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("method", ["Tsit5", "DOP853", "Radau", "Kvaerno5"])
def test_of_the_numbers_computed(method):
    """Differences of fixed steps: extrapolated, so that what is left is rounding."""
    options = {"method": method, "step": 0.25, "rtol": 1e-13, "atol": 1e-13}
    direction, times = np.array([0.3, -1.0, 0.5]), [1.234, 3.0]

    def states(s):
        return solve(OSCILLATOR.dynamics, OSCILLATOR.u0, OSCILLATOR.theta + s * direction, (0.5, 4.0), **options)(times)

    quotients = [(states(h) - states(-h)) / (2 * h) for h in (2e-3, 1e-3)]
    wanted = quotients[1] + (quotients[1] - quotients[0]) / 3
    solution = solve(OSCILLATOR.dynamics, OSCILLATOR.u0, OSCILLATOR.theta, (0.5, 4.0), **options)
    np.testing.assert_allclose(solution.pushforward(None, direction, times).u, wanted, rtol=0, atol=2e-10)


def test_many_directions_are_what_each_is_alone():
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, (0.0, 3.0), method="DOP853")
    rng, times = np.random.default_rng(2), [0.0, 1.1, 2.2, 1.1]
    U, W = rng.normal(size=(2, 3)), rng.normal(size=(4, 3))
    together = solution.pushforward(U, W, times)
    assert together.u_T.shape == (2, 3) and together.u.shape == (4, 2, 3)
    np.testing.assert_array_equal(together.times, times)
    for k in range(3):
        alone = solution.pushforward(U[:, k], W[:, k], times)
        np.testing.assert_allclose(alone.u, together.u[..., k], rtol=0, atol=1e-12)
        np.testing.assert_allclose(alone.u_T, together.u_T[:, k], rtol=0, atol=1e-12)


def test_ends_that_move():
    """Of a decay: d(u0 exp(-k (T - t0))) by t0 and T, alone and as columns."""

    def decay(t, u, theta, du):
        du[0] = -theta[0] * u[0]

    solution = solve(Dynamics(decay), [2.0], [0.7], (1.0, 3.0), rtol=1e-10, atol=1e-12)
    dots = solution.pushforward(t0_dot=1.0, T_dot=0.5, times=[1.0, 2.0])
    np.testing.assert_allclose(dots.u_T, 0.5 * 0.7 * 2.0 * np.exp(-1.4), rtol=1e-8)
    np.testing.assert_allclose(dots.u[:, 0], [0.0, 0.7 * 2.0 * np.exp(-0.7)], rtol=1e-8)
    many = solution.pushforward(T_dot=[1.0, 2.0])
    np.testing.assert_allclose(many.u_T[0], -0.7 * 2.0 * np.exp(-1.4) * np.array([1.0, 2.0]), rtol=1e-8)
    for wrong, message in (
        ({"t0_dot": [1.0, 2.0], "u0_dot": [1.0]}, "must be numbers"),
        ({"T_dot": np.nan}, "T_dot must be a finite"),
    ):
        with pytest.raises(ValueError, match=message):
            solution.pushforward(**wrong)


# --- at all times -----------------------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:.*too long for its adjoint")
@pytest.mark.parametrize("span", [(0.0, 2.0), (2.0, 0.0)], ids=["forwards", "backwards"])
@pytest.mark.parametrize("method", [*EXPLICIT, *TRANSPOSED])
def test_dense_output(method, span):
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, span, method=method, stops=[0.7])
    for directions in (None, 3, 40):
        assert_the_same_at_all_times(solution, directions)


def test_dense_output_where_methods_switch():
    solution = solve(van_der_pol(), [2.0, -0.6], [50.0], (0.0, 45.0), method="auto")
    assert_the_same_at_all_times(solution, 2)


def test_dense_output_has_the_order_of_the_method():
    """Between the ends of steps too: of Vern9, at steps of which the cubic through their ends would be off by 1e-4."""
    solution = solve(OSCILLATOR.dynamics, OSCILLATOR.u0, OSCILLATOR.theta, (0.5, 4.0), method="Vern9", rtol=1e-12, atol=1e-12)
    dots, direction = solution.pushforward(None, np.eye(3), dense=True), np.array([0.3, -1.0, 0.5])
    for t in 0.5 * (solution.t[1:] + solution.t[:-1]):
        exact = OSCILLATOR.final(OSCILLATOR.u0, OSCILLATOR.theta + 1e-30j * direction, 0.5, t).imag / 1e-30
        np.testing.assert_allclose(dots.dense(t) @ direction, exact, rtol=0, atol=1e-9 * np.abs(exact).max())
    with pytest.raises(ValueError, match=r"t must lie in the span|inside|outside"):
        dots.dense(5.0)
    with pytest.raises(ValueError, match="side"):
        dots.dense(1.0, side="before")


def test_names_and_spans_of_no_length():
    names = {"u0": {"prey": 1.0, "predators": 1.0}, "theta": dict(zip("abcd", LV_THETA, strict=True))}
    solution = solve(lotka_volterra(), **names, t_span=(0.0, 1.0))
    by_name = solution.pushforward({"prey": 1.0, "predators": 0.0}, dict(zip("abcd", [0.0, 1.0, 0.0, 0.0], strict=True)))
    by_place = solution.pushforward([1.0, 0.0], [0.0, 1.0, 0.0, 0.0])
    np.testing.assert_array_equal(by_name.u_T, by_place.u_T)
    still = solve(lotka_volterra(), LV_U0, LV_THETA, (1.0, 1.0)).pushforward([1.0, 2.0], None, [1.0])
    np.testing.assert_array_equal(still.u, [[1.0, 2.0]])
    np.testing.assert_array_equal(still.u_T, [1.0, 2.0])
    still = solve(lotka_volterra(), LV_U0, LV_THETA, (1.0, 1.0)).pushforward([1.0, 2.0], dense=True)
    np.testing.assert_array_equal(still.dense([1.0]), [[1.0, 2.0]])


# --- work ------------------------------------------------------------------------------------------------------------------------
def wide(n=20):
    def f(t, u, theta, du):
        for i in range(u.size):
            du[i] = -theta[0] * u[i] * u[i] + theta[1] * u[(i + 7) % u.size]

    return Dynamics(f), np.linspace(0.5, 1.5, n), np.array([1.0, 0.7])


@pytest.mark.parametrize("method", ["Radau", "Kvaerno5"])
def test_a_step_is_factored_once_for_all_directions(method):
    dynamics, u0, theta = wide()
    solution = solve(dynamics, u0, theta, (0.0, 1.0), method=method)
    stages = 1 if method == "Radau" else 6
    for k in (10, 32):
        stats = solution.pushforward(np.ones((20, k))).stats
        assert stats.n_lu == stages * solution.stats.n_steps
        # matrices of unit vectors, and right-hand sides, of its stages; and the slope at the start
        assert stats.n_jvp == k + (20 + k) * (3 if method == "Radau" else 6) * solution.stats.n_steps
        assert stats.n_vjp == stats.n_iterations == 0
    alone = solve(Dynamics(dynamics.f.given, jvp=dynamics.jvp.given), u0, theta, (0.0, 1.0), method=method)
    stats = alone.pushforward(np.ones((20, 10))).stats
    # the rows of these matrices; and the slope at the start
    assert stats.n_vjp == 20 * (1 + (3 if method == "Radau" else 6) * alone.stats.n_steps)
    assert stats.n_jvp == stats.n_iterations == 0


def test_explicit_steps_take_each_direction_once_and_without_a_jvp_no_more_than_matrices():
    dynamics, u0, theta = wide()
    solution = solve(dynamics, u0, theta, (0.0, 1.0))
    slopes = 1 + 6 * solution.stats.n_steps
    few, many = solution.pushforward(np.ones((20, 3))).stats, solution.pushforward(np.ones((20, 100))).stats
    assert (few.n_jvp, few.n_vjp) == (3 * slopes, 0)
    assert (many.n_jvp, many.n_vjp) == (100 * slopes, 0)
    assert few.n_f == many.n_f == 6 * solution.stats.n_steps
    alone = solve(Dynamics(dynamics.f.given, jvp=dynamics.jvp.given), u0, theta, (0.0, 1.0))
    few, many = alone.pushforward(np.ones((20, 3))).stats, alone.pushforward(np.ones((20, 100))).stats
    assert (few.n_jvp, few.n_vjp) == (3 * slopes, 0)
    assert (many.n_jvp, many.n_vjp) == (0, 20 * slopes)


@pytest.mark.parametrize("method", ["Tsit5", "Radau", "auto"])
def test_directions_in_which_theta_is_constant_are_what_they_are_among_others(method):
    dynamics, u0, theta = wide()
    solution, rng = solve(dynamics, u0, theta, (0.0, 1.0), method=method), np.random.default_rng(5)
    U, W = rng.normal(size=(20, 40)), np.zeros((2, 40))
    W[:, -1] = 1.0
    alone, among = solution.pushforward(U, times=[0.3]), solution.pushforward(U, W, times=[0.3])
    np.testing.assert_allclose(alone.u[..., :-1], among.u[..., :-1], rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(alone.u_T[:, :-1], among.u_T[:, :-1], rtol=1e-13, atol=1e-14)
    assert np.abs(alone.u_T[:, -1] - among.u_T[:, -1]).max() > 0.1
    assert alone.stats == among.stats


def test_iterations_share_factors(iterated):
    dynamics, u0, theta = wide()
    solution = solve(dynamics, u0, theta, (0.0, 1.0), method="Radau")
    one, many = solution.pushforward(np.ones(20)).stats, solution.pushforward(np.random.default_rng(0).normal(size=(20, 8))).stats
    assert many.n_lu <= one.n_lu + 4 and many.n_jac <= one.n_jac + 2
    assert one.n_iterations < 12 * solution.stats.n_steps


# --- jvp --------------------------------------------------------------------------------------------------------------------------
def lv_jvp(t, u, theta, v, w, du_dot):
    x, y = u[0], u[1]
    du_dot[0] = (theta[0] - theta[1] * y) * v[0] - theta[1] * x * v[1] + w[0] * x - w[1] * x * y
    du_dot[1] = theta[3] * y * v[0] + (theta[3] * x - theta[2]) * v[1] - w[2] * y + w[3] * x * y


def lv_returning(t, u, theta, v, w):
    x, y = u
    rate = (theta[0] - theta[1] * y) * v[0] - theta[1] * x * v[1] + w[0] * x - w[1] * x * y
    return np.array([rate, theta[3] * y * v[0] + (theta[3] * x - theta[2]) * v[1] - w[2] * y + w[3] * x * y])


def test_jvp_by_hand_in_either_form():
    derived = solve(lotka_volterra(), LV_U0, LV_THETA, (0.0, 1.0)).pushforward([1.0, 0.0], [0.0, 1.0, 2.0, 3.0])
    for jvp in (lv_jvp, lv_returning):
        given = Dynamics(lv_f, lv_vjp, jvp=jvp)
        assert "with jvp" in repr(given) and given.jvp.given is jvp
        dots = solve(given, LV_U0, LV_THETA, (0.0, 1.0)).pushforward([1.0, 0.0], [0.0, 1.0, 2.0, 3.0])
        np.testing.assert_allclose(dots.u_T, derived.u_T, rtol=1e-13)


def test_a_jvp_takes_fields_and_is_pickled():
    def f(t, u, theta, du):
        du.prey = theta.growth * u.prey - theta.hunting * u.prey * u.predators
        du.predators = -u.predators + u.prey * u.predators

    def jvp(t, u, theta, v, w, du_dot):
        du_dot.prey = theta.growth * v.prey - theta.hunting * (v.prey * u.predators + u.prey * v.predators)
        du_dot.prey += w.growth * u.prey - w.hunting * u.prey * u.predators
        du_dot.predators = -v.predators + v.prey * u.predators + u.prey * v.predators

    names = {"states": ("prey", "predators"), "parameters": ("growth", "hunting")}
    problem = {"prey": 1.0, "predators": 2.0}, {"growth": 1.0, "hunting": 0.7}, (0.0, 2.0)
    given, derived = Dynamics(f, jvp=jvp, **names), Dynamics(f, **names)
    wanted = solve(derived, *problem).pushforward(*problem[:2]).u_T
    for dynamics in (given, copy.deepcopy(given), pickle.loads(cloudpickle.dumps(given))):
        assert dynamics.jvp.given.__name__ == "jvp"
        np.testing.assert_allclose(solve(dynamics, *problem).pushforward(*problem[:2]).u_T, wanted, rtol=1e-12)


def test_a_wrong_jvp_is_found():
    def wrong(t, u, theta, v, w, du_dot):
        du_dot[0] = (theta[0] - theta[1] * u[1]) * v[0] - theta[1] * u[0] * v[1] + w[0] * u[0]
        du_dot[1] = theta[3] * u[1] * v[0] + (theta[3] * u[0] - theta[2]) * v[1] - w[2] * u[1] + w[3] * u[0] * u[1]

    solution = solve(Dynamics(lv_f, lv_vjp, jvp=wrong), LV_U0, LV_THETA, (0.0, 1.0))
    with pytest.raises(ValueError, match=r"the jvp of lv_f does not agree with it.* jvp gives .*differences of f"):
        solution.pushforward([1.0, 0.0])


def test_a_jvp_that_leaves_its_arrays_or_an_entry_is_found():
    def beyond(t, u, theta, v, w, du_dot):
        du_dot[0] = w[7]
        du_dot[1] = 0.0

    def forgets(t, u, theta, v, w, du_dot):
        du_dot[0] = v[0]

    for jvp, found in ((beyond, "indexes an array out of bounds"), (forgets, "du_dot")):
        solution = solve(Dynamics(lv_f, lv_vjp, jvp=jvp), LV_U0, LV_THETA, (0.0, 1.0))
        with pytest.raises(ValueError, match=f"jvp .*{found}"):
            solution.pushforward([1.0, 0.0])


def many_f(t, u, theta, du):
    order = np.argsort(u)  # which is not derived
    for i in range(u.size):
        du[i] = -theta[0] * u[i] + 0.0 * order[i]


def many_vjp(t, u, theta, lam, u_bar, theta_bar):
    theta_bar[0] = 0.0
    for i in range(u.size):
        u_bar[i] = -theta[0] * lam[i]
        theta_bar[0] -= u[i] * lam[i]


def test_without_a_jvp_there_are_vjps_or_a_sentence():
    dynamics = Dynamics(many_f, many_vjp)
    solution = solve(dynamics, [1.0, 2.0], [0.5], (0.0, 2.0), rtol=1e-9, atol=1e-11)
    dots = solution.pushforward(None, [1.0])
    assert dynamics.jvp is None and dots.stats.n_jvp == 0
    np.testing.assert_allclose(dots.u_T, -2.0 * np.exp(-1.0) * np.array([1.0, 2.0]), rtol=1e-7)
    assert off_duality(solve(dynamics, [1.0, 2.0], [0.5], (0.0, 2.0), method="Radau"), 1) < 1e-13
    large = solve(dynamics, np.ones(300), [0.5], (0.0, 2.0))
    with pytest.raises(
        ValueError, match=r"^tangents of 300 states need a jvp, and none can be derived \(.*\): give Dynamics a jvp"
    ):
        large.pushforward(None, [1.0])


@pytest.mark.slow  # compiles passes of its own
def test_fused_dynamics_have_tangents():
    fused = solve(Dynamics(lv_f, lv_vjp, fused=True), LV_U0, LV_THETA, (0.0, 1.0))
    wanted = solve(lotka_volterra(), LV_U0, LV_THETA, (0.0, 1.0)).pushforward([1.0, 2.0])
    np.testing.assert_allclose(fused.pushforward([1.0, 2.0]).u_T, wanted.u_T, rtol=1e-9)


# --- errors -----------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, None), "give u0_dot, theta_dot, or both"),
        (([1.0],), "u0_dot must have"),
        ((np.ones((3, 2)),), r"u0_dot must have 2 rows and a column for each direction, but its shape is \(3, 2\)"),
        ((np.ones((2, 2)), np.ones((4, 3))), "u0_dot and theta_dot must have the same number of columns"),
        (([1.0, 1.0], np.ones((4, 1))), "u0_dot and theta_dot must have the same number of columns"),
        ((np.full((2, 2), np.nan),), "u0_dot must be finite"),
        (([1.0, 1.0], None, [5.0]), "times"),
    ],
)
def test_bad_directions_are_refused(given, message):
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, (0.0, 1.0))
    with pytest.raises(ValueError, match=message):
        solution.pushforward(*given)


def test_what_has_no_tangents_says_so():
    with pytest.raises(ValueError, match="tangents of Rodas5P would need second derivatives"):
        solve(lotka_volterra(), LV_U0, LV_THETA, (0.0, 1.0), method="Rodas5P").pushforward([1.0, 0.0])
    short = solve(lotka_volterra(), LV_U0, LV_THETA, (0.0, 10.0), memory=2500)
    with pytest.raises(ValueError, match="tangents need all steps"):
        short.pushforward([1.0, 0.0])


def test_steps_too_long_for_tangents_are_made_shorter_or_told_of():
    """At rest nothing limits the steps, and du(T)/du0 = e^20 is as far off as they are long."""

    def f(t, u, theta, du):
        du[0] = theta[0] * u[0]

    dynamics = Dynamics(f)
    resting = solve(dynamics, [0.0], [1.0], (0.0, 20.0))
    with pytest.warns(RuntimeWarning, match="too long for its adjoint"):
        wrong = resting.pushforward([1.0], on_inaccurate="warn").u_T[0]
    assert abs(wrong / np.exp(20.0) - 1.0) > 1e-3
    with pytest.raises(SolveError, match="too long for its adjoint"):
        resting.pushforward([1.0], on_inaccurate="raise")
    for method in ("Tsit5", "DOP853", "auto"):
        solution = solve(dynamics, [0.0], [1.0], (0.0, 20.0), method=method)
        assert solution.pushforward([1.0]).u_T[0] == pytest.approx(np.exp(20.0), rel=1e-4)  # 100 times rtol


def test_what_a_callback_raises_is_told():
    def jvp(t, u, theta, v, w, du_dot):
        if t > 0.5:
            raise ValueError("too late")
        du_dot[0] = -theta[0] * v[0] - w[0] * u[0]

    def f(t, u, theta, du):
        du[0] = -theta[0] * u[0]

    solution = solve(Dynamics(f, jvp=jvp), [1.0], [1.0], (0.0, 1.0), max_step=0.01)
    with pytest.raises(SolveError, match=r"^the tangent solve stopped at t = 0\.[45].* raised ValueError: too late"):
        solution.pushforward([1.0])


def test_a_pass_that_overflows_raises():
    solution = solve(DECAY.dynamics, DECAY.u0, -50.0 * np.ones(7), (0.0, 1.0))
    with pytest.raises(SolveError, match="the tangent solve stopped") as raised:
        solution.pushforward(np.full(7, 1e300), None)
    assert raised.value.status == Status.NON_FINITE and raised.value.phase == "tangent"
