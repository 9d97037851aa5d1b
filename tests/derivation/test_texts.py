"""The derived texts read as a person would write them, and are functions like others."""

import inspect
import math
import subprocess
import sys

import numpy as np
import pytest

import adjode
from adjode import derivative, derive
from adjode.model.field_access import with_entries
from adjode.model.fields import Fields
from benchmarks.chemistry import hires_f, hires_vjp
from benchmarks.problems import lorenz_f, lv_f
from tests import ROOT

LV = """\
def vjp(t, u, theta, lam, u_bar, theta_bar):
    v = lam[1] * u[1]
    u_bar[0] = lam[0] * (theta[0] - u[1] * theta[1]) + v * theta[3]
    u_bar[1] = u[0] * (lam[1] * theta[3] - lam[0] * theta[1]) - lam[1] * theta[2]
    theta_bar[0] = lam[0] * u[0]
    theta_bar[1] = -lam[0] * u[1] * u[0]
    theta_bar[2] = -v
    theta_bar[3] = v * u[0]
    theta_bar[4:] = 0.0
"""


def test_lotka_volterra():
    assert derive(lv_f).vjp_source == LV


def test_no_longer_than_by_hand():
    written = len(inspect.getsource(hires_vjp).splitlines())
    assert len(derive(hires_f).vjp_source.splitlines()) <= written + 2  # the parameters that f does not read


def test_source_can_be_inspected():
    derived = derive(lorenz_f)
    assert inspect.getsource(derived.vjp) == derived.vjp_source
    assert derived.vjp_u_source in str(derived)


def test_the_same_text_in_each_process():
    code = "from adjode import derive; from benchmarks.problems import network_f; print(derive(network_f).vjp_source, end='')"
    texts = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout for _ in range(2)}
    assert len(texts) == 1
    assert texts.pop().startswith("def vjp(")


def derived_by_command(*given):
    return subprocess.run([sys.executable, "-m", "adjode.derive", *given], capture_output=True, text=True, cwd=ROOT)


def test_command_prints():
    run = derived_by_command("benchmarks.problems:lv_f")
    assert run.stdout.startswith(LV)
    assert run.stderr == ""


def test_command_prints_what_is_asked_for():
    run = derived_by_command("benchmarks.problems:lv_f", "--what", "jac")
    assert run.stdout.startswith("def jac(t, u, theta, J):")
    assert "has no jac of its own" in derived_by_command("benchmarks.problems:spiral_f", "--what", "jac").stderr


def roots(t, u, theta, du):
    du[0] = np.sqrt(u[0])
    du[1] = math.sqrt(u[0] * u[0] + u[1] * u[1])
    du[2] = u[2] ** theta[0] / (theta[1] ** theta[0] + u[2] ** theta[0])
    du[3] = abs(u[3]) + max(u[3], 0.0)


def test_nasty_points():
    u, theta = np.zeros(4), np.array([2.0, 0.5])
    for k, expected in enumerate(([np.inf, 0.0, 0.0, 0.0], [0.0] * 4, [0.0] * 4, None)):
        u_bar, theta_bar = np.empty(4), np.empty(2)
        with np.errstate(divide="ignore"):
            derive(roots).vjp(0.0, u, theta, np.eye(4)[k], u_bar, theta_bar)
        np.testing.assert_array_equal(theta_bar, 0.0)
        if expected is not None:
            np.testing.assert_array_equal(u_bar, expected)
    assert -1.0 <= u_bar[3] <= 2.0


def softplus(x, k):
    return math.log(1.0 + math.exp(k * x)) / k


def softplus_vjp(x, k, y_bar):
    s = 1.0 / (1.0 + math.exp(-k * x))
    return y_bar * s, y_bar * (x * s - softplus(x, k)) / k


def taught_f(t, u, theta, du):
    du[0] = softplus(u[0] * u[1], theta[0])
    du[1] = softplus(u[1], 2.0)


def test_a_function_can_be_taught():
    x, lam = (np.array([0.3, 0.7]), np.array([1.3])), np.array([0.4, -0.9])
    plain, taught = np.empty(3), np.empty(3)
    derive(taught_f).vjp(0.0, *x, lam, plain[:2], plain[2:])
    assert "softplus_vjp" not in derive(taught_f).vjp_source
    derivative(softplus, vjp=softplus_vjp)
    try:
        derived = derive(taught_f)
        derived.vjp(0.0, *x, lam, taught[:2], taught[2:])
    finally:
        adjode.derivation.library.TAUGHT.clear()
    assert "softplus_vjp" in derived.vjp_source
    np.testing.assert_allclose(taught, plain, rtol=1e-13)


def test_fields_of_matrices_are_read_by_as_matrix():
    def plain(t, u, theta, du):
        du[:] = theta.W @ u

    def of_that_name(t, u, theta, du):
        as_matrix = u[0] * u[1]
        du[:] = theta.W @ u * as_matrix * as_matrix

    factor = as_matrix = 3.0

    def captured(t, u, theta, du):
        du[:] = as_matrix * (theta.W @ u) * factor

    def captured_first(t, u, theta, du):
        v = u * as_matrix
        du[:] = theta.W @ v

    u, theta, lam, weights = np.array([0.3, 0.7]), np.arange(1.0, 5.0), np.array([0.4, -0.9]), Fields((("W", (2, 2)),))
    W, p = theta.reshape(2, 2), u[0] * u[1]
    expected = W.T @ lam
    product = p * p * expected + 2.0 * p * (lam @ W @ u) * u[::-1]
    for f, u_bar in ((plain, expected), (of_that_name, product), (captured, 9.0 * expected), (captured_first, 3.0 * expected)):
        derived, bars = derive(with_entries("f", f, (None, None, weights, None))), (np.empty(2), np.empty(4))
        derived.vjp(0.0, u, theta, lam, *bars)
        np.testing.assert_allclose(bars[0], u_bar, rtol=1e-13)
        assert "adjode_as_matrix" not in str(derived)
    assert "as_matrix(theta, 0, 2, 2)" in str(derive(with_entries("f", plain, (None, None, weights, None))))


def test_teaching_takes_functions():
    with pytest.raises(TypeError, match="takes a function and its rules"):
        derivative(softplus)
