"""Whether a backsolve has come back to where the solve began."""

from __future__ import annotations

import warnings

from adjode.adjoints import backsolve
from adjode.api.solved import Solved
from adjode.compile import slots
from adjode.passes.base import Integration
from adjode.status import Status, solve_error

# How far, in tolerances, a backsolve may end from the true initial state before its gradient is refused. Local errors of one
# tolerance a step add up along a trajectory, so some drift is no fault.
DRIFT_LIMIT = 100.0


def check_drift(solution: Solved, made: Integration, on_drift: str) -> float:
    """How far the state has ended from the initial one, in tolerances; a SolveError or a warning if that is too far."""
    forward = solution.options
    atol_u = forward.absolute_tolerances(solution.u.shape[1]) if forward.adaptive else None
    drift = float(backsolve.drift(solution.u, made.frame[slots.Y], forward.rtol, atol_u))
    if drift <= DRIFT_LIMIT:
        return drift
    error = solve_error(
        Status.BACKSOLVE_DRIFT,
        phase="adjoint",
        t=float(solution.t[0]),
        step_size=made.place[1],
        drift=drift,
        hint="Use adjoint='interpolating', or reanchor=True",
    )
    if on_drift == "raise":
        raise error
    warnings.warn(str(error), RuntimeWarning, stacklevel=6)
    return drift
