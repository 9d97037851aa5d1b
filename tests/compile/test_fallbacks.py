"""Where Numba's inside is not what adjode takes it to be, results stay and a warning says what is lost: speed or start-up."""

import os
import subprocess
import sys

import pytest

from adjode.compile.flags import DISABLED
from tests import ROOT

pytestmark = pytest.mark.skipif(DISABLED, reason="nothing is compiled")

# An entry that calls a kernel and, as callbacks are called, a user's function that may raise; and whether passes can be fused.
SCRIPT = """
{broken}
import numba
from adjode.compile import entries, flags, tiers

{broken_later}
@numba.njit
def positive(n):
    if n <= 0:
        raise ValueError("not positive")

@flags.linked
def guarded(n):
    try:
        positive(n)
    except Exception:
        return 1
    return 0

@flags.kernel
def double(n):
    return 2 * n

entry = entries.entry(lambda n: double(n) + guarded(n), (flags.i8,), "double")
print(entry(21), entry(-21), tiers.fused_works(), sum(entry.stats.cache_misses.values()))
"""


def run(tmp_path, broken="", later=""):
    """What the script prints, and its warnings."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(broken=broken, broken_later=later))
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "ADJODE_PRECOMPILED": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), [line for line in done.stderr.splitlines() if "RuntimeWarning" in line]


def test_nothing_is_lost_where_all_is_as_expected(tmp_path):
    assert run(tmp_path) == (["42", "-41", "True", "1"], [])
    assert run(tmp_path) == (["42", "-41", "True", "0"], [])


def test_a_pass_that_is_gone_costs_the_pipeline(tmp_path):
    printed, (warning,) = run(tmp_path, "from numba.core import untyped_passes; del untyped_passes.FixupArgs")
    assert printed == ["42", "-41", "False", "1"]
    assert "Numba's own pipeline" in warning and "cannot import name 'FixupArgs'" in warning


def test_a_pipeline_that_fails_is_replaced_by_numbas(tmp_path):
    printed, (warning,) = run(tmp_path, later="flags.pipeline._LoweringInto.run_pass = lambda self, state: state.nothing()")
    assert printed == ["42", "-41", "False", "1"]
    assert "Numba's own pipeline" in warning and "AttributeError" in warning


def test_an_option_that_is_gone_is_not_used(tmp_path):
    printed, (warning,) = run(tmp_path, "from numba.core.cpu import CPUTargetOptions; del CPUTargetOptions.__mro__[1]._nrt")
    assert printed == ["42", "-41", "True", "1"]
    assert "count references" in warning and "_nrt" in warning


def test_bitcode_that_cannot_be_linked_costs_the_fused_tier(tmp_path):
    printed, (warning,) = run(tmp_path, later="flags.pipeline._PassLibrary.bitcode = lambda *names: b'nothing'")
    assert printed == ["42", "-41", "False", "1"]
    assert "fused=True has no effect" in warning


@pytest.mark.parametrize(("gone", "lost"), [("_reduce", "cannot be kept on disk"), ("_rebuild", "cannot be read from disk")])
def test_what_cannot_be_pickled_costs_the_cache(tmp_path, gone, lost):
    if gone == "_rebuild":  # of something that is there
        run(tmp_path)
    printed, (warning,) = run(tmp_path, later=f"from numba.core.compiler import CompileResult; del CompileResult.{gone}")
    assert printed == ["42", "-41", "True", "1"]
    assert lost in warning and gone in warning


@pytest.mark.slow
def test_solves_and_gradients_without_our_pipeline(tmp_path):
    script = """
import sys
from numba.core import untyped_passes
if sys.argv[1:]:
    del untyped_passes.FixupArgs
import adjode

def f(t, u, theta, du):
    du[0] = -theta[0] * u[0]

def vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -theta[0] * lam[0]
    theta_bar[0] = -u[0] * lam[0]

solution = adjode.solve(adjode.Dynamics(f, vjp, fused=True), [1.0], [0.5], (0.0, 1.0))
print(float(solution.u[-1][0]), float(solution.pullback([1.0]).theta[0]))
"""
    numbers = []
    for arguments in ([], ["broken"]):
        environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", script, *arguments]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("RuntimeWarning") == len(arguments)
        numbers.append([float(number) for number in done.stdout.split()])
    assert numbers[1] == pytest.approx(numbers[0], rel=1e-12)
