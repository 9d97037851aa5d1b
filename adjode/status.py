"""Status codes that kernels return, and the one function that turns a code into an exception."""

from __future__ import annotations

import math
import traceback
from enum import IntEnum
from pathlib import Path

_PACKAGE = str(Path(__file__).parent)


class Status(IntEnum):
    """What a kernel reports; nothing inside a kernel raises."""

    SUCCESS = 0
    STORE_FULL = 1  # internal: the caller grows the buffers and calls again
    MAX_STEPS = 2
    STEP_TOO_SMALL = 3
    NON_FINITE = 4
    CALLBACK_RAISED = 5
    BACKSOLVE_DRIFT = 6
    NEWTON_FAILED = 7
    STAGES_UNSOLVED = 8
    INCONSISTENT = 9
    HIGH_INDEX = 10
    TIMED_OUT = 11
    INTERRUPTED = 12  # internal: the caller raises what was raised in between
    INACCURATE = 13
    DOSE_TOO_EARLY = 15
    ZENO = 16
    GRAZING = 17
    AMBIGUOUS = 18
    ENDED = 19  # internal: an event has ended the pass
    NO_DURATION = 20
    REFINE = 14  # internal: the caller solves again, with the limits that have been set to the steps


# Kernels see plain integers: Numba types an IntEnum member as its own type, which would not mix with int returns.
SUCCESS = int(Status.SUCCESS)
STORE_FULL = int(Status.STORE_FULL)
MAX_STEPS = int(Status.MAX_STEPS)
STEP_TOO_SMALL = int(Status.STEP_TOO_SMALL)
NON_FINITE = int(Status.NON_FINITE)
CALLBACK_RAISED = int(Status.CALLBACK_RAISED)
NEWTON_FAILED = int(Status.NEWTON_FAILED)
STAGES_UNSOLVED = int(Status.STAGES_UNSOLVED)
INCONSISTENT = int(Status.INCONSISTENT)
HIGH_INDEX = int(Status.HIGH_INDEX)
TIMED_OUT = int(Status.TIMED_OUT)
INTERRUPTED = int(Status.INTERRUPTED)
INACCURATE = int(Status.INACCURATE)
REFINE = int(Status.REFINE)
DOSE_TOO_EARLY = int(Status.DOSE_TOO_EARLY)
ZENO = int(Status.ZENO)
GRAZING = int(Status.GRAZING)
AMBIGUOUS = int(Status.AMBIGUOUS)
ENDED = int(Status.ENDED)
NO_DURATION = int(Status.NO_DURATION)

_REASONS = {
    Status.MAX_STEPS: "the cap of {max_steps} steps was reached; raise max_steps, loosen the tolerances, or, if the problem "
    "is stiff, choose method='Radau'",
    Status.TIMED_OUT: "the call has taken longer than max_seconds = {max_seconds:g}; raise max_seconds, loosen the tolerances, or, "
    "if the problem is stiff, choose method='Radau'",
    Status.STEP_TOO_SMALL: "the step size fell below the spacing of floating-point numbers: the solution may have a "
    "singularity or a jump here, or the tolerances may be tighter than rounding allows",
    Status.NON_FINITE: "{callback} returned NaN or infinity, or the solution overflowed, however small the step",
    Status.CALLBACK_RAISED: "{callback} raised {raised}",
    Status.BACKSOLVE_DRIFT: "the state integrated backwards ends {drift:.3g} tolerances away from the true initial state, so the "
    "gradient cannot be trusted",
    Status.NEWTON_FAILED: "Newton's iteration for the stages does not converge with this step, nor, if the step size is free, with "
    "any smaller one: check with check_vjp that vjp is right, since the Jacobian comes from it, and that f is smooth here",
    Status.STAGES_UNSOLVED: "the linear equations of a step's stages, for lam or for tangents, could not be solved to rounding: "
    "the Jacobian may be close to singular here; adjoint='interpolating' does not need them",
    Status.INACCURATE: "the gradient may be off by {units:.3g} times rtol, relative to the largest logarithmic derivative: the "
    "steps that the forward solve took are too long for its adjoint",
    Status.INCONSISTENT: "the initial state does not satisfy the algebraic equations: entry {equation} of f has {residual:.3g} "
    "where the mass matrix leaves zero, and this component would have to change by {change:.3g}, more than its tolerance; "
    "adjode.consistent_initial finds a state that does",
    Status.HIGH_INDEX: "the algebraic equations do not determine the algebraic components here (the index is not 1): differentiate "
    "the constraints in which these do not appear, and check with check_vjp that vjp is right, since the Jacobian comes from it",
    Status.DOSE_TOO_EARLY: "a dose is due before the start: its time, with its lag, must lie in the span",
    Status.NO_DURATION: "the duration of an infusion is an entry of theta that is not positive: bound it from below, or make its "
    "logarithm the parameter",
    Status.ZENO: "events follow each other without end here ({event}): a state at rest needs an event of its own, which ends the "
    "solution or changes the dynamics",
    Status.AMBIGUOUS: "events of the same priority happen at the same time ({event}), and only rounding decides in which order: "
    "give them priorities",
    Status.GRAZING: "the guard of {event} touches zero without passing through it, so its time has no derivative",
}


_UNKNOWN = {"event": "?", "residual": math.nan, "equation": "?", "change": math.nan, "max_seconds": math.nan, "units": math.nan}


class SolveError(RuntimeError):
    """A forward or backward solve that could not be completed.

    Attributes
    ----------
    phase : {"forward", "adjoint", "tangent", "loss", "input"}
        The pass that failed; "input" for input that is not finite, before any pass has begun.
    status : Status
        Why it failed.
    t : float
        The time reached.
    step_size : float
        The signed step size that was being tried.
    component : int, str or None
        The entry of the state (or of the adjoint state) with a non-finite value or the largest error, if a single one is to blame.
        It is the name if the `Dynamics` has `states=` or `parameters=`, with an index for an array: "prey", "W[0, 1]".
    """

    def __init__(
        self,
        message: str,
        *,
        phase: str,
        status: Status,
        t: float,
        step_size: float = 0.0,
        component: int | str | None = None,
    ):
        super().__init__(message)
        self.phase = phase
        self.status = status
        self.t = t
        self.step_size = step_size
        self.component = component

    def __reduce__(self):
        return _rebuild, (type(self), str(self), self.phase, self.status, self.t, self.step_size, self.component)


def _rebuild(kind, message, phase, status, t, step_size, component):
    return kind(message, phase=phase, status=status, t=t, step_size=step_size, component=component)


class NotFiniteError(SolveError, ValueError):
    """Input with NaN or infinite entries: a mistake, or a trial point of an optimiser or sampler, at which a solve fails."""


def solve_error(
    code: int,
    *,
    phase: str,
    t: float,
    step_size: float = 0.0,
    component: int | str | None = None,
    name: str | None = None,
    hint: str = "",
    cause: Exception | None = None,
    **details: object,
) -> SolveError:
    """The exception that describes status `code`; `details` fill the reason's placeholders, `cause` is what a callback raised."""
    status = Status(code)
    details["raised"] = "an exception" if cause is None else describe_error(cause)
    reason = _REASONS[status].format(**{"max_steps": "?", "callback": "a callback", "drift": math.nan, **_UNKNOWN, **details})
    where = f" (component {name or component})" if component is not None else ""
    message = f"the {phase} solve stopped at t = {t:.12g} with step size {step_size:.3g}{where}: {reason}"
    error = SolveError(
        f"{message}. {hint}." if hint else f"{message}.",
        phase=phase,
        status=status,
        t=float(t),
        step_size=float(step_size),
        component=component,
    )
    error.__cause__ = cause
    return error


def describe_error(cause: Exception) -> str:
    """Type and message of an exception, and the last line of the user's source that it passed through."""
    everywhere = list(traceback.extract_tb(cause.__traceback__))
    frames = [frame for frame in everywhere if not frame.filename.startswith(_PACKAGE)] or everywhere
    where = f" ({frames[-1].filename}, line {frames[-1].lineno}: `{frames[-1].line}`)" if frames and frames[-1].line else ""
    return f"{type(cause).__name__}: {cause}{where}"
