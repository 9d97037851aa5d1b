"""One attempt at a step: the step, its error, and what follows from that for the next one.

A pass differs from others in three things, and what is here is made of kernels that know of one each: the method (a stepper), the
quadrature beside the state if there is one (`Quadrature`), and how finely it must tell times apart (`COARSE`, `FINE`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.finite import all_finite
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.views import plane, row, unlikely
from adjode.loops.along import within_reach
from adjode.loops.control import make_initial_step, pi_factor, predictive_factor, set_next_step
from adjode.loops.events import CLEAR, HAPPENS, NOTHING, RETRY, leave_guards, make_find_event, meet_event
from adjode.loops.limits import limited
from adjode.loops.quadrature import NoQuadrature, Quadrature
from adjode.loops.record import dense_at, needs_dense, observe, record, record_start, stages_at
from adjode.loops.stops import clearance, keep_off, next_end, room
from adjode.status import CALLBACK_RAISED, NEWTON_FAILED, NON_FINITE, STEP_TOO_SMALL, SUCCESS
from adjode.steppers.stepper import Stepper

_NEWTON_SHRINKS = 0.5  # what to multiply the step by where Newton's iteration fails

# --- where a step ends, and how small it may be --------------------------------------------------------------------------------


@exact_kernel
def _coarse_step(frame, t, h_free, stop, lands):
    """The step, where it ends, and what that lacks by rounding: h is what the mesh will say to the last bit, so nothing."""
    t_new = stop if lands else t + slots.CONTROL(frame)[slots.DIRECTION] * h_free
    return t_new - t, t_new, 0.0


@kernel
def _coarse_resolution(frame, t):
    """What the smallest step is measured by."""
    return abs(t)


@exact_kernel
def _fine_step(frame, t, h_free, stop, lands):
    """The same by a compensated sum, so that a step may be below the spacing of t."""
    rest, direction = slots.CLOCK(frame)[slots.T_REST], slots.CONTROL(frame)[slots.DIRECTION]
    if lands:
        return (stop - t) - rest, stop, 0.0
    h = direction * h_free
    t_new = t + (h + rest)
    return h, t_new, (h + rest) - (t_new - t)


@exact_kernel
def _fine_resolution(frame, t):
    """t, or the time since the last stop if less, but not the square of the spacing at t."""
    clock = slots.CLOCK(frame)
    since = abs((t - clock[slots.T_FROM]) + clock[slots.T_REST]) + slots.CONTROL(frame)[slots.EPS] * abs(t)
    return since if since < abs(t) else abs(t)


COARSE, FINE = (_coarse_step, _coarse_resolution), (_fine_step, _fine_resolution)


# --- kernels of a method ----------------------------------------------------------------------------------------------------------


def make_steps(
    derivative: Callable, integrand: Callable | None, stepper: Stepper, guarded: bool = False
) -> tuple[Callable, Callable]:
    """For one method: `enter(frame, t) -> status` at a new place, `step_on(frame, t, stop) -> status` for an attempt at a step."""
    quadrature = NoQuadrature() if integrand is None else Quadrature(integrand, stepper)
    # behind a jump of lam a stiff transient may be over before t, as a floating-point number, has changed
    times = FINE if stepper.implicit and integrand is not None else COARSE
    longest = limited if integrand is None else within_reach
    end_at = _make_end_at_event(stepper) if guarded else _end_as_taken
    meet, leave = (meet_event, leave_guards) if guarded else (_meet_none, _leave_none)
    return make_enter(derivative, stepper, quadrature), make_step_on(stepper, quadrature, times, longest, (end_at, meet, leave))


def make_enter(derivative: Callable, stepper: Stepper, quadrature: Quadrature) -> Callable:
    begin_quadrature, enter_method, begin_method = quadrature.begin, stepper.enter, stepper.begin
    initial_step = make_initial_step(derivative, stepper.to_slope)

    @kernel
    def first_slope(frame, t, stage):
        """K[0] at a new place."""
        clock, y, slope = slots.CLOCK(frame), slots.Y(frame), row(slots.K(frame), 0)
        clock[slots.T_TRIED], clock[slots.H_TRIED] = t, 0.0
        slots.COUNT(frame)[slots.DERIVATIVES] += 1
        for k in range(y.size):
            stage[k] = y[k]  # where an exception came from
        if derivative(frame, t, stage, slope, row(slots.Q(frame), 0)) != 0:
            return CALLBACK_RAISED
        return SUCCESS if all_finite(slope) else NON_FINITE

    @kernel
    def enter(frame, t):
        """Evaluate K[0] (and the integrand) at a new place; choose the first step."""
        count = slots.COUNT(frame)
        stage = row(plane(slots.STAGES(frame), stages_at(frame, count[slots.STEPS])), 0)
        status = first_slope(frame, t, stage)
        if status == SUCCESS:
            status = begin_quadrature(frame, t, stage)
        if status != SUCCESS:
            return status
        count[slots.FRESH] = 1
        enter_method(frame)
        status = begin_method(frame, t)
        if status == SUCCESS and slots.CLOCK(frame)[slots.H] == 0.0:
            return initial_step(frame, t, stage, room(frame, t))
        return status

    return enter


def _make_error_of(stepper: Stepper, quadrature: Quadrature) -> Callable:
    step_error, stages_error, in_size_left = stepper.error_norm, quadrature.along_stages, quadrature.in_size_left

    @kernel
    def error_of(frame, t, h, t_new, V):
        """(status, error norm) of the step just computed; a norm of NaN if it is not finite, and 0 if nobody asks."""
        setting = slots.SETTING(frame)
        last = setting[slots.LAST_STAGE]
        status, first, second, joined = stages_error(frame, t, h, t_new, V)
        if status != SUCCESS:
            return status, 0.0
        y_new = row(V, last)
        if setting[slots.ADAPTIVE] == 1:
            norm = step_error(frame, h, last + 1, slots.CONTROL(frame)[slots.RTOL], y_new, first, second, joined)
            norm = in_size_left(frame, norm, y_new)
        else:
            norm = 0.0 if all_finite(y_new) else math.nan
        return SUCCESS, math.nan if math.isnan(first) else norm

    return error_of


def _make_try_step(stepper: Stepper, quadrature: Quadrature) -> Callable:
    take, dense_output, along_dense_output = stepper.take, stepper.dense_output, quadrature.along_dense_output
    next_factor = predictive_factor if stepper.keeps_steps else pi_factor
    error_of = _make_error_of(stepper, quadrature)

    @kernel
    def try_step(frame, t, h, t_new, V, coefficients, dense):
        """Take one step: (status, its error norm, the factor for the next step, the logarithm of the norm).

        A norm of at most 1 is an accepted step; NaN is not.
        """
        status = take(frame, t, h, t_new, V)
        if status in (NON_FINITE, NEWTON_FAILED):
            return SUCCESS, math.nan if status == NON_FINITE else math.inf, _NEWTON_SHRINKS, 0.0
        norm = 0.0
        if status == SUCCESS:
            status, norm = error_of(frame, t, h, t_new, V)
        if status != SUCCESS:
            return status, 0.0, 0.0, 0.0
        factor, log_error = next_factor(frame, norm, h)
        if norm <= 1.0 and dense:
            status = dense_output(frame, t, h, t_new, V, coefficients)
            if status == SUCCESS:
                status, norm, factor = along_dense_output(frame, t, h, t_new, V, coefficients, norm, factor)
        return status, norm, factor, log_error

    return try_step


def _make_accept(stepper: Stepper, quadrature: Quadrature) -> Callable:
    accept_method, accept_quadrature = stepper.accept, quadrature.accept

    @kernel
    def accept(frame, t, h, y_new, log_error):
        """Record the step and move to its end."""
        count, y, K, kinds = slots.COUNT(frame), slots.Y(frame), slots.K(frame), slots.MESH_KIND(frame)
        accept_method(frame, h)
        record(frame, count[slots.STEPS], t)
        if kinds.size > 0:
            kinds[count[slots.STEPS]] = slots.EXPLICIT_STEP  # a method that switches says itself which it is
        last = slots.SETTING(frame)[slots.LAST_STAGE]
        for k in range(y.size):
            y[k] = y_new[k]
            K[0, k] = K[last, k]
        accept_quadrature(frame, log_error)
        count[slots.STEPS] += 1

    return accept


def _make_reject(resolution: Callable, infinite: int) -> Callable:
    @kernel
    def reject(frame, t, h, norm, factor):
        """Have a shorter step tried: SUCCESS, or what it means that there is none."""
        count, clock, control = slots.COUNT(frame), slots.CLOCK(frame), slots.CONTROL(frame)
        count[slots.REJECTED] += 1
        count[slots.RETRY] = 1
        clock[slots.H] = abs(h) * factor
        smallest = 10.0 * control[slots.EPS] * (resolution(frame, t) + 1e-100 * control[slots.SPAN])
        if slots.SETTING(frame)[slots.ADAPTIVE] and clock[slots.H] > smallest:
            return SUCCESS
        if norm == math.inf:
            return infinite
        return STEP_TOO_SMALL if norm < math.inf else NON_FINITE

    return reject


@kernel
def _end_as_taken(frame, t, h, t_new, rest, V, coefficients, dense):
    return SUCCESS, CLEAR, h, t_new, rest


@kernel
def _meet_none(frame, t):
    return SUCCESS


@kernel
def _leave_none(frame):
    pass


def _make_end_at_event(stepper: Stepper) -> Callable:
    find_event = make_find_event(stepper)

    @kernel
    def end_at_event(frame, t, h, t_new, rest, V, coefficients, dense):
        """The step, taken again to the first event in it: (status, what it ends with, its size, its end, what that lacks)."""
        if slots.GUARD_SIGNS(frame).size == 0:
            return SUCCESS, CLEAR, h, t_new, rest
        status, what, t_new = find_event(frame, t, h, t_new, V, coefficients, dense)
        if not unlikely(what > NOTHING):
            return status, what, h, t_new, rest
        return status, what, t_new - t, t_new, 0.0

    return end_at_event


def _make_finish(stepper: Stepper, quadrature: Quadrature, meet: Callable, leave: Callable) -> Callable:
    accept = _make_accept(stepper, quadrature)

    @kernel
    def finish(frame, step, what, control):
        """Observe and record a step, and go on behind it; who observes near an event sees the state behind it."""
        (t, h, t_new, rest, V, coefficients), (h_free, lands, factor, log_error) = step, control
        clock, setting = slots.CLOCK(frame), slots.SETTING(frame)
        y_new, t_seen = row(V, setting[slots.LAST_STAGE]), t_new
        if unlikely(what == HAPPENS):
            t_seen -= clearance(frame)
        if not unlikely(h == 0.0):
            observe(frame, t, h, t_seen, y_new, coefficients)
            accept(frame, t, h, y_new, log_error)
            clock[slots.T], clock[slots.T_REST] = t_new, rest
            if setting[slots.ADAPTIVE]:
                set_next_step(frame, h, h_free, lands, factor, log_error)
        if unlikely(what == HAPPENS):
            return meet(frame, t_new)
        if unlikely(what == NOTHING):
            leave(frame)
        return SUCCESS

    return finish


def make_step_on(
    stepper: Stepper, quadrature: Quadrature, times: tuple[Callable, Callable], longest: Callable, events: tuple[Callable, ...]
) -> Callable:
    end_of_step, resolution = times
    end_at, meet, leave = events
    try_step, finish = _make_try_step(stepper, quadrature), _make_finish(stepper, quadrature, meet, leave)
    reject = _make_reject(resolution, stepper.infinite_error)

    @kernel
    def step_on(frame, t, stop):
        """One attempt at a step towards the stop."""
        clock, most = slots.CLOCK(frame), slots.CONTROL(frame)[slots.MAX_STEP]
        slot = slots.COUNT(frame)[slots.STEPS]
        V, coefficients = plane(slots.STAGES(frame), stages_at(frame, slot)), plane(slots.MESH_C(frame), dense_at(frame, slot))
        h_free = longest(frame, t, clock[slots.H] if clock[slots.H] < most else most)
        h_free, lands, across = next_end(frame, t, h_free, abs(stop - t))
        h, t_new, rest = end_of_step(frame, t, h_free, stop, lands)
        clock[slots.T_TRIED], clock[slots.H_TRIED] = t, h
        if h == 0.0:  # below the spacing of floating-point numbers at t
            return STEP_TOO_SMALL
        slots.COUNT(frame)[slots.BEFORE_GAP] = 1 if across else 0
        record_start(frame, V)
        dense = needs_dense(frame, t_new)
        status, norm, factor, log_error = try_step(frame, t, h, t_new, V, coefficients, dense)
        if status != SUCCESS:
            return status
        if not norm <= 1.0:
            return reject(frame, t, h, norm, keep_off(frame, h, norm) if across else factor)
        status, what, h, t_new, rest = end_at(frame, t, h, t_new, rest, V, coefficients, dense)
        if unlikely(status == NON_FINITE):  # a guard, which may be defined as far as the event that comes first
            return reject(frame, t, h, math.nan, _NEWTON_SHRINKS)
        if status != SUCCESS:
            return status
        if unlikely(what == RETRY):
            return reject(frame, t, h, math.inf, _NEWTON_SHRINKS)
        if unlikely(what == HAPPENS):
            lands = True
        return finish(frame, (t, h, t_new, rest, V, coefficients), what, (h_free, lands, factor, log_error))

    return step_on
