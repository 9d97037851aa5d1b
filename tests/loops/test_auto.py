"""method="auto": what it takes of each method, where it switches, and gradients across the switches."""

import functools
import warnings

import numpy as np
import pytest
from scipy import sparse

from adjode import Dynamics, SolveError, Status, ensemble_value_and_gradient, solve, solve_ensemble, value_and_gradient
from adjode.compile import slots
from adjode.compile.calls import PORTABLE
from adjode.compile.flags import kernel
from adjode.compile.frame import Frame
from adjode.linalg.structure import Structure, as_pattern
from adjode.loops.switch import spectral_radius
from adjode.losses import FinalState, LeastSquares
from benchmarks.problems import PROBLEMS, lorenz_dynamics
from benchmarks.stiff_problems import STIFF_PROBLEMS
from tests.problems.methods import AUTO_ADJOINTS
from tests.problems.stiff_systems import (
    CYCLE,
    CYCLE_THETA,
    CYCLE_U0,
    ROBERTSON_THETA,
    ROBERTSON_U0,
    cycle,
    robertson,
    van_der_pol,
    van_der_pol_f,
    van_der_pol_vjp,
)
from tests.problems.systems import DECAY, LOGISTIC, LV_SPAN, LV_THETA, LV_U0, OSCILLATOR, ROTATION, lotka_volterra


# --- where it is not stiff -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-10])
@pytest.mark.parametrize("problem", ["lotka_volterra", "lorenz", "oscillator", "backwards"])
def test_a_problem_that_is_not_stiff_takes_the_steps_of_tsit5(problem, tol):
    dynamics, u0, theta, span = {
        "lotka_volterra": (lotka_volterra(), LV_U0, LV_THETA, LV_SPAN),
        "lorenz": (lorenz_dynamics(), np.array([1.0, 1.0, 1.0]), np.array([10.0, 28.0, 8.0 / 3.0]), (0.0, 5.0)),
        "oscillator": (OSCILLATOR.dynamics, OSCILLATOR.u0, OSCILLATOR.theta, OSCILLATOR.t_span),
        "backwards": (lotka_volterra(), LV_U0, LV_THETA, (5.0, 0.0)),
    }[problem]
    options = {"rtol": tol, "atol": tol, "t_eval": np.linspace(*span, 7)}
    one, other = (solve(dynamics, u0, theta, span, method=method, **options) for method in ("auto", "Tsit5"))
    np.testing.assert_array_equal(one.u, other.u)
    np.testing.assert_array_equal(one.u_eval, other.u_eval)
    assert one.stats == other.stats and one.stats.n_switch == 0 and not one.stiff.any()
    bars = [solution.pullback(np.ones(u0.size), adjoint="interpolating") for solution in (one, other)]
    if tol == 1e-3:  # whether lam's steps are stiff is measured at other places than their errors are, which counts here
        np.testing.assert_allclose(bars[0].theta, bars[1].theta, rtol=20 * tol)
    else:
        np.testing.assert_array_equal(bars[0].theta, bars[1].theta)
        assert bars[0].stats == bars[1].stats


@pytest.mark.parametrize("adjoint", AUTO_ADJOINTS)
def test_value_and_gradient_of_tsit5_to_the_last_bit(adjoint):
    problem = PROBLEMS["lv_series"]()
    (value, bar), (wanted, expected) = (problem.value_and_gradient(adjoint=adjoint, method=m)() for m in ("auto", "Tsit5"))
    assert value == wanted and bar.stats == expected.stats
    np.testing.assert_array_equal(bar.u0, expected.u0)
    np.testing.assert_array_equal(bar.theta, expected.theta)


# --- where it is --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "most_steps", "most_explicit"), [("rober", 1.25, 50), ("hires", 2.6, 800), ("orego", 1.3, 1600)], ids=lambda x: str(x)
)
def test_stiff_problems(name, most_steps, most_explicit):
    """Beside Radau: the error in units of the tolerance, and the steps. Before it is stiff, hires is solved by short steps."""
    problem = STIFF_PROBLEMS[name]()

    def run(method, tol):
        return solve(problem.dynamics, problem.u0, problem.theta, problem.t_span, method=method, rtol=tol, atol=1e-4 * tol)

    exact = run("Radau", 1e-10)
    for tol, factor in ((1e-4, max(most_steps, 1.5)), (1e-7, most_steps)):
        auto, radau = run("auto", tol), run("Radau", tol)
        assert np.max(np.abs(auto.u_T / exact.u_T - 1.0)) < 2 * tol
        assert auto.stats.n_switch % 2 == 1 and auto.stiff[-1] and not auto.stiff[0]
        assert auto.stats.n_steps < factor * radau.stats.n_steps and np.count_nonzero(~auto.stiff) < most_explicit
        assert auto.stats.n_f < 2.2 * radau.stats.n_f
        assert auto.stats.n_lu < radau.stats.n_lu and auto.stats.n_jac < radau.stats.n_jac


def test_a_stiff_start_wastes_few_steps():
    for tol, most in ((1e-4, 25), (1e-7, 45)):
        stiff = solve(robertson(), ROBERTSON_U0, ROBERTSON_THETA, (0.0, 1e5), method="auto", rtol=tol, atol=1e-4 * tol).stiff
        assert np.argmax(stiff) < most and stiff[np.argmax(stiff) :].all()


@pytest.mark.parametrize("mu", [1.0, 10.0, 1e2, 1e3, 1e4])
def test_van_der_pol_switches_to_and_fro(mu):
    span = (0.0, 3.0 * max(mu, 7.0))
    for tol in (1e-4, 1e-7):
        auto, tsit5, radau = (
            solve(van_der_pol(), [2.0, 0.0], [mu], span, method=method, rtol=tol, atol=1e-4 * tol, max_steps=400 * 1000)
            if method != "Tsit5" or mu < 1e3
            else None
            for method in ("auto", "Tsit5", "Radau")
        )
        fewest = min(solution.stats.n_steps for solution in (tsit5, radau) if solution is not None)
        assert auto.stats.n_steps < 1.1 * fewest
        switches = np.flatnonzero(np.diff(np.concatenate([[0], auto.stiff])))
        assert auto.stats.n_switch == switches.size
        if mu >= 100.0:
            assert 6 <= switches.size <= 9  # the slow parts are stiff, the jumps between them are not
        if mu == 1.0:
            assert switches.size == 0


def test_switches_are_seen_where_the_store_grows():
    solution = solve(van_der_pol(), [2.0, 0.0], [1e4], (0.0, 3e4), method="auto", rtol=1e-7, atol=1e-11)
    assert solution.stats.n_steps > 1024 and solution.stiff.size == solution.stats.n_steps
    assert 6 <= np.count_nonzero(np.diff(solution.stiff.astype(int))) == solution.stats.n_switch


def test_dense_output_across_the_switches():
    """Of order 4 and 3: between steps the error is that of the steps, or falls with the tolerance to the power 3/4."""
    times, errors = np.linspace(*CYCLE, 4001), []
    exact = cycle(1e-11, 1e-13)(times)
    for tol in (1e-5, 1e-8):
        errors.append(np.max(np.abs(cycle(tol, 1e-2 * tol)(times) - exact)[:, 0]))
    assert errors[1] < 2e-4 and errors[1] < 10.0 ** (-3 * 0.7) * errors[0]


# --- what is asked for, and how -------------------------------------------------------------------------------------------------
def test_less_asked_for_costs_less():
    def work(adjoint, *wrt):
        options = {"on_inaccurate": "warn"} if adjoint == "discrete" else {}  # the work on one mesh, too coarse for lam as it is
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return cycle().pullback([1.0, 1.0], adjoint=adjoint, wrt=wrt, **options).stats

    for adjoint in AUTO_ADJOINTS:
        both, without = work(adjoint, "u0", "theta"), work(adjoint, "u0")
        assert without.n_vjp <= both.n_vjp and without.n_steps <= 1.05 * both.n_steps
        assert work(adjoint, "T").n_vjp <= cycle().u.shape[1]  # a Jacobian, if the last step is implicit
    assert work("interpolating", "u0").n_vjp < 0.8 * work("interpolating", "u0", "theta").n_vjp
    both = work("discrete", "u0", "theta")
    assert both.n_steps == cycle().stats.n_steps and both.n_lu < 1.1 * cycle().stats.n_lu


@pytest.mark.parametrize("quadrature", ["gauss", "augmented"])
def test_both_quadratures_across_the_switches(quadrature):
    """Of a backward pass that switches by itself, observations among its stops."""
    observations = (np.array([20.0, 70.0, 110.0]), np.ones((3, 2)))
    exact = cycle(1e-10, 1e-12).pullback([1.0, 0.0], observations=observations, adjoint="discrete")
    bar = cycle(1e-8, 1e-11).pullback([1.0, 0.0], observations=observations, quadrature=quadrature)
    np.testing.assert_allclose(bar.theta, exact.theta, rtol=1e-3)
    np.testing.assert_allclose(bar.u0, exact.u0, rtol=1e-3, atol=1e-3 * np.abs(exact.u0).max())


@pytest.mark.parametrize("adjoint", AUTO_ADJOINTS)
def test_vjp_u_where_there_is_one(adjoint):
    def vjp_u(t, u, theta, lam, u_bar):
        u_bar[0] = lam[1] * (-2.0 * theta[0] * u[0] * u[1] - 1.0)
        u_bar[1] = lam[0] + lam[1] * theta[0] * (1.0 - u[0] * u[0])

    dynamics = Dynamics(van_der_pol_f, van_der_pol_vjp, vjp_u=vjp_u)
    solution = solve(dynamics, CYCLE_U0, CYCLE_THETA, CYCLE, method="auto", rtol=1e-6, atol=1e-9)
    observations = (np.array([20.0, 70.0, 110.0]), np.ones((3, 2)))
    bars = [one.pullback([1.0, 0.0], observations=observations, adjoint=adjoint) for one in (solution, cycle())]
    np.testing.assert_allclose(bars[0].theta, bars[1].theta, rtol=1e-2 if adjoint == "interpolating" else 1e-9)
    assert bars[0].stats.n_vjp < 0.7 * bars[1].stats.n_vjp and bars[0].stats.n_vjp_u > 0


@pytest.mark.parametrize("adjoint", AUTO_ADJOINTS)
def test_no_states_one_state_no_parameters_no_time(adjoint):
    empty = solve(DECAY.dynamics, [], [], (0.0, 1.0), method="auto")
    bar = empty.pullback([], adjoint=adjoint)
    assert empty.u_T.size == 0 and bar.u0.size == 0 and bar.theta.size == 0
    one = solve(DECAY.dynamics, [2.0], [1e5], (0.0, 1.0), method="auto", rtol=1e-7, atol=1e-7)
    assert one.stats.n_switch == 1 and abs(one.u_T[0]) < 1e-6 and abs(one.pullback([1.0], adjoint=adjoint).u0[0]) < 1e-6
    bare = solve(ROTATION.dynamics, ROTATION.u0, [], (0.0, 1.0), method="auto", rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(bare.pullback([1.0, 0.0], adjoint=adjoint).u0, [np.cos(1.0), np.sin(1.0)], rtol=1e-4)
    still = solve(DECAY.dynamics, [2.0], [0.5], (1.0, 1.0), method="auto")
    assert still.stiff.size == 0 and still.pullback([3.0], adjoint=adjoint).u0[0] == 3.0


def test_the_backward_pass_may_take_another_method():
    exact = cycle(1e-10, 1e-12).pullback([1.0, 0.0], adjoint="discrete").theta
    np.testing.assert_allclose(cycle(1e-8, 1e-11).pullback([1.0, 0.0], method="Radau").theta, exact, rtol=1e-3)
    radau = solve(van_der_pol(), CYCLE_U0, CYCLE_THETA, CYCLE, method="Radau", rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(radau.pullback([1.0, 0.0], method="auto").theta, exact, rtol=1e-3)


def test_what_there_is_not():
    problem = DECAY.dynamics, DECAY.u0, DECAY.theta, (0.0, 1.0)
    with pytest.raises(ValueError, match="method='auto' switches by error control: leave step= out"):
        solve(*problem, method="auto", step=0.1)
    with pytest.raises(ValueError, match="method='auto' switches by .* cannot pull back fixed steps"):
        solve(*problem, step=0.1).pullback(np.ones(7), method="auto")
    with pytest.raises(ValueError, match=r"backsolve' with auto .* choose adjoint='discrete' or 'interpolating'"):
        solve(*problem, method="auto").pullback(np.ones(7), adjoint="backsolve")
    with pytest.raises(ValueError, match="method='auto' takes no mass matrix: choose method='Radau'"):
        solve(Dynamics(van_der_pol_f, van_der_pol_vjp, mass=np.diag([1.0, 0.0])), CYCLE_U0, CYCLE_THETA, CYCLE, method="auto")
    with pytest.raises(ValueError, match="give Dynamics a jac_sparsity"):
        solve(*problem, method="auto", linear_solver="banded")


# --- failures ---------------------------------------------------------------------------------------------------------------
def failing(when, what, early=False):
    """u' = -rate u, with rate 1e4, whose f or vjp fails after a time; the Jacobian comes from jac."""

    def f(t, u, theta, du):
        du[0] = -1e4 * u[0] + np.cos(t)
        if what == "f" and t > when:
            du[0] = np.nan

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0] = -1e4 * lam[0]
        if what == "vjp" and t < when:
            u_bar[0] = np.nan

    def jac(t, u, theta, J):
        J[0, 0] = -1e4

    return Dynamics(f, vjp, jac=jac, breaks=())


@pytest.mark.parametrize(("when", "stiff"), [(1e-4, False), (0.5, True)], ids=["explicit", "stiff"])
def test_nan_in_the_forward_pass(when, stiff):
    options = {"method": "auto", "rtol": 1e-5, "atol": 1e-8}
    assert solve(failing(0.0, ""), [1.0], [], (0.0, 0.9 * when), **options).stats.n_switch == stiff
    with pytest.raises(SolveError, match=r"the forward solve stopped at t = .* with step size .* \(component u\[0\]\)") as caught:
        solve(failing(when, "f"), [1.0], [], (0.0, 1.0), **options)
    assert caught.value.status == Status.NON_FINITE and 0.3 * when < caught.value.t <= when


@pytest.mark.parametrize("adjoint", AUTO_ADJOINTS)
@pytest.mark.parametrize("when", [1e-4, 0.5], ids=["explicit", "stiff"])
def test_nan_in_the_backward_pass(when, adjoint):
    solution = solve(failing(when, "vjp"), [1.0], [], (0.0, 1.0), method="auto", rtol=1e-5, atol=1e-8)
    with pytest.raises(SolveError, match="the adjoint solve stopped at t = ") as caught:
        solution.pullback([1.0], observations=([0.2 * when], [[1.0]]), adjoint=adjoint)
    assert (caught.value.phase, caught.value.status) == ("adjoint", Status.NON_FINITE)


def test_cap_on_steps_and_blow_up():
    with pytest.raises(SolveError, match="cap of 40 steps"):
        solve(robertson(), ROBERTSON_U0, ROBERTSON_THETA, (0.0, 1e5), method="auto", max_steps=40)
    with pytest.raises(SolveError) as caught:
        solve(LOGISTIC.dynamics, [-0.5], LOGISTIC.theta, (0.0, 50.0), method="auto")
    assert (caught.value.phase, caught.value.status) == ("forward", Status.STEP_TOO_SMALL)
    assert caught.value.t == pytest.approx(np.log(5.0) / 1.2, rel=1e-4)


# --- tiers, storages, ensembles --------------------------------------------------------------------------------------------
def members(N):
    """Some of them stiff from the start, some never, some in turns."""
    rng = np.random.default_rng(0)
    return np.column_stack([rng.uniform(1.5, 2.0, N), np.zeros(N)]), 10.0 ** rng.uniform(-1.0, 3.0, (N, 1))


@pytest.mark.parametrize("adjoint", AUTO_ADJOINTS)
def test_ensemble_equals_single_calls_to_the_bit(adjoint):
    u0, theta = members(9)
    loss, options = LeastSquares([2.0, 9.0], np.ones((2, 2))), {"method": "auto", "adjoint": adjoint, "rtol": 1e-5, "atol": 1e-7}
    single = value_and_gradient(van_der_pol(), loss, (0.0, 30.0), **options)
    value, bar = ensemble_value_and_gradient(van_der_pol(), loss, (0.0, 30.0), workers=2, **options)(u0, theta)
    switched = set()
    for i in range(len(u0)):
        wanted, expected = single(u0[i], theta[i])
        switched.add(solve(van_der_pol(), u0[i], theta[i], (0.0, 30.0), method="auto", rtol=1e-5, atol=1e-7).stats.n_switch)
        assert value[i] == wanted
        np.testing.assert_array_equal(bar.u0[i], expected.u0)
        np.testing.assert_array_equal(bar.theta[i], expected.theta)
    assert min(switched) == 0 and max(switched) > 1


def test_ensemble_of_solutions():
    u0, theta = members(5)
    times = np.array([0.0, 3.0, 11.0])
    ensemble = solve_ensemble(van_der_pol(), u0, theta, (0.0, 30.0), t_eval=times, method="auto")
    for i in range(len(u0)):
        solution = solve(van_der_pol(), u0[i], theta[i], (0.0, 30.0), t_eval=times, method="auto")
        np.testing.assert_array_equal(ensemble.u_T[i], solution.u_T)
        np.testing.assert_array_equal(ensemble.u_eval[i], solution.u_eval)


def test_inside_compiled_code():
    single = value_and_gradient(robertson(), FinalState([1.0, 2.0, 3.0]), (0.0, 1e3), method="auto")
    value, bar = single(ROBERTSON_U0, ROBERTSON_THETA)
    u0_bar, theta_bar = np.zeros(3), np.zeros(3)
    assert single.jitted(3, 3)(ROBERTSON_U0, ROBERTSON_THETA, u0_bar, theta_bar) == (0, value)
    np.testing.assert_array_equal(u0_bar, bar.u0)
    np.testing.assert_array_equal(theta_bar, bar.theta)


def heat_f(t, u, theta, du):
    for i in range(u.size):
        left, right = u[i - 1] if i > 0 else 0.0, u[i + 1] if i < u.size - 1 else 0.0
        du[i] = theta[0] * u.size**2 * (left - 2.0 * u[i] + right) - u[i] ** 3


def heat_vjp(t, u, theta, lam, u_bar, theta_bar):
    theta_bar[0] = 0.0
    for i in range(u.size):
        left, right = lam[i - 1] if i > 0 else 0.0, lam[i + 1] if i < u.size - 1 else 0.0
        u_bar[i] = theta[0] * u.size**2 * (left - 2.0 * lam[i] + right) - 3.0 * u[i] ** 2 * lam[i]
        theta_bar[0] += u.size**2 * (left - 2.0 * lam[i] + right) * u[i]


def tridiagonal(n):
    return np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1)


@pytest.mark.parametrize("kind", ["dense", "banded", "sparse"])
@pytest.mark.parametrize("pair", [False, True], ids=["one largest", "a pair"])
def test_spectral_radius(kind, pair):
    """In every storage; of two eigenvalues of the same size, too, or of a matrix whose norm is far larger."""
    n = 12
    matrix = np.diag(np.linspace(-1.0, -9.0, n)) + np.diag(np.resize([1e3, 0.0], n - 1), 1)
    if pair:
        matrix[3:5, 3:5] = [[0.0, 1e3], [-1e5, 0.0]]
    frame, structure = Frame(), Structure(kind, n, as_pattern(sparse.csc_array(tridiagonal(n))))
    structure.put(frame)
    rows, columns = structure.entries
    places = structure.places(rows, columns)
    frame[slots.ENTRIES] = np.concatenate([rows, columns, places])
    frame[slots.JACOBIAN].reshape(-1)[places] = matrix[rows, columns]
    frame[slots.POWER] = np.zeros((2, n))
    frame[slots.CLOCK] = slots.CLOCK.zeros()
    for _ in range(3):  # Jacobians, one after the other
        assert measure()(frame.argument) == 0
    assert 0.5 < frame[slots.CLOCK][slots.RADIUS] / np.abs(np.linalg.eigvals(matrix)).max() < 2.0


@functools.cache
def measure():
    def run(frame):
        slots.CLOCK(frame)[slots.RADIUS] = spectral_radius(frame)
        return 0

    return PORTABLE.entry("test-spectral-radius", Frame(), lambda calls, stages: kernel(run))


@pytest.mark.slow  # compiles both passes for banded matrices
def test_a_banded_system():
    n = 40
    rod = Dynamics(heat_f, heat_vjp, jac_sparsity=tridiagonal(n))
    u0, results = np.sin(np.pi * np.arange(1, n + 1) / (n + 1)), []
    for linear_solver in ("dense", "banded"):
        options = {"method": "auto", "rtol": 1e-6, "atol": 1e-9, "linear_solver": linear_solver}
        solution = solve(rod, u0, [0.1], (0.0, 1.0), **options)
        assert solution.structure.kind == linear_solver and solution.stats.n_switch == 1
        bar = solution.pullback(u0, adjoint="discrete")
        results.append((solution.u_T, bar.u0, bar.theta))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)


@pytest.mark.slow  # compiles three passes
def test_fused_and_portable_agree():
    bars, solutions = [], []
    for fused in (False, True, True):
        options = {"method": "auto", "rtol": 1e-8, "atol": 1e-12, "t_eval": [1e-4, 1.0, 500.0]}
        solution = solve(robertson(fused), ROBERTSON_U0, ROBERTSON_THETA, (0.0, 1e6), **options)
        observations = (solution.t_eval, np.ones((3, 3)))
        solutions.append(solution)
        bars.append([solution.pullback([1.0, 2.0, 3.0], observations=observations, adjoint=adjoint) for adjoint in AUTO_ADJOINTS])
    np.testing.assert_allclose(solutions[0].u_eval, solutions[1].u_eval, rtol=1e-7)
    assert abs(solutions[0].stats.n_steps - solutions[1].stats.n_steps) < 5 and solutions[1].stats.n_switch == 1
    assert solutions[1].stats.n_steps > 512  # a pass that is left and entered again, for its stores to grow
    for portable, fused, again in zip(*bars, strict=True):
        np.testing.assert_allclose(portable.u0, fused.u0, rtol=1e-5)
        np.testing.assert_allclose(portable.theta, fused.theta, rtol=1e-5)
        np.testing.assert_array_equal(again.theta, fused.theta)
