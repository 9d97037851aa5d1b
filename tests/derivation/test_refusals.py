"""What cannot be differentiated is refused with the user's line and what to write instead."""

import linecache

import numpy as np
import pytest

from adjode import Dynamics, derive


def solves(t, u, theta, du):
    du[:] = np.linalg.solve(theta.reshape(2, 2), u)


def breaks(t, u, theta, du):
    for i in range(2):
        du[i] = u[i]
        if u[i] > 1.0:
            break


def writes_into_u(t, u, theta, du):
    u[0] = 0.0
    du[0] = u[0]


def searches(t, u, theta, du):
    x = u[0]
    while x > 1.0:
        x *= 0.5
    du[0] = x


def overwrites(t, u, theta, du):
    v = u.copy()
    i = 0
    while i < 2:
        v *= v
        i += 1
    du[:] = v


def may_be_undefined(t, u, theta, du):
    if u[0] > 0.0:
        y = 2.0 * u[0]
    du[0] = y


def after_loop(t, u, theta, du):
    for i in range(2):
        du[i] = u[i]
    du[i] = 0.0


def makes_a_list(t, u, theta, du):
    du[0] = sum([x * x for x in u])


def calls_itself(t, u, theta, du):
    du[0] = down(u[0], 3)


def down(x, k):
    return x if k == 0 else down(x * x, k - 1)


def recursive(t, u, theta, du):
    du[0] = endless(u[0])


def endless(x):
    return x * endless(x)


def two_arrays(t, u, theta, du):
    a, b = np.zeros(2), np.zeros(2)
    x = a if t > 0.0 else b
    x[0] = u[0]
    du[:] = a + b


def rolls_a_matrix(t, u, theta, du):
    du[:] = np.roll(u.reshape(2, 2), 1).ravel()


def rolls_by_a_float(t, u, theta, du):
    du[:] = np.roll(u, theta[0])


def differences_of_differences(t, u, theta, du):
    du[2:] = np.diff(u, 2)


def stacks(t, u, theta, du):
    du[:] = np.concatenate((u.reshape(2, 2), u.reshape(2, 2)), axis=1)[0]


def ends_by_a_state(t, u, theta, du):
    i = 0
    while i < u.size - int(u[0]):
        i += 1
    du[0] = i * u[0]


@pytest.mark.parametrize(
    ("f", "what", "line"),
    [
        (solves, "`np.linalg.solve` is not known", "np.linalg.solve(theta"),
        (breaks, "left by `break`", "break"),
        (writes_into_u, "`u` is written into", "u[0] = 0.0"),
        (searches, "ends by a float", "while x > 1.0"),
        (ends_by_a_state, "ends by a float", "while i < u.size"),
        (rolls_a_matrix, "something else than vectors", "np.roll"),
        (rolls_by_a_float, "something else than an integer", "np.roll"),
        (differences_of_differences, "arguments that are not known", "np.diff(u, 2)"),
        (stacks, "something else than a tuple of vectors", "np.concatenate"),
        (overwrites, "`v` is written over", ""),
        (may_be_undefined, "`y` may have no value", "du[0] = y"),
        (after_loop, "`i` may have no value", "du[i] = 0.0"),
        (makes_a_list, "a list comprehension", "sum(["),
        (recursive, "`endless` calls itself", "endless(x)"),
        (two_arrays, "one array or another", "x = a if"),
    ],
)
def test_refused(f, what, line):
    with pytest.raises(TypeError, match="cannot be differentiated") as caught:
        derive(f)
    assert what in str(caught.value)
    assert line in str(caught.value)
    if line:
        assert "test_refusals.py, line" in str(caught.value)


def test_functions_of_arrays_are_to_be_written_as_loops():
    with pytest.raises(TypeError, match="write a loop over the entries"):
        derive(solves)


def test_a_recursion_with_an_end_is_written_out():
    bars = np.empty(1), np.empty(0)
    derive(calls_itself).vjp(0.0, np.array([1.1]), np.empty(0), np.ones(1), *bars)
    assert bars[0][0] == pytest.approx(8.0 * 1.1**7)


def test_dynamics_refuses_at_once():
    with pytest.raises(TypeError, match="`np.linalg.solve` is not known"):
        Dynamics(solves)


def test_source_must_be_there():
    space = {}
    exec(compile("def f(t, u, theta, du):\n    du[0] = u[0]\n", "<nowhere>", "exec"), space)
    with pytest.raises(TypeError, match="the source of f cannot be found"):
        derive(space["f"])


def test_source_must_be_what_was_compiled():
    """As in a file that has been changed since it was imported."""
    space, file = {}, "<changed>"
    exec(compile("def f(t, u, theta, du):\n    du[0] = u[0]\n", file, "exec"), space)
    text = "def f(t, u, theta, du):\n    du[0] = -u[0]\n"
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    with pytest.raises(TypeError, match="has changed since it was compiled"):
        derive(space["f"])


@pytest.mark.parametrize("given", [3, np.sin, lambda u: u])
def test_no_callback(given):
    with pytest.raises(TypeError):
        derive(given)
