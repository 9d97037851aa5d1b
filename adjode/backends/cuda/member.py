"""What one thread does: the whole gradient of one trajectory, or its solution.

The passes are those of the CPU, from `loops` and `adjoints`. What is here gives them their frames, and hands over from one to the
next. The kernels are plain functions until `target.py` compiles them for a device.

Of each accepted step the discrete adjoint keeps the time and the state, n + 1 numbers, and computes the stages again: recording
them would move (s + 1) n numbers more each way. The interpolating adjoint keeps the dense output.

`inputs` of a kernel are (given, u0, theta, spans, times, at_most, stops ahead, stops behind, doses, whats, store), all but the
first and the last three with a row for each trajectory or one for all; a span is (t0, T, T - t0); times and stops count from t0.
`data` of a loss are (rows, t_obs, components, data, weights), likewise the last two. A trajectory is row j;
`lane` is its thread's column of `store`, which has room for `capacity` steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from adjode.adjoints import interpolating
from adjode.adjoints.discrete import make_discrete
from adjode.backends.cuda.frames import make_frame, put
from adjode.backends.cuda.lane import make_put_parts
from adjode.backends.cuda.layouts import PassPlan
from adjode.backends.cuda.plan import Plan
from adjode.compile import slots
from adjode.compile.finite import is_finite
from adjode.compile.flags import kernel
from adjode.compile.slot import Slot
from adjode.compile.views import plane, row, segment
from adjode.passes.default_atol import follow_start
from adjode.passes.forward import make_forward
from adjode.passes.program import add_seen_at_start, make_run
from adjode.status import CALLBACK_RAISED, NON_FINITE, SUCCESS

GIVEN, U0, THETA, SPANS, TIMES, AT_MOST, STOPS_AHEAD, STOPS_BEHIND, DOSES, WHATS, STORE = range(11)  # `inputs`


@kernel
def _set_span(frame, span):
    time = slots.TIME_SPAN(frame)
    time[slots.ORIGIN], time[slots.EARLIEST], time[slots.LATEST] = span[0], min(span[0], span[1]), max(span[0], span[1])


@kernel
def _set_limits(frame, given, first, t_start, t_end):
    """Tolerances and limits from `given`, and the ends of the pass."""
    control, atol = slots.CONTROL(frame), slots.ATOL(frame)
    for i in range(control.size):
        control[i] = given[first + i]
    for i in range(atol.size):
        atol[i] = given[first + control.size + i]
    control[slots.T_START], control[slots.SPAN] = t_start, abs(t_end - t_start)
    control[slots.DIRECTION] = 1.0 if t_end >= t_start else -1.0


def _make_take_theta(near: bool, m: int) -> Callable:
    @kernel
    def take_theta(frame, theta):
        """Into local memory where they are few, or change; else they stay where they are."""
        if near:
            taken = slots.THETA(frame)
            for i in range(m):
                taken[i] = theta[i]
        else:
            put(frame, slots.THETA, theta, m)

    return take_theta


def _make_put_whats(given: tuple[tuple[Slot, int, int], ...]) -> Callable:
    """`put_whats(frame, whats)`: let slots hold the parts of a vector that are theirs."""
    if not given:

        @kernel
        def put_nothing(frame, whats):
            pass

        return put_nothing
    (slot, first, size), put_others = given[0], _make_put_whats(given[1:])

    @kernel
    def put_whats(frame, whats):
        put(frame, slot, segment(whats, first, size), size)
        put_others(frame, whats)

    return put_whats


def _make_put_due(one: PassPlan, plan: Plan, stops: Slot) -> Callable:
    """`put_due(frame, j, inputs, stops)`: what is due at which stops; `stops` is the slot of those that are known beforehand."""
    put_whats, has_doses, doses = _make_put_whats(one.whats), plan.jumps.doses is not None, len(plan.doses)

    @kernel
    def put_due(frame, inputs, times):
        put(frame, stops, times, times.size)
        put_whats(frame, inputs[WHATS])
        if has_doses:
            put(frame, slots.DOSES, inputs[DOSES], doses)

    return put_due


def _make_begin(plan: Plan) -> Callable:
    own_u0, own_theta, own_span, own_times, own_at_most = (name in plan.own for name in ("u0", "theta", "span", "times", "at_most"))
    take_theta, k = _make_take_theta(plan.near_theta, plan.m), plan.k
    put_due = _make_put_due(plan.forward, plan, slots.STOPS if plan.jumps.doses is None else slots.PLANNED)

    @kernel
    def begin(frame, j, inputs):
        """The frame of the forward pass, but for its stores."""
        span, start = row(inputs[SPANS], j if own_span else 0), row(inputs[U0], j if own_u0 else 0)
        _set_span(frame, span)
        _set_limits(frame, inputs[GIVEN], 0, 0.0, span[2])
        take_theta(frame, row(inputs[THETA], j if own_theta else 0))
        put(frame, slots.START, start, start.size)
        most, at_most = slots.ATOL_AT_MOST(frame), row(inputs[AT_MOST], j if own_at_most else 0)
        for i in range(most.size):
            most[i] = at_most[i]
        follow_start(frame, slots.FLOOR_BEHIND(frame))
        put_due(frame, inputs, row(inputs[STOPS_AHEAD], j if own_span else 0))
        put(frame, slots.TIMES, row(inputs[TIMES], j if own_times else 0), k)

    return begin


@kernel
def _write_work(frame, work):
    count = slots.COUNT(frame)
    work[0], work[1], work[2] = count[slots.DERIVATIVES], count[slots.STEPS] - count[slots.CROSSINGS], count[slots.REJECTED]


def make_solve(plan: Plan) -> Callable:
    """`solve_one(j, lane, capacity, inputs, data, outputs)`: the states at `times`, the status and the work of one trajectory."""
    new, put_lane = make_frame(plan.forward.layout)
    put_parts, calls = make_put_parts(put_lane, plan.forward.parts), plan.calls.jumping if plan.jumps else plan.calls
    begin, integrate, k, n = _make_begin(plan), make_forward(calls, plan.stages), plan.k, plan.n

    @kernel
    def solve_one(j, lane, capacity, inputs, data, outputs):
        states, status, work = outputs
        status[j] = CALLBACK_RAISED  # which stays if an exception ends the thread
        for i in range(k):
            for c in range(n):
                states[j, i, c] = math.nan
        frame = new()
        put_parts(frame, inputs[STORE], 0, lane, capacity)
        begin(frame, j, inputs)
        put(frame, slots.OBSERVED, plane(states, j), k)
        reached = integrate(frame)
        _write_work(frame, row(work, j))
        if reached != SUCCESS:
            for i in range(k):
                for c in range(n):
                    states[j, i, c] = math.nan
        status[j] = reached

    return solve_one


def _make_judge(plan: Plan) -> Callable:
    """The loss, from what was observed to its cotangents in JUMPS: `value_of(frame, ahead, j, data) -> status`."""
    judge, k, q = plan.judge, plan.k, plan.q
    reads_data, reads_weights = slots.DATA in plan.reads, slots.DATA_WEIGHTS in plan.reads
    own_data, own_weights = "data" in plan.own, "weights" in plan.own

    @kernel
    def value_of(frame, ahead, j, data):
        put(frame, slots.ROWS, data[0], q)
        put(frame, slots.TIMES, data[1], q)
        put(frame, slots.COMPONENTS, data[2], data[2].size)
        if reads_data:
            put(frame, slots.DATA, plane(data[3], j if own_data else 0), q)
        if reads_weights:
            put(frame, slots.DATA_WEIGHTS, plane(data[4], j if own_weights else 0), q)
        put(frame, slots.OBSERVED, slots.OBSERVED(ahead), k)
        status = judge(frame)
        value = slots.VALUE(frame)[0]
        return status if is_finite(value) else NON_FINITE

    return value_of


def _make_follow(plan: Plan) -> Callable:
    """`follow(frame, ahead, jumps, j, inputs)`: what every backward pass reads of the forward one and of the loss."""
    own_span, k, m = "span" in plan.own, plan.k, plan.m + len(plan.jumps.inflows)
    dense, kinds = (any(part.slot is slot for part in plan.forward.parts) for slot in (slots.MESH_C, slots.MESH_KIND))
    jumps_too = bool(plan.jumps)

    @kernel
    def follow(frame, ahead, jumps, j, inputs):
        _set_span(frame, row(inputs[SPANS], j if own_span else 0))
        mesh_t, count = slots.MESH_T(ahead), slots.COUNT(ahead)
        put(frame, slots.FORWARD_T, mesh_t, mesh_t.size)
        put(frame, slots.FORWARD_U, slots.MESH_U(ahead), mesh_t.size)
        if dense:
            put(frame, slots.FORWARD_C, slots.MESH_C(ahead), mesh_t.size - 1)
        if kinds:
            put(frame, slots.FORWARD_KIND, slots.MESH_KIND(ahead), mesh_t.size - 1)
        if jumps_too:
            times = slots.JUMP_T(ahead)
            put(frame, slots.JUMP_T, times, times.size)
            put(frame, slots.JUMP_INFLOW, slots.JUMP_INFLOW(ahead), times.size)
            put(frame, slots.JUMP_U, slots.JUMP_U(ahead), 2 * times.size)
            put(frame, slots.JUMP_WHAT, slots.JUMP_WHAT(ahead), 3 * times.size)
        put(frame, slots.FORWARD_COUNT, count, count.size)
        put(frame, slots.JUMPS, jumps, k)
        put(frame, slots.THETA, slots.THETA(ahead), m)

    return follow


def _make_behind(plan: Plan) -> Callable:
    """The backward pass: `behind(frame, ahead, jumps, j, inputs) -> status`."""
    calls = plan.calls.jumping if plan.jumps else plan.calls
    if plan.discrete:
        return _behind_discrete(plan, make_discrete(calls, plan.stages, recorded=False))
    return _behind_interpolating(plan, interpolating.make_backward(calls, plan.stages))


def _behind_discrete(plan: Plan, pull: Callable) -> Callable:
    assert plan.backward
    follow, k, own_times, has_doses = _make_follow(plan), plan.k, "times" in plan.own, plan.jumps.doses is not None
    put_whats, doses = _make_put_whats(plan.backward.whats), len(plan.doses)

    @kernel
    def behind(frame, ahead, jumps, j, inputs):
        follow(frame, ahead, jumps, j, inputs)
        put(frame, slots.TIMES, row(inputs[TIMES], j if own_times else 0), k)
        put_whats(frame, inputs[WHATS])
        if has_doses:
            put(frame, slots.DOSES, inputs[DOSES], doses)
        status = pull(frame)
        add_seen_at_start(ahead, jumps, slots.LAM(frame))
        return status

    return behind


def _behind_interpolating(plan: Plan, pull: Callable) -> Callable:
    assert plan.backward
    follow, k, first, own_span = _make_follow(plan), plan.k, plan.forward.given.size, "span" in plan.own
    own_times = "times" in plan.own
    put_due = _make_put_due(plan.backward, plan, slots.PLANNED if plan.jumps else slots.STOPS)

    @kernel
    def behind(frame, ahead, jumps, j, inputs):
        follow(frame, ahead, jumps, j, inputs)
        mesh_t, given = slots.MESH_T(ahead), inputs[GIVEN]
        slots.PLACE(frame)[0] = slots.COUNT(ahead)[slots.STEPS]  # where to look first: the last step
        floor = slots.U_FLOOR(frame)
        for i in range(floor.size):
            floor[i] = given[given.size - floor.size + i]
        follow_start(ahead, floor)
        times = row(inputs[TIMES], j if own_times else 0)
        t_start = mesh_t[0]
        if k > 0:
            t_start = times[k - 1]
        _set_limits(frame, given, first, t_start, mesh_t[0])
        put_due(frame, inputs, row(inputs[STOPS_BEHIND], j if own_span else 0))
        put(frame, slots.TIMES, times, 0)
        put(frame, slots.OBSERVED, jumps, 0)
        status = pull(frame)
        add_seen_at_start(ahead, jumps, slots.Y(frame))
        return status

    return behind


def _make_write(plan: Plan) -> Callable:
    lam_slot, n, m = slots.LAM if plan.discrete else slots.Y, plan.n, plan.m
    wants_u0, wants_theta = "u0" in plan.wants, plan.wants_theta

    @kernel
    def write(frame, j, status, value, outputs):
        """Value and cotangents, or NaN."""
        lam, total, u0_bar, theta_bar = lam_slot(frame), slots.TOTAL(frame), outputs[3], outputs[4]
        if wants_u0:
            for i in range(n):
                u0_bar[j, i] = lam[i] if status == SUCCESS else math.nan
        if wants_theta:
            for i in range(m):
                theta_bar[j, i] = total[i] if status == SUCCESS else math.nan
        outputs[0][j] = value if status == SUCCESS else math.nan
        outputs[1][j] = status

    return write


def make_gradient(plan: Plan) -> Callable:
    """`gradient_one(j, lane, capacity, inputs, data, outputs)`: value, status, work and cotangents of one trajectory."""
    assert plan.backward and plan.loss
    (new_ahead, put_ahead), (new_judge, put_judge), (new_behind, put_behind) = (make_frame(one.layout) for one in plan.passes)
    puts = (make_put_parts(put, one.parts) for put, one in zip((put_ahead, put_judge, put_behind), plan.passes, strict=True))
    put_parts_ahead, put_parts_of_judge, put_parts_behind = puts
    begin, judge, behind, write = _make_begin(plan), _make_judge(plan), _make_behind(plan), _make_write(plan)
    integrate = make_forward(plan.calls.jumping if plan.jumps else plan.calls, plan.stages)

    @kernel
    def run_ahead(passes):
        frames, j, inputs, data, outputs = passes
        begin(frames[0], j, inputs)
        status = integrate(frames[0])
        _write_work(frames[0], row(outputs[2], j))
        return status

    @kernel
    def run_judge(passes):
        frames, j, inputs, data, outputs = passes
        return judge(frames[1], frames[0], j, data)

    @kernel
    def run_behind(passes):
        frames, j, inputs, data, outputs = passes
        return behind(frames[2], frames[0], slots.JUMPS(frames[1]), j, inputs)

    run = make_run(run_ahead, run_judge, run_behind)

    @kernel
    def gradient_one(j, lane, capacity, inputs, data, outputs):
        frames, store = (new_ahead(), new_judge(), new_behind()), inputs[STORE]
        first = put_parts_ahead(frames[0], store, 0, lane, capacity)
        first = put_parts_of_judge(frames[1], store, first, lane, capacity)
        put_parts_behind(frames[2], store, first, lane, capacity)
        write(frames[2], j, CALLBACK_RAISED, 0.0, outputs)  # which stays if an exception ends the thread
        reached = run((frames, j, inputs, data, outputs))
        write(frames[2], j, reached, slots.VALUE(frames[1])[0], outputs)

    return gradient_one
