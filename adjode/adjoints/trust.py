"""How far the gradient of the discrete adjoint can be trusted: the error of each transposed step, and where steps were too long.

The transposed steps are steps of the adjoint equation on a mesh that was chosen for u. Where u rests, or an explicit method is held
by its stability, that mesh may be far too coarse for lam. The stages of the transposed steps say so (tableaus/adjoint_error.py), in
the units of what is asked for: an entry of lam times the size of its state, and one of theta_bar times that of its parameter, are
parts of a logarithmic derivative, and the sum of their errors is compared with the largest one. Where that is too much, the forward
solve is asked for shorter steps (loops/limits.py), so that value and gradient remain those of one mesh.
"""

from __future__ import annotations

import math

from adjode.adjoints.carried import WITH_STATE, add_lasting, begin_carried, size_of_theta, sum_carried, sum_lasting
from adjode.adjoints.products import dot
from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.loops.jumps import INFLOW
from adjode.loops.tolerances import largest_product
from adjode.status import INACCURATE, NON_FINITE, REFINE, SUCCESS
from adjode.steppers.transposed_error import SLOPE, size_of

ROUNDS = 8  # how often the forward solve is asked for shorter steps
# The columns of CELLS: where it starts; the step that is worst, and the longest one; the largest error, that for parameters that
# are zero, what may be amplified, the error as a part of lam; and theta_bar along the probe behind the cell.
START, WORST_STEP, LONGEST, ERROR, ERROR_OF_ZEROS, RATIO, LASTING, ALONG = range(8)

# Estimates up to this part of what passes do, at first and where steps have been shortened; there twice as much the next time.
_SAFETY, _SAFETY_REFINED = 0.6, 0.05
_SAFETY_OF_FEW = 0.1  # of estimates that are sums of few, or raised to a high power
_SHARE = 0.1  # of a unit, for the error of a step after refinement; half of that the next time
_SHARES = 20.0  # units, for errors that last: so many times less for each, the more steps there are
_LASTS = 0.01  # an error that is more of lam is one to be mended where it is, and the step may amplify what it should damp
_DAMPS = 4.0  # and one whose estimate is more does
_GROWS = 10.0
_FORGETS = 0.5  # of what an entry of lam has been, in a step: one that passes through zero is not small
_LEAST = 1e-4  # of its estimate, for an entry of lam that is next to nothing
_FEW_STEPS = 24
_UNLIKE = 1.5  # a factor between the sizes of neighbouring steps
_EXPLICIT_ROUNDS = 3  # before a method that can turns to implicit steps, which are not judged
_MAGNIFIES = 4  # half powers: estimates that are raised to a higher one are far off where they are off
_ROUNDING = 1e-14  # of lam: a gradient below that is nothing
_LEAST_FACTOR = 0.02  # estimates far from where they hold say too little


@kernel
def _forget_inflows(frame):
    """Inflows are no parameters of the user's."""
    entries = slots.DOSE_ENTRIES(frame)
    for k in range(INFLOW, entries.size, 7):
        if 0 <= entries[k] < slots.THETA_PROBE(frame).size:
            slots.THETA_PROBE(frame)[entries[k]] = slots.ZERO_PROBE(frame)[entries[k]] = 0.0


@kernel
def begin_trust(frame):
    trust, lam_error, theta = slots.TRUST(frame), slots.LAM_ERROR(frame), slots.THETA(frame)
    probe, zero_probe = slots.THETA_PROBE(frame), slots.ZERO_PROBE(frame)
    if slots.LIMITED(frame)[1] == 0:
        trust[slots.LAST_LARGEST] = 0.0
    for k in range(slots.LAM_SUM, trust.size):
        trust[k] = 0.0
    for k in range(probe.size):
        part = 0.618 * k
        about_one = 0.75 + 0.5 * (part - int(part))
        about_one = about_one if k * (k + 1) % 7 < 3 else -about_one
        probe[k], zero_probe[k] = abs(theta[k]) * about_one, about_one if theta[k] == 0.0 else 0.0
    _forget_inflows(frame)
    for k in range(probe.size):
        if zero_probe[k] != 0.0:
            trust[slots.HAS_ZEROS] = 1.0
    for k in range(lam_error.size):
        lam_error[k] = slots.LAM_RECENT(frame)[k] = 0.0
    begin_carried(frame)


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
    if slots.STEP_WEIGHTS(frame).shape[0] > 0 or few or size > _UNLIKE * behind or behind > _UNLIKE * size:
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
    error = slots.LAM_ERROR(frame)
    for k in range(error.size):
        error[k] += weight * u_bar[k]
    trust[slots.THETA_ALONG] += weight * dot(slots.THETA_PROBE(frame), theta_bar)
    if trust[slots.HAS_ZEROS] == 1.0:
        trust[slots.ZERO_ALONG] += weight * dot(slots.ZERO_PROBE(frame), theta_bar)


@exact_kernel
def _size_of_state(frame, V, k):
    """At the ends of a step, and between: between two bounces of a ball its height is zero at both ends."""
    last = slots.SETTING(frame)[slots.LAST_STAGE]
    return max(abs(V[0, k]), abs(V[last // 2, k]), abs(V[last, k])) + slots.U_FLOOR(frame)[k]


@kernel
def begin_implicit_step(frame, V):
    """The sizes of the states in an implicit step, and nothing in the sum over its stages."""
    sizes, rows = slots.U_SIZE(frame), slots.STEP_ERROR(frame)
    for k in range(sizes.size):
        sizes[k], rows[SLOPE, k] = _size_of_state(frame, V, k), 0.0


@kernel
def _to_power(x, times):
    """x to that power; a call of pow that is not inlined costs a kernel on a GPU its registers."""
    power = 1.0
    for _ in range(times):
        power *= x
    return power


@exact_kernel
def _error_of_estimate(frame, ratio):
    """What makes an error of the estimate of a step, which is that part of what has been pulled back."""
    power = 1.0
    for _ in range(slots.LAM_POWERS(frame)[0] - 2):
        power *= ratio
    return slots.LAM_FACTORS(frame)[1] * math.sqrt(power)


@exact_kernel
def _lam_error(frame, V):
    """For lam before and after the step, in units of u: the largest error estimate and whose that is, and what part of lam it is
    along it; the largest entries; and the error of entries that are too fast for the step, behind others that are larger.

    Such an entry changes by more in the estimate than it has in it. The estimate of a step far too long may happen to vanish, but
    the step makes the entry many times what it was; then it is that.
    """
    lam, y_bar, error, recent = slots.LAM(frame), slots.Y_BAR(frame), slots.LAM_ERROR(frame), slots.LAM_RECENT(frame)
    seeds = slots.TRUST(frame)[slots.SEEDS]
    largest, entry, before, after, fast, grown_from = 0.0, 0, seeds, 0.0, 0.0, 0.0
    product, squares = 0.0, 0.0
    for k in range(lam.size):
        size = _size_of_state(frame, V, k)
        old, new, wrong = lam[k] * size, abs(y_bar[k]) * size, error[k] * size
        product += wrong * old
        squares += old * old
        old, wrong, error[k] = abs(old), abs(wrong), 0.0
        recent[k] = max(old, _FORGETS * recent[k])
        if wrong > largest:
            largest, entry = wrong, k
        if wrong > max(recent[k], new, seeds) and recent[k] > 0.0:  # not one that others have only begun to drive
            fast = max(fast, wrong * _error_of_estimate(frame, wrong / max(recent[k], seeds, _LEAST * wrong)))
        if new > after:
            after, grown_from = new, max(recent[k], seeds)
        before = max(before, old)
    ratio, part = largest / before if before > 0.0 else 0.0, product / squares if squares > 0.0 else 0.0
    if after > before and after > _GROWS * grown_from > 0.0:
        ratio = max(ratio, _to_power(math.log(after / grown_from), int(slots.LAM_FACTORS(frame)[0])))
    return before, after, ratio, entry, part, fast


@kernel
def _along(total, probe):
    """What `dot` gives, and the Euclidean norm of theta_bar in the units of the probe."""
    along, squares = 0.0, 0.0
    for k in range(probe.size):
        part = total[k] * probe[k]
        along += part
        squares += part * part
    return along, math.sqrt(squares)


@exact_kernel
def _theta_error(frame, estimate, size):
    """The error of theta_bar in the step along a probe, for the largest size of that so far."""
    estimate = abs(estimate)
    return estimate * _error_of_estimate(frame, estimate / size if size > 0.0 else 1.0) if estimate > 0.0 else 0.0


@kernel
def _judge_theta(frame):
    """The errors of theta_bar in the step, and for parameters that are zero."""
    trust, total, of_zeros = slots.TRUST(frame), slots.TOTAL(frame), 0.0
    trust[slots.ALONG], size = _along(total, slots.THETA_PROBE(frame))
    trust[slots.THETA_SIZE] = max(trust[slots.THETA_SIZE], size)
    of_theta = _theta_error(frame, trust[slots.THETA_ALONG], trust[slots.THETA_SIZE])
    if trust[slots.HAS_ZEROS] == 1.0:
        trust[slots.ZERO_SIZE] = max(trust[slots.ZERO_SIZE], _along(total, slots.ZERO_PROBE(frame))[1])
        of_zeros = _theta_error(frame, trust[slots.ZERO_ALONG], trust[slots.ZERO_SIZE])
    trust[slots.THETA_ALONG] = trust[slots.ZERO_ALONG] = 0.0
    return of_theta, of_zeros


@kernel
def _blame(frame, step, h, error, entry):
    """Remember the step with the largest error."""
    trust = slots.TRUST(frame)
    if error > trust[slots.WORST]:
        trust[slots.WORST], trust[slots.WORST_ENTRY] = error, entry
        trust[slots.WORST_T], trust[slots.WORST_H] = slots.FORWARD_T(frame)[step], h


@exact_kernel
def end_implicit_step(frame, step, h, error, entry):
    """The same for an implicit step."""
    trust, before = slots.TRUST(frame), size_of(slots.LAM(frame), slots.U_SIZE(frame))[0]
    trust[slots.STIFF_BEHIND], trust[slots.SOUND] = 1.0, max(trust[slots.SOUND], before)
    trust[slots.ALONG] = dot(slots.THETA_PROBE(frame), slots.TOTAL(frame))
    _blame(frame, step, h, error, entry)
    _keep(frame, step, 1.0, abs(h), (error, 0.0, 0.0, 0.0))


@exact_kernel
def end_step(frame, step, h, V):
    """Judge the step that has been pulled back from LAM to Y_BAR."""
    trust = slots.TRUST(frame)
    steps = trust[slots.COUNTS_FOR]
    if steps == 0.0:
        trust[slots.SKIPPED] = max(trust[slots.SKIPPED], abs(h))
        return
    sum_carried(frame)
    before, after, ratio, entry, part, fast = _lam_error(frame, V)
    of_estimate = _error_of_estimate(frame, ratio)
    error = max(before * ratio * of_estimate, fast)
    if trust[slots.STIFF_BEHIND] == 1.0 and not (after > before and ratio > _DAMPS):
        error = 0.0  # of what implicit steps have left of the stiff part of lam, which explicit steps damp
    trust[slots.LAM_SUM] += steps * error
    lasts = error < _LASTS * before
    lasting = part * of_estimate if lasts else 0.0
    add_lasting(frame, steps * lasting)
    of_theta, of_zeros = _judge_theta(frame)
    trust[slots.THETA_SUM] += steps * of_theta
    trust[slots.ZERO_SUM] += steps * of_zeros
    error = max(error, of_theta)
    _blame(frame, step, h, error, entry)
    if trust[slots.AMPLIFIED] == 1.0:
        error = of_zeros = lasting = 0.0  # of something that should not be there
    else:
        trust[slots.SOUND] = max(trust[slots.SOUND], before)
        trust[slots.AMPLIFIED] = 1.0 if after > before and not lasts else 0.0
    _keep(frame, step, steps, abs(h), (error, of_zeros, ratio if after > before else 0.0, abs(lasting)))


@kernel
def _keep(frame, step, steps, h, found):
    """Put a step down in its cell: that of the step behind it, or the next one where that is full."""
    trust, cells = slots.TRUST(frame), slots.CELLS(frame)
    if cells.shape[0] == 0:
        return
    k = int(trust[slots.CELLS_USED]) - 1
    if not trust[slots.ROOM_IN_CELL] > 0.0 and k + 1 < cells.shape[0]:  # what steps count for may sum up to more than there are
        k += 1
        trust[slots.CELLS_USED], trust[slots.ROOM_IN_CELL] = k + 1, trust[slots.STEPS_IN_CELL]
        cells[k, WORST_STEP], cells[k, LONGEST] = h, h
        cells[k, ERROR] = cells[k, ERROR_OF_ZEROS] = cells[k, RATIO] = cells[k, LASTING] = 0.0
        cells[k, ALONG] = trust[slots.ALONG]
    trust[slots.ROOM_IN_CELL] -= steps
    cells[k, START] = slots.FORWARD_T(frame)[step]
    error, of_zeros, ratio, lasting = found
    if error > cells[k, ERROR] or ratio > cells[k, RATIO] or lasting > cells[k, LASTING]:
        cells[k, WORST_STEP] = h
    cells[k, LONGEST] = max(cells[k, LONGEST], h, trust[slots.SKIPPED])
    trust[slots.SKIPPED] = 0.0
    cells[k, ERROR], cells[k, RATIO] = _larger(cells[k, ERROR], error), _larger(cells[k, RATIO], ratio)
    cells[k, ERROR_OF_ZEROS] = _larger(cells[k, ERROR_OF_ZEROS], of_zeros)
    cells[k, LASTING] = max(cells[k, LASTING], lasting)


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
    largest = largest_product(slots.TOTAL(frame), slots.THETA_PROBE(frame))
    for k in range(lam.size):
        largest = max(largest, abs(lam[k]) * (abs(start[k]) + floor[k]))
    return largest


@kernel
def _safety(frame):
    """What part of the units that pass an estimate may be: those of implicit steps are rather too large, but for few steps."""
    rounds = slots.LIMITED(frame)[1]
    if rounds > 0:
        return min(1.0, _SAFETY_REFINED * _to_power(2.0, rounds))
    implicit, magnified = slots.STEP_WEIGHTS(frame).shape[0] > 0, slots.LAM_POWERS(frame)[0] > _MAGNIFIES
    if (implicit or magnified) and slots.PLACE(frame)[slots.RELEVANT] <= 2 * _FEW_STEPS:
        return _SAFETY_OF_FEW
    return 1.0 if implicit else _SAFETY


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
    with_zeros = largest
    if trust[slots.HAS_ZEROS] == 1.0:
        with_zeros = max(largest, largest_product(slots.TOTAL(frame), slots.ZERO_PROBE(frame)))
    if with_zeros > 0.0:
        largest = max(largest, _ROUNDING * with_zeros)
        sum_carried(frame)
        sum_lasting(frame)
        of_lam, of_theta, of_zeros = trust[slots.LAM_SUM], trust[slots.THETA_SUM], trust[slots.ZERO_SUM]
        carried, lasting = size_of_theta(frame, slots.CARRIED_THETA(frame)), size_of_theta(frame, slots.LASTING_THETA(frame))
        trust[slots.U0_ERROR] = of_lam / largest
        here = (of_lam + of_theta + carried[0]) / largest + (of_zeros + carried[1]) / with_zeros
        trust[slots.THETA_ERROR] = max(here, lasting[0] / largest, lasting[1] / with_zeros)
    if unit == 0.0:
        return status
    trust[slots.UNITS] = trust[slots.THETA_ERROR] / unit
    last = slots.CELLS(frame).shape[0] == 0 or limited[1] >= ROUNDS
    if trust[slots.UNITS] <= (1.0 if last else _safety(frame)) * trust[slots.MOST]:
        return status
    if last:
        return INACCURATE if status == SUCCESS else status
    if amplified and not largest < sound:  # what has been amplified is no measure of the gradient
        largest = with_zeros = sound
    trust[slots.LAST_LARGEST] = largest
    _set_limits(frame, unit * largest, unit * with_zeros)
    return REFINE


@exact_kernel
def _set_limits(frame, unit, unit_of_zeros):
    """The largest steps for another forward solve: those of this one, or shorter where the errors say so."""
    trust, cells, limits, limited = slots.TRUST(frame), slots.CELLS(frame), slots.LIMITS(frame), slots.LIMITED(frame)
    share, lasts = _SHARE / _to_power(2.0, limited[1]), max(1.0, _SHARE / _SHARES * slots.PLACE(frame)[slots.RELEVANT])
    order, halves = slots.LAM_FACTORS(frame)[0], slots.LAM_POWERS(frame)[0]
    along = dot(slots.THETA_PROBE(frame), slots.TOTAL(frame))
    rows, turns = int(trust[slots.CELLS_USED]), trust[slots.SWITCHES_TO] == 1.0
    turns = turns and limited[1] >= (1 if trust[slots.STIFF_BEHIND] == 1.0 else _EXPLICIT_ROUNDS)
    for k in range(rows):
        error, ratio, factor = max(cells[k, ERROR] / unit, cells[k, ERROR_OF_ZEROS] / unit_of_zeros), cells[k, RATIO], math.inf
        error = max(error, lasts * WITH_STATE * cells[k, LASTING] * abs(along - cells[k, ALONG]) / unit)
        stiff = turns and not ratio <= _DAMPS
        if not (stiff or error <= share):
            factor = 0.8 * (share / error) ** (2.0 / (order * halves))
        if not (stiff or ratio <= _DAMPS):
            factor = min(factor, (0.5 * _DAMPS / ratio) ** (1.0 / order))
        limit = cells[k, WORST_STEP] * max(factor, _LEAST_FACTOR)
        if limited[1] > 0:
            limit = min(limit, cells[k, LONGEST])
        limits[rows - 1 - k, 0] = cells[k - 1, START] if k > 0 else math.inf
        limits[rows - 1 - k, 1], limits[rows - 1 - k, 2] = limit, 1.0 if stiff else 0.0
    limited[0], limited[1] = rows, limited[1] + 1
