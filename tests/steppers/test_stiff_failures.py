"""Implicit methods: what goes wrong is said, in both passes, and nothing partial comes back; odd sizes and options."""

import warnings

import numpy as np
import pytest

from adjode import Dynamics, SolveError, Status, solve, value_and_gradient
from adjode.losses import FinalState
from tests.problems.methods import COMBINATIONS, STIFF, TRANSPOSED
from tests.problems.stiff_systems import ROBERTSON_THETA, ROBERTSON_U0, robertson, robertson_f, robertson_vjp
from tests.problems.systems import DECAY, OSCILLATOR, ROTATION

LOOSE = {"rtol": 1e-4, "atol": 1e-6}


def _nan_late(t, u, theta, du):
    du[0] = -50.0 * u[0] if t < 0.6 else np.nan


def _raises_late(t, u, theta, du):
    if t > 0.6:
        raise ValueError("too late")
    du[0] = -50.0 * u[0]


def _f(t, u, theta, du):
    du[0] = -50.0 * u[0]


def _vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -50.0 * lam[0]


def _nan_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -50.0 * lam[0] if t > 0.6 else np.nan


def _raising_vjp(t, u, theta, lam, u_bar, theta_bar):
    if t < 0.6:
        raise ValueError("too early")
    u_bar[0] = -50.0 * lam[0]


def _jac(t, u, theta, J):
    J[0, 0] = -50.0


def failing(f=_f, vjp=_vjp):
    """The Jacobian comes from jac, so that a failing vjp fails in the backward pass alone."""
    return Dynamics(f, vjp, jac=_jac)


@pytest.mark.parametrize("method", STIFF)
@pytest.mark.parametrize(
    ("f", "status"), [(_nan_late, Status.NON_FINITE), (_raises_late, Status.CALLBACK_RAISED)], ids=["nan", "raises"]
)
def test_f_fails_in_the_forward_pass(method, f, status):
    with pytest.raises(SolveError, match="the forward solve stopped at t = 0") as caught:
        solve(failing(f), [1.0], [], (0.0, 1.0), method=method, **LOOSE)
    assert caught.value.status == status and caught.value.phase == "forward" and 0.3 < caught.value.t <= 1.0
    if status == Status.CALLBACK_RAISED:
        assert "ValueError: too late" in str(caught.value)


@pytest.mark.parametrize(("method", "adjoint"), COMBINATIONS)
@pytest.mark.parametrize(
    ("vjp", "status"), [(_nan_vjp, Status.NON_FINITE), (_raising_vjp, Status.CALLBACK_RAISED)], ids=["nan", "raises"]
)
def test_vjp_fails_in_the_backward_pass(method, adjoint, vjp, status):
    solution = solve(failing(vjp=vjp), [1.0], [], (0.0, 1.0), method=method, **LOOSE)
    with pytest.raises(SolveError, match="the adjoint solve stopped at t = 0") as caught:
        solution.pullback([1.0], adjoint=adjoint)
    assert (caught.value.phase, caught.value.status) == ("adjoint", status)
    if status == Status.CALLBACK_RAISED:
        assert "ValueError: too early" in str(caught.value)


def test_jac_fails():
    def nan_jac(t, u, theta, J):
        J[0, 0] = np.nan

    def raising_jac(t, u, theta, J):
        raise ValueError("no Jacobian")

    with pytest.raises(SolveError, match="NaN or infinity"):
        solve(Dynamics(_f, _vjp, jac=nan_jac), [1.0], [], (0.0, 1.0), method="Radau")
    with pytest.raises(SolveError, match="raised ValueError: no Jacobian"):
        solve(Dynamics(_f, _vjp, jac=raising_jac), [1.0], [], (0.0, 1.0), method="Radau")


def test_newton_fails_with_fixed_steps():
    def f(t, u, theta, du):
        du[0] = -np.exp(30.0 * u[0])

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0] = -1.0 * lam[0]

    with pytest.raises(SolveError, match="Newton's iteration for the stages does not converge") as caught:
        solve(Dynamics(f, vjp), [1.0], [], (0.0, 1.0), method="Radau", step=0.5)
    assert (caught.value.phase, caught.value.status) == ("forward", Status.NEWTON_FAILED)


@pytest.mark.parametrize("method", STIFF)
def test_cap_on_steps_in_both_passes(method):
    with pytest.raises(SolveError, match="cap of 10 steps") as caught:
        solve(robertson(), ROBERTSON_U0, ROBERTSON_THETA, (0.0, 1e5), method=method, max_steps=10)
    assert caught.value.status == Status.MAX_STEPS
    solution = solve(robertson(), ROBERTSON_U0, ROBERTSON_THETA, (0.0, 10.0), method=method, **LOOSE)
    with pytest.raises(SolveError, match=r"the adjoint solve stopped .* cap of 5 steps"):
        solution.pullback([1.0, 1.0, 1.0], max_steps=5)


def test_an_explicit_method_that_runs_out_of_steps_names_a_stiff_one():
    with pytest.raises(SolveError, match="method='Radau'"):
        solve(robertson(), ROBERTSON_U0, ROBERTSON_THETA, (0.0, 1e4), max_steps=1000)


def test_blow_up():
    def f(t, u, theta, du):
        du[0] = u[0] * u[0]

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0] = 2.0 * u[0] * lam[0]

    for method in STIFF:
        with pytest.raises(SolveError) as caught:
            solve(Dynamics(f, vjp), [1.0], [], (0.0, 2.0), method=method)
        assert (caught.value.phase, caught.value.status) == ("forward", Status.STEP_TOO_SMALL)
        assert caught.value.t == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("method", STIFF)
def test_backsolve_is_refused_with_the_alternatives(method):
    solution = solve(DECAY.dynamics, DECAY.u0, DECAY.theta, (0.0, 1.0), method=method)
    with pytest.raises(ValueError, match=f"backsolve' with {method} .* choose adjoint='discrete' or 'interpolating'"):
        solution.pullback(np.ones(7), adjoint="backsolve")
    explicit = solve(DECAY.dynamics, DECAY.u0, DECAY.theta, (0.0, 1.0))
    with pytest.raises(ValueError, match="backsolve' with"):
        explicit.pullback(np.ones(7), adjoint="backsolve", method=method)


def test_the_backward_pass_may_take_another_method():
    solution = solve(OSCILLATOR.dynamics, OSCILLATOR.u0, OSCILLATOR.theta, OSCILLATOR.t_span, rtol=1e-8, atol=1e-8)
    exact = OSCILLATOR.cotangents(np.array([1.0, 0.5]))
    for method in ("Tsit5", *(name for name in STIFF if name != "TRBDF2")):
        bar = solution.pullback([1.0, 0.5], method=method)
        np.testing.assert_allclose(bar.theta, exact[1], rtol=1e-6)
    stiff = solve(OSCILLATOR.dynamics, OSCILLATOR.u0, OSCILLATOR.theta, OSCILLATOR.t_span, method="Radau", rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(stiff.pullback([1.0, 0.5], method="DOP853").theta, exact[1], rtol=1e-5)


@pytest.mark.parametrize(("method", "adjoint"), COMBINATIONS)
def test_no_states_one_state_no_parameters_no_time(method, adjoint):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        empty = solve(DECAY.dynamics, [], [], (0.0, 1.0), method=method)
        bar = empty.pullback([], adjoint=adjoint)
        assert empty.u_T.size == 0 and bar.u0.size == 0 and bar.theta.size == 0
        one = solve(DECAY.dynamics, [2.0], [0.5], (0.0, 1.0), method=method, rtol=1e-7, atol=1e-7)
        assert one.pullback([1.0], adjoint=adjoint).u0[0] == pytest.approx(np.exp(-0.5), rel=1e-4)
        bare = solve(ROTATION.dynamics, ROTATION.u0, [], (0.0, 1.0), method=method, rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(bare.pullback([1.0, 0.0], adjoint=adjoint).u0, [np.cos(1.0), np.sin(1.0)], rtol=1e-4)
        still = solve(DECAY.dynamics, [2.0], [0.5], (1.0, 1.0), method=method).pullback([3.0], adjoint=adjoint)
        assert still.u0[0] == 3.0 and still.theta[0] == 0.0


def test_a_rosenbrock_method_has_no_discrete_adjoint_and_says_why():
    solution = solve(DECAY.dynamics, DECAY.u0, DECAY.theta, (0.0, 1.0), method="Rodas5P")
    with pytest.raises(ValueError, match=r"Rodas5P would need second derivatives of f.*adjoint='interpolating', or method='Radau'"):
        solution.pullback(np.ones(7), adjoint="discrete")
    with pytest.raises(ValueError, match="second derivatives"):
        value_and_gradient(DECAY.dynamics, FinalState(np.ones(7)), (0.0, 1.0), method="Rodas5P")(DECAY.u0, DECAY.theta)
    with pytest.raises(ValueError, match="choose quadrature='gauss'"):
        solution.pullback(np.ones(7), quadrature="augmented")


@pytest.mark.parametrize("quadrature", ["gauss", "augmented"])
@pytest.mark.parametrize("method", [name for name in TRANSPOSED if name != "TRBDF2"])
def test_both_quadratures(method, quadrature):
    exact = OSCILLATOR.cotangents(np.array([1.0, 0.5]))[1]
    options = {"method": method, "rtol": 1e-7, "atol": 1e-7}
    solution = solve(OSCILLATOR.dynamics, OSCILLATOR.u0, OSCILLATOR.theta, OSCILLATOR.t_span, **options)
    np.testing.assert_allclose(solution.pullback([1.0, 0.5], quadrature=quadrature).theta, exact, rtol=3e-5)


@pytest.mark.parametrize("method", STIFF)
def test_t_eval_first_step_and_max_step(method):
    times = np.array([0.0, 0.1, 0.55, 1.0])
    options = {"method": method, "rtol": 1e-5, "atol": 1e-5}
    solution = solve(DECAY.dynamics, DECAY.u0, DECAY.theta, (0.0, 1.0), t_eval=times, first_step=1e-3, max_step=0.05, **options)
    exact = DECAY.u0 * np.exp(-np.outer(times, DECAY.theta))
    np.testing.assert_allclose(solution.u_eval, exact, rtol=1e-3)
    assert solution.t[1] == 1e-3 and np.diff(solution.t).max() < 0.05 + 1e-12


@pytest.mark.parametrize("method", TRANSPOSED)
def test_nothing_in_nothing_out(method):
    solution = solve(robertson(), ROBERTSON_U0, ROBERTSON_THETA, (0.0, 10.0), method=method, **LOOSE)
    for options in ({}, {"observations": ([], [])}, {"u_T_bar": [0.0, 0.0, 0.0]}):
        bar = solution.pullback(**options, adjoint="discrete")
        assert not bar.u0.any() and not bar.theta.any() and bar.stats.n_vjp == 0


def test_wrong_linear_solvers():
    with pytest.raises(ValueError, match="linear_solver must be one of 'auto'"):
        solve(robertson(), ROBERTSON_U0, ROBERTSON_THETA, (0.0, 1.0), method="Radau", linear_solver="magic")
    with pytest.raises(ValueError, match="give Dynamics a jac_sparsity"):
        solve(robertson(), ROBERTSON_U0, ROBERTSON_THETA, (0.0, 1.0), method="Radau", linear_solver="banded")


# --- banded systems ----------------------------------------------------------------------------------------------------------
def diffusion_f(t, u, theta, du):
    n = u.size
    for i in range(n):
        left = u[i - 1] if i > 0 else 0.0
        right = u[i + 1] if i < n - 1 else 0.0
        du[i] = theta[0] * n * n * (left - 2.0 * u[i] + right) - theta[1] * u[i] ** 3


def diffusion_vjp(t, u, theta, lam, u_bar, theta_bar):
    n = u.size
    theta_bar[0], theta_bar[1] = 0.0, 0.0
    for i in range(n):
        left = u[i - 1] if i > 0 else 0.0
        right = u[i + 1] if i < n - 1 else 0.0
        a = lam[i - 1] if i > 0 else 0.0
        b = lam[i + 1] if i < n - 1 else 0.0
        u_bar[i] = theta[0] * n * n * (a - 2.0 * lam[i] + b) - 3.0 * theta[1] * u[i] ** 2 * lam[i]
        theta_bar[0] += n * n * (left - 2.0 * u[i] + right) * lam[i]
        theta_bar[1] -= u[i] ** 3 * lam[i]


@pytest.mark.slow  # compiles passes of their own
@pytest.mark.parametrize(("method", "adjoint"), [(m, a) for m, a in COMBINATIONS if m != "TRBDF2"])
def test_banded_and_dense_agree(method, adjoint):
    n = 60
    u0 = np.sin(np.linspace(0.0, np.pi, n + 2))[1:-1]
    pattern = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= 1
    bars = []
    for sparsity in (None, pattern):
        dynamics = Dynamics(diffusion_f, diffusion_vjp, jac_sparsity=sparsity)
        solution = solve(dynamics, u0, [0.05, 2.0], (0.0, 1.0), method=method, rtol=1e-6, atol=1e-8)
        assert solution.structure.kind == ("dense" if sparsity is None else "banded")
        bars.append(solution.pullback(u0, adjoint=adjoint))
    # one product for each of n rows, or of the three groups
    assert bars[1].stats.n_vjp < bars[0].stats.n_vjp - 50 * bars[0].stats.n_jac
    np.testing.assert_allclose(bars[0].theta, bars[1].theta, rtol=1e-7)
    np.testing.assert_allclose(bars[0].u0, bars[1].u0, rtol=1e-6, atol=1e-9)


def test_jitted():
    evaluate = value_and_gradient(robertson(), FinalState([1.0, 0.0, 2.0]), (0.0, 1e3), method="Radau")
    value, bar = evaluate(ROBERTSON_U0, ROBERTSON_THETA)
    compiled, u0_bar, theta_bar = evaluate.jitted(3, 3), np.zeros(3), np.zeros(3)
    status, again = compiled(ROBERTSON_U0, ROBERTSON_THETA, u0_bar, theta_bar)
    assert status == 0 and again == value
    np.testing.assert_array_equal(u0_bar, bar.u0)
    np.testing.assert_array_equal(theta_bar, bar.theta)


# --- tiers -------------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize(("method", "adjoint"), COMBINATIONS)
def test_fused_and_portable_agree(method, adjoint):
    fused = Dynamics(robertson_f, robertson_vjp, fused=True)
    bars = []
    for dynamics in (robertson(), fused):
        solution = solve(dynamics, ROBERTSON_U0, ROBERTSON_THETA, (0.0, 1e3), method=method, rtol=1e-5, atol=1e-10)
        bars.append(solution.pullback([1.0, 10.0, 2.0], adjoint=adjoint))
    for block in ("u0", "theta"):  # rounding says where steps end, and so what is left of rtol in each
        np.testing.assert_allclose(getattr(bars[0], block), getattr(bars[1], block), rtol=5e-5)
    if adjoint == "discrete":
        assert bars[0].error == pytest.approx(bars[1].error, rel=0.01)
