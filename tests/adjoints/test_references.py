"""The stored high-precision gradients: every adjoint and quadrature reaches them, and errors fall with the tolerance."""

import functools
import itertools

import numpy as np
import pytest

from adjode import check_vjp, losses, solve
from benchmarks.joint_adjoint import make_joint, own_pass
from benchmarks.problems import PROBLEMS, pleiades, spiral_with_vjp_u

STRATEGIES = [
    (a, q, e) for a in ("interpolating", "backsolve") for q, e in (("gauss", "all"), ("augmented", "all"), ("augmented", "lam"))
]
BOUNDS = {"Tsit5": 1e-6, "RK45": 3e-6, "DOP853": 3e-6, "Vern7": 1e-6, "Vern9": 1e-6}


@functools.cache
def gradient(name, method, tol, adjoint, quadrature, error_norm):
    return PROBLEMS[name]().value_and_gradient(
        method=method, rtol=tol, atol=tol, adjoint=adjoint, quadrature=quadrature, error_norm=error_norm, wrt=("u0", "theta", "T")
    )()


@pytest.mark.parametrize("strategy", STRATEGIES, ids="-".join)
@pytest.mark.parametrize("method", BOUNDS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_gradient_against_the_reference(name, method, strategy):
    problem = PROBLEMS[name]()
    value, bar = gradient(name, method, 1e-8, *strategy)
    assert problem.gradient_error(bar) < BOUNDS[method]
    assert value == pytest.approx(problem.reference["loss"][0], rel=1e-6)
    if "T" in problem.reference:
        assert bar.T == pytest.approx(problem.reference["T"][0], rel=BOUNDS[method])


@pytest.mark.parametrize("strategy", STRATEGIES, ids="-".join)
@pytest.mark.parametrize("method", BOUNDS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_error_falls_with_the_tolerance(name, method, strategy):
    problem = PROBLEMS[name]()
    tolerances = [1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11]
    errors = [problem.gradient_error(gradient(name, method, tol, *strategy)[1]) for tol in tolerances]
    for tol, error in zip(tolerances, errors, strict=True):
        assert error < 500 * tol, (tol, error)
    decades = 3 if method == "Vern9" else 2  # once steps are short enough to tell
    for tol, coarse, fine in zip(tolerances[2:], errors[2:], errors[2 + decades :], strict=False):
        assert fine < max(0.1 * coarse, 0.3 * tol, 1e-11)  # errors of a few tolerances are luck, and the last is rounding


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
@pytest.mark.parametrize("method", ["Vern7", "Vern9"])
@pytest.mark.parametrize("name", ["lv_final", "lv_series"])
def test_thirteen_digits(name, method, adjoint):
    """Rounding leaves that many, between the steps too."""
    problem = PROBLEMS[name]()
    value, bar = problem.value_and_gradient(method=method, rtol=3e-15, atol=3e-15, adjoint=adjoint)()
    assert problem.gradient_error(bar) < 1e-13
    assert value == pytest.approx(problem.reference["loss"][0], rel=1e-14)


@pytest.mark.parametrize("name", PROBLEMS)
def test_all_pairs_agree(name):
    bars = [gradient(name, method, 1e-8, *strategy)[1] for method in BOUNDS for strategy in STRATEGIES]
    for one, other in itertools.combinations(bars, 2):
        for a, b in ((one.u0, other.u0), (one.theta, other.theta)):
            assert np.max(np.abs(a - b)) < 4e-6 * np.max(np.abs(b))


@pytest.mark.parametrize("quadrature", ["gauss", "augmented"])
def test_vjp_u_changes_the_work_and_not_the_gradient(quadrature):
    plain, short = PROBLEMS["spiral"](), spiral_with_vjp_u()
    _, one = plain.value_and_gradient(rtol=1e-8, atol=1e-8, adjoint="interpolating", quadrature=quadrature)()
    _, other = short.value_and_gradient(rtol=1e-8, atol=1e-8, adjoint="interpolating", quadrature=quadrature)()
    np.testing.assert_allclose(one.theta, other.theta, rtol=1e-10, atol=1e-12 * np.abs(one.theta).max())
    if quadrature == "gauss":
        assert other.stats.n_vjp < one.stats.n_vjp and other.stats.n_vjp_u > 0
    else:  # whose stages take the whole vjp
        assert other.stats.n_vjp == one.stats.n_vjp and other.stats.n_vjp_u == 0


def test_final_states_of_the_references():
    for make in PROBLEMS.values():
        problem = make()
        solution = problem.solve(rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(solution.u_T, problem.reference["final"], rtol=1e-8)


def test_many_parameters_cost_what_few_do():
    """252 parameters take no part in the stages: the work per step is that of 4."""
    problem = spiral_with_vjp_u()
    solution = solve(problem.dynamics, problem.u0, problem.theta, problem.t_span)
    bar = solution.pullback([1.0, 0.0])
    attempts = bar.stats.n_steps + bar.stats.n_rejected
    assert bar.stats.n_vjp_u == 2 + 6 * attempts and bar.stats.n_vjp <= 1 + 4 * attempts


def test_a_loss_is_any_object_with_the_method():
    class Twice:
        def value_and_cotangents(self, solution):
            value, seeds = losses.FinalState([1.0, 1.0]).value_and_cotangents(solution)
            return 2 * value, {"u_T_bar": 2 * seeds["u_T_bar"]}

    from adjode import value_and_gradient

    problem = PROBLEMS["lv_final"]()
    value, bar = value_and_gradient(problem.dynamics, Twice(), problem.t_span, rtol=1e-8, atol=1e-8)(problem.u0, problem.theta)
    assert value == pytest.approx(2 * problem.reference["loss"][0], rel=1e-6)
    np.testing.assert_allclose(bar.theta, 2 * problem.reference["theta"], rtol=1e-5)


# --- Pleiades: close encounters make its gradient thousands of times as sensitive as that of the problems above --------------


def pleiades_error(tol, **options):
    problem = pleiades()
    value, bar = problem.value_and_gradient(rtol=tol, atol=tol, wrt=("u0", "theta"), **options)()
    assert value == pytest.approx(problem.reference["loss"][0], rel=1e3 * tol)
    return problem.gradient_error(bar)


def test_vjp_of_pleiades():
    problem = pleiades()
    check_vjp(problem.dynamics, problem.u0, problem.theta).raise_if_wrong()


def test_final_state_of_pleiades():
    problem = pleiades()
    np.testing.assert_allclose(problem.solve(method="DOP853", rtol=1e-12, atol=1e-12).u_T, problem.reference["final"], atol=1e-8)


@pytest.mark.parametrize("quadrature", ["gauss", "augmented"])
@pytest.mark.parametrize("method", ["DOP853", "Tsit5"])
def test_gradient_of_pleiades(method, quadrature):
    errors = [pleiades_error(tol, method=method, adjoint="interpolating", quadrature=quadrature) for tol in (1e-8, 1e-10)]
    assert errors[1] < 1e4 * 1e-10
    assert errors[1] < 0.1 * errors[0]


@pytest.mark.parametrize("method", ["DOP853", "Tsit5"])
def test_discrete_gradient_of_pleiades(method):
    """Exact for the steps taken, which were chosen for the state alone."""
    errors = [pleiades_error(tol, method=method, adjoint="discrete") for tol in (1e-8, 1e-10)]
    assert errors[1] < 1e5 * 1e-10
    assert errors[1] < 0.1 * errors[0]


def test_a_backsolve_of_pleiades_drifts_and_says_so():
    with pytest.warns(RuntimeWarning, match="ends"):
        error = pleiades_error(1e-10, method="DOP853", adjoint="backsolve", on_drift="warn")
    assert error < 1e4 * 1e-10
    assert pleiades_error(1e-10, method="DOP853", adjoint="backsolve", reanchor=True) < 1e4 * 1e-10


@pytest.mark.slow
@pytest.mark.jitted
def test_what_pleiades_is_compared_with_is_right():
    value, bar = make_joint(own_pass, pleiades(), 1e-10)()
    assert value == pytest.approx(pleiades().reference["loss"][0], rel=1e-7)
    assert pleiades().gradient_error(bar) < 1e4 * 1e-10
