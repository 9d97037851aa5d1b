"""What cannot be differentiated is refused with the user's line and what to write instead."""

import linecache

import numpy as np
import pytest

from adjode import Dynamics, derive


def sorts(t, u, theta, du):
    du[:] = np.sort(u)


def inverts(t, u, theta, du):
    du[:] = np.linalg.inv(theta.reshape(2, 2)) @ u


def writes_into_a_list(t, u, theta, du):
    r = [0.0, 1.0]
    r[0] = u[0]
    du[:] = r[0] * u


def appends(t, u, theta, du):
    r = []
    for i in range(2):
        r.append(u[i])
    du[:] = r[0]


def reads_a_dictionary(t, u, theta, du):
    du[:] = CONSTANTS["k"] * u


CONSTANTS = {"k": 2.0}


def generates(t, u, theta, du):
    du[:] = sum(x * x for x in u)


def reshapes_in_another_order(t, u, theta, du):
    du[:] = u.reshape(2, 2, order="F").ravel()


def takes_some(t, u, theta, du):
    du[:] = np.sum(u[u > 0.5])


def returns_arrays_from_a_loop(t, u, theta):
    for i in range(2):
        if u[i] > 1.0:
            return theta[i] * u
    return u


def ranges_over_floats(t, u, theta, du):
    du[:] = np.arange(0.0, 1.0)


def sums_along_a_variable(t, u, theta, du):
    for i in range(2):
        du[i] = np.sum(u.reshape(2, 2), axis=i)[0]


def writes_into_u(t, u, theta, du):
    u[0] = 0.0
    du[0] = u[0]


def overwrites(t, u, theta, du):
    v = u.copy()
    for _ in range(2):
        i = 0
        while i < 2:
            v[i] *= v[i]
            i += 1
    du[:] = v


def overwrites_more_and_more(t, u, theta, du):
    v, k = u.copy(), 1
    while k < 3:
        for i in range(k):
            v[i] *= v[i]
        k += 1
    du[:] = v


def ends_by_what_it_writes(t, u, theta, du):
    v, big = u.copy(), 0.0
    while big < 10.0:
        v *= 1.5
        big = np.sum(v)
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


@pytest.mark.parametrize(
    ("f", "what", "line"),
    [
        (sorts, "`np.sort` is not known", "np.sort(u)"),
        (inverts, "write np.linalg.solve(A, b)", "np.linalg.inv(theta"),
        (writes_into_a_list, "a list is written into", "r[0] = u[0]"),
        (appends, "fill an array", "r.append(u[i])"),
        (reads_a_dictionary, "`CONSTANTS` is a dictionary", 'CONSTANTS["k"]'),
        (generates, "a generator", "sum(x * x"),
        (reshapes_in_another_order, "the method `reshape` is called with arguments", "u.reshape(2, 2"),
        (takes_some, "use np.where(...)", "u[u > 0.5]"),
        (returns_arrays_from_a_loop, "return them behind it", "for i in range(2)"),
        (ranges_over_floats, "take np.linspace", "np.arange(0.0"),
        (sums_along_a_variable, "an axis is no constant number", "axis=i"),
        (writes_into_u, "`u` is written into", "u[0] = 0.0"),
        (rolls_a_matrix, "something else than vectors", "np.roll"),
        (rolls_by_a_float, "something else than an integer", "np.roll"),
        (differences_of_differences, "arguments that are not known", "np.diff(u, 2)"),
        (stacks, "something else than a tuple of vectors", "np.concatenate"),
        (overwrites, "make the inner loop a `for` loop", ""),
        (overwrites_more_and_more, "the length of a loop differs", ""),
        (ends_by_what_it_writes, "depend on an array that it writes into", ""),
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
        derive(sorts)


def test_a_recursion_with_an_end_is_written_out():
    bars = np.empty(1), np.empty(0)
    derive(calls_itself).vjp(0.0, np.array([1.1]), np.empty(0), np.ones(1), *bars)
    assert bars[0][0] == pytest.approx(8.0 * 1.1**7)


def test_dynamics_refuses_at_once():
    with pytest.raises(TypeError, match="`np.sort` is not known"):
        Dynamics(sorts)


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
