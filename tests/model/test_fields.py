"""Names that a `Dynamics` declares: fields of arguments, entries of dicts, and what messages say."""

import collections
import inspect
import linecache
import pickle
import warnings

import cloudpickle
import numba
import numpy as np
import pytest

from adjode import Dynamics, Fit, SolveError, check_vjp, solve, value_and_gradient
from adjode.losses import FinalState, LeastSquares, Series
from adjode.model.field_access import with_entries
from adjode.model.fields import Fields

STATES, PARAMETERS = ("prey", "predators"), ("growth", "hunting", "death")
U0, THETA, SPAN = [1.2, 0.4], [0.9, 0.5, 0.7], (0.0, 1.0)
NAMED_U0, NAMED_THETA = dict(zip(STATES, U0, strict=True)), dict(zip(PARAMETERS, THETA, strict=True))


def flat_f(t, u, theta, du):
    du[0] = theta[0] * u[0] - theta[1] * u[0] * u[1]
    du[1] = theta[1] * u[0] * u[1] - theta[2] * u[1]


def flat_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = (theta[0] - theta[1] * u[1]) * lam[0] + theta[1] * u[1] * lam[1]
    u_bar[1] = -theta[1] * u[0] * lam[0] + (theta[1] * u[0] - theta[2]) * lam[1]
    theta_bar[0], theta_bar[1], theta_bar[2] = u[0] * lam[0], u[0] * u[1] * (lam[1] - lam[0]), -u[1] * lam[1]


def f(t, u, theta, du):
    # u.prey in a comment stays what it is
    du.prey = theta.growth * u.prey - theta.hunting * u.prey * u.predators
    du.predators = theta.hunting * u.prey * u.predators - theta.death * u.predators


def vjp(t, x, p, lam, x_bar, p_bar):
    x_bar.prey = (p.growth - p.hunting * x.predators) * lam.prey + p.hunting * x.predators * lam.predators
    x_bar.predators = -p.hunting * x.prey * lam.prey + (p.hunting * x.prey - p.death) * lam.predators
    p_bar.growth, p_bar.hunting = x.prey * lam.prey, x.prey * x.predators * (lam.predators - lam.prey)
    p_bar.death = -x.predators * lam.predators


def vjp_u(t, u, theta, lam, u_bar):
    u_bar.prey = (theta.growth - theta.hunting * u.predators) * lam.prey + theta.hunting * u.predators * lam.predators
    u_bar.predators = -theta.hunting * u.prey * lam.prey + (theta.hunting * u.prey - theta.death) * lam.predators


def jac(t, u, theta, J):
    J[0, 0], J[0, 1] = theta.growth - theta.hunting * u.predators, -theta.hunting * u.prey
    J[1, 0], J[1, 1] = theta.hunting * u.predators, theta.hunting * u.prey - theta.death


def g(t, u, theta):
    return theta.growth * u.predators**2


def g_vjp(t, u, theta, u_bar, theta_bar):
    theta_bar[:] = 0.0
    u_bar.prey, u_bar.predators, theta_bar.growth = 0.0, 2.0 * theta.growth * u.predators, u.predators**2


def flat_g(t, u, theta):
    return theta[0] * u[1] ** 2


def flat_g_vjp(t, u, theta, u_bar, theta_bar):
    theta_bar[:] = 0.0
    u_bar[0], u_bar[1], theta_bar[0] = 0.0, 2.0 * theta[0] * u[1], u[1] ** 2


def named(*callbacks, **options):
    return Dynamics(*(callbacks or (f, vjp)), states=STATES, parameters=PARAMETERS, **options)


def bits(solution, **options):
    bar = solution.pullback([1.0, 0.5], **options)
    return solution.u.tobytes(), *(np.fromiter(_values(part), float).tobytes() for part in (bar.u0, bar.theta))


def _values(part):
    return part.values() if isinstance(part, dict) else part


@pytest.mark.parametrize("options", [{}, {"debug": True}, pytest.param({"fused": True}, marks=pytest.mark.slow)], ids=repr)
def test_fields_are_entries(options):
    """To the last bit, in every callback of a Dynamics."""
    with_names, flat = named(**options), Dynamics(flat_f, flat_vjp, **options)
    for keywords in ({}, {"adjoint": "discrete"}):
        assert bits(solve(with_names, U0, THETA, SPAN), **keywords) == bits(solve(flat, U0, THETA, SPAN), **keywords)


def test_all_callbacks():
    whole = named(f, vjp, vjp_u=vjp_u, jac=jac)
    flat = Dynamics(flat_f, flat_vjp)
    assert check_vjp(whole, U0, THETA).ok
    solution, other = (solve(one, U0, THETA, SPAN, method="Radau") for one in (whole, flat))
    bar, wanted = solution.pullback(running_cost=(g, g_vjp)), other.pullback(running_cost=(flat_g, flat_g_vjp))
    np.testing.assert_allclose(bar.theta, wanted.theta, rtol=1e-6)
    assert bar.running_cost == pytest.approx(wanted.running_cost, rel=1e-8)


@pytest.mark.parametrize("jit", [lambda function: function, numba.njit], ids=["plain", "jitted"])
def test_series(jit):
    @jit
    def squares(k, t, u, u_bar):
        u_bar[:] = 0.0
        u_bar.predators = 2.0 * (k + 1) * u.predators
        return (k + 1) * u.predators**2

    loss = Series([0.5, 1.0], squares)
    value, bar = value_and_gradient(named(), loss, SPAN)(U0, THETA)
    data = LeastSquares([0.5, 1.0], np.zeros((2, 1)), components=[1], sigma=np.sqrt(0.5 / np.array([[1.0], [2.0]])))
    wanted, wanted_bar = value_and_gradient(Dynamics(flat_f, flat_vjp), data, SPAN)(U0, THETA)
    assert value == pytest.approx(wanted, rel=1e-14)
    np.testing.assert_allclose(bar.theta, wanted_bar.theta, rtol=1e-12)
    assert loss.value_and_cotangents(solve(named(), U0, THETA, SPAN))[0] == pytest.approx(wanted, rel=1e-7)
    assert value_and_gradient(Dynamics(flat_f, flat_vjp), FinalState([1.0, 0.0]), SPAN)(U0, THETA)[0] > 0.0


def test_entries_that_a_loss_names():
    def broken(k, t, u, u_bar):
        u_bar.prey = 0.0
        return 0.0

    with pytest.raises(SolveError, match=r"cotangent of u\['predators'\] at t = 0.5 is nan") as caught:
        value_and_gradient(named(), Series([0.5], broken), SPAN)(U0, THETA)
    assert caught.value.component == "predators"


# --- forms of u0 and theta ------------------------------------------------------------------------------------------------------


class Labelled:
    """As much of a pandas Series as is read here."""

    def __init__(self, named):
        self.named, self.index = named, list(named)

    def to_dict(self):
        return dict(self.named)


def record(named):
    return np.array(tuple(named.values()), dtype=[(name, float) for name in named])[()]


def backwards(named):
    return dict(reversed(named.items()))


@pytest.mark.parametrize("form", [dict, record, Labelled])
@pytest.mark.parametrize("order", [dict, backwards])
def test_names_are_matched(form, order):
    wanted = solve(Dynamics(flat_f, flat_vjp), U0, THETA, SPAN)
    u0, theta = form(order(NAMED_U0)), form(order(NAMED_THETA))
    solution = solve(named(), u0, theta, SPAN)
    np.testing.assert_array_equal(solution.u, wanted.u)
    bar, wanted_bar = solution.pullback(form(order({"prey": 1.0, "predators": 0.5}))), wanted.pullback([1.0, 0.5])
    for k, name in enumerate(PARAMETERS):
        assert bar.theta[name] == wanted_bar.theta[k]
    for k, name in enumerate(STATES):
        assert bar.u0[name] == wanted_bar.u0[k] and solution.u_T[name] == wanted.u_T[k]
    if form is record:
        assert bar.theta.dtype.names == theta.dtype.names
    value, gradient = value_and_gradient(named(), FinalState([1.0, 0.5]), SPAN)(u0, theta)
    assert value == pytest.approx(wanted.u_T @ [1.0, 0.5]) and gradient.theta["death"] == pytest.approx(
        wanted_bar.theta[2], rel=1e-6
    )


BAD = [
    ({"prey": 1.0}, THETA, "u0 lacks 'predators': its entries must be 'prey', 'predators'"),
    (
        U0,
        NAMED_THETA | {"birth": 1.0},
        "theta has 'birth', which the Dynamics does not know: its entries must be 'growth', 'hunting'",
    ),
    ({"prey": 1.0, "predator": 1.0}, THETA, "u0 lacks 'predators' and has 'predator', which the Dynamics does not know"),
    (record({"prey": 1.0}), THETA, "u0 lacks 'predators': its fields must be"),
    ({"prey": [1.0], "predators": 1.0}, THETA, r"u0\['prey'\] must have shape \(\), but its shape is \(1,\)"),
    ([1.0, 2.0, 3.0], THETA, "u0 must have 2 entries, but it has 3"),
    ([1.0, np.nan], THETA, r"u0 must be finite, but u0\['predators'\] is nan"),
]


@pytest.mark.parametrize(("u0", "theta", "message"), BAD, ids=range(len(BAD)))
def test_other_names(u0, theta, message):
    evaluate = value_and_gradient(named(), FinalState([1.0, 0.0]), SPAN)
    for call in (lambda: solve(named(), u0, theta, SPAN), lambda: evaluate(u0, theta), lambda: check_vjp(named(), u0, theta)):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_label_that_comes_twice():
    series = Labelled(NAMED_U0)
    series.index = ["prey", "predators", "prey"]
    with pytest.raises(ValueError, match="u0 has labels more than once: 'prey', 'predators', 'prey'"):
        solve(named(), series, THETA, SPAN)


def test_sizes_before_compiled_code():
    with pytest.raises(ValueError, match="theta must have 3 entries, but it has 2"):
        value_and_gradient(named(), FinalState([1.0, 0.0]), SPAN).jitted(2, 2)
    evaluate = value_and_gradient(named(), FinalState([1.0, 0.0]), SPAN)
    with pytest.raises(ValueError, match="u0 must have 2 entries, but it has 0"):
        evaluate(np.zeros(0), np.zeros(0))


# --- arrays ---------------------------------------------------------------------------------------------------------------------

NET = {"bias": (2,), "W": (2, 3), "gain": (), "mixed": (2, 2, 2)}


def net(t, u, theta, du):
    x, W = u, theta.W
    for i in range(2):
        s = theta.bias[i] + theta.mixed[i, 1, -1]
        for j in range(3):
            s += theta.W[i, j] * x.hidden[j]
        du[i] = theta.gain * s + W[i, -1]
    du.hidden[2] = 0.0
    du.level = u.level * theta.mixed.sum()


def flat_net(t, u, theta, du):
    W, mixed = theta[2:8].reshape((2, 3)), theta[9:].reshape((2, 2, 2))
    for i in range(2):
        du[i] = theta[8] * (theta[i] + mixed[i, 1, 1] + W[i] @ u[:3]) + W[i, 2]
    du[2], du[3] = 0.0, u[3] * theta[9:].sum()


def net_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar.hidden, theta_bar.W, theta_bar.mixed, theta_bar.bias = 0.0, 0.0, lam.level * u.level, 0.0
    theta_bar.gain, u_bar.level = 0.0, lam.level * theta.mixed.sum()
    for i in range(2):
        theta_bar.bias[i] += theta.gain * lam.hidden[i]
        theta_bar.mixed[i, 1, 1] += theta.gain * lam.hidden[i]
        theta_bar.gain += lam.hidden[i] * (theta.bias[i] + theta.mixed[i, 1, 1])
        theta_bar.W[i, 2] += lam.hidden[i]
        for j in range(3):
            theta_bar.W[i, j] += theta.gain * lam.hidden[i] * u.hidden[j]
            theta_bar.gain += lam.hidden[i] * theta.W[i, j] * u.hidden[j]
            u_bar.hidden[j] += theta.gain * lam.hidden[i] * theta.W[i, j]


def test_arrays():
    theta = np.random.default_rng(0).normal(size=17)
    shaped = {"mixed": theta[9:].reshape(2, 2, 2), "gain": theta[8], "W": theta[2:8].reshape(2, 3), "bias": theta[:2]}
    dynamics = Dynamics(net, net_vjp, states=(("hidden", 3), "level"), parameters=NET)
    report = check_vjp(dynamics, [0.1, 0.2, 0.3, 0.4], shaped)
    assert report.ok, report
    solution = solve(dynamics, {"level": 0.4, "hidden": [0.1, 0.2, 0.3]}, shaped, SPAN)
    flat = solve(Dynamics(flat_net, net_vjp, states=(("hidden", 3), "level"), parameters=NET), [0.1, 0.2, 0.3, 0.4], theta, SPAN)
    np.testing.assert_allclose(solution.u_T["hidden"], flat.u_T[:3], rtol=1e-8)
    bar = solution.pullback([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(bar.theta["W"].ravel(), flat.pullback([1.0, 2.0, 3.0, 4.0]).theta[2:8], rtol=1e-6)
    fit = Fit(dynamics, FinalState(np.ones(4)), SPAN, u0=[0.1, 0.2, 0.3, 0.4], theta=theta, free={"theta": ["gain", "W"]})
    assert fit.names[:2] == ["theta['W'][0, 0]", "theta['W'][0, 1]"] and fit.names[-1] == "theta['gain']"


@pytest.mark.parametrize("target", ["du.x = u.x", "du.x += u.x", "du.x[:] = u.x", "du.x, du.y = u.x, u.y"])
@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (2, 1, 3)])
def test_assignments(target, shape, tmp_path):
    if shape == () and "[:]" in target:
        pytest.skip("a number has no entries")
    made = defined(tmp_path, f"def f(t, u, du):\n    {target}\n")
    fields = Fields.declared("states", (("y", (3,)), ("x", shape)))
    written, u = with_entries("f", made, (None, fields, fields)), np.arange(1.0, fields.size + 1)
    for function in (written, numba.njit(written)):
        du = np.zeros(fields.size)
        function(0.0, u, du)
        np.testing.assert_array_equal(du, u * ((np.arange(u.size) >= 3) | ("y" in target)))


# --- source ---------------------------------------------------------------------------------------------------------------------


def defined(folder, source):
    path, space = folder / "model.py", {"__name__": "__main__"}
    path.write_text(source)
    linecache.checkcache(str(path))
    exec(compile(source, str(path), "exec"), space)
    return space["f"]


def test_the_source_that_others_read():
    dynamics = named()
    shown, given = inspect.getsource(dynamics.f.source).splitlines(), inspect.getsource(f).splitlines()
    assert shown == [
        "def f(t, u, theta, du):",
        "    # u.prey in a comment stays what it is",
        "    du[0] = theta[0] * u[0] - theta[1] * u[0] * u[1]",
        "    du[1] = theta[1] * u[0] * u[1] - theta[2] * u[1]",
    ]
    assert len(given) == len(shown) and inspect.getsourcelines(dynamics.f.source)[1] == inspect.getsourcelines(f)[1]
    assert dynamics.f.source.__code__.co_filename == __file__ and dynamics.f.source.__globals__ is globals()


def test_fields_over_lines():
    def spread(t, u, theta, du):
        du[0] = (u
                 .prey + theta.
                 growth)  # fmt: skip
        du[1] = u.predators / theta.death

    made = named(spread, vjp).f.source
    assert inspect.getsource(made).count("\n") == inspect.getsource(spread).count("\n")
    space = {}
    exec(inspect.cleandoc("\n" + inspect.getsource(made)), space)
    for function in (made, space["spread"]):
        du = np.zeros(2)
        function(0.0, np.array(U0), np.array(THETA), du)
        np.testing.assert_array_equal(du, [U0[0] + THETA[0], U0[1] / THETA[2]])


def test_lambdas_closures_and_other_objects_with_fields():
    rates, Rates = collections.namedtuple("Rates", "growth prey")(2.0, 3.0), collections.namedtuple("Rates", "prey")
    source = with_entries("g", lambda t, u, theta: u.prey * rates.growth + rates.prey, (None, Fields((("prey", ()),)), None))
    assert source(0.0, np.array([5.0]), None) == 13.0

    def inner(t, u, theta, du):
        state, p = u, theta
        other = Rates(7.0)

        def scaled(x, u):
            return x * u.prey

        du[0] = scaled(state.prey, other) * p.growth
        du[1] = sum([u.prey for u in (other,)])

    with pytest.raises(TypeError, match=r"assigns to u, so it cannot use u.prey"):  # the one of the comprehension
        named(inner, vjp)

    def plainly(t, u, theta, du):
        state, p = u, theta
        other = Rates(7.0)

        def scaled(x, u):
            return x * u.prey

        du[0], du[1] = scaled(state.prey, other) * p.growth, rates.prey

    du = np.zeros(2)
    with_entries("f", plainly, (None, *(Fields.declared("", names) for names in (STATES, PARAMETERS)), None))(0.0, U0, THETA, du)
    np.testing.assert_array_equal(du, [1.2 * 7.0 * 0.9, 3.0])


def test_what_closures_hold_changes():
    def made(rate):
        def decay(t, u, theta, du):
            du.prey, du.predators = -rate * u.prey, -rate * u.predators

        return decay

    slow, fast = (named(made(rate), vjp) for rate in (1.0, 2.0))
    assert slow.f is not fast.f and slow.f.key != fast.f.key
    for dynamics, rate in ((slow, 1.0), (fast, 2.0)):
        np.testing.assert_allclose(solve(dynamics, U0, THETA, SPAN).u_T, np.exp(-rate) * np.array(U0), rtol=1e-5)


def test_names_are_part_of_what_is_compiled():
    other = Dynamics(f, vjp, states=STATES[::-1], parameters=PARAMETERS)
    assert other.f.key != named().f.key and named().f is named().f
    assert pickle.loads(pickle.dumps(other)).f is other.f
    np.testing.assert_array_equal(solve(other, U0[::-1], THETA, SPAN).u_T, solve(named(), U0, THETA, SPAN).u_T[::-1])


def test_without_fields_nothing_is_made():
    assert named(flat_f, flat_vjp).f.source is flat_f
    assert Dynamics(flat_f, flat_vjp).f.source is flat_f


# --- messages -------------------------------------------------------------------------------------------------------------------


def test_fields_that_were_not_declared():
    def misspelt(t, u, theta, du):
        du.prey = theta.grwoth * u.prey
        du.predators = 0.0

    with pytest.raises(
        TypeError,
        match=r"f uses theta.grwoth, but the names that were declared for theta are growth, hunting, death "
        r"\(.*test_fields.py, line \d+: `du.prey = theta.grwoth \* u.prey`\)",
    ):
        named(misspelt, vjp)


@numba.njit
def helper(u):
    return 2.0 * u.prey


def through_a_helper(t, u, theta, du):
    du.prey, du.predators = helper(u), 0.0


@pytest.mark.jitted
def test_fields_in_helpers():
    with pytest.raises(
        TypeError, match="Only the arguments of a callback itself have fields: pass prey to a function that it calls"
    ):
        named(through_a_helper, vjp)
    with pytest.raises(TypeError, match=r"Entries have names only if Dynamics\(..., states=..., parameters=...\) declares them"):
        Dynamics(f, vjp)


def test_source_that_is_not_what_was_compiled(tmp_path):
    source = "def f(t, u, theta, du):\n    du.prey = u.prey\n    du.predators = 0.0\n"
    function = defined(tmp_path, source)
    (tmp_path / "model.py").write_text(source.replace("u.prey\n", "2.0 * u.prey\n"))
    with pytest.raises(TypeError, match="what .*model.py has at line 1 is not what it was compiled from"):
        named(function, vjp)
    (tmp_path / "model.py").unlink()
    space = {}
    exec("def f(t, u, theta, du):\n    du.prey = u.prey\n", space)
    with pytest.raises(TypeError, match="f uses fields of its arguments, for which its source is read"):
        named(space["f"], vjp)


BAD_NAMES = [
    ("prey", TypeError, "states must be a tuple of names, .*, but 'prey' was given"),
    (3, TypeError, "but 3 was given"),
    (("W", (50, 2)), TypeError, r"but \(50, 2\) is among them"),
    ((("W", -1),), TypeError, "is among them"),
    ({"W": "ab"}, TypeError, "is among them"),
    (("prey", "prey"), ValueError, "states has the name 'prey' more than once"),
    (("size",), ValueError, "states cannot have the name 'size', which means something else for an array: choose another"),
    (("",), ValueError, "cannot have the name ''"),
]


@pytest.mark.parametrize(("states", "kind", "message"), BAD_NAMES, ids=range(len(BAD_NAMES)))
def test_bad_names(states, kind, message):
    with pytest.raises(kind, match=message):
        Dynamics(flat_f, flat_vjp, states=states)


@pytest.mark.jitted
def test_errors_have_names():
    with pytest.raises(SolveError, match=r"component u\['prey'\]") as caught:
        solve(named(), [1e300, 1e300], THETA, SPAN)
    assert caught.value.component == "prey"

    def not_finite(t, u, theta, lam, u_bar, theta_bar):
        u_bar.prey, u_bar.predators, theta_bar[:] = 0.0, 0.0, 0.0
        theta_bar.death = np.log(-1.0 - lam.prey**2)

    dynamics = named(f, not_finite)
    for adjoint in ("discrete", "interpolating"):
        with pytest.raises(SolveError, match=r"theta_bar\['death'\]") as caught:
            solve(dynamics, U0, THETA, SPAN).pullback([1.0, 0.0], adjoint=adjoint)
        assert caught.value.component == "death" and pickle.loads(pickle.dumps(caught.value)).component == "death"


def test_reports_have_names():
    def wrong(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0] = (theta[0] - theta[1] * u[1]) * lam[0] + theta[1] * u[1] * lam[1]
        u_bar[1] = -theta[1] * u[0] * lam[0] + (theta[1] * u[0] - theta[2]) * lam[1]
        theta_bar.growth, theta_bar.hunting, theta_bar.death = u.prey * lam.prey, u.prey * u.predators * lam.predators, 0.0

    text = str(check_vjp(named(f, wrong), U0, THETA))
    assert "df['prey']/dtheta['hunting']" in text and "theta_bar['death']" in text


def test_slips_have_names():
    def forgotten(t, u, theta, du):
        du.prey = theta.growth * u.prey

    with pytest.raises(ValueError, match=r"f does not write du\['predators'\]"):
        solve(named(forgotten, vjp), U0, THETA, SPAN)


def test_unpacked_in_another_order():
    def swapped(t, u, theta, du):
        hunting, growth, death = theta
        du[0], du[1] = growth * u[0] * hunting, death

    with pytest.raises(ValueError, match=r"theta\['growth'\] is entry 0, but f takes growth from entry 1"):
        solve(named(swapped, vjp), U0, THETA, SPAN)

    def renamed(t, u, theta, du):
        growth = theta.hunting
        du[0], du[1] = growth * u[0], theta.death * theta.growth

    solve(named(renamed, flat_vjp), U0, THETA, SPAN)  # what is taken by name is what it says


def test_declared_entries_that_f_does_not_read():
    def only(t, u, theta, du):
        du[0], du[1] = theta.growth * u.prey, 0.0

    def only_vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar.prey, u_bar.predators, theta_bar.growth, theta_bar.hunting, theta_bar.death = (
            theta.growth * lam.prey,
            0.0,
            u.prey * lam.prey,
            0.0,
            0.0,
        )

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a loss may read them, or the initial state of an experiment
        solve(named(only, only_vjp), U0, THETA, SPAN)


@pytest.mark.parametrize("kind", ["dynamics", "derived", "series", "value"])
def test_source_travels(kind, tmp_path):
    """A function that is sent by value finds no file, as on another machine."""
    if kind == "dynamics":
        source = "def f(t, u, theta, du):\n    du.prey, du.predators = -u.prey, -theta.death * u.predators\n"
        thing = named(defined(tmp_path, source), vjp)
    elif kind == "derived":
        thing = Dynamics(defined(tmp_path, "def f(t, u, theta, du):\n    du[0], du[1] = -u[0], -theta[2] * u[1]\n"))
    elif kind == "value":
        thing = Series([1.0], value=defined(tmp_path, "def f(k, t, u, theta):\n    return u.prey\n"))
    else:
        source = "def f(k, t, u, u_bar):\n    u_bar[:] = 0.0\n    return u.prey\n"
        thing = Series([1.0], defined(tmp_path, source)).of_fields(named().fields)
    again = cloudpickle.loads(cloudpickle.dumps(thing))
    (tmp_path / "model.py").unlink()
    linecache.clearcache()
    arrived = cloudpickle.loads(cloudpickle.dumps(again))
    if kind == "value":
        assert arrived.of_fields(named().fields).rule.vjp.source is not None
    elif kind != "series":
        np.testing.assert_allclose(solve(arrived, U0, THETA, SPAN).u_T, np.exp([-1.0, -0.7]) * U0, rtol=1e-5)
    else:
        assert arrived.value_and_cotangent(0, 0.0, np.array(U0), np.zeros(2)) == U0[0]
