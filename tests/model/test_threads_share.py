"""What threads share of callbacks and dynamics is made once; constants and warnings stay as they are."""

import copy
import os
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest

from adjode import Dynamics
from adjode.model import callbacks
from adjode.model.callbacks import Callback, callback, unwarned
from benchmarks.problems import lv_f, lv_vjp

jitted = pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT", "0") != "0", reason="nothing is compiled")


def at_once(action, threads=4):
    """The results of an action that several threads begin at the same time."""
    barrier = threading.Barrier(threads)

    def act(_):
        barrier.wait()
        return action()

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(act, range(threads)))


def test_a_c_function_is_made_once(monkeypatch):
    made, c_function = [], callbacks.c_function

    def slow(*arguments):
        time.sleep(0.05)
        made.append(c_function(*arguments))
        return made[-1]

    monkeypatch.setattr(callbacks, "c_function", slow)
    one = Callback("f", lv_f)
    assert len(set(at_once(lambda: one.handle))) == len(made) == 1


def test_a_structure_is_found_once():
    found = []

    def find():
        time.sleep(0.05)
        found.append(object())
        return found[-1]

    dynamics = Dynamics(lv_f, lv_vjp)
    assert set(at_once(lambda: dynamics.once((2, "auto"), find))) == set(found) and len(found) == 1
    copy.copy(dynamics).once((2, "auto"), find)
    assert len(found) == 2


def test_filters_of_warnings_are_what_they_were():
    """Two threads that ignore warnings for a while; the one that came first also leaves first."""
    before, inside = list(warnings.filters), threading.Event()

    def first():
        with unwarned():
            inside.set()
            time.sleep(0.05)

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait()
    with unwarned(np.exceptions.ComplexWarning):
        thread.join(0.2)
        with pytest.raises(np.exceptions.ComplexWarning):
            warnings.warn("lost", np.exceptions.ComplexWarning, stacklevel=1)
    thread.join()
    assert warnings.filters == before


@jitted
def test_bounds_are_checked_in_one_thread_alone(monkeypatch):
    """While a callback is compiled for debugging, what another thread compiles is not checked."""
    seen, inside = [], threading.Event()

    @numba.njit
    def plain(x, i):
        return x[i]

    class Slow:
        _can_compile = False

        def compile(self, signature):
            inside.set()
            time.sleep(0.05)
            seen.append(callbacks.config.BOUNDSCHECK)

    one = Callback("f", lv_f, debug=True)
    monkeypatch.setattr(one, "_form", Slow())
    before, thread = callbacks.config.BOUNDSCHECK, threading.Thread(target=one.compile)
    thread.start()
    inside.wait()
    plain.compile("(f8[::1], i8)")
    thread.join()
    assert seen == [1] and callbacks.config.BOUNDSCHECK == before
    if not before:
        assert "IndexError" not in plain.inspect_llvm(plain.signatures[0])


# --- constants ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (0.0, -0.0), ((1, 2), (1.0, 2.0))])
def test_constants_that_are_equal_may_compile_to_other_code(one, other):
    def f(t, u, theta, du):
        du[0] = rate[0] if isinstance(rate, tuple) else rate

    rate = one
    made = callback("f", f)
    assert callback("f", f) is made
    rate = other
    assert callback("f", f) is not made


RATE = 2.0


@numba.njit
def decay(t, u, theta, du):
    du[0] = -RATE * theta[0] * u[0]


def decay_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -RATE * theta[0] * lam[0]
    theta_bar[0] = -RATE * u[0] * lam[0]


@jitted
def test_a_jitted_callback_is_filed_under_its_constants(monkeypatch):
    """A function is compiled anew with what its globals hold now, a jitted one too, and has another key then."""
    first = Dynamics(decay, decay_vjp, fused=True)
    monkeypatch.setitem(decay.py_func.__globals__, "RATE", 3.0)
    callbacks._cached.cache_clear()
    second = Dynamics(decay, decay_vjp, fused=True)
    assert second.f.key != first.f.key and second.vjp.key != first.vjp.key
    du = np.zeros(1)
    second.f(0.0, np.ones(1), np.ones(1), du)
    assert du[0] == -3.0
    assert second.calls.key != first.calls.key
