"""What errors of the state do to a gradient, where that can be seen: the product of lam with du/dt is conserved.

To begin later is to begin elsewhere: along an exact solution of u' = f(u), lam . f(u) is the same at all times, but for what is
observed between. Along a computed one it drifts, by the errors of lam and by those of the state, of which estimates of lam alone
know nothing. Beside the terms of lam . f, a drift says what part of lam is wrong. That is large where something slow leads to
something fast: on the slow branch of a relaxation oscillator lam . f is 1e-3, as it jumps it is the sum of terms of 1e2, and a
millionth of these is a tenth of it.

Where a problem is stiff, f magnifies the error of u, and at rest it is nothing else. There lam changes while u does not, and what
happens to the product in such steps does not count.
"""

from __future__ import annotations

from adjode.adjoints.cells import DRIFT
from adjode.adjoints.products import dot
from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.views import row
from adjode.steppers.transposed_error import shares_first_stage

_PROBED = 4.0 / 3.0  # THETA_PROBE has at least three quarters of each parameter
_SMALL = 1.0  # units, as a part of lam: less makes no difference
_ALIGNED = 0.1  # of the product of their sizes are the terms of lam . f, at least: they may happen to be small
_SLOWER = 10.0  # times less u may change, as a part of it, than lam does in a step that counts
_STIFF = 10.0  # times lam, in what is pulled back over a slope
_FADED, _STAYS = 0.5, 0.1  # of an entry of lam before the step, and of u
NOWHERE = -1.0  # as the number of observations that were left


@kernel
def begin_drift(frame, left, leaps):
    """Whether the step being pulled back is one to follow the product in; `left` observations are left then.

    It `leaps` where something is observed in the step. At the end of the very last step du/dt is not known.
    """
    trust = slots.TRUST(frame)
    trust[slots.FOLLOWS] = 0.0
    if trust[slots.AUTONOMOUS] > 0.0 and trust[slots.COUNTS_FOR] > 0.0:
        if leaps:
            trust[slots.DRIFT_LEFT] = NOWHERE
        else:
            trust[slots.FOLLOWS], trust[slots.LEFT_NOW] = 1.0, left


@exact_kernel
def multiply_with_flow(frame, lam, rest):
    """The product of lam + rest with du/dt, in FLOW, and the sum of the sizes of its terms.

    `rest` has been pulled back over a slope only. In stiff steps it is much of a state that is nothing but its error in du/dt.
    """
    trust, flow, product, terms, stiff = slots.TRUST(frame), row(slots.FLOW(frame), 0), 0.0, 0.0, False
    for k in range(flow.size):
        term = (lam[k] + rest[k]) * flow[k]
        product += term
        terms += abs(term)
        stiff |= abs(rest[k]) > _STIFF * abs(lam[k])
    trust[slots.LAM_FLOW], trust[slots.FLOW_TERMS] = product, terms
    if stiff:
        trust[slots.FOLLOWS], trust[slots.DRIFT_LEFT] = 0.0, NOWHERE


@exact_kernel
def _size(frame, V, k):
    last = slots.SETTING(frame)[slots.LAST_STAGE]
    return max(abs(V[0, k]), abs(V[last, k])) + slots.U_FLOOR(frame)[k]


@kernel
def _changes_with_lam(frame, V):
    """Whether u changes in the step as lam does; V are the states of its stages."""
    lam, new, floor, last = slots.LAM(frame), slots.Y_BAR(frame), slots.U_FLOOR(frame), slots.SETTING(frame)[slots.LAST_STAGE]
    whole, change, changes = 0.0, 0.0, False
    for k in range(lam.size):
        size = abs(V[0, k]) + floor[k]
        whole += abs(lam[k]) * size
        change += abs(new[k] - lam[k]) * size
    for k in range(lam.size):
        changes |= change * (abs(V[0, k]) + floor[k]) <= _SLOWER * whole * abs(V[last, k] - V[0, k])
    return changes


@kernel
def _fades(frame, V):
    """Whether an entry of lam fades in the step while its state stays.

    However small, it is multiplied by what is nothing but an error of f. That matters where slopes are shared by steps, which are
    not f of the states there.
    """
    lam, new, floor, last = slots.LAM(frame), slots.Y_BAR(frame), slots.U_FLOOR(frame), slots.SETTING(frame)[slots.LAST_STAGE]
    fades = False
    for k in range(lam.size):
        stays = abs(V[last, k] - V[0, k]) < _STAYS * (abs(V[0, k]) + floor[k])
        fades |= stays and abs(new[k]) < _FADED * abs(lam[k])
    return fades


@exact_kernel
def follow_drift(frame, step, h, V):
    """What the product has become since the last step that was judged, and what that says of the gradient."""
    trust = slots.TRUST(frame)
    if trust[slots.FOLLOWS] == 0.0:
        return
    change, trust[slots.LAST_FLOW] = trust[slots.LAM_FLOW] - trust[slots.LAST_FLOW], trust[slots.LAM_FLOW]
    goes_on, trust[slots.LAST_FLOW_T] = trust[slots.DRIFT_LEFT] == trust[slots.LEFT_NOW], trust[slots.FLOW_T]
    counts = _changes_with_lam(frame, V)
    if counts and slots.STEP_WEIGHTS(frame).shape[0] > 0 and shares_first_stage(frame):
        counts = not _fades(frame, V)
    trust[slots.DRIFT_LEFT] = trust[slots.LEFT_NOW] if counts else NOWHERE
    if goes_on and counts:
        trust[slots.DRIFT] += change
        _put_into_cell(frame, step, h, abs(change))
    if abs(trust[slots.DRIFT]) <= _SMALL * trust[slots.UNIT_ERROR] * trust[slots.FLOW_TERMS]:
        trust[slots.DRIFT_PART] = 0.0
    else:
        _add_error(frame, V)


@kernel
def _put_into_cell(frame, step, h, change):
    """In the cell of the step the largest change of one."""
    trust, cells = slots.TRUST(frame), slots.CELLS(frame)
    k = int(trust[slots.CELLS_USED]) - 1
    if change > trust[slots.LARGEST_DRIFT]:
        trust[slots.LARGEST_DRIFT] = change
        trust[slots.DRIFT_T], trust[slots.DRIFT_H] = slots.FORWARD_T(frame)[step], h
    if k >= 0 and change > cells[k, DRIFT]:
        cells[k, DRIFT] = change


@exact_kernel
def _add_error(frame, V):
    """What part of lam the drift is, and that of what steps have added to theta_bar since it was known last."""
    trust, flow, lam, rate, largest = slots.TRUST(frame), row(slots.FLOW(frame), 0), slots.LAM(frame), 0.0, 0.0
    for k in range(flow.size):
        size = _size(frame, V, k)
        largest = max(largest, abs(lam[k]) * size)
        rate += abs(flow[k]) / size if size > 0.0 else 0.0
    terms = max(trust[slots.FLOW_TERMS], _ALIGNED * rate * largest)
    part = _PROBED * abs(trust[slots.DRIFT]) / terms if terms > 0.0 else 0.0
    along = dot(slots.THETA_PROBE(frame), slots.TOTAL(frame))
    if trust[slots.DRIFT_PART] > 0.0:
        trust[slots.DRIFT_THETA] += part * abs(along - trust[slots.DRIFT_ALONG])
    trust[slots.DRIFT_PART], trust[slots.DRIFT_ALONG] = part, along
    trust[slots.DRIFT_MOST] = max(trust[slots.DRIFT_MOST], part)
