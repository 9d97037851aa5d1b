"""What feeds cotangents into the step that the discrete adjoint pulls back: those of states inside of it."""

from __future__ import annotations

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.views import row, segment
from adjode.steppers.transposed_error import SEEDS


@kernel
def place_in_step(frame, x):
    """BASIS[0, i] = b_i(x), the weights of the dense output."""
    PT, basis = slots.PT(frame), slots.BASIS(frame)
    z = x - 0.5 if slots.SETTING(frame)[slots.CENTRED] == 1 else x
    for i in range(PT.shape[1]):
        total = 0.0
        for p in range(PT.shape[0] - 1, -1, -1):
            total = PT[p, i] + z * total
        basis[0, i] = x * total


@kernel
def _seed_error(frame, x, weight, u_bar):
    """What the dense output of an implicit step at x makes wrong: (sum_i b_i(x) (A^q 1)_i - x^(q+1) / (q+1)!) z^(q+1) u_bar."""
    weights, basis, powers = slots.STEP_WEIGHTS(frame), slots.BASIS(frame), slots.LAM_POWERS(frame)
    if weights.shape[0] == 0:
        return
    seeds, total, term = row(slots.STEP_ERROR(frame), SEEDS), 0.0, 1.0
    for i in range(weights.shape[1]):
        total += basis[0, i] * weights[1, i]
    for p in range(powers[3] + 1):
        term *= x / (p + 1)
    for k in range(u_bar.size):
        seeds[k] += (total - term) * weight * u_bar[k]


@kernel
def seed_inside(frame, h, x, weight, u_bar):
    """Transpose of u = y + h sum_i b_i(x) K[i], for the cotangent weight * u_bar."""
    basis, y_bar, K_bar = slots.BASIS(frame), slots.Y_BAR(frame), slots.K_BAR(frame)
    for k in range(y_bar.size):
        y_bar[k] += weight * u_bar[k]
    _seed_error(frame, x, weight, u_bar)
    for i in range(K_bar.shape[0]):
        w = h * basis[0, i] * weight
        if w != 0.0:
            for k in range(y_bar.size):
                K_bar[i, k] += w * u_bar[k]


@kernel
def seed_observations(frame, left, t, h, t_new, first):
    """Add the cotangents of the observations in this step, the last `left` - 1; the number left, and whether any was inside.

    Rows of JUMPS may hold more than one cotangent behind each other: this is that which begins at `first`.
    """
    times, u_bars, lam = slots.TIMES(frame), slots.JUMPS(frame), slots.LAM(frame)
    direction, inside = (1.0 if h > 0.0 else -1.0), False
    while left > 0 and direction * (times[left - 1] - t) > 0.0:
        left -= 1
        if times[left] == t_new:
            for k in range(lam.size):
                lam[k] += u_bars[left, first + k]
        else:
            inside = True
            x = (times[left] - t) / h
            place_in_step(frame, x)
            seed_inside(frame, h, x, 1.0, segment(row(u_bars, left), first, lam.size))
    return left, inside
