"""What a transposed step makes wrong in theta_bar.

The stages tell two things. What lam and the state have wrong goes into theta_bar as it goes into lam, by the same weights. And
theta_bar is a quadrature, whose integrand may be far rougher than u and lam: that of a parameter that is zero so far, say, times
sin(20 t). For integrands as rough as u and lam are, such a sum is better than it seems, since it is the derivative of a solution
that is right. So only one that varies faster than the slopes of u, the cotangents of these, and their products is held against the
rule (tableaus/quadrature_error.py).

What is observed of a fast part of a stiff system is a transient of lam, which no implicit step resolves, nor has to: the sum is the
derivative of a solution, which has no such part. In steps with a transient the rule is not asked, and what is left of one explains
no other integrand.

Where steps have grown as fast as they may, u says nothing of the mesh (u' = t^p is a polynomial, its derivative by p is not). Then
nothing explains the integrand, and its estimate is of another kind: how much theta_bar changes with shorter steps.
"""

from __future__ import annotations

import math

from adjode.adjoints.products import dot
from adjode.adjoints.samples import EXPLAINED, LATELY, PARTS, sums_of_samples, take_sample
from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.views import row

INNER, WHOLE = 0, 1  # the rows of the weights: without the first stage, and with it
_FADED = 100.0  # times an entry of lam at the stages: one that was so much larger is faster than the step
_FORGETS = 0.7  # of how rough u and lam have been, in a step
_ROUGHER = 3.0  # how much rougher than u and lam an integrand has to be where little is resolved
_LIKE_THAT = 10.0  # times a sum that has been explained of late, for one where parts of the integrand cancel
_FREE = 1e3  # how much more says that u has not chosen the step
_GROWN, _MUCH, _SEVERAL = 4.0, 0.25, 4  # nor has it where so many steps grow by such a factor, from the start over much of the span
_MATTERS = 10.0  # units of errors, from which on theta_bar is looked at more closely on shorter steps
_MARGIN = 4.0  # for what it has changed by
_TOLERANCES = 10.0  # changes of the state by so many of them are no more than noise
_NOTHING = 1e-9  # of lam
_UNFELT = 30.0  # units of a sum over slopes: the error estimate of the solve would have refused the step, if it had felt that
_NEGLIGIBLE = 1e-3  # units
_LARGER = 1.2  # times a square of theta_bar: less does not change how large it is


@kernel
def _along(theta_bar, probe):
    """(probe . theta_bar, the sum of the squares of its terms), by quarters: no addition waits for all those before it."""
    a = b = c = d = aa = bb = cc = dd = 0.0
    quarter = probe.size // 4
    for k in range(quarter):
        of_a, of_b = theta_bar[k] * probe[k], theta_bar[k + quarter] * probe[k + quarter]
        of_c, of_d = theta_bar[k + 2 * quarter] * probe[k + 2 * quarter], theta_bar[k + 3 * quarter] * probe[k + 3 * quarter]
        a, b, c, d = a + of_a, b + of_b, c + of_c, d + of_d
        aa, bb, cc, dd = aa + of_a * of_a, bb + of_b * of_b, cc + of_c * of_c, dd + of_d * of_d
    for k in range(4 * quarter, probe.size):
        part = theta_bar[k] * probe[k]
        a, aa = a + part, aa + part * part
    return a + b + c + d, aa + bb + cc + dd


@kernel
def _with_both(theta_bar, probe, zero_probe):
    """What both probes make of it, by halves: theta_bar is read once."""
    a = b = of_zeros = zeros_of_b = 0.0
    half = probe.size // 2
    for k in range(half):
        a += theta_bar[k] * probe[k]
        of_zeros += theta_bar[k] * zero_probe[k]
        b += theta_bar[k + half] * probe[k + half]
        zeros_of_b += theta_bar[k + half] * zero_probe[k + half]
    for k in range(2 * half, probe.size):
        a += theta_bar[k] * probe[k]
        of_zeros += theta_bar[k] * zero_probe[k]
    return a + b, of_zeros + zeros_of_b


@kernel
def keep_parts(frame, stage, theta_bar):
    """What a stage has pulled back along the probes, for the sums over the stages of its step."""
    parts, rules = slots.STAGE_PARTS(frame), slots.QUADRATURE_WEIGHTS(frame)
    if slots.LAM_WEIGHTS(frame)[stage] == 0.0 and rules[INNER, stage] == 0.0 and rules[WHOLE, stage] == 0.0:
        return
    if slots.TRUST(frame)[slots.HAS_ZEROS] == 1.0:
        parts[0, stage], parts[1, stage] = _with_both(theta_bar, slots.THETA_PROBE(frame), slots.ZERO_PROBE(frame))
    else:
        parts[0, stage] = _along(theta_bar, slots.THETA_PROBE(frame))[0]


@kernel
def _sum_stages(frame, probe, place):
    """The estimate of theta_bar along a probe, of the step; at this place what tells of it as a quadrature."""
    trust, parts, of_lam = slots.TRUST(frame), row(slots.STAGE_PARTS(frame), probe), slots.LAM_WEIGHTS(frame)
    of_rule, estimate, rule, sizes = row(slots.QUADRATURE_WEIGHTS(frame), int(trust[slots.RULE_ROW])), 0.0, 0.0, 0.0
    for i in range(of_lam.size):
        estimate += of_lam[i] * parts[i]
        rule += of_rule[i] * parts[i]
        sizes += abs(parts[i]) if of_rule[i] != 0.0 else 0.0
    trust[place], trust[place + PARTS] = rule, sizes
    return estimate


@kernel
def _size_along(total, probe, size):
    """The product, and the larger one of `size` and the Euclidean norm of theta_bar in the units of the probe.

    A root, for which a step waits long, is taken only where that has grown by a tenth.
    """
    along, squares = _along(total, probe)
    return along, math.sqrt(squares) if squares > _LARGER * size * size else size


@exact_kernel
def _ratio(total, parts):
    return abs(total) / parts if parts > 0.0 else 0.0


@kernel
def _fades(frame, k, h):
    """Whether entry k of what comes into an implicit step is next to nothing at all of its stages that are solved for."""
    K_bar, largest = slots.K_BAR(frame), 0.0
    for i in range(1, slots.SETTING(frame)[slots.LAST_STAGE] + 1):
        largest = max(largest, abs(K_bar[i, k]))
    return slots.LAM_RECENT(frame)[k] * abs(h) > _FADED * largest * slots.U_SIZE(frame)[k]


@kernel
def _any_fades(frame, h):
    found = False
    for k in range(slots.LAM_RECENT(frame).size):
        found |= _fades(frame, k, h)
    return found


@exact_kernel
def _sums_of_stages(frame, k, h, V):
    """Sums for the slopes of entry k, their cotangents, and the products of both, and the sizes of what is summed."""
    trust, K_bar, slopes = slots.TRUST(frame), slots.K_BAR(frame), slots.QUADRATURE_SLOPES(frame)
    weights, last = row(slots.QUADRATURE_WEIGHTS(frame), int(trust[slots.RULE_ROW])), slots.SETTING(frame)[slots.LAST_STAGE]
    b, of_u, of_lam, of_both = row(slots.A(frame), last), 0.0, 0.0, 0.0
    parts_of_u = parts_of_lam = parts_of_both = 0.0
    for i in range(last + 1):
        if weights[i] != 0.0:
            slope, w = 0.0, K_bar[i, k] / h
            for j in range(1, last + 1):
                slope += slopes[i, j] * (V[j, k] - V[0, k])
            of_u += weights[i] * b[i] * slope
            parts_of_u += abs(b[i] * slope)
            of_lam += weights[i] * w
            parts_of_lam += abs(w)
            of_both += weights[i] * w * slope
            parts_of_both += abs(w * slope)
    return (of_u, of_lam, of_both), (parts_of_u, parts_of_lam, parts_of_both)


@exact_kernel
def _roughness(frame, h, V, before):
    """The largest ratio of the slopes of u, of their cotangents, and of the products of both; and that of the cotangents alone.

    `before` is the size of lam.
    """
    trust, last, largest, largest_of_lam = slots.TRUST(frame), slots.SETTING(frame)[slots.LAST_STAGE], 0.0, 0.0
    unit, stiff = trust[slots.UNIT_ERROR], slots.STEP_WEIGHTS(frame).shape[0] > 0
    for k in range(V.shape[1]):
        if stiff and _fades(frame, k, h):
            continue
        size = max(abs(V[0, k]), abs(V[last, k])) + slots.U_FLOOR(frame)[k]
        sums, parts = sums_of_samples(frame, k) if slots.SAMPLES(frame).shape[0] > 0 else _sums_of_stages(frame, k, h, V)
        noise = _TOLERANCES * unit * size
        parts_of_u, parts_of_lam, parts_of_both = parts[0] + noise, parts[1], parts[2] + noise * parts[1]
        parts_of_lam += _NOTHING * before / size if size > 0.0 else 0.0
        largest_of_lam, ratio = max(largest_of_lam, _ratio(sums[1], parts_of_lam)), _ratio(sums[0], parts_of_u)
        if parts_of_u * _error_of_rule(frame, ratio) < _UNFELT * unit * size:
            largest = max(largest, ratio, _ratio(sums[2], parts_of_both))
    return max(largest, largest_of_lam), largest_of_lam


@exact_kernel
def _grow_freely(frame):
    """How many of the first steps have grown as fast as they may, if these are much of the span."""
    mesh, steps, k = slots.FORWARD_T(frame), slots.FORWARD_COUNT(frame)[slots.STEPS], 1
    if slots.FORWARD_COUNT(frame)[slots.EARLIER] > 0:
        return 0
    while k < steps and (k + 1 == steps or abs(mesh[k + 1] - mesh[k]) >= _GROWN * abs(mesh[k] - mesh[k - 1])):
        k += 1
    return k if k >= _SEVERAL and abs(mesh[k] - mesh[0]) > _MUCH * abs(mesh[steps] - mesh[0]) else 0


@exact_kernel
def _error_of_rule(frame, ratio):
    """What part of the integrand of a step its quadrature may be off by, for the ratio of its sums."""
    power = 1.0
    for _ in range(int(slots.QUADRATURE_FACTORS(frame)[0])):
        power *= ratio
    return min(slots.QUADRATURE_FACTORS(frame)[1] * math.sqrt(power), 1.0)


@exact_kernel
def _is_explained(frame, place, parts, of_u):
    """Whether the sum at this place, of `parts` in all, is no rougher than u and lam, or without `of_u` than lam alone.

    Most steps end here, which takes neither a division nor a root.
    """
    trust, factors, total = slots.TRUST(frame), slots.QUADRATURE_FACTORS(frame), abs(slots.TRUST(frame)[place])
    rough = trust[slots.ROUGH if of_u else slots.ROUGH_LAM] * parts
    stiff = slots.STEP_WEIGHTS(frame).shape[0] > 0 or trust[slots.SWITCHES_TO] == 1.0  # which need not be resolved
    if factors[2] < _FREE and not stiff and total > _ROUGHER * rough and total > factors[4] * parts:
        return False
    return total <= factors[3 if trust[slots.SEEN_ROUGH] == 1.0 else 2] * rough


@exact_kernel
def _rule_error(frame, step, h, V, before, place, size):
    """The error of the quadrature of a step along a probe, whose sums are at this place; `size` is that of theta_bar so far."""
    trust, parts = slots.TRUST(frame), slots.TRUST(frame)[place + PARTS]
    free = step < trust[slots.FREE_STEPS]
    of_u = not (free or trust[slots.GREW_FREELY] == 1.0)
    trust[place + LATELY] = max(parts / abs(h), _FORGETS * trust[place + LATELY])
    if of_u:  # an integrand that passes through zero is not rough
        parts = abs(h) * trust[place + LATELY]
    if _is_explained(frame, place, parts, of_u):
        trust[place + EXPLAINED] = _FORGETS * max(trust[place + EXPLAINED], abs(trust[place]))
        return 0.0
    if slots.STEP_WEIGHTS(frame).shape[0] > 0 and trust[slots.TRANSIENT] > 0.0 and _any_fades(frame, h):
        return 0.0
    ratio = _ratio(trust[place], parts)
    raised = parts * _error_of_rule(frame, ratio)
    if trust[slots.UNIT_ERROR] == 0.0 or not max(raised, parts * ratio) > _NEGLIGIBLE * trust[slots.UNIT_ERROR] * size:
        return 0.0
    rough, of_lam = _roughness(frame, h, V, before)
    trust[slots.ROUGH], trust[slots.ROUGH_LAM] = max(trust[slots.ROUGH], rough), max(trust[slots.ROUGH_LAM], of_lam)
    explained = _is_explained(frame, place, parts, of_u)
    trust[place + EXPLAINED] = _FORGETS * max(trust[place + EXPLAINED], abs(trust[place]) if explained else 0.0)
    if explained or (of_u and abs(trust[place]) < _LIKE_THAT * trust[place + EXPLAINED]):
        return 0.0
    free = free or ratio > _FREE * trust[slots.ROUGH]
    trust[slots.RULE_SUM] += trust[slots.COUNTS_FOR] * raised
    if not free:
        return trust[slots.RULE_IS_OFF] * raised
    trust[slots.FREE_SUM] += trust[slots.COUNTS_FOR] * max(raised, parts * ratio)
    return max(raised, parts * ratio)


@exact_kernel
def error_of_estimate(frame, ratio):
    """What makes an error of the estimate of a step, which is that part of what has been pulled back."""
    power = 1.0
    for _ in range(slots.LAM_POWERS(frame)[0] - 2):
        power *= ratio
    return slots.LAM_FACTORS(frame)[1] * math.sqrt(power)


@exact_kernel
def _error_along(frame, estimate, size):
    """The error of theta_bar in the step along a probe, for the largest size of that so far."""
    estimate = abs(estimate)
    return estimate * error_of_estimate(frame, estimate / size if size > 0.0 else 1.0) if estimate > 0.0 else 0.0


@kernel
def judge_theta(frame, step, h, V, before):
    """The errors of theta_bar in the step, and for parameters that are zero: along lam, and as a quadrature.

    `before` is the size of lam behind it.
    """
    trust, total, of_zeros, of_rule, rule_of_zeros = slots.TRUST(frame), slots.TOTAL(frame), 0.0, 0.0, 0.0
    has_zeros, width = trust[slots.HAS_ZEROS] == 1.0, h
    estimate = _sum_stages(frame, 0, slots.THETA_RULE)
    estimate_of_zeros = _sum_stages(frame, 1, slots.ZERO_RULE) if has_zeros else 0.0
    if slots.SAMPLES(frame).shape[0] > 0:
        take_sample(frame, step, h, V)
        width = trust[slots.COVERS]
    trust[slots.ALONG], size = _size_along(total, slots.THETA_PROBE(frame), trust[slots.THETA_SIZE])
    trust[slots.THETA_SIZE] = size
    trust[slots.ROUGH], trust[slots.ROUGH_LAM] = _FORGETS * trust[slots.ROUGH], _FORGETS * trust[slots.ROUGH_LAM]
    of_theta, steps = _error_along(frame, estimate, size), trust[slots.COUNTS_FOR]
    trust[slots.THETA_SUM] += steps * of_theta
    if width != 0.0:
        of_rule = _rule_error(frame, step, width, V, before, slots.THETA_RULE, max(size, before))
    trust[slots.RULE_OF_THETA] += steps * of_rule
    if has_zeros:
        trust[slots.ZERO_SIZE] = size = _size_along(total, slots.ZERO_PROBE(frame), trust[slots.ZERO_SIZE])[1]
        of_zeros = _error_along(frame, estimate_of_zeros, size)
        trust[slots.ZERO_SUM] += steps * of_zeros
        if width != 0.0:
            rule_of_zeros = _rule_error(frame, step, width, V, before, slots.ZERO_RULE, max(size, before))
        trust[slots.RULE_OF_ZEROS] += steps * rule_of_zeros
    return of_theta, of_zeros, (of_rule, rule_of_zeros)


@kernel
def begin_rules(frame):
    """What the mesh says of the estimates of this pass, or the pass before, on longer steps; and nothing yet of any stage."""
    trust, parts = slots.TRUST(frame), slots.STAGE_PARTS(frame)
    for i in range(parts.shape[1]):
        parts[0, i] = parts[1, i] = 0.0  # a weight of zero does not undo what is not a number
    if slots.LIMITED(frame)[1] == 0:
        trust[slots.RULE_IS_OFF], trust[slots.SEEN_ROUGH], trust[slots.GREW_FREELY] = 1.0, 0.0, 0.0
        trust[slots.FREE_STEPS] = _grow_freely(frame) if slots.QUADRATURE_FACTORS(frame)[0] > 0.0 else 0


@kernel
def _along_both(frame):
    total = slots.TOTAL(frame)
    return dot(slots.THETA_PROBE(frame), total) + dot(slots.ZERO_PROBE(frame), total)


@exact_kernel
def errors_of_rules(frame):
    """Those of theta_bar, and for parameters that are zero.

    Where u says nothing of the mesh: by how much theta_bar has changed since the last pass, that was wrong, and its estimates were
    too small by a factor, which those of this pass have as well.
    """
    trust = slots.TRUST(frame)
    of_theta, of_zeros, scale = trust[slots.RULE_OF_THETA], trust[slots.RULE_OF_ZEROS], 1.0
    if trust[slots.GREW_FREELY] == 1.0 and of_theta + of_zeros > 0.0 and trust[slots.AMPLIFIED] == 0.0:
        changed, used = _MARGIN * abs(_along_both(frame) - trust[slots.LAST_ALONG]), trust[slots.RULE_IS_OFF]
        trust[slots.RULE_IS_OFF] = max(changed / trust[slots.LAST_RULE_SUM], 1.0)
        scale = trust[slots.RULE_IS_OFF] / used
    trust[slots.RULE_SCALE] = scale
    return scale * of_theta, scale * of_zeros


@kernel
def end_rules(frame, largest):
    """Keep what the next pass, on shorter steps, has to know. It is not compared with a theta_bar that was amplified."""
    trust, unit = slots.TRUST(frame), slots.TRUST(frame)[slots.UNIT_ERROR] * largest
    if trust[slots.AMPLIFIED] == 1.0:
        return
    if trust[slots.RULE_SUM] > _MATTERS * unit:
        trust[slots.SEEN_ROUGH] = 1.0
    if trust[slots.FREE_SUM] > _MATTERS * unit:
        trust[slots.GREW_FREELY] = 1.0
    trust[slots.FREE_STEPS] = 0.0
    trust[slots.LAST_RULE_SUM] = max(trust[slots.RULE_SUM], unit)
    trust[slots.LAST_ALONG] = _along_both(frame)
