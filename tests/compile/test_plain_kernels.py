"""Every kernel compiled and as plain Python: the same numbers to rounding, and the same counts."""

import ast
import json
import os
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

import adjode
from adjode.compile.flags import kernel
from tests import ROOT
from tests.compile.runs import CONTROLLED_RUNS, FIXED_RUNS, results_of

pytestmark = [pytest.mark.jitted, pytest.mark.slow]
PACKAGE = Path(adjode.__file__).parent
DECORATORS = {"kernel", "exact_kernel"}

# Kernels that no run enters in plain Python, and why.
NOT_ENTERED = {
    "settle_pipeline.<locals>.probe.<locals>.double": "asks whether Numba compiles, which plain Python does not",
    "fused_works.<locals>.probe.<locals>.run": "likewise",
    "_no_limits": "for a GPU, where no trajectory is solved again; tests/cuda",
    "unwatched": "for a GPU, in place of a look at the clock; tests/cuda",
    "_shift_none": "in the fused tier and for a GPU, where no state jumps; tests/compile/test_fused.py, tests/cuda",
    "_shift_no_stages": "likewise",
    "_end_none": "likewise",
    "_forget_none": "likewise",
    "_is_done": "likewise",
    "_meet_none": "where no event happens, so that none is met",
    "_leave_none": "likewise",
    "_never_ends_here": "likewise",
    "_move_switch": "where f itself switches at a time that is a parameter; tests/api/test_switches.py",
    "_make_jacobian_by_lanes.<locals>.jacobian_by_lanes": "with jvps, which are derived; tests/adjoints/test_tangents.py",
    "_make_put_rights_by_lanes.<locals>.put_rights_by_lanes": "likewise",
    "keep_off": "after a step that fails for its stage behind a stop; tests/passes/test_time.py",
    "_infinite_pivot": "behind LAPACK, in whose place plain Python takes loops; tests/linalg compares the two",
    "combine_fours": "in the fused tier, along constant numbers of directions; tests/api/test_residuals.py",
    "_by_fours": "likewise",
    "make_series.<locals>.series": "calls a jitted callback; without one a series is a loop in Python, whose numbers are compared",
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What the runs compute as plain Python, and the functions that they enter."""
    results, entered = (tmp_path_factory.mktemp("plain") / name for name in ("results.npz", "entered.json"))
    command = [sys.executable, "-W", "ignore", "-m", "tests.compile.runs", results, entered]
    done = subprocess.run(command, env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    with np.load(results) as arrays:
        return dict(arrays), {tuple(each) for each in json.loads(entered.read_text())}


def agree(name, plain, bound, counts=0.0):
    """Numbers within `bound` of the largest, or of one if that is larger, and counts within a part of them."""
    found = results_of(name)
    assert list(found) == [label for label in plain if label.startswith(f"{name}[")]
    for label, array in found.items():
        wanted = plain[label]
        assert (array.shape, array.dtype) == (wanted.shape, wanted.dtype), label
        if array.dtype.kind == "f":
            scale = max(1.0, np.max(np.abs(wanted), initial=0.0))
            np.testing.assert_allclose(array, wanted, rtol=0.0, atol=bound * scale, err_msg=label)
        else:
            np.testing.assert_allclose(array, wanted, rtol=counts, atol=40.0 * counts, err_msg=label)


@pytest.mark.parametrize("name", FIXED_RUNS)
def test_with_fixed_steps(name, plain):
    agree(name, plain[0], 1e-12)


@pytest.mark.parametrize("name", CONTROLLED_RUNS)
def test_with_step_control(name, plain):
    """Which makes more of rounding: the sizes of the first steps follow from errors that are small differences.

    The higher the order, the smaller the differences. Where Newton's iteration ends, and so what the tolerances of lam follow, may
    depend on rounding too.
    """
    implicit = name.split(",")[0] in {"Radau", "Kvaerno5", "TRBDF2", "Rodas5P", "stops", "kinks"}
    bound = 1e-5 if implicit else 1e-6 if name.startswith(("Vern", "jumps")) else 1e-8
    counts = 0.1 if name.startswith("jumps") else 0.05 if implicit else 0.0  # rounding says how often an event's time is improved
    agree(name, plain[0], bound, counts=counts)


# --- that none is left out -------------------------------------------------------------------------------------------------------
def kernels_in(file):
    """The kernels that a file defines: (file, line of the decorator) and qualified name."""

    def within(node, outer):
        for child in ast.iter_child_nodes(node):
            inner = outer
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inner = f"{outer}{child.name}." + ("<locals>." if isinstance(child, ast.FunctionDef) else "")
                if DECORATORS & {ast.unparse(one).split(".")[-1] for one in child.decorator_list}:
                    yield (str(file), min(one.lineno for one in child.decorator_list)), outer + child.name
            yield from within(child, inner)

    return dict(within(ast.parse(file.read_text()), ""))


def all_kernels():
    """Those of the package, but for those of a GPU, which its simulator runs as plain Python in tests/cuda."""
    files = [file for file in sorted(PACKAGE.rglob("*.py")) if "cuda" not in file.relative_to(PACKAGE).parts]
    return {place: name for file in files for place, name in kernels_in(file).items()}


def test_every_kernel_is_entered(plain):
    left = {name for place, name in all_kernels().items() if place not in plain[1]}
    assert left ^ set(NOT_ENTERED) == set()


def flags_of(dispatcher):
    return {name: flag for name, flag in dispatcher.targetoptions.items() if name != "fastmath"}


def test_every_kernel_is_found():
    """What has the flags of kernels at the top of a module, however it is made, is among those found by decorators."""
    names = [one.name for one in pkgutil.walk_packages(adjode.__path__, "adjode.") if "cuda" not in one.name.split(".")]
    tops = [one for name in names for one in vars(import_module(name)).values() if isinstance(one, Dispatcher)]
    codes = [one.py_func.__code__ for one in tops if flags_of(one) == flags_of(kernel(lambda: None))]
    found = {(code.co_filename, code.co_firstlineno) for code in codes}
    assert len(found) > 60 and found <= set(all_kernels())
