"""What a callback may be written with, each in a small one: all derived products are right, plain and compiled."""

import bisect
import inspect
import math
import textwrap
from bisect import bisect_left
from collections import namedtuple

import numba
import numpy as np
import pytest

from adjode import derive
from tests.derivation.checking import verdict
from tests.derivation.programs import Program

# --- arrays: whose memory it is, and which entries are set --------------------------------------------------------------------


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


# --- lists --------------------------------------------------------------------------------------------------------------------


def repeated_list(t, u, theta, du):
    r = [u[0], theta[1]] * 2
    r += 2 * (u[2],)
    for i in range(4):
        du[i] = sum(r) * u[i] + len(r)


# --- functions of NumPy -------------------------------------------------------------------------------------------------------


def of_all_entries(t, u, theta, du):
    e = np.exp(u - np.max(u))
    du[:] = e / e.sum() + theta * u.prod() + u.max() * np.std(u) - np.min(theta) + np.var(u)


def lengths(t, u, theta):
    return -theta * u / (np.linalg.norm(u) ** 3 + np.linalg.norm(theta.reshape(2, 2)))


def places(t, u, theta, du):
    k = np.argmax(u)
    s = np.searchsorted(np.array([0.0, 0.3, 0.6]), t)
    du[:] = u[k] * theta + u[u.argmin()] * theta[s]


EDGES = [0.2, 0.3, 0.8]


def searched(t, u, theta, du):
    edges = np.array(EDGES)
    right = edges.searchsorted(u[0], side="right") + np.digitize(t, edges, right=True)
    du[:] = u * theta[bisect.bisect(EDGES, t)] + u[bisect_left(edges, 0.3)] * theta[right % 4]


def steps(t, u, theta, du):
    du[:] = np.heaviside(u - 0.6, theta) * theta
    du[0] += np.heaviside(t - 0.1, theta[1]) + np.heaviside(0.0, theta[2])


def counted_in_turn(t, u, theta, du):
    k, s = 0, u[0]
    while k < 3 and s * EDGES[k] < 4.0:
        j = 0
        while j <= k and EDGES[j] < t + 0.1:
            s = s * theta[j] + u[1] * s
            j += 1
        k += 1
    du[:] = s * theta + k


def along(t, u, theta):
    return np.cumsum(u) * theta + np.cumprod(u) + np.flip(theta)


def clipped(t, u, theta, du):
    v = np.clip(u, 0.0, 0.8) * theta
    for i in range(4):
        du[i] = v[i] + np.clip(u[i], a_min=None, a_max=theta[i])


def made(t, u, theta):
    A = theta[0] * np.eye(4) + np.diag(u)
    x = np.linspace(0.0, 1.0, 4) + np.arange(4)
    return A @ x + np.diag(np.outer(u, theta)) * np.trace(A)


def joined(t, u, theta):
    a, b = np.split(u, 2)
    M = np.vstack((a, theta[:2] * b))
    N = np.column_stack((a, b))
    return np.hstack((M.sum(axis=0), N.mean(axis=1))) + np.append(u[:3], theta[0])


def crossed(t, u, theta):
    return np.append(np.cross(u[:3], theta[1:]), np.inner(u, theta))


def solved(t, u, theta, du):
    A = 3.0 * np.eye(2) + np.outer(u[:2], theta[:2])
    x = np.linalg.solve(A, u[2:])
    X = np.linalg.solve(A.T, theta.reshape(2, 2))
    du[:2] = x
    du[2:] = X[:, 1] * x


def solved_in_a_loop(t, u, theta, du):
    x = u.copy()
    for _ in range(3):
        A = np.array([[2.0 + x[0] ** 2, theta[0]], [0.1, 3.0 + x[1] ** 2]])
        if u[0] > -0.5:
            x[:2] = np.linalg.solve(A, x[2:] + x[:2])
    du[:] = x


def with_results_given(t, u, theta, du):
    v = np.empty(4)
    np.multiply(u, theta, v)
    np.add(v, np.logaddexp(u, theta), out=v)
    np.sin(v, out=du)


def truths(t, u, theta, du):
    m = (u > 0.0) & ~(theta < 0.2) | (u < -0.5)
    du[:] = np.where(m, u * theta, u) + 2.0 * np.any(u > 0.5) + np.logical_not(m) * theta
    for i in range(4):
        if i in (0, 3) and (i & 1) == 0:
            du[i] += theta[i] * (i | 2)


# --- entries by arrays of indices, rows ---------------------------------------------------------------------------------------

TO = np.array([1, 2, 3, 0])


def by_indices(t, u, theta):
    v = np.zeros(4)
    v[TO] = u * theta
    v[TO[:2]] += 1.5 * u[TO[2:]]
    v[v > 0.4] = theta[0]
    return v * (u[TO] - u)


def rows(t, u, theta, du):
    M = np.outer(u, theta)
    for i, row in enumerate(M, 1):
        du[i - 1] = row @ u + M[TO][i - 1, 0]


FACTORS, PAIRS = (1.0, 2.0, 0.5, 0.25), ((0, 2), (1, 3))


def by_constant_tuples(t, u, theta, du):
    for i in range(2):
        a, b = PAIRS[i]
        du[a] = theta[b] * u[b] * FACTORS[a]
        du[b] = -u[a] * FACTORS[i + 1]


# --- functions and named tuples -----------------------------------------------------------------------------------------------

Rates = namedtuple("Rates", "growth loss")
FIXED = Rates(2.0, 0.5)


def of_named_tuples(t, u, theta, du):
    rates = Rates(theta[0], loss=theta[1]) if u[0] > 0.0 else Rates(theta[2], FIXED.loss)
    du[:] = rates.growth * u - rates.loss * FIXED.growth


def with_functions_inside(t, u, theta, du):
    c = theta[0]

    def rate(x, k=2.0):
        return c * x / (k + x * x)

    half = lambda x: 0.5 * x  # noqa: E731
    for i in range(4):
        du[i] = rate(u[i], 1.0 + theta[i] ** 2)
    c = half(c)
    du[0] += rate(*(u[0],)) * math.gamma(3.0)


# --- loops that are left, and those that end by numbers -----------------------------------------------------------------------


def left(t, u, theta, du):
    du[:] = u
    for i in range(4):
        s = 1.0
        for j in range(4):
            if u[j] > 0.9:
                break
            if theta[j] < -0.9:
                continue
            s *= 1.0 + u[j] * theta[i]
        else:
            s += theta[0]
        du[i] = s


def square_root(a):
    x = 1.0
    for _ in range(60):
        change = 0.5 * (a / x - x)
        x += change
        if abs(change) < 1e-14:
            return x
    return x


def first_above(x, bound):
    for i in range(x.size):
        for k in range(2):
            if x[i] + k > bound:
                return i
    return 0


def returned_from(t, u, theta, du):
    k = first_above(u, 0.1)
    for i in range(4):
        du[i] = square_root(1.0 + theta[i] ** 2) * u[k]


def series(t, u, theta, du):
    for i in range(4):
        term, s, k = 1.0, 1.0, 1
        while abs(term) > 1e-17:
            term *= u[i] * theta[i] / k
            s += term
            k += 1
        du[i] = s


def until(t, u, theta, du):
    x, k = u.copy(), 0
    while True:
        y = 0.3 * np.cos(x * theta)
        away = np.max(np.abs(y - x))
        x = y
        if away < 1e-14 or k > 200:
            break
        k += 1
    du[:] = x


def overwritten_in_a_while(t, u, theta, du):
    v, k = u.copy(), 0
    while k < 3:
        v *= theta
        v += v * v
        for i in range(3):
            v[i + 1] *= v[i]
        k += 1
    du[:] = v


FUNCTIONS = [
    entry_of_zeros,
    entries_in_another_order,
    integers_that_take_floats,
    arrays_of_branches,
    repeated_list,
    of_all_entries,
    lengths,
    places,
    searched,
    steps,
    counted_in_turn,
    along,
    clipped,
    made,
    joined,
    crossed,
    solved,
    solved_in_a_loop,
    with_results_given,
    truths,
    by_indices,
    rows,
    by_constant_tuples,
    of_named_tuples,
    with_functions_inside,
    left,
    returned_from,
    series,
    until,
    overwritten_in_a_while,
]


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
