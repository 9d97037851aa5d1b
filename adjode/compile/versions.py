"""What is lost where a version of Numba is not as this package takes it to be: speed or start-up, with a warning, never results.

`tests/compile/test_assumptions.py` has a test for each thing that is taken for granted about Numba's inside.
"""

from __future__ import annotations

import functools
import warnings

import numba
from numba.core.registry import cpu_target

TESTED = "0.66 to 0.68"


def counts_references(wanted: bool) -> dict[str, bool]:
    """The option for Numba's decorator that says whether code counts references, if there is one; without it all code does."""
    if hasattr(cpu_target.options, "_nrt"):
        return {"_nrt": wanted}
    warn_lost("Kernels count references, which takes time", KeyError("_nrt"))
    return {}


def warn_lost(what: str, error: BaseException) -> None:
    """Warn once that `what` is the case because of an error from Numba's inside."""
    _warn(what, f"{type(error).__name__}: {error}".partition("\n")[0])


@functools.cache
def _warn(what: str, reason: str) -> None:
    warnings.warn(
        f"{what}. adjode has been tested with Numba {TESTED}. Something in Numba {numba.__version__} is not as expected: {reason}.",
        RuntimeWarning,
        stacklevel=3,
    )
