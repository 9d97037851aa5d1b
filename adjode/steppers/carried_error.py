"""The errors of transposed implicit steps, carried on over the steps before.

An error e of lam goes on as lam does, and leaves J_theta^T w in theta_bar, where J^T w is its change. The frozen matrix says how,
to first order and with all the damping that stiff parts have; a product with J itself, on the step, corrects that, and also gives
theta_bar's part. Where the correction is no small one, growth would be missed or invented, and the matrix is made anew.

What a stiff part of lam has wrong in theta_bar in one step, its decay in the next one mends. The two are large and must cancel, so
they take one Jacobian: an error is found once more by that of the step that it is carried over.
"""

from __future__ import annotations

import math
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

_OVER_ONE, _MOST = 3, 10  # powers of the inverse of the frozen matrix that errors are carried by, over one step, and over more
_STRETCH = 1.7  # times the length that one of them is for: with that much for each of four and more, nothing that oscillates grows
_NEAR = 0.2  # of an error: how far the frozen matrix may be off what becomes of it in a step
_MATTERS = 0.02  # units, as a part of lam: less makes no difference


def _make_follow(multiply: Callable, resolve: Callable) -> Callable:
    @kernel
    def follow(frame, h, powers):
        """CHANGE = that of CARRIED by ERROR, and over h; WAY = that of which it is J^T WAY.

        With D = 1 / (1 - x), x = z / stretch, what is left is D^powers (1 + a x + c x^2): exp(z) for small z, nothing for large
        ones. Over one step c = 0, which damps most; over more, exp(z) up to z^2 keeps what oscillates from growing.
        """
        rows, carried, mu = slots.STEP_ERROR(frame), slots.CARRIED(frame), slots.EIGENVALUES(frame)[0]
        x, change, once = row(rows, WORK), row(rows, CHANGE), slots.CLOCK(frame)[slots.H_FACTORED] / mu
        stretch = h / once
        a, c = stretch - powers, 0.0
        if powers > _OVER_ONE:
            c = 0.5 * stretch * stretch - powers * stretch + 0.5 * powers * (powers - 1)
        for k in range(x.size):
            x[k] = carried[k] + rows[ERROR, k]
            change[k], rows[WAY, k] = -carried[k], rows[OWN, k]
        for power in range(1, powers + 1):
            resolve(frame, x)
            length, weight = once, 0.0
            if power == powers:
                length, weight = once * (1.0 + a + c), 1.0 + a + c
            elif power == powers - 1:
                length, weight = once * (1.0 - c), -a - 2.0 * c
            elif power == powers - 2:
                weight = c
            for k in range(x.size):
                rows[WAY, k] += length * x[k]
            multiply(frame, x)
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
    trust[slots.FAR] = 1.0 if off > _NEAR * largest else 0.0
    return off <= max(_NEAR * largest, _MATTERS * trust[slots.UNIT_ERROR] * trust[slots.RAW_LAM])


@kernel
def add_carried_theta(frame):
    """What CARRIED does to theta_bar on its way is in THETA_BAR."""
    of_theta, theta_bar = slots.CARRIED_THETA(frame), slots.THETA_BAR(frame)
    for i in range(of_theta.size):
        of_theta[i] += theta_bar[i]


@kernel
def _length_and_powers(frame, h):
    """What errors are carried over: a step of h, and those behind it that have been skipped; and by how many powers."""
    skipped, powers = slots.TRUST(frame)[slots.SKIPPED_LENGTH], _OVER_ONE
    if skipped == 0.0:
        return h, powers
    length, powers = h + math.copysign(skipped, h), powers + 1
    stretch = slots.EIGENVALUES(frame)[0] * length / slots.CLOCK(frame)[slots.H_FACTORED]
    while powers < _MOST and powers * _STRETCH < stretch:
        powers += 1
    return length, powers


def _make_carry_on(pull: Callable, refresh: Callable, resolving: tuple[Callable, ...], own_error: Callable) -> Callable:
    _, damp, multiply, resolve = resolving
    follow = _make_follow(multiply, resolve)

    @kernel
    def follow_and_correct(frame, t, h, powers, u):
        """CHANGE by the frozen Jacobian, in WORK what that at (t, u) has more of it, and in THETA_BAR its part; the status."""
        rows = slots.STEP_ERROR(frame)
        correction = row(rows, WORK)
        if slots.COUNT(frame)[slots.JACOBIANS] != slots.TRUST(frame)[slots.RAW_JACOBIAN]:
            own_error(frame)
        follow(frame, h, powers)
        if pull(frame, t, u, row(rows, WAY), correction, slots.THETA_BAR(frame)) != 0:
            return CALLBACK_RAISED
        for k in range(correction.size):
            correction[k] -= rows[CHANGE, k]
        damp(frame, correction)
        return SUCCESS

    @kernel
    def carry_on(frame, t, h, u):
        """CARRIED, with the error of the last step judged, over a step, and those behind it that have been skipped; the status.

        The state is u at t.
        """
        rows, count, carried = slots.STEP_ERROR(frame), slots.COUNT(frame), slots.CARRIED(frame)
        length, powers = _length_and_powers(frame, h)
        status = follow_and_correct(frame, t, length, powers, u)
        if status == SUCCESS and not _is_near(frame, row(rows, WORK)):
            count[slots.FRESHNESS] = STALE
            status = refresh(frame, t, u, h)
            if status == SUCCESS:
                count[slots.FRESHNESS] = OLDER
                status = follow_and_correct(frame, t, length, powers, u)
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
        trust, last, status = slots.TRUST(frame), slots.SETTING(frame)[slots.LAST_STAGE], SUCCESS
        if trust[slots.CARRYING] == 1.0:
            middle = last if trust[slots.SKIPPED] > 0.0 else last // 2
            status = carry_on(frame, stage_time(frame, t, h, t_new, middle), h, row(V, middle))
        if status != SUCCESS:
            return status
        keep_raw(frame, h, t, V)
        own_error(frame)
        trust[slots.CARRYING] = 1.0
        if shares_first_stage(frame):
            if product(frame, t, row(V, 0), row(slots.K_BAR(frame), 0), row(slots.STEP_ERROR(frame), FIRST_STAGE)) != 0:
                return CALLBACK_RAISED
        return SUCCESS

    return step_error
