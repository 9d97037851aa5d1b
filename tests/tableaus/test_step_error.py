"""What an accepted step is off by, from its estimate."""

import numpy as np
import pytest

from adjode.tableaus import tableau


def f(u):
    return np.array([1.5 * u[0] - u[0] * u[1], u[0] * u[1] - 3.0 * u[1]])


def step(method, u, h):
    """The state after a step, and the error estimates."""
    K = np.zeros((len(method.A), 2))
    for i in range(method.stages):
        K[i] = f(u + h * method.A[i] @ K)
    end = u + h * method.A[method.stages] @ K
    K[method.stages] = f(end)
    return end, h * method.E @ K


def blended(sizes):
    """The error norm of all estimates, as the steppers have it."""
    return sizes[0] if len(sizes) == 1 else sizes[0] ** 2 / np.hypot(sizes[0], 0.1 * sizes[1])


def size(x, u):
    return np.sqrt(np.mean((x / u) ** 2))


@pytest.mark.parametrize("h", [0.2, 0.1])
@pytest.mark.parametrize("name", ["BS3", "Tsit5", "RK45", "DOP853", "Vern7"])
def test_error_follows_from_the_estimate(name, h):
    """In the mean over a cycle of Lotka-Volterra, within a factor of ten: `adjode.loops.errors` takes four times this."""
    method, fine, u, ratios = tableau(name), tableau("Vern9"), np.array([1.0, 1.0]), []
    power, factor = method.step_error
    for _ in range(int(4.0 / h)):
        exact = u
        for _ in range(20):
            exact, _ = step(fine, exact, h / 20)
        end, estimates = step(method, u, h)
        error = size(end - exact, u)
        if error > 1e-12:
            ratios.append(factor * blended([size(e, u) for e in estimates]) ** power / error)
        u = exact
    assert ratios and 0.1 < np.exp(np.mean(np.log(ratios))) < 10.0
