"""A Dynamics that is given f alone derives its vjp, and is otherwise like others."""

import copy
import pickle
import re

import numba
import numpy as np
import pytest

from adjode import Dynamics, check_vjp, ensemble_value_and_gradient, solve, value_and_gradient
from adjode.derivation import deriving
from adjode.derivation.derived import Derived
from adjode.losses import FinalState
from adjode.model import derived as model_derived
from benchmarks.problems import lv_f, lv_vjp, spiral, spiral_f
from tests.problems.systems import LV_THETA, LV_U0

SPAN = (0.0, 3.0)
SEED = np.array([1.0, -0.5])


def gradient(dynamics, **options):
    bar = solve(dynamics, LV_U0, LV_THETA, SPAN, **options).pullback(SEED)
    return np.concatenate([bar.u0, bar.theta])


@pytest.mark.parametrize("method", ["Tsit5", "Radau", "auto"])
def test_same_gradient_as_by_hand(method):
    options = {"method": method, "rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(gradient(Dynamics(lv_f), **options), gradient(Dynamics(lv_f, lv_vjp), **options), rtol=1e-12)


@pytest.mark.parametrize(
    "options", [pytest.param({"fused": True}, marks=pytest.mark.slow), {"debug": True}, {"name": "prey and predators"}]
)
def test_options_and_copies(options):
    if numba.config.DISABLE_JIT and "fused" in options:
        pytest.skip("nothing is compiled")
    dynamics = Dynamics(lv_f, **options)
    expected = gradient(dynamics)
    assert repr(dynamics) == repr(pickle.loads(pickle.dumps(dynamics)))
    assert "vjp derived" in repr(dynamics)
    for other in (copy.copy(dynamics), copy.deepcopy(dynamics), pickle.loads(pickle.dumps(dynamics))):
        assert other.derived == dynamics.derived
        np.testing.assert_array_equal(gradient(other), expected)


def test_what_is_given_is_not_derived(monkeypatch):
    monkeypatch.setattr(model_derived, "derive", None)
    model_derived._cached.cache_clear()
    assert Dynamics(lv_f, lv_vjp).derived == ()


def test_one_function_is_derived_once():
    assert Dynamics(lv_f).vjp is Dynamics(lv_f).vjp


def test_captured_constants_are_those_of_now():
    def dynamics(rate):
        def f(t, u, theta, du):
            du[0] = -rate * u[0]

        return Dynamics(f)

    bars = [solve(dynamics(rate), [1.0], [], (0.0, 1.0), rtol=1e-9).pullback([1.0]).u0[0] for rate in (1.0, 2.0)]
    np.testing.assert_allclose(bars, np.exp([-1.0, -2.0]), rtol=1e-7)


def lv_jvp(t, u, theta, u_dot, theta_dot, du_dot):
    raise NotImplementedError


def test_sources_are_shown():
    dynamics = Dynamics(lv_f)
    assert dynamics.vjp_source.startswith("def vjp(t, u, theta, lam, u_bar, theta_bar):")
    assert dynamics.vjp_u_source is None
    assert Dynamics(lv_f, lv_vjp).vjp_source.startswith("def lv_vjp(")
    assert Dynamics(lv_f, jvp=lv_jvp).jvp_source.startswith("def lv_jvp(")
    assert dynamics.jvp_source.startswith("def jvp(t, u, theta, u_dot, theta_dot, du_dot):")
    assert dynamics.jac_source.startswith("def jac(t, u, theta, J):")
    assert Dynamics(spiral_f).jac_source is None


def test_vjp_u_comes_where_parameters_are_many():
    dynamics = Dynamics(spiral_f)
    assert dynamics.derived == ("vjp", "vjp_u")
    problem = spiral()
    check_vjp(dynamics, problem.u0, problem.theta).raise_if_wrong()


def test_returning_form():
    def f(t, u, theta):
        return np.array([theta[0] * u[0] - theta[1] * u[0] * u[1], -theta[2] * u[1] + theta[3] * u[0] * u[1]])

    np.testing.assert_allclose(gradient(Dynamics(f)), gradient(Dynamics(lv_f, lv_vjp)), rtol=1e-12)


@pytest.mark.parametrize("evaluate", [gradient, lambda d: value_and_gradient(d, FinalState(SEED), SPAN)(LV_U0, LV_THETA)])
def test_a_wrong_rule_raises_with_both_values(monkeypatch, evaluate):
    right = deriving.vjp_text(lv_f, ("t", "u", "theta", "du"), ("u", "theta"), "vjp", True)
    wrong = right[0].replace("theta_bar[0] = lam[0]", "theta_bar[0] = 1.5 * lam[0]"), right[1]
    assert wrong != right
    monkeypatch.setattr("adjode.derivation.derived.vjp_text", lambda *arguments: wrong)

    def f(t, u, theta, du):
        du[0] = theta[0] * u[0] - theta[1] * u[0] * u[1]
        du[1] = -theta[2] * u[1] + theta[3] * u[0] * u[1]

    with pytest.raises(ValueError, match=re.escape("theta_bar[0]")) as caught:
        evaluate(Dynamics(f))
    assert "given" in str(caught.value)
    assert "expected" in str(caught.value)


def test_a_wrong_rule_of_a_large_problem_raises(monkeypatch):
    def f(t, u, theta, du):
        for i in range(u.size):
            du[i] = -theta[i] * u[i]

    right = deriving.vjp_text(f, ("t", "u", "theta", "du"), ("u", "theta"), "vjp", True)
    wrong = right[0].replace("u_bar[i] = -lam[i] * theta[i]", "u_bar[i] = -lam[i] * theta[i] * 1.01"), right[1]
    assert wrong != right
    n, real = 200, deriving.vjp_text
    monkeypatch.setattr("adjode.derivation.derived.vjp_text", lambda *given: wrong if given[3] == "vjp" else real(*given))
    with pytest.raises(ValueError, match="Along a random direction"):
        solve(Dynamics(f), np.ones(n), np.linspace(0.5, 1.0, n), (0.0, 1.0)).pullback(np.ones(n))


def test_one_entry_for_all_states_is_refused_with_what_to_write():
    def stretched(t, u, theta):
        return -theta * u

    with pytest.raises(ValueError, match=re.escape("does not fit u of size 3 and theta of size 1: where an array of one entry is")):
        value_and_gradient(Dynamics(stretched), FinalState(np.ones(3)), (0.0, 1.0))([1.0, 2.0, 3.0], [2.0])


def cost(t, u, theta):
    return theta[1] * (u[0] - 1.0) ** 2 + np.sin(t) * u[1]


def cost_vjp(t, u, theta, u_bar, theta_bar):
    u_bar[0], u_bar[1] = 2.0 * theta[1] * (u[0] - 1.0), np.sin(t)
    theta_bar[:] = 0.0
    theta_bar[1] = (u[0] - 1.0) ** 2


@pytest.mark.parametrize("adjoint", ["interpolating", "discrete"])
def test_derivatives_of_a_running_cost(adjoint):
    solution = solve(Dynamics(lv_f), LV_U0, LV_THETA, (0.0, 3.0))
    derived, by_hand = (solution.pullback(running_cost=g, adjoint=adjoint) for g in (cost, (cost, cost_vjp)))
    assert derived.running_cost == by_hand.running_cost
    np.testing.assert_allclose(derived.u0, by_hand.u0, rtol=1e-12)
    np.testing.assert_allclose(derived.theta, by_hand.theta, rtol=1e-12)


def test_wrong_derivatives_of_a_running_cost_raise(monkeypatch):
    def other_cost(t, u, theta):
        return theta[0] * u[0] * u[1]

    def wrong(t, u, theta, u_bar, theta_bar):
        u_bar[:], theta_bar[:] = theta[0] * u[0], 0.0

    monkeypatch.setattr(Derived, "vjp", property(lambda derived: wrong))
    solution = solve(Dynamics(lv_f, lv_vjp), LV_U0, LV_THETA, (0.0, 3.0))
    with pytest.raises(ValueError, match="the derivatives of the running cost other_cost do not agree with it"):
        solution.pullback(running_cost=other_cost)


def _value_and_gradient(dynamics, **options):
    return value_and_gradient(dynamics, FinalState(np.ones(2)), SPAN, **options)


WAYS = {
    "single": lambda dynamics: _value_and_gradient(dynamics)(LV_U0, LV_THETA),
    "memory": lambda dynamics: _value_and_gradient(dynamics, memory="10kB")(LV_U0, LV_THETA),
    "pullback": lambda dynamics: solve(dynamics, LV_U0, LV_THETA, SPAN).pullback(SEED),
    "pullback, memory": lambda dynamics: solve(dynamics, LV_U0, LV_THETA, SPAN, memory="10kB").pullback(SEED),
    "jitted": lambda dynamics: _value_and_gradient(dynamics).jitted(2, 4),
    "ensemble": lambda dynamics: ensemble_value_and_gradient(dynamics, FinalState(np.ones(2)), SPAN)(LV_U0 + np.eye(2), LV_THETA),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_rule_raises(way, monkeypatch):
    """Wherever it is first used."""

    def prey(t, u, theta, du):
        du[0] = theta[0] * u[0] - theta[1] * u[0] * u[1]
        du[1] = -theta[2] * u[1]

    def wrong(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0] = lam[0] * (theta[0] - 1.001 * theta[1] * u[1])
        u_bar[1] = -lam[0] * theta[1] * u[0] - lam[1] * theta[2]
        theta_bar[0], theta_bar[1] = lam[0] * u[0], -lam[0] * u[0] * u[1]
        theta_bar[2], theta_bar[3] = -lam[1] * u[1], 0.0

    if numba.config.DISABLE_JIT and way == "jitted":
        pytest.skip("nothing is compiled")
    monkeypatch.setattr(Derived, "vjp", property(lambda derived: wrong))
    dynamics = Dynamics(prey)
    with pytest.raises(ValueError, match="the vjp derived from prey does not agree with it"):
        WAYS[way](dynamics)
