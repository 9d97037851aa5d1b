"""Tangents along the accepted steps: the dual of the discrete adjoint, walked forwards, for many directions at once.

The exact derivatives of the numbers that were computed, with the mesh held fixed. The states of the stages are those the forward
solve has recorded, or are computed again. Products with the Jacobians are those of tangent_products.py.
"""

from __future__ import annotations

from collections.abc import Callable

from adjode.adjoints.gaps import keeps_off
from adjode.adjoints.jump_tangents import push_jumps
from adjode.adjoints.seeds import place_in_step
from adjode.adjoints.stages_again import make_stages_again
from adjode.adjoints.tangent_products import make_push, spread_theta
from adjode.compile import slots
from adjode.compile.calls import PORTABLE, Calls
from adjode.compile.finite import all_finite
from adjode.compile.flags import kernel
from adjode.compile.views import plane, row
from adjode.compile.watch import begin_watch, keep_watch
from adjode.jacobian import make_jacobian
from adjode.loops.jumps import INFLOW, begin_inflows
from adjode.loops.stops import is_behind_jump
from adjode.status import CALLBACK_RAISED, NON_FINITE, SUCCESS
from adjode.steppers.explicit import combine_fours, combine_loops, make_interpolant
from adjode.steppers.family import EXPLICIT, Solver
from adjode.steppers.lacing import is_laced, lace, unlace
from adjode.steppers.tangents import Push, make_explicit_tangent


@kernel
def _copy(out, x):
    for k in range(out.size):
        out[k] = x[k]


@kernel
def _keeps_dense(frame):
    """Whether the dense output of the tangents is kept."""
    return slots.MESH_DOTS(frame).shape[0] > 0


@kernel
def _is_seen(frame, t, step):
    """Whether an observation at t is at or before the start of this step: before the jump, if the state jumps there."""
    mesh_t, kinds, steps = slots.FORWARD_T(frame), slots.FORWARD_KIND(frame), slots.FORWARD_COUNT(frame)[slots.STEPS]
    direction = 1.0 if mesh_t[steps] >= mesh_t[0] else -1.0
    if step < steps and kinds.size > 0 and kinds[step] >= slots.JUMP:
        return not is_behind_jump(frame, t, kinds[step] - slots.JUMP, direction)
    return direction * (t - mesh_t[step]) <= 0.0


@kernel
def _observe_here(frame, step):
    """Write down what the tangents are, for observations up to the start of this step."""
    times, count = slots.TIMES(frame), slots.COUNT(frame)
    if _keeps_dense(frame):
        _copy(row(slots.MESH_DOTS(frame), step), slots.DOTS(frame))
    while count[slots.SEEN] < times.size and _is_seen(frame, times[count[slots.SEEN]], step):
        _copy(row(slots.OBSERVED_DOTS(frame), count[slots.SEEN]), slots.DOTS(frame))
        count[slots.SEEN] += 1


@kernel
def _ends_at_gap(frame, step):
    """Whether f or the state may jump behind a step."""
    kinds, behind = slots.FORWARD_KIND(frame), step + 1
    return kinds.size > 0 and behind < slots.FORWARD_COUNT(frame)[slots.STEPS] and kinds[behind] >= slots.CROSSING


@kernel
def _is_inside(frame, step):
    """Whether the next observation is before the end of the step, and before a jump there."""
    times, seen, mesh_t, kinds = (
        slots.TIMES(frame),
        slots.COUNT(frame)[slots.SEEN],
        slots.FORWARD_T(frame),
        slots.FORWARD_KIND(frame),
    )
    direction = 1.0 if mesh_t[step + 1] > mesh_t[step] else -1.0
    if seen == times.size or not direction * (times[seen] - mesh_t[step + 1]) < 0.0:
        return False
    if not _ends_at_gap(frame, step) or kinds[step + 1] < slots.JUMP:
        return True
    return not is_behind_jump(frame, times[seen], kinds[step + 1] - slots.JUMP, direction)


def _make_observe_inside(combine: Callable) -> Callable:
    @kernel
    def observe_inside(frame, step, t, h):
        """The tangents of the dense output: y_dot + h sum_i b_i(x) K_dot_i."""
        count, stage_dots = slots.COUNT(frame), slots.STAGE_DOTS(frame)
        while _is_inside(frame, step):
            place_in_step(frame, (slots.TIMES(frame)[count[slots.SEEN]] - t) / h)
            out, basis = row(slots.OBSERVED_DOTS(frame), count[slots.SEEN]), slots.BASIS(frame)
            combine(out, slots.DOTS(frame), h, basis, 0, stage_dots, basis.shape[1])
            count[slots.SEEN] += 1

    return observe_inside


_interpolant = make_interpolant(combine_loops)


@kernel
def _keep_inside(frame, step, h):
    """Write down the dense output of the step, where it is kept."""
    if _keeps_dense(frame):
        _interpolant(frame, h, slots.STAGE_DOTS(frame), plane(slots.MESH_DOTS_C(frame), step))


@kernel
def _keep_before(frame, step):
    """Write down the tangents ahead of a jump, where those of stages are: for who goes back over it."""
    if slots.STAGE_STATE_DOTS(frame).shape[0] > 0:
        _copy(row(plane(slots.STAGE_STATE_DOTS(frame), step), 0), slots.DOTS(frame))


@kernel
def _keep_behind(frame, step):
    """Where a jump is in a dense output, it has what is behind."""
    if _keeps_dense(frame):
        _copy(row(slots.MESH_DOTS(frame), step), slots.DOTS(frame))


def _make_stages(calls: Calls, push: Push, solver: Solver, straight: tuple[int, int] | None) -> Callable:
    """`stages(frame, t, h, t_new, V, dense) -> status`: STAGE_DOTS and NEXT_DOTS of one step of one method."""
    if solver.implicit:
        step = solver.tangent_step(push, make_jacobian(calls))

        @kernel
        def implicit_stages(frame, t, h, t_new, V, dense):
            return step(frame, t, h, t_new, V)

        return implicit_stages
    step_of, further = make_explicit_tangent(push, straight)

    @kernel
    def explicit_stages(frame, t, h, t_new, V, dense):
        last, top = slots.SETTING(frame)[slots.LAST_STAGE], slots.SETTING(frame)[slots.TOP]
        status = step_of(frame, t, h, t_new, V, 1, last)
        if dense and top > last and status == SUCCESS:
            status = further(frame, t, h, t_new, V, last + 1, top)
        return status

    return explicit_stages


def _make_keep(implicit: bool) -> Callable:
    @kernel
    def keep(frame, step, h, dense):
        """Write down the tangents of the states of the stages, where that is wanted: y_dot + h sum_j A_ij K_dot_j."""
        if slots.STAGE_STATE_DOTS(frame).shape[0] == 0:
            return
        setting, stage_dots, kept = slots.SETTING(frame), slots.STAGE_DOTS(frame), plane(slots.STAGE_STATE_DOTS(frame), step)
        s = setting[slots.LAST_STAGE]
        for i in range(1 + (setting[slots.TOP] if dense else s)):
            combine_loops(row(kept, i), slots.DOTS(frame), h, slots.A(frame), i, stage_dots, s + 1 if implicit else i)

    return keep


def _make_take(calls: Calls, push: Push, recorded: bool, solver: Solver, straight: tuple[int, int] | None = None) -> Callable:
    push_all, stages = push.all, _make_stages(calls, push, solver, straight)
    stages_again, keep = None if recorded else make_stages_again(calls, None), _make_keep(solver.implicit)
    observe_inside = _make_observe_inside(combine_loops if straight is None else combine_fours)

    @kernel
    def first_stage(frame, t, u):
        """The tangents of K[0] = f(t, u) where the step before has not left them."""
        if push_all(frame, t, u, slots.DOTS(frame), row(slots.STAGE_DOTS(frame), 0)) != 0:
            return CALLBACK_RAISED
        slots.COUNT(frame)[slots.FRESH] = 1
        return SUCCESS

    @kernel
    def take(frame, step):
        """Carry DOTS over one step, and write down the tangents observed in it."""
        mesh_t, stage_dots, status = slots.FORWARD_T(frame), slots.STAGE_DOTS(frame), SUCCESS
        t, t_new = mesh_t[step], mesh_t[step + 1]
        h = t_new - t
        dense = _keeps_dense(frame) or _is_inside(frame, step)
        if recorded:
            V = plane(slots.FORWARD_STAGES(frame), step)
        else:
            V = plane(slots.STAGES(frame), 0)
            jumps = _ends_at_gap(frame, step)  # so that the mesh may have the state behind
            if stages_again(frame, step, t, h, t_new, dense or jumps) != SUCCESS:
                return CALLBACK_RAISED
        if slots.COUNT(frame)[slots.FRESH] == 0:
            status = first_stage(frame, t, row(V, 0))
        if status == SUCCESS:
            status = stages(frame, t, h, t_new, V, dense)
        if status != SUCCESS:
            return status
        keep(frame, step, h, dense)
        if dense:
            observe_inside(frame, step, t, h)
        _keep_inside(frame, step, h)
        _copy(slots.DOTS(frame), slots.NEXT_DOTS(frame))
        _copy(row(stage_dots, 0), row(stage_dots, slots.SETTING(frame)[slots.LAST_STAGE]))
        return SUCCESS if all_finite(slots.DOTS(frame)) else NON_FINITE

    return take


def _make_take_by_kind(take: Callable, take_explicit: Callable | None) -> Callable:
    """A step of whichever kind; `take_explicit` is given where `take` is for the implicit one of two methods."""
    switches = take_explicit is not None

    @kernel
    def cross(frame, step, kind):
        if kind < slots.JUMP:
            return SUCCESS
        dots, other, n, width = slots.DOTS(frame), slots.NEXT_DOTS(frame), slots.STATE_DOT(frame).size, slots.WIDTH(frame)[0]
        if is_laced(frame):  # the rules of jumps take one direction behind the other
            _copy(other, dots)
            unlace(frame, other, dots, n, width)
        _keep_before(frame, step)
        status = push_jumps(frame, kind - slots.JUMP)
        spread_theta(frame)  # since inflows may be others
        if is_laced(frame):
            _copy(other, dots)
            lace(frame, other, dots, n, width)
        _keep_behind(frame, step)
        return status

    @kernel
    def take_step(frame, step):
        kinds, count = slots.FORWARD_KIND(frame), slots.COUNT(frame)
        if kinds.size > 0:
            if kinds[step] >= slots.CROSSING:  # f may be another behind
                count[slots.FRESH] = 0
                return cross(frame, step, kinds[step])
            count[slots.BEFORE_GAP] = 1 if _ends_at_gap(frame, step) and keeps_off(frame, step + 1) else 0
        if switches:
            if kinds[step] == slots.EXPLICIT_STEP:
                return take_explicit(frame, step)
            return take(slots.PARTNER(frame), step)
        return take(frame, step)

    return take_step


@kernel
def _begin_inflows(frame):
    """No inflow, nor a tangent of one."""
    entries, dots = slots.DOSE_ENTRIES(frame), slots.THETA_DOTS(frame)
    begin_inflows(frame)
    for k in range(INFLOW, entries.size, 7):
        for d in range(dots.shape[0] if entries[k] >= 0 else 0):
            dots[d, entries[k]] = 0.0


@kernel
def _begin(frame):
    count, clock = slots.COUNT(frame), slots.CLOCK(frame)
    for k in range(count.size):
        count[k] = 0
    for k in range(clock.size):
        clock[k] = 0.0
    _copy(slots.DOTS(frame), slots.START_DOTS(frame))
    slots.PLACE(frame)[slots.STEP] = 0
    _begin_inflows(frame)
    spread_theta(frame)


def make_tangents(
    calls: Calls = PORTABLE, stages: tuple[int, int] | None = None, *, recorded: bool, solver: Solver = EXPLICIT
) -> Callable:
    """The kernel of the pass, along the stages that the forward solve has recorded or along its mesh."""
    push = make_push(calls, in_fours=stages is not None)
    take = _make_take(calls, push, recorded, solver, stages)
    take_explicit = _make_take(calls, push, recorded, EXPLICIT) if solver.switches else None
    take_step = _make_take_by_kind(take, take_explicit)

    @kernel
    def tangents(frame):
        """From START_DOTS to DOTS at the end, with OBSERVED_DOTS at TIMES."""
        status = SUCCESS
        _begin(frame)
        begin_watch(frame)
        _observe_here(frame, 0)
        for step in range(slots.FORWARD_COUNT(frame)[slots.STEPS]):
            slots.PLACE(frame)[slots.STEP] = step
            status = keep_watch(frame, step)
            if status == SUCCESS:
                status = take_step(frame, step)
            if status != SUCCESS:
                return status
            _observe_here(frame, step + 1)
        return SUCCESS if all_finite(slots.DOTS(frame)) else NON_FINITE

    return tangents
