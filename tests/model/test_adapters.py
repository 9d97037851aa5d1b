"""What lies between callbacks and kernels is made from the table of kinds, for any number of arrays."""

import ctypes
import linecache
import os
import re

import numba
import numpy as np
import psutil
import pytest
from numba.core import codegen

from adjode.compile import adapters, kinds
from adjode.compile.adapters import c_function, guard, guard_inputs, in_place_form, is_ours
from adjode.compile.calls import FUSED, PORTABLE
from adjode.compile.kinds import KINDS, SHAPES, Kind
from adjode.model.messages import takes_in_place

jitted = pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT", "0") != "0", reason="nothing is compiled")

LONG = Kind("long", ("u", "theta", "lam", "du", "J"), ("u_bar", "theta_bar", "value"))
N, M = 3, 2


def arrays_of(kind):
    return [np.arange(1.0, 1.0 + kinds.size_of(name, N, M)) * (k + 1) for k, name in enumerate(kind.arrays)]


def long_form(t, u, theta, lam, du, J, u_bar, theta_bar, value):
    if t < 0.0:
        raise ValueError("too early")
    u_bar[:] = u + lam * du
    theta_bar[:] = theta * J[:2]
    value[0] = t


def test_every_kind_is_made_of_known_arrays():
    for name, kind in KINDS.items():
        assert kind.name == name.removeprefix("final_") and kind.inputs[:2] == ("u", "theta")
        assert set(kind.arrays) <= set(SHAPES)
        if kind.of not in ("loss", "event"):
            assert callable(getattr(PORTABLE, name)) and callable(getattr(FUSED, name))
    with pytest.raises(AttributeError, match=r"there are calls of f, vjp, .*, but not of 'hvp'"):
        _ = PORTABLE.hvp


def test_the_forms_of_a_kind():
    assert str(KINDS["f"]) == "f(t, u, theta, du) or f(t, u, theta)"
    assert str(KINDS["g"]) == "g(t, u, theta)"
    assert takes_in_place(KINDS["f"], lambda t, u, theta, du: None)
    assert not takes_in_place(KINDS["f"], lambda t, u, theta: u)
    with pytest.raises(TypeError, match=r"g takes 4 arguments, but it must be g\(t, u, theta\)\.$"):
        takes_in_place(KINDS["g"], lambda t, u, theta, value: None)


def test_a_kind_of_eight_arrays_is_guarded_and_called():
    arrays, guarded = tuple(arrays_of(LONG)), guard(LONG, numba.njit(long_form))
    called = numba.njit(lambda t, arrays: guarded(t, *arrays))
    assert called(2.0, arrays) == 0
    u, theta, lam, du, J, u_bar, theta_bar, value = arrays
    np.testing.assert_array_equal(u_bar, u + lam * du)
    np.testing.assert_array_equal(theta_bar, theta * J[:2])
    assert value[0] == 2.0
    assert called(-1.0, arrays) == 1


@jitted
def test_what_a_users_function_allocates_is_freed():
    """What it returns too, though nobody takes it; its signature says of what layout its arrays are."""

    @numba.njit("float64[:](float64, float64[:], float64[:], float64[:])")
    def f(t, u, theta, du):
        du[:] = 2.0 * u
        return np.full(100_000, t)

    guarded, (u, theta, du) = guard(KINDS["f"], f), arrays_of(KINDS["f"])

    @numba.njit
    def failures(calls, u, theta, du):
        failed = 0
        for _ in range(calls):
            failed += guarded(1.0, u, theta, du)
        return failed

    def megabytes():
        return psutil.Process().memory_info().rss / 1e6

    assert failures(1, u, theta, du) == 0
    before = megabytes()
    assert failures(500, u, theta, du) == 0
    assert megabytes() - before < 40.0  # of 400
    np.testing.assert_array_equal(du, 2.0 * u)


@jitted
def test_the_c_function_takes_pointers_then_lengths():
    arrays, compiled = arrays_of(LONG), c_function(LONG, numba.njit(long_form), None)
    pointers = [array.ctypes.data_as(ctypes.POINTER(ctypes.c_double)) for array in arrays]
    lengths = [ctypes.c_int64(array.size) for array in arrays]
    types = [ctypes.c_double, *(type(pointer) for pointer in pointers), *(ctypes.c_int64,) * len(arrays)]
    call = ctypes.CFUNCTYPE(ctypes.c_int32, *types)(compiled[1])
    assert call(2.0, *pointers, *lengths) == 0
    np.testing.assert_array_equal(arrays[5], arrays[0] + arrays[2] * arrays[3])
    assert call(-1.0, *pointers, *lengths) == 1


FORMS = {
    "matrix in place": (("J",), lambda t, u, theta, J: J.fill(u[0]), True, [1.0] * 9),
    "matrix returned": (("J",), lambda t, u, theta: np.outer(u, u), False, [1.0, 2.0, 3.0, 2.0, 4.0, 6.0, 3.0, 6.0, 9.0]),
    "number returned": (("value",), lambda t, u, theta: t + theta[0], False, [4.5]),
    "tuple returned": (("theta_bar",), lambda t, u, theta: (t, 2.0 * t), False, [0.5, 1.0]),
}


@pytest.mark.parametrize("case", FORMS)
def test_either_form_becomes_vectors_in_place(case):
    outputs, function, in_place, expected = FORMS[case]
    kind = Kind("some", ("u", "theta"), outputs)
    arrays = arrays_of(kind)
    arrays[1] *= 2.0  # so that theta[0] is 4
    in_place_form(kind, numba.njit(function), in_place)(0.5, *arrays)
    np.testing.assert_array_equal(arrays[-1], expected)


def test_three_results_are_taken_apart():
    kind = Kind("some", ("u", "theta"), ("u_bar", "J", "theta_bar"))
    form = in_place_form(kind, numba.njit(lambda t, u, theta: (2.0 * u, np.outer(u, u), t * theta)), False)
    u, theta, u_bar, J, theta_bar = arrays_of(kind)
    form(3.0, u, theta, u_bar, J, theta_bar)
    np.testing.assert_array_equal(u_bar, 2.0 * u)
    np.testing.assert_array_equal(J.reshape(N, N), np.outer(u, u))
    np.testing.assert_array_equal(theta_bar, 3.0 * theta)


@pytest.mark.parametrize(
    ("outputs", "function", "message"),
    [
        (("du",), lambda t, u, theta: theta, "the array returned has the wrong length"),
        (("J",), lambda t, u, theta: np.outer(u, theta), "the matrix returned has the wrong shape"),
    ],
)
def test_results_of_the_wrong_size(outputs, function, message):
    kind = Kind("some", ("u", "theta"), outputs)
    with pytest.raises(ValueError, match=message):
        in_place_form(kind, numba.njit(function), False)(0.0, *arrays_of(kind))


def test_inputs_are_guarded_whatever_their_number():
    @numba.njit
    def changes_the_last(t, u, theta, lam, du, J, u_bar, theta_bar, value):
        J[2] = 0.0

    arrays = arrays_of(LONG)
    with pytest.raises(ValueError, match="the callback changed one of its input arrays"):
        guard_inputs(LONG, changes_the_last)(0.0, *arrays)
    assert arrays[4][2] == 15.0  # as it was


def test_the_source_of_what_is_written_can_be_read():
    form = in_place_form(KINDS["vjp"], numba.njit(lambda t, u, theta, lam: (lam, theta)), False)
    file = getattr(form, "py_func", form).__code__.co_filename
    assert linecache.getline(file, 2) == "    u_bar_given, theta_bar_given = function(t, u, theta, lam)\n"
    linecache.checkcache()
    assert linecache.getline(file, 2)
    assert is_ours(file) and is_ours(adapters.__file__) and not is_ours(__file__) and not is_ours("<stdin>")


@jitted
def test_no_references_are_counted_around_a_users_function(monkeypatch):
    """Numba's pruning of reference counts finds calls by their names, which the pipeline must leave alone."""
    seen = []
    take = codegen.JITCodeLibrary.get_pointer_to_function
    monkeypatch.setattr(codegen.JITCodeLibrary, "get_pointer_to_function", lambda self, name: seen.append(self) or take(self, name))

    def f(t, u, theta, du):
        du[0] = theta[0] * u[0]

    c_function(KINDS["f"], numba.njit(f, error_model="numpy"), None)
    code = seen[-1].get_llvm_str()
    assert "callback_f" in code
    assert not re.search(r"call .*@\"?NRT_(in|de)cref", code)
