"""What implicit Runge-Kutta steps share: predictor, scaled norms, error estimate, what is kept from step to step."""

from __future__ import annotations

import math
from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.views import row
from adjode.linalg.mass import multiply
from adjode.status import CALLBACK_RAISED, NEWTON_FAILED, NON_FINITE, SUCCESS
from adjode.steppers.explicit import combine_loops, make_interpolant, scaled_squares
from adjode.steppers.frozen import CURRENT, OLDER, STALE, Frozen
from adjode.steppers.start import make_start
from adjode.steppers.stepper import Stepper

MAX_ITERATIONS = 7  # of Newton, for one step or stage
_WITHOUT_HELP = 50  # the same with fixed steps, where no shorter step can help
_KEPT_RATE = 1e-3  # a Jacobian whose iteration contracts like this is kept (Hairer, Wanner, Solving ODEs II, IV.8)
_EPS = 2.220446049250313e-16
CONTINUE = -1  # not a status: Newton goes on


@exact_kernel
def scaled_change(frame, change):
    """Sum of squares of change / (atol + rtol |y|) over the rows of `change`; entries with a zero scale are left out."""
    y, atol, rtol, total = slots.Y(frame), slots.ATOL(frame), slots.CONTROL(frame)[slots.RTOL], 0.0
    for i in range(change.shape[0]):
        for k in range(y.size):
            scale = atol[k] + rtol * abs(y[k])
            ratio = change[i, k] / scale if scale > 0.0 else change[i, k] * 0.0
            total += ratio * ratio
    return total


@exact_kernel
def judge(frame, iteration, norm, norm_before):
    """What to make of a Newton correction of this scaled norm: SUCCESS, CONTINUE, NEWTON_FAILED or NON_FINITE.

    With the ratio `rate` of two corrections, rate / (1 - rate) times the last one is what remains. At first there is no ratio: that
    of the last solve is taken, to the power 0.8, so that a linear problem with the right Jacobian needs one iteration, and so that
    it is measured again every few solves (Hairer, Wanner, Solving ODEs II, IV.8).
    """
    clock, tolerance = slots.CLOCK(frame), slots.CONTROL(frame)[slots.NEWTON_TOL]
    slots.COUNT(frame)[slots.LAST_ITERATIONS] = iteration + 1
    limit = MAX_ITERATIONS if slots.SETTING(frame)[slots.ADAPTIVE] == 1 else _WITHOUT_HELP
    if not norm < math.inf:
        return NON_FINITE
    if iteration == 0:
        clock[slots.REMAINS] = max(clock[slots.REMAINS], _EPS) ** 0.8
    else:
        rate = norm / norm_before if norm_before > 0.0 else 0.0
        if rate >= 1.0:
            return NEWTON_FAILED
        clock[slots.REMAINS] = rate / (1.0 - rate)
        if rate ** (limit - 1 - iteration) * clock[slots.REMAINS] * norm > tolerance:
            return NEWTON_FAILED
    return SUCCESS if norm == 0.0 or clock[slots.REMAINS] * norm <= tolerance else CONTINUE


@kernel
def slow_newton(frame):
    """Whether the last solve asks for another Jacobian.

    Of a new one a third iteration does not, where the stages are solved for together: after growing steps a next one would take as
    many. A sequence of stages keeps its errors of iteration smaller with the newer one.
    """
    count, together = slots.COUNT(frame), slots.EIGENVALUES(frame).size > 1
    usual = 3 if together and count[slots.FRESHNESS] == CURRENT else 2
    return count[slots.LAST_ITERATIONS] > usual and slots.CLOCK(frame)[slots.REMAINS] > _KEPT_RATE


@kernel
def predict(frame, h, node, out):
    """out = u - y at the node of a step of h, by the dense output of the step before, continued; zero if there is none."""
    coefficients, h_before = slots.PREVIOUS(frame), slots.CLOCK(frame)[slots.H_PREVIOUS]
    x = 1.0 + node * h / h_before if h_before != 0.0 else 1.0
    for k in range(out.size):
        ahead, here = 0.0, 0.0
        for p in range(coefficients.shape[0] - 1, -1, -1):
            ahead = (coefficients[p, k] + ahead) * x
            here += coefficients[p, k]
        out[k] = ahead - here if h_before != 0.0 else 0.0


class ImplicitStepper(Stepper):
    """The kernels of implicit Runge-Kutta steps. With a mass matrix K[0] is f at the start of a step, M times the slope.

    Parameters
    ----------
    derivative : kernel
        `derivative(frame, t, y, dy, q) -> status`.
    frozen : Frozen
    solve_stages : kernel
        `solve_stages(frame, t, h, t_new, V) -> status` finds K[1..] and V[1..] by the frozen matrix as it is: SUCCESS,
        CALLBACK_RAISED, NEWTON_FAILED or NON_FINITE.
    """

    implicit = keeps_steps = True
    infinite_error = NEWTON_FAILED

    def __init__(self, derivative: Callable, frozen: Frozen, solve_stages: Callable):
        super().__init__()
        self.combine, interpolant = combine_loops, make_interpolant(combine_loops)
        self.take = _make_take(frozen, solve_stages)
        self.error_norm = _make_error_norm(derivative, frozen)
        self.dense_output = _make_dense_output(interpolant)
        self.enter = _forget_last_step
        self.accept = _make_accept(frozen, interpolant)
        if frozen.massed:
            self.begin, self.to_slope = make_start(frozen)


def _make_take(frozen: Frozen, solve_stages: Callable) -> Callable:
    refresh = frozen.refresh

    @kernel
    def take(frame, t, h, t_new, V):
        """Newton's iteration, and if it fails once more with a Jacobian of this place."""
        count, clock, y = slots.COUNT(frame), slots.CLOCK(frame), slots.Y(frame)
        while True:
            status = refresh(frame, t, y, h)
            if status == SUCCESS:
                status = solve_stages(frame, t, h, t_new, V)
            if status in (SUCCESS, CALLBACK_RAISED):
                return status
            if count[slots.FRESHNESS] != OLDER:  # it was of this place, or could not be had
                clock[slots.H_FACTORED], clock[slots.REMAINS] = 0.0, 1.0
                return status
            count[slots.FRESHNESS] = STALE

    return take


def _make_dense_output(interpolant: Callable) -> Callable:
    @kernel
    def dense_output(frame, t, h, t_new, V, out):
        interpolant(frame, h, slots.K(frame), out)
        return SUCCESS

    return dense_output


@kernel
def _forget_last_step(frame):
    clock = slots.CLOCK(frame)
    clock[slots.H_PREVIOUS] = clock[slots.H_LAST] = 0.0


def _make_accept(frozen: Frozen, interpolant: Callable) -> Callable:
    massed = frozen.massed

    @kernel
    def accept(frame, h):
        interpolant(frame, h, slots.K(frame), slots.PREVIOUS(frame))
        slots.CLOCK(frame)[slots.H_PREVIOUS] = h
        if massed:
            _put_mass_before_slope(frame)
        slots.COUNT(frame)[slots.FRESHNESS] = STALE if slow_newton(frame) else OLDER

    return accept


@kernel
def _put_mass_before_slope(frame):
    """M times the slope at the end of the step, which K[0] of the next one is to be."""
    product, last = row(slots.MASSED(frame), 0), slots.SETTING(frame)[slots.LAST_STAGE]
    slope = row(slots.K(frame), last)
    multiply(frame, slope, product)
    for k in range(slope.size):
        slope[k] = product[k]


@kernel
def _put_mass_before_estimate(frame, h):
    """M times the slopes in the error estimate, but for K[0], which has it already."""
    E, K, error = slots.E(frame), slots.K(frame), slots.ERROR(frame)
    product = row(slots.MASSED(frame), 0)
    for k in range(error.size):
        error[k] -= h * E[0, 0] * K[0, k]
    multiply(frame, error, product)
    for k in range(error.size):
        error[k] = product[k] + h * E[0, 0] * K[0, k]


def _make_estimate(frozen: Frozen) -> tuple[Callable, Callable]:
    solve, massed = frozen.solve, frozen.massed

    @kernel
    def estimate(frame, h):
        E, K, error = slots.E(frame), slots.K(frame), slots.ERROR(frame)
        combine_loops(error, None, h, E, 0, K, E.shape[1])
        if massed:
            _put_mass_before_estimate(frame, h)

    @kernel
    def filtered(frame, error, h):
        mu = slots.EIGENVALUES(frame)[0]
        solve(frame, error)
        for k in range(error.size):
            error[k] *= mu / h

    return estimate, filtered


@kernel
def _may_be_transient(frame):
    """Whether the step tried is one into a transient: the first one, or one after another was rejected."""
    count = slots.COUNT(frame)
    first = count[slots.EARLIER] + count[slots.STEPS] == 0
    return slots.EIGENVALUES(frame).size > 1 and (first or count[slots.RETRY] == 1)


def _make_error_norm(derivative: Callable, frozen: Frozen) -> Callable:
    estimate, filtered = _make_estimate(frozen)

    @kernel
    def estimate_again(frame, h):
        """The estimate with the slope at y + estimate in place of that at y; 0, or another number if f raised."""
        E, K, error, y, q = slots.E(frame), slots.K(frame), slots.ERROR(frame), slots.Y(frame), slots.Q(frame)
        state, slope, t = row(slots.Z(frame), 0), row(slots.RIGHT(frame), 0), slots.CLOCK(frame)[slots.T]
        for k in range(y.size):
            state[k] = y[k] - error[k]
        slots.COUNT(frame)[slots.DERIVATIVES] += 1
        status = derivative(frame, t, state, slope, row(q, q.shape[0] - 1))
        if status == 0:
            estimate(frame, h)
            for k in range(y.size):
                error[k] += h * E[0, 0] * (slope[k] - K[0, k])
            filtered(frame, error, h)
        return status

    @kernel
    def error_norm(frame, h, count, rtol, y_new, first, second, size):
        """See `Stepper`; root mean square.

        The filtered estimate of a large step into a transient may be far too large; where it would reject such a step it is formed
        again from the slope at y + estimate, of which the transient has been filtered out (Hairer, Wanner II, IV.8, equation 8.20).
        """
        error, filters = slots.ERROR(frame), slots.SETTING(frame)[slots.FILTERED] != 0
        estimate(frame, h)
        if filters:
            filtered(frame, error, h)
        total = scaled_squares(frame, error, y_new, rtol)
        if filters and total > error.size and _may_be_transient(frame):
            if estimate_again(frame, h) == 0:
                total = scaled_squares(frame, error, y_new, rtol)
        total += first
        return math.sqrt(total / (error.size + size)) if total > 0.0 else total

    return error_norm
