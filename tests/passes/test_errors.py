"""Failure injection in both passes: which pass, when, why, which component; and never a partial gradient."""

import functools
import pickle

import numpy as np
import pytest

from adjode import Dynamics, SolveError, Status, ensemble_value_and_gradient, solve, solve_ensemble, value_and_gradient
from adjode.losses import FinalState

STRATEGIES = [(a, q) for a in ("interpolating", "backsolve") for q in ("gauss", "augmented")]


def _square_f(t, u, theta, du):
    du[0] = u[0] * u[0]


def _square_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = 2.0 * u[0] * lam[0]


@functools.cache
def square():
    return Dynamics(_square_f, _square_vjp)


def _switch_f(t, u, theta, du):
    """theta = (time of NaN in f, time of an exception in f, time of NaN in u_bar, ... in theta_bar, of an exception in vjp)."""
    if t > theta[1]:
        raise ValueError("negative concentration")
    du[0] = -u[0]
    du[1] = -u[1] if t < theta[0] else np.nan


def _switch_vjp(t, u, theta, lam, u_bar, theta_bar):
    if t < theta[4]:
        raise ValueError("no such state")
    u_bar[0] = -lam[0]
    u_bar[1] = -lam[1] if t > theta[2] else np.nan
    theta_bar[:] = 0.0
    if t < theta[3]:
        theta_bar[2] = np.nan


@functools.cache
def switch():
    return Dynamics(_switch_f, _switch_vjp, breaks=())  # failures, and no jumps


def switched(**times):
    theta = {"f_nan": 9.0, "f_raises": 9.0, "u_bar_nan": -9.0, "theta_bar_nan": -9.0, "vjp_raises": -9.0} | times
    return np.array(list(theta.values()))


def failure(call) -> SolveError:
    with pytest.raises(SolveError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("method", ["Tsit5", "DOP853", "BS3"])
def test_nan_from_f(method):
    error = failure(lambda: solve(switch(), [1.0, 1.0], switched(f_nan=0.5), (0.0, 1.0), method=method))
    assert (error.phase, error.status, error.component) == ("forward", Status.NON_FINITE, 1)
    assert error.t == pytest.approx(0.5, abs=1e-6) and 0 < error.step_size < 1e-10
    for part in ("forward", "t = 0.5", "u[1]", "f returned NaN", "step size"):
        assert part in str(error)


def test_nan_from_f_at_the_start_and_with_fixed_steps():
    error = failure(lambda: solve(switch(), [1.0, 1.0], switched(f_nan=-1.0), (0.0, 1.0)))
    assert (error.t, error.step_size, error.component) == (0.0, 0.0, 1)
    error = failure(lambda: solve(switch(), [1.0, 1.0], switched(f_nan=0.5), (0.0, 1.0), method="RK4", step=0.125))
    assert (error.status, error.component) == (Status.NON_FINITE, 1)
    assert error.t == pytest.approx(0.5, abs=0.13)


@pytest.mark.parametrize("strategy", STRATEGIES, ids="-".join)
@pytest.mark.parametrize("where", ["u_bar_nan", "theta_bar_nan"])
def test_nan_from_vjp(strategy, where):
    solution = solve(switch(), [1.0, 1.0], switched(**{where: 0.3}), (0.0, 1.0))
    for error_norm in ("all", "lam"):
        error = failure(
            lambda error_norm=error_norm: solution.pullback(
                [1.0, 1.0], adjoint=strategy[0], quadrature=strategy[1], error_norm=error_norm
            )
        )
        assert (error.phase, error.status) == ("adjoint", Status.NON_FINITE)
        assert error.component == (1 if where == "u_bar_nan" else 2)
        assert ("lam[1]" if where == "u_bar_nan" else "theta_bar[2]") in str(error)
        assert error.t == pytest.approx(0.3, abs=1e-6) and error.step_size < 0


@pytest.mark.parametrize("strategy", STRATEGIES, ids="-".join)
def test_nan_from_vjp_with_fixed_steps(strategy):
    solution = solve(switch(), [1.0, 1.0], switched(theta_bar_nan=0.3), (0.0, 1.0), method="RK4", step=0.1)
    error = failure(lambda: solution.pullback([1.0, 1.0], adjoint=strategy[0], quadrature=strategy[1]))
    assert (error.phase, error.status) == ("adjoint", Status.NON_FINITE)


def test_exception_in_f():
    error = failure(lambda: solve(switch(), [1.0, 1.0], switched(f_raises=0.5), (0.0, 1.0)))
    assert (error.phase, error.status) == ("forward", Status.CALLBACK_RAISED)
    assert isinstance(error.__cause__, ValueError)
    assert "ValueError: negative concentration" in str(error)
    assert 'raise ValueError("negative concentration")' in str(error)  # the user's line


@pytest.mark.parametrize("strategy", STRATEGIES, ids="-".join)
def test_exception_in_vjp(strategy):
    solution = solve(switch(), [1.0, 1.0], switched(vjp_raises=0.5), (0.0, 1.0))
    error = failure(lambda: solution.pullback([1.0, 1.0], adjoint=strategy[0], quadrature=strategy[1]))
    assert (error.phase, error.status) == ("adjoint", Status.CALLBACK_RAISED)
    assert "ValueError: no such state" in str(error)


@pytest.mark.parametrize("method", ["Tsit5", "RK45", "DOP853", "Vern9", "BS3"])
def test_blow_up_in_finite_time(method):
    error = failure(lambda: solve(square(), [1.0], [], (0.0, 2.0), method=method))
    assert (error.phase, error.status) == ("forward", Status.STEP_TOO_SMALL)
    assert error.t == pytest.approx(1.0, abs=1e-4) and error.component == 0


def test_overflow_is_not_an_answer():
    error = failure(lambda: solve(square(), [1e200], [], (0.0, 1.0)))
    assert (error.phase, error.status, error.t) == ("forward", Status.NON_FINITE, 0.0)


def test_step_cap_in_both_passes():
    error = failure(lambda: solve(square(), [1.0], [], (0.0, 0.99), max_steps=5))
    assert (error.phase, error.status) == ("forward", Status.MAX_STEPS)
    assert "cap of 5 steps" in str(error) and 0 < error.t < 0.99
    solution = solve(square(), [1.0], [], (0.0, 0.99))
    error = failure(lambda: solution.pullback([1.0], max_steps=5))
    assert (error.phase, error.status) == ("adjoint", Status.MAX_STEPS)
    assert 0 < error.t < 0.99


def test_overflow_in_the_adjoint():
    """lam' blows up at t = 0.5 although f is smooth: the rule is wrong, and it must not end in a number."""
    error = failure(lambda: solve(_singular(), [1.0], [], (0.0, 1.0)).pullback([1.0]))
    assert (error.phase, error.status) == ("adjoint", Status.NON_FINITE) and error.t == pytest.approx(0.5, abs=1e-2)


def _constant_f(t, u, theta, du):
    du[0] = 0.0


def _singular_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = lam[0] / (t - 0.5) ** 2


@functools.cache
def _singular():
    return Dynamics(_constant_f, _singular_vjp)


def everyday(*methods):
    """Parameters of which the first three are tested every day."""
    return pytest.mark.parametrize(
        "method", [pytest.param(one, marks=[pytest.mark.slow] * (k > 2)) for k, one in enumerate(methods)]
    )


@everyday("Tsit5", "Radau", "auto", "DOP853", "BS3", "Kvaerno5", "TRBDF2")
def test_a_vjp_that_is_infinite_at_the_start_alone(method):
    """The outflow of an empty tank: its derivative by the level is infinite at t0, which explicit steps do not see."""

    def f(t, u, theta, du):
        du[0] = theta[0] - theta[1] * np.sqrt(u[0])

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0] = -theta[1] * 0.5 / np.sqrt(u[0]) * lam[0]
        theta_bar[0] = lam[0]
        theta_bar[1] = -np.sqrt(u[0]) * lam[0]

    dynamics, theta = Dynamics(f, vjp), np.array([1.0, 0.1])
    evaluate = value_and_gradient(dynamics, FinalState([1.0]), (0.0, 1.0), method=method)
    for call in (
        lambda: evaluate([0.0], theta),
        lambda: solve(dynamics, [0.0], theta, (0.0, 1.0), method=method).pullback([1.0], adjoint="discrete"),
        lambda: ensemble_value_and_gradient(dynamics, FinalState([1.0]), (0.0, 1.0), method=method)(np.zeros((2, 1)), theta),
    ):
        with pytest.raises(SolveError, match="solve stopped at t = 0 ") as raised:
            call()
        assert raised.value.status == Status.NON_FINITE
    bars = np.zeros(1), np.zeros(2)
    assert evaluate.jitted(1, 2)(np.zeros(1), theta, *bars)[0] == Status.NON_FINITE
    assert np.isnan(np.concatenate(bars)).all()


@everyday("Tsit5", "Radau", "auto", "DOP853", "Kvaerno5", "TRBDF2", "Rodas5P")
def test_a_first_step_that_is_no_number(method):
    """A diode at 10 V: the square of its current is infinite."""

    def f(t, u, theta, du):
        du[0] = theta[0] - u[0] - theta[1] * (np.exp(u[0] / 0.02585) - 1.0)

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        grown = np.exp(u[0] / 0.02585)
        u_bar[0] = -lam[0] * (1.0 + theta[1] * grown / 0.02585)
        theta_bar[0] = lam[0]
        theta_bar[1] = -lam[0] * (grown - 1.0)

    dynamics, theta, u0 = Dynamics(f, vjp), np.array([1.0, 1e-9]), np.array([[10.0], [0.0]])
    with pytest.raises(SolveError, match="the forward solve stopped at t = 0 with step size 0") as raised:
        solve(dynamics, u0[0], theta, (0.0, 1.0), method=method)
    assert raised.value.status == Status.STEP_TOO_SMALL
    evaluate = value_and_gradient(dynamics, FinalState([1.0]), (0.0, 1.0), method=method, adjoint="interpolating")
    bars = np.zeros(1), np.zeros(2)
    status, value = evaluate.jitted(1, 2)(u0[0], theta, *bars)
    assert status == Status.STEP_TOO_SMALL and np.isnan([value, *np.concatenate(bars)]).all()
    many = solve_ensemble(dynamics, u0, theta, (0.0, 1.0), method=method)
    assert many.status.tolist() == [Status.STEP_TOO_SMALL, 0] and np.isnan(many.u_T[0]).all()


@pytest.mark.parametrize("options", [{}, {"step": 1e-9}, {"method": "Radau", "first_step": 1e-9}])
def test_what_is_faster_than_the_spacing_of_times(options):
    """f sees the same time in many steps, and then another one, which no step is small enough for."""
    start = 1.7e9

    def f(t, u, theta, du):
        du[0] = -theta[0] * (u[0] - np.cos(theta[0] * (t - start)))

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0] = -theta[0] * lam[0]
        theta_bar[0] = 0.0

    with pytest.raises(SolveError) as raised:
        solve(Dynamics(f, vjp), [0.0], [1e9], (start, start + 1.0), max_steps=1000, **options)
    assert raised.value.status in (Status.STEP_TOO_SMALL, Status.MAX_STEPS) and raised.value.t - start < 1e-3


def test_errors_can_be_pickled():
    error = failure(lambda: solve(square(), [1.0], [], (0.0, 2.0)))
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) and (copy.phase, copy.status, copy.t) == (error.phase, error.status, error.t)
    assert isinstance(error, RuntimeError)


# --- backsolve's hazard -----------------------------------------------------------------------------------------------------
def _contracting_f(t, u, theta, du):
    du[0] = -theta[0] * (u[0] - np.cos(t))


def _contracting_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -theta[0] * lam[0]
    theta_bar[0] = -lam[0] * (u[0] - np.cos(t))


@functools.cache
def _contracting():
    return Dynamics(_contracting_f, _contracting_vjp)


@pytest.mark.parametrize("rate", [5.0, 20.0, 100.0])
def test_backsolve_refuses_a_contracting_problem(rate):
    solution = solve(_contracting(), [0.0], [rate], (0.0, 3.0), rtol=1e-8, atol=1e-8)
    error = failure(lambda: solution.pullback([1.0], adjoint="backsolve"))
    assert error.phase == "adjoint"
    assert "adjoint='interpolating'" in str(error)


def test_backsolve_can_warn_or_reanchor():
    solution = solve(_contracting(), [0.0], [20.0], (0.0, 3.0), rtol=1e-8, atol=1e-8)
    true = solution.pullback([1.0])
    with pytest.warns(RuntimeWarning, match="tolerances away from the true initial state"):
        drifted = solution.pullback([1.0], adjoint="backsolve", on_drift="warn")
    assert drifted.stats.drift > 1e4 and not drifted.theta[0] == pytest.approx(true.theta[0], rel=1e-6)
    anchored = solution.pullback([1.0], adjoint="backsolve", reanchor=True)
    assert anchored.theta[0] == pytest.approx(true.theta[0], rel=1e-5)
    with pytest.raises(ValueError, match="reanchor"):
        solution.pullback([1.0], reanchor=True)


def test_backsolve_with_fixed_steps():
    """The error of the method is no drift; running away is."""
    for step in (0.01, 0.001):
        solution = solve(_contracting(), [1.0], [1.0], (0.0, 1.0), method="Euler", step=step)
        exact = solve(_contracting(), [1.0], [1.0], (0.0, 1.0), rtol=1e-9, atol=1e-9).pullback([1.0])
        bar = solution.pullback([1.0], adjoint="backsolve")
        assert bar.theta[0] == pytest.approx(exact.theta[0], abs=step)
    solution = solve(_contracting(), [0.0], [20.0], (0.0, 3.0), method="RK4", step=0.01)
    assert failure(lambda: solution.pullback([1.0], adjoint="backsolve")).status == Status.BACKSOLVE_DRIFT


# --- debug mode ---------------------------------------------------------------------------------------------------------------
def _writes_outside(t, u, theta, du):
    for i in range(3):
        du[i] = -u[0]


def _reads_outside_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -lam[1]


def _changes_its_input(t, u, theta, du):
    du[0] = -u[0]
    u[0] = 0.0


def test_debug_finds_writes_out_of_bounds():
    error = failure(lambda: solve(Dynamics(_writes_outside, _square_vjp, debug=True), [1.0], [], (0.0, 1.0)))
    assert isinstance(error.__cause__, IndexError)
    assert "du[i] = -u[0]" in str(error)
    solution = solve(Dynamics(_square_f, _reads_outside_vjp, debug=True), [0.1], [], (0.0, 1.0))
    assert isinstance(failure(lambda: solution.pullback([1.0])).__cause__, IndexError)


def test_debug_finds_changed_inputs_and_passes_right_callbacks():
    # as plain Python, a first call sees it before the solve does
    with pytest.raises((SolveError, ValueError), match=r"changed one of its input arrays|changes its input u\[0\]"):
        solve(Dynamics(_changes_its_input, _square_vjp, debug=True), [1.0], [], (0.0, 1.0))
    checked = solve(Dynamics(_square_f, _square_vjp, debug=True), [1.0], [], (0.0, 0.9)).pullback([1.0])
    assert checked.u0[0] == solve(square(), [1.0], [], (0.0, 0.9)).pullback([1.0]).u0[0]
