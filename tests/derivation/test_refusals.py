"""What cannot be differentiated is refused with the user's line and what to write instead."""

import linecache

import numpy as np
import pytest

from adjode import Dynamics, derive


def sorts(t, u, theta, du):
    du[:] = np.sort(u)


def takes_a_determinant(t, u, theta, du):
    n = u.size
    du[:] = np.linalg.det(theta.reshape(n, n)) * u


def writes_into_a_list(t, u, theta, du):
    r = [0.0, 1.0]
    for i in range(u.size):
        r[i % 2] = u[i]
    du[:] = r[0] * u


def appends(t, u, theta, du):
    r = []
    for i in range(u.size):
        r.append(u[i])
        r.append(theta[i])
    du[:] = r[0]


def appends_while(t, u, theta, du):
    r, k = [], 0
    while k < 3:
        r.append(u[k])
        k += 1
    du[:] = r[0]


def contracts_axes_of_length_1(t, u, theta, du):
    du[:] = np.einsum("ij,j->i", np.ones((2, 1)), u[:3])


def appends_in_a_branch(t, u, theta, du):
    r = [u[0]]
    if u[1] > 0.0:
        r.append(u[1])
    du[:] = r[0]


def appends_under_two_names(t, u, theta, du):
    r = [u[0]]
    s = r
    s.append(u[1])
    du[:] = len(r) * u


def appends_to_what_it_is_given(t, u, theta, du):
    r = [u[0]]
    grows(r, u[1])
    du[:] = len(r) * u


def grows(r, x):
    r.append(x)


def adds_lists(t, u, theta, du):
    r = [x * x for x in u]
    du[:] = sum(r + r)


def reads_a_dictionary(t, u, theta, du):
    du[:] = CONSTANTS["q"] * u


CONSTANTS = {"k": 2.0}


def writes_into_constants(t, u, theta, du):
    CONSTANTS["k"] = u[0]
    du[:] = u


def generates(t, u, theta, du):
    du[:] = sum(x * x for x in u if x > 0.0)


def leaves_some_out(t, u, theta, du):
    du[:] = sum([u[i] for i in range(2) if u[i] > 0.0])


def lists_arrays(t, u, theta, du):
    rows = [x * theta for x in u]
    du[:] = rows[0]


def becomes_an_array(t, u, theta, du):
    y = 0.0
    for c in theta:
        y = y * u + c
    du[:] = y


def calculates_with_complex_numbers(t, u, theta, du):
    du[:] = (u * 1j) ** 2


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
    for i in range(u.size):
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
    du[0] = sum([x * y for x in u for y in theta])


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


def rolls_by_a_float(t, u, theta, du):
    du[:] = np.roll(u, theta[0])


def differences_of_differences(t, u, theta, du):
    du[:] = np.diff(u, u.size)


def stacks(t, u, theta, du):
    du[:] = np.concatenate((u, u.reshape(2, 2)))


@pytest.mark.parametrize(
    ("f", "what", "line"),
    [
        (sorts, "`np.sort` is not known", "np.sort(u)"),
        (takes_a_determinant, "not known to be 2 by 2 or 3 by 3", "np.linalg.det(theta"),
        (writes_into_a_list, "at an index that is not a constant", "r[i % 2] = u[i]"),
        (appends, "the list `r` grows in a loop whose length is not constant", "for i in range(u.size)"),
        (appends_while, "the list `r` is written into, but was made outside this loop", "r.append(u[k])"),
        (contracts_axes_of_length_1, "axes of `np.einsum` that have one letter have the lengths 1 and 3", "np.einsum"),
        (appends_in_a_branch, "`r` may have no value here", "du[:] = r[0]"),
        (appends_under_two_names, "the list `s` has a second name", "s.append(u[1])"),
        (appends_to_what_it_is_given, "the list `r` has a second name", "r.append(x)"),
        (adds_lists, "a list whose length is not constant is added to", "sum(r + r)"),
        (reads_a_dictionary, "the dictionary `CONSTANTS` has no key 'q'", 'CONSTANTS["q"]'),
        (writes_into_constants, "a dictionary that has no name of its own is written into", 'CONSTANTS["k"] = u[0]'),
        (generates, "no constant length, and a condition", "sum(x * x"),
        (leaves_some_out, "leaves out items by a condition that depends on numbers", "for i in range(2) if"),
        (lists_arrays, "a list of arrays has no constant length", "[x * theta for x in u]"),
        (becomes_an_array, "start it as an array", "for c in theta"),
        (calculates_with_complex_numbers, "`1j` is a complex number", "(u * 1j)"),
        (reshapes_in_another_order, "the method `reshape` is called with arguments", "u.reshape(2, 2"),
        (takes_some, "use np.where(...)", "u[u > 0.5]"),
        (returns_arrays_from_a_loop, "return them after it", "for i in range(2)"),
        (ranges_over_floats, "use np.linspace", "np.arange(0.0"),
        (sums_along_a_variable, "an axis is not a constant number", "axis=i"),
        (writes_into_u, "`u` is written into", "u[0] = 0.0"),
        (rolls_by_a_float, "something other than an integer", "np.roll"),
        (differences_of_differences, "a number of times that is not constant", "np.diff(u, u.size)"),
        (stacks, "different numbers of axes", "np.concatenate"),
        (overwrites, "make the inner loop a `for` loop", ""),
        (overwrites_more_and_more, "the length of a loop differs", ""),
        (ends_by_what_it_writes, "depends on an array that it writes into", ""),
        (may_be_undefined, "`y` may have no value", "du[0] = y"),
        (after_loop, "`i` may have no value", "du[i] = 0.0"),
        (makes_a_list, "a comprehension has no constant length", "sum(["),
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
