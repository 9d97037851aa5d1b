"""`Stepper`: what the loop wants of a method."""

from __future__ import annotations

from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.status import NON_FINITE, SUCCESS


@kernel
def stage_time(frame, t, h, t_new, i):
    """When stage i of a method is that has stages behind the end of a step: not behind a time at which f may jump or ends."""
    t_i = t_new if i == slots.SETTING(frame)[slots.LAST_STAGE] else t + slots.C(frame)[i] * h
    if slots.COUNT(frame)[slots.BEFORE_GAP] == 1 and slots.C(frame)[i] > 1.0:
        return t_new
    return t_i


@kernel
def _nothing_to_forget(frame):
    pass


@kernel
def _nothing_to_prepare(frame, t):
    return SUCCESS


@kernel
def _nothing_to_keep(frame, h):
    pass


class Stepper:
    """The kernels of a method.

    Attributes
    ----------
    take : (frame, t, h, t_new, V) -> status
        States of the stages into V and their slopes into K, of which row 0 is there. NEWTON_FAILED and NON_FINITE reject the step.
    error_norm : (frame, h, count, rtol, y_new, first, second, size) -> norm
        Scaled norm of that step's error estimates; NaN if the new state is not finite. `first`, `second` and `size` are sums of
        squares and a number of components, from a quadrature, that join it.
    dense_output : (frame, t, h, t_new, V, out) -> status
        The coefficients of the step's dense output, for which there may be further stages.
    combine : (out, base, h, W, i, K, count)
        The sum over stages, see `make_combine`.
    enter : (frame)
        Forget what belongs to another place.
    begin : (frame, t) -> status
        Prepare the first step from a new place, where K[0] is f.
    accept : (frame, h)
        Keep of an accepted step what the next one uses.
    to_slope : (frame, f), or None
        Make a slope of f where there is a mass matrix.
    implicit : bool
    keeps_steps : bool
        Whether step sizes are held, so that a factorisation serves more steps than one.
    infinite_error : int
        The status of a pass that no step is small enough for, if the last norm was infinite.
    """

    take: Callable
    error_norm: Callable
    dense_output: Callable
    combine: Callable
    implicit = keeps_steps = False
    infinite_error = NON_FINITE

    def __init__(self) -> None:
        self.enter: Callable = _nothing_to_forget
        self.begin: Callable = _nothing_to_prepare
        self.accept: Callable = _nothing_to_keep
        self.to_slope: Callable | None = None
