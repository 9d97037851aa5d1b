"""The tolerances of a pass over lam, which follow how large lam is.

lam_i has the unit of the loss over that of u_i, and theta_bar_j that of the loss over theta_j's. What they have in common are the
logarithmic derivatives u_i lam_i and theta_j theta_bar_j. The largest of these, of lam where it is and of theta_bar so far, is the
*size*, and absolute tolerances are a part of it: a size / s_i for lam_i, with s_i the largest |u_i| along the trajectory, and
a size / |theta_j| for theta_bar_j. (Each |u_i| is increased by atol_i / rtol of the forward solve; a parameter that is zero counts
as 1.) So units of states and parameters change nothing, and lam may grow or decay by any factor: where it decays, the error of a
step is measured by what is left of it. For lam the size is no more than that of the largest lam so far: a parameter that is large
for no reason but its origin, as a point of time is, has a large logarithmic derivative, but needs as good a lam as others.
"""

from __future__ import annotations

from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.loops.errors import begin_errors

# The part a is rtol times that of the forward solve, atol / rtol over a typical |u|, for the state in which that is least. It
# leaves most of the tolerance to rtol |lam_i|, and something where lam_i passes through zero.
_TYPICAL = 0.25  # as a part of the largest
_LEAST_PART, _MOST_PART = 1e-4, 0.5
_LOST = 1e-100  # a size below this part of an earlier one is not followed any further


@exact_kernel
def largest_product(values, units):
    """The largest one of two vectors, entry by entry, of which `values` may be longer."""
    a, b, c, d, n = 0.0, 0.0, 0.0, 0.0, units.size
    for k in range(0, n - 3, 4):  # a single chain of comparisons waits for each
        a, b = max(a, abs(values[k] * units[k])), max(b, abs(values[k + 1] * units[k + 1]))
        c, d = max(c, abs(values[k + 2] * units[k + 2])), max(d, abs(values[k + 3] * units[k + 3]))
    for k in range(n - n % 4, n):
        a = max(a, abs(values[k] * units[k]))
    return max(max(a, b), max(c, d))


@kernel
def _size_of_lam(frame, y):
    """The largest logarithmic derivative of lam, the last part of y, at least LEAST_SIZE; u is that of the last look."""
    floor, states, largest = slots.U_FLOOR(frame), slots.FORWARD_U(frame), slots.CLOCK(frame)[slots.LEAST_SIZE]
    first, here = y.size - floor.size, slots.PLACE(frame)[slots.STEP]
    there = min(here + 1, slots.FORWARD_COUNT(frame)[slots.STEPS])
    for i in range(floor.size):
        scale = max(abs(states[here, i]), abs(states[there, i])) + floor[i]
        largest = max(largest, abs(y[first + i]) * scale)
    return largest


@kernel
def _size_of_theta(frame):
    """The largest logarithmic derivative of theta_bar so far."""
    if slots.WANTS(frame)[slots.WANTS_THETA] == 0:
        return 0.0
    return largest_product(slots.TOTAL(frame), slots.THETA(frame))


@kernel
def begin_tolerances(frame):
    """The scales of the states along the trajectory, and what part of a size absolute tolerances are."""
    scales, floor, earlier, states = slots.U_SCALES(frame), slots.U_FLOOR(frame), slots.U_LARGEST(frame), slots.FORWARD_U(frame)
    clock, control, part = slots.CLOCK(frame), slots.CONTROL(frame), _MOST_PART
    for i in range(scales.size):
        largest = earlier[i]
        for k in range(slots.FORWARD_COUNT(frame)[slots.STEPS] + 1):
            largest = max(largest, abs(states[k, i]))
        scales[i] = largest + floor[i]
        part = min(part, floor[i] / (_TYPICAL * scales[i]))
    clock[slots.PART], clock[slots.LEAST_SIZE], clock[slots.LARGEST_LAM] = max(part, _LEAST_PART), control[slots.COST_SIZE], 0.0
    if slots.SETTING(frame)[slots.JUDGED] == 1:
        begin_errors(frame)


@kernel
def set_tolerances(frame):
    """Absolute tolerances for steps from where the pass is."""
    clock, control, y = slots.CLOCK(frame), slots.CONTROL(frame), slots.Y(frame)
    atol, scales = slots.ATOL(frame), slots.U_SCALES(frame)
    judged = slots.SETTING(frame)[slots.JUDGED] == 1
    if control[slots.ATOL_SCALE] == 0.0 and control[slots.Q_ATOL_SCALE] == 0.0 and not judged:
        return
    of_theta, of_lam, first = _size_of_theta(frame), _size_of_lam(frame, y), y.size - scales.size
    clock[slots.SIZE], clock[slots.LARGEST_LAM] = max(of_lam, of_theta), max(clock[slots.LARGEST_LAM], of_lam)
    clock[slots.SIZE_OF_THETA], limited = of_theta, min(of_theta, clock[slots.LARGEST_LAM])
    clock[slots.LEAST_SIZE] = max(clock[slots.LEAST_SIZE], _LOST * clock[slots.SIZE])
    part = control[slots.ATOL_SCALE] * clock[slots.PART]
    if part > 0.0:
        for i in range(scales.size):
            atol[first + i] = part * max(of_lam, limited) / scales[i]
    if judged:
        clock[slots.SIZE_OF_LAM], largest = of_lam, 0.0
        for i in range(scales.size):
            largest = max(largest, atol[first + i] * scales[i])
        clock[slots.LAM_UNIT] = of_lam + largest / control[slots.RTOL]


@kernel
def quadrature_atol(frame):
    """The absolute tolerance of each theta_bar_j, times |theta_j| if it follows the size."""
    clock, control = slots.CLOCK(frame), slots.CONTROL(frame)
    scale = control[slots.Q_ATOL_SCALE]
    return scale * clock[slots.PART] * clock[slots.SIZE] if scale > 0.0 else control[slots.Q_ATOL]


@kernel
def in_size_left(frame, norm, y_new):
    """The error norm of a step in the tolerances of its end, if lam decays."""
    if slots.CONTROL(frame)[slots.ATOL_SCALE] == 0.0 or not norm > 0.0:
        return norm
    of_theta = min(slots.CLOCK(frame)[slots.SIZE_OF_THETA], slots.CLOCK(frame)[slots.LARGEST_LAM])
    before, after = max(_size_of_lam(frame, slots.Y(frame)), of_theta), max(_size_of_lam(frame, y_new), of_theta)
    return norm * (before / after) if after < before else norm
