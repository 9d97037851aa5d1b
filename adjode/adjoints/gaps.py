"""The discrete adjoint across a gap: where f may jump, and the state may."""

from __future__ import annotations

from collections.abc import Callable

from adjode.adjoints.jumping import pull_jumps
from adjode.adjoints.shifts import begin_first_stage, end_at_jumps, end_first_stage, see_behind, sides_of
from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.views import row, unlikely
from adjode.loops.stops import is_behind_jump
from adjode.status import SUCCESS


@kernel
def sees(frame, direction, time, step):
    """Whether an observation at this time belongs to this step: behind the jump, if the state jumps there, or behind its start."""
    kinds = slots.FORWARD_KIND(frame)
    if kinds.size > 0 and kinds[step] >= slots.JUMP:
        return is_behind_jump(frame, time, kinds[step] - slots.JUMP, direction)
    return direction * (time - slots.FORWARD_T(frame)[step]) > 0.0


@kernel
def keeps_off(frame, step):
    """Whether steps have no stages behind this one: not where it crosses an event, whose time was not known then."""
    kind, whats = slots.FORWARD_KIND(frame)[step], slots.JUMP_WHAT(frame)
    if kind < slots.JUMP or whats.size == 0:
        return kind >= slots.CROSSING
    return whats[3 * whats[3 * (kind - slots.JUMP) + 2]] == slots.DOSE


def make_cross_smoothly(first_stage: Callable) -> Callable:
    @kernel
    def cross_smoothly(frame, step, behind, left):
        """Where f may jump: the slope at the start of the step behind, if there is one (not -1), is one of its own."""
        lam, times, u_bars = slots.LAM(frame), slots.TIMES(frame), slots.JUMPS(frame)
        direction = 1.0 if slots.FORWARD_T(frame)[step + 1] >= slots.FORWARD_T(frame)[0] else -1.0
        status = first_stage(frame, behind) if behind >= 0 else SUCCESS
        while left > 0 and sees(frame, direction, times[left - 1], step):
            left -= 1
            for k in range(lam.size):
                lam[k] += u_bars[left, k]
        return status, left

    return cross_smoothly


def make_cross(first_stage: Callable) -> Callable:
    cross_smoothly = make_cross_smoothly(first_stage)

    @kernel
    def cross(frame, step, behind, left):
        """The same where the state may jump."""
        kinds, before = slots.FORWARD_KIND(frame), left
        begin_first_stage(frame)
        status, left = cross_smoothly(frame, step, behind, left)
        end_first_stage(frame)
        if kinds[step] >= slots.JUMP:
            for k in range(left, before):
                if status == SUCCESS and behind >= 0:
                    status = see_behind(frame, step, row(slots.JUMPS(frame), k))
            if status == SUCCESS:
                status = pull_jumps(frame, kinds[step] - slots.JUMP, sides_of(frame, step), slots.LAM(frame))
        end_at_jumps(frame)
        return status, left

    return cross


def make_pull_any(pull_step: Callable, cross: Callable) -> Callable:
    @kernel
    def pull_any(frame, step, left):
        """A step of whichever kind."""
        kinds, behind = slots.FORWARD_KIND(frame), step + 1
        if not unlikely(kinds.size > 0 and kinds[step] >= slots.CROSSING):
            return pull_step(frame, step, left)
        slots.COUNT(frame)[slots.CROSSINGS] += 1
        relevant = slots.FORWARD_COUNT(frame)[slots.EARLIER] + behind < slots.PLACE(frame)[slots.RELEVANT]
        return cross(frame, step, behind if relevant and kinds[behind] < slots.CROSSING else -1, left)

    return pull_any
