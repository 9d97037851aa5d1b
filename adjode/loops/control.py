"""Step size control: the starting step and the PI controller."""

from __future__ import annotations

import math

from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.views import row
from adjode.status import CALLBACK_RAISED, STEP_TOO_SMALL, SUCCESS
from adjode.steppers.implicit import MAX_ITERATIONS, slow_newton

SAFETY = 0.9
MIN_FACTOR = 0.2
MAX_FACTOR = 10.0
_BETA = 0.1  # weight of the previous error, in units of 1/k: half of what dopri5.f has, so that growing steps lag less
_KEPT_STEP = 1.2
_LOG_LEAST_ERROR = math.log(1e-4)  # a lucky tiny error must not hold the next step back


@exact_kernel
def step_factor(error, log_previous, order):
    """What to multiply the step by after an error norm of `error`, with k = order + 1; and the logarithm to call with next.

    PI control after an accepted step, 0.9 error^(-(1 - 3/4 beta)/k) previous^(beta/k); 0.9 error^(-1/k) after a rejected one; the
    smallest factor if the error is not finite.
    """
    if not error < math.inf:
        return MIN_FACTOR, log_previous
    if error == 0.0:
        return MAX_FACTOR, _LOG_LEAST_ERROR
    logarithm = math.log(error)
    if error > 1.0:
        exponent = -logarithm
    else:
        exponent = (0.75 * _BETA - 1.0) * logarithm + _BETA * log_previous
    if logarithm < _LOG_LEAST_ERROR:
        logarithm = _LOG_LEAST_ERROR
    factor = SAFETY * math.exp(exponent / (order + 1.0))
    if factor < MIN_FACTOR:
        return MIN_FACTOR, logarithm
    return (MAX_FACTOR if factor > MAX_FACTOR else factor), logarithm


@exact_kernel
def pi_factor(frame, norm, h):
    """`step_factor` as the loop calls it."""
    return step_factor(norm, slots.CLOCK(frame)[slots.LOG_ERROR], slots.CONTROL(frame)[slots.ERROR_ORDER])


@exact_kernel
def predictive_factor(frame, norm, h):
    """The same for implicit methods: the predictive controller of Gustafsson (1994), ACM TOMS 20, 496-517.

    More Newton iterations than usual mean a shorter step, and a step that would change by less than a fifth is kept, so that its
    factorisation serves again (Hairer, Wanner, Solving ODEs II, section IV.8).
    """
    clock, count = slots.CLOCK(frame), slots.COUNT(frame)
    log_previous, h_last, k = clock[slots.LOG_ERROR], clock[slots.H_LAST], slots.CONTROL(frame)[slots.ERROR_ORDER] + 1.0
    if not norm < math.inf:
        return MIN_FACTOR, log_previous
    logarithm = math.log(norm) if norm > 1e-4 else _LOG_LEAST_ERROR
    exponent = -logarithm / k
    if h_last != 0.0:
        trend = math.log(abs(h) / h_last) + (log_previous - logarithm) / k
        exponent += trend if trend < 0.0 else 0.0
    iterations = 2.0 * MAX_ITERATIONS
    factor = SAFETY * (iterations + 1.0) / (iterations + count[slots.LAST_ITERATIONS]) * math.exp(exponent)
    if norm <= 1.0:
        if not (slow_newton(frame) or factor > _KEPT_STEP):
            return 1.0, logarithm
    if factor < MIN_FACTOR:
        return MIN_FACTOR, logarithm
    return (MAX_FACTOR if factor > MAX_FACTOR else factor), logarithm


@kernel
def set_next_step(frame, h, h_free, lands, factor, log_error):
    """The step to try after an accepted one of h, which `lands` on a stop where one of `h_free` was wanted."""
    clock, count = slots.CLOCK(frame), slots.COUNT(frame)
    if count[slots.RETRY] == 1:  # a step that has just been rejected does not grow
        factor = factor if factor < 1.0 else 1.0
        count[slots.RETRY] = 0
    clock[slots.H] = abs(h) * factor
    if not lands:
        clock[slots.LOG_ERROR], clock[slots.H_LAST] = log_error, abs(h)
    elif factor >= 1.0 and h_free > clock[slots.H]:  # the stop cut this step short: go on with the step that was wanted
        clock[slots.H] = h_free


@exact_kernel
def _scaled_norm(x, y, atol, rtol):
    """Root mean square of x / (atol + rtol |y|), entries with a zero scale left out."""
    total = 0.0
    for k in range(x.size):
        scale = atol[k] + rtol * abs(y[k])
        if scale > 0.0:
            ratio = x[k] / scale
            total += ratio * ratio
    return math.sqrt(total / x.size) if x.size > 0 else 0.0


_START = 2  # the row of K for the first slope where K[0] has f


def _make_slopes(derivative, to_slope):
    """`at_start(frame)`, the row of K with du/dt at the start, where f is in K[0]; `at_trial(frame, t, u, slope, q) -> status`."""
    if to_slope is None:

        @kernel
        def at_start(frame):
            return 0

        return at_start, derivative

    @kernel
    def at_start_with_mass(frame):
        K = slots.K(frame)
        start = row(K, _START)
        for k in range(start.size):
            start[k] = K[0, k]
        to_slope(frame, start)
        return _START

    @kernel
    def at_trial(frame, t, u, slope, q):
        status = derivative(frame, t, u, slope, q)
        if status == 0:
            to_slope(frame, slope)
        return status

    return at_start_with_mass, at_trial


def make_initial_step(derivative, to_slope=None):
    """`to_slope(frame, f)` makes slopes of f where there is a mass matrix."""
    at_start, at_trial = _make_slopes(derivative, to_slope)

    @kernel
    def initial_step(frame, t, stage, room):
        """The starting step of Hairer, Norsett, Wanner I, II.4 as SciPy has it, into CLOCK[H]; one evaluation; the status.

        It evaluates no further than `room` from t. Overwrites `stage` and K[1], with a mass matrix K[2] too.
        """
        clock, control = slots.CLOCK(frame), slots.CONTROL(frame)
        direction, span, rtol = control[slots.DIRECTION], control[slots.SPAN], control[slots.RTOL]
        y, atol = slots.Y(frame), slots.ATOL(frame)
        K, q = slots.K(frame), slots.Q(frame)
        start = row(K, at_start(frame))
        d0 = _scaled_norm(y, y, atol, rtol)
        d1 = _scaled_norm(start, y, atol, rtol)
        h0 = min(1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1, span, room)
        if not h0 > 0.0:  # the slope is too large for its square to be a number
            clock[slots.H_TRIED] = h0
            return STEP_TOO_SMALL
        for k in range(y.size):
            stage[k] = y[k] + direction * h0 * start[k]
        slope = row(K, 1)
        slots.COUNT(frame)[slots.DERIVATIVES] += 1
        if at_trial(frame, t + direction * h0, stage, slope, row(q, q.shape[0] - 1)) != 0:
            return CALLBACK_RAISED
        for k in range(y.size):
            slope[k] -= start[k]
        d2 = _scaled_norm(slope, y, atol, rtol) / h0
        largest = d1 if d1 > d2 else d2
        if largest <= 1e-15:
            h1 = 1e-6 if h0 < 1e-3 else h0 * 1e-3
        else:
            h1 = math.exp(math.log(0.01 / largest) / (control[slots.ERROR_ORDER] + 1.0))
        if not h1 > 0.0:  # the trial step overflowed
            h1 = h0
        if h1 > 100.0 * h0:
            h1 = 100.0 * h0
        clock[slots.H] = span if h1 > span else h1
        return SUCCESS

    return initial_step
