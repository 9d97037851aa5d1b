"""`residuals_and_jacobian`: residuals as the loss has them, a Jacobian whose J^T r is the adjoint's gradient, and differences."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import adjode
from adjode import Doses, SolveError, residuals_and_jacobian, value_and_gradient
from adjode.losses import FinalState, Gaussian, LeastSquares, Likelihood, LogNormal, Observables
from adjode.passes.program import Program
from adjode.status import Status
from benchmarks.problems import lv_f, lv_vjp
from tests.problems.hybrid import (
    BALL_EVENTS,
    BALL_THETA,
    BALL_U0,
    BOUNCE,
    HUNT_SPAN,
    HUNT_THETA,
    HUNT_U0,
    PK_DOSES,
    PK_SPAN,
    PK_THETA,
    PK_U0,
    TWO_THETA,
    ball,
    drug,
    drug_at,
    hunt,
    hunt_jumps,
    two_compartments,
)
from tests.problems.methods import TRANSPOSED
from tests.problems.stiff_systems import ROBERTSON_THETA, ROBERTSON_U0, robertson
from tests.problems.systems import LV_THETA, LV_U0, lotka_volterra

SPAN, TIMES = (0.0, 4.0), np.array([0.0, 3.0, 1.0, 4.0, 1.0, 2.2])
rng = np.random.default_rng(0)
DATA = np.exp(rng.normal(size=(6, 2)))
DATA[1, 0] = DATA[4, 1] = np.nan
SIGMA = 0.1 + rng.uniform(size=(6, 2))


def losses():
    return {
        "plain": LeastSquares(TIMES, DATA, sigma=SIGMA),
        "log": LeastSquares(TIMES, DATA, sigma=SIGMA, log=True),
        "second": LeastSquares(TIMES, DATA[:, 1], sigma=0.5, components=[1]),
    }


def equal_to_the_gradient(dynamics, loss, span, u0, theta, **options):
    """By tangents and by adjoints, on the mesh as it is."""
    value, bar = value_and_gradient(dynamics, loss, span, on_inaccurate="warn", **options)(u0, theta)
    gradient = np.concatenate([bar.u0, bar.theta])
    for how in ("adjoints", "tangents"):
        evaluate = residuals_and_jacobian(dynamics, loss, span, jacobian=how, on_inaccurate="warn", **options)
        r, J = evaluate(u0, theta)
        assert evaluate.jacobian == how
        assert 0.5 * r @ r == pytest.approx(value, rel=1e-14)
        scale = np.abs(J * r[:, None]).sum(axis=0) if J.size else 0.0
        np.testing.assert_array_less(np.abs(J.T @ r - gradient), 1e-12 * scale + 1e-300)
    return r, J


@pytest.mark.filterwarnings("ignore:.*too long for its adjoint")
@pytest.mark.parametrize("kind", ["plain", "log", "second"])
@pytest.mark.parametrize("method", ["Tsit5", "DOP853", "RK45", "BS3", "Vern7", "Vern9", *TRANSPOSED, "auto"])
def test_the_gradient_is_that_of_the_adjoint(method, kind):
    r, J = equal_to_the_gradient(lotka_volterra(), losses()[kind], SPAN, LV_U0, LV_THETA, method=method)
    there = ~np.isnan(DATA if kind != "second" else DATA[:, 1:])
    assert r.shape == (there.sum(),) and J.shape == (there.sum(), 6)


@pytest.mark.filterwarnings("ignore:.*too long for its adjoint", "ignore:the loss compares")
@pytest.mark.parametrize("method", [*TRANSPOSED, "auto"])
def test_the_gradient_of_a_stiff_problem(method):
    loss = LeastSquares([1.0, 100.0, 1e4], [[0.9, 3e-5, 0.1], [0.6, 1e-5, 0.4], [0.2, 1e-6, 0.8]], sigma=[0.01, 1e-6, 0.01])
    equal_to_the_gradient(robertson(), loss, (0.0, 1e4), ROBERTSON_U0, ROBERTSON_THETA, method=method, atol=1e-10)


def test_the_gradient_backwards_and_with_stops():
    loss = LeastSquares(TIMES, DATA)
    equal_to_the_gradient(lotka_volterra(), loss, (4.0, 0.0), LV_U0, LV_THETA)
    equal_to_the_gradient(lotka_volterra(), loss, SPAN, LV_U0, LV_THETA, stops=[1.0, 2.5])


def totals(t, u, theta, y):
    y[0] = theta[0] * (u[0] + u[1]) + t
    y[1] = u[0] / u[1]


def totals_vjp(t, u, theta, y_bar, u_bar, theta_bar):
    u_bar[0] = theta[0] * y_bar[0] + y_bar[1] / u[1]
    u_bar[1] = theta[0] * y_bar[0] - y_bar[1] * u[0] / u[1] ** 2
    theta_bar[:] = 0.0
    theta_bar[0] = (u[0] + u[1]) * y_bar[0]


@pytest.mark.filterwarnings("ignore:.*too long for its adjoint")
@pytest.mark.parametrize("observe", [totals, (totals, totals_vjp)], ids=["derived", "given"])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("method", ["Tsit5", "Radau"])
def test_the_gradient_of_what_is_observed(method, log, observe):
    loss = LeastSquares(TIMES, DATA, sigma=SIGMA, log=log, observe=observe)
    some = {"wrt": {"theta": [0, 3]}, "method": method, "on_inaccurate": "warn"}
    evaluate = residuals_and_jacobian(lotka_volterra(), loss, SPAN, **some)
    for backwards in (False, True):
        r, J = equal_to_the_gradient(lotka_volterra(), loss, SPAN[::-1] if backwards else SPAN, LV_U0, LV_THETA, method=method)
        assert r.shape == (10,) and J.shape == (10, 6)
        if not backwards:
            np.testing.assert_allclose(evaluate(LV_U0, LV_THETA)[1], J[:, [2, 5]], rtol=0.0, atol=1e-13 * np.abs(J).max())


@pytest.mark.parametrize("kind", ["states", "observed", "likelihood"])
def test_a_call_is_one_compiled_call(kind, monkeypatch):
    """From the solve to the Jacobian, unless it is only known by the steps what costs less."""
    several = {"observe": totals} if kind == "observed" else {"observe": Observables(totals, ["sum", "ratio"])}
    noise = {"sum": Gaussian(0.3), "ratio": LogNormal(0.2)}

    def loss_at(times):
        if kind == "likelihood":
            return Likelihood(times, {"sum": DATA[:, 0], "ratio": DATA[:, 1]}, noise, **several)
        return LeastSquares(times, DATA, sigma=SIGMA, **(several if kind == "observed" else {}))

    runs, run = [], Program.run
    monkeypatch.setattr(Program, "run", lambda self, again=False: runs.append(self) or run(self, again))
    for times, expected in ((TIMES, 1), (0.3 * TIMES, 2)):
        evaluate = residuals_and_jacobian(lotka_volterra(), loss_at(times), SPAN, wrt={"u0": True, "theta": [0, 3]})
        by_rows = residuals_and_jacobian(
            lotka_volterra(), loss_at(times), SPAN, wrt={"u0": True, "theta": [0, 3]}, jacobian="adjoints"
        )
        evaluate(LV_U0, LV_THETA)
        runs.clear()
        r, J = evaluate(LV_U0, LV_THETA)
        assert len(runs) == expected and evaluate.jacobian == "tangents"
        for one, other in zip((r, J), by_rows(LV_U0, LV_THETA), strict=True):
            np.testing.assert_allclose(one, other, rtol=0.0, atol=1e-11 * np.abs(one).max())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["Tsit5", "DOP853"])
def test_directions_of_the_fused_tier_go_in_fours(method):
    for wrt in ({"theta": [0, 1, 3]}, {"u0": True, "theta": [2, 0, 1]}, ("u0", "theta")):
        one, other = (
            residuals_and_jacobian(adjode.Dynamics(lv_f, lv_vjp, fused=fused), losses()["log"], SPAN, wrt=wrt, method=method)
            for fused in (True, False)
        )
        (r, J), (r_other, J_other) = one(LV_U0, LV_THETA), other(LV_U0, LV_THETA)
        np.testing.assert_allclose(r, r_other, rtol=0.0, atol=1e-9 * np.abs(r).max())
        np.testing.assert_allclose(J, J_other, rtol=0.0, atol=1e-9 * np.abs(J).max())


def pk_loss():
    """At doses, within an infusion, and elsewhere."""
    times = np.array([0.0, 0.9, 2.0, 5.0, 5.5, 9.0, 12.0])
    return LeastSquares(times, [drug_at(PK_U0, PK_THETA, 0.0, t).real + 1.0 for t in times], sigma=[2.0, 3.0])


@pytest.mark.usefixtures("fixed_mesh")
@pytest.mark.parametrize("method", ["Tsit5", "Kvaerno5", "auto"])
def test_the_gradient_across_doses(method):
    equal_to_the_gradient(drug(), pk_loss(), PK_SPAN, PK_U0, PK_THETA, method=method, doses=PK_DOSES)


@pytest.mark.usefixtures("fixed_mesh")
@pytest.mark.parametrize("method", ["DOP853", "Radau"])
def test_the_gradient_across_doses_and_events(method):
    loss = LeastSquares([0.5, 1.4, 2.5, 4.0, 5.0], np.ones((5, 2)))
    equal_to_the_gradient(hunt(), loss, HUNT_SPAN, HUNT_U0, HUNT_THETA, method=method, **hunt_jumps())


def test_doses_that_have_always_been_given():
    doses = Doses(0.0, "theta[4]", 0, fraction="theta[5]", every=8.0, steady_state=True)
    loss, options = LeastSquares([0.0, 3.0, 6.0], np.ones((3, 3))), {"rtol": 1e-10, "atol": 1e-10, "doses": doses}
    r, J = residuals_and_jacobian(two_compartments(), loss, (0.0, 6.0), **options)(np.zeros(3), TWO_THETA)
    value, bar = value_and_gradient(two_compartments(), loss, (0.0, 6.0), **options)(np.zeros(3), TWO_THETA)
    assert 0.5 * r @ r == pytest.approx(value, rel=1e-14)
    np.testing.assert_array_equal(J[:, :3], 0.0)
    np.testing.assert_allclose(J[:, 3:].T @ r, bar.theta, rtol=1e-8)


def test_what_an_event_leaves_unseen_is_an_error():
    loss = LeastSquares([1.0, 8.0], [[50.0], [50.0]])
    evaluate = residuals_and_jacobian(ball(), loss, (0.0, 9.0), events=[BOUNCE, *BALL_EVENTS])
    with pytest.raises(SolveError, match="late ended the solution at t = 4.7.*, before the observation at t = 8"):
        evaluate(BALL_U0, BALL_THETA)


def test_residuals_are_in_the_order_of_the_data():
    evaluate = residuals_and_jacobian(lotka_volterra(), LeastSquares(TIMES, DATA, sigma=SIGMA), SPAN, rtol=1e-9, atol=1e-11)
    states = adjode.solve(lotka_volterra(), LV_U0, LV_THETA, SPAN, rtol=1e-9, atol=1e-11)(TIMES)
    np.testing.assert_allclose(evaluate(LV_U0, LV_THETA)[0], ((states - DATA) / SIGMA)[~np.isnan(DATA)], rtol=1e-8)


@pytest.mark.parametrize("kind", ["plain", "log"])
def test_against_differences(kind):
    evaluate = residuals_and_jacobian(lotka_volterra(), losses()[kind], SPAN, step=0.05)
    x, h = np.concatenate([LV_U0, LV_THETA]), 1e-5
    _, J = evaluate(x[:2], x[2:])
    for k, e in enumerate(np.eye(6) * h):
        difference = (evaluate((x + e)[:2], (x + e)[2:])[0] - evaluate((x - e)[:2], (x - e)[2:])[0]) / (2 * h)
        np.testing.assert_allclose(J[:, k], difference, rtol=1e-6, atol=1e-7 * np.abs(J).max())


def test_columns_are_those_asked_for():
    u0, theta = {"prey": 1.0, "predators": 1.0}, dict(zip("abcd", LV_THETA, strict=True))
    _, whole = residuals_and_jacobian(lotka_volterra(), losses()["plain"], SPAN)(u0, theta)
    for wrt, columns in (
        ("theta", [2, 3, 4, 5]),
        (("theta", "u0"), [0, 1, 2, 3, 4, 5]),
        ({"theta": ["d", "a"], "u0": [1]}, [1, 2, 5]),
        ({"theta": np.array([False, True, False, False])}, [3]),
    ):
        _, J = residuals_and_jacobian(lotka_volterra(), losses()["plain"], SPAN, wrt=wrt)(u0, theta)
        np.testing.assert_allclose(J, whole[:, columns], rtol=0, atol=1e-12 * np.abs(whole).max())


def test_rows_or_columns_are_chosen_by_what_they_cost():
    """A few residuals by many rates are pulled back, many by few pushed forward; J is the same."""
    n = 12

    def ring(t, u, theta, du):
        for i in range(u.size):
            du[i] = theta[i] * (u[(i + 1) % u.size] - u[i])

    dynamics, u0, theta = adjode.Dynamics(ring), np.linspace(0.5, 1.5, n), np.linspace(0.5, 1.5, n)
    few, many = LeastSquares([1.0], [[1.0]]), LeastSquares(np.linspace(0.1, 1.0, 20), np.ones((20, 3)))
    for loss, chosen in ((few, "adjoints"), (many, "tangents")):
        evaluate = residuals_and_jacobian(dynamics, loss, (0.0, 1.0))
        assert evaluate.jacobian == "auto"
        r, J = evaluate(u0, theta)
        assert evaluate.jacobian == chosen
        for how in ("tangents", "adjoints"):
            s, K = residuals_and_jacobian(dynamics, loss, (0.0, 1.0), jacobian=how)(u0, theta)
            np.testing.assert_array_equal(r, s)
            np.testing.assert_allclose(J, K, rtol=0.0, atol=1e-12 * np.abs(J).max())


@pytest.mark.parametrize("method", ["Tsit5", "DOP853", "Kvaerno5", "auto"])
def test_steps_that_do_not_serve_the_jacobian_are_made_shorter(method):
    """At rest the states say nothing of how long steps may be for their derivatives."""

    def exchange(t, u, theta, du):
        du[0] = theta[0] - theta[1] * u[0]

    loss, at_rest = LeastSquares([10.0], [[0.0]]), ([2.0], [2.0, 1.0])
    for how in ("tangents", "adjoints"):
        options = {"method": method, "rtol": 1e-6, "atol": 1e-9, "jacobian": how}
        _, J = residuals_and_jacobian(adjode.Dynamics(exchange), loss, (0.0, 10.0), **options)(*at_rest)
        wanted = np.array([np.exp(-10.0), 1.0 - np.exp(-10.0), -2.0 + 2.0 * np.exp(-10.0)])
        np.testing.assert_array_less(np.abs(J[0] - wanted) * [2.0, 2.0, 1.0], 100 * 1e-6 * 2.0)
        with pytest.raises(SolveError, match="too long for its adjoint"):
            residuals_and_jacobian(adjode.Dynamics(exchange), loss, (0.0, 10.0), on_inaccurate="raise", **options)(*at_rest)


def test_threads_and_copies_have_buffers_of_their_own():
    evaluate = residuals_and_jacobian(lotka_volterra(), losses()["log"], SPAN)
    places = [LV_THETA * (1.0 + 0.01 * k) for k in range(8)]
    wanted = [evaluate(LV_U0, theta) for theta in places]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda theta: evaluate(LV_U0, theta), places))
    for other in (evaluate, copy.deepcopy(evaluate), pickle.loads(pickle.dumps(evaluate))):
        found.append(other(LV_U0, places[0]))
    for got, (r, J) in zip(found, [*wanted, *wanted[:1] * 3], strict=True):
        np.testing.assert_array_equal(got[0], r)
        np.testing.assert_array_equal(got[1], J)


def test_failures_are_explained():
    evaluate = residuals_and_jacobian(lotka_volterra(), losses()["plain"], SPAN, max_steps=20)
    with pytest.raises(SolveError, match="the forward solve stopped .*cap of 20 steps"):
        evaluate(LV_U0, 100.0 * LV_THETA)
    evaluate = residuals_and_jacobian(lotka_volterra(), losses()["log"], SPAN)
    before = evaluate(LV_U0, LV_THETA)
    with pytest.raises(SolveError, match=r"the loss compares logarithms, but u\[0\] is -"):
        evaluate([-1.0, 1.0], LV_THETA)
    for found, alone in zip(evaluate(LV_U0, LV_THETA), before, strict=True):
        np.testing.assert_array_equal(found, alone)


def test_a_limit_on_time_holds():
    evaluate = residuals_and_jacobian(
        lotka_volterra(), LeastSquares([2e5], [[1.0, 1.0]]), (0.0, 2e5), max_seconds=0.05, max_steps=10**9
    )
    with pytest.raises(SolveError, match=r"the (forward|tangent) solve stopped .* longer than max_seconds = 0.05") as raised:
        evaluate(LV_U0, LV_THETA)
    assert raised.value.status == Status.TIMED_OUT


def test_bad_input_is_refused():
    with pytest.raises(TypeError, match=r"residuals need adjode\.losses\.LeastSquares, or .*, but a FinalState"):
        residuals_and_jacobian(lotka_volterra(), FinalState([1.0, 1.0]), SPAN)
    with pytest.raises(ValueError, match="leave memory out"):
        residuals_and_jacobian(lotka_volterra(), losses()["plain"], SPAN, memory="1MB")
    with pytest.raises(ValueError, match="would need second derivatives"):
        residuals_and_jacobian(lotka_volterra(), losses()["plain"], SPAN, method="Rodas5P")(LV_U0, LV_THETA)
    with pytest.raises(ValueError, match=r"wrt may name the blocks 'u0' and 'theta'"):
        residuals_and_jacobian(lotka_volterra(), losses()["plain"], SPAN, wrt="T")(LV_U0, LV_THETA)
    with pytest.raises(ValueError, match="wrt selects no entry"):
        residuals_and_jacobian(lotka_volterra(), losses()["plain"], SPAN, wrt={"theta": []})(LV_U0, LV_THETA)
    with pytest.raises(ValueError, match="t_obs"):
        residuals_and_jacobian(lotka_volterra(), losses()["plain"], (0.0, 3.0))(LV_U0, LV_THETA)


def test_rows_are_counted_in_steps_not_in_time():
    """Of times that are dense where steps are short, each row goes back over many of the steps, and tangents cost less."""
    times = np.logspace(-4, 4, 9)
    solution = adjode.solve(robertson(), ROBERTSON_U0, ROBERTSON_THETA, (0.0, 1e4), method="Radau", rtol=1e-6, atol=1e-10)
    loss = LeastSquares(times, solution(times), sigma=np.maximum(solution(times), 1e-8))
    evaluate = residuals_and_jacobian(robertson(), loss, (0.0, 1e4), method="Radau", atol=1e-10)
    r, J = evaluate(ROBERTSON_U0, ROBERTSON_THETA)
    assert evaluate.jacobian == "tangents"
    s, K = residuals_and_jacobian(robertson(), loss, (0.0, 1e4), method="Radau", atol=1e-10, jacobian="adjoints")(
        ROBERTSON_U0, ROBERTSON_THETA
    )
    np.testing.assert_array_equal(r, s)
    np.testing.assert_allclose(J, K, rtol=0.0, atol=1e-9 * np.abs(J).max())


def test_rows_or_columns_do_not_depend_on_earlier_calls():
    """Where almost nothing happens before the data a row costs little, and where it all happens there it costs more."""

    def pulse(t, u, theta, du):
        du[0] = -u[0] + theta[1] * np.exp(-((t - theta[0]) ** 2))

    loss, thetas = LeastSquares([10.0, 12.0], [[1.0], [1.0]]), (np.array([3.0, 1.0]), np.array([47.0, 1.0]))
    evaluate, ways = residuals_and_jacobian(adjode.Dynamics(pulse), loss, (0.0, 50.0)), []
    for theta in (*thetas, *thetas[::-1]):
        found = evaluate([1.0], theta)
        ways.append(evaluate.jacobian)
        alone = residuals_and_jacobian(evaluate.dynamics, loss, (0.0, 50.0))
        for one, other in zip(found, alone([1.0], theta), strict=True):
            np.testing.assert_array_equal(one, other)
        assert alone.jacobian == ways[-1]
    assert ways == ["tangents", "adjoints", "adjoints", "tangents"]


@pytest.mark.parametrize("fused", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_call_is_what_it_would_be_alone(fused):
    """Buffers that are used again, of steps that outgrow them too, and inputs that are taken as they are leave nothing behind."""
    dynamics = adjode.Dynamics(lv_f, lv_vjp, fused=fused)
    loss, span = LeastSquares([10.0, 200.0], [[1.0, np.nan], [2.0, 3.0]], sigma=[[0.1, 1.0], [0.2, 0.3]]), (0.0, 200.0)
    evaluate = residuals_and_jacobian(dynamics, loss, span, rtol=1e-6, atol=1e-6, jacobian="tangents")
    for theta in (0.1 * LV_THETA, LV_THETA, 0.1 * LV_THETA):
        fresh = residuals_and_jacobian(dynamics, loss, span, rtol=1e-6, atol=1e-6, jacobian="tangents")
        for found, alone in zip(evaluate(LV_U0, theta), fresh(list(LV_U0), list(theta)), strict=True):
            np.testing.assert_array_equal(found, alone)
    solution = adjode.solve(dynamics, LV_U0, LV_THETA, span, rtol=1e-6, atol=1e-6)
    assert solution.t.size > 513  # more than there is room for at first
    for bad in (LV_THETA * 1j, np.array([np.nan, 1.0, 1.0, 1.0])):
        with pytest.raises((TypeError, SolveError), match="theta must"):
            evaluate(LV_U0, bad)


@pytest.mark.slow
def test_columns_are_chosen_where_a_row_serves_many_parameters():
    """254 columns of 60 residuals: directions go side by side, and each row would have 252 integrals to take."""
    from benchmarks.cases import case, jacobians
    from benchmarks.problems import spiral

    whole, wanted = case("J_spiral"), jacobians()["J_spiral"]
    evaluate = residuals_and_jacobian(spiral().dynamics, LeastSquares(whole.times, whole.data), whole.t_span, rtol=1e-8, atol=1e-8)
    r, J = evaluate(whole.u0, whole.theta)
    assert evaluate.jacobian == "tangents"
    np.testing.assert_allclose(J[:, 2:], wanted["theta"], rtol=0.0, atol=1e-5 * np.abs(wanted["theta"]).max())
    early = LeastSquares(whole.times[:2], whole.data[:2])
    few = residuals_and_jacobian(spiral().dynamics, early, whole.t_span, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(few(whole.u0, whole.theta)[1], J[:4], rtol=0.0, atol=1e-5 * np.abs(J).max())
    assert few.jacobian == "adjoints"
