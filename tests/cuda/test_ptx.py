"""The kernels compiled to PTX, on a machine without a GPU: nothing left to call, and no stack but what the observed states need."""

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

if os.environ.get("NUMBA_DISABLE_JIT") == "1" or os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    pytest.skip("nothing is compiled", allow_module_level=True)
numba_cuda = pytest.importorskip("numba_cuda")

import numba.cuda.dispatcher
from numba import cuda

import adjode
from adjode import Dynamics, ensemble_value_and_gradient, kernels, solve_ensemble
from adjode.backends.cuda import device
from adjode.losses import FinalState, LeastSquares
from benchmarks.problems import lv_dynamics, lv_f
from tests.cuda import jumping, stand_in
from tests.cuda.jumping import KNOWN, inputs, least_squares
from tests.problems.systems import LV_THETA, LV_U0

SPAN, N = (0.0, 3.0), 3
MANY = LeastSquares(np.linspace(0.0, 3.0, 40), np.ones((40, 2)))
plain_launch = device.launch
ALL = ((8, 0), (9, 0), (10, 0))  # sm_80, sm_90, sm_100


@pytest.fixture
def compiled(monkeypatch):
    """Compiles what would be launched: a list of (name, PTX, compute capability)."""
    seen, capabilities = [], []

    def launch(kernel, threads, *arguments):
        found = stand_in.types_of(arguments)
        for capability in capabilities:
            ptx, _ = cuda.compile(kernel.py_func, found, device=False, abi="numba", cc=capability)
            seen.append((kernel.py_func.__name__, ptx, capability))

    stand_in.install(monkeypatch, device, launch)
    # numba-cuda asks the driver for the current device when it compiles device functions, though it is told what to compile for
    fake = SimpleNamespace(compute_capability=(9, 0))
    monkeypatch.setattr(numba.cuda.dispatcher, "get_current_device", lambda: fake)
    return seen, capabilities


def rows():
    return np.tile(LV_U0, (N, 1)), np.tile(LV_THETA, (N, 1))


def test_gradients_in_double_precision(compiled):
    seen, capabilities = compiled
    capabilities += ALL
    ensemble_value_and_gradient(lv_dynamics(), FinalState([1.0, -2.0]), SPAN, backend="cuda")(*rows())
    assert [capability for _, _, capability in seen] == list(ALL)
    for _, ptx, capability in seen:
        assert_lean(ptx, capability, stack=2 * 2 * 8)  # u(T) and its cotangent


def test_gradients_in_single_precision(compiled):
    seen, capabilities = compiled
    capabilities += [(9, 0)]
    options = {"adjoint": "interpolating", "backend": "cuda", "dtype": np.float32}
    ensemble_value_and_gradient(lv_dynamics(), MANY, SPAN, **options)(rows()[0], LV_THETA)
    assert [name for name, _, _ in seen] == ["entry", "sum_rows"]
    assert_lean(seen[0][1], (9, 0), stack=0)  # what is observed lies in the lanes
    arithmetic = re.findall(r"^\s+(?:fma|mul|add|sub)\S*\.(f32|f64)", seen[0][1], re.MULTILINE)
    assert arithmetic.count("f64") < 0.5 * arithmetic.count("f32")  # the logarithms and exponentials of the step control
    assert_lean(seen[1][1], (9, 0), stack=0)


def allocates(t, u, theta):
    return np.array([theta[0] * u[1], -u[0]])


def test_callbacks_that_no_gpu_can_run(compiled, monkeypatch):
    """One sentence, and the compiler's report behind it."""
    dynamics = Dynamics(allocates, lambda t, u, theta, lam: (lam, theta))
    monkeypatch.setattr(device, "launch", plain_launch)

    class Compiles:
        def __init__(self, kernel):
            self._kernel = kernel

        def __getitem__(self, shape):
            return lambda *given: cuda.compile(self._kernel.py_func, stand_in.types_of(given), device=False, abi="numba", cc=(9, 0))

    make = device.device_entry
    monkeypatch.setattr(device, "device_entry", lambda one, real, replaced: Compiles(make(one, real, replaced)))
    with pytest.raises(TypeError, match="numba-cuda cannot compile the callbacks for a GPU: .*in their in-place forms") as caught:
        solve_ensemble(dynamics, *rows(), SPAN, backend="cuda")
    assert "\n" not in str(caught.value)


def layers(t, u, theta, du):
    du[0], du[1] = adjode.kernels.tanh(theta[0] * u[1]), kernels.exp(-u[0]) * kernels.log(u[0])


def layers_vjp(t, u, theta, lam, u_bar, theta_bar):
    theta_bar[:] = 0.0
    adjode.kernels.tanh_into(lam, u_bar)


def test_adjodes_own_functions(compiled):
    """Those of numbers are CUDA's own; those of arrays have no form there, and say so."""
    seen, capabilities = compiled
    capabilities += [(9, 0)]
    dynamics = Dynamics(layers, layers_vjp)
    solve_ensemble(dynamics, *rows(), SPAN, backend="cuda", dtype="float32")
    assert_lean(seen[0][1], (9, 0), stack=(4 + 2) * 2 * 4)
    with pytest.raises(TypeError, match=r"adjode\.functions\.tanh_into has no form for a GPU"):
        ensemble_value_and_gradient(dynamics, FinalState([1.0, 0.0]), SPAN, backend="cuda")(*rows())


def test_derived_rules(compiled):
    seen, capabilities = compiled
    capabilities += [(9, 0)]
    evaluate = ensemble_value_and_gradient(Dynamics(lv_f), FinalState([1.0, 0.0]), SPAN, backend="cuda")
    evaluate(rows()[0], [*LV_THETA, 1.0])  # f does not read the last parameter
    assert_lean(seen[0][1], (9, 0), stack=2 * 2 * 8)


def test_solutions(compiled):
    seen, capabilities = compiled
    capabilities += [(9, 0)]
    solve_ensemble(lv_dynamics(), *rows(), SPAN, t_eval=[1.0, 2.0], backend="cuda")
    assert_lean(seen[0][1], (9, 0), stack=(4 + 2) * 2 * 8)  # the dense output of a step, and the states at its ends


def assert_lean(ptx, capability, stack):
    architecture = f"sm_{capability[0]}{capability[1]}"
    assert f".target {architecture}" in ptx and len(re.findall(r"^\.visible \.entry", ptx, re.MULTILINE)) == 1
    assert not re.search(r"^\s+(@!?%p\d+ )?call", ptx, re.MULTILINE) and ".func" not in ptx
    report = assembled(ptx, architecture)
    if report is not None:
        used, stores, loads = map(int, re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+)", report).groups())
        assert (used <= stack, stores, loads) == (True, 0, 0), report


def assembled(ptx, architecture):
    """What ptxas says of the machine code; None where there is no ptxas that reads this PTX."""
    for ptxas in assemblers():
        source = ["-v", f"-arch={architecture}", "-o", os.devnull, "-"]
        done = subprocess.run([ptxas, *source], input=ptx, capture_output=True, text=True)
        if "Unsupported .version" not in done.stderr:
            assert done.returncode == 0, done.stderr
            return done.stderr
    return None


@functools.cache
def assemblers():
    """The ptxas of the wheel nvidia-cuda-nvcc, and that of an installed toolkit."""
    site = Path(numba_cuda.__file__).parent.parent
    found = [*map(str, site.glob("nvidia/cu*/bin/ptxas")), *map(str, site.glob("nvidia/cuda_nvcc/bin/ptxas"))]
    return [*found, *filter(None, [shutil.which("ptxas")])]


@pytest.mark.skipif(not assemblers(), reason="there is no ptxas")
def test_ptxas_reads_what_is_compiled(compiled):
    """So that the reports above are not all missing."""

    def nothing(x):
        x[0] = 1.0

    ptx, _ = cuda.compile(nothing, (numba.float64[:],), device=False, abi="numba", cc=(9, 0))
    assert assembled(ptx, "sm_90") is not None


@pytest.mark.slow  # of three kernels in one
def test_doses_tables_stops_and_events(compiled):
    """Of these not all is inlined, but nothing is called that is not there."""
    seen, capabilities = compiled
    capabilities += [(9, 0)]
    options = {"doses": jumping.moving, "stops": [1.0, 2.3], "events": jumping.CASES["events and doses"][1]["events"]}
    ensemble_value_and_gradient(KNOWN["tables"], least_squares(), jumping.SPAN, backend="cuda", **options)(*inputs())
    assert [name for name, _, _ in seen] == ["entry"]
    ptx = seen[0][1]
    assert len(re.findall(r"^\.visible \.entry", ptx, re.MULTILINE)) == 1 and ".extern .func" not in ptx
    report = assembled(ptx, "sm_90")
    assert report is None or "sm_90" in report
