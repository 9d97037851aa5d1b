"""What a callback does when Python calls it: it runs the C function that kernels call, and nothing is compiled for Python alone."""

import os

import numba
import numpy as np
import pytest

from adjode.compile.adapters import make_function
from adjode.model.callbacks import Callback

jitted = pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT", "0") != "0", reason="nothing is compiled")


@numba.njit
def factorial(n):
    return 1 if n <= 1 else n * factorial(n - 1)


def returning(t, u, theta):
    return theta[0] * u * factorial(3)


def late(t, u, theta, du):
    if t > 1.0:
        raise ValueError("late")
    du[:] = -u


def called(callback, t=0.5, u=(1.0, 2.0)):
    du = np.zeros(len(u))
    callback(t, np.array(u), np.array([0.5]), du)
    return du.tolist()


@jitted
@pytest.mark.parametrize(("function", "result"), [(returning, [3.0, 6.0]), (late, [-1.0, -2.0])])
def test_python_calls_what_kernels_call(function, result):
    callback = Callback("f", function)
    assert called(callback) == result
    assert "_from_python" not in vars(callback)
    with pytest.raises(TypeError):
        callback.in_place(0.5, np.ones(2), np.ones(1), np.zeros(2))  # a part of entries, with no way in for Python


def test_other_arrays_than_kernels_have():
    every_second = np.arange(4.0)[::2]
    du = np.zeros((2, 2))
    Callback("f", late)(0.5, every_second, np.array([0.5]), du[:, 1])
    assert du.tolist() == [[0.0, 0.0], [0.0, -2.0]]


def test_what_is_raised_comes_through():
    with pytest.raises(ValueError, match="late"):
        called(Callback("f", late), t=2.0)


def test_what_is_raised_inside_of_a_joined_callback_comes_through():
    """One that calls another, which is but a part of entries, and that what Numba compiles on its own."""

    def solves(t, u, theta, du):
        du[:] = np.linalg.solve(2.0 * np.eye(2), u)
        if t > 1.0:
            raise ValueError("late")

    inner = Callback("f", solves).in_place
    joined = Callback("f", make_function("f", "t, u, theta, du", "    inner(t, u, theta, du)\n", {"inner": inner}))
    assert called(joined) == [0.5, 1.0]
    with pytest.raises(ValueError, match="late"):
        called(joined, t=2.0)


def test_kinds_with_other_numbers_than_t():
    value = np.zeros(1)
    Callback("value", lambda k, t, u, theta: k + t * u[0])(2, 0.5, np.array([3.0]), np.zeros(0), value)
    assert value[0] == 3.5


@jitted
def test_what_prints_may_be_compiled_by_this_process(capfd):
    """Numba finds what `print` needs in a global of the code, which it fills for functions that Python calls."""

    def prints(t, u, theta, du):
        print("at", t)
        du[:] = u

    callback = Callback("f", prints)
    callback.key = None  # not from disk
    assert called(callback) == [1.0, 2.0]
    assert capfd.readouterr().out == "at 0.5\n"
