"""`Backward`: what a continuous adjoint hands to its pass: a kernel, its arrays, a state to integrate back and where to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adjode.compile.slot import Slot


@dataclass(frozen=True, eq=False)
class Backward:
    """
    Attributes
    ----------
    name, make : str, callable
        The entry to run, as `Calls.entry` has it.
    arrays : dict of slot -> array
        What it needs in the frame, beside the trajectory.
    t_start : float
        As users know it, like the stops.
    y : array
        The state there.
    stops : (k,) array
    crossed : (k,) array or None
        See `Integration`.
    atol : array like y
    lam_from : int
        lam is y[lam_from:].
    """

    name: str
    make: Callable
    arrays: dict[Slot, np.ndarray]
    t_start: float
    y: np.ndarray
    stops: np.ndarray
    atol: np.ndarray
    lam_from: int = 0
    crossed: np.ndarray | None = None
