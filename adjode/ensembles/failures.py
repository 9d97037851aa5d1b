"""From the statuses of trajectories to one exception that says how many failed, which is the first, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.status import SolveError, Status, solve_error


def check_failures(status: np.ndarray, repeat: Callable[[int], Any]) -> None:
    """Raise a SolveError if a trajectory has failed; `repeat(i)` runs one by itself, which says more than a status."""
    failed = np.flatnonzero(status)
    if not failed.size:
        return
    first = int(failed[0])
    how_many = f"{failed.size} of {status.size} trajectories failed; the first is number {first}"
    try:
        repeat(first)
        reason: Exception = solve_error(int(status[first]), phase="forward", t=float("nan"))
    except (SolveError, ValueError) as error:
        reason = error
    known = reason if isinstance(reason, SolveError) else None
    raise SolveError(
        f"{how_many}: {reason}",
        phase=known.phase if known else "forward",
        status=known.status if known else Status(int(status[first])),
        t=known.t if known else float("nan"),
        step_size=known.step_size if known else 0.0,
        component=known.component if known else None,
    ) from reason
