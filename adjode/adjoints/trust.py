"""How far the gradient of the discrete adjoint can be trusted: the error of each transposed step, and where steps were too long.

The transposed steps are steps of the adjoint equation on a mesh that was chosen for u. Where u rests, or an explicit method is held
by its stability, that mesh may be far too coarse for lam. The stages of the transposed steps say so (tableaus/adjoint_error.py), in
the units of what is asked for: an entry of lam times the size of its state, and one of theta_bar times that of its parameter, are
parts of a logarithmic derivative, and the sum of their errors is compared with the largest one. Where that is too much, the forward
solve is asked for shorter steps (loops/limits.py), so that value and gradient remain those of one mesh.
"""

from __future__ import annotations

import math

import numpy as np

from adjode.adjoints.carried import add_lasting, begin_carried, part_of_lam, size_of_theta, sum_carried, sum_lasting
from adjode.adjoints.cells import DAMPS, MAGNIFIES, ROUNDS, error_of_drift, keep, keep_rules, mark_implicit, set_limits, to_power
from adjode.adjoints.drift import NOWHERE, begin_drift, follow_drift, multiply_with_flow
from adjode.adjoints.kinks import begin_kinks, find_kink
from adjode.adjoints.products import dot
from adjode.adjoints.samples import begin_samples
from adjode.adjoints.theta_error import (
    INNER,
    WHOLE,
    begin_rules,
    end_rules,
    error_of_estimate,
    errors_of_rules,
    judge_theta,
    keep_parts,
)
from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.frame import Frame
from adjode.compile.views import row
from adjode.loops.jumps import INFLOW
from adjode.loops.tolerances import largest_product
from adjode.status import INACCURATE, NON_FINITE, REFINE, SUCCESS
from adjode.steppers.transposed_error import ERROR, SLOPE, shares_first_stage, size_of, size_of_lam

# Estimates up to this part of what passes do, at first and where steps have been shortened; there twice as much the next time.
_SAFETY, _SAFETY_REFINED = 0.6, 0.05
_SAFETY_GUESSED = 0.005  # the same where they are guessed from what the last shorter steps have changed
_SAFETY_OF_FEW = 0.1  # of estimates that are sums of few, or raised to a high power
_ONE_OF_MANY = 0.01  # of a sum: one in which no step has more is as good where steps have been shortened
_LASTS = 0.01  # an error that is more of lam is one to be mended where it is, and the step may amplify what it should damp
_GROWS = 10.0
_TRANSIENT = 4.0  # steps, at most, in which one fades: that which has what is observed, and those before it
_FORGETS = 0.5  # of what an entry of lam has been, in a step: one that passes through zero is not small
_LEAST = 1e-4  # of its estimate, for an entry of lam that is next to nothing
_FEW_STEPS = 24  # in all, each of which is judged
_PASSED_OVER, _IF_STEADY = 1.0, 3.0  # steps that are like the one before them, which is judged; the latter with implicit steps
_ABOUT, _NOTHING = 1.5, 0.01  # errors are about the same up to that factor, or if they are no more units of lam
_UNLIKE = 1.5  # a factor between the sizes of neighbouring steps
_AHEAD = 10.0  # times a step: what is observed farther ahead is not in the next one
_FROM_IMPLICIT = 2.0  # times the error that implicit steps have left in lam, for those that explicit steps make of it
_ROUNDING = 1e-14  # of lam: a gradient below that is nothing


@kernel
def _forget_inflows(frame):
    """Inflows are no parameters of the user's."""
    entries = slots.DOSE_ENTRIES(frame)
    for k in range(INFLOW, entries.size, 7):
        if 0 <= entries[k] < slots.THETA_PROBE(frame).size:
            slots.THETA_PROBE(frame)[entries[k]] = slots.ZERO_PROBE(frame)[entries[k]] = 0.0


def put_probes(frame: Frame, m: int) -> None:
    """Give a frame the numbers about 1 of either sign that its probes are made of."""
    k = np.arange(m)
    frame[slots.ABOUT_ONE] = (0.75 + 0.5 * (0.618 * k % 1.0)) * np.where(k * (k + 1) % 7 < 3, 1.0, -1.0)
    frame[slots.THETA_PROBE], frame[slots.ZERO_PROBE] = np.zeros(m), np.zeros(m)


@kernel
def begin_trust(frame):
    trust, lam_error, theta = slots.TRUST(frame), slots.LAM_ERROR(frame), slots.THETA(frame)
    probe, zero_probe, about_one = slots.THETA_PROBE(frame), slots.ZERO_PROBE(frame), slots.ABOUT_ONE(frame)
    for k in range(slots.LAM_SUM, trust.size):
        trust[k] = 0.0
    for k in range(about_one.size):
        probe[k], zero_probe[k] = abs(theta[k]) * about_one[k], about_one[k] if theta[k] == 0.0 else 0.0
    _forget_inflows(frame)
    has_zeros = 0.0
    for k in range(probe.size):
        has_zeros += abs(zero_probe[k])
    trust[slots.HAS_ZEROS] = 1.0 if has_zeros > 0.0 else 0.0
    for k in range(lam_error.size):
        lam_error[k] = slots.LAM_RECENT(frame)[k] = 0.0
    begin_rules(frame)
    begin_carried(frame)
    begin_kinks(frame)
    trust[slots.DRIFT_LEFT], trust[slots.AUTONOMOUS] = NOWHERE, trust[slots.MAY_CONSERVE]


@exact_kernel
def _is_apart(frame, h, t, left, observed):
    """Whether an implicit step is to be judged by itself: lam jumps in it, or in the next one, which then needs its first slope."""
    times = slots.TIMES(frame)
    ahead = shares_first_stage(frame) and left > 0 and abs(times[left - 1] - t) < _AHEAD * abs(h)
    return observed or ahead or slots.SAMPLES(frame).shape[0] > 0


@kernel
def _counts_for(frame, apart):
    """How many steps this one stands for: itself if it is `apart`, else the next ones too, which are not judged then."""
    trust = slots.TRUST(frame)
    if not apart and trust[slots.TO_SKIP] > 0.0:
        trust[slots.TO_SKIP] -= 1.0
        trust[slots.SKIPPED] = max(trust[slots.SKIPPED], trust[slots.BEHIND])
        trust[slots.SKIPPED_LENGTH] += trust[slots.BEHIND]
        return 0.0
    trust[slots.TO_SKIP] = 0.0
    if not apart:
        steady = slots.STEP_WEIGHTS(frame).shape[0] > 0 and trust[slots.IS_STEADY] == 1.0
        trust[slots.TO_SKIP] = _IF_STEADY if steady else _PASSED_OVER
    return 1.0 + trust[slots.TO_SKIP]


@exact_kernel
def begin_step(frame, step, h, V, left, observed):
    """The cotangents of the step are in LAM, and those of states inside of it, if any, in Y_BAR.

    `left` observations are left, and this step may have `observed` some. Where there are many steps much like each other, every
    other one is judged.
    """
    trust, y_bar, starts = slots.TRUST(frame), slots.Y_BAR(frame), slots.FORWARD_COUNT(frame)[slots.EARLIER] + step == 0
    steps, size, behind = slots.PLACE(frame)[slots.RELEVANT], abs(h), trust[slots.BEHIND]
    trust[slots.BEHIND], trust[slots.SEEDS] = size, 0.0
    sampled, stiff = slots.SAMPLES(frame).shape[0] > 0, slots.STEP_WEIGHTS(frame).shape[0] > 0
    if sampled:
        begin_samples(frame, step, size, behind)
    find_kink(frame, step, h, V)
    apart = steps <= _FEW_STEPS or starts or size > _UNLIKE * behind or behind > _UNLIKE * size or trust[slots.KINK_ERROR] > 0.0
    if stiff and not apart:
        apart = _is_apart(frame, h, slots.FORWARD_T(frame)[step], left, observed)
    trust[slots.COUNTS_FOR] = _counts_for(frame, apart)
    begin_drift(frame, left, observed or behind == 0.0)
    trust[slots.RULE_ROW] = WHOLE if starts and trust[slots.SWITCHES_TO] == 0.0 and not sampled else INNER
    if observed:
        for k in range(y_bar.size):
            trust[slots.SEEDS] = max(trust[slots.SEEDS], abs(y_bar[k]) * _size_of_state(frame, V, k))
    if stiff:
        _keep_what_comes(frame, V)
        trust[slots.TRANSIENT] = _TRANSIENT if observed else max(trust[slots.TRANSIENT] - 1.0, 0.0)


@kernel
def add_stage(frame, stage, u_bar, theta_bar):
    """What a stage has pulled back, to the estimates of its step."""
    trust, weight = slots.TRUST(frame), slots.LAM_WEIGHTS(frame)[stage]
    if trust[slots.COUNTS_FOR] == 0.0:
        return
    explicit = slots.STEP_WEIGHTS(frame).shape[0] == 0
    if weight != 0.0 and explicit:
        error = slots.LAM_ERROR(frame)
        for k in range(error.size):
            error[k] += weight * u_bar[k]
    if explicit and trust[slots.FOLLOWS] == 1.0 and stage == slots.SETTING(frame)[slots.LAST_STAGE]:
        multiply_with_flow(frame, slots.LAM(frame), u_bar)  # the two are lam at the end of the step
    keep_parts(frame, stage, theta_bar)


@exact_kernel
def _size_of_state(frame, V, k):
    """At the ends of a step, and between: between two bounces of a ball its height is zero at both ends."""
    last = slots.SETTING(frame)[slots.LAST_STAGE]
    return max(abs(V[0, k]), abs(V[last // 2, k]), abs(V[last, k])) + slots.U_FLOOR(frame)[k]


@kernel
def _keep_what_comes(frame, V):
    """The entries of lam behind an implicit step, or of what is observed in it: see `_fades` in theta_error.py."""
    lam, y_bar, recent = slots.LAM(frame), slots.Y_BAR(frame), slots.LAM_RECENT(frame)
    for k in range(lam.size):
        recent[k] = max(abs(lam[k]), abs(y_bar[k])) * _size_of_state(frame, V, k)


@kernel
def begin_implicit_step(frame, V):
    """The sizes of the states in an implicit step, and nothing in the sum over its stages."""
    sizes, rows = slots.U_SIZE(frame), slots.STEP_ERROR(frame)
    for k in range(sizes.size):
        sizes[k], rows[SLOPE, k] = _size_of_state(frame, V, k), 0.0


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
            fast = max(fast, wrong * error_of_estimate(frame, wrong / max(recent[k], seeds, _LEAST * wrong)))
        if new > after:
            after, grown_from = new, max(recent[k], seeds)
        before = max(before, old)
    ratio, part = largest / before if before > 0.0 else 0.0, product / squares if squares > 0.0 else 0.0
    if after > _GROWS * grown_from > 0.0 and after > before:  # the rarer one first
        ratio = max(ratio, to_power(math.log(after / grown_from), int(slots.LAM_FACTORS(frame)[0])))
    return before, after, ratio, entry, part, fast


@kernel
def _blame(frame, step, h, error, entry):
    """Remember the step with the largest error."""
    trust = slots.TRUST(frame)
    of_kink = trust[slots.KINK_ERROR]
    if max(error, of_kink) > trust[slots.WORST]:
        trust[slots.WORST], trust[slots.WORST_ENTRY] = max(error, of_kink), entry
        trust[slots.WORST_IS_KINK] = 1.0 if of_kink >= error else 0.0
        trust[slots.WORST_T], trust[slots.WORST_H] = slots.FORWARD_T(frame)[step], h


@kernel
def judge_stages(frame, step, h, V):
    """The errors of theta_bar that the stages of an implicit step tell of, before errors are carried over them."""
    if slots.TRUST(frame)[slots.RULE_ROW] == INNER:
        return judge_theta(frame, step, h, V, size_of_lam(frame))
    return 0.0, 0.0, (0.0, 0.0)


@exact_kernel
def _note_steadiness(frame, error, before):
    """Whether the error is about that of the last step judged, as a part of lam, whose size is `before`, and J has not changed."""
    trust, part = slots.TRUST(frame), error / before if before > 0.0 else 0.0
    last, trust[slots.LAST_PART] = trust[slots.LAST_PART], part
    alike = max(part, last) < _NOTHING * trust[slots.UNIT_ERROR] or (part < _ABOUT * last and last < _ABOUT * part)
    trust[slots.IS_STEADY] = 1.0 if alike and trust[slots.FAR] == 0.0 else 0.0
    trust[slots.FAR] = 0.0


@exact_kernel
def end_implicit_step(frame, step, h, V, found):
    """The same for an implicit step, with what `judge_stages` has found."""
    trust, sizes, (of_theta, of_zeros, of_rules) = slots.TRUST(frame), slots.U_SIZE(frame), found
    before, (error, entry) = size_of_lam(frame), size_of(row(slots.STEP_ERROR(frame), ERROR), sizes)
    steps = trust[slots.COUNTS_FOR]
    error /= steps
    _note_steadiness(frame, error, before)
    lasting = abs(part_of_lam(frame)) / steps if error < _LASTS * before else 0.0
    trust[slots.STIFF_BEHIND], trust[slots.SOUND] = 1.0, max(trust[slots.SOUND], before)
    trust[slots.ALONG] = dot(slots.THETA_PROBE(frame), slots.TOTAL(frame))
    error = max(error, of_theta)
    _blame(frame, step, h, max(error, of_rules[0]), entry)
    keep(frame, step, steps, abs(h), (error, of_zeros, 0.0, lasting))
    mark_implicit(frame)
    follow_drift(frame, step, h, V)
    keep_rules(frame, abs(h), of_rules)


@exact_kernel
def end_step(frame, step, h, V):
    """Judge the step that has been pulled back from LAM to Y_BAR."""
    trust = slots.TRUST(frame)
    steps = trust[slots.COUNTS_FOR]
    if steps == 0.0:
        return
    follow_drift(frame, step, h, V)
    before, after, ratio, entry, part, fast = _lam_error(frame, V)
    of_estimate = error_of_estimate(frame, ratio)
    error = max(before * ratio * of_estimate, fast)
    left = _FROM_IMPLICIT * trust[slots.LEFT_WRONG]
    if trust[slots.STIFF_BEHIND] == 1.0 and not (after > before and ratio > DAMPS) and not error > left:
        error = 0.0  # of what implicit steps have left of the stiff part of lam, which explicit steps damp
    trust[slots.LAM_SUM] += steps * error
    lasts = error < _LASTS * before
    lasting = part * of_estimate if lasts else 0.0
    add_lasting(frame, steps * lasting)
    of_theta, of_zeros, of_rules = 0.0, 0.0, (0.0, 0.0)
    if trust[slots.RULE_ROW] == INNER:
        of_theta, of_zeros, of_rules = judge_theta(frame, step, h, V, before)
    error = max(error, of_theta)
    _blame(frame, step, h, max(error, of_rules[0]), entry)
    if trust[slots.AMPLIFIED] == 1.0:
        error, of_zeros, lasting, of_rules = 0.0, 0.0, 0.0, (0.0, 0.0)  # of something that should not be there
    else:
        trust[slots.SOUND] = max(trust[slots.SOUND], before)
        trust[slots.AMPLIFIED] = 1.0 if after > before and not lasts else 0.0
    keep(frame, step, steps, abs(h), (error, of_zeros, ratio if after > before else 0.0, abs(lasting)))
    keep_rules(frame, abs(h), of_rules)


@kernel
def end_first_stage(frame, V):
    """Judge theta_bar in the first step of all, whose first stage has been pulled back by itself."""
    trust, mesh = slots.TRUST(frame), slots.FORWARD_T(frame)
    if trust[slots.RULE_ROW] == INNER:
        return
    h = mesh[1] - mesh[0]
    of_rules = judge_theta(frame, 0, h, V, largest_product(slots.LAM(frame), row(V, 0)))[2]
    trust[slots.RULE_ROW] = INNER
    _blame(frame, 0, h, of_rules[0], 0)
    keep_rules(frame, abs(h), of_rules)


@exact_kernel
def _size_at_start(frame):
    """The largest logarithmic derivative by u0."""
    lam, floor, start, largest = slots.LAM(frame), slots.U_FLOOR(frame), slots.U(frame), 0.0
    for k in range(lam.size):
        largest = max(largest, abs(lam[k]) * (abs(start[k]) + floor[k]))
    return largest


@kernel
def _safety(frame, largest):
    """What part of the units that pass an estimate may be: those of implicit steps are rather too large, but for few steps.

    `largest` is the size of the gradient. Where the errors of many steps add up, no better is asked for of shorter ones.
    """
    rounds, trust = slots.LIMITED(frame)[1], slots.TRUST(frame)
    many = trust[slots.WORST] <= _ONE_OF_MANY * trust[slots.THETA_ERROR] * largest
    if rounds > 0 and trust[slots.GREW_FREELY] == 1.0:
        return min(1.0, _SAFETY_GUESSED * to_power(2.0, rounds))
    if many:
        return _SAFETY
    if rounds > 0:
        return min(1.0, _SAFETY_REFINED * to_power(2.0, rounds))
    implicit, magnified = slots.STEP_WEIGHTS(frame).shape[0] > 0, slots.LAM_POWERS(frame)[0] > MAGNIFIES
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
    at_start = _size_at_start(frame)
    largest = max(at_start, largest_product(slots.TOTAL(frame), slots.THETA_PROBE(frame)), _ROUNDING * sound)
    with_zeros = largest
    if trust[slots.HAS_ZEROS] == 1.0:
        with_zeros = max(largest, largest_product(slots.TOTAL(frame), slots.ZERO_PROBE(frame)))
    if with_zeros > 0.0:
        largest = max(largest, _ROUNDING * with_zeros)
        sum_carried(frame)
        sum_lasting(frame)
        of_lam, of_theta, of_zeros = trust[slots.LAM_SUM], trust[slots.THETA_SUM], trust[slots.ZERO_SUM]
        carried, lasting = size_of_theta(frame, slots.CARRIED_THETA(frame)), size_of_theta(frame, slots.LASTING_THETA(frame))
        lasting_part = max(abs(trust[slots.LASTING] + trust[slots.PENDING]), trust[slots.DRIFT_MOST])
        of_start, of_drift = max(of_lam, lasting_part * at_start) / largest, error_of_drift(frame, at_start) / largest
        trust[slots.U0_ERROR] = of_start
        of_rules = errors_of_rules(frame)
        here = (of_lam + of_theta + of_rules[0] + carried[0]) / largest + (of_zeros + of_rules[1] + carried[1]) / with_zeros
        trust[slots.THETA_ERROR] = max(here, of_start, of_drift, lasting[0] / largest, lasting[1] / with_zeros)
        if of_drift == trust[slots.THETA_ERROR]:
            trust[slots.WORST_T], trust[slots.WORST_H] = trust[slots.DRIFT_T], trust[slots.DRIFT_H]
    if unit == 0.0:
        return status
    trust[slots.UNITS] = trust[slots.THETA_ERROR] / unit
    last = slots.CELLS(frame).shape[0] == 0 or limited[1] >= ROUNDS
    if trust[slots.UNITS] <= (1.0 if last else _safety(frame, largest)) * trust[slots.MOST]:
        return status
    if last:
        return INACCURATE if status == SUCCESS else status
    if amplified and not largest < sound:  # what has been amplified is no measure of the gradient
        largest = with_zeros = sound
    end_rules(frame, largest)
    set_limits(frame, unit * largest, unit * with_zeros, at_start)
    return REFINE
