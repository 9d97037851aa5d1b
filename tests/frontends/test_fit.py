"""`Fit`: gradients of what the optimiser sees, what is free, bounds, failing solves, SciPy's side."""

import functools
import subprocess
import sys
import warnings

import numpy as np
import pytest
from scipy import optimize

import adjode
from adjode import Dynamics, Fit, SolveError
from adjode.frontends import evaluation as evaluation_module
from adjode.frontends.objective import Objective
from adjode.losses import FinalState, LeastSquares
from tests.problems.systems import LOGISTIC, lotka_volterra

TRUE_THETA, TRUE_U0, SPAN = np.array([0.8, 0.5, 1.1, 0.4]), np.array([2.0, 1.5]), (0.0, 8.0)
TIMES = np.linspace(0.0, 8.0, 17)
TIGHT = {"rtol": 1e-9, "atol": 1e-11}
THETA_DICT = {"prey": np.array([0.7, 0.6]), "predator": np.array([1.0, 0.45])}
U0_DICT = {"prey": 1.8, "predator": 1.2}
STRUCTURED = np.array((0.7, 0.6, 1.0, 0.45), dtype=[("a", float), ("b", float), ("c", float), ("d", float)])[()]


@functools.cache
def data():
    return adjode.solve(lotka_volterra(), TRUE_U0, TRUE_THETA, SPAN, **TIGHT)(TIMES)


def fit_of_data(**changes):
    arguments = {"u0": [1.8, 1.2], "theta": [0.7, 0.6, 1.0, 0.45], **TIGHT, **changes}
    return Fit(lotka_volterra(), LeastSquares(TIMES, data(), sigma=0.3), SPAN, **arguments)


# --- the function of x --------------------------------------------------------------------------------------------------
CHOICES = {
    "default": {},
    "both": {"free": ("u0", "theta")},
    "both_log": {"free": ("u0", "theta"), "log": ("u0", "theta")},
    "u0_only": {"free": "u0", "log": "theta"},
    "indices_and_mask": {
        "free": {"u0": [1], "theta": np.array([True, False, True, True])},
        "log": {"u0": True, "theta": [2]},
    },
    "dicts": {"u0": U0_DICT, "theta": THETA_DICT, "free": {"u0": ["predator"], "theta": ["prey"]}, "log": {"theta": ["prey"]}},
    "structured": {"theta": STRUCTURED, "free": {"u0": True, "theta": ["d", "a"]}, "log": {"theta": ["a"]}},
}


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES.keys())
def test_gradient_against_central_differences(choice):
    fit = fit_of_data(**choice)
    x, step = fit.x0 + 0.01, 1e-5
    _, gradient = fit.value_and_gradient(x)
    directions = np.eye(x.size) * step
    expected = [(fit.value_and_gradient(x + e)[0] - fit.value_and_gradient(x - e)[0]) / (2 * step) for e in directions]
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6 * np.max(np.abs(expected)))


def test_only_the_cotangents_of_free_blocks_are_computed(monkeypatch):
    asked = []

    def spy(*arguments, wrt, **options):
        asked.append(wrt)
        return adjode.value_and_gradient(*arguments, wrt=wrt, **options)

    monkeypatch.setattr(evaluation_module, "value_and_gradient", spy)
    for free in ("u0", {"u0": False, "theta": [1]}, ("theta", "u0")):
        fit = fit_of_data(free=free)
        assert fit.value_and_gradient(fit.x0)[1].shape == fit.x0.shape
    assert asked == [("u0",), ("theta",), ("u0", "theta")]


def test_names_follow_x():
    assert fit_of_data(free=("theta", "u0")).names == ["u0[0]", "u0[1]", "theta[0]", "theta[1]", "theta[2]", "theta[3]"]
    assert fit_of_data(**CHOICES["dicts"]).names == ["u0['predator']", "theta['prey'][0]", "theta['prey'][1]"]
    assert fit_of_data(**CHOICES["structured"]).names == ["u0[0]", "u0[1]", "theta['a']", "theta['d']"]


def test_x0_takes_logarithms_and_unpack_undoes_them():
    fit = fit_of_data(**CHOICES["dicts"])
    np.testing.assert_allclose(fit.x0, [1.2, np.log(0.7), np.log(0.6)])
    u0, theta = fit.unpack([3.0, 0.0, np.log(2.0)])
    assert u0 == {"prey": 1.8, "predator": 3.0} and list(theta) == ["prey", "predator"]
    np.testing.assert_allclose(theta["prey"], [1.0, 2.0])
    np.testing.assert_array_equal(theta["predator"], [1.0, 0.45])


def test_unpack_structured_and_flat():
    u0, theta = fit_of_data(**CHOICES["structured"]).unpack([5.0, 6.0, 0.0, 7.0])
    assert isinstance(u0, np.ndarray) and list(u0) == [5.0, 6.0]
    assert theta.dtype.names == ("a", "b", "c", "d") and theta.tolist() == (1.0, 0.6, 1.0, 7.0)


def test_options_reach_the_solve():
    coarse, fine = fit_of_data(method="BS3", rtol=1e-2, atol=1e-2), fit_of_data()
    assert coarse.value_and_gradient(coarse.x0)[0] != fine.value_and_gradient(fine.x0)[0]


def test_repr():
    assert repr(fit_of_data(free={"u0": [0], "theta": True}, log=("theta",))) == (
        "Fit of Lotka-Volterra by LeastSquares, t = 0 .. 8: 5 of 6 entries free "
        "(u0[0], theta[0], theta[1], theta[2], theta[3]), 4 on a log scale"
    )


# --- bounds -------------------------------------------------------------------------------------------------------------
def test_bounds_in_natural_units():
    fit = fit_of_data(
        free=("u0", "theta"), log={"theta": [0, 1]}, bounds={"u0": (0, None), "theta": ([0, 0.5, 0.2, -1], [2, 3, np.inf, 4])}
    )
    inf = np.inf
    expected = [(0, inf), (0, inf), (-inf, np.log(2)), (np.log(0.5), np.log(3)), (0.2, inf), (-1, 4)]
    np.testing.assert_array_equal(fit.bounds, expected)


@pytest.mark.parametrize(
    "bounds", [[(0.1, 5.0), (None, 9.0)], optimize.Bounds([0.1, -np.inf], [5.0, 9.0])], ids=["pairs", "Bounds"]
)
def test_bounds_as_scipy_writes_them(bounds):
    fit = Fit(
        lotka_volterra(), FinalState([1, 1]), SPAN, u0=[1, 1], theta=[0.7, 0.6, 1, 0.4], free={"theta": [0, 3]}, bounds=bounds
    )
    assert fit.bounds == [(0.1, 5.0), (-np.inf, 9.0)]


def test_minimize_from_elsewhere():
    fit = Fit(lotka_volterra(), LeastSquares([1.0], [[1.0, 1.0]]), SPAN, u0=[1, 1], theta=[0.7, 0.6, 1, 0.4])
    seen, evaluate = [], fit.evaluate
    fit.evaluate = lambda x: seen.append(x.copy()) or evaluate(x)
    fit.minimize(x0=fit.x0 * 1.1, options={"maxiter": 1})
    np.testing.assert_array_equal(seen[0], fit.x0 * 1.1)
    with pytest.raises(ValueError, match="x0 must"):
        fit.minimize(x0=[1.0])


def test_bounds_by_name():
    inf, bounds = np.inf, {"theta": ({"prey": [0.1, None]}, {"predator": 3})}
    fit = fit_of_data(u0=U0_DICT, theta=THETA_DICT, free=("u0", "theta"), bounds=bounds)
    np.testing.assert_array_equal(fit.bounds, [(-inf, inf), (-inf, inf), (0.1, inf), (-inf, inf), (-inf, 3), (-inf, 3)])
    low = np.zeros((), dtype=STRUCTURED.dtype)
    assert fit_of_data(theta=STRUCTURED, bounds={"theta": (low, None)}).bounds == [(0, inf)] * 4


def test_bounds_of_fixed_entries_do_not_matter():
    assert fit_of_data(free={"theta": [1]}, bounds={"theta": ([9, 0.1, 9, 9], None)}).bounds == [(0.1, np.inf)]


@pytest.mark.parametrize("method", ["L-BFGS-B", "TNC", "trust-constr"])
def test_minimum_on_a_bound(method):
    fit = fit_of_data(theta=[0.65, 0.5, 1.1, 0.4], u0=TRUE_U0, free={"theta": [0]}, log="theta", bounds={"theta": (None, 0.7)})
    assert fit.minimize(method).theta[0] == pytest.approx(0.7, abs=1e-4)


# --- fits ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["L-BFGS-B", "BFGS"])
def test_known_parameters_are_recovered(method):
    fit = fit_of_data(free=("u0", "theta"), log=("u0", "theta"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = fit.minimize(method, options={"gtol": 1e-8, **({"ftol": 0.0} if method == "L-BFGS-B" else {})})
    np.testing.assert_allclose(result.theta, TRUE_THETA, rtol=1e-5)
    np.testing.assert_allclose(result.u0, TRUE_U0, rtol=1e-5)
    assert result.n_failed == fit.n_failed == 0 and result.fun < 1e-9


def test_entries_that_are_fixed_stay():
    result = fit_of_data(**CHOICES["dicts"]).minimize()
    assert result.u0["prey"] == 1.8 and result.u0["predator"] != 1.2
    np.testing.assert_array_equal(result.theta["predator"], THETA_DICT["predator"])


def test_scipy_takes_it_directly():
    fit = fit_of_data(log="theta", u0=TRUE_U0, bounds={"theta": (0.01, 10)})
    result = optimize.minimize(fit.value_and_gradient, fit.x0, jac=True, bounds=fit.bounds)
    assert result.x.tolist() == fit.minimize().x.tolist()
    np.testing.assert_allclose(fit.unpack(result.x)[1], TRUE_THETA, rtol=1e-3)


def test_callbacks_in_both_forms_of_scipy():
    seen, fit = [], fit_of_data()

    def by_name(intermediate_result):
        seen.append((intermediate_result.x.copy(), intermediate_result.fun))

    result = fit.minimize(callback=by_name, options={"maxiter": 3})
    assert len(seen) == 3 and seen[-1][1] == result.fun and seen[-1][0].tolist() == result.x.tolist()
    xs = []
    fit.minimize(callback=xs.append, options={"maxiter": 3})
    assert [x.tolist() for x in xs] == [x.tolist() for x, _ in seen]
    states = []
    near = {"maxiter": 3, "initial_tr_radius": 0.1}
    fit.minimize("trust-constr", callback=lambda x, state: states.append(state.nit), options=near)
    assert states


def test_callback_may_stop_the_fit():
    def stop(x):
        raise StopIteration

    assert fit_of_data().minimize(callback=stop).nit == 1


def test_progress_line(capfd):
    fit_of_data().minimize(progress=True, options={"maxiter": 3})
    shown = capfd.readouterr().err
    assert "fit: 3 iterations" in shown and "loss=" in shown and "|gradient|=" in shown
    fit_of_data().minimize(options={"maxiter": 3})
    assert capfd.readouterr().err == ""


def test_optimiser_and_progress_are_imported_on_use():
    code = "import sys, adjode.frontends.fit; print([m for m in ('scipy.optimize', 'tqdm') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


# --- solves that fail ---------------------------------------------------------------------------------------------------
def _blow_up_f(t, u, theta, du):
    du[0] = theta[0] * u[0] ** 2


def _blow_up_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = 2.0 * theta[0] * u[0] * lam[0]
    theta_bar[0] = u[0] ** 2 * lam[0]


@functools.cache
def _blow_up_dynamics():
    return Dynamics(_blow_up_f, _blow_up_vjp, name="blow-up")


def blow_up_fit(theta, loss=None, **options):
    """u = 1 / (1 - theta t) on (0, 1), which exists for theta < 1 only; the data are those of theta = 0.8."""
    t = np.linspace(0.0, 1.0, 11)
    loss = loss or LeastSquares(t, 1.0 / (1.0 - 0.8 * t), sigma=0.1)
    return Fit(_blow_up_dynamics(), loss, (0.0, 1.0), u0=[1.0], theta=[theta], **{**TIGHT, **options})


@pytest.mark.parametrize("method", ["L-BFGS-B", "BFGS", "TNC", "trust-constr", "CG", "Newton-CG"])
@pytest.mark.parametrize("start", [0.1, -1.5])
def test_a_fit_steps_back_from_solves_that_fail(method, start):
    fit = blow_up_fit(start)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = fit.minimize(method)
    assert result.theta[0] == pytest.approx(0.8, abs=1e-5)
    assert fit.value_and_gradient(result.x)[0] == result.fun
    summaries = [str(w.message) for w in caught if "solves of the fit failed" in str(w.message)]
    assert result.n_failed == fit.n_failed and len(summaries) == (result.n_failed > 0)
    if method in ("L-BFGS-B", "BFGS"):  # their first full steps fail
        assert result.n_failed >= 1 and summaries[0].startswith(f"{result.n_failed} of the {result.nfev} solves")


def test_failed_solves_are_counted_for_each_fit_and_in_all():
    fit = blow_up_fit(0.1)
    with pytest.warns(RuntimeWarning):
        first = fit.minimize().n_failed
    with pytest.warns(RuntimeWarning):
        assert fit.minimize().n_failed == first
    assert fit.n_failed == 2 * first


def test_progress_counts_failed_solves(capfd):
    with pytest.warns(RuntimeWarning):
        blow_up_fit(0.1).minimize(progress=True)
    assert "failed=1" in capfd.readouterr().err


def test_a_failed_solve_is_an_infinite_loss_and_warns_once():
    fit = blow_up_fit(0.5)
    with pytest.warns(RuntimeWarning, match="forward solve stopped"):
        value, gradient = fit.value_and_gradient([3.0])
    assert value == np.inf and np.isnan(gradient).all() and gradient.shape == (1,)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit.value_and_gradient([2.0])[0] == np.inf
    assert fit.n_failed == 2


def test_a_fit_that_fails_at_its_start_raises():
    with pytest.raises(SolveError, match="cannot start, because the solve at x0 fails: the forward solve stopped") as caught:
        blow_up_fit(3.0).minimize()
    assert caught.value.phase == "forward" and caught.value.t == pytest.approx(1 / 3, rel=1e-3)


def test_overflow_on_a_log_scale_is_a_failed_solve():
    fit = blow_up_fit(0.5, log="theta")
    with pytest.warns(RuntimeWarning, match=r"theta\[0\] overflows"):
        assert fit.value_and_gradient([1000.0])[0] == np.inf


@pytest.mark.filterwarnings("ignore:.*solves of the fit failed:RuntimeWarning")
def test_a_loss_that_is_not_finite_is_a_failed_solve():
    class Picky(FinalState):
        """NaN where u(T) is large, as from a logarithm in the user's own loss."""

        def value_and_cotangents(self, solution):
            excess = solution.u[-1, 0] - 2.0
            value = 0.5 * excess**2 if excess < 1.0 else np.nan
            return value, {"u_T_bar": [excess]}

    result = blow_up_fit(0.0, loss=Picky([1.0])).minimize()
    assert result.theta[0] == pytest.approx(0.5, abs=1e-5) and result.n_failed > 0
    with pytest.raises(SolveError, match=r"the fit cannot start.*not finite"):
        blow_up_fit(0.9, loss=Picky([1.0])).minimize()


def test_the_optimiser_sees_a_rise_where_the_solve_fails():
    fit = blow_up_fit(0.1)
    objective = Objective(fit)
    value, gradient = objective(fit.x0)
    uphill, slope = objective(fit.x0 + 5.0)
    assert uphill == pytest.approx(value + 5.0 * abs(gradient[0])) and slope == -gradient
    objective.accept(fit.x0 + 5.0)
    np.testing.assert_array_equal(objective.anchor.x, fit.x0)


# --- bad input ----------------------------------------------------------------------------------------------------------
BAD = {
    "dynamics": ({"dynamics": print}, TypeError, "dynamics must be an adjode.Dynamics"),
    "loss": ({"loss": 3.0}, TypeError, "loss must be one of adjode.losses or have a method"),
    "span": ({"t_span": (0.0,)}, ValueError, "t_span must be a pair"),
    "option": ({"tol": 1e-3}, TypeError, "option 'tol' is unknown"),
    "nothing_free": ({"free": ()}, ValueError, "nothing to fit"),
    "block": ({"free": ("states",)}, ValueError, "free may name the blocks 'u0' and 'theta', but it names 'states'"),
    "free_type": ({"free": True}, TypeError, "free must be a tuple of block names"),
    "part_type": ({"free": {"theta": 0.5}}, TypeError, r"free\['theta'\] must be True, False, a boolean mask"),
    "mask": ({"free": {"theta": [True]}}, ValueError, "mask of 4 entries"),
    "index": ({"log": {"theta": [4]}}, ValueError, "indices from 0 to 3"),
    "flat_name": ({"free": {"theta": ["a"]}}, ValueError, "names 'a', but the entries of theta are not named"),
    "name": ({"theta": THETA_DICT, "free": {"theta": ["hare"]}}, ValueError, r"the entries of theta are \['prey', 'predator'\]"),
    "log": ({"theta": [0.7, 0, 1, 0.4], "log": "theta"}, ValueError, r"theta\[1\] must start positive .* starts at 0"),
    "bounds_type": ({"bounds": 1.0}, TypeError, "bounds must be a dict such as .*, or a pair for each of the 4 free entries"),
    "bounds_few": ({"bounds": [(0, 1)]}, TypeError, "bounds must be a dict such as .*, or a pair for each of the 4 free entries"),
    "bounds_nan_pair": ({"bounds": [(0, np.nan)] * 4}, ValueError, "NaN is among them"),
    "zeros_and_ones": ({"free": {"theta": [1, 0, 1, 0]}}, ValueError, r"must name each index once, .*; a mask has True and False"),
    "times": ({"loss": LeastSquares([99.0], [[1.0, 1.0]])}, ValueError, "t_obs must lie in the span"),
    "columns": ({"loss": LeastSquares([1.0], np.ones((1, 3)))}, ValueError, "components go up to 2, but the state has 2"),
    "bounds_block": ({"bounds": {"rates": (0, 1)}}, ValueError, "bounds may name the blocks"),
    "bounds_pair": ({"bounds": {"theta": 0.0}}, ValueError, r"bounds\['theta'\] must be a pair"),
    "bounds_shape": ({"bounds": {"theta": ([0, 1], None)}}, ValueError, r"broadcast to shape \(4,\)"),
    "bounds_nan": ({"bounds": {"theta": (np.nan, None)}}, ValueError, "must not be NaN"),
    "bounds_start": ({"bounds": {"theta": (None, 0.65)}}, ValueError, r"theta\[0\] must start within its bounds \(-inf, 0.65\)"),
}


@pytest.mark.parametrize(("changes", "error", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input(changes, error, message):
    arguments = {"dynamics": lotka_volterra(), "loss": FinalState([1, 1]), "t_span": SPAN}
    start = {"u0": [1, 1], "theta": [0.7, 0.6, 1, 0.4]}
    with pytest.raises(error, match=message):
        Fit(**{**arguments, **start, **changes})


def test_bad_method():
    with pytest.raises(ValueError, match="method must be one of 'L-BFGS-B'"):
        fit_of_data().minimize("Nelder-Mead")
    with pytest.raises(ValueError, match="BFGS takes no bounds"):
        fit_of_data(bounds={"theta": (0, None)}).minimize("BFGS")


def test_bad_x():
    fit = Fit(LOGISTIC.dynamics, FinalState([1.0]), (0.0, 1.0), u0=[0.5], theta=[1.0, 2.0])
    with pytest.raises(ValueError, match="x must have 2 entries, but it has 3"):
        fit.value_and_gradient(np.zeros(3))
    with pytest.raises(ValueError, match="x must be finite"):
        fit.unpack([np.nan, 0.0])
    with pytest.warns(RuntimeWarning, match="a solve failed, .*: x must be finite, but entry 1 is inf"):
        value, gradient = fit.value_and_gradient([1.0, np.inf])
    assert value == np.inf and np.isnan(gradient).all() and fit.n_failed == 1


class Undefined:
    """The logarithm of a state less an offset, which is not defined everywhere."""

    def value_and_cotangents(self, solution):
        with np.errstate(invalid="ignore"):
            x = solution.u[-1, 0] - 0.3
            return np.log(x) ** 2, {"u_T_bar": [2.0 * np.log(x) / x]}


def test_own_loss_that_is_not_defined_at_a_trial_point():
    """At x = 0 the state is 0.5, at x = -8 it is below 0.3."""
    fit = Fit(LOGISTIC.dynamics, Undefined(), (0.0, 1.0), u0=[0.5], theta=[0.0, 1.0], free={"theta": [0]})
    assert fit.value_and_gradient([0.0])[0] == pytest.approx(np.log(0.2) ** 2)
    with pytest.warns(RuntimeWarning, match="the loss is not finite: its value is nan"):
        assert fit.value_and_gradient([-8.0])[0] == np.inf
