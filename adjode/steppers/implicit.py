"""What implicit Runge-Kutta steps share: predictor, scaled norms, error estimate, what is kept from step to step."""

from __future__ import annotations

import math
from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.views import row
from adjode.linalg.mass import multiply
from adjode.status import CALLBACK_RAISED, NEWTON_FAILED, NON_FINITE, SUCCESS
from adjode.steppers.explicit import combine_loops, make_dense_output, scaled_squares
from adjode.steppers.frozen import CURRENT, OLDER, STALE, Frozen
from adjode.steppers.start import make_start

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


class ImplicitStepper:
    """The kernels of implicit Runge-Kutta steps; see `Stepper`.

    Parameters
    ----------
    derivative : kernel
        `derivative(frame, t, y, dy, q) -> status`.
    frozen : Frozen
    solve_stages : kernel
        `solve_stages(frame, t, h, t_new, V) -> status` finds K[1..] and V[1..] by the frozen matrix as it is: SUCCESS,
        CALLBACK_RAISED, NEWTON_FAILED or NON_FINITE.

    Attributes
    ----------
    begin, to_slope : kernels or None
        With a mass matrix, what `make_start` makes. K[0] is then f at the start of a step, M times the slope.
    """

    implicit = True
    keeps_steps = True  # whether step sizes are held, so that a factorisation serves more steps than one

    def __init__(self, derivative: Callable, frozen: Frozen, solve_stages: Callable):
        self.combine = combine_loops
        self.dense_output = dense_output = make_dense_output(combine_loops)
        self.error_norm = _make_error_norm(derivative, frozen)
        self.extra_stages = None
        self.begin: Callable | None
        self.to_slope: Callable | None
        self.begin, self.to_slope = make_start(frozen)
        refresh, massed = frozen.refresh, frozen.massed

        @kernel
        def step_stages(frame, t, h, t_new, V, first, last):
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

        @kernel
        def enter(frame):
            """Forget the step before: the state is new."""
            clock = slots.CLOCK(frame)
            clock[slots.H_PREVIOUS] = clock[slots.H_LAST] = 0.0

        @kernel
        def accept(frame, h):
            """Keep what the next step uses."""
            count, clock = slots.COUNT(frame), slots.CLOCK(frame)
            dense_output(frame, h, slots.PREVIOUS(frame))
            clock[slots.H_PREVIOUS] = h
            if massed:
                _put_mass_before_slope(frame)
            count[slots.FRESHNESS] = STALE if slow_newton(frame) else OLDER

        self.step_stages, self.enter, self.accept = step_stages, enter, accept


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


def _make_error_norm(derivative: Callable, frozen: Frozen) -> Callable:
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

    @kernel
    def error_norm(frame, h, count, rtol, y_new, first, second, size):
        """Scaled norm of the step's error estimate, and of a quadrature's; see `Stepper`.

        The filtered estimate of a large step into a transient may be far too large; where it would reject such a step it is formed
        again from the slope at y + estimate, of which the transient has been filtered out (Hairer, Wanner II, IV.8, equation 8.20).
        """
        E, K, error = slots.E(frame), slots.K(frame), slots.ERROR(frame)
        estimate(frame, h)
        if slots.SETTING(frame)[slots.FILTERED] == 0:
            total = scaled_squares(frame, error, y_new, rtol)
        else:
            filtered(frame, error, h)
            total = scaled_squares(frame, error, y_new, rtol)
            counts = slots.COUNT(frame)
            again = slots.EIGENVALUES(frame).size > 1 and (counts[slots.STEPS] == 0 or counts[slots.RETRY] == 1)
            if again and total > error.size:
                y, q = slots.Y(frame), slots.Q(frame)
                state, slope = row(slots.Z(frame), 0), row(slots.RIGHT(frame), 0)
                for k in range(y.size):
                    state[k] = y[k] - error[k]
                counts[slots.DERIVATIVES] += 1
                t = slots.CLOCK(frame)[slots.T]
                if derivative(frame, t, state, slope, row(q, q.shape[0] - 1)) == 0:
                    estimate(frame, h)
                    for k in range(y.size):
                        error[k] += h * E[0, 0] * (slope[k] - K[0, k])
                    filtered(frame, error, h)
                    total = scaled_squares(frame, error, y_new, rtol)
        total += first
        return math.sqrt(total / (error.size + size)) if total > 0.0 else total

    return error_norm
