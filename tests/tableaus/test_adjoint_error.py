"""The error weights of transposed steps, on a step of a problem that varies with time, and on one that does not."""

import math

import numpy as np
import pytest

from adjode.tableaus import METHODS, tableau

NAMES = [name for name in METHODS if tableau(name).adjoint_error.weights.any() and tableau(name).partner is None]
IMPLICIT = ("Radau", "Kvaerno5", "TRBDF2")


def jacobian(t):
    return np.array([[-1.0, 2.0 + np.sin(3.0 * t)], [np.cos(t) - 1.5, 0.5 * t]])


def transposed_step(method, h, lam, J, x=None):
    """The estimate of one step back from h for lam; with `x`, for a cotangent of the state at x h in place of it."""
    chosen = tableau(method)
    s, A, c = chosen.stages, chosen.A, chosen.c
    rows = s + 1 if x is None else len(A)
    K_bar = np.zeros((len(A), lam.size))
    if x is None:
        K_bar[:s] = h * np.outer(A[s, :s], lam)
    else:
        K_bar[:] = h * np.outer(chosen.P @ x ** np.arange(1, chosen.P.shape[1] + 1), lam)
    estimate = np.zeros_like(lam)
    for i in range(rows - 1, 0, -1):
        if i == s:
            continue  # its part comes with the step behind
        stage = J(c[i] * h).T @ K_bar[i]
        estimate += chosen.adjoint_error.weights[i] * stage
        K_bar[:i] += h * np.outer(A[i, :i], stage)
    return np.abs(estimate).max()


def order_of(values, h):
    return np.polyfit(np.log(h), np.log(values), 1)[0]


@pytest.mark.parametrize("method", NAMES)
def test_order_where_the_jacobian_varies(method):
    h, lam = np.array([0.1, 0.05, 0.025]), np.array([1.0, -0.7])
    found = tableau(method).adjoint_error
    assert order_of([transposed_step(method, step, lam, jacobian) for step in h], h) > found.order - 0.4
    # states inside a step, to which weights of the dense output lead, are seen to one order less
    inside = [transposed_step(method, step, lam, jacobian, x=0.37) for step in h]
    assert order_of(inside, h) > max(found.order - 1, 2) - 0.4


@pytest.mark.parametrize("method", NAMES)
def test_the_error_of_a_step_where_nothing_varies(method):
    chosen = tableau(method)
    found, s = chosen.adjoint_error, chosen.stages
    for z in (0.1, 0.5, 1.0, 2.0):
        estimate = transposed_step(method, 1.0, np.ones(1), lambda t, z=z: np.array([[-z]]))
        assert 0.3 < estimate / z**found.order < 7.0  # what decays within the step is never overlooked
    z = -((1e-8 / constant(chosen)) ** (1.0 / (chosen.order + 1)))
    step = np.linalg.solve(np.eye(s) - z * chosen.A[:s, :s], np.ones(s))
    true = abs(1.0 + z * chosen.A[s, :s] @ step - math.exp(z))
    assert found.factor * abs(z) ** (found.order * found.halves / 2) == pytest.approx(1e-8, rel=1e-6)
    assert true / 5.0 < 1e-8 < 5.0 * true


def constant(chosen):
    s, p = chosen.stages, chosen.order
    return abs(chosen.A[s, :s] @ np.linalg.matrix_power(chosen.A[:s, :s], p) @ np.ones(s) - 1.0 / math.factorial(p + 1))


def test_methods_without():
    for name in ("Euler", "Midpoint", "Rodas5P"):
        found = tableau(name).adjoint_error
        assert found.halves == 0 and not found.weights.any() and found.weights.size == len(tableau(name).A)


@pytest.mark.parametrize("method", IMPLICIT)
def test_the_sum_over_implicit_stages(method):
    """For constant J it is of the order that is said, and a power of its ratio the error of a step, within a factor of ten."""
    chosen = tableau(method)
    found, A, p = chosen.adjoint_error, chosen.A, chosen.order
    gamma = 1.0 / chosen.decoupled[0][0]
    for z in (-0.01, -0.1, -1.0, -3.0, -10.0, -30.0):
        w = np.linalg.solve(np.eye(len(A)) - z * A.T, A[-1])
        ratio = abs(z * (found.step[0] @ w) * (z / (1.0 - gamma * z)) ** found.raised / (1.0 - gamma * z))
        if z == -0.01:
            assert ratio == pytest.approx(0.01**found.order, rel=0.1)
        R = 1.0 + z * A[-1] @ np.linalg.solve(np.eye(len(A)) - z * A, np.ones(len(A)))
        by_lam = abs(found.by_lam * (z / (1.0 - gamma * z)) ** (p + 1) / (1.0 - gamma * z))
        for estimate in (found.factor * ratio ** (found.halves / 2), by_lam):
            assert z > -0.1 or 0.1 < estimate / abs(R - math.exp(z)) < 10.0


@pytest.mark.parametrize("method", IMPLICIT)
def test_the_error_of_the_dense_output_of_implicit_steps(method):
    chosen = tableau(method)
    A, q = chosen.A, chosen.dense_order
    for x in (0.2, 0.7):
        weights = chosen.P @ x ** np.arange(1, chosen.P.shape[1] + 1)
        z = -1e-2
        value = 1.0 + z * weights @ np.linalg.solve(np.eye(len(A)) - z * A, np.ones(len(A)))
        first_term = (weights @ chosen.adjoint_error.step[1] - x ** (q + 1) / math.factorial(q + 1)) * z ** (q + 1)
        assert value - math.exp(x * z) == pytest.approx(first_term, rel=0.1)
