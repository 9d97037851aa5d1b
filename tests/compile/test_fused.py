"""The fused tier: the same numbers as the portable one, kept on disk under a hash of the callbacks."""

import os
import pickle
import subprocess
import sys

import numba
import numpy as np
import pytest

from adjode import Dynamics, SolveError, Status, solve
from adjode.compile import tiers
from adjode.compile.fingerprint import fingerprint
from adjode.compile.frame import Frame
from adjode.passes.forward import make_forward
from benchmarks.problems import lv_f, lv_vjp
from tests import ROOT
from tests.problems.systems import LV_SPAN, LV_THETA, LV_U0, lotka_volterra, lv_vjp_u

pytestmark = pytest.mark.jitted


@pytest.fixture(scope="module")
def fused():
    return Dynamics(lv_f, lv_vjp, vjp_u=lv_vjp_u, fused=True)


@pytest.mark.parametrize(
    ("adjoint", "steps"),
    [
        ("discrete", "adaptive"),
        ("discrete", "fixed"),
        ("interpolating", "adaptive"),
        pytest.param("interpolating", "fixed", marks=pytest.mark.slow),
    ],
)
def test_the_numbers_of_the_portable_tier(fused, adjoint, steps):
    """To rounding with fixed steps. Step control magnifies rounding into slightly other steps, far below the tolerance."""
    options, agreement = ({"step": 0.02}, 1e-11) if steps == "fixed" else ({"rtol": 1e-8, "atol": 1e-8}, 2e-8)
    one, other = (solve(dynamics, LV_U0, LV_THETA, LV_SPAN, **options) for dynamics in (fused, lotka_volterra(True)))
    np.testing.assert_allclose(one.u_T, other.u_T, rtol=agreement)
    assert abs(one.stats.n_steps - other.stats.n_steps) <= 1
    observations = (np.array([1.0, 2.5, 10.0]), np.ones((3, 2)))
    bars = [solution.pullback([1.0, 0.5], observations=observations, adjoint=adjoint) for solution in (one, other)]
    np.testing.assert_allclose(bars[0].u0, bars[1].u0, rtol=10 * agreement)
    np.testing.assert_allclose(bars[0].theta, bars[1].theta, rtol=10 * agreement)
    assert (bars[0].T, bars[0].t0) == pytest.approx((bars[1].T, bars[1].t0), rel=10 * agreement)


@pytest.mark.slow
@pytest.mark.parametrize("adjoint", ["interpolating", "discrete"])
def test_many_stages(fused, adjoint):
    """26 of them in straight code, and weights of the dense output about the middle of the step."""
    observations = (np.array([1.0, 2.5, 9.9]), np.ones((3, 2)))
    bars = [
        solve(dynamics, LV_U0, LV_THETA, LV_SPAN, method="Vern9", step=0.1).pullback(observations=observations, adjoint=adjoint)
        for dynamics in (fused, lotka_volterra(True))
    ]
    np.testing.assert_allclose(bars[0].u0, bars[1].u0, rtol=1e-11)
    np.testing.assert_allclose(bars[0].theta, bars[1].theta, rtol=1e-11)


@pytest.mark.parametrize("adjoint", ["interpolating", "discrete"])
def test_repeated_calls_are_equal_to_the_last_bit(fused, adjoint):
    solutions = [solve(fused, LV_U0, LV_THETA, LV_SPAN) for _ in range(2)]
    np.testing.assert_array_equal(solutions[0].u, solutions[1].u)
    bars = [solution.pullback([1.0, 0.5], adjoint=adjoint) for solution in solutions]
    np.testing.assert_array_equal(bars[0].theta, bars[1].theta)


def test_repr_pickle_and_debug(fused):
    assert repr(fused) == "Dynamics(lv_f, with vjp_u, fused)"
    copy = pickle.loads(pickle.dumps(fused))
    assert copy.fused and copy.calls.key == fused.calls.key
    with pytest.raises(ValueError, match="fused=True and debug=True exclude each other"):
        Dynamics(lv_f, lv_vjp, fused=True, debug=True)


def test_other_callbacks_compile_no_kernels_anew(fused, monkeypatch):
    """Passes are kept as bitcode that imports the callbacks by name."""
    solution = solve(fused, LV_U0, LV_THETA, LV_SPAN)

    def twice(t, u, theta, du):
        lv_f_jitted(t, u, theta, du)
        for i in range(du.size):
            du[i] *= 2.0

    lv_f_jitted = numba.njit(lv_f)
    monkeypatch.setattr(tiers, "_outlines", {})
    monkeypatch.setattr(tiers, "_compile_pass", lambda *_: pytest.fail("kernels are compiled"))
    again = solve(Dynamics(twice, lv_vjp, fused=True), LV_U0, LV_THETA, (0.0, 5.0))
    np.testing.assert_allclose(again.u_T, solution.u_T, rtol=1e-4)


def _raises(t, u, theta):
    if t > 0.5:
        raise ValueError("too late")
    return -u


def _raises_vjp(t, u, theta, lam):
    return -lam, np.zeros(0)


def test_failures_are_reported_as_in_the_portable_tier():
    with pytest.raises(SolveError, match="ValueError: too late") as caught:
        solve(Dynamics(_raises, _raises_vjp, fused=True), [1.0], [], (0.0, 1.0))
    assert caught.value.status == Status.CALLBACK_RAISED
    with pytest.raises(TypeError, match="Numba cannot compile f"):
        Dynamics(lambda t, u, theta: object(), lv_vjp, fused=True)


# --- the fingerprint -----------------------------------------------------------------------------------------------------
@numba.njit
def _helper(x):
    return 2.0 * x


TABLE = np.arange(3.0)
RATE = 1.5


def _uses_globals(t, u, theta, du):
    du[0] = RATE * _helper(u[0]) + TABLE[1] + np.sin(t)


def test_fingerprint_sees_what_the_machine_code_depends_on(monkeypatch):
    first = fingerprint(_uses_globals)
    assert first is not None and fingerprint(_uses_globals) == first
    seen = {first}

    def changed(name, value):
        monkeypatch.setitem(_uses_globals.__globals__, name, value)
        key = fingerprint(_uses_globals)
        monkeypatch.undo()
        assert key not in seen
        seen.add(key)

    changed("RATE", 1.6)
    changed("RATE", 1)
    changed("TABLE", np.array([0.0, 1.5, 2.0]))
    changed("TABLE", TABLE.astype(np.float32))
    changed("_helper", numba.njit(lambda x: 3.0 * x))
    changed("_helper", numba.njit(fastmath=True)(_helper.py_func))
    assert fingerprint(_uses_globals) == first


def test_fingerprint_sees_closures_and_nested_helpers():
    def make(rate, inner):
        @numba.njit
        def helper(x):
            return inner(x)

        def f(t, u, theta, du):
            du[0] = rate * helper(u[0])

        return f

    one, two = numba.njit(lambda x: x + 1.0), numba.njit(lambda x: x + 2.0)
    keys = {fingerprint(make(rate, inner)) for rate in (1.0, 2.0) for inner in (one, two)}
    assert len(keys) == 4
    assert fingerprint(make(1.0, one)) == fingerprint(make(1.0, one))


def test_what_cannot_be_hashed_is_not_kept():
    lock = __import__("threading").Lock()

    def f(t, u, theta, du):
        du[0] = lock

    assert fingerprint(f) is None


def test_a_constant_that_changes_before_an_entry_is_compiled():
    """The entry must not be filed under the old constant's key."""
    rate = 1.25

    def f(t, u, theta, du):
        du[0] = rate * u[0]

    def vjp(t, u, theta, lam, u_bar, theta_bar):
        u_bar[0] = rate * lam[0]

    dynamics = Dynamics(f, vjp, fused=True)
    for part in (dynamics.f, dynamics.vjp):
        part.in_place._reset_overloads()  # as in a process that has found the callbacks' mark on disk
    rate = 2.5
    with pytest.raises(ValueError, match="has changed since this Dynamics was made: make a new one"):
        dynamics.calls.entry("solve", Frame(), make_forward)
    assert Dynamics(f, vjp, fused=True).calls.key != dynamics.calls.key


SETS = """
import numba
from adjode.compile.fingerprint import fingerprint

@numba.njit(fastmath={"contract", "reassoc", "nsz", "arcp"})
def f(t, u, theta, du):
    du[0] = 1.0 if len(u) in {1, 2, 3, "one", "two"} else 2.0

print(fingerprint(f))
"""


def test_sets_have_no_order_of_their_own():
    found = set()
    for seed in "123":
        command = [sys.executable, "-c", SETS]
        done = subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1 and "None" not in found.pop()


SCRIPT = """
import collections, sys
from numba.core import event

compiled = collections.Counter()

class Count(event.Listener):
    def on_start(self, e):
        compiled[e.data["dispatcher"].py_func.__module__.split(".")[0]] += 1
    def on_end(self, e):
        pass

event.register("numba:compile", Count())
import adjode

RATE = float(sys.argv[1])

def f(t, u, theta, du):
    du[0] = -RATE * theta[0] * u[0]

def vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -RATE * theta[0] * lam[0]
    theta_bar[0] = -RATE * u[0] * lam[0]

solution = adjode.solve(adjode.Dynamics(f, vjp, fused=True), [1.0], [0.5], (0.0, 1.0))
bar = solution.pullback([1.0], adjoint="discrete", wrt=("u0", "theta"))
print(compiled["adjode"], compiled["__main__"], repr(float(bar.u0[0])))
"""


@pytest.mark.slow
def test_a_second_process_compiles_nothing_at_all(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def run(rate):
        variables = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
            "ADJODE_PRECOMPILED": str(tmp_path),
        }
        done = subprocess.run([sys.executable, script, str(rate)], env=variables, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        kernels, callbacks, value = done.stdout.split()
        return int(kernels), int(callbacks), float(value)

    first = run(1.0)
    assert first[0] > 0 and first[1] > 0 and first[2] == pytest.approx(np.exp(-0.5), rel=1e-5)
    files = sorted((tmp_path / "cache").rglob("*"))
    assert run(1.0) == (0, 0, first[2])
    assert sorted((tmp_path / "cache").rglob("*")) == files
    changed = run(2.0)  # a global of the callbacks has changed
    assert changed[1] > 0 and changed[2] == pytest.approx(np.exp(-1.0), rel=1e-5)
    assert run(1.0) == (0, 0, first[2])
