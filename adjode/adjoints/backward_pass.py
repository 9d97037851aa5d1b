"""`BackwardPass`: what an adjoint hands to the sweep: a kernel, its arrays, a state to integrate back and where to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adjode.slot import Slot


@dataclass(frozen=True, eq=False)
class BackwardPass:
    """
    Attributes
    ----------
    name, make : str, callable
        The entry to run, as `Calls.entry` has it.
    arrays : dict of slot -> array
        What it needs in the frame.
    y : array
        The state at the start.
    stops : (k,) array
    atol : array like y
    lam_from : int
        lam is y[lam_from:].
    """

    name: str
    make: Callable
    arrays: dict[Slot, np.ndarray]
    y: np.ndarray
    stops: np.ndarray
    atol: np.ndarray
    lam_from: int
