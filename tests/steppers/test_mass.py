"""Mass matrices: M du/dt = f with M the identity, full, and singular, where some equations are algebraic."""

import pickle

import numpy as np
import pytest
import scipy.linalg
from scipy import sparse

from adjode import Dynamics, SolveError, Status, consistent_initial, ensemble_value_and_gradient, solve, value_and_gradient
from adjode.losses import FinalState, LeastSquares, Series
from adjode.tableaus import tableau
from tests.problems.mass_systems import (
    AMPLIFIER_U0,
    AMPLIFIER_U_T,
    CHAIN_THETA,
    CHAIN_U0,
    CUBIC_THETA,
    CUBIC_U0,
    FULL,
    LINEAR_THETA,
    LINEAR_U0,
    UNMIX,
    amplifier,
    chain,
    chain_f,
    chain_vjp,
    conserved,
    conserved_f,
    conserved_vjp,
    cubic,
    cubic_f,
    cubic_vjp,
    dense_callbacks,
    linear,
    linear_f,
    linear_solution,
    linear_vjp,
    mixed,
    random_mass,
    robertson_with,
    rod,
)
from tests.problems.methods import TIGHT
from tests.problems.numerics import complex_step, jacobian, rate, slope
from tests.problems.stiff_systems import ROBERTSON_THETA, ROBERTSON_U0, rober_reference, rober_weighted, robertson

RADAU = {"method": "Radau"}
BOTH = {"adjoint": "discrete", "wrt": ("u0", "theta")}


# --- matrices that are not singular ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_multiple_of_the_identity(factor):
    """With given steps to rounding. Step control makes more of rounding, but takes the same number of steps."""
    problems = (robertson(), ROBERTSON_THETA), (robertson_with((factor,) * 3), factor * ROBERTSON_THETA)
    for T, tolerance, options in ((0.005, 1e-11, {**TIGHT, "step": 1e-4}), (1e5, 1e-6, {"atol": 1e-10})):
        solutions = [solve(dynamics, ROBERTSON_U0, theta, (0.0, T), **RADAU, **options) for dynamics, theta in problems]
        bars = [each.pullback([1.0, 2.0, -1.0], adjoint="discrete") for each in solutions]
        assert np.allclose(solutions[1].u_T, solutions[0].u_T, rtol=tolerance, atol=1e-16)
        for name in ("u0", "T", "t0"):
            assert np.allclose(getattr(bars[1], name), getattr(bars[0], name), rtol=tolerance, atol=1e-16), name
        assert np.allclose(bars[1].theta * factor, bars[0].theta, rtol=tolerance, atol=0.0)
    before, after = (each.stats for each in solutions)
    assert (after.n_steps, after.n_newton, after.n_jac) == (before.n_steps, before.n_newton, before.n_jac)
    assert after.n_lu == before.n_lu + 1  # of M itself, to choose the first step


@pytest.mark.parametrize("as_sparse", [False, True], ids=["array", "sparse"])
def test_full_matrix_beside_the_problem_multiplied_by_its_inverse(as_sparse):
    span, times, rng = (0.2, 3.0), np.array([0.2, 0.21, 1.0, 2.2, 3.0]), np.random.default_rng(3)
    u_bars, u_T_bar, wrt = rng.normal(size=(5, 4)), rng.normal(size=4), ("u0", "theta", "t0", "T", "observation_times")
    massed = Dynamics(chain_f, chain_vjp, mass=sparse.coo_array(FULL)) if as_sparse else chain(True)
    for options, tolerance in (({"step": 0.05, **TIGHT}, 1e-10), ({"rtol": 1e-8}, 1e-8)):
        solutions = [solve(each, CHAIN_U0, CHAIN_THETA, span, **RADAU, **options) for each in (massed, chain(False))]
        bars = [each.pullback(u_T_bar, observations=(times, u_bars), adjoint="discrete", wrt=wrt) for each in solutions]
        assert np.allclose(solutions[0].u_T, solutions[1].u_T, rtol=0, atol=tolerance)
        for name in wrt:
            assert np.allclose(getattr(bars[0], name), getattr(bars[1], name), rtol=tolerance, atol=tolerance), name


# --- singular ones -------------------------------------------------------------------------------------------------------------
def test_robertson_with_an_algebraic_equation_against_the_reference():
    """Where u0 stays consistent, u_0 + u_1 + u_2 = 1, both forms have the same gradient: that of the third component moves over."""
    evaluate = value_and_gradient(
        conserved(), Series(10.0 ** np.arange(-5, 6), rober_weighted), (0.0, 1e5), **RADAU, rtol=1e-9, atol=1e-14
    )
    (value, bar), true = evaluate(ROBERTSON_U0, ROBERTSON_THETA), rober_reference()
    along = true["u0"][:2] - true["u0"][2]
    assert value == pytest.approx(true["loss"][0], rel=1e-9)
    assert np.allclose(bar.theta, true["theta"], rtol=1e-7, atol=0.0)
    assert np.allclose(bar.u0[:2] - bar.u0[2], along, rtol=1e-7, atol=0.0)


def test_work_beside_the_differential_equation():
    stats = []
    for dynamics in (robertson(), conserved()):
        solution = solve(dynamics, ROBERTSON_U0, ROBERTSON_THETA, (0.0, 1e5), **RADAU, atol=1e-10)
        stats += [solution.stats, solution.pullback([0.0, 1.0, 1.0], **BOTH).stats]
    for before, after in ((stats[0], stats[2]), (stats[1], stats[3])):
        assert after.n_steps <= before.n_steps + 2
        assert after.n_lu <= 1.5 * before.n_lu + 2 and after.n_newton <= 1.3 * before.n_newton
    assert stats[3].n_lu <= 1.1 * stats[2].n_lu


def linear_loss(w, T):
    return complex_step(lambda u0, theta: (linear_solution(u0[0], theta, T) * w).sum(), [LINEAR_U0, LINEAR_THETA])


def test_closed_form_with_a_constraint_that_varies_in_time():
    w, T, errors = np.array([1.0, -2.0]), 2.0, []
    (x_bar, _), theta_bar = linear_loss(w, T)
    for tol in (1e-5, 1e-7, 1e-9):
        solution = solve(linear(), LINEAR_U0, LINEAR_THETA, (0.0, T), **RADAU, rtol=tol, atol=tol, t_eval=[0.3, 1.7])
        exact = np.array([linear_solution(1.5, LINEAR_THETA, t) for t in (0.3, 1.7, T)])
        assert np.max(np.abs(np.vstack([solution.u_eval, solution.u_T]) - exact)) < 10 * tol
        bar = solution.pullback(w, **BOTH)
        assert abs(bar.u0[1]) < 1e-14  # the algebraic component follows from the other
        errors.append(max(abs(bar.u0[0] - x_bar), np.max(np.abs(bar.theta - theta_bar))))
        assert errors[-1] < 10 * tol
    assert errors[2] < 1e-2 * errors[0]


def test_matrix_without_a_row_or_a_column_of_zeros():
    w, u0 = np.array([1.0, -2.0]), np.linalg.solve(UNMIX, LINEAR_U0)
    (x_bar, _), theta_bar = linear_loss(w, 2.0)
    solution = solve(mixed(), u0, LINEAR_THETA, (0.0, 2.0), **RADAU, rtol=1e-9, atol=1e-9)
    assert np.allclose(UNMIX @ solution.u_T, linear_solution(1.5, LINEAR_THETA, 2.0), rtol=0, atol=1e-8)
    bar = solution.pullback(UNMIX.T @ w, **BOTH)
    assert np.allclose(bar.u0, UNMIX.T @ [x_bar, 0.0], rtol=0, atol=1e-8)
    assert np.allclose(bar.theta, theta_bar, rtol=0, atol=1e-8)


def test_backwards_in_time():
    w, T = np.array([1.0, -2.0]), 2.0
    (x_bar, _), _ = linear_loss(w, T)
    u_T = linear_solution(1.5, LINEAR_THETA, T)
    solution = solve(linear(), u_T, LINEAR_THETA, (T, 0.0), **RADAU, rtol=1e-10, atol=1e-10)
    assert np.allclose(solution.u_T, LINEAR_U0, rtol=0, atol=1e-8)
    bar = solution.pullback([x_bar, 0.0], **BOTH)
    assert np.allclose(bar.u0, [w[0] + LINEAR_THETA[1] * w[1], 0.0], rtol=0, atol=1e-8)


@pytest.mark.slow
def test_transistor_amplifier():
    """M has no row of zeros, and is singular three times; the solution of the test set, and central differences."""
    options = {**RADAU, "rtol": 1e-8, "atol": 1e-8}
    solution = solve(amplifier(), AMPLIFIER_U0, [1.0], (0.0, 0.2), **options)
    assert np.max(np.abs(solution.u_T - AMPLIFIER_U_T)) < 1e-6
    evaluate = value_and_gradient(amplifier(), FinalState(np.eye(8)[7]), (0.0, 0.02), wrt="theta", **options)
    difference = (evaluate(AMPLIFIER_U0, [1.0 + 1e-4])[0] - evaluate(AMPLIFIER_U0, [1.0 - 1e-4])[0]) / 2e-4
    assert evaluate(AMPLIFIER_U0, [1.0])[1].theta[0] == pytest.approx(difference, rel=1e-4)


# --- orders --------------------------------------------------------------------------------------------------------------------
def test_orders_of_both_kinds_of_components_and_of_the_gradient():
    """Index 1: order 5 for all of them, and 3, or nearly 4, of the dense output."""
    w, T, inside = np.array([1.0, -2.0]), 2.0, np.array([0.26, 0.74, 1.22, 1.66])
    fine = solve(cubic(), CUBIC_U0, CUBIC_THETA, (0.0, T), **RADAU, step=T / 200, **TIGHT)
    true = fine.pullback(w, **BOTH)
    states, dense, gradients = [], [], []
    for n in (5, 10):
        solution = solve(cubic(), CUBIC_U0, CUBIC_THETA, (0.0, T), **RADAU, step=T / n, **TIGHT)
        states.append(np.abs(solution.u_T - fine.u_T))
        dense.append(np.max(np.abs(solution(inside) - fine(inside)), axis=0))
        gradients.append(np.max(np.abs(solution.pullback(w, **BOTH).theta - true.theta)))
    assert (rate(states) > 4.6).all() and (rate(dense) > 2.8).all() and rate(gradients) > 4.6


# --- the discrete adjoint is the transpose of the steps -----------------------------------------------------------------------
def replay(f, vjp, M, solution, u, theta, times):
    """The same steps again in NumPy, for complex numbers, with M K_i = f(Y_i) solved to rounding: u(T), and u at `times`."""
    method, mesh = tableau("Radau"), solution.t
    n, A, c = len(M), method.A[1:, 1:], method.c[1:]
    u = np.asarray(u, dtype=complex)
    seen = np.tile(u, (len(times), 1))
    for step in range(len(mesh) - 1):
        t, h = mesh[step], mesh[step + 1] - mesh[step]
        K = np.linalg.solve(A, (solution.stages[step, 1:] - solution.stages[step, 0]) / h).astype(complex)
        for _ in range(5):
            Y = u + h * A @ K
            residual = K @ M.T - np.array([slope(f, t + ci * h, y, theta) for ci, y in zip(c, Y, strict=True)])
            J = [jacobian(vjp, t + ci * h, y, theta) for ci, y in zip(c, Y, strict=True)]
            blocks = [[(i == j) * M - h * A[i, j] * J[i] for j in range(3)] for i in range(3)]
            K = K - np.linalg.solve(np.block(blocks), residual.ravel()).reshape(3, n)
        Y = u + h * A @ K
        for k, time in enumerate(times):
            if t < time <= mesh[step + 1]:
                x = (time - t) / h
                seen[k] = Y[-1] if time == mesh[step + 1] else u + h * (x ** np.arange(1, 4) @ method.P[1:].T @ K)
        u = Y[-1]
    return u, seen


CASES = {
    "Robertson": (conserved, conserved_f, conserved_vjp, np.diag([1.0, 1.0, 0.0]), ROBERTSON_U0, ROBERTSON_THETA, 10.0),
    "linear": (linear, linear_f, linear_vjp, np.diag([1.0, 0.0]), LINEAR_U0, LINEAR_THETA, 2.0),
    "cubic": (cubic, cubic_f, cubic_vjp, np.diag([1.0, 0.0]), CUBIC_U0, CUBIC_THETA, 3.0),
}


def transpose_error(case, T, **options):
    """Beside complex numbers through the same steps; observations of all components at both ends, in the first step, in others."""
    build, f, vjp, M, u0, theta, _ = CASES[case]
    solution, rng = solve(build(), u0, theta, (0.0, T), **RADAU, **options), np.random.default_rng(0)
    times = np.concatenate([[0.0, 0.4 * solution.t[1]], T * rng.uniform(0.0, 1.0, 6), [T, T]])
    u_bars, u_T_bar = rng.normal(size=(times.size, u0.size)), rng.normal(size=u0.size)

    def loss(u, theta):
        u_T, seen = replay(f, vjp, M, solution, u, theta, times)
        return (u_T * u_T_bar).sum() + (seen * u_bars).sum()

    bar, exact = solution.pullback(u_T_bar, observations=(times, u_bars), **BOTH), complex_step(loss, [u0, theta])
    return max(np.max(np.abs(got - wanted)) / np.abs(wanted).max() for got, wanted in zip((bar.u0, bar.theta), exact, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_transpose_of_the_steps(case):
    """To rounding where Newton's iteration goes so far; else to where it stops."""
    T = CASES[case][-1]
    assert transpose_error(case, T, rtol=1e-6, atol=1e-9) < 1e-5
    short = 0.005 if case == "Robertson" else T
    assert transpose_error(case, short, step=short / 20, **TIGHT) < 1e-10


def quadratic(t, u, theta):
    return u[1] ** 2 + theta[0] * u[0]


def quadratic_vjp(t, u, theta):
    return np.array([theta[0], 2.0 * u[1]]), np.array([u[0], 0.0])


def test_running_cost_of_an_algebraic_component_by_central_differences():
    """Along consistent initial values, which move with theta; the algebraic component enters everywhere."""
    w, options = np.array([0.5, -1.0]), {**RADAU, "rtol": 1e-11, "atol": 1e-12}
    direction, theta_direction = np.array([0.7, 0.0]), np.array([0.4, -0.3])

    def solved(eps):
        theta = CUBIC_THETA + eps * theta_direction
        u0 = consistent_initial(cubic(), CUBIC_U0 + eps * direction, theta)
        return u0, solve(cubic(), u0, theta, (0.0, 3.0), **options)

    def value(eps):
        _, solution = solved(eps)
        return w @ solution.u_T + solution.pullback(None, running_cost=(quadratic, quadratic_vjp), **BOTH).running_cost

    bar = solved(0.0)[1].pullback(w, running_cost=(quadratic, quadratic_vjp), **BOTH)
    u0_direction = (solved(1e-6)[0] - solved(-1e-6)[0]) / 2e-6
    assert abs(u0_direction[1]) > 0.05
    difference = (value(1e-4) - value(-1e-4)) / 2e-4
    assert bar.u0 @ u0_direction + bar.theta @ theta_direction == pytest.approx(difference, rel=1e-7)


# --- the dot-product identity --------------------------------------------------------------------------------------------------
def pushed_f(t, u, theta, du):
    """cubic beside its tangent; theta holds that of theta behind theta."""
    du[0] = -u[1] + theta[1] * np.cos(t)
    du[1] = u[0] - theta[0] * u[1] - u[1] ** 3
    du[2] = -u[3] + theta[3] * np.cos(t)
    du[3] = u[2] - (theta[0] + 3.0 * u[1] ** 2) * u[3] - theta[2] * u[1]


def pushed_vjp(t, u, theta, lam, u_bar, theta_bar):
    """With respect to u alone."""
    u_bar[0], u_bar[2] = lam[1], lam[3]
    u_bar[1] = -lam[0] - (theta[0] + 3.0 * u[1] ** 2) * lam[1] - (6.0 * u[1] * u[3] + theta[2]) * lam[3]
    u_bar[3] = -lam[2] - (theta[0] + 3.0 * u[1] ** 2) * lam[3]
    theta_bar[:] = 0.0


def test_dot_product_identity():
    pushed, rng = Dynamics(pushed_f, pushed_vjp, mass=[1.0, 0.0, 1.0, 0.0]), np.random.default_rng(1)
    times, u_bars = np.array([0.5, 1.1, 2.0]), rng.normal(size=(3, 2))
    tangent = np.array([*CUBIC_THETA, 0.3, -0.8])
    u0 = consistent_initial(pushed, [*CUBIC_U0, 0.9, 0.0], tangent)
    gaps = []
    for tol in (1e-6, 1e-10):
        options = {**RADAU, "rtol": tol, "atol": tol}
        forward = solve(pushed, u0, tangent, (0.0, 2.5), **options)
        bar = solve(cubic(), CUBIC_U0, CUBIC_THETA, (0.0, 2.5), **options).pullback(
            [1.0, 2.0], observations=(times, u_bars), **BOTH
        )
        moved = forward.u_T[2:] @ [1.0, 2.0] + np.sum(forward(times)[:, 2:] * u_bars)
        gaps.append(abs(moved - bar.u0 @ u0[2:] - bar.theta @ tangent[2:]))
        assert gaps[-1] < 100 * tol
    assert gaps[1] < 1e-2 * gaps[0]


@pytest.mark.parametrize("kind", ["diagonal", "full", "shuffled"])
def test_random_problems_by_central_differences(kind):
    """Along consistent initial values, which move with theta; u0_bar is in the range of M^T."""
    n, rng, options = 5, np.random.default_rng(7), {**RADAU, "rtol": 1e-9, "atol": 1e-9}
    for _ in range(8):
        M, A = random_mass(rng, n, kind), rng.normal(size=(n, n)) * 10.0 ** rng.uniform(-1, 1)
        theta = np.append(A.ravel(), 0.1 * np.linalg.svd(A)[1][-1] * rng.normal(size=n))
        dynamics, w = Dynamics(*dense_callbacks(), mass=M), rng.normal(size=n)
        direction = np.abs(A).mean() * rng.normal(size=theta.size)
        T = 2.0 / max(1.0, *(x.real for x in scipy.linalg.eigvals(A, M) if abs(x) < 1e6))
        u0 = consistent_initial(dynamics, rng.normal(size=n), theta)
        bar, moved = solve(dynamics, u0, theta, (0.0, T), **options).pullback(w, **BOTH), []
        for eps in (1e-5, -1e-5):
            start = consistent_initial(dynamics, u0, theta + eps * direction)
            moved.append(np.append(start, w @ solve(dynamics, start, theta + eps * direction, (0.0, T), **options).u_T))
        difference = (moved[0] - moved[1]) / 2e-5
        scale = np.abs(bar.theta) @ np.abs(direction)
        assert abs(bar.theta @ direction + bar.u0 @ difference[:n] - difference[n]) < 1e-5 * scale
        assert np.max(np.abs(scipy.linalg.null_space(M).T @ bar.u0)) < 1e-9 * np.linalg.norm(bar.u0)


def test_rounding_of_algebraic_equations():
    """Equations that all mix large slopes lose digits. Newton's iteration may end above its goal, far below the tolerance."""

    def solved(seed, rtol, atol, n=6):
        rng = np.random.default_rng(seed)
        M, A = random_mass(rng, n, "full"), 10.0 * rng.normal(size=(n, n))
        theta = np.append(A.ravel(), 0.1 * np.linalg.svd(A)[1][-1] * rng.normal(size=n))
        T = 2.0 / max(1.0, *(x.real for x in scipy.linalg.eigvals(A, M) if abs(x) < 1e6))
        dynamics = Dynamics(*dense_callbacks(), mass=M)
        u0 = consistent_initial(dynamics, 10.0 * rng.normal(size=n), theta)
        return solve(dynamics, u0, theta, (0.0, T), **RADAU, rtol=rtol, atol=atol).u_T

    for seed in (137, 141):
        assert np.allclose(solved(seed, 1e-10, 2e-10), solved(seed, 1e-7, 1e-7), rtol=1e-5, atol=1e-5)
    with pytest.raises(SolveError, match="atol above all, may also be tighter than rounding allows"):
        solved(64, 1e-10, 1e-12)


# --- storages, tiers, ensembles -----------------------------------------------------------------------------------------------
def rod_gradient(n, kind, as_sparse):
    solution = solve(rod(n, as_sparse), np.zeros(n), [0.1, 3.0], (0.0, 1.0), **RADAU, rtol=1e-9, atol=1e-10, linear_solver=kind)
    return solution, solution.pullback(np.linspace(-1.0, 1.0, n), observations=([0.4], [np.ones(n)]), **BOTH)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["banded", "sparse"])
def test_storages(kind):
    """Linear finite elements, with a temperature prescribed at one end by an algebraic equation."""
    (true, wanted), (solution, bar) = rod_gradient(12, "dense", False), rod_gradient(12, kind, True)
    assert solution.structure.kind == kind
    assert np.allclose(solution.u_T, true.u_T, rtol=0, atol=1e-10) and solution.u_T[0] == pytest.approx(np.sin(3.0), abs=1e-9)
    assert np.allclose(bar.theta, wanted.theta, rtol=1e-9) and np.allclose(bar.u0, wanted.u0, rtol=0, atol=1e-9)
    _, large = rod_gradient(300, kind, True)
    eps, ends = 1e-5, np.linspace(-1.0, 1.0, 300)

    def value(shift):
        options = {**RADAU, "rtol": 1e-10, "atol": 1e-12, "linear_solver": kind, "t_eval": [0.4]}
        one = solve(rod(300, True), np.zeros(300), [0.1, 3.0 + shift], (0.0, 1.0), **options)
        return ends @ one.u_T + one.u_eval.sum()

    assert large.theta[1] == pytest.approx((value(eps) - value(-eps)) / (2 * eps), rel=1e-5)


def test_pattern_contains_that_of_the_mass_matrix():
    """A Jacobian without the entries that M has."""

    def f(t, u, theta, du):
        for i in range(u.size):
            du[i] = -theta[0] * u[i]

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        theta_bar[0] = 0.0
        for i in range(u.size):
            u_bar[i] = -theta[0] * lam[i]
            theta_bar[0] -= u[i] * lam[i]

    patterned, whole = (Dynamics(f, vjp, mass=FULL, jac_sparsity=given) for given in (np.eye(4), None))
    structure = solve(patterned, CHAIN_U0, [3.0], (0.0, 1.0), **RADAU, linear_solver="dense").structure
    rows, columns = structure.entries
    assert set(np.flatnonzero(FULL)) <= set(4 * rows + columns)
    states = [solve(d, CHAIN_U0, [3.0], (0.0, 1.0), **RADAU, linear_solver="dense").u_T for d in (patterned, whole)]
    assert np.allclose(*states, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fused", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["portable", "fused"])
def test_value_and_gradient_and_ensembles(fused):
    times, data = np.array([0.1, 1.0, 10.0]), np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    loss, dynamics = LeastSquares(times, data, components=[0, 2]), conserved(fused)
    options = {**RADAU, "rtol": 1e-8, "atol": 1e-12}
    value, bar = value_and_gradient(dynamics, loss, (0.0, 10.0), **options)(ROBERTSON_U0, ROBERTSON_THETA)
    solution = solve(conserved(), ROBERTSON_U0, ROBERTSON_THETA, (0.0, 10.0), **options)
    seeds = loss.value_and_cotangents(solution)
    slow = solution.pullback(**seeds[1], **BOTH)
    assert value == pytest.approx(seeds[0], rel=1e-9)
    assert np.allclose(bar.theta, slow.theta, rtol=1e-8) and np.allclose(bar.u0, slow.u0, rtol=1e-8, atol=1e-12)
    thetas = ROBERTSON_THETA * np.array([[1.0], [1.1], [0.9]])
    evaluate = ensemble_value_and_gradient(dynamics, loss, (0.0, 10.0), workers=2, **options)
    values, bars = evaluate(np.tile(ROBERTSON_U0, (3, 1)), thetas)
    assert values[0] == value and np.array_equal(bars.theta[0], bar.theta) and np.array_equal(bars.u0[0], bar.u0)
    outside = np.array([ROBERTSON_U0, [1.0, 0.0, 1e-3], ROBERTSON_U0])
    with pytest.raises(SolveError, match="1 of 3 trajectories failed; the first is number 1: .*algebraic equations"):
        evaluate(outside, thetas)


def test_pickled():
    solution = solve(pickle.loads(pickle.dumps(linear())), LINEAR_U0, LINEAR_THETA, (0.0, 1.0), **RADAU)
    assert np.array_equal(solution.u_T, solve(linear(), LINEAR_U0, LINEAR_THETA, (0.0, 1.0), **RADAU).u_T)


# --- initial values ------------------------------------------------------------------------------------------------------------
def test_inconsistent_initial_state():
    with pytest.raises(
        SolveError, match=r"component u\['z'\].*entry 1 of f has 0\.25 .*change by 0\.25.*consistent_initial"
    ) as caught:
        solve(linear(), {"x": 1.5, "z": 0.5}, LINEAR_THETA, (0.0, 1.0), **RADAU)
    assert caught.value.status == Status.INCONSISTENT and caught.value.component == 1 and caught.value.phase == "forward"
    evaluate = value_and_gradient(linear(), FinalState([1.0, 0.0]), (0.0, 1.0), **RADAU, step=0.1)
    with pytest.raises(SolveError, match="algebraic equations"):
        evaluate([1.5, 0.751], LINEAR_THETA)
    off = UNMIX @ LINEAR_U0  # of mixed, whose equations all have differential parts
    with pytest.raises(SolveError, match="algebraic equations"):
        solve(mixed(), off, LINEAR_THETA, (0.0, 1.0), **RADAU)
    solve(linear(), [1.5, 0.75 + 1e-7], LINEAR_THETA, (0.0, 1.0), **RADAU)  # less than the tolerance


def test_consistent_initial():
    found = consistent_initial(cubic(), {"x": 2.0, "z": 0.3}, CUBIC_THETA)
    assert found["x"] == 2.0 and found["z"] == pytest.approx(1.0, rel=1e-15)
    found = consistent_initial(mixed(), [1.0, -1.0], LINEAR_THETA, 0.5)
    x, z = UNMIX @ found
    assert z == pytest.approx(LINEAR_THETA[1] * x + LINEAR_THETA[2] * 0.5, rel=1e-14)
    assert x == pytest.approx(UNMIX[0] @ [1.0, -1.0], rel=1e-14)
    assert np.array_equal(consistent_initial(chain(True), CHAIN_U0, CHAIN_THETA), CHAIN_U0)
    with pytest.raises(ValueError, match="no mass matrix"):
        consistent_initial(robertson(), ROBERTSON_U0, ROBERTSON_THETA)

    def no_root(t, u, theta, du):
        du[0] = u[1]
        du[1] = 1.0 + u[1] ** 2

    def no_root_vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0] = 0.0
        u_bar[1] = lam[0] + 2.0 * u[1] * lam[1]

    with pytest.raises(SolveError, match=r"Newton's iteration .* u0\[1\]"):
        consistent_initial(Dynamics(no_root, no_root_vjp, mass=[1.0, 0.0]), [0.0, 0.7], [])


def velocity_f(t, u, theta, du):
    """Index 2: the constraint on the position determines the force only when differentiated."""
    du[0] = u[1]
    du[1] = u[0] - theta[0] * np.sin(t)


def velocity_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0], u_bar[1], theta_bar[0] = lam[1], lam[0], -np.sin(t) * lam[1]


def idle_f(t, u, theta, du):
    """An algebraic equation in which nothing appears."""
    du[0] = -u[0]
    du[1] = 0.0


def idle_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0], u_bar[1] = -lam[0], 0.0


def test_higher_index():
    for f, vjp, theta in ((velocity_f, velocity_vjp, [1.0]), (idle_f, idle_vjp, [])):
        dynamics = Dynamics(f, vjp, mass=[1.0, 0.0])
        with pytest.raises(SolveError, match="index is not 1.*differentiate") as caught:
            solve(dynamics, [0.0, 1.0], theta, (0.0, 1.0), **RADAU)
        assert caught.value.status == Status.HIGH_INDEX
        if f is idle_f:
            with pytest.raises(SolveError, match="index is not 1"):
                consistent_initial(dynamics, [0.0, 1.0], theta)


# --- what is refused ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("mass", "error", "message"),
    [
        (np.ones((2, 3)), ValueError, r"square matrix \(n, n\) or its diagonal \(n,\), but its shape is \(2, 3\)"),
        (np.ones((2, 2, 2)), ValueError, "square matrix"),
        (1.0, ValueError, "square matrix"),
        ([[1.0, 0.0], [0.0, np.nan]], ValueError, r"finite, but entry \(1, 1\) is nan"),
        ([1.0, np.inf], ValueError, r"finite, but entry \(1, 1\) is inf"),
        (sparse.csr_array(np.diag([np.nan, 1.0])), ValueError, r"entry \(0, 0\) is nan"),
        ([[1.0, 1j], [0.0, 1.0]], TypeError, "real numbers"),
        ("identity", TypeError, "real numbers"),
    ],
)
def test_bad_matrices(mass, error, message):
    with pytest.raises(error, match=message):
        Dynamics(linear_f, linear_vjp, mass=mass)


def test_what_is_refused():
    u0, theta, span = LINEAR_U0, LINEAR_THETA, (0.0, 1.0)
    with pytest.raises(ValueError, match=r"'Tsit5' takes no mass matrix: choose method='Radau'\.$"):
        solve(linear(), u0, theta, span)
    with pytest.raises(ValueError, match="'Kvaerno5' takes no mass matrix: .*multiply f and vjp by the inverse"):
        solve(chain(True), CHAIN_U0, CHAIN_THETA, span, method="Kvaerno5")
    with pytest.raises(ValueError, match=r"shape \(3, 3\), as u0 has 3 entries, but its shape is \(2, 2\)"):
        solve(linear(), [1.0, 1.0, 1.0], theta, span, **RADAU)
    solution = solve(linear(), u0, theta, span, **RADAU)
    with pytest.raises(ValueError, match=r"T, t0 need: choose wrt=\('u0', 'theta'\)"):
        solution.pullback([1.0, 0.0], adjoint="discrete")
    for adjoint in ("interpolating", "backsolve"):
        with pytest.raises(ValueError, match="not available with a mass matrix: choose adjoint='discrete'"):
            solution.pullback([1.0, 0.0], adjoint=adjoint, wrt=("u0", "theta"))
        with pytest.raises(ValueError, match="not available with a mass matrix: choose adjoint='discrete'"):
            value_and_gradient(linear(), FinalState([1.0, 0.0]), span, adjoint=adjoint, **RADAU)
