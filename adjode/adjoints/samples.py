"""The integrand of theta_bar, sampled at the ends of steps, for methods whose stages are too few to tell how rough it is.

The slope at the end of a step is the first one of the step behind, and is pulled back for both at once: its part of theta_bar over
their weights is the integrand there. Second differences of three such samples, times the square of a step, take the place of the
sums over stages (tableaus/quadrature_error.py); so do those of the cotangents of these slopes, and of the slopes of u.
"""

from __future__ import annotations

from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel

PARTS, LATELY, EXPLAINED, BEFORE, LONG_BEFORE = 1, 2, 3, 4, 5  # places behind THETA_RULE and ZERO_RULE
_OF_U = 3  # rows of SAMPLES: three of cotangents of slopes, the last one first, then three of slopes


@kernel
def begin_samples(frame, step, h, behind):
    """Before a step is pulled back, whose size is h: what its last slope weighs, for it and for the step behind it, if any."""
    last, A = slots.SETTING(frame)[slots.LAST_STAGE], slots.A(frame)
    if behind == 0.0:
        slots.TRUST(frame)[slots.SAMPLED_TO] = slots.FORWARD_T(frame)[step + 1]
    shared = 0.0 if slots.COUNT(frame)[slots.BEFORE_GAP] == 1 else behind
    slots.TRUST(frame)[slots.JOINT] = A[last, last] * h + A[last, 0] * shared


@exact_kernel
def _put_differences(frame, t):
    """What three samples are to be multiplied by for a second difference, the last of them at t, and the width that it is for.

    The first difference is for all steps behind it.
    """
    trust = slots.TRUST(frame)
    trust[slots.BY_LAST] = trust[slots.BY_BEFORE] = trust[slots.BY_LONG_BEFORE] = trust[slots.COVERS] = 0.0
    near, far, part = abs(t - trust[slots.SAMPLED_AT]), trust[slots.SAMPLES_APART], 1.0 / trust[slots.COUNTS_FOR]
    if trust[slots.SAMPLES_TAKEN] >= 2.0:
        width = abs(t - trust[slots.SAMPLED_TO]) * part
        widest = max(width, near * part, far * part)
        factor = 2.0 * widest * widest / (near * far * (near + far))
        trust[slots.BY_LAST], trust[slots.BY_LONG_BEFORE] = factor * far, factor * near
        trust[slots.BY_BEFORE] = -factor * (near + far)
        trust[slots.COVERS], trust[slots.SAMPLED_TO] = width, t
    trust[slots.SAMPLES_TAKEN] += 1.0
    trust[slots.SAMPLED_AT], trust[slots.SAMPLES_APART] = t, near


@exact_kernel
def difference(frame, last, before, long_before):
    """Of three samples, and the size of the largest of them."""
    trust = slots.TRUST(frame)
    total = trust[slots.BY_LAST] * last + trust[slots.BY_BEFORE] * before + trust[slots.BY_LONG_BEFORE] * long_before
    return total, max(abs(last), abs(before), abs(long_before))


@exact_kernel
def _put_sums(frame, place):
    """Those at a place, which is that of THETA_RULE or ZERO_RULE, where the part of the last slope is so far."""
    trust = slots.TRUST(frame)
    last, before = trust[place] / trust[slots.JOINT], trust[place + BEFORE]
    total, largest = difference(frame, last, before, trust[place + LONG_BEFORE])
    trust[place], trust[place + PARTS] = total * trust[slots.COVERS], largest * trust[slots.COVERS]
    trust[place + BEFORE], trust[place + LONG_BEFORE] = last, before


@kernel
def take_sample(frame, step, h, V):
    """Behind the stages of a step: put sums over samples in place of those over stages."""
    trust, mesh, samples, K_bar = slots.TRUST(frame), slots.FORWARD_T(frame), slots.SAMPLES(frame), slots.K_BAR(frame)
    last, joint = slots.SETTING(frame)[slots.LAST_STAGE], trust[slots.JOINT]
    if joint == 0.0:
        return
    _put_differences(frame, mesh[step + 1])
    _put_sums(frame, slots.THETA_RULE)
    if trust[slots.HAS_ZEROS] == 1.0:
        _put_sums(frame, slots.ZERO_RULE)
    of_lam, of_u = 1.0 / joint, 1.0 / h
    for k in range(samples.shape[1]):
        for i in (2, 1):
            samples[i, k], samples[_OF_U + i, k] = samples[i - 1, k], samples[_OF_U + i - 1, k]
        samples[0, k], samples[_OF_U, k] = of_lam * K_bar[last, k], of_u * (V[last, k] - V[0, k])


@exact_kernel
def sums_of_samples(frame, k):
    """Sums for the slopes of entry k, their cotangents, and the products of both, and the sizes of what is summed."""
    samples, width = slots.SAMPLES(frame), slots.TRUST(frame)[slots.COVERS]
    w, w_before, w_long_before = samples[0, k], samples[1, k], samples[2, k]
    u, u_before, u_long_before = samples[_OF_U, k], samples[_OF_U + 1, k], samples[_OF_U + 2, k]
    of_u, parts_of_u = difference(frame, u, u_before, u_long_before)
    of_lam, parts_of_lam = difference(frame, w, w_before, w_long_before)
    of_both, parts_of_both = difference(frame, w * u, w_before * u_before, w_long_before * u_long_before)
    return (width * of_u, of_lam, width * of_both), (width * parts_of_u, parts_of_lam, width * parts_of_both)
