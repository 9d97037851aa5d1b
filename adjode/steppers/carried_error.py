"""The errors of transposed implicit steps, carried on over the steps before.

An error e of lam goes on as lam does, and leaves J_theta^T w in theta_bar, where J^T w is its change. The frozen matrix says how,
to first order and with all the damping that stiff parts have; a product with J itself, on the step, corrects that, and also gives
theta_bar's part. Where the correction is no small one, growth would be missed or invented, and the matrix is made anew.

What a stiff part of lam has wrong in theta_bar in one step, its decay in the next one mends. The two are large and must cancel, so
they take one Jacobian: an error is found once more by that of the step that it is carried over.
"""

from __future__ import annotations

from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.views import row
from adjode.status import CALLBACK_RAISED, NEWTON_FAILED, SUCCESS
from adjode.steppers.frozen import OLDER, STALE, Frozen
from adjode.steppers.stepper import stage_time
from adjode.steppers.transposed_error import (
    CHANGE,
    ERROR,
    FIRST_STAGE,
    OWN,
    WAY,
    WORK,
    keep_raw,
    make_own_error,
    make_resolve,
    shares_first_stage,
)

_NEAR = 0.2  # of an error: how far the frozen matrix may be off what becomes of it in a step
_MATTERS = 0.02  # units, as a part of lam: less makes no difference


def _make_follow(multiply: Callable, resolve: Callable) -> Callable:
    @kernel
    def follow(frame, h):
        """CHANGE = that of CARRIED by ERROR, and over the step; WAY = that of which it is J^T WAY.

        With D = 1 / (1 - gamma z) what is left is D^3 (1 + (1 - 3 gamma) z): exp(z) for small z, nothing for large ones.
        """
        rows, carried, h_factored = slots.STEP_ERROR(frame), slots.CARRIED(frame), slots.CLOCK(frame)[slots.H_FACTORED]
        x, change, mu = row(rows, WORK), row(rows, CHANGE), slots.EIGENVALUES(frame)[0]
        once, part = h_factored / mu, mu * h / h_factored - 3.0
        for k in range(x.size):
            x[k] = carried[k] + rows[ERROR, k]
            change[k], rows[WAY, k] = -carried[k], rows[OWN, k]
        for power in range(3):
            resolve(frame, x)
            length = once if power < 2 else h - 2.0 * once
            for k in range(x.size):
                rows[WAY, k] += length * x[k]
            multiply(frame, x)
            if power > 0:
                weight = -part if power < 2 else 1.0 + part
                for k in range(x.size):
                    change[k] += weight * x[k]

    return follow


@exact_kernel
def _is_near(frame, correction):
    """Whether a correction of the change of CARRIED over a step is small beside that and what it was, or beside what matters."""
    carried, change, sizes = slots.CARRIED(frame), row(slots.STEP_ERROR(frame), CHANGE), slots.U_SIZE(frame)
    trust, largest, off = slots.TRUST(frame), 0.0, 0.0
    for k in range(correction.size):
        largest = max(largest, abs(carried[k]) * sizes[k], abs(change[k]) * sizes[k])
        off = max(off, abs(correction[k]) * sizes[k])
    return off <= max(_NEAR * largest, _MATTERS * trust[slots.UNIT_ERROR] * trust[slots.RAW_LAM])


@kernel
def add_carried_theta(frame):
    """What CARRIED does to theta_bar on its way is in THETA_BAR."""
    of_theta, theta_bar = slots.CARRIED_THETA(frame), slots.THETA_BAR(frame)
    for i in range(of_theta.size):
        of_theta[i] += theta_bar[i]


def _make_carry_on(pull: Callable, refresh: Callable, resolving: tuple[Callable, ...], own_error: Callable) -> Callable:
    _, damp, multiply, resolve = resolving
    follow = _make_follow(multiply, resolve)

    @kernel
    def follow_and_correct(frame, t, h, u):
        """CHANGE by the frozen Jacobian, in WORK what that at (t, u) has more of it, and in THETA_BAR its part; the status."""
        rows = slots.STEP_ERROR(frame)
        correction = row(rows, WORK)
        if slots.COUNT(frame)[slots.JACOBIANS] != slots.TRUST(frame)[slots.RAW_JACOBIAN]:
            own_error(frame)
        follow(frame, h)
        if pull(frame, t, u, row(rows, WAY), correction, slots.THETA_BAR(frame)) != 0:
            return CALLBACK_RAISED
        for k in range(correction.size):
            correction[k] -= rows[CHANGE, k]
        damp(frame, correction)
        return SUCCESS

    @kernel
    def carry_on(frame, t, h, u):
        """CARRIED, with the error of the step behind, over a step, which has the state u at t; the status."""
        rows, count, carried = slots.STEP_ERROR(frame), slots.COUNT(frame), slots.CARRIED(frame)
        status = follow_and_correct(frame, t, h, u)
        if status == SUCCESS and not _is_near(frame, row(rows, WORK)):
            count[slots.FRESHNESS] = STALE
            status = refresh(frame, t, u, h)
            if status == SUCCESS:
                count[slots.FRESHNESS] = OLDER
                status = follow_and_correct(frame, t, h, u)
        for k in range(carried.size):
            carried[k] += rows[CHANGE, k] + rows[WORK, k]
        add_carried_theta(frame)
        return SUCCESS if status == NEWTON_FAILED else status

    return carry_on


def make_step_error(pull: Callable, product: Callable, frozen: Frozen) -> Callable:
    """`pull(frame, t, u, w, u_bar, theta_bar) -> status` gives the products with both Jacobians, `product` that with J alone."""
    resolving = make_resolve(frozen)
    own_error = make_own_error(resolving)
    carry_on = _make_carry_on(pull, frozen.refresh, resolving, own_error)

    @kernel
    def step_error(frame, t, h, t_new, V):
        """ERROR = that of the step that has been pulled back, after those of the steps behind have been carried over it."""
        middle, status = slots.SETTING(frame)[slots.LAST_STAGE] // 2, SUCCESS
        if slots.TRUST(frame)[slots.CARRYING] == 1.0:
            status = carry_on(frame, stage_time(frame, t, h, t_new, middle), h, row(V, middle))
        if status != SUCCESS:
            return status
        keep_raw(frame, h, t, V)
        own_error(frame)
        slots.TRUST(frame)[slots.CARRYING] = 1.0
        if shares_first_stage(frame):
            if product(frame, t, row(V, 0), row(slots.K_BAR(frame), 0), row(slots.STEP_ERROR(frame), FIRST_STAGE)) != 0:
                return CALLBACK_RAISED
        return SUCCESS

    return step_error
