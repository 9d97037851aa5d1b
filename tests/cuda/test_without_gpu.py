"""What a machine without a GPU, or without numba-cuda, says."""

import importlib.util
import os

import numpy as np
import pytest

from adjode import ensemble_value_and_gradient, solve_ensemble
from adjode.backends.cuda.arrays import is_device_array
from adjode.losses import FinalState
from tests.problems.systems import LV_SPAN, LV_THETA, LV_U0, lotka_volterra

INSTALLED = importlib.util.find_spec("numba_cuda") is not None
ROWS = np.tile(LV_U0, (2, 1))


def has_gpu():
    if not INSTALLED:
        return False
    from numba import cuda

    return cuda.is_available()


without_gpu = pytest.mark.skipif(has_gpu(), reason="there is a GPU, or a simulated one")


def gradient():
    ensemble_value_and_gradient(lotka_volterra(), FinalState([1.0, 0.0]), LV_SPAN, backend="cuda")(ROWS, LV_THETA)


def solution():
    solve_ensemble(lotka_volterra(), ROWS, LV_THETA, LV_SPAN, backend="cuda")


@pytest.mark.skipif(has_gpu(), reason="there is a GPU, or a simulated one")
@pytest.mark.parametrize("run", [gradient, solution])
def test_one_sentence_says_what_is_missing_and_how_to_get_it(run):
    said = "an NVIDIA GPU with its driver, but none was found: .*" if INSTALLED else "numba-cuda, which is not installed"
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0" and INSTALLED:
        said = "does not work with NUMBA_DISABLE_JIT"
    with pytest.raises(RuntimeError if INSTALLED else ImportError, match=f"backend='cuda' needs {said}") as caught:
        run()
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


class OnGpu:
    """An array as other libraries have it."""

    __cuda_array_interface__: dict = {}


class OnGpuByDlpack:
    def __init__(self, device):
        self._device = device

    def __dlpack_device__(self):
        return self._device, 0


def test_which_arrays_lie_on_a_gpu():
    assert is_device_array(OnGpu()) and is_device_array(OnGpuByDlpack(2)) and is_device_array(OnGpuByDlpack(13))
    assert not any(map(is_device_array, (np.zeros(3), [1.0], 2.0, OnGpuByDlpack(1))))


def test_arrays_on_a_gpu_and_threads():
    with pytest.raises(TypeError, match="u0 lies on a GPU: use backend='cuda' without an executor, or copy it to the host first"):
        ensemble_value_and_gradient(lotka_volterra(), FinalState([1.0, 0.0]), LV_SPAN)(OnGpu(), LV_THETA)
