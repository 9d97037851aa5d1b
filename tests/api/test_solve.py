"""The forward solve: accuracy in units of the tolerance, convergence orders, dense output, work, options."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from adjode import solve
from tests.problems.systems import CLOSED_FORMS, DECAY, LV_SPAN, LV_THETA, LV_U0, OSCILLATOR, ROTATION, lotka_volterra

ADAPTIVE = ["Tsit5", "RK45", "DOP853", "Vern7", "Vern9", "BS3"]
FIXED = ["RK4", "Midpoint", "Euler"]
ORDERS = {"Tsit5": 5, "RK45": 5, "DOP853": 8, "Vern7": 7, "Vern9": 9, "BS3": 3, "RK4": 4, "Midpoint": 2, "Euler": 1}
DENSE_ORDERS = {"Tsit5": 4, "RK45": 4, "DOP853": 7, "Vern7": 7, "Vern9": 9, "BS3": 3, "RK4": 3, "Midpoint": 2, "Euler": 1}


@pytest.mark.parametrize("direction", ["forwards", "backwards"])
@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("problem", CLOSED_FORMS, ids=lambda p: p.name)
def test_error_in_units_of_the_tolerance(problem, method, direction):
    span = problem.t_span if direction == "forwards" else problem.t_span[::-1]
    for tol in (1e-5, 1e-9):
        solution = solve(problem.dynamics, problem.u0, problem.theta, span, method=method, rtol=tol, atol=tol)
        exact = problem.final(problem.u0, problem.theta, *span)
        assert np.max(np.abs(solution.u_T - exact) / (tol + tol * np.abs(exact))) < 60
        t = np.linspace(*span, 33)
        inside = np.array([np.atleast_1d(problem.final(problem.u0, problem.theta, span[0], s)) for s in t])
        assert np.max(np.abs(solution(t) - inside) / (tol + tol * np.abs(inside))) < 200


@pytest.mark.parametrize("method", ADAPTIVE + FIXED)
def test_convergence_order_of_the_step(method):
    span, exact = (0.0, 2.0), OSCILLATOR.final(OSCILLATOR.u0, OSCILLATOR.theta, 0.0, 2.0)
    counts = {"DOP853": (8, 16), "Vern7": (12, 24), "Vern9": (10, 20)}.get(method, (64, 128))
    errors = [
        np.abs(solve(OSCILLATOR.dynamics, OSCILLATOR.u0, OSCILLATOR.theta, span, method=method, step=2.0 / n).u_T - exact).max()
        for n in counts
    ]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[method], abs=0.35)


@pytest.mark.parametrize("method", ADAPTIVE + FIXED)
def test_convergence_order_of_the_dense_output(method):
    """Over one step from the exact state the interpolant of order q errs by O(h^(q+1))."""
    errors = []
    for h in (0.2, 0.1):
        solution = solve(OSCILLATOR.dynamics, OSCILLATOR.u0, OSCILLATOR.theta, (0.5, 0.5 + h), method=method, step=h)
        assert solution.stats.n_steps == 1
        t = 0.5 + h * np.array([0.2, 0.4, 0.6, 0.8])
        exact = np.array([OSCILLATOR.final(OSCILLATOR.u0, OSCILLATOR.theta, 0.5, s) for s in t])
        errors.append(np.abs(solution(t) - exact).max())
    assert np.log2(errors[0] / errors[1]) > DENSE_ORDERS[method] + 1 - 0.5  # a term of the error may vanish on this problem


def test_dense_output_meets_the_stored_states():
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN)
    np.testing.assert_array_equal(solution(solution.t)[1:], solution.u[1:])
    np.testing.assert_array_equal(solution(solution.t[0]), LV_U0)
    np.testing.assert_array_equal(solution(solution.t[-1]), solution.u_T)


def test_dense_output_in_any_order_and_backwards():
    rng = np.random.default_rng(0)
    for span in ((0.0, 5.0), (5.0, 0.0)):
        solution = solve(ROTATION.dynamics, ROTATION.u0, ROTATION.theta, span, rtol=1e-10, atol=1e-10)
        t = rng.uniform(0, 5, 200)
        exact = np.array([ROTATION.final(ROTATION.u0, ROTATION.theta, span[0], s) for s in t])
        np.testing.assert_allclose(solution(t), exact, atol=1e-8)
        np.testing.assert_array_equal(solution(t[3]), solution(t)[3])


def _lv(t, u):
    return np.array([1.5 * u[0] - u[0] * u[1], -3.0 * u[1] + u[0] * u[1]])


@pytest.mark.parametrize("method", ["RK45", "DOP853"])
@pytest.mark.parametrize("problem", ["lv", "oscillator", "decay"])
@pytest.mark.parametrize("tol", [1e-4, 1e-6, 1e-8, 1e-10])
def test_work_is_within_a_tenth_of_scipy(method, problem, tol):
    if problem == "lv":
        args, rhs = (lotka_volterra(), LV_U0, LV_THETA, LV_SPAN), _lv
    elif problem == "oscillator":
        w0, force, w = OSCILLATOR.theta
        args = (OSCILLATOR.dynamics, OSCILLATOR.u0, OSCILLATOR.theta, (0.0, 20.0))

        def rhs(t, u):
            return np.array([u[1], -(w0**2) * u[0] + force * np.cos(w * t)])
    else:
        args = (DECAY.dynamics, DECAY.u0, DECAY.theta, (0.0, 10.0))

        def rhs(t, u):
            return -DECAY.theta * u

    ours = solve(*args, method=method, rtol=tol, atol=tol)
    theirs = solve_ivp(rhs, args[3], args[1], method=method, rtol=tol, atol=tol, dense_output=True)
    assert ours.stats.n_f <= 1.1 * theirs.nfev
    reference = solve_ivp(rhs, args[3], args[1], method="DOP853", rtol=1e-13, atol=1e-13).y[:, -1]
    their_error = np.abs(theirs.y[:, -1] - reference).max()
    assert np.abs(ours.u_T - reference).max() <= 5 * their_error + 20 * tol


def test_counts_of_one_step():
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, (0.0, 1.0), method="RK4", step=0.5)
    assert solution.stats.n_steps == 2 and solution.stats.n_f == 1 + 2 * 4
    for method, stages, more in (("DOP853", 12, 3), ("Vern7", 10, 5), ("Vern9", 16, 9)):
        solution = solve(lotka_volterra(), LV_U0, LV_THETA, (0.0, 1.0), method=method, step=0.5)
        assert solution.stats.n_f == 1 + 2 * (stages + more)


def test_fixed_steps_land_on_T():
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, (0.0, 1.0), method="RK4", step=0.3)
    np.testing.assert_allclose(solution.t, [0.0, 0.3, 0.6, 0.9, 1.0], rtol=1e-14)
    assert solution.t[-1] == 1.0
    many = solve(lotka_volterra(), LV_U0, LV_THETA, (0.0, 1.0), method="Euler", step=1e-4)
    assert many.stats.n_steps == 10_000


def test_max_step_and_first_step():
    solution = solve(ROTATION.dynamics, ROTATION.u0, [], (0.0, 5.0), max_step=0.125)
    assert np.diff(solution.t).max() <= 0.125 * (1 + 1e-12)
    solution = solve(ROTATION.dynamics, ROTATION.u0, [], (0.0, 5.0), first_step=0.01)
    assert solution.t[1] == 0.01


def test_t_eval():
    t = np.array([3.0, 0.0, 5.0, 1.25])
    solution = solve(ROTATION.dynamics, ROTATION.u0, [], (0.0, 5.0), t_eval=t)
    np.testing.assert_array_equal(solution.u_eval, solution(t))
    assert solve(ROTATION.dynamics, ROTATION.u0, [], (0.0, 5.0)).u_eval is None
    assert solve(ROTATION.dynamics, ROTATION.u0, [], (0.0, 5.0), t_eval=[]).u_eval.shape == (0, 2)


def test_atol_by_component():
    loose = solve(DECAY.dynamics, DECAY.u0, DECAY.theta, (0.0, 5.0), rtol=1e-12, atol=np.full(7, 1e-3))
    tight = solve(DECAY.dynamics, DECAY.u0, DECAY.theta, (0.0, 5.0), rtol=1e-12, atol=np.r_[1e-12, np.full(6, 1e-3)])
    assert tight.stats.n_steps > 2 * loose.stats.n_steps


def test_empty_span():
    solution = solve(lotka_volterra(), LV_U0, LV_THETA, (2.0, 2.0))
    assert solution.stats.n_steps == 0 and solution.stats.n_f == 0
    np.testing.assert_array_equal(solution.u_T, LV_U0)
    np.testing.assert_array_equal(solution(2.0), LV_U0)


def test_repr_tells_the_story():
    text = repr(solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN))
    for part in ("Lotka-Volterra", "Tsit5", "2 states", "4 parameters", "steps", "rejected", "evaluations of f"):
        assert part in text


def test_inputs_are_copied():
    u0, theta = LV_U0.copy(), LV_THETA.copy()
    solution = solve(lotka_volterra(), u0, theta, LV_SPAN)
    np.testing.assert_array_equal(u0, LV_U0)
    theta[:] = 0.0
    np.testing.assert_array_equal(solution.theta, LV_THETA)
    solution.u_T[:] = 7.0
    assert (solution.u[-1] != 7.0).all()


@pytest.mark.parametrize("n", [1, 5, 6, 7, 100, 3000])
def test_any_number_of_states(n):
    u0, theta = np.linspace(1, 2, n), np.linspace(0.1, 1, n)
    solution = solve(DECAY.dynamics, u0, theta, (0.0, 1.0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(solution.u_T, u0 * np.exp(-theta), rtol=1e-7)


def test_no_states():
    solution = solve(DECAY.dynamics, [], [], (0.0, 1.0))
    assert solution.u_T.shape == (0,)
