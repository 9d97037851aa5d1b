"""Slips of newcomers: each is refused with one sentence that says what was given, and what to do."""

import numpy as np
import pytest

from adjode import Dynamics, Event, Fit, solve, value_and_gradient
from adjode.losses import FinalState, LeastSquares, Series
from tests.problems.systems import LV_THETA, LV_U0, lotka_volterra

SPAN, TIMES = (0.0, 1.0), [0.5, 1.0]


def value(loss, dynamics=None, **options):
    return value_and_gradient(lotka_volterra() if dynamics is None else dynamics, loss, SPAN, **options)(LV_U0, LV_THETA)


def with_event(guard, reset=None):
    return solve(lotka_volterra(), LV_U0, LV_THETA, SPAN, events=Event(guard, reset))


def first(t, u, theta):
    return u[0] - 1.1


def swapped_reset(t, u, u_new, theta):
    u_new[0] = 0.5


def cotangent_alone(k, t, u, u_bar):
    u_bar[:] = u


def other_order(u, t, theta):
    return -theta[0] * u


def noisy(t, u, theta, du):
    du[:] = -theta[0] * u + np.random.normal()  # noqa: NPY002


def jac(t, u, theta):
    return np.ones(4)


SLIPS = {
    "a guard that compares": (
        lambda: with_event(lambda t, u, theta: u[0] > 1.5),
        ValueError,
        "u\\[0\\] - 1.0 instead of u",
    ),
    "theta overwritten": (lambda: with_event(first, swapped_reset), ValueError, "changes its input theta\\[0\\]"),
    "a short state": (lambda: with_event(first, lambda t, u, theta: u[:1]), ValueError, "shape \\(1,\\), but u_new must have"),
    "a flat Jacobian": (
        lambda: solve(Dynamics(lotka_volterra().f.given, jac=jac), LV_U0, LV_THETA, SPAN, method="Radau"),
        ValueError,
        "jac returns something of shape \\(4,\\), but J must have the shape \\(2, 2\\)",
    ),
    "a long slope": (
        lambda: solve(Dynamics(lambda t, u, theta: np.append(u, 0.0)), LV_U0, LV_THETA, SPAN),
        ValueError,
        "f returns something of shape \\(3,\\), but du must have the shape \\(2,\\)",
    ),
    "one number observed": (
        lambda: value(LeastSquares(TIMES, [[1.0], [1.0]], observe=lambda t, u, theta: u[0])),
        TypeError,
        "observe\\(t, u, theta\\) must return an array",
    ),
    "an array for a value": (lambda: value(Series(TIMES, value=lambda k, t, u, theta: u)), TypeError, "value must return a number"),
    "an array for a cost": (
        lambda: value(FinalState([1.0, 0.0]), running_cost=lambda t, u, theta: u),
        TypeError,
        "running_cost must return a number",
    ),
    "arguments in another order": (lambda: Dynamics(other_order), TypeError, "with these arguments it returns a number"),
    "no value": (lambda: value(Series(TIMES, cotangent_alone)), TypeError, "it returns None"),
    "a function for weights": (lambda: FinalState(lambda u: u[0]), TypeError, "FinalState\\(value=...\\)"),
    "a class for a loss": (lambda: value(LeastSquares), TypeError, "as LeastSquares\\(...\\)"),
    "noise": (lambda: Dynamics(noisy), TypeError, "put noise into data or into theta"),
    "bounds the wrong way": (
        lambda: Fit(lotka_volterra(), FinalState([1.0, 0.0]), SPAN, u0=LV_U0, theta=LV_THETA, bounds={"theta": (5.0, 0.1)}),
        ValueError,
        "the bounds of theta\\[0\\] must be \\(low, high\\)",
    ),
    "no deviation": (lambda: LeastSquares([1.0], [[1.0]], sigma=np.nan), ValueError, "sigma must be positive, but nan"),
}


@pytest.mark.jitted
@pytest.mark.parametrize(("call", "kind", "says"), SLIPS.values(), ids=SLIPS)
def test_refused(call, kind, says):
    with pytest.raises(kind, match=says):
        call()


def test_what_is_printed_has_no_derivative():
    def f(t, u, theta, du):
        print(t)
        du[:] = -theta[0] * u

    assert "print" not in Dynamics(f).vjp_source
