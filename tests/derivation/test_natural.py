"""Right-hand sides with more of Python and NumPy in them than Numba knows: what is derived and what is compiled is right."""

import inspect
import textwrap

import numpy as np
import pytest
from scipy import special

import adjode
from adjode.derivation import calls, known
from adjode.derivation.derived import Derived
from tests.derivation import checking, natural, natural_parts
from tests.derivation.programs import Program

CASES = [pytest.param(*one, id=one[0].__name__) for one in (*natural.CASES, *natural_parts.CASES)]


def program(f, n, m):
    text = textwrap.dedent(inspect.getsource(f))
    text = text[text.index("def ") :].replace(f"def {f.__name__}(", "def f(", 1)
    form = "in place" if len(inspect.signature(f).parameters) == 4 else "returning"
    space = {name: value for name, value in f.__globals__.items() if name != "np" and not name.startswith("__")}
    return Program(1, text, form, n, m, space)


def positive(program, count=2):
    """Points at which powers and logarithms are defined."""
    rng = np.random.default_rng(program.seed)
    return [(rng.uniform(0.2, 1.0), rng.uniform(0.2, 1.3, program.n), rng.uniform(0.2, 1.3, program.m)) for _ in range(count)]


@pytest.mark.parametrize(("f", "n", "m"), CASES)
def test_products_are_right(f, n, m, monkeypatch):
    monkeypatch.setattr(checking, "points", positive)
    assert checking.verdict(program(f, n, m)) == "right"


@pytest.mark.parametrize(("f", "n", "m"), CASES)
def test_what_is_read_does_the_same(f, n, m):
    """It is what Numba compiles where it does not know all that is in f."""
    form, read = program(f, n, m).form, Derived(f).program
    for t, u, theta in positive(program(f, n, m)):
        expected = checking.value(f, form, t, u, theta)
        np.testing.assert_allclose(checking.value(read, form, t, u, theta), expected, rtol=1e-12, atol=1e-13)


def compiled(f, n, m):
    """Whether what is read is compiled, and what compiled and plain Python make of f and of its vjp."""
    dynamics = adjode.Dynamics(f)
    (t, u, theta), *_ = positive(program(f, n, m))
    lam, results = np.cos(np.arange(n)), []
    for f, vjp in ((dynamics.f, dynamics.vjp), (dynamics.f.call_plain, dynamics.vjp.call_plain)):
        du, u_bar, theta_bar = np.full(n, np.nan), np.full(n, np.nan), np.full(m, np.nan)
        f(t, u, theta, du)
        vjp(t, u, theta, lam, u_bar, theta_bar)
        results.append(np.concatenate([du, u_bar, theta_bar]))
    return dynamics.f.is_read, *results


@pytest.mark.jitted
@pytest.mark.slow
@pytest.mark.parametrize(("f", "n", "m"), CASES[::5])  # each takes a second or two
def test_many_compile(f, n, m):
    _, got, expected = compiled(f, n, m)
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.jitted
def test_gradient_of_what_numba_does_not_know():
    dynamics = adjode.Dynamics(natural.dict_const)
    u0, theta = np.array([0.7, 0.4]), np.array([0.5, 0.8, 0.1])

    def total(theta):
        return adjode.solve(dynamics, u0, theta, (0.0, 1.0), rtol=1e-10, atol=1e-10)

    bars = total(theta).pullback(np.ones(2))
    h = np.array([1e-5, 0.0, 0.0])
    assert dynamics.f.is_read
    assert bars.theta[0] == pytest.approx((total(theta + h).u[-1] - total(theta - h).u[-1]).sum() / 2e-5, rel=1e-6)


@pytest.mark.jitted
def test_what_neither_compiles_is_shown_as_the_user_wrote_it():
    def gamma(x):
        return special.gamma(x)

    def f(t, u, theta, du):
        du[0] = theta[0] * gamma(u[0])

    adjode.derivative(gamma, vjp=lambda x, y_bar: special.gamma(x) * special.digamma(x) * y_bar)
    with pytest.raises(TypeError, match=r"test_natural.py, line \d+: `du\[0\] = theta\[0\] \* gamma"):
        adjode.Dynamics(f)


@pytest.mark.jitted
def test_what_is_misread_is_told(monkeypatch):
    def wrong(x, count):
        return 1.001 * x[:count]

    constants = {"k": 2.0}

    def f(t, u, theta, du):
        du[:] = np.tile(u, 1) + constants["k"]

    monkeypatch.setitem(known.FUNCTIONS, np.tile, calls.spelled_as(wrong))
    dynamics = adjode.Dynamics(f)
    with pytest.raises(ValueError, match=r"f is not read as Python runs it: du\[0\] is 3, but was read as 3.001"):
        adjode.solve(dynamics, [1.0], [], (0.0, 1.0))


def test_constants_are_what_they_are_when_dynamics_are_made():
    constants, sources = {"k": [2.0, 3.0]}, []

    def f(t, u, theta, du):
        du[:] = constants["k"][1] * u

    for k in (3.0, 4.0):
        constants["k"][1] = k
        sources.append(adjode.Dynamics(f).vjp_source)
    assert "3.0" in sources[0]
    assert "4.0" in sources[1]
