"""What a callback may be written with, each in a small one: all derived products are right, plain and compiled."""

import inspect
import textwrap

import numba
import numpy as np
import pytest

from adjode import derive
from tests.derivation.checking import verdict
from tests.derivation.programs import Program

# --- arrays: whose memory it is, and which entries are set ---------------------------------------------------------------------


def entry_of_zeros(t, u, theta):
    du = np.zeros(4, dtype=np.float64)
    du[1] = u[0] * theta[1]
    return du


def entries_in_another_order(t, u, theta, du):
    """What `ravel` makes of a transposed matrix is a copy."""
    X = u.reshape(2, 2).T
    Y = X.copy()
    Y[0, 1] = theta[0]
    du[:] = Y.T.ravel() * X.ravel() + X.flatten()


def integers_that_take_floats(t, u, theta, du):
    c = np.zeros_like(np.array([1, 2, 3]))
    c[0] = 2.7
    d = np.zeros(2, dtype=np.int64)
    d[1] = len(u)
    du[:] = c[0] * u + d[1] * theta


def arrays_of_branches(t, u, theta, du):
    if u[0] > 0.0:
        v = u * theta
    else:
        v = theta - u
    du[:] = v * v


# --- lists ------------------------------------------------------------------------------------------------------------------------


def repeated_list(t, u, theta, du):
    r = [u[0], theta[1]] * 2
    r += 2 * (u[2],)
    for i in range(4):
        du[i] = sum(r) * u[i] + len(r)


FUNCTIONS = [entry_of_zeros, entries_in_another_order, integers_that_take_floats, arrays_of_branches, repeated_list]


def program(f):
    """Its text, as that of a random program."""
    text = textwrap.dedent(inspect.getsource(f)).replace(f"def {f.__name__}(", "def f(", 1)
    form = "in place" if len(inspect.signature(f).parameters) == 4 else "returning"
    return Program(1, text, form, 4, 4, {k: v for k, v in f.__globals__.items() if k not in ("np", "math")})


@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
def test_products_are_right(f):
    assert verdict(program(f)) == "right"


@pytest.mark.jitted
@pytest.mark.slow
@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
def test_compiled_vjp_is_the_plain_one(f):
    vjp, rng = derive(f).vjp, np.random.default_rng(3)
    u, theta, lam = rng.uniform(0.2, 1.2, (3, 4))
    plain, compiled = np.full(8, np.nan), np.full(8, np.nan)
    vjp(0.4, u, theta, lam, plain[:4], plain[4:])
    numba.njit(error_model="numpy")(vjp)(0.4, u, theta, lam, compiled[:4], compiled[4:])
    np.testing.assert_allclose(compiled, plain, rtol=1e-12, atol=1e-12)
