"""The discrete adjoint: the exact transpose of the accepted steps, of their dense output and of the running cost's quadrature.

"The gradient of the numbers I computed" (discretise, then optimise): it has no tolerance of its own and no error but rounding, and
tends to the continuous gradient with the tolerance of the forward solve (Hager 2000, Numer. Math. 87, 247-282). The mesh, and so
every step size, is held fixed, but for jumps of the state whose times move (shifts.py). The states of the stages are those the
forward solve has recorded, or are computed again from the state at the step's start, by the arithmetic of the forward solve.
"""

from __future__ import annotations

from collections.abc import Callable

from adjode.adjoints import products
from adjode.adjoints.carried import make_carry_across, make_end_carried
from adjode.adjoints.cells import divide_mesh
from adjode.adjoints.costs import begin_costs, judge_costs, make_integrate_cost, seed, seed_moving
from adjode.adjoints.drift import multiply_with_flow
from adjode.adjoints.flow import make_begin_judging, make_call_flow, make_stages_at_hand
from adjode.adjoints.gaps import keeps_off, make_cross, make_cross_smoothly, make_pull_any, sees
from adjode.adjoints.jumping import forget_behind
from adjode.adjoints.seeds import make_seed_observations
from adjode.adjoints.shifting import shift_explicit, shift_hooks
from adjode.adjoints.shifts import ALONE, begin_shifts, goes_on, is_last, make_pull_shifted
from adjode.adjoints.trust import (
    add_stage,
    begin_implicit_step,
    begin_trust,
    end_first_stage,
    end_implicit_step,
    end_step,
    judge,
    judge_stages,
)
from adjode.compile import slots
from adjode.compile.calls import Calls
from adjode.compile.finite import all_finite
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.views import plane, row, unlikely
from adjode.compile.watch import begin_watch, keep_watch
from adjode.jacobian import make_jacobian
from adjode.status import CALLBACK_RAISED, NON_FINITE, STORE_FULL, SUCCESS
from adjode.steppers.explicit import make_transposed_stages
from adjode.steppers.family import EXPLICIT, Solver
from adjode.steppers.transposed_error import FIRST_STAGE

# In the frame: START is u_T_bar; TOTAL the sum of (df/dtheta)^T w so far, then the running cost; JUMPS the cotangents observed at
# TIMES, which run along with the mesh; row 0 of WEIGHTS, with NODES, the running cost's rule; BASIS (1, r) the weights of the dense
# output at one place. Along a trajectory in segments LAM, K_BAR[0], TOTAL, COUNT and PLACE go on from one to the one before.


_integrate_cost, _integrate_moving_cost = make_integrate_cost(seed), make_integrate_cost(seed_moving)


@kernel
def _begin(frame):
    """Everything to its start."""
    lam, start, total = slots.LAM(frame), slots.START(frame), slots.TOTAL(frame)
    K_bar, count, place, clock = slots.K_BAR(frame), slots.COUNT(frame), slots.PLACE(frame), slots.CLOCK(frame)
    for k in range(clock.size):
        clock[k] = 0.0
    for k in range(lam.size):
        lam[k] = start[k]
        K_bar[0, k] = 0.0
    for k in range(total.size):
        total[k] = 0.0
    for k in range(count.size):
        count[k] = 0
    count[slots.ENTERED], place[slots.RELEVANT], place[slots.LEFT] = 1, 0, slots.TIMES(frame).size
    begin_trust(frame)


@kernel
def _find_relevant(frame):
    """How many of the steps at hand have a part in the gradient, and if that is known only now, how many of all."""
    place, forward, lam = slots.PLACE(frame), slots.FORWARD_COUNT(frame), slots.LAM(frame)
    mesh_t, times, jumps = slots.FORWARD_T(frame), slots.TIMES(frame), slots.JUMPS(frame)
    left, steps, largest = place[slots.LEFT], forward[slots.STEPS], 0.0
    if place[slots.RELEVANT] > 0:
        return steps
    for k in range(lam.size):
        largest += abs(lam[k])
    if largest == 0.0 and slots.WANTS(frame)[slots.WANTS_COST] == 0:
        while left > 0 and largest == 0.0:  # what comes after the last cotangent has no part in the gradient
            for k in range(lam.size):
                largest += abs(jumps[left - 1, k])
            if largest == 0.0:
                left -= 1
        direction = 1.0 if mesh_t[steps] >= mesh_t[0] else -1.0
        while steps > 0 and (left == 0 or not sees(frame, direction, times[left - 1], steps - 1)):
            steps -= 1
    place[slots.LEFT] = left
    place[slots.RELEVANT] = forward[slots.EARLIER] + steps if steps > 0 else 0
    divide_mesh(frame)
    return steps


@kernel
def clear_step(frame, last):
    """Clear the cotangents of the step; the first stage of the step after it is its last."""
    K_bar, y_bar = slots.K_BAR(frame), slots.Y_BAR(frame)
    for k in range(y_bar.size):
        y_bar[k] = 0.0
        K_bar[last, k] = K_bar[0, k]
    for i in range(K_bar.shape[0]):
        if i != last:
            for k in range(y_bar.size):
                K_bar[i, k] = 0.0


def _make_pull(calls: Calls) -> Callable:
    pull_alone, (shift_stage, _) = _make_pull_alone(calls), shift_hooks(calls)

    @kernel
    def pull(frame, t, u, w, u_bar, stage):
        """The same, and what a shift of the step does there."""
        status = pull_alone(frame, t, u, w, u_bar, stage)
        return status if status != SUCCESS else shift_stage(frame, t, u, w, stage)

    return pull


@exact_kernel
def _add_to_total(frame, theta_bar):
    """In the order of the stages: LLVM would add up neighbouring ones first where nothing is between them."""
    total = slots.TOTAL(frame)
    for i in range(theta_bar.size):
        total[i] += theta_bar[i]


def _make_pull_alone(calls: Calls) -> Callable:
    pull_state, judged = products.make_pull_state(calls), calls.judged

    @kernel
    def pull_alone(frame, t, u, w, u_bar, stage):
        """u_bar = (df/du)^T w; adds (df/dtheta)^T w to the total, and both to the estimates of the step that has this stage."""
        theta_bar = slots.THETA_BAR(frame)
        slots.COUNT(frame)[slots.VJPS] += 1
        status = pull_state(frame, t, u, w, u_bar, theta_bar)
        if slots.WANTS(frame)[slots.WANTS_THETA] == 1:
            _add_to_total(frame, theta_bar)
        if judged:
            add_stage(frame, stage, u_bar, theta_bar)
        return status

    return pull_alone


def _make_pull_error(calls: Calls) -> Callable:
    pull_state = products.make_pull_state(calls)

    @kernel
    def pull_error(frame, t, u, w, u_bar, theta_bar):
        """u_bar = (df/du)^T w and theta_bar = (df/dtheta)^T w, which are no parts of the gradient."""
        slots.COUNT(frame)[slots.VJPS] += 1
        return pull_state(frame, t, u, w, u_bar, theta_bar)

    return pull_error


def _make_pull_explicit(calls: Calls, stages: tuple[int, int] | None) -> Callable:
    pull_step, pull_extra = make_transposed_stages(_make_pull_alone(calls), stages)
    shift_stages, judged = shift_explicit(calls), calls.judged

    @kernel
    def pull_explicit(frame, step, t, h, t_new, V, dense):
        setting = slots.SETTING(frame)
        last, top = setting[slots.LAST_STAGE], setting[slots.TOP]
        if dense and top > last:
            if pull_extra(frame, t, h, t_new, V, top, last + 1) != 0:
                return CALLBACK_RAISED
        if pull_step(frame, t, h, t_new, V, last, 1) != 0:
            return CALLBACK_RAISED
        if judged:
            end_step(frame, step, h, V)
        return shift_stages(frame, t, h, t_new, V, dense)

    return pull_explicit


def _make_pull_stages(calls: Calls, stages: tuple[int, int] | None, solver: Solver) -> Callable:
    """The kernel that pulls LAM and K_BAR back over the stages of one step, to Y_BAR and K_BAR[0]."""
    if solver.implicit:
        pull = _make_pull(calls)
        product = products.make_product(calls)
        take, find_error = solver.transposed_step(pull, _make_pull_error(calls), product, make_jacobian(calls))
        (_, end_shift), call_flow = shift_hooks(calls), make_call_flow(calls)

        @kernel
        def pull_implicit(frame, step, t, h, t_new, V, dense):
            begin_implicit_step(frame, V)
            status = take(frame, t, h, t_new, V)
            end_shift(frame)
            if slots.TRUST(frame)[slots.COUNTS_FOR] == 0.0:
                return status
            found = judge_stages(frame, step, h, V)
            if status == SUCCESS:
                status = find_error(frame, t, h, t_new, V)
            if status == SUCCESS and slots.TRUST(frame)[slots.FOLLOWS] == 1.0:
                status = call_flow(frame, t, row(V, 0))
                multiply_with_flow(frame, slots.Y_BAR(frame), row(slots.STEP_ERROR(frame), FIRST_STAGE))
            end_implicit_step(frame, step, h, V, found)
            return status

        return pull_implicit
    return _make_pull_explicit(calls, stages)


def _make_pull_step(calls: Calls, stages: tuple[int, int] | None, recorded: bool, solver: Solver, may_cost: bool) -> Callable:
    """The kernel that pulls back over one step of one method."""
    pull_stages, seed_observations = _make_pull_stages(calls, stages, solver), make_seed_observations(calls.may_jump)
    integrate_cost = _integrate_moving_cost if calls.may_jump else _integrate_cost
    stages_at_hand, begin_judging = make_stages_at_hand(calls, stages, recorded), make_begin_judging(calls, recorded, solver)

    @kernel
    def pull_one_step(frame, step, left):
        """Pull LAM and K_BAR[0] back over one step: (status, observations left). With `left` = ALONE nothing else is."""
        mesh_t, last = slots.FORWARD_T(frame), slots.SETTING(frame)[slots.LAST_STAGE]
        lam, y_bar = slots.LAM(frame), slots.Y_BAR(frame)
        costs = slots.WANTS(frame)[slots.WANTS_COST] == 1 and left != ALONE
        t, t_new = mesh_t[step], mesh_t[step + 1]
        h = t_new - t
        clear_step(frame, last)
        observations = left
        left, dense = seed_observations(frame, step, left, t, h, t_new, 0)
        status, V = stages_at_hand(frame, step, t, h, t_new, dense or costs)
        if status != SUCCESS:
            return CALLBACK_RAISED, left
        if may_cost:
            if costs:
                dense, coefficients = True, plane(slots.FORWARD_C(frame), step)
                status = integrate_cost(frame, (t, h, t_new, row(V, 0), row(V, last), coefficients))
                if status != SUCCESS:
                    return status, left
        status = begin_judging(frame, step, h, V, left, dense or left < observations)
        if status == SUCCESS:
            status = pull_stages(frame, step, t, h, t_new, V, dense)
        if status != SUCCESS:
            return status, left
        for k in range(lam.size):
            lam[k] = y_bar[k]
        return (SUCCESS if all_finite(lam) else NON_FINITE), left

    return pull_one_step


def _make_first_stage(pull: Callable, recorded: bool, end_shift: Callable, judged: bool) -> Callable:
    @kernel
    def first_stage(frame, step):
        """The transpose of K[0] = f(t, u) at the start of a step, which no step before has taken over."""
        lam, u_bar, w, start = slots.LAM(frame), slots.Y_BAR(frame), row(slots.K_BAR(frame), 0), slots.U(frame)
        if recorded:
            V = plane(slots.FORWARD_STAGES(frame), step)
            u = row(V, 0)
        else:
            V = plane(slots.STAGES(frame), 0)
            u = row(slots.FORWARD_U(frame), step)
        for k in range(u_bar.size):
            u_bar[k], start[k] = 0.0, u[k]
        if pull(frame, slots.FORWARD_T(frame)[step], u, w, u_bar, 0) != 0:
            return CALLBACK_RAISED
        if judged:
            end_first_stage(frame, V)
        for k in range(lam.size):
            lam[k] += u_bar[k]
            w[k] = 0.0
        end_shift(frame)
        return SUCCESS

    return first_stage


@kernel
def _forget_none(frame, steps):
    """Where no state jumps."""


@kernel
def _none_carried(frame):
    """Where there are no implicit steps."""
    return SUCCESS


def _make_pull_ahead(pull_explicit_step: Callable, end_carried: Callable) -> Callable:
    @kernel
    def pull_ahead(frame, step, left):
        """An explicit step, which may be one ahead of an implicit one."""
        if end_carried(frame) != SUCCESS:
            return CALLBACK_RAISED, left
        return pull_explicit_step(frame, step, left)

    return pull_ahead


def make_pull_by_kind(pull_one_step: Callable, pull_explicit_step: Callable | None) -> Callable:
    """A step that is no crossing; `pull_explicit_step` is given where `pull_one_step` is for the implicit one of two methods."""
    switches = pull_explicit_step is not None

    @kernel
    def pull_by_kind(frame, step, left):
        kinds = slots.FORWARD_KIND(frame)
        if kinds.size > 0:
            slots.COUNT(frame)[slots.BEFORE_GAP] = 0
            if unlikely(not is_last(frame, step) and kinds[step + 1] >= slots.CROSSING):
                slots.COUNT(frame)[slots.BEFORE_GAP] = 1 if keeps_off(frame, step + 1) else 0
        if switches:
            if kinds[step] == slots.EXPLICIT_STEP:
                return pull_explicit_step(frame, step, left)
            return pull_one_step(slots.PARTNER(frame), step, left)
        return pull_one_step(frame, step, left)

    return pull_by_kind


@kernel
def _is_done(frame):
    """Where no step is pulled back twice."""
    return False


def _make_pull_back(pull_step: Callable, first_stage: Callable, end_carried: Callable, may_jump: bool) -> Callable:
    again, forget = (goes_on, forget_behind) if may_jump else (_is_done, _forget_none)

    @kernel
    def pull_back(frame):
        place, forward = slots.PLACE(frame), slots.FORWARD_COUNT(frame)
        steps = _find_relevant(frame)
        forget(frame, steps)
        left, step = place[slots.LEFT], steps - 1
        while step >= 0:  # no loop inside of it, out of which LLVM would take what seldom is needed
            place[slots.STEP] = step
            status = keep_watch(frame, steps - 1 - step)
            if status == SUCCESS:
                status, left = pull_step(frame, step, left)
            if status != SUCCESS:
                return status
            if not unlikely(again(frame)):
                step -= 1
        place[slots.LEFT] = left
        if forward[slots.EARLIER] > 0:
            return STORE_FULL
        kinds = slots.FORWARD_KIND(frame)
        if place[slots.RELEVANT] > 0 and (kinds.size == 0 or kinds[0] < slots.CROSSING):
            if first_stage(frame, 0) != SUCCESS:
                return CALLBACK_RAISED
        if end_carried(frame) != SUCCESS:
            return CALLBACK_RAISED
        return SUCCESS if all_finite(slots.LAM(frame)) and all_finite(slots.TOTAL(frame)) else NON_FINITE

    return pull_back


@kernel
def _no_costs(frame, status):
    return status


def make_discrete(calls: Calls, stages: tuple[int, int] | None, *, recorded: bool, solver: Solver = EXPLICIT) -> Callable:
    """The kernel of the backward pass, along the stages that the forward solve has recorded or along its mesh."""
    may_cost, (_, end_shift) = not recorded or solver.implicit, shift_hooks(calls)
    first_stage = _make_first_stage(_make_pull(calls), recorded, end_shift, calls.judged)
    pull_one_step = _make_pull_step(calls, stages, recorded, solver, may_cost)
    end_carried = make_end_carried(_make_pull_error(calls)) if solver.implicit else _none_carried
    pull_explicit_step = None
    if solver.switches:
        pull_explicit_step = _make_pull_ahead(_make_pull_step(calls, stages, True, EXPLICIT, may_cost), end_carried)
    pull_step = make_pull_by_kind(pull_one_step, pull_explicit_step)
    cross = make_cross(first_stage) if calls.may_jump else make_cross_smoothly(first_stage)
    if solver.implicit:
        cross = make_carry_across(cross)
    pull_step = make_pull_any(make_pull_shifted(pull_step) if calls.may_jump else pull_step, cross)
    begin_moves = begin_shifts if calls.may_jump else end_shift
    pull_back = _make_pull_back(pull_step, first_stage, end_carried, calls.may_jump)
    judge_running_cost = judge_costs if may_cost else _no_costs

    @kernel
    def discrete(frame):
        """Pull START = u_T_bar back to t0; STORE_FULL after the steps at hand, if there are others before them."""
        count = slots.COUNT(frame)
        if count[slots.ENTERED] == 0:
            _begin(frame)
            begin_moves(frame)
            if may_cost:
                begin_costs(frame)
        begin_watch(frame)
        status = pull_back(frame)
        if status != STORE_FULL:
            count[slots.ENTERED] = 0
        return judge(frame, judge_running_cost(frame, status))

    return discrete
