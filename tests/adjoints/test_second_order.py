"""Hessian-vector products: against differences of gradients on a fixed mesh, symmetric, for every method; their work."""

import copy
import pickle

import numba
import numpy as np
import pytest

import adjode
from adjode import Dynamics, SolveError, hessian_vector_product, value_and_gradient
from adjode.losses import FinalState, LeastSquares, Series
from adjode.status import Status
from benchmarks.problems import lv_f
from tests.problems.mass_systems import CHAIN_THETA, CHAIN_U0, CUBIC_THETA, CUBIC_U0, FULL, chain_f, chain_vjp, cubic
from tests.problems.methods import TIGHT, TRANSPOSED
from tests.problems.products import assert_product, flat
from tests.problems.stiff_systems import ROBERTSON_THETA, ROBERTSON_U0, robertson, van_der_pol
from tests.problems.systems import DECAY, LV_THETA, LV_U0, lotka_volterra

EXPLICIT = ["Tsit5", "DOP853", "BS3", "Vern9", "RK4"]
TIMES = np.array([0.3, 0.0, 2.0, 0.301, 1.2, 0.3])
DATA = np.random.default_rng(4).uniform(0.5, 2.0, (TIMES.size, 2))
COUNTS = LeastSquares(TIMES, DATA, sigma=0.5)
U, THETA = np.array(LV_U0, dtype=float), np.array(LV_THETA, dtype=float)


def direction(seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=U.size), rng.normal(size=THETA.size)


# --- exact for the mesh ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{}, {"stops": [0.7, 1.3]}], ids=["", "stops"])
@pytest.mark.parametrize("span", [(0.0, 2.0), (2.0, 0.0)], ids=["forwards", "backwards"])
@pytest.mark.parametrize("method", EXPLICIT)
def test_the_derivative_of_the_discrete_gradient(method, span, options):
    found = assert_product(lotka_volterra(), COUNTS, span, U, THETA, direction(), method=method, step=0.05, **options)
    value, bar = value_and_gradient(lotka_volterra(), COUNTS, span, adjoint="discrete", method=method, step=0.05, **options)(
        U, THETA
    )
    assert found.value == value
    np.testing.assert_allclose(flat(found.u0, found.theta), flat(bar.u0, bar.theta), rtol=1e-13)


@pytest.mark.parametrize("options", [{}, {"stops": [0.7, 1.3]}], ids=["", "stops"])
@pytest.mark.parametrize("method", TRANSPOSED)
def test_the_same_of_implicit_steps(method, options):
    assert_product(lotka_volterra(), COUNTS, (0.0, 2.0), U, THETA, direction(), method=method, step=0.05, **TIGHT, **options)


@pytest.mark.filterwarnings("ignore:.*too long for its adjoint")
@pytest.mark.parametrize("method", ["Tsit5", "Vern7", *TRANSPOSED, "auto"])
def test_symmetric_to_rounding(method):
    units = np.eye(U.size + THETA.size)
    found = hessian_vector_product(lotka_volterra(), COUNTS, (0.0, 2.0), method=method)(U, THETA, units[: U.size], units[U.size :])
    H = np.vstack([found.u0_dot, found.theta_dot])
    assert np.abs(H - H.T).max() < 1e-12 * np.abs(H).max()


@pytest.mark.parametrize("method", [*TRANSPOSED, "auto"])
def test_a_stiff_problem(method):
    """Robertson's: rates from 0.04 to 3e7, in whose units the Hessian is symmetric, and the product that of the solution itself."""
    times = np.array([1.0, 40.0, 1e3])
    loss = LeastSquares(times, np.tile([0.8, 3e-5, 0.2], (3, 1)), sigma=[1.0, 1e-4, 1.0])
    u0, theta = np.array(ROBERTSON_U0), np.array(ROBERTSON_THETA)
    options = {"method": method, "rtol": 1e-8, "atol": 1e-12}
    evaluate = hessian_vector_product(robertson(), loss, (0.0, 1e3), **options)
    found = evaluate(u0, theta, np.zeros((3, 3)), np.diag(theta))
    H = found.theta_dot * theta[:, None]
    assert np.abs(H - H.T).max() < 1e-10 * np.abs(H).max()
    tight = {"method": "Radau", "rtol": 1e-11, "atol": 1e-15}
    gradients = value_and_gradient(robertson(), loss, (0.0, 1e3), adjoint="discrete", **tight)
    for k in range(3):
        above, below = (gradients(u0, theta * (1.0 + s * 1e-4 * (np.arange(3) == k)))[1].theta for s in (1.0, -1.0))
        expected = (above - below) / 2e-4 * theta
        np.testing.assert_allclose(H[:, k], expected, rtol=0, atol=1e-4 * np.abs(H).max())


def test_where_methods_switch():
    loss = LeastSquares([10.0, 44.0], [[1.0, 0.1], [-1.0, 0.2]])
    evaluate = hessian_vector_product(van_der_pol(), loss, (0.0, 45.0), method="auto")
    assert adjode.solve(van_der_pol(), [2.0, -0.6], [50.0], (0.0, 45.0), method="auto").stats.n_switch > 1
    units = np.eye(3)
    found = evaluate([2.0, -0.6], [50.0], units[:2], units[2:])
    H = np.vstack([found.u0_dot, found.theta_dot])
    assert np.abs(H - H.T).max() < 1e-9 * np.abs(H).max()


def test_with_a_mass_matrix():
    u0, theta, n = np.array(CHAIN_U0), np.array(CHAIN_THETA), len(CHAIN_U0)
    loss, along = LeastSquares([0.5, 1.0], np.ones((2, n))), (np.arange(1.0, n + 1.0), np.array(CHAIN_THETA) / 3.0)
    options = {"method": "Radau", "step": 0.02, **TIGHT}
    assert_product(Dynamics(chain_f, chain_vjp, mass=FULL), loss, (0.2, 1.0), u0, theta, along, **options)


def test_with_algebraic_equations():
    """Columns of u0 are those of states that leave the equations; those of theta are symmetric."""
    loss, m = LeastSquares([0.5, 2.0], np.ones((2, len(CUBIC_U0)))), len(CUBIC_THETA)
    H = hessian_vector_product(cubic(), loss, (0.0, 2.0), method="Radau")(CUBIC_U0, CUBIC_THETA, theta_dot=np.eye(m)).theta_dot
    assert np.abs(H - H.T).max() < 1e-11 * np.abs(H).max() and np.isfinite(H).all()


def test_closed_form():
    """u0 exp(-theta t): all second derivatives of its end are known."""
    found = hessian_vector_product(DECAY.dynamics, FinalState([1.0]), (0.0, 1.0), rtol=1e-12, atol=1e-12)
    value, gradient, H = found.hessian([1.5], [2.0])
    decay = np.exp(-2.0)
    np.testing.assert_allclose(value, 1.5 * decay, rtol=1e-10)
    np.testing.assert_allclose(gradient, [decay, -1.5 * decay], rtol=1e-9)
    np.testing.assert_allclose(H, [[0.0, -decay], [-decay, 1.5 * decay]], rtol=1e-9, atol=1e-14)


# --- losses -------------------------------------------------------------------------------------------------------------------
def weighed(k, t, u, theta):
    return u[0] ** 2 * (k + theta[0]) + t * u[1] * u[0]


def totals(t, u, theta, y):
    y[0] = theta[0] * (u[0] + u[1])
    y[1] = u[0] / u[1] + theta[1] ** 2


def last(u, theta):
    return np.exp(-u[0]) * theta[1] + u[1] ** 2


MISSING = np.where(np.arange(DATA.size).reshape(DATA.shape) == 3, np.nan, DATA)


@pytest.mark.parametrize(
    "loss",
    [
        LeastSquares(TIMES, MISSING, sigma=0.3, log=True),
        LeastSquares(TIMES, DATA[:, 0], components=[1]),
        LeastSquares(TIMES, MISSING, observe=totals),
        LeastSquares(TIMES, MISSING, sigma=0.4, log=True, observe=totals),
        Series(TIMES, value=weighed),
        FinalState(value=last),
        FinalState([1.0, -2.0]),
    ],
    ids=["log", "components", "observe", "log observe", "series", "final value", "final"],
)
def test_losses(loss):
    assert_product(lotka_volterra(), loss, (0.0, 2.0), U, THETA, direction(2), step=0.05)


def cotangent_alone(k, t, u, u_bar):
    u_bar[:] = 2.0 * u
    return float(u @ u)


def test_losses_without_second_derivatives_say_so():
    evaluate = hessian_vector_product(lotka_volterra(), Series(TIMES, cotangent_alone), (0.0, 2.0))
    with pytest.raises(TypeError, match=r"second derivatives of the loss are needed, and this Series has only a cotangent: use"):
        evaluate(U, THETA, *direction())

    class Own:
        def value_and_cotangents(self, solution):
            return 0.0, {}

    with pytest.raises(TypeError, match="this Own has only a cotangent"):
        hessian_vector_product(lotka_volterra(), Own(), (0.0, 2.0))


# --- forms, work, and what is refused ---------------------------------------------------------------------------------------
def test_many_directions_named_blocks_and_one_block_alone():
    dynamics = lotka_volterra()
    evaluate = hessian_vector_product(dynamics, COUNTS, (0.0, 2.0))
    along = direction()
    both = evaluate(U, THETA, *along)
    parts = evaluate(U, THETA, u0_dot=along[0]), evaluate(U, THETA, theta_dot=along[1])
    summed = flat(parts[0].u0_dot + parts[1].u0_dot, parts[0].theta_dot + parts[1].theta_dot)
    np.testing.assert_allclose(flat(both.u0_dot, both.theta_dot), summed, rtol=1e-12)
    many = evaluate(U, THETA, np.column_stack([along[0], 0 * U]), np.column_stack([along[1], THETA]))
    np.testing.assert_allclose(many.u0_dot[:, 0], both.u0_dot, rtol=1e-12)
    named = evaluate({"prey": U[0], "predators": U[1]}, THETA, {"prey": along[0][0], "predators": along[0][1]}, along[1])
    assert named.u0_dot["predators"] == pytest.approx(both.u0_dot[1], rel=1e-13)
    _, gradient, H = evaluate.hessian(U, THETA, wrt={"theta": [1, 3]})
    whole = evaluate.hessian(U, THETA)
    np.testing.assert_allclose(H, whole[2][np.ix_([3, 5], [3, 5])], rtol=1e-11)
    np.testing.assert_allclose(gradient, whole[1][[3, 5]], rtol=1e-13)
    for other in (copy.copy(evaluate), pickle.loads(pickle.dumps(evaluate))):
        np.testing.assert_array_equal(other.hessian(U, THETA)[2], whole[2])


def test_work():
    """A jvp, a vjp_dot and two vjps a stage, and one more for the gradient that the steps are judged by; neither is that repeated
    at the same point nor the solve, nor its vjps for further directions."""
    evaluate = hessian_vector_product(lotka_volterra(), COUNTS, (0.0, 2.0))
    first, again = (evaluate(U, THETA, *direction()).stats for _ in range(2))
    assert first.n_f > 0 and again.n_f == 0 and first.n_vjp == again.n_vjp + again.n_vjp_dot
    solved = adjode.solve(lotka_volterra(), U, THETA, (0.0, 2.0)).stats
    assert first.n_steps == solved.n_steps and first.n_f <= solved.n_f + 4 + first.n_steps  # one f for each step judged
    assert first.n_jvp == first.n_vjp_dot and again.n_vjp == 2 * first.n_vjp_dot <= 2 * (6 * first.n_steps + 1 + 2 * TIMES.size)
    many = evaluate(U, THETA, np.ones((2, 2)), np.ones((4, 2))).stats
    assert many.n_vjp == 4 * first.n_vjp_dot and many.n_jvp == many.n_vjp_dot == 2 * first.n_vjp_dot


def second_by_hand(t, u, theta, lam, v, w, lam_dot, u_bar_dot, theta_bar_dot):
    u_bar_dot[0] = -theta[0] * lam_dot[0] - w[0] * lam[0]
    theta_bar_dot[0] = -u[0] * lam_dot[0] - v[0] * lam[0]


def wrong_by_hand(t, u, theta, lam, v, w, lam_dot, u_bar_dot, theta_bar_dot):
    u_bar_dot[0] = -theta[0] * lam_dot[0]
    theta_bar_dot[0] = -u[0] * lam_dot[0] - v[0] * lam[0]


def decay_f(t, u, theta, du):
    du[0] = -theta[0] * u[0]


def decay_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -theta[0] * lam[0]
    theta_bar[0] = -u[0] * lam[0]


def test_second_derivatives_by_hand():
    loss = FinalState([1.0])
    derived = hessian_vector_product(Dynamics(decay_f), loss, (0.0, 1.0)).hessian([1.0], [2.0])[2]
    given = Dynamics(decay_f, decay_vjp, vjp_dot=second_by_hand)
    assert "with vjp_dot" in repr(given)
    np.testing.assert_allclose(hessian_vector_product(given, loss, (0.0, 1.0)).hessian([1.0], [2.0])[2], derived, rtol=1e-12)
    wrong = hessian_vector_product(Dynamics(decay_f, decay_vjp, vjp_dot=wrong_by_hand), loss, (0.0, 1.0))
    with pytest.raises(ValueError, match="the vjp_dot of decay_f does not agree with differences of the vjp"):
        wrong([1.0], [2.0], theta_dot=[1.0])


@numba.njit
def endless(x):
    if x < 1e-3:
        return x
    return 0.5 * endless(0.5 * x)


def not_derivable(t, u, theta, du):
    du[0] = -theta[0] * endless(u[0])


def test_what_is_refused():
    loss = FinalState([1.0, 1.0])
    with pytest.raises(TypeError, match=r"second derivatives of not_derivable are needed, .* give Dynamics a vjp_dot\(t, u, theta"):
        hessian_vector_product(Dynamics(not_derivable, decay_vjp), FinalState([1.0]), (0.0, 1.0))
    with pytest.raises(ValueError, match="leave memory out"):
        hessian_vector_product(lotka_volterra(), loss, (0.0, 2.0), memory="1MB")
    with pytest.raises(ValueError, match="tangents of Rodas5P would need second derivatives of f"):
        hessian_vector_product(lotka_volterra(), loss, (0.0, 2.0), method="Rodas5P")(U, THETA, *direction())
    evaluate = hessian_vector_product(lotka_volterra(), loss, (0.0, 2.0))
    with pytest.raises(ValueError, match="give u0_dot, theta_dot, or both"):
        evaluate(U, THETA)
    with pytest.raises(ValueError, match="wrt selects no entry"):
        evaluate.hessian(U, THETA, wrt={"theta": False})
    with pytest.raises(TypeError, match=r"dynamics must be an adjode\.Dynamics"):
        hessian_vector_product(lv_f, loss, (0.0, 2.0))


def test_failures():
    with pytest.raises(SolveError) as raised:
        hessian_vector_product(lotka_volterra(), FinalState([1.0, 1.0]), (0.0, 2.0), max_steps=3)(U, THETA, *direction())
    assert raised.value.status == Status.MAX_STEPS and raised.value.phase == "forward"
    loss = LeastSquares([1.0], [[1.0, 1.0]], log=True)
    with pytest.raises(SolveError, match="the loss compares logarithms"):
        hessian_vector_product(lotka_volterra(), loss, (0.0, 2.0))(-U, THETA, *direction())
