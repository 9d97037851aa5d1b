"""The error that a transposed implicit step makes.

It multiplies lam by R(z), z = h J^T, where exp(z) would be right. The difference is C z^(p+1) for small z, little for large ones.
A sum of the cotangents of the slopes (tableaus/adjoint_error.py) is z^(q-1) h lam for small z; the factors of the frozen matrix
raise its power as D = z Q, Q = 1 / (1 - gamma z), and Q makes it as small for large z as the error is. Times J^T that is an
estimate of which a power is the error, by its ratio to lam; and times J_theta^T, with the same factor, that of theta_bar: what a
stiff part of lam makes wrong in one step, its decay in the next one mends.

Cotangents of states inside the step spoil that sum. Then it is C D^(p+1) Q lam, which trusts the frozen matrix more, and for those
cotangents C(x) D^(q+1) Q, with the order q of the dense output there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.views import row
from adjode.linalg.mass import multiply_transposed
from adjode.status import CALLBACK_RAISED, SUCCESS
from adjode.steppers.frozen import Frozen

ERROR, SLOPE, SEEDS, FIRST_STAGE, BEFORE = range(5)  # the rows of STEP_ERROR


@exact_kernel
def size_of(values, sizes):
    """The largest entry in these units, infinity for one that is not a number, and which it is."""
    largest, entry = 0.0, 0
    for k in range(values.size):
        size = abs(values[k]) * sizes[k]
        if not size <= largest:
            largest, entry = size if size < math.inf else math.inf, k
    return largest, entry


@kernel
def shares_first_stage(frame):
    """Whether a part of lam is pulled back only with the step before, by the slope at the start that is the last one of that."""
    return slots.A(frame)[slots.SETTING(frame)[slots.LAST_STAGE], 0] != 0.0


def _make_resolve(frozen: Frozen) -> tuple[Callable, Callable, Callable]:
    """x = x / (1 - gamma z) for cotangents of slopes and of states, and what makes one of the other."""
    solve, massed = frozen.solve_transposed, frozen.massed

    @kernel
    def resolve(frame, x):
        """x = (M^T - h gamma J^T)^-1 x"""
        factor = slots.EIGENVALUES(frame)[0] / slots.CLOCK(frame)[slots.H_FACTORED]
        for k in range(x.size):
            x[k] *= factor
        solve(frame, x)

    @kernel
    def multiply(frame, x):
        """x = M^T x"""
        if massed:
            product = row(slots.MASSED(frame), 0)
            multiply_transposed(frame, x, product)
            for k in range(x.size):
                x[k] = product[k]

    @kernel
    def damp_slope(frame, x):
        multiply(frame, x)
        resolve(frame, x)

    @kernel
    def damp_state(frame, x):
        resolve(frame, x)
        multiply(frame, x)

    return damp_slope, damp_state, resolve


def _make_raise_power(damp: Callable) -> Callable:
    @kernel
    def raise_power(frame, x):
        """x = D x"""
        before, mu = row(slots.STEP_ERROR(frame), BEFORE), slots.EIGENVALUES(frame)[0]
        for k in range(x.size):
            before[k] = x[k]
        damp(frame, x)
        for k in range(x.size):
            x[k] = mu * (x[k] - before[k])

    return raise_power


def _make_by_stages(damp: Callable) -> Callable:
    raise_power = _make_raise_power(damp)

    @kernel
    def by_stages(frame, h, x):
        """From the sum over the stages to the w of which the error is J^T w."""
        stretch = h / slots.CLOCK(frame)[slots.H_FACTORED]
        for _ in range(slots.LAM_POWERS(frame)[1]):
            raise_power(frame, x)
            for k in range(x.size):
                x[k] *= stretch
        damp(frame, x)

    return by_stages


def _make_by_lam(damp: Callable, resolve: Callable) -> Callable:
    raise_power = _make_raise_power(damp)

    @kernel
    def by_lam(frame, h, x):
        """The same from LAM and the cotangents inside the step."""
        rows, lam, powers = slots.STEP_ERROR(frame), slots.LAM(frame), slots.LAM_POWERS(frame)
        factor, stretch = slots.LAM_FACTORS(frame)[2], h / slots.CLOCK(frame)[slots.H_FACTORED]
        for k in range(x.size):
            x[k] = factor * (lam[k] + rows[FIRST_STAGE, k])
        for p in range(powers[2], 0, -1):
            if p == powers[3]:
                for k in range(x.size):
                    x[k] += rows[SEEDS, k]
                    rows[SEEDS, k] = 0.0
            raise_power(frame, x)
            for k in range(x.size):
                x[k] *= stretch
        damp(frame, x)
        resolve(frame, x)
        for k in range(x.size):
            x[k] *= h

    return by_lam


@exact_kernel
def _error_of_ratio(frame, estimate):
    """What makes an error of the estimate by the stages: the power of its ratio to lam that has the order of the method."""
    sizes, power = slots.U_SIZE(frame), 1.0
    before, size = size_of(slots.LAM(frame), sizes)[0], size_of(estimate, sizes)[0]
    ratio = min(size / before if before > 0.0 else 1.0, 1.0)
    for _ in range(slots.LAM_POWERS(frame)[0] - 2):
        power *= ratio
    return slots.LAM_FACTORS(frame)[1] * math.sqrt(power)


@kernel
def _seeded(rows):
    largest = 0.0
    for k in range(rows.shape[1]):
        largest = max(largest, abs(rows[SEEDS, k]))
    return largest > 0.0


def make_step_error(pull: Callable, product: Callable, frozen: Frozen) -> Callable:
    """`pull(frame, t, u, w, u_bar, theta_bar) -> status` gives the products with both Jacobians, `product` that with J alone."""
    damp_slope, damp_state, resolve = _make_resolve(frozen)
    by_stages, by_lam = _make_by_stages(damp_slope), _make_by_lam(damp_state, resolve)

    @kernel
    def step_error(frame, t, h, t_new, V):
        """The error of the step that has been pulled back: of lam in ERROR, of theta_bar in THETA_BAR; the status."""
        rows = slots.STEP_ERROR(frame)
        slope, seeded = row(rows, SLOPE), _seeded(rows)
        if seeded:
            by_lam(frame, h, slope)
        else:
            by_stages(frame, h, slope)
        if shares_first_stage(frame):
            if product(frame, t, row(V, 0), row(slots.K_BAR(frame), 0), row(rows, FIRST_STAGE)) != 0:
                return CALLBACK_RAISED
        # where the error is when the step is done: of what stiff parts leave behind nothing is in others, whose J they decay by
        error, theta_bar = row(rows, ERROR), slots.THETA_BAR(frame)
        if pull(frame, t, row(V, 0), slope, error, theta_bar) != 0:
            return CALLBACK_RAISED
        if not seeded:
            factor = _error_of_ratio(frame, error)
            for k in range(error.size):
                error[k] *= factor
            for i in range(theta_bar.size):
                theta_bar[i] *= factor
        return SUCCESS

    return step_error
