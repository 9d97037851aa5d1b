"""Switching between an explicit and an implicit method on one trajectory.

Each method has a frame of its own, with the same arrays but for those of the method (`put_partner` in loop.py), and takes its steps
on it. A pass starts with the explicit one. Two measures of h times the largest eigenvalue of the Jacobian decide, neither of which
takes an evaluation:

- Explicit steps: h |f(Y) - f(Y')| / |Y - Y'| from the last two stages, which are at the same time, so that their difference lies
  along the stiffest direction (Hairer, Wanner, Solving ODEs II, IV.2).
- Implicit steps: the Jacobian at hand, by a few iterations of the power method whenever there is a new one. The stages cannot tell:
  they differ along the slow directions. Nor can a norm, which may be any number of times the largest eigenvalue.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.views import flat, plane, row
from adjode.loops.limits import is_stiff
from adjode.loops.record import stages_at
from adjode.status import STEP_TOO_SMALL, SUCCESS
from adjode.steppers.frozen import STALE

# Tsit5 is stable on the negative real axis as far as -3.5. Steps that stability holds back stay close to that. The tangent map of a
# step beyond grows, where step control damps the steps themselves: too many, and the discrete adjoint would grow with them.
_STIFF_FROM, _UNSTABLE_FROM = 3.0, 3.5
_UNSTABLE_WEIGHT = 3  # of one of these among ...
_STIFF_STEPS = 10  # ... so many of those, without ...
_CALM_STEPS = 6  # ... so many others in a row: a stiff problem
_HELD_AT = 3.2  # for so long steps are held back to this, where a step halves what is stiff
_CALM_BELOW = 1.5  # what an implicit step, and the one wanted next, would have to be ...
_RELEASE_STEPS = 4  # ... so many times in a row
_POWERS = 4


@exact_kernel
def _stretch(frame, slot):
    """h |f(Y) - f(Y')| / |Y - Y'| of the last two stages of the explicit step tried last; 0 if they are the same.

    Distances are in tolerances: in other units they may lie along a slow direction, far above what the fast one has left.
    """
    setting, rtol = slots.SETTING(frame), slots.CONTROL(frame)[slots.RTOL]
    K, atol, last = slots.K(frame), slots.ATOL(frame), setting[slots.LAST_STAGE]
    V = plane(slots.STAGES(frame), stages_at(frame, slot))
    slopes, states = 0.0, 0.0
    for k in range(atol.size):
        scale = atol[k] + rtol * abs(V[last, k])
        if scale > 0.0:
            slope, state = (K[last, k] - K[last - 1, k]) / scale, (V[last, k] - V[last - 1, k]) / scale
            slopes += slope * slope
            states += state * state
    return abs(slots.CLOCK(frame)[slots.H_TRIED]) * math.sqrt(slopes / states) if states > 0.0 else 0.0


@kernel
def _multiply(frame, x, out):
    """out = J x"""
    entries, J = slots.ENTRIES(frame), flat(slots.JACOBIAN(frame))
    size = entries.size // 3
    for i in range(out.size):
        out[i] = 0.0
    for k in range(size):
        out[entries[k]] += J[entries[2 * size + k]] * x[entries[size + k]]


@exact_kernel
def _length(x):
    total = 0.0
    for k in range(x.size):
        total += x[k] * x[k]
    return math.sqrt(total)


@kernel
def spectral_radius(frame):
    """That of the Jacobian, about: the geometric mean of the last two growths, so that a pair of eigenvalues is seen as one.

    The vector is kept for the next time, with a little of every direction mixed in, should another become the largest.
    """
    power, growths = slots.POWER(frame), 1.0
    x, image = row(power, 0), row(power, 1)
    size = _length(x)
    keeps = 0.0 < size < math.inf
    for k in range(x.size):
        x[k] = (x[k] / size if keeps else 0.0) + 0.01 * ((5 * k) % 7 - 2.5)
    for i in range(_POWERS):
        _multiply(frame, x, image)
        growth = _length(image)
        growth /= _length(x)
        growths *= growth if i >= _POWERS - 2 else 1.0
        for k in range(x.size):
            x[k] = image[k] / growth if growth > 0.0 else 0.0
        if not growth > 0.0:
            return growth
    return math.sqrt(growths)


@kernel
def _turn(frame, stiff):
    """The other method from here on."""
    count, clock = slots.COUNT(frame), slots.CLOCK(frame)
    count[slots.STIFF] = stiff
    count[slots.SWITCHES] += 1
    count[slots.EVIDENCE] = count[slots.CALM] = 0
    if stiff == 1:
        clock[slots.H_FACTORED] = clock[slots.H_PREVIOUS] = clock[slots.H_LAST] = 0.0
        clock[slots.REMAINS], count[slots.FRESHNESS] = 1.0, STALE
        power = slots.POWER(slots.PARTNER(frame))
        for k in range(power.shape[1]):
            power[0, k] = 0.0
    else:
        count[slots.FRESH] = 0  # the last slope is as exact as Newton's iteration: an explicit step takes a whole one


@kernel
def _watch_explicit(frame, slot):
    count, clock = slots.COUNT(frame), slots.CLOCK(frame)
    stretch = _stretch(frame, slot)
    if stretch > _STIFF_FROM:
        if count[slots.EVIDENCE] >= _UNSTABLE_WEIGHT:
            clock[slots.H] = min(clock[slots.H], abs(clock[slots.H_TRIED]) * _HELD_AT / stretch)
        count[slots.EVIDENCE] += _UNSTABLE_WEIGHT if stretch > _UNSTABLE_FROM else 1
        count[slots.CALM] = 0
        if count[slots.EVIDENCE] >= _STIFF_STEPS:
            _turn(frame, 1)
    else:
        count[slots.CALM] += 1
        if count[slots.CALM] >= _CALM_STEPS:
            count[slots.EVIDENCE] = 0


@kernel
def _watch_implicit(frame, accepted, renewed):
    count, clock = slots.COUNT(frame), slots.CLOCK(frame)
    if renewed:
        clock[slots.RADIUS] = spectral_radius(slots.PARTNER(frame))
    h = max(clock[slots.H], abs(clock[slots.H_TRIED]))
    if not h * clock[slots.RADIUS] <= _CALM_BELOW or is_stiff(frame, clock[slots.T]):
        count[slots.CALM] = 0
    elif accepted:
        count[slots.CALM] += 1
        if count[slots.CALM] >= _RELEASE_STEPS:
            _turn(frame, 0)


def make_switching(explicit: tuple[Callable, Callable], implicit: tuple[Callable, Callable]) -> tuple[Callable, Callable]:
    """`enter` and `step_on`, see `make_steps`, for two methods, from those of each; MESH_KIND says which has taken a step."""
    enter_explicit, step_explicit = explicit
    step_implicit = implicit[1]

    @kernel
    def enter(frame, t):
        clock, control, theirs = (
            slots.CLOCK(frame),
            slots.CONTROL(frame),
            slots.CONTROL(slots.PARTNER(frame)),
        )
        for k in range(control.size):  # which others write to, but to the first frame's alone
            if k not in (slots.ERROR_ORDER, slots.REACH):
                theirs[k] = control[k]
        clock[slots.H_PREVIOUS] = clock[slots.H_LAST] = 0.0
        return enter_explicit(frame, t)

    @kernel
    def step_on(frame, t, stop):
        count, marks = slots.COUNT(frame), slots.MESH_KIND(frame)
        if count[slots.STIFF] == 0 and is_stiff(frame, t):
            _turn(frame, 1)
        stiff, slot, jacobians = count[slots.STIFF], count[slots.STEPS], count[slots.JACOBIANS]
        status = step_explicit(frame, t, stop) if stiff == 0 else step_implicit(slots.PARTNER(frame), t, stop)
        if status == STEP_TOO_SMALL and stiff == 0:  # faster than times can tell: Radau's steps for lam may be shorter still
            _turn(frame, 1)
            return SUCCESS
        if status != SUCCESS:
            return status
        accepted = count[slots.STEPS] > slot
        if accepted and slots.SETTING(frame)[slots.RECORD] != 0:
            marks[slot] = stiff
        if stiff == 0:
            _watch_explicit(frame, slot)
        else:
            _watch_implicit(frame, accepted, count[slots.JACOBIANS] > jacobians)
        return SUCCESS

    return enter, step_on
