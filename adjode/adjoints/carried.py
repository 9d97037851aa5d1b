"""What becomes of the errors of implicit steps in the discrete adjoint.

Stiff parts of lam, which observations put in, are not resolved, nor need they be: they are gone by the next step, and their
integral, which theta_bar has, is right all the same. So errors are no numbers to be summed. They are carried on over the steps
before (steppers/carried_error.py), and what they do to theta_bar is summed with its signs, so that what cancels in the gradient
cancels here. Where explicit steps come before, the rest goes into the sums of what these make wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.frame import Frame
from adjode.compile.views import row
from adjode.loops.tolerances import largest_product
from adjode.status import SUCCESS
from adjode.steppers.carried_error import add_carried_theta
from adjode.steppers.transposed_error import (
    BEGINNING,
    ERROR,
    FIRST_STAGE,
    OWN,
    RAW,
    RAW_SEEDS,
    ROWS,
    SEEDS,
    WORK,
    size_of,
    size_of_lam,
)

_WAITS, _FEW = 0.1, 8  # units of errors that last are summed up before theta_bar is asked, if it has more entries than few
_ACROSS = 4.0  # at most so many times, or so many times less, at a jump
WITH_STATE = 1.5  # times the error of lam: that and the one of the state


def put_carried(frame: Frame, n: int) -> None:
    """Give a frame with an implicit method the places of its errors."""
    frame[slots.STEP_ERROR], frame[slots.U_SIZE] = np.zeros((ROWS, n)), np.zeros(n)
    frame[slots.CARRIED], frame[slots.CARRIED_THETA] = np.zeros(n), np.zeros(frame[slots.LASTING_THETA].size)


@kernel
def begin_carried(frame):
    carried, of_theta, lasting = slots.CARRIED(frame), slots.CARRIED_THETA(frame), slots.LASTING_THETA(frame)
    rows = slots.STEP_ERROR(frame)
    for k in range(carried.size):
        carried[k] = rows[SEEDS, k] = rows[FIRST_STAGE, k] = 0.0
    for k in range(of_theta.size):
        of_theta[k] = 0.0
    for k in range(lasting.size):
        lasting[k] = 0.0


@exact_kernel
def size_of_theta(frame, of_theta):
    """The largest entry in the units of the parameters, and the largest one for parameters that are zero."""
    theta, of_zeros = slots.THETA(frame), 0.0
    if slots.TRUST(frame)[slots.HAS_ZEROS] == 1.0:
        for k in range(of_theta.size):
            of_zeros = max(of_zeros, abs(of_theta[k]) if theta[k] == 0.0 else 0.0)
    return largest_product(of_theta, theta) if of_theta.size > 0 else 0.0, of_zeros


@kernel
def add_lasting(frame, part):
    """An error of a step in the direction of lam, of which it stays this part, in what the steps before add to theta_bar.

    That is not known before the end, where `sum_lasting` has it. The state has an error like that of lam.
    """
    trust = slots.TRUST(frame)
    if not abs(part) < math.inf:
        return
    trust[slots.PENDING] += WITH_STATE * part
    pending, of_theta, total = trust[slots.PENDING], slots.LASTING_THETA(frame), slots.TOTAL(frame)
    if of_theta.size > _FEW and abs(pending) <= _WAITS * trust[slots.UNIT_ERROR]:
        return
    trust[slots.PENDING] = 0.0
    trust[slots.LASTING] += pending
    for i in range(of_theta.size):
        of_theta[i] -= pending * total[i]


@kernel
def sum_lasting(frame):
    of_theta, total, lasting = slots.LASTING_THETA(frame), slots.TOTAL(frame), slots.TRUST(frame)[slots.LASTING]
    for i in range(of_theta.size):
        of_theta[i] += lasting * total[i]


@exact_kernel
def sum_carried(frame):
    """To the sums of errors what has been carried so far, and that of the last implicit step."""
    trust, carried, rows = slots.TRUST(frame), slots.CARRIED(frame), slots.STEP_ERROR(frame)
    if trust[slots.CARRYING] == 1.0:
        trust[slots.CARRYING] = 0.0
        for k in range(carried.size):
            carried[k] += rows[ERROR, k]
        trust[slots.LEFT_WRONG] = size_of(carried, slots.U_SIZE(frame))[0]
        trust[slots.LAM_SUM] += trust[slots.LEFT_WRONG]
        for k in range(carried.size):
            carried[k] = 0.0


def make_carry_across(cross: Callable) -> Callable:
    """`cross(frame, step, behind, left) -> (status, left)` for lam, where errors are carried."""

    @exact_kernel
    def carry_across(frame, step, behind, left):
        """An error along lam becomes at a jump what lam does, which observations there may add to; no first slope is left."""
        trust, rows, carried, before = slots.TRUST(frame), slots.STEP_ERROR(frame), slots.CARRIED(frame), size_of_lam(frame)
        status, left = cross(frame, step, behind, left)
        for k in range(carried.size):
            rows[FIRST_STAGE, k] = 0.0
        if trust[slots.CARRYING] == 1.0 and before > 0.0:
            factor = min(max(size_of_lam(frame) / before, 1.0 / _ACROSS), _ACROSS)
            for k in range(carried.size):
                carried[k] *= factor
                for i in (ERROR, OWN, RAW, RAW_SEEDS):
                    rows[i, k] *= factor
        return status, left

    return carry_across


def make_end_carried(pull: Callable) -> Callable:
    """`pull(frame, t, u, w, u_bar, theta_bar) -> status` gives the products with both Jacobians."""

    @kernel
    def end_carried(frame):
        """Where implicit steps have an end, or rather their start: what the last one of them has wrong in theta_bar; the status."""
        trust, rows, status = slots.TRUST(frame), slots.STEP_ERROR(frame), SUCCESS
        if trust[slots.CARRYING] == 1.0:
            own, start, theta_bar = row(rows, OWN), row(rows, BEGINNING), slots.THETA_BAR(frame)
            status = pull(frame, trust[slots.RAW_T], start, own, row(rows, WORK), theta_bar)
            add_carried_theta(frame)
            sum_carried(frame)
        return status

    return end_carried


@exact_kernel
def part_of_lam(frame):
    """The error of a step in the direction of lam, as a part of it."""
    lam, error, sizes, product, squares = slots.LAM(frame), row(slots.STEP_ERROR(frame), ERROR), slots.U_SIZE(frame), 0.0, 0.0
    for k in range(lam.size):
        product += error[k] * lam[k] * sizes[k] * sizes[k]
        squares += (lam[k] * sizes[k]) ** 2
    return product / squares if squares > 0.0 else 0.0
