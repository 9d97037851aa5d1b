"""What a slip in a callback leaves behind is noticed by the first calls; right callbacks pass, and pay for it once."""

import numpy as np
import pytest
from numba import njit

from adjode import Dynamics, SolveError, ensemble_value_and_gradient, solve, value_and_gradient
from adjode.compile.flags import DISABLED
from adjode.losses import FinalState, Series
from adjode.model.rebuilt import plain
from adjode.model.trial import Trial

TABLE = np.linspace(0.5, 1.5, 6)


def decay(t, u, theta, du):
    for i in range(u.size):
        du[i] = -theta[0] * u[i]


def decay_vjp(t, u, theta, lam, u_bar, theta_bar):
    theta_bar[:] = 0.0
    for i in range(u.size):
        u_bar[i] = -theta[0] * lam[i]
        theta_bar[0] -= u[i] * lam[i]


def everywhere(dynamics, n=2, m=1, span=(0.0, 2.0), **options):
    """The ways to a first call."""
    u0, theta = np.linspace(1.0, 1.5, n), np.full(m, 0.8)
    yield lambda: solve(dynamics, u0, theta, span, **options).pullback(np.ones(n))
    yield lambda: value_and_gradient(dynamics, FinalState(np.ones(n)), span, **options)(u0, theta)
    one = {**options, "workers": 1}
    yield lambda: ensemble_value_and_gradient(dynamics, FinalState(np.ones(n)), span, **one)(np.stack([u0, u0]), theta)


def refused(make, message, *ways, **options):
    """Fresh callbacks for each way, since each is tried once."""
    for k in ways:
        with pytest.raises(ValueError, match=message):
            list(everywhere(make(), **options))[k]()


# --- indices that leave the arrays -----------------------------------------------------------------------------------


def writes_late():
    def f(t, u, theta, du):
        for i in range(u.size):
            du[i] = -theta[0] * u[i]
        if t > 1.3:
            for k in range(3000):
                du[u.size + k] = 1e300

    return Dynamics(f, decay_vjp)


def writes_at_small_states():
    def f(t, u, theta, du):
        for i in range(u.size):
            du[i] = -theta[0] * u[i]
        if u[0] < 0.4:
            du[u.size] = 1.0

    return Dynamics(f, decay_vjp)


def reads_behind_a_table():
    def f(t, u, theta, du):
        for i in range(u.size):
            du[i] = -theta[0] * u[i] * TABLE[int(5 * t)]

    return Dynamics(f, decay_vjp)


def helper_leaves_theta_bar():
    @njit
    def helper(u, theta, lam, u_bar, theta_bar):
        for i in range(u.size):
            u_bar[i] = -theta[0] * lam[i]
            theta_bar[i] = -u[i] * lam[i]

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        helper(u, theta, lam, u_bar, theta_bar)

    return Dynamics(decay, vjp)


def jitted_and_late():
    @njit
    def vjp(t, u, theta, lam, u_bar, theta_bar):
        decay_vjp_jitted(t, u, theta, lam, u_bar, theta_bar)
        if t > 0.5:
            theta_bar[theta.size] = 1.0

    return Dynamics(decay, vjp)


decay_jitted, decay_vjp_jitted = njit(decay), njit(decay_vjp)


@pytest.mark.parametrize(
    ("make", "way", "message"),
    [
        (writes_late, 0, "a callback indexes an array out of bounds at t = 1.*index 2 is out of bounds"),
        (writes_at_small_states, 1, "indexes an array out of bounds"),
        (reads_behind_a_table, 2, "indexes an array out of bounds at t = 1.* index 6 is out of bounds"),
        (helper_leaves_theta_bar, 0, "vjp indexes an array out of bounds where u has 2 entries and theta 1 .*theta_bar"),
        (
            jitted_and_late,
            1,
            "vjp indexes an array out of bounds where u has 2 entries and theta 1 .*theta_bar.theta.size.*seen at t = 0.5",
        ),
    ],
)
def test_leaving_an_array(make, way, message):
    refused(make, message, way)


def reads_beside():
    def f(t, u, theta, du):
        for i in range(u.size):
            du[i] = -theta[1] * u[i]

    return Dynamics(f, decay_vjp)


def writes_beside():
    def vjp(t, u, theta, lam, u_bar, theta_bar):
        for i in range(u.size):
            u_bar[i] = -theta[0] * lam[i]
            theta_bar[i] = -u[i] * lam[i]

    return Dynamics(decay, vjp)


def test_leaving_an_array_of_a_large_system():
    refused(reads_beside, "f (reads|indexes) an array out of bounds where u has 900 entries and theta 1", 0, n=900)
    refused(writes_beside, "vjp (writes outside theta_bar|indexes an array out of bounds)", 1, n=900)


@pytest.mark.skipif(DISABLED, reason="plain Python has no memory to spoil")
@pytest.mark.parametrize(
    ("make", "message"), [(reads_beside, "f reads an array out of bounds"), (writes_beside, "vjp writes outside theta_bar")]
)
def test_compiled_calls_show_it_too(make, message, monkeypatch):
    monkeypatch.setattr(Trial, "_plain_slip", lambda *given: None)
    refused(make, message, 1)


def on_a_circle():
    def f(t, u, theta, du):
        spring = TABLE[int(np.floor(theta[0] * (1.01 + u[0])))]
        du[0], du[1] = u[1], -u[0] + 0.0 * spring

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0], u_bar[1], theta_bar[0] = -lam[1], lam[0], 0.0

    return Dynamics(f, vjp)


def test_a_table_that_only_rough_states_leave(monkeypatch):
    """The states of the trial steps leave the circle, so a solve with checks decides."""
    judged, checked = [], Dynamics.checked
    monkeypatch.setattr(Dynamics, "checked", lambda self: judged.append(self) or checked(self))
    span = (0.0, 30.0)
    assert solve(on_a_circle(), [1.0, 0.0], [2.9], span, rtol=1e-8).u_T[0] == pytest.approx(np.cos(30.0), abs=1e-5)
    assert len(judged) == 1
    with pytest.raises(ValueError, match="indexes an array out of bounds .*index 6 is out of bounds"):
        solve(on_a_circle(), [0.0, 1.0], [3.1], span, rtol=1e-8)


# --- outputs and inputs ---------------------------------------------------------------------------------------------------


def returns_it():
    def f(t, u, theta, du):
        return -theta[0] * u

    return Dynamics(f, decay_vjp)


def rebinds_it():
    def f(t, u, theta, du):
        du = -theta[0] * u  # noqa: F841

    return Dynamics(f, decay_vjp)


def forgets_one():
    def f(t, u, theta, du):
        du[0] = -theta[0] * u[0]

    return Dynamics(f, decay_vjp)


def adds():
    def vjp(t, u, theta, lam, u_bar, theta_bar):
        for i in range(u.size):
            u_bar[i] = -theta[0] * lam[i]
            theta_bar[0] -= u[i] * lam[i]

    return Dynamics(decay, vjp)


def clips():
    def f(t, u, theta, du):
        u[0] = max(u[0], 0.2)
        du[0], du[1] = -1.0, -theta[0]

    return Dynamics(f, decay_vjp)


def forgets_late():
    def vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0] = u_bar[1] = -theta[0] * lam[0]
        if t < 1.0:
            theta_bar[0] = -u[0] * lam[0]

    return Dynamics(decay, vjp)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (returns_it, r"f takes du to write into, so what it returns is lost: return nothing, or use .* f\(t, u, theta\)"),
        (rebinds_it, r"f does not write du\[0\] where u has 2 .*`du\[:\] = ...` does, or use the form f\(t, u, theta\)"),
        (forgets_one, r"f does not write du\[1\]"),
        (adds, r"vjp makes theta_bar\[0\] depend on what the array held before"),
        (clips, "a callback changes one of its inputs at t = 0.8"),
        (forgets_late, r"vjp does not write theta_bar\[0\]"),
    ],
)
def test_outputs_and_inputs(make, message):
    refused(make, message, 0, 1)


def test_the_fused_tier():
    for make, message in ((rebinds_it, r"f does not write du\[0\]"), (writes_late, "indexes an array out of bounds at t = 1")):
        parts = make()
        with pytest.raises(ValueError, match=message):
            solve(Dynamics(parts.f.given, parts.vjp.given, fused=True), [1.0, 1.5], [0.8], (0.0, 2.0))


def test_what_nobody_reads_need_not_be_written():
    def vjp(t, u, theta, lam, u_bar, theta_bar):
        for i in range(u.size):
            u_bar[i] = -theta[0] * lam[i]

    dynamics = Dynamics(decay, vjp)
    bar = value_and_gradient(dynamics, FinalState([1.0, 0.0]), (0.0, 1.0), wrt="u0")([1.0, 2.0], [0.7])[1]
    assert bar.u0 == pytest.approx([np.exp(-0.7), 0.0], rel=1e-5)
    assert solve(dynamics, [1.0], [0.7], (0.0, 1.0), method="Radau").u_T == pytest.approx(np.exp(-0.7), rel=1e-5)
    with pytest.raises(ValueError, match=r"vjp does not write theta_bar\[0\]"):
        value_and_gradient(dynamics, FinalState([1.0, 0.0]), (0.0, 1.0))([1.0, 2.0], [0.7])


def test_running_costs_and_jac():
    def g_vjp(t, u, theta, u_bar, theta_bar):
        u_bar[0] = 1.0

    def jac(t, u, theta, J):
        J[0, 0] = J[1, 1] = -theta[0]

    solution = solve(Dynamics(decay, decay_vjp), [1.0, 2.0], [0.7], (0.0, 1.0))
    with pytest.raises(ValueError, match=r"g_vjp does not write u_bar\[1\]"):
        solution.pullback([1.0, 0.0], running_cost=(lambda t, u, theta: u[0], g_vjp))
    with pytest.raises(ValueError, match=r"jac does not write J\[1\]"):
        solve(Dynamics(decay, decay_vjp, jac=jac), [1.0, 2.0], [0.7], (0.0, 1.0), method="Radau")


# --- losses ----------------------------------------------------------------------------------------------------------------


def test_series_that_leaves_its_data():
    data = np.ones(3)

    @njit
    def residual(k, u):
        return u[0] - data[k]

    @njit
    def value(k, t, u, u_bar):
        u_bar[:] = 0.0
        u_bar[0] = residual(k, u)
        return 0.5 * residual(k, u) ** 2

    dynamics = Dynamics(decay, decay_vjp)
    with pytest.raises((ValueError, IndexError), match="index 3 is out of bounds"):
        value_and_gradient(dynamics, Series([0.2, 0.4, 0.6, 0.8], value), (0.0, 1.0))([1.0], [1.0])
    v, _ = value_and_gradient(dynamics, Series([0.2, 0.4, 0.6], value), (0.0, 1.0))([1.0], [1.0])
    assert v == pytest.approx(0.5 * np.sum((np.exp([-0.2, -0.4, -0.6]) - 1.0) ** 2), rel=1e-5)


@pytest.mark.parametrize("wrap", [njit, lambda function: function])
def test_series_that_returns_an_array(wrap):
    @wrap
    def value(k, t, u, u_bar):
        u_bar[:] = u
        return 0.5 * u * u

    with pytest.raises(TypeError, match=r"must return a number, but it returns an array of shape \(1,\): sum it up"):
        value_and_gradient(Dynamics(decay, decay_vjp), Series([0.2, 0.4], value), (0.0, 1.0))([1.0], [1.0])


class Own:
    def __init__(self, value, seeds):
        self.value, self.seeds = value, seeds

    def value_and_cotangents(self, solution):
        return self.value, self.seeds


def test_own_losses():
    def evaluate(value, seeds):
        return value_and_gradient(Dynamics(decay, decay_vjp), Own(value, seeds), (0.0, 1.0))([1.0], [1.0])

    assert evaluate(np.float64(2.0), {"u_T_bar": [1.0]})[1].u0 == pytest.approx(np.exp(-1.0), rel=1e-5)
    with pytest.raises(TypeError, match=r"the loss must return a number .* its value is ndarray of shape \(1,\): sum it up"):
        evaluate(np.array([2.0]), {"u_T_bar": [1.0]})
    with pytest.raises(SolveError, match="the loss is not finite: its value is nan") as caught:
        evaluate(np.nan, {"u_T_bar": [1.0]})
    assert caught.value.phase == "loss"
    with pytest.raises(SolveError, match="u_T_bar must be finite"):
        evaluate(2.0, {"u_T_bar": [np.nan]})
    with pytest.raises(SolveError, match="u_bars must be finite"):
        evaluate(2.0, {"observations": ([0.5], [[np.inf]])})


# --- what it costs, and plain copies ------------------------------------------------------------------------------------------


def test_later_calls_try_nothing(monkeypatch):
    def f(t, u, theta, du):
        decay_jitted(t, u, theta, du)

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        decay_vjp_jitted(t, u, theta, lam, u_bar, theta_bar)

    dynamics = Dynamics(f, vjp)
    evaluate = value_and_gradient(dynamics, FinalState([1.0, 0.0]), (0.0, 1.0))
    tried = []
    slip = Trial.slip
    monkeypatch.setattr(Trial, "slip", lambda self, *given, **how: tried.append(self.callback.name) or slip(self, *given, **how))
    evaluate(np.ones(2), np.ones(1))
    assert set(tried) == {"f", "vjp"}
    tried.clear()
    evaluate(np.ones(2), np.ones(1))
    solve(dynamics, np.ones(2), np.ones(1), (0.0, 3.0)).pullback([1.0, 0.0])
    assert tried == []
    solve(dynamics, np.ones(3), np.ones(1), (0.0, 1.0))
    assert set(tried) == {"f"}  # another size


def test_plain_copies_reach_helpers_of_helpers():
    @njit
    def inner(x, k):
        return x[k] if k < 1 else inner(x, k - 1) + x[k]

    @njit
    def outer(x, k):
        return 2.0 * inner(x, k)

    def function(x, k):
        return outer(x, k) + 1.0

    x = np.array([1.0, 2.0, 4.0])
    assert plain(function)(x, 2) == function(x, 2) == 15.0
    with pytest.raises(IndexError):
        plain(function)(x, 3)
    assert outer.py_func is not plain(outer)
