"""What becomes of the errors of implicit steps in the discrete adjoint.

Stiff parts of lam, which observations put in, are not resolved, nor need they be: they are gone by the next step, and their
integral, which theta_bar has, is right all the same. So errors that matter are no numbers to be summed. They are carried on, by the
transposes of the steps before, on a frame of their own, and what they do to theta_bar is summed with its signs, so that what
cancels in the gradient cancels here. When they have become small the rest goes into the sums of what explicit steps make wrong.
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
from adjode.steppers.transposed_error import ERROR, FIRST_STAGE, SEEDS, SLOPE, shares_first_stage, size_of

_SOLVED_TO = 1e-10  # relative, of the stages along which errors are carried: theta_bar multiplies what is left by stiff rates
_MATTERS = 0.02  # units
_WAITS = 0.1  # units of errors that last are summed up before theta_bar is asked
_EPS = 1e-12  # a unit where there is none
WITH_STATE = 1.5  # times the error of lam: that and the one of the state


def put_carried(frame: Frame, n: int) -> None:
    """Give a frame with an implicit method, which is otherwise filled, one beside that for the errors."""
    frame[slots.STEP_ERROR], frame[slots.U_SIZE] = np.zeros((5, n)), np.zeros(n)
    implicit = frame.partner or frame
    beside = implicit.pair()
    for slot in (slots.LAM, slots.Y_BAR, slots.K_BAR, slots.TOTAL):
        beside[slot] = np.zeros(implicit[slot].shape)
    beside[slots.SOLVED_TO] = np.array([_SOLVED_TO])
    frame[slots.CARRIED], frame[slots.CARRIED_THETA] = beside[slots.LAM], beside[slots.TOTAL][:-1]


@kernel
def begin_carried(frame):
    carried, of_theta, lasting = slots.CARRIED(frame), slots.CARRIED_THETA(frame), slots.LASTING_THETA(frame)
    rows = slots.STEP_ERROR(frame)
    for k in range(carried.size):
        rows[SEEDS, k] = rows[FIRST_STAGE, k] = 0.0
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


@exact_kernel
def _what_matters(frame):
    """How large an error has to be to be carried: as a part of lam, or of the gradient, if there has been one that it decays to."""
    trust = slots.TRUST(frame)
    size, gradient = size_of(slots.LAM(frame), slots.U_SIZE(frame))[0], trust[slots.LAST_LARGEST]
    return _MATTERS * max(trust[slots.UNIT_ERROR], _EPS) * (min(size, gradient) if gradient > 0.0 else size)


@kernel
def add_lasting(frame, part):
    """An error of a step in the direction of lam, of which it stays this part, in what the steps before add to theta_bar.

    That is not known before the end, where `sum_lasting` has it. The state has an error like that of lam.
    """
    trust = slots.TRUST(frame)
    if not 0.0 < abs(part) < math.inf:
        return
    trust[slots.PENDING] += WITH_STATE * part
    pending = trust[slots.PENDING]
    if abs(pending) < _WAITS * trust[slots.UNIT_ERROR]:
        return
    of_theta, total = slots.LASTING_THETA(frame), slots.TOTAL(frame)
    trust[slots.PENDING] = 0.0
    trust[slots.LASTING] += pending
    for i in range(of_theta.size):
        of_theta[i] -= pending * total[i]


@kernel
def sum_lasting(frame):
    of_theta, total, lasting = slots.LASTING_THETA(frame), slots.TOTAL(frame), slots.TRUST(frame)[slots.LASTING]
    for i in range(of_theta.size):
        of_theta[i] += lasting * total[i]


@kernel
def sum_carried(frame):
    """To the sums of errors what has been carried so far."""
    trust = slots.TRUST(frame)
    if trust[slots.CARRYING] == 1.0:
        trust[slots.CARRYING] = 0.0
        trust[slots.LAM_SUM] += trust[slots.CARRIED_SIZE]


@kernel
def _begin(frame):
    lam, K_bar = slots.LAM(frame), slots.K_BAR(frame)
    for k in range(lam.size):
        lam[k] = K_bar[0, k] = 0.0


def _make_carry_on(take: Callable) -> Callable:
    @kernel
    def carry_on(frame, t, h, t_new, V):
        """LAM, an error, over a step; `frame` is that for errors."""
        lam, y_bar, K_bar, last = slots.LAM(frame), slots.Y_BAR(frame), slots.K_BAR(frame), slots.SETTING(frame)[slots.LAST_STAGE]
        for k in range(lam.size):
            y_bar[k], first = 0.0, K_bar[0, k]
            for i in range(K_bar.shape[0]):
                K_bar[i, k] = 0.0
            K_bar[last, k] = first
        status = take(frame, t, h, t_new, V)
        for k in range(lam.size):
            lam[k] = y_bar[k]
        return status

    return carry_on


def _make_size_of_carried(product: Callable) -> Callable:
    @kernel
    def size_of_carried(frame, t, V):
        """With what its first slope still has to pull back."""
        rest, carried, sizes = row(slots.STEP_ERROR(frame), SLOPE), slots.CARRIED(frame), slots.U_SIZE(frame)
        if not shares_first_stage(frame):
            return size_of(carried, sizes)[0]
        if product(frame, t, row(V, 0), row(slots.K_BAR(slots.PARTNER(frame)), 0), rest) != 0:
            return math.nan
        for k in range(rest.size):
            rest[k] += carried[k]
        return size_of(rest, sizes)[0]

    return size_of_carried


@exact_kernel
def _part_of_lam(frame):
    """The error of a step in the direction of lam, as a part of it."""
    lam, error, sizes, product, squares = slots.LAM(frame), row(slots.STEP_ERROR(frame), ERROR), slots.U_SIZE(frame), 0.0, 0.0
    for k in range(lam.size):
        product += error[k] * lam[k] * sizes[k] * sizes[k]
        squares += (lam[k] * sizes[k]) ** 2
    return product / squares if squares > 0.0 else 0.0


@kernel
def _sum_own(frame, size, part):
    """To the sums of errors that of the step alone, which is this part of lam."""
    trust, (of_theta, of_zeros) = slots.TRUST(frame), size_of_theta(frame, slots.THETA_BAR(frame))
    trust[slots.LAM_SUM] += size
    trust[slots.THETA_SUM] += of_theta
    trust[slots.ZERO_SUM] += of_zeros
    add_lasting(frame, part)


def make_carry(take: Callable, product: Callable) -> Callable:
    """`take` pulls cotangents back over an implicit step, `product` over a single slope."""
    carry_on, size_of_carried = _make_carry_on(take), _make_size_of_carried(product)

    @kernel
    def carry(frame, t, h, t_new, V):
        """Carry errors over the step that has been pulled back, and add its own, in STEP_ERROR.

        (status, size of that, entry, what part of lam it is along it)
        """
        trust, error, carried = slots.TRUST(frame), row(slots.STEP_ERROR(frame), ERROR), slots.CARRIED(frame)
        theta_bar, of_theta, matters = slots.THETA_BAR(frame), slots.CARRIED_THETA(frame), _what_matters(frame)
        (size, entry), part = size_of(error, slots.U_SIZE(frame)), _part_of_lam(frame)
        if trust[slots.CARRYING] == 0.0:
            if not size > matters:
                _sum_own(frame, size, part)
                return SUCCESS, size, entry, part
            _begin(slots.PARTNER(frame))
            trust[slots.CARRYING] = 1.0
        for i in range(of_theta.size):
            of_theta[i] += theta_bar[i]
        status = carry_on(slots.PARTNER(frame), t, h, t_new, V)
        for k in range(carried.size):
            carried[k] += error[k]
        trust[slots.CARRIED_SIZE] = size_of_carried(frame, t, V)
        if trust[slots.CARRIED_SIZE] <= matters:
            sum_carried(frame)
        return status, size, entry, part

    return carry
