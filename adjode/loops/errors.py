"""What the errors of the steps of a pass over lam come to, in the scale of logarithmic derivatives.

The error of an accepted step is a power of the norm that it was accepted with (tableaus/step_error.py), as a part of lam. It stays
this part in all that the pass adds to theta_bar afterwards, until lam becomes larger by what is observed. The steps of the forward
solve that it goes over have errors of the same kind, and the quadrature has an estimate of its own.
"""

from __future__ import annotations

import math

from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel

# How much larger errors are, in the mean, than the sums over trees by which they are found (`python -m docs.measure_trust`).
_SAFETY = 4.0
_MOST_UNITS = 1e4  # of lam, for what absolute tolerances allow: it is nothing then
_NOTHING = 1e-100  # of a gradient


@kernel
def begin_errors(frame):
    trust = slots.TRUST(frame)
    for k in range(slots.LAM_SUM, trust.size):
        trust[k] = 0.0
    trust[slots.FORWARD_STEP] = -1.0


@exact_kernel
def add_to_lam(frame, before):
    """Where lam, whose size was `before`, has become larger by what is observed, errors are less of it."""
    trust, after = slots.TRUST(frame), slots.CLOCK(frame)[slots.SIZE_OF_LAM]
    if after > before:
        trust[slots.LASTING] *= before / after


@kernel
def _quadrature_error(frame):
    """Of theta_bar in the step, times the sizes of the parameters."""
    clock, control, theta, unit = slots.CLOCK(frame), slots.CONTROL(frame), slots.THETA(frame), 0.0
    if control[slots.Q_ATOL_SCALE] > 0.0:
        atol = control[slots.Q_ATOL_SCALE] * clock[slots.PART] * clock[slots.SIZE]
    else:
        for j in range(theta.size):
            unit = max(unit, abs(theta[j]))
        atol = control[slots.Q_ATOL] * unit
    return slots.TRUST(frame)[slots.THETA_ALONG] * (atol + control[slots.Q_RTOL] * clock[slots.SIZE_OF_THETA])


@exact_kernel
def add_step_errors(frame, log_error, before, of_lam, unit):
    """Those of a step that has been accepted with a norm of this logarithm, and what all come to, were this the last one.

    `before`, `of_lam` and `unit` are what SIZE_OF_THETA, SIZE_OF_LAM and LAM_UNIT were.
    """
    trust, factors, clock = slots.TRUST(frame), slots.ERROR_FACTORS(frame), slots.CLOCK(frame)
    error = factors[1] * math.exp(factors[0] * (log_error + trust[slots.LOG_RTOL]))
    step = slots.FORWARD_COUNT(frame)[slots.EARLIER] + slots.PLACE(frame)[slots.STEP]
    steps = trust[slots.FORWARD_STEP] - step if trust[slots.FORWARD_STEP] >= 0.0 else 1.0
    trust[slots.FORWARD_STEP] = step
    error *= unit / of_lam if unit < _MOST_UNITS * of_lam else _MOST_UNITS
    trust[slots.LASTING] += _SAFETY * (error + trust[slots.STATE_ERROR] * steps)
    trust[slots.LAM_SUM] += trust[slots.LASTING] * (clock[slots.SIZE_OF_THETA] - before)
    trust[slots.THETA_SUM] += _quadrature_error(frame)
    trust[slots.THETA_ALONG] = 0.0
    largest, at_end = max(clock[slots.SIZE], _NOTHING), trust[slots.LASTING] * clock[slots.SIZE_OF_LAM]
    trust[slots.U0_ERROR] = at_end / largest
    trust[slots.THETA_ERROR] = (at_end + abs(trust[slots.LAM_SUM]) + trust[slots.THETA_SUM]) / largest
