"""Arrays that may lie on a GPU, of numba-cuda or of any library with the CUDA array interface or DLPack; imports none of them."""

from __future__ import annotations

from typing import Any

import numpy as np

_ON_CUDA = (2, 13)  # kDLCUDA and kDLCUDAManaged of DLPack


def is_device_array(array: Any) -> bool:
    """Whether an array lies on a GPU."""
    if isinstance(array, np.ndarray):
        return False
    if hasattr(array, "__cuda_array_interface__") or getattr(array, "__cuda_ndarray__", False):
        return True
    return hasattr(array, "__dlpack_device__") and array.__dlpack_device__()[0] in _ON_CUDA


def to_host(array: Any) -> np.ndarray:
    """A NumPy array, or an array of numba-cuda as one."""
    return array.copy_to_host() if getattr(array, "__cuda_ndarray__", False) else array
