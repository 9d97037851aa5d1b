"""The zeros of the Jacobian, and its text."""

import math
import time

import numpy as np
import pytest

from adjode import Dynamics
from adjode.derivation import derive, sparsity
from adjode.jacobian import structure_of

SECOND_DIFFERENCES = np.diag(np.full(5, -2.0)) + np.diag(np.ones(4), 1) + np.diag(np.ones(4), -1)
NEIGHBOURS = np.array([3, 0, 4, 1, 2])


def there(f, n, m=3):
    pattern = np.zeros((n, n), dtype=int)
    pattern[derive(f).sparsity(n, m)] = 1
    return pattern


def banded(n):
    return np.eye(n, dtype=int) + np.eye(n, k=1, dtype=int) + np.eye(n, k=-1, dtype=int)


def test_loop_over_neighbours():
    def f(t, u, theta, du):
        for i in range(u.size):
            left = u[i - 1] if i > 0 else 0.0
            right = u[i + 1] if i < u.size - 1 else theta[1]
            du[i] = theta[0] * (left - 2.0 * u[i] + right)

    np.testing.assert_array_equal(there(f, 7), banded(7))


def test_slices():
    def f(t, u, theta):
        du = -2.0 * u
        du[1:] += u[:-1]
        du[:-1] += theta[0] * u[1:]
        return du

    np.testing.assert_array_equal(there(f, 7), banded(7))


def test_rolled_differences_and_joined():
    def rolled(t, u, theta, du):
        du[:] = np.roll(u, 1) - 2.0 * u + theta[0] * np.roll(u, -1)

    def joined(t, u, theta, du):
        du[:] = np.diff(np.concatenate((theta[:1], u)))

    periodic = banded(7)
    periodic[0, -1] = periodic[-1, 0] = 1
    np.testing.assert_array_equal(there(rolled, 7), periodic)
    np.testing.assert_array_equal(there(joined, 7), np.eye(7, dtype=int) + np.eye(7, k=-1, dtype=int))


def test_zeros_of_a_table_count():
    def f(t, u, theta):
        return SECOND_DIFFERENCES @ u

    def entries(t, u, theta, du):
        for i in range(5):
            du[i] = 0.0
            for j in range(5):
                du[i] += SECOND_DIFFERENCES[i, j] * np.tanh(u[j])

    np.testing.assert_array_equal(there(f, 5), banded(5))
    np.testing.assert_array_equal(there(entries, 5), banded(5))


def test_gathered_entries():
    def f(t, u, theta, du):
        for i in range(5):
            du[i] = u[NEIGHBOURS[i]]

    np.testing.assert_array_equal(there(f, 5), np.eye(5, dtype=int)[NEIGHBOURS])


def test_both_sides_of_a_branch():
    def f(t, u, theta, du):
        du[0] = 0.0
        if u[2] > 0.0:
            du[0] = u[0]
            k = 0
        else:
            du[0] = u[1]
            k = 1
        du[1] = u[k]
        du[2] = 1.0 if u[0] > 1.0 else theta[0]

    np.testing.assert_array_equal(there(f, 3), [[1, 1, 0], [1, 1, 1], [0, 0, 0]])


def test_what_is_carried():
    def f(t, u, theta, du):
        total = 0.0
        for i in range(u.size):
            total += u[i]
            du[i] = math.floor(u[0]) * total

    np.testing.assert_array_equal(there(f, 4), np.tril(np.ones((4, 4), dtype=int)))


def test_rounds_that_depend_on_numbers_are_refused():
    def f(t, u, theta, du):
        du[:] = 0.0
        for i in range(int(u[0])):
            du[i] = u[i]

    with pytest.raises(TypeError, match="how often a loop runs depends on numbers"):
        derive(f).sparsity(3, 0)


def test_thousands_of_states_take_about_a_second():
    def f(t, u, theta, du):
        for i in range(50):
            for j in range(50):
                k = 50 * i + j
                flux = -4.0 * u[k] + u[50 * ((i + 1) % 50) + j] + u[50 * ((i - 1) % 50) + j]
                flux += u[50 * i + (j + 1) % 50] + u[50 * i + (j - 1) % 50]
                du[k] = theta[0] * flux + theta[1] * u[k] ** 2

    before = time.process_time()
    rows, columns = derive(f).sparsity(2500, 2)
    assert time.process_time() - before < 5.0
    assert rows.size == columns.size == 5 * 2500


def test_text_of_a_jacobian():
    def f(t, u, theta, du):
        k1, k2, k3 = theta
        slow, fast, back = k1 * u[0], k2 * u[1] ** 2, k3 * u[1] * u[2]
        du[0] = back - slow
        du[1] = slow - back - fast
        du[2] = fast

    derived = derive(f)
    u, theta, J = np.array([0.9, 0.2, 0.3]), np.array([0.04, 3.0, 1.5]), np.full((3, 3), np.nan)
    derived.jac(0.0, u, theta, J)
    expected = np.array(
        [
            [-theta[0], theta[2] * u[2], theta[2] * u[1]],
            [theta[0], -theta[2] * u[2] - 2.0 * theta[1] * u[1], -theta[2] * u[1]],
            [0.0, 2.0 * theta[1] * u[1], 0.0],
        ]
    )
    np.testing.assert_allclose(J, expected, rtol=1e-14)
    assert derived.jac_source.startswith("def jac(t, u, theta, J):\n    J[:] = 0.0\n")


def test_loops_have_no_text_of_a_jacobian():
    def f(t, u, theta, du):
        for i in range(u.size):
            du[i] = u[i]

    assert derive(f).jac is None


def diffusion(t, u, theta, du):
    for i in range(u.size):
        left = u[i - 1] if i > 0 else 0.0
        right = u[i + 1] if i < u.size - 1 else 0.0
        du[i] = theta[0] * (left - 2.0 * u[i] + right)


def diffusion_vjp(t, u, theta, lam, u_bar, theta_bar):
    theta_bar[:] = 0.0
    u_bar[:] = 0.0


def test_zeros_are_found_for_implicit_methods():
    t, u, theta = 0.0, np.ones(100), np.ones(1)
    found = structure_of(Dynamics(diffusion), "auto", t, u, theta)
    assert found.kind == "banded"
    np.testing.assert_array_equal(found.pattern.toarray(), banded(100))
    assert structure_of(Dynamics(diffusion, diffusion_vjp), "auto", t, u, theta).kind == "dense"  # nothing is derived then


def test_too_many_rounds_are_refused(monkeypatch):
    monkeypatch.setattr(sparsity, "_ROUNDS", 50)
    with pytest.raises(TypeError, match="more than 50 rounds"):
        derive(diffusion).sparsity(100, 1)
    assert structure_of(Dynamics(diffusion), "auto", 0.0, np.ones(100), np.ones(1)).kind == "dense"
