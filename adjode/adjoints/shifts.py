"""The discrete adjoint across jumps whose times move: exact for the steps beside them.

The mesh is fixed but for such jumps. The step that ends at an event has the size that makes the guard zero; that before a dose ends
where this is due. The steps behind a jump keep their sizes, and so move with it, up to the last one before the next jump or the end
of the span, which takes up what is left. So it is in a solve with fixed steps, of which this is the exact gradient; where errors
choose the steps, their choice is held fixed.

Going back, OF_START is the cotangent of the time at which the steps since the jump before begin. For a jump at tau behind a step,
rho = OF_START + lam+ . R_t + lam . du-/dh, with the last one for that of the step's own size h. If tau is where a guard is zero,
gamma = e_t + e_u . du-/dh: the transpose of the step gives both, from lam and from e_u, and is linear. Beside a jump with no step
next to it, one of no length stands in, with du/dh = f: that is the rule of jumping.py.
"""

from __future__ import annotations

from collections.abc import Callable

from adjode.adjoints.cells import divide_mesh
from adjode.adjoints.jumping import add_theta, differentiate_guard, give_to_time, moves, rate_at, speed_of_guard, to_slope
from adjode.adjoints.products import dot
from adjode.adjoints.shifting import BEFORE, E_U, FIRST_OF_GUARD, LAM, OF_GUARD, SLOPE, begin_shift, end_shift, f_outside
from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.views import row, unlikely
from adjode.status import CALLBACK_RAISED, SUCCESS

ALONE = -1  # in place of observations left: pull LAM back alone, not what is observed or costs, and judge no errors


@kernel
def begin_shifts(frame):
    shift, place = slots.SHIFT(frame), slots.PLACE(frame)
    shift[slots.MOVES] = shift[slots.KNOWN] = shift[slots.LEADS_TO] = shift[slots.OF_START] = shift[slots.ROUNDS] = 0.0
    end_shift(frame)
    if slots.JUMP_BARS(frame).size > 0:  # the last cotangent may be that of a time
        forward = slots.FORWARD_COUNT(frame)
        place[slots.RELEVANT] = forward[slots.EARLIER] + forward[slots.STEPS]
        divide_mesh(frame)


@kernel
def _is_gap(frame, step):
    return slots.FORWARD_KIND(frame)[step] >= slots.CROSSING


@kernel
def is_last(frame, step):
    """Whether no step of the forward pass comes behind this one."""
    forward = slots.FORWARD_COUNT(frame)
    return step + 1 == forward[slots.STEPS] and forward[slots.LATER] == 0


@kernel
def _jumps_at_stop(frame, step):
    """Whether the jumps in this step are at a stop, where f may jump as well: they move, and that does not."""
    return step > 0 and slots.FORWARD_KIND(frame)[step - 1] == slots.TO_JUMP_AT_STOP


@kernel
def _start_moves(frame, step):
    """Whether the time at which steps up to this one begin depends on the state or on theta."""
    kinds, whats = slots.FORWARD_KIND(frame), slots.JUMP_WHAT(frame)
    while step >= 0 and kinds[step] < slots.CROSSING:
        step -= 1
    if step < 0:
        last = slots.FORWARD_COUNT(frame)[slots.BEGUN] - 1
    else:
        last = -1 if _jumps_at_stop(frame, step) else kinds[step] - slots.JUMP
    if last < 0:
        return False
    many = 0
    for k in range(whats[3 * last + 2], last + 1):
        many += 1 if moves(frame, k) else 0
    return many > 0


@kernel
def sides_of(frame, step):
    """For the jumps in this step: whether OF_START is known, and whether a step leads there, which comes next."""
    shift, kinds = slots.SHIFT(frame), slots.FORWARD_KIND(frame)
    if shift[slots.EXACT] == 0.0 or _jumps_at_stop(frame, step):
        return False, False
    first = slots.JUMP_WHAT(frame)[3 * (kinds[step] - slots.JUMP) + 2]
    before = step - 1
    if slots.JUMP_WHAT(frame)[3 * first] == slots.DOSE and before >= 0 and kinds[before] == slots.CROSSING:
        before -= 1  # from where steps before a dose end to the dose
    leads = not _is_gap(frame, before) if before >= 0 else slots.FORWARD_COUNT(frame)[slots.LED] == 1
    return shift[slots.KNOWN] == 1.0, leads


@kernel
def begin_first_stage(frame):
    """The first slope behind a jump is taken at a time that moves with it."""
    shift = slots.SHIFT(frame)
    begin_shift(frame, 1.0, False, shift[slots.KNOWN] == 1.0 and shift[slots.MOVES] == 1.0, False)


@kernel
def end_first_stage(frame):
    slots.SHIFT(frame)[slots.OF_START] += slots.SHIFT(frame)[slots.OF_TIME]
    end_shift(frame)


@kernel
def see_behind(frame, step, u_bar):
    """A state observed at a jump at a fixed time is that behind it, on the way; `step` crosses the jump."""
    shift, slope = slots.SHIFT(frame), row(slots.JUMP_WORK(frame), SLOPE)
    if shift[slots.KNOWN] == 0.0 or shift[slots.MOVES] == 0.0:
        return SUCCESS
    u = row(slots.FORWARD_U(frame), step + 1)
    slots.COUNT(frame)[slots.DERIVATIVES] += 1
    if f_outside(frame, slots.FORWARD_T(frame)[step + 1], u, slope) != 0:
        return CALLBACK_RAISED
    to_slope(frame, slope)
    shift[slots.OF_START] -= dot(u_bar, slope)
    return SUCCESS


@kernel
def end_at_jumps(frame):
    slots.SHIFT(frame)[slots.KNOWN] = slots.SHIFT(frame)[slots.MOVES] = 0.0


@kernel
def _shift_first_stage(frame, step):
    """The part of K[0] in the size of a step; its time is that of the step before."""
    shift, w, slope, size = slots.SHIFT(frame), row(slots.K_BAR(frame), 0), row(slots.JUMP_WORK(frame), SLOPE), 0.0
    for k in range(w.size):
        size += abs(w[k])
    if size == 0.0:
        return SUCCESS
    slots.COUNT(frame)[slots.DERIVATIVES] += 1
    if f_outside(frame, slots.FORWARD_T(frame)[step], row(slots.FORWARD_U(frame), step), slope) != 0:
        return CALLBACK_RAISED
    shift[slots.OF_SIZE] += dot(w, slope) / shift[slots.STEP_SIZE]
    return SUCCESS


@kernel
def _put_guard(frame):
    """LAM = e_u, and nothing in TOTAL; what they hold goes aside."""
    lam, total, aside, work = slots.LAM(frame), slots.TOTAL(frame), slots.JUMP_TOTAL(frame), slots.JUMP_WORK(frame)
    for k in range(lam.size):
        work[LAM, k], lam[k] = lam[k], work[E_U, k]
    for i in range(total.size):
        aside[i], total[i] = total[i], 0.0


@kernel
def _keep_guard(frame):
    """What e_u has been pulled back to goes aside, in place of what was there."""
    lam, total, aside, work = slots.LAM(frame), slots.TOTAL(frame), slots.JUMP_TOTAL(frame), slots.JUMP_WORK(frame)
    first = row(slots.K_BAR(frame), 0)
    for k in range(lam.size):
        work[OF_GUARD, k], lam[k] = lam[k], work[LAM, k]
        work[FIRST_OF_GUARD, k], first[k] = first[k], 0.0
    for i in range(total.size):
        aside[i], total[i] = total[i], aside[i]


@kernel
def _subtract_guard(frame, factor):
    lam, total, aside, work = slots.LAM(frame), slots.TOTAL(frame), slots.JUMP_TOTAL(frame), slots.JUMP_WORK(frame)
    first = row(slots.K_BAR(frame), 0)
    for k in range(lam.size):
        lam[k] -= factor * work[OF_GUARD, k]
        first[k] -= factor * work[FIRST_OF_GUARD, k]
    for i in range(total.size - 1):
        total[i] -= factor * aside[i]


@kernel
def _differentiate_guard(frame, k):
    """(status, e_t) of the event that is jump k, before it; E_U, and e_theta in JUMP_THETA."""
    return differentiate_guard(frame, k, row(slots.JUMP_U(frame), 2 * k), row(slots.JUMP_WORK(frame), E_U))


@kernel
def _begin_event(frame):
    """LAM, the cotangent of the state before the event that the step ends at, goes aside; in its place that of the guard."""
    shift, work = slots.SHIFT(frame), slots.JUMP_WORK(frame)
    k = int(shift[slots.LEADS_TO]) - 1
    u, slope = row(slots.JUMP_U(frame), 2 * k), row(work, BEFORE)
    status, shift[slots.GUARD_RATE] = _differentiate_guard(frame, k)
    if status == SUCCESS:
        status, _ = rate_at(frame, slots.JUMP_T(frame)[k], u, u, slope)
    if status == SUCCESS:
        status, _ = speed_of_guard(frame, k, shift[slots.GUARD_RATE], row(work, E_U), slope)
    if status == SUCCESS:
        _put_guard(frame)
    return status


@kernel
def _end_guard(frame):
    """The guard has been pulled back over the step."""
    shift = slots.SHIFT(frame)
    _keep_guard(frame)
    shift[slots.GUARD_TIME] = shift[slots.GUARD_RATE] + shift[slots.OF_TIME]
    shift[slots.GUARD_RATE] += shift[slots.OF_SIZE]


@kernel
def _end_event(frame):
    """And lam has: the step's size is what makes the guard zero."""
    shift = slots.SHIFT(frame)
    factor = (shift[slots.OF_SIZE] + shift[slots.OF_JUMP]) / shift[slots.GUARD_RATE]
    _subtract_guard(frame, factor)
    status, _ = _differentiate_guard(frame, int(shift[slots.LEADS_TO]) - 1)
    add_theta(frame, -factor)
    shift[slots.OF_START] = shift[slots.OF_TIME] + shift[slots.OF_JUMP] - factor * shift[slots.GUARD_TIME]
    return status


@kernel
def _leads_to(frame):
    """What the step ends at: an event, a dose whose time moves, or -1 for what is where it is."""
    k = int(slots.SHIFT(frame)[slots.LEADS_TO]) - 1
    return slots.JUMP_WHAT(frame)[3 * k] if k >= 0 else -1


@kernel
def _begin_steps(frame, step):
    """Before the last of the steps between two jumps that is pulled back, so the first here."""
    shift = slots.SHIFT(frame)
    shift[slots.MOVES], shift[slots.KNOWN], shift[slots.OF_START] = 1.0 if _start_moves(frame, step) else 0.0, 1.0, 0.0


@kernel
def _ends_steps(frame, step):
    """Whether the step is the last one before the next jump or the end."""
    return is_last(frame, step) or _is_gap(frame, step + 1)


@kernel
def _takes_size(frame, step):
    """Whether the size of the step has a cotangent: where it is the last one before a time that moves."""
    return _ends_steps(frame, step) and (slots.SHIFT(frame)[slots.MOVES] == 1.0 or _leads_to(frame) >= 0)


@kernel
def _begin_step(frame, step, left):
    """(status, observations left) before the step is pulled back: twice for one that ends at an event, first its guard ALONE."""
    shift, mesh_t, status = slots.SHIFT(frame), slots.FORWARD_T(frame), SUCCESS
    to_event = _leads_to(frame) == slots.EVENT
    if shift[slots.ROUNDS] == 0.0:
        if shift[slots.KNOWN] == 0.0:
            _begin_steps(frame, step)
        status = _begin_event(frame) if to_event else SUCCESS
        shift[slots.ROUNDS] = 2.0 if to_event else 1.0
    last, moving = _ends_steps(frame, step), shift[slots.MOVES] == 1.0
    begin_shift(frame, mesh_t[step + 1] - mesh_t[step], _takes_size(frame, step), moving, moving and (not last or to_event))
    return status, ALONE if shift[slots.ROUNDS] == 2.0 else left


@kernel
def _end_step(frame, step, last):
    """What becomes of the cotangents of the step's size and time."""
    shift, end = slots.SHIFT(frame), _leads_to(frame)
    if not last:
        shift[slots.OF_START] += shift[slots.OF_TIME]
        return SUCCESS
    if end == slots.EVENT:
        status = _end_event(frame)
    else:
        status, shift[slots.OF_START] = SUCCESS, shift[slots.OF_TIME] - shift[slots.OF_SIZE]
        if end == slots.DOSE:
            k = int(shift[slots.LEADS_TO]) - 1
            give_to_time(frame, slots.JUMP_WHAT(frame)[3 * k + 1], shift[slots.OF_SIZE])
    shift[slots.LEADS_TO] = 0.0
    return status


@kernel
def _end_round(frame, step):
    """After the step has been pulled back."""
    shift, status = slots.SHIFT(frame), SUCCESS
    end_shift(frame)  # an implicit step has, behind its last stage
    if _takes_size(frame, step):
        status = _shift_first_stage(frame, step)
    shift[slots.ROUNDS] -= 1.0
    if status != SUCCESS:
        return status
    if shift[slots.ROUNDS] == 0.0:
        return _end_step(frame, step, _ends_steps(frame, step))
    _end_guard(frame)
    return SUCCESS


@kernel
def goes_on(frame):
    """Whether the step just pulled back is to be so once more."""
    return slots.SHIFT(frame)[slots.ROUNDS] > 0.0


def make_pull_shifted(pull_step: Callable) -> Callable:
    """`pull_step(frame, step, left) -> status, left` for steps that are no crossings, with shifts; again while it `goes_on`.

    It is called in one place, since in the fused tier it is inlined with all stages. What a shift needs to know is in memory: what
    could be computed ahead would be, for each step.
    """

    @kernel
    def pull_shifted(frame, step, left):
        moved, status, given = slots.FORWARD_COUNT(frame)[slots.OCCURRED] > 0, SUCCESS, left  # else no step moves
        if unlikely(moved and slots.SHIFT(frame)[slots.EXACT] == 1.0):
            status, given = _begin_step(frame, step, left)
        if status != SUCCESS:
            return status, left
        status, now_left = pull_step(frame, step, given)
        if unlikely(slots.SHIFT(frame)[slots.ROUNDS] > 0.0):
            if given == ALONE:
                now_left = left
            if status == SUCCESS:
                status = _end_round(frame, step)
        return status, now_left

    return pull_shifted
