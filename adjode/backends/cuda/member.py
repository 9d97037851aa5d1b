"""What one thread does: the whole gradient of one trajectory, or its solution.

The passes are those of the CPU, from `loops` and `adjoints`. What is here gives them their frames, and hands over from one to the
next. The kernels are plain functions until `target.py` compiles them for a device.

Of each accepted step the discrete adjoint keeps the time and the state, n + 1 numbers, and computes the stages again: recording
them would move (s + 1) n numbers more each way. The interpolating adjoint keeps the dense output.

`inputs` of a kernel are (given, u0, theta, spans, times, stops, at_most, store), all but the first and the last with a row for each
trajectory or one for all; a span is (t0, T, T - t0), and times and stops count from t0.
`data` of a loss are (rows, t_obs, components, data, weights), likewise the last two. A trajectory is row j;
`lane` is its thread's column of `store`, which has room for `capacity` steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from adjode.adjoints import interpolating
from adjode.adjoints.discrete import make_discrete
from adjode.backends.cuda.frames import make_frame, put
from adjode.backends.cuda.plan import Plan
from adjode.compile import slots
from adjode.compile.finite import is_finite
from adjode.compile.flags import kernel
from adjode.compile.views import plane, row, segment
from adjode.passes.default_atol import follow_start
from adjode.passes.forward import make_forward
from adjode.passes.program import add_at_t0, make_run
from adjode.status import CALLBACK_RAISED, NON_FINITE, SUCCESS


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


def _make_take_theta(near: bool) -> Callable:
    @kernel
    def take_theta(frame, theta):
        """Into local memory where they are few; else they stay where they are."""
        if near:
            taken = slots.THETA(frame)
            for i in range(taken.size):
                taken[i] = theta[i]
        else:
            put(frame, slots.THETA, theta, theta.size)

    return take_theta


def _make_begin(plan: Plan) -> Callable:
    own_u0, own_theta, own_span, own_times, own_at_most = (name in plan.own for name in ("u0", "theta", "span", "times", "at_most"))
    take_theta, k = _make_take_theta(plan.near_theta), plan.k

    @kernel
    def begin(frame, j, inputs):
        """The frame of the forward pass, but for its stores."""
        given, u0, theta, spans, times = inputs[0], inputs[1], inputs[2], inputs[3], inputs[4]
        span, start = row(spans, j if own_span else 0), row(u0, j if own_u0 else 0)
        _set_span(frame, span)
        _set_limits(frame, given, 0, 0.0, span[2])
        take_theta(frame, row(theta, j if own_theta else 0))
        put(frame, slots.START, start, start.size)
        most, at_most = slots.ATOL_AT_MOST(frame), row(inputs[6], j if own_at_most else 0)
        for i in range(most.size):
            most[i] = at_most[i]
        follow_start(frame, slots.FLOOR_BEHIND(frame))
        put(frame, slots.STOPS, segment(span, 2, 1), 1)
        put(frame, slots.TIMES, row(times, j if own_times else 0), k)

    return begin


@kernel
def _write_work(frame, work):
    count = slots.COUNT(frame)
    work[0], work[1], work[2] = count[slots.DERIVATIVES], count[slots.STEPS], count[slots.REJECTED]


def make_solve(plan: Plan) -> Callable:
    """`solve_one(j, lane, capacity, inputs, data, outputs)`: the states at `times`, the status and the work of one trajectory."""
    new, _ = make_frame(plan.forward.layout)
    begin, integrate, k, n = _make_begin(plan), make_forward(plan.calls, plan.stages), plan.k, plan.n

    @kernel
    def solve_one(j, lane, capacity, inputs, data, outputs):
        states, status, work = outputs
        status[j] = CALLBACK_RAISED  # which stays if an exception ends the thread
        for i in range(k):
            for c in range(n):
                states[j, i, c] = math.nan
        frame = new()
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


def _make_ahead(plan: Plan, put_lane: Callable) -> Callable:
    """The forward pass, which fills the lane: `ahead(frame, j, lane, capacity, inputs) -> status`."""
    begin, integrate = _make_begin(plan), make_forward(plan.calls, plan.stages)
    n, discrete, first, fixed = plan.n, plan.discrete, plan.fixed_entries, plan.k
    far = first > 0

    @kernel
    def ahead(frame, j, lane, capacity, inputs):
        store = inputs[7]
        begin(frame, j, inputs)
        u_first = first + capacity + 1
        put_lane(frame, slots.MESH_T, store, first, lane, capacity + 1)
        put_lane(frame, slots.MESH_U, store, u_first, lane, capacity + 1)
        if not discrete:
            put_lane(frame, slots.MESH_C, store, u_first + (capacity + 1) * n, lane, capacity)
        if far:
            put_lane(frame, slots.OBSERVED, store, 0, lane, fixed)
        return integrate(frame)

    return ahead


def _make_judge(plan: Plan, put_lane: Callable) -> Callable:
    """The loss, from what was observed to its cotangents in JUMPS: `value_of(frame, ahead, j, lane, inputs, data) -> status`."""
    judge, k, q, n, far = plan.judge, plan.k, plan.q, plan.n, plan.fixed_entries > 0
    reads_data, reads_weights = slots.DATA in plan.reads, slots.DATA_WEIGHTS in plan.reads
    own_data, own_weights = "data" in plan.own, "weights" in plan.own

    @kernel
    def value_of(frame, ahead, j, lane, inputs, data):
        put(frame, slots.ROWS, data[0], q)
        put(frame, slots.TIMES, data[1], q)
        put(frame, slots.COMPONENTS, data[2], data[2].size)
        if reads_data:
            put(frame, slots.DATA, plane(data[3], j if own_data else 0), q)
        if reads_weights:
            put(frame, slots.DATA_WEIGHTS, plane(data[4], j if own_weights else 0), q)
        put(frame, slots.OBSERVED, slots.OBSERVED(ahead), k)
        if far:
            put_lane(frame, slots.JUMPS, inputs[7], k * n, lane, k)
        status = judge(frame)
        value = slots.VALUE(frame)[0]
        return status if is_finite(value) else NON_FINITE

    return value_of


def _make_behind(plan: Plan) -> Callable:
    """The backward pass: `behind(frame, ahead, jumps, j, inputs) -> status`."""
    pull = make_discrete(plan.calls, plan.stages, recorded=False) if plan.discrete else None
    return _behind_discrete(plan, pull) if pull else _behind_interpolating(plan)


def _behind_discrete(plan: Plan, pull: Callable) -> Callable:
    take_theta, k = _make_take_theta(plan.near_theta), plan.k
    own_theta, own_times, own_span = (name in plan.own for name in ("theta", "times", "span"))

    @kernel
    def behind(frame, ahead, jumps, j, inputs):
        _set_span(frame, row(inputs[3], j if own_span else 0))
        mesh_t, count = slots.MESH_T(ahead), slots.COUNT(ahead)
        put(frame, slots.FORWARD_T, mesh_t, mesh_t.size)
        put(frame, slots.FORWARD_U, slots.MESH_U(ahead), mesh_t.size)
        put(frame, slots.FORWARD_COUNT, count, count.size)
        put(frame, slots.JUMPS, jumps, k)
        times = row(inputs[4], j if own_times else 0)
        put(frame, slots.TIMES, times, k)
        take_theta(frame, row(inputs[2], j if own_theta else 0))
        status = pull(frame)
        add_at_t0(segment(times, 0, k), jumps, mesh_t[0], slots.LAM(frame))
        return status

    return behind


def _behind_interpolating(plan: Plan) -> Callable:
    take_theta, k = _make_take_theta(plan.near_theta), plan.k
    own_theta, own_times, own_span = (name in plan.own for name in ("theta", "times", "span"))
    pull, first = interpolating.make_backward(plan.calls, plan.stages), plan.forward.given.size

    @kernel
    def behind(frame, ahead, jumps, j, inputs):
        _set_span(frame, row(inputs[3], j if own_span else 0))
        mesh_t, count = slots.MESH_T(ahead), slots.COUNT(ahead)
        put(frame, slots.FORWARD_T, mesh_t, mesh_t.size)
        put(frame, slots.FORWARD_U, slots.MESH_U(ahead), mesh_t.size)
        put(frame, slots.FORWARD_C, slots.MESH_C(ahead), mesh_t.size - 1)
        slots.PLACE(frame)[0] = count[slots.STEPS]  # where to look first: the last step
        put(frame, slots.FORWARD_COUNT, count, count.size)
        floor = slots.U_FLOOR(frame)
        for i in range(floor.size):
            floor[i] = inputs[0][inputs[0].size - floor.size + i]
        follow_start(ahead, floor)
        times = row(inputs[4], j if own_times else 0)
        stops = row(inputs[5], j if own_span else 0)
        t_start = mesh_t[0]
        if k > 0:
            t_start = times[k - 1]
        _set_limits(frame, inputs[0], first, t_start, mesh_t[0])
        put(frame, slots.JUMPS, jumps, k)
        put(frame, slots.STOPS, stops, stops.size)
        put(frame, slots.TIMES, times, 0)
        put(frame, slots.OBSERVED, jumps, 0)
        take_theta(frame, row(inputs[2], j if own_theta else 0))
        status = pull(frame)
        add_at_t0(segment(times, 0, k), jumps, mesh_t[0], slots.Y(frame))
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
    (new_ahead, lane_ahead), (new_behind, _) = make_frame(plan.forward.layout), make_frame(plan.backward.layout)
    new_judge, lane_judge = make_frame(plan.loss.layout)
    ahead, judge = _make_ahead(plan, lane_ahead), _make_judge(plan, lane_judge)
    behind, write = _make_behind(plan), _make_write(plan)

    @kernel
    def run_ahead(passes):
        frames, j, lane, capacity, inputs, data, outputs = passes
        status = ahead(frames[0], j, lane, capacity, inputs)
        _write_work(frames[0], row(outputs[2], j))
        return status

    @kernel
    def run_judge(passes):
        frames, j, lane, capacity, inputs, data, outputs = passes
        return judge(frames[1], frames[0], j, lane, inputs, data)

    @kernel
    def run_behind(passes):
        frames, j, lane, capacity, inputs, data, outputs = passes
        return behind(frames[2], frames[0], slots.JUMPS(frames[1]), j, inputs)

    run = make_run(run_ahead, run_judge, run_behind)

    @kernel
    def gradient_one(j, lane, capacity, inputs, data, outputs):
        frames = new_ahead(), new_judge(), new_behind()
        write(frames[2], j, CALLBACK_RAISED, 0.0, outputs)  # which stays if an exception ends the thread
        reached = run((frames, j, lane, capacity, inputs, data, outputs))
        write(frames[2], j, reached, slots.VALUE(frames[1])[0], outputs)

    return gradient_one
