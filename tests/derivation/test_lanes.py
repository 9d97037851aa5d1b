"""Products with many directions at once are those with each, for whatever has this form; all else has none."""

import numpy as np
import pytest

from adjode.compile.kinds import LANES
from adjode.derivation import derive
from benchmarks.chemistry import hires_f, pollu_f
from tests.problems.programs import PROGRAMS


def dense(t, u, theta, du):
    for i in range(u.size):
        s = t
        for j in range(u.size):
            s += theta[(7 * i + 3 * j) % theta.size] * u[j]
        du[i] = np.sin(s) - theta[0] * u[i] / u[0]


def by_turns(t, u, theta, du):
    """Variables that are written over, and a condition that what comes before and behind it sees."""
    x, total = u[0], 0.0
    for i in range(u.size):
        x = x * theta[i % theta.size] + u[i]
        if x > 1.0:
            total += x
            x = -x / theta[0]
        else:
            total -= u[i] * u[i]
        du[i] = total * x
    du[0] += np.exp(-total)


def of_no_parameters(t, u, theta, du):
    for i in range(u.size):
        du[i] = -u[i] * u[i]


def whole_arrays(t, u, theta, du):
    du[:] = theta[0] * u + u.sum()


def returned(t, u, theta):
    return -theta[0] * u


@pytest.mark.parametrize(
    ("f", "n", "m"), [(pollu_f, 20, 25), (hires_f, 8, 12), (dense, 7, 5), (by_turns, 6, 4), (of_no_parameters, 5, 0)]
)
def test_all_directions_are_what_each_is_alone(f, n, m):
    products_agree(derive(f), n, m, f.__name__)


@pytest.mark.parametrize("f", [whole_arrays, returned])
def test_whole_arrays_have_no_such_form(f):
    assert derive(f).jvps is None


def products_agree(found, n, m, name):
    rng = np.random.default_rng(0)
    u, theta, V, W = rng.uniform(0.5, 1.5, n), rng.uniform(0.5, 1.5, m), rng.normal(size=(n, LANES)), rng.normal(size=(m, LANES))
    for many in (1, 5, LANES):
        together, alone = np.full(n * LANES, np.nan), np.zeros(n)
        found.jvps(0.3, u, theta, V.ravel(), W.ravel(), np.zeros(many), together)
        for d in range(many):
            found.jvp(0.3, u, theta, V[:, d].copy(), W[:, d].copy(), alone)
            atol = 1e-13 * np.abs(alone).max()
            np.testing.assert_allclose(together.reshape(n, LANES)[:, d], alone, rtol=1e-13, atol=atol, err_msg=name)
        assert np.isnan(together.reshape(n, LANES)[:, many:]).all()
        if found.jvps_u is None:  # what is left without theta may have another form
            continue
        found.jvps_u(0.3, u, theta, V.ravel(), np.full(m * LANES, np.nan), np.zeros(many), together)
        for d in range(many):
            found.jvp(0.3, u, theta, V[:, d].copy(), np.zeros(m), alone)
            atol = 1e-13 * np.abs(alone).max()
            np.testing.assert_allclose(together.reshape(n, LANES)[:, d], alone, rtol=1e-13, atol=atol, err_msg=name)


def test_programs_have_the_same_products_or_none():
    found = {name: derive(f) for name, f in PROGRAMS.items()}
    having = {name: one for name, one in found.items() if one.jvps is not None}
    assert len(having) > len(found) // 4
    for name, one in having.items():
        products_agree(one, 4, 4, name)
