"""Bad input: one clear sentence each, before anything is computed; odd but good input is accepted."""

import functools
import pickle
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from adjode import Dynamics, SolveError, ensemble_value_and_gradient, solve, value_and_gradient
from adjode.losses import FinalState, LeastSquares
from benchmarks.problems import lv_f, lv_vjp
from tests.problems.systems import LV_SPAN, LV_THETA, LV_U0, lotka_volterra


@pytest.fixture(scope="module")
def solution():
    return solve(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN)


def lv(u0=LV_U0, theta=LV_THETA, t_span=LV_SPAN, **options):
    return solve(lotka_volterra(), u0, theta, t_span, **options)


BAD_SOLVES = [
    ({"u0": [[1.0, 1.0]]}, ValueError, r"u0 must have one dimension, but its shape is \(1, 2\)"),
    ({"u0": [1.0, np.nan]}, ValueError, r"u0 must be finite, but entry 1 is nan"),
    ({"theta": [1.5, 1.0, np.inf, 1.0]}, ValueError, r"theta must be finite, but entry 2 is inf"),
    ({"u0": ["a", "b"]}, TypeError, r"u0 must hold real numbers, but its dtype is <U1"),
    ({"u0": np.array([1j, 1.0])}, TypeError, r"u0 must hold real numbers, but its dtype is complex128"),
    ({"u0": [[1.0], [1.0, 2.0]]}, TypeError, r"u0 must be a vector of numbers"),
    ({"t_span": (0.0,)}, ValueError, r"t_span must be a pair \(t0, T\)"),
    ({"t_span": 3.0}, ValueError, r"t_span must be a pair \(t0, T\)"),
    ({"t_span": (0.0, np.inf)}, ValueError, r"t_span must be finite"),
    ({"method": "Euler"}, ValueError, r"Euler has no error estimate: give step="),
    ({"method": "LSODA"}, ValueError, r"method 'LSODA' is unknown"),
    ({"rtol": -1e-3}, ValueError, r"rtol must be zero or positive, but -0.001 was given"),
    ({"rtol": 1e-16}, ValueError, r"rtol must be at least 2.2e-15"),
    ({"rtol": "tight"}, TypeError, r"rtol must be a number, but 'tight' was given"),
    ({"rtol": 0.0, "atol": 0.0}, ValueError, r"rtol and atol must not both be zero"),
    ({"atol": [1e-6, 1e-6, 1e-6]}, ValueError, r"atol must be a scalar or have 2 entries, but it has 3"),
    ({"atol": [1e-6, -1e-6]}, ValueError, r"atol must not be negative, but entry 1 is -1e-06"),
    ({"t_eval": [11.0]}, ValueError, r"t_eval must lie in the span \[0.0, 10.0\], but t_eval\[0\] is 11.0"),
    ({"first_step": 0.0}, ValueError, r"first_step must be positive"),
    ({"max_step": -1.0}, ValueError, r"max_step must be positive"),
    ({"max_steps": 0}, ValueError, r"max_steps must be a positive integer, but 0 was given"),
    ({"max_steps": 1.5}, ValueError, r"max_steps must be a positive integer, but 1.5 was given"),
    ({"step": 0.0}, ValueError, r"step must be positive"),
    ({"step": 0.1, "first_step": 0.1}, ValueError, r"first_step has no meaning with fixed steps"),
]


@pytest.mark.parametrize(("arguments", "kind", "message"), BAD_SOLVES, ids=lambda x: str(x)[:40])
def test_bad_solve(arguments, kind, message):
    with pytest.raises(kind, match=message):
        lv(**arguments)


def test_dynamics_of_the_wrong_type():
    with pytest.raises(TypeError, match=r"dynamics must be an adjode.Dynamics\(f, vjp\), but a function was given"):
        solve(lv_f, LV_U0, LV_THETA, LV_SPAN)


BAD_PULLBACKS = [
    ({"u_T_bar": [1.0]}, ValueError, r"u_T_bar must have 2 entries, but it has 1"),
    ({"u_T_bar": [1.0, np.nan]}, ValueError, r"u_T_bar must be finite"),
    ({"u_T_bar": {"a": 1.0}}, TypeError, r"u_T_bar must be a flat vector like u0, but a dict was given"),
    ({"observations": [1.0]}, ValueError, r"observations must be a pair \(times, u_bars\)"),
    ({"observations": ([1.0], [[1.0]])}, ValueError, r"u_bars must have shape \(1, 2\).*its shape is \(1, 1\)"),
    ({"observations": ([1.0, 2.0], [[1.0, 1.0]])}, ValueError, r"u_bars must have shape \(2, 2\)"),
    ({"observations": ([-1.0], [[1.0, 1.0]])}, ValueError, r"observation times must lie in the span"),
    ({"observations": ([1.0], [[1.0, np.inf]])}, ValueError, r"u_bars must be finite, but entry \(0, 1\) is inf"),
    ({"observations": ([1.0], [["a", "b"]])}, TypeError, r"u_bars must hold real numbers"),
    ({"wrt": ("theta", "u_0")}, ValueError, r"wrt may hold 'u0', 'theta', 't0', 'T', 'observation_times', but 'u_0' was given"),
    (
        {"adjoint": "continuous"},
        ValueError,
        r"adjoint must be one of 'discrete', 'interpolating', 'backsolve', but 'continuous' was given",
    ),
    ({"quadrature": "simpson"}, ValueError, r"quadrature must be one of 'gauss', 'augmented'"),
    ({"error_norm": "both"}, ValueError, r"error_norm must be one of 'all', 'lam'"),
    ({"on_drift": "ignore"}, ValueError, r"on_drift must be one of 'raise', 'warn'"),
    ({"rtol": -1.0}, ValueError, r"rtol must be zero or positive"),
    ({"quadrature_atol": "x"}, TypeError, r"quadrature_atol must be a number"),
    ({"max_steps": 0}, ValueError, r"max_steps must be"),
    ({"method": "Tsit9"}, ValueError, r"method 'Tsit9' is unknown"),
    ({"running_cost": 3}, TypeError, r"running_cost must be a function g, or a pair of functions \(g, g_vjp\)"),
    ({"running_cost": (lambda t, u: 0.0, lambda t, u, theta: 0.0)}, TypeError, r"g takes 2 arguments, but it must be"),
]


@pytest.mark.parametrize(("arguments", "kind", "message"), BAD_PULLBACKS, ids=lambda x: str(x)[:40])
def test_bad_pullback(solution, arguments, kind, message):
    with pytest.raises(kind, match=message):
        solution.pullback(**arguments)


def test_tolerances_make_no_sense_with_fixed_steps():
    fixed = lv(method="RK4", step=0.1)
    with pytest.raises(ValueError, match="fixed steps"):
        fixed.pullback([1.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize("t", [-0.1, 10.1, [1.0, 11.0]])
def test_evaluation_outside_the_span(solution, t):
    with pytest.raises(ValueError, match=r"t must lie in the span \[0.0, 10.0\]"):
        solution(t)


# --- callbacks -----------------------------------------------------------------------------------------------------------------
def test_wrong_number_of_arguments():
    with pytest.raises(TypeError, match=r"f takes 2 arguments, but it must be f\(t, u, theta, du\) or f\(t, u, theta\)"):
        Dynamics(lambda t, u: u, lv_vjp)
    with pytest.raises(TypeError, match=r"vjp takes 5 arguments, but it must be vjp\(t, u, theta, lam, u_bar, theta_bar\) or"):
        Dynamics(lv_f, lambda t, u, theta, lam, u_bar: None)
    with pytest.raises(TypeError, match=r"f must be a function .*, but a int was given"):
        Dynamics(3, lv_vjp)
    with pytest.raises(TypeError, match=r"f must be a plain Python or @njit function .*, but a partial was given"):
        Dynamics(functools.partial(lv_f), lv_vjp)
    with pytest.raises(TypeError, match=r"f must take plain positional arguments"):
        Dynamics(lambda *args: None, lv_vjp)


def _undefined(t, u, theta, du):
    du[0] = -u[0]
    du[1] = not_defined_anywhere(u)  # noqa: F821


def _calls_the_untypable(t, u, theta, du):
    du[0] = np.linalg.eigh(u)[0][0]


def _returns_a_scalar(t, u, theta):
    return u[0]


def _returns_one_thing(t, u, theta, lam):
    return lam


_interpolator = CubicSpline([0.0, 5.0, 10.0], [0.0, 1.0, 2.0])


def _interpolates(t, u, theta, du):
    du[:] = _interpolator(t) * u


@pytest.mark.parametrize(
    ("f", "parts"),
    [
        (_interpolates, ["Numba type", "there is adjode.Table(times, values), called as _interpolator(t)"]),
        (_undefined, ["not_defined_anywhere", "test_inputs.py", "du[1] = not_defined_anywhere(u)"]),
        (_calls_the_untypable, ["eigh", "2-D arrays", "du[0] = np.linalg.eigh(u)[0][0]"]),
        (_returns_a_scalar, ["must return du as one-dimensional float64 arrays", "_returns_a_scalar"]),
    ],
    ids=["interpolator", "undefined name", "wrong types", "scalar returned"],
)
def test_what_numba_cannot_compile(f, parts):
    with pytest.raises(TypeError, match="Numba cannot compile f") as caught:
        Dynamics(f, lv_vjp)
    message = str(caught.value)
    assert len(message) < 420 and "\n" not in message
    for part in parts:
        assert part in message


def test_vjp_that_returns_one_array():
    with pytest.raises(TypeError, match="Numba cannot compile vjp.*It must return u_bar, theta_bar"):
        Dynamics(lv_f, _returns_one_thing)


def test_an_interpolator_in_what_is_to_be_derived():
    with pytest.raises(TypeError, match=r"`_interpolator` is not known .*; use an adjode.Table"):
        Dynamics(_interpolates)


@pytest.mark.parametrize("make", [value_and_gradient, ensemble_value_and_gradient])
def test_a_bare_function_is_no_loss(make):
    with pytest.raises(TypeError, match=r"a function was given: for a function of the final state use FinalState\(value=...\)"):
        make(Dynamics(lv_f, lv_vjp), lambda solution: 1.0, LV_SPAN)


def _wrong_length(t, u, theta):
    return np.zeros(3)


def test_an_array_of_the_wrong_length():
    with pytest.raises(ValueError, match=r"f returns something of shape \(3,\), but du must have the shape \(2,\)"):
        solve(Dynamics(_wrong_length, lv_vjp), LV_U0, LV_THETA, LV_SPAN)


# --- accepted ------------------------------------------------------------------------------------------------------------------
def test_odd_arrays_are_accepted_by_copy():
    wanted = lv().u_T
    read_only = LV_U0.copy()
    read_only.setflags(write=False)
    strided = np.repeat(LV_THETA, 3)[::3]
    assert not strided.flags.c_contiguous
    for u0, theta in [
        (read_only, strided),
        ([1, 1], (1.5, 1, 3, 1)),
        (LV_U0.astype(np.float32), LV_THETA.astype(np.float32)),
        (np.array([1, 1]), LV_THETA[::-1][::-1]),
    ]:
        solution = lv(u0, theta)
        np.testing.assert_array_equal(solution.u_T, wanted)
        bars = np.ones((4, 4))[::2, ::2]
        bar = solution.pullback(observations=(np.arange(4.0)[::2], bars))
        assert np.isfinite(bar.theta).all()


def test_a_scalar_is_a_vector_of_one():
    dynamics = Dynamics(_decay_f, _decay_vjp)
    assert solve(dynamics, 1.0, 0.5, (0.0, 1.0)).u_T == pytest.approx(np.exp(-0.5), rel=1e-6)


def _decay_f(t, u, theta):
    return -theta[0] * u


def _decay_vjp(t, u, theta, lam):
    return -theta[0] * lam, np.array([-u[0] * lam[0]])


@pytest.mark.parametrize("jitted", [False, True])
def test_out_of_place_and_jitted_callbacks(jitted):
    f, vjp = (numba.njit(_decay_f), numba.njit(_decay_vjp)) if jitted else (_decay_f, _decay_vjp)
    solution = solve(Dynamics(f, vjp), [2.0], [0.5], (0.0, 1.0), rtol=1e-9, atol=1e-9)
    bar = solution.pullback([1.0])
    assert bar.u0[0] == pytest.approx(np.exp(-0.5), rel=1e-8)
    assert bar.theta[0] == pytest.approx(-2 * np.exp(-0.5), rel=1e-8)


def test_jitted_with_an_explicit_signature():
    f = numba.njit("void(f8, f8[:], f8[:], f8[:])")(lv_f)
    solution = solve(Dynamics(f, numba.njit(lv_vjp)), LV_U0, LV_THETA, LV_SPAN)
    np.testing.assert_allclose(solution.u_T, lv().u_T, rtol=1e-12)


def test_repr():
    assert repr(lotka_volterra()) == "Dynamics(Lotka-Volterra)"
    assert repr(lotka_volterra(True)) == "Dynamics(Lotka-Volterra, with vjp_u)"


def test_dynamics_and_solutions_can_be_pickled(solution):
    copy = pickle.loads(pickle.dumps(solution))
    np.testing.assert_array_equal(copy(3.3), solution(3.3))
    np.testing.assert_array_equal(copy.pullback([1.0, 1.0]).theta, solution.pullback([1.0, 1.0]).theta)


def test_solves_run_in_threads(solution):
    """Buffers belong to a call, so threads that share a Dynamics do not disturb one another."""
    wanted = solution.pullback([1.0, 1.0]).theta

    def work(_):
        return lv().pullback([1.0, 1.0]).theta

    with ThreadPoolExecutor(4) as pool:
        for theta_bar in pool.map(work, range(40)):
            np.testing.assert_array_equal(theta_bar, wanted)


def test_a_changed_constant_is_compiled_again():
    """Globals and closure variables are constants of the compiled code, but not of the next Dynamics."""
    rate = 1.0

    def f(t, u, theta, du):
        du[0] = rate * u[0]

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0] = rate * lam[0]

    for rate in (1.0, 2.0, np.float64(0.5)):
        assert solve(Dynamics(f, vjp), [1.0], [], (0.0, 1.0)).u_T[0] == pytest.approx(np.exp(rate), rel=1e-5)
    again = Dynamics(f, vjp)
    assert again.f is Dynamics(f, vjp).f  # nothing changed: compiled once


def _needs_a_third_parameter_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -theta[0] * lam[0]
    theta_bar[2] = 0.0


def test_sizes_that_the_callbacks_leave():
    """Compiled code would read past the end of theta; the solve must not begin."""
    for u0, theta in ((LV_U0, LV_THETA[:3]), (LV_U0, []), ([1.0], LV_THETA)):
        sizes = f"u has {len(u0)} entries and theta {len(theta)}"
        with pytest.raises(ValueError, match=f"f indexes an array out of bounds where {sizes} .*IndexError.*check the lengths"):
            lv(u0, theta)
    wrong = solve(Dynamics(_decay_f, _needs_a_third_parameter_vjp), [1.0], [1.0], (0.0, 1.0))
    with pytest.raises(
        ValueError, match=r"vjp indexes an array out of bounds where u has 1 entries and theta 1 .*theta_bar\[2\] = 0.0"
    ):
        wrong.pullback([1.0])
    assert wrong.pullback([1.0], wrt="T").T == pytest.approx(-np.exp(-1), rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_input_that_is_not_finite_is_a_failed_solve_too(bad):
    evaluate = value_and_gradient(lotka_volterra(), LeastSquares([1.0], [[1.0]]), LV_SPAN)
    for u0, theta in (([LV_U0[0], bad], LV_THETA), (np.array(LV_U0), np.append(LV_THETA[:3], bad))):
        for call in (evaluate, lambda u0, theta: solve(lotka_volterra(), u0, theta, LV_SPAN)):
            with pytest.raises(SolveError, match="must be finite, but entry . is") as caught:
                call(u0, theta)
            assert caught.value.phase == "input" and isinstance(caught.value, ValueError)
            again = pickle.loads(pickle.dumps(caught.value))
            assert type(again) is type(caught.value) and str(again) == str(caught.value)


def test_masked_input_is_refused():
    masked = np.ma.masked_less(np.array([[1.0, 2.0], [1.0, -9.0]]), 0.0)
    for call in (
        lambda: lv(u0=masked[1]),
        lambda: lv(theta=np.ma.masked_equal(LV_THETA, LV_THETA[2])),
        lambda: lv(atol=np.ma.masked_equal([1e-9, 1.0], 1.0)),
        lambda: lv().pullback(observations=([0.1, 0.2], masked)),
        lambda: ensemble_value_and_gradient(lotka_volterra(), FinalState([1.0, 0.0]), LV_SPAN)(masked, LV_THETA),
    ):
        with pytest.raises(ValueError, match="must be numbers, but some of its entries are masked"):
            call()


@pytest.mark.parametrize("adjoint", ["discrete", "interpolating"])
def test_times_beside_the_ends_by_rounding_are_the_ends(adjoint):
    """0.1 * 3 is not 0.3."""
    inputs, times = (lotka_volterra(), LV_U0, LV_THETA), np.array([0.1, 0.1 * 3])
    for span in ((0.0, 0.3), (0.3, 0.0)):
        solution = solve(*inputs, span, t_eval=times)
        np.testing.assert_array_equal(solution.u_eval[1], solution.u_T if span[1] == 0.3 else LV_U0)
        got, wanted = (
            value_and_gradient(inputs[0], LeastSquares(t, np.ones((2, 2))), span, adjoint=adjoint)(LV_U0, LV_THETA)
            for t in (times, np.array([0.1, 0.3]))
        )
        assert got[0] == wanted[0]
        np.testing.assert_array_equal(got[1].theta, wanted[1].theta)
        bars = [solution.pullback(observations=(t, np.ones((2, 2))), adjoint=adjoint) for t in (times, [0.1, 0.3])]
        np.testing.assert_array_equal(bars[0].u0, bars[1].u0)
    with pytest.raises(ValueError, match="t_eval must lie in the span"):
        solve(*inputs, (0.0, 0.3), t_eval=[0.3 + 1e-12])
