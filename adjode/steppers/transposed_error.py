"""The error that a transposed implicit step makes.

It multiplies lam by R(z), z = h J^T, where exp(z) would be right. The difference is C z^(p+1) for small z, little for large ones.
A sum of the cotangents of the slopes (tableaus/adjoint_error.py) is z^(q-1) h lam for small z; the factors of the frozen matrix
raise its power as D = z Q, Q = 1 / (1 - gamma z), and Q makes it as small for large z as the error is. Times J^T that is an
estimate of which a power is the error, by its ratio to lam; and times J_theta^T, with the same factor, that of theta_bar. What
becomes of both in the steps before: carried_error.py.

Cotangents of states inside the step spoil that sum. Then it is C D^(p+1) Q^2 lam, which trusts the frozen matrix more, and for
those cotangents C(x) D^(q+1), with the order q of the dense output there. What is stiff in them is mended by the steps before, of
which Q^2 takes account, the less the shorter these are; not so where they are explicit or much shorter, or where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.views import row
from adjode.linalg.mass import multiply_transposed
from adjode.steppers.frozen import Frozen

# The rows of STEP_ERROR, and how many. Of the step that has been pulled back: the error, and the w of which it is J^T w; what that
# is found from, which does not depend on the frozen matrix; and the state at its start.
ERROR, OWN, RAW, RAW_SEEDS, BEGINNING = range(5)
SLOPE, SEEDS, FIRST_STAGE, WAY, CHANGE, WORK = range(5, 11)
ROWS = 11

UNSEEDED, LEFT = 0.0, 2.0  # of RAW_SEEDED: no observation inside of the step, or no step before that mends what they make wrong
_MUCH_SHORTER = 0.125  # than the step


@exact_kernel
def size_of(values, sizes):
    """The largest entry in these units, infinity for one that is not a number, and which it is."""
    largest, entry = 0.0, 0
    for k in range(values.size):
        size = abs(values[k]) * sizes[k]
        if not size <= largest:
            largest, entry = size if size < math.inf else math.inf, k
    return largest, entry


@exact_kernel
def size_of_lam(frame):
    """The largest entry in units of the states."""
    return size_of(slots.LAM(frame), slots.U_SIZE(frame))[0]


@kernel
def shares_first_stage(frame):
    """Whether a part of lam is pulled back only with the step before, by the slope at the start that is the last one of that."""
    return slots.A(frame)[slots.SETTING(frame)[slots.LAST_STAGE], 0] != 0.0


def make_resolve(frozen: Frozen) -> tuple[Callable, ...]:
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

    return damp_slope, damp_state, multiply, resolve


def _make_raise_power(damp: Callable) -> Callable:
    @kernel
    def raise_power(frame, x):
        """x = D x"""
        before, mu = row(slots.STEP_ERROR(frame), WORK), slots.EIGENVALUES(frame)[0]
        for k in range(x.size):
            before[k] = x[k]
        damp(frame, x)
        for k in range(x.size):
            x[k] = mu * (x[k] - before[k])

    return raise_power


def _make_by_stages(damp: Callable, multiply: Callable) -> Callable:
    raise_power = _make_raise_power(damp)

    @kernel
    def by_stages(frame, h, x):
        """From the sum over the stages to the y of which the error is J^T (M^T - h gamma J^T)^-1 y."""
        stretch = h / slots.CLOCK(frame)[slots.H_FACTORED]
        for _ in range(slots.LAM_POWERS(frame)[1]):
            raise_power(frame, x)
            for k in range(x.size):
                x[k] *= stretch
        multiply(frame, x)

    return by_stages


def _make_put_seeds(damp: Callable) -> Callable:
    @kernel
    def damp_less(frame, x, more):
        """x = (1 + more (1 - Q)) x: times Q that is about Q for a step so much shorter, and no less."""
        damped = row(slots.STEP_ERROR(frame), CHANGE)
        for k in range(x.size):
            damped[k] = x[k]
        damp(frame, damped)
        for k in range(x.size):
            x[k] += more * (x[k] - damped[k])

    @kernel
    def put_seeds(frame):
        """WAY = the cotangents inside the step; larger where they are stiff, if the step before is shorter and so mends less."""
        rows, part = slots.STEP_ERROR(frame), slots.TRUST(frame)[slots.RAW_SEEDED]
        seeds = row(rows, WAY)
        for k in range(seeds.size):
            seeds[k] = rows[RAW_SEEDS, k]
        if part < 1.0:
            damp_less(frame, seeds, 1.0 / part - 1.0)
            damp_less(frame, seeds, 1.0 / part - 1.0)

    return put_seeds


def _make_by_lam(damp: Callable) -> Callable:
    raise_power, put_seeds = _make_raise_power(damp), _make_put_seeds(damp)

    @kernel
    def damp_twice(frame, x):
        damp(frame, x)
        damp(frame, x)

    @kernel
    def by_lam(frame, h, x):
        """The same from lam and the cotangents inside the step."""
        rows, powers, stretch = slots.STEP_ERROR(frame), slots.LAM_POWERS(frame), h / slots.CLOCK(frame)[slots.H_FACTORED]
        mended = slots.TRUST(frame)[slots.RAW_SEEDED] != LEFT
        put_seeds(frame)
        for p in range(powers[2], 0, -1):
            if p == powers[3]:
                if not mended:
                    damp_twice(frame, x)
                for k in range(x.size):
                    x[k] += rows[WAY, k]
            raise_power(frame, x)
            for k in range(x.size):
                x[k] *= stretch
        if mended:
            damp_twice(frame, x)
        for k in range(x.size):
            x[k] *= h

    return by_lam


@exact_kernel
def _error_of_ratio(frame, estimate):
    """What makes an error of the estimate by the stages: the power of its ratio to lam that has the order of the method."""
    before, size, power = slots.TRUST(frame)[slots.RAW_LAM], size_of(estimate, slots.U_SIZE(frame))[0], 1.0
    ratio = min(size / before if before > 0.0 else 1.0, 1.0)
    for _ in range(slots.LAM_POWERS(frame)[0] - 2):
        power *= ratio
    return slots.LAM_FACTORS(frame)[1] * math.sqrt(power)


@exact_kernel
def _seeded(frame, h, seeded):
    """What RAW_SEEDED is to be for the largest cotangent inside the step."""
    step, kinds, mesh = slots.PLACE(frame)[slots.STEP], slots.FORWARD_KIND(frame), slots.FORWARD_T(frame)
    if seeded == 0.0:
        return UNSEEDED
    if step == 0:
        return LEFT if slots.FORWARD_COUNT(frame)[slots.EARLIER] == 0 else 1.0
    explicit = slots.TRUST(frame)[slots.SWITCHES_TO] == 1.0 and kinds[step - 1] == slots.EXPLICIT_STEP
    part = abs(mesh[step] - mesh[step - 1]) / abs(h)
    return LEFT if explicit or part < _MUCH_SHORTER else min(part, 1.0)


@exact_kernel
def keep_raw(frame, h, t, V):
    """What the error of the step that has been pulled back is to be found from, whatever Jacobian there will be."""
    rows, trust, lam, factor = slots.STEP_ERROR(frame), slots.TRUST(frame), slots.LAM(frame), slots.LAM_FACTORS(frame)[2]
    seeded = 0.0
    for k in range(lam.size):
        seeded = max(seeded, abs(rows[SEEDS, k]))
    for k in range(lam.size):
        rows[RAW, k] = factor * (lam[k] + rows[FIRST_STAGE, k]) if seeded > 0.0 else rows[SLOPE, k]
        rows[RAW_SEEDS, k], rows[BEGINNING, k], rows[SEEDS, k], rows[FIRST_STAGE, k] = rows[SEEDS, k], V[0, k], 0.0, 0.0
    trust[slots.RAW_H], trust[slots.RAW_SEEDED], trust[slots.RAW_T] = h, _seeded(frame, h, seeded), t
    trust[slots.RAW_LAM], trust[slots.RAW_STEPS] = size_of_lam(frame), trust[slots.COUNTS_FOR]


def make_own_error(resolving: tuple[Callable, ...]) -> Callable:
    """`resolving` is what `make_resolve` gives."""
    damp_slope, damp_state, multiply, resolve = resolving
    by_stages, by_lam = _make_by_stages(damp_slope, multiply), _make_by_lam(damp_state)

    @kernel
    def own_error(frame):
        """ERROR = J^T OWN, that of lam in the step that RAW is of, by the frozen Jacobian."""
        rows, trust, clock = slots.STEP_ERROR(frame), slots.TRUST(frame), slots.CLOCK(frame)
        error, w, x, h = row(rows, ERROR), row(rows, OWN), row(rows, WORK), trust[slots.RAW_H]
        trust[slots.RAW_JACOBIAN] = slots.COUNT(frame)[slots.JACOBIANS]
        scale = slots.EIGENVALUES(frame)[0] / clock[slots.H_FACTORED]
        for k in range(w.size):
            w[k] = rows[RAW, k]
        if trust[slots.RAW_SEEDED] != UNSEEDED:
            by_lam(frame, h, w)
        else:
            by_stages(frame, h, w)
        for k in range(w.size):
            error[k] = w[k]
        resolve(frame, w)
        for k in range(w.size):
            x[k] = w[k]
        multiply(frame, x)
        for k in range(w.size):
            error[k] = scale * (x[k] - error[k])
        if trust[slots.RAW_SEEDED] == UNSEEDED:
            factor = trust[slots.RAW_STEPS] * _error_of_ratio(frame, error)
            for k in range(w.size):
                error[k] *= factor
                w[k] *= factor

    return own_error
