"""Hessian-vector products through jumps of the state and with running costs: against differences of gradients, and symmetric."""

import numpy as np
import pytest

from adjode import Doses, Dynamics, Event, SolveError, hessian_vector_product, solve, value_and_gradient
from adjode.compile import slots
from adjode.losses import FinalState, LeastSquares, Series
from tests.problems.hybrid import (
    BALL_THETA,
    BALL_U0,
    BOUNCE,
    DRIVEN_THETA,
    HUNT_SPAN,
    HUNT_THETA,
    HUNT_U0,
    PK_DOSES,
    PK_SPAN,
    PK_THETA,
    PK_U0,
    ball,
    ball_at,
    driven,
    driven_jumps,
    drug,
    hunt,
    hunt_jumps,
    mixed_hunt,
    two_compartments,
)
from tests.problems.methods import TIGHT, TRANSPOSED
from tests.problems.numerics import complex_step
from tests.problems.products import assert_product, by_differences, flat, product_of
from tests.problems.systems import LV_THETA, LV_U0, lotka_volterra

pytestmark = pytest.mark.filterwarnings("ignore:.*too long for its adjoint")
U, THETA = np.array(LV_U0, dtype=float), np.array(LV_THETA, dtype=float)
TIMES = np.array([0.3, 0.0, 2.0, 0.301, 1.2, 0.3])
SEEN = np.array([0.7, 2.0, 3.3, 4.9])
COUNTS = LeastSquares(SEEN, np.random.default_rng(4).uniform(0.5, 2.0, (SEEN.size, 2)), sigma=0.5)
FIXED = [
    Doses([1.0, 3.0], ["theta[7]", 0.4], 0, fraction="theta[5]"),
    Doses(1.5, "theta[6]", 1, duration=2.0, fraction="theta[5]"),
    Doses(2.0, 0.3, 0, duration=1.0),
]
METHODS = ["Tsit5", *(pytest.param(method, marks=pytest.mark.slow) for method in ["DOP853", *TRANSPOSED])]
STEPS = {"step": 0.05, **TIGHT}


def direction(u0, theta, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=u0.size), 0.3 * rng.normal(size=theta.size)


def off_symmetry(dynamics, loss, span, u0, theta, **options):
    """How far the Hessian by logarithms of all entries that are not zero is from its transpose."""
    z = np.concatenate([u0, theta])
    units = np.diag(np.where(z == 0.0, 1.0, z))
    found = hessian_vector_product(dynamics, loss, span, **options)(u0, theta, units[: u0.size], units[u0.size :])
    H = np.vstack([found.u0_dot, found.theta_dot]) * np.diag(units)[:, None]
    return np.abs(H - H.T).max() / np.abs(H).max()


# --- running costs --------------------------------------------------------------------------------------------------------------
def effort(t, u, theta):
    return u[0] ** 2 * theta[1] + np.sin(3.0 * t) * u[1] * theta[0]


def effort_vjp(t, u, theta, u_bar, theta_bar):
    u_bar[0], u_bar[1] = 2.0 * u[0] * theta[1], np.sin(3.0 * t) * theta[0]
    theta_bar[:] = 0.0
    theta_bar[0], theta_bar[1] = np.sin(3.0 * t) * u[1], u[0] ** 2


@pytest.mark.parametrize("span", [(0.0, 2.0), (2.0, 0.0)], ids=["forwards", "backwards"])
@pytest.mark.parametrize("method", METHODS)
def test_a_running_cost(method, span):
    loss = LeastSquares(TIMES, np.random.default_rng(4).uniform(0.5, 2.0, (TIMES.size, 2)), sigma=0.5)
    given = lotka_volterra(), loss, span, U, THETA
    options = {"method": method, "stops": [0.7], "running_cost": effort}
    found = assert_product(*given, direction(U, THETA), **STEPS, **options)
    value, bar = value_and_gradient(*given[:3], adjoint="discrete", on_inaccurate="warn", **STEPS, **options)(U, THETA)
    np.testing.assert_allclose(found.value, value, rtol=1e-13)
    np.testing.assert_allclose(flat(found.u0, found.theta), flat(bar.u0, bar.theta), rtol=1e-12)
    assert off_symmetry(*given, **options) < 1e-11


def test_a_running_cost_alone_and_of_a_pair():
    """The integral of a decay: its second derivatives are known."""

    def decay(t, u, theta, du):
        du[0] = -theta[0] * u[0]

    def rate(t, u, theta):
        return theta[1] * u[0]

    def rate_vjp(t, u, theta, u_bar, theta_bar):
        u_bar[0], theta_bar[0], theta_bar[1] = theta[1], 0.0, u[0]

    none = LeastSquares([1.0], [[np.nan]])
    k, T, decayed = 2.0, 1.0, np.exp(-2.0)
    for cost in (rate, (rate, rate_vjp)):
        product = hessian_vector_product(Dynamics(decay), none, (0.0, T), running_cost=cost, rtol=1e-11, atol=1e-11)
        value, gradient, H = product.hessian([1.5], [k, 3.0])
        whole, slope = (1.0 - decayed) / k, T * decayed / k - (1.0 - decayed) / k**2
        bend = -(T**2) * decayed / k - 2.0 * T * decayed / k**2 + 2.0 * (1.0 - decayed) / k**3
        np.testing.assert_allclose(value, 4.5 * whole, rtol=1e-10)
        np.testing.assert_allclose(gradient, [3.0 * whole, 4.5 * slope, 1.5 * whole], rtol=1e-9)
        expected = [[0.0, 3.0 * slope, whole], [3.0 * slope, 4.5 * bend, 1.5 * slope], [whole, 1.5 * slope, 0.0]]
        np.testing.assert_allclose(H, expected, rtol=1e-9, atol=1e-10)


def test_costs_that_cannot_be_had():
    def not_derivable(t, u, theta):
        return float(np.linalg.det(np.outer(u, u)))

    with pytest.raises(TypeError, match="second derivatives of the running cost are needed, but cannot be derived from it"):
        hessian_vector_product(lotka_volterra(), FinalState([1.0, 0.0]), (0.0, 1.0), running_cost=(not_derivable, effort_vjp))


# --- doses at fixed times ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("span", [HUNT_SPAN, HUNT_SPAN[::-1]], ids=["forwards", "backwards"])
@pytest.mark.parametrize("method", METHODS)
def test_doses_at_fixed_times(method, span):
    u0 = HUNT_U0 if span[0] == 0.0 else np.array([1.3, 1.1])
    given = hunt(), COUNTS, span, u0, HUNT_THETA
    options = {"method": method, "doses": FIXED}
    assert_product(*given, direction(u0, HUNT_THETA), **STEPS, **options)
    assert off_symmetry(*given, running_cost=effort, **options) < 1e-10


def test_doses_at_the_ends_and_where_observed():
    doses = [Doses([0.0, 2.0, 5.0], "theta[7]", 0), Doses([0.0, 3.3], "theta[6]", 1, duration=1.7)]
    loss = LeastSquares([0.0, 2.0, 3.3, 5.0], np.ones((4, 2)))
    options = {"doses": doses, "step": 0.05, "running_cost": effort}
    found = assert_product(hunt(), loss, HUNT_SPAN, HUNT_U0, HUNT_THETA, direction(HUNT_U0, HUNT_THETA), **options)
    value, bar = value_and_gradient(hunt(), loss, HUNT_SPAN, adjoint="discrete", **options)(HUNT_U0, HUNT_THETA)
    np.testing.assert_allclose(found.value, value, rtol=1e-13)
    np.testing.assert_allclose(flat(found.u0, found.theta), flat(bar.u0, bar.theta), rtol=1e-12)


# --- times that move --------------------------------------------------------------------------------------------------------------
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def assert_to_the_tolerance(dynamics, loss, span, u0, theta, **options):
    """Of steps that are fixed as jumps move: the derivative of the gradient to the tolerance, and symmetric to rounding."""
    along = direction(u0, theta)
    along = along[0], along[1] * 0.1
    given, found = product_of(dynamics, loss, span, u0, theta, along, **EXACT, **options)
    expected = by_differences(dynamics, loss, span, u0, theta, along, **EXACT, **options)
    np.testing.assert_allclose(given, expected, rtol=0, atol=3e-5 * np.abs(expected).max())
    assert off_symmetry(dynamics, loss, span, u0, theta, **options) < 1e-10
    return found


def test_a_drug():
    """Times, a lag, a fraction, amounts and a duration that are parameters, and all of them twice."""
    loss = LeastSquares([1.0, 3.0, 5.5, 6.0, 9.0, 12.0], np.full((6, 2), 10.0), sigma=10.0)
    assert_to_the_tolerance(drug(), loss, PK_SPAN, PK_U0, PK_THETA, doses=PK_DOSES)


@pytest.mark.slow
@pytest.mark.parametrize("span", [HUNT_SPAN, HUNT_SPAN[::-1]], ids=["forwards", "backwards"])
@pytest.mark.parametrize("method", ["Tsit5", "Radau"])
def test_doses_and_events(method, span):
    assert_to_the_tolerance(hunt(), COUNTS, span, HUNT_U0, HUNT_THETA, method=method, running_cost=effort, **hunt_jumps())


def test_where_everything_depends_on_time():
    assert_to_the_tolerance(driven(), COUNTS, HUNT_SPAN, HUNT_U0, DRIVEN_THETA, running_cost=effort, **driven_jumps())


@pytest.mark.slow
def test_a_mass_matrix():
    assert_to_the_tolerance(mixed_hunt(), COUNTS, HUNT_SPAN, HUNT_U0, HUNT_THETA, method="Radau", **hunt_jumps())


def test_a_ball():
    """Its height after two bounces is known, and by complex steps its gradient."""
    product = hessian_vector_product(ball(), FinalState([1.0, 0.0]), (0.0, 9.0), events=BOUNCE, **EXACT)
    _, gradient, H = product.hessian(BALL_U0, BALL_THETA)
    z, scale = np.concatenate([BALL_U0, BALL_THETA]), np.array([50.0, 10.0, 9.8, 0.8])

    def of_height(z):
        return np.concatenate(complex_step(lambda u0, theta: ball_at(u0, theta, 9.0)[0], [z[:2], z[2:]]))

    np.testing.assert_allclose(gradient * scale, of_height(z) * scale, rtol=0, atol=1e-6)
    expected = [(of_height(z + e) - of_height(z - e)) / 2e-5 for e in np.diag(1e-5 * scale)]
    np.testing.assert_allclose(H * np.outer(scale, scale), np.array(expected) * scale, rtol=0, atol=1e-5 * np.abs(expected).max())


def falls(t, u, theta):
    return u[1] - theta[4]


def sinks(t, u, theta, u_new):
    u_new[0] = u[0] + 0.3 * theta[5] * u[1] * np.sin(t)


def followed(t, u, theta):
    return u[0] - 17.0 * theta[5]


def pulled(t, u, theta, u_new):
    u_new[1] = u[1] * theta[5] + 0.1 * u[0] ** 2


def test_events_that_take_others_along_and_one_that_ends_the_solution():
    def nearly(t, u, theta):
        return u[0] - 2.1 + 0.01 * t

    loss = LeastSquares([0.3, 0.6], np.ones((2, 2)))
    events = [Event(falls, sinks, direction=1.0, priority=1.0), Event(followed, pulled)]
    given = hunt(), loss, (0.0, 3.0), HUNT_U0, HUNT_THETA
    what = solve(hunt(), HUNT_U0, HUNT_THETA, (0.0, 3.0), events=events).trajectory.jumps.what[::3]
    assert what.tolist() == [slots.EVENT, slots.NESTED, slots.EVENT]
    assert_to_the_tolerance(*given, events=events, running_cost=effort)
    ends = [Event(nearly, terminal=True, direction=1.0)]
    assert_to_the_tolerance(*given, events=ends, running_cost=effort)
    with pytest.raises(SolveError, match="nearly ended the solution at t = "):
        hessian_vector_product(hunt(), COUNTS, (0.0, 5.0), events=ends)(HUNT_U0, HUNT_THETA, np.ones(2))


def test_what_is_refused():
    steady = Doses(0.0, "theta[4]", 0, fraction="theta[5]", every=8.0, steady_state=True)
    with pytest.raises(ValueError, match="second derivatives do not support doses in steady state"):
        hessian_vector_product(two_compartments(), FinalState([0.0, 1.0, 0.0]), (0.0, 6.0), doses=steady)


def test_many_directions_and_calls_at_other_points():
    """Buffers are used again: another point has other steps, jumps and nodes."""
    loss = Series(SEEN, value=lambda k, t, u, theta: u[0] * u[1] * theta[0])
    options = {"running_cost": effort, **hunt_jumps()}
    product = hessian_vector_product(hunt(), loss, HUNT_SPAN, **options)
    rng = np.random.default_rng(5)
    V, W = rng.normal(size=(2, 3)), rng.normal(size=(10, 3))
    first = product(HUNT_U0, HUNT_THETA, V, W)
    product(1.4 * HUNT_U0, HUNT_THETA, V, W)
    again = product(HUNT_U0, HUNT_THETA, V, W)
    np.testing.assert_array_equal(first.theta_dot, again.theta_dot)
    for k in range(3):
        alone = product(HUNT_U0, HUNT_THETA, V[:, k], W[:, k])
        np.testing.assert_allclose(flat(alone.u0_dot, alone.theta_dot), flat(first.u0_dot[:, k], first.theta_dot[:, k]), rtol=1e-10)
