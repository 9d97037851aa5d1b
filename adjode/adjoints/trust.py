"""How far the gradient of the discrete adjoint can be trusted: the error of each transposed step, and where steps were too long.

The transposed steps are steps of the adjoint equation on a mesh that was chosen for u. Where u rests, or an explicit method is held
by its stability, that mesh may be far too coarse for lam. The stages of the transposed steps say so (tableaus/adjoint_error.py), in
the units of what is asked for: an entry of lam times the size of its state, and one of theta_bar times that of its parameter, are
parts of a logarithmic derivative, and the sum of their errors is compared with the largest one. Where that is too much, the forward
solve is asked for shorter steps (loops/limits.py), so that value and gradient remain those of one mesh.
"""

from __future__ import annotations

import math

from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.status import INACCURATE, NON_FINITE, REFINE, SUCCESS

ROUNDS = 8  # how often the forward solve is asked for shorter steps
START, SHORTEST, LONGEST, ERROR, RATIO = range(5)  # the columns of CELLS

_SHARE = 1.0  # of a unit, for the error of a step after refinement; half of that the next time
_AMPLIFIES = 0.3  # a step whose estimate is that part of lam may amplify what it should damp
_DAMPS = 4.0  # and one whose estimate is more does
_FEW_STEPS = 24
_UNLIKE = 1.5  # a factor between the sizes of neighbouring steps
_EXPLICIT_ROUNDS = 3  # before a method that can turns to implicit steps, which are not judged
_ROUNDING = 1e-14  # of lam: a gradient below that is nothing
_LEAST_FACTOR = 0.02  # estimates far from where they hold say too little


@kernel
def begin_trust(frame):
    trust, lam_error, probe, theta = slots.TRUST(frame), slots.LAM_ERROR(frame), slots.THETA_PROBE(frame), slots.THETA(frame)
    for k in range(slots.LAM_SUM, trust.size):
        trust[k] = 0.0
    for k in range(probe.size):
        about_one = 0.75 + 0.5 * (0.618 * k % 1.0)
        size = abs(theta[k]) if theta[k] != 0.0 else 1.0
        probe[k] = size * (about_one if k * (k + 1) % 7 < 3 else -about_one)
    for k in range(lam_error.size):
        lam_error[k] = 0.0


@kernel
def divide_mesh(frame):
    """How many steps belong together in a cell."""
    trust, cells = slots.TRUST(frame), slots.CELLS(frame).shape[0]
    if cells > 0:
        trust[slots.STEPS_IN_CELL] = (slots.PLACE(frame)[slots.RELEVANT] + cells - 1) // cells


@exact_kernel
def begin_step(frame, step, h, V, seeded):
    """The cotangents of the step are in LAM, and those of states inside of it, if any, in Y_BAR.

    Where there are many steps much like each other, every other one is judged.
    """
    trust, y_bar, earlier = slots.TRUST(frame), slots.Y_BAR(frame), slots.FORWARD_COUNT(frame)[slots.EARLIER]
    few, size, behind = slots.PLACE(frame)[slots.RELEVANT] <= _FEW_STEPS, abs(h), trust[slots.BEHIND]
    trust[slots.BEHIND], trust[slots.SEEDS] = size, 0.0
    if few or size > _UNLIKE * behind or behind > _UNLIKE * size:
        trust[slots.COUNTS_FOR] = 1.0
    else:
        trust[slots.COUNTS_FOR] = 2.0 * ((earlier + step) % 2)
    if seeded:
        for k in range(y_bar.size):
            trust[slots.SEEDS] = max(trust[slots.SEEDS], abs(y_bar[k]) * _size_of_state(frame, V, k))


@kernel
def add_stage(frame, stage, u_bar, theta_bar):
    """What a stage has pulled back, to the estimates of its step."""
    trust, weight = slots.TRUST(frame), slots.LAM_WEIGHTS(frame)[stage]
    if weight == 0.0 or trust[slots.COUNTS_FOR] == 0.0:
        return
    error, probe, along = slots.LAM_ERROR(frame), slots.THETA_PROBE(frame), 0.0
    for k in range(error.size):
        error[k] += weight * u_bar[k]
    for k in range(probe.size):
        along += probe[k] * theta_bar[k]
    trust[slots.THETA_ALONG] += weight * along


@exact_kernel
def _size_of_state(frame, V, k):
    return max(abs(V[0, k]), abs(V[slots.SETTING(frame)[slots.LAST_STAGE], k])) + slots.U_FLOOR(frame)[k]


@exact_kernel
def _error_of_step(frame, estimate, ratio):
    """The error of a step with this estimate, which is that part of what has been pulled back."""
    power = 1.0
    for _ in range(slots.LAM_POWERS(frame)[0] - 2):
        power *= ratio
    return slots.LAM_FACTORS(frame)[1] * estimate * math.sqrt(power)


@exact_kernel
def _lam_error(frame, V):
    """The largest error estimate of lam, whose that is, and lam itself before and after the step: in the units of the states."""
    lam, y_bar, error = slots.LAM(frame), slots.Y_BAR(frame), slots.LAM_ERROR(frame)
    largest, entry, before, after = 0.0, 0, slots.TRUST(frame)[slots.SEEDS], 0.0
    for k in range(lam.size):
        size = _size_of_state(frame, V, k)
        if abs(error[k]) * size > largest:
            largest, entry = abs(error[k]) * size, k
        before = max(before, abs(lam[k]) * size)
        after = max(after, abs(y_bar[k]) * size)
        error[k] = 0.0
    return largest, entry, before, after


@exact_kernel
def _size_of_theta_bar(frame):
    total, probe, size = slots.TOTAL(frame), slots.THETA_PROBE(frame), 0.0
    for k in range(probe.size):
        size = max(size, abs(total[k] * probe[k]))
    return size


@exact_kernel
def end_step(frame, step, h, V):
    """Judge the step that has been pulled back from LAM to Y_BAR."""
    trust = slots.TRUST(frame)
    steps = trust[slots.COUNTS_FOR]
    if steps == 0.0:
        return
    estimate, entry, before, after = _lam_error(frame, V)
    ratio = estimate / before if before > 0.0 else 0.0
    error = _error_of_step(frame, estimate, ratio)
    trust[slots.LAM_SUM] += steps * error
    estimate, trust[slots.THETA_ALONG] = abs(trust[slots.THETA_ALONG]), 0.0
    if estimate > 0.0:
        size = trust[slots.THETA_BAR_SIZE] = max(_size_of_theta_bar(frame), trust[slots.THETA_BAR_SIZE])
        error_of_theta = _error_of_step(frame, estimate, estimate / size if size > 0.0 else 1.0)
        trust[slots.THETA_SUM] += steps * error_of_theta
        error = max(error, error_of_theta)
    if error > trust[slots.WORST]:
        trust[slots.WORST], trust[slots.WORST_ENTRY] = error, entry
        trust[slots.WORST_T], trust[slots.WORST_H] = slots.FORWARD_T(frame)[step], h
    if trust[slots.AMPLIFIED] == 1.0:
        error = 0.0  # of something that should not be there
    else:
        trust[slots.SOUND] = max(trust[slots.SOUND], before)
        trust[slots.AMPLIFIED] = 1.0 if ratio > _AMPLIFIES and after > before else 0.0
    _keep(frame, step, steps, abs(h), error, ratio if after > before else 0.0)


@kernel
def _keep(frame, step, steps, h, error, ratio):
    """Put a step down in its cell: that of the step behind it, or the next one where that is full."""
    trust, cells = slots.TRUST(frame), slots.CELLS(frame)
    if cells.shape[0] == 0:
        return
    k = int(trust[slots.CELLS_USED]) - 1
    if not trust[slots.ROOM_IN_CELL] > 0.0:
        k += 1
        trust[slots.CELLS_USED], trust[slots.ROOM_IN_CELL] = k + 1, trust[slots.STEPS_IN_CELL]
        cells[k, SHORTEST], cells[k, LONGEST], cells[k, ERROR], cells[k, RATIO] = h, h, 0.0, 0.0
    trust[slots.ROOM_IN_CELL] -= steps
    cells[k, START] = slots.FORWARD_T(frame)[step]
    cells[k, SHORTEST], cells[k, LONGEST] = min(cells[k, SHORTEST], h), max(cells[k, LONGEST], h)
    cells[k, ERROR], cells[k, RATIO] = _larger(cells[k, ERROR], error), _larger(cells[k, RATIO], ratio)


@exact_kernel
def _larger(one, other):
    """The larger one; infinity for what is not a number."""
    if not (one < math.inf and other < math.inf):
        return math.inf
    return max(one, other)


@exact_kernel
def _size_of_gradient(frame):
    """The largest logarithmic derivative."""
    lam, floor, start = slots.LAM(frame), slots.U_FLOOR(frame), slots.U(frame)
    largest = _size_of_theta_bar(frame)
    for k in range(lam.size):
        largest = max(largest, abs(lam[k]) * (abs(start[k]) + floor[k]))
    return largest


@exact_kernel
def judge(frame, status):
    """What to make of the whole pass, which has ended with this status: SUCCESS, REFINE, INACCURATE, or that status."""
    trust, limited = slots.TRUST(frame), slots.LIMITED(frame)
    amplified, sound, unit = trust[slots.AMPLIFIED] == 1.0, trust[slots.SOUND], trust[slots.UNIT_ERROR]
    if status == NON_FINITE and amplified:
        trust[slots.LAM_SUM] = math.inf
    elif status != SUCCESS:
        return status
    largest = max(_size_of_gradient(frame), _ROUNDING * sound)
    if largest > 0.0:
        trust[slots.U0_ERROR] = trust[slots.LAM_SUM] / largest
        trust[slots.THETA_ERROR] = trust[slots.U0_ERROR] + trust[slots.THETA_SUM] / largest
    if unit == 0.0:
        return status
    trust[slots.UNITS] = trust[slots.THETA_ERROR] / unit
    if trust[slots.UNITS] <= trust[slots.MOST]:
        return status
    if slots.CELLS(frame).shape[0] == 0 or limited[1] >= ROUNDS:
        return INACCURATE
    if amplified and not largest < sound:  # what has been amplified is no measure of the gradient
        largest = sound
    _set_limits(frame, unit * largest)
    return REFINE


@exact_kernel
def _set_limits(frame, unit):
    """The largest steps for another forward solve: those of this one, or shorter where the errors say so."""
    trust, cells, limits, limited = slots.TRUST(frame), slots.CELLS(frame), slots.LIMITS(frame), slots.LIMITED(frame)
    allowed, order, halves = unit * _SHARE / 2.0 ** limited[1], slots.LAM_FACTORS(frame)[0], slots.LAM_POWERS(frame)[0]
    rows, turns = int(trust[slots.CELLS_USED]), trust[slots.SWITCHES_TO] == 1.0 and limited[1] >= _EXPLICIT_ROUNDS
    for k in range(rows):
        error, ratio, factor = cells[k, ERROR], cells[k, RATIO], math.inf
        stiff = turns and not ratio <= _DAMPS
        if not (stiff or error <= allowed):
            factor = 0.8 * (allowed / error) ** (2.0 / (order * halves))
        if not (stiff or ratio <= _DAMPS):
            factor = min(factor, (0.5 * _DAMPS / ratio) ** (1.0 / order))
        limit = cells[k, SHORTEST] * max(factor, _LEAST_FACTOR)
        if limited[1] > 0:
            limit = min(limit, cells[k, LONGEST])
        limits[rows - 1 - k, 0] = cells[k - 1, START] if k > 0 else math.inf
        limits[rows - 1 - k, 1], limits[rows - 1 - k, 2] = limit, 1.0 if stiff else 0.0
    limited[0], limited[1] = rows, limited[1] + 1
