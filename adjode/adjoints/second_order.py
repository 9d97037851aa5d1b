"""Products with the Hessian of a loss: the tangents of the discrete adjoint, along the tangents of the steps.

Forward mode over the transposed steps (A. Griewank, A. Walther 2008, Evaluating Derivatives, section 5.3; for adjoints of ODEs
D. B. Özyurt, P. I. Barton 2005, SIAM J. Sci. Comput. 26, 1725-1743), so that they are exact for the mesh, as the gradient is. With
the cotangents kappa_j of the slopes, the transpose of a step pulls back w_j = J_j^T kappa_j. Its tangent is the same transpose, for
the tangents of lam, with further cotangents of the states of the stages,

    c_j = (dJ_j/du v_j + dJ_j/dtheta w)^T kappa_j,

where v_j is the tangent of that state and w that of theta: what `vjp_dot` gives with lam_dot = 0. So a step is pulled back by the
kernels of the discrete adjoint, once for lam, which leaves its kappa_j, and once for each direction, behind its c_j.

What jumps of the state do, other than doses at fixed times, is calculated elsewhere (passes/jump_curvatures.py): the pass returns
STORE_FULL ahead of each, and goes on when it is called again.
"""

from __future__ import annotations

from collections.abc import Callable

from adjode.adjoints import products
from adjode.adjoints.discrete import clear_step, make_pull_by_kind
from adjode.adjoints.dose_curvatures import are_at_rest, pull_doses
from adjode.adjoints.gaps import make_pull_any, sees
from adjode.adjoints.seeds import make_seed_observations
from adjode.adjoints.trust import begin_implicit_step
from adjode.compile import slots
from adjode.compile.calls import PORTABLE, Calls
from adjode.compile.finite import all_finite
from adjode.compile.flags import kernel
from adjode.compile.views import plane, row, segment
from adjode.compile.watch import begin_watch, keep_watch
from adjode.jacobian import make_jacobian
from adjode.status import CALLBACK_RAISED, NON_FINITE, STORE_FULL, SUCCESS
from adjode.steppers.explicit import make_transposed_stages
from adjode.steppers.family import EXPLICIT, Solver
from adjode.steppers.stepper import stage_time


@kernel
def _copy(out, x):
    for k in range(out.size):
        out[k] = x[k]


@kernel
def _add(out, x):
    for k in range(out.size):
        out[k] += x[k]


def _make_pull(calls: Calls) -> Callable:
    call_vjp = calls.vjp

    @kernel
    def pull(frame, t, u, w, u_bar, stage):
        """u_bar = (df/du)^T w; adds (df/dtheta)^T w to the total of the column, and keeps that w of lam itself."""
        column, theta_bar = slots.PLACE(frame)[slots.COLUMN], slots.THETA_BAR(frame)
        slots.COUNT(frame)[slots.VJPS] += 1
        if column == 0:
            _copy(row(slots.KAPPA(frame), stage), w)
        status = call_vjp(frame, t, u, w, u_bar, theta_bar)
        _add(row(slots.TOTALS(frame), column), theta_bar)
        return status

    return pull


def _make_curve(calls: Calls) -> Callable:
    call_vjp_dot = calls.vjp_dot

    @kernel
    def curve(frame, t, u, stage):
        """STAGE_BAR = c of a stage; adds its counterpart for theta to the total of the column."""
        place, theta_bar, kappa = slots.PLACE(frame), slots.THETA_BAR(frame), row(slots.KAPPA(frame), stage)
        direction, n = place[slots.COLUMN] - 1, u.size
        v = segment(row(plane(slots.STAGE_STATE_DOTS(frame), place[slots.STEP]), stage), direction * n, n)
        w, bar = row(slots.THETA_DOTS(frame), direction), slots.STAGE_BAR(frame)
        slots.COUNT(frame)[slots.CURVATURES] += 1
        status = call_vjp_dot(frame, t, u, kappa, v, w, slots.NO_LAM(frame), bar, theta_bar)
        _add(row(slots.TOTALS(frame), direction + 1), theta_bar)
        return status

    return curve


def _make_add_curvature(curve: Callable) -> Callable:
    @kernel
    def add_curvature(frame, t, h, t_new, V, last):
        """The cotangents c of the states of the stages 1..last, to Y_BAR and K_BAR: V[j] = y + h sum_i A_ji K_i."""
        A, K_bar, bar = slots.A(frame), slots.K_BAR(frame), slots.STAGE_BAR(frame)
        for j in range(1, last + 1):
            if curve(frame, stage_time(frame, t, h, t_new, j), row(V, j), j) != 0:
                return CALLBACK_RAISED
            _add(slots.Y_BAR(frame), bar)
            for i in range(A.shape[1]):
                weight = h * A[j, i]
                if weight != 0.0:
                    for k in range(bar.size):
                        K_bar[i, k] += weight * bar[k]
        return SUCCESS

    return add_curvature


def _make_pull_stages(calls: Calls, solver: Solver) -> Callable:
    """The kernel that pulls LAM and K_BAR back over the stages of one step, to Y_BAR and K_BAR[0]."""
    pull = _make_pull(calls)
    if solver.implicit:
        take, _ = solver.transposed_step(pull, pull, products.make_product(calls), make_jacobian(calls))  # no errors are found here

        @kernel
        def pull_implicit(frame, t, h, t_new, V, dense):
            begin_implicit_step(frame, V)
            return take(frame, t, h, t_new, V)

        return pull_implicit
    pull_step, pull_extra = make_transposed_stages(pull)

    @kernel
    def pull_explicit(frame, t, h, t_new, V, dense):
        last, top = slots.SETTING(frame)[slots.LAST_STAGE], slots.SETTING(frame)[slots.TOP]
        if dense and top > last:
            if pull_extra(frame, t, h, t_new, V, top, last + 1) != 0:
                return CALLBACK_RAISED
        return CALLBACK_RAISED if pull_step(frame, t, h, t_new, V, last, 1) != 0 else SUCCESS

    return pull_explicit


def _make_pull_step(calls: Calls, solver: Solver) -> Callable:
    """The kernel that pulls lam and its tangents back over one step of one method."""
    pull_stages, add_curvature = _make_pull_stages(calls, solver), _make_add_curvature(_make_curve(calls))
    seed_observations = make_seed_observations(False)

    @kernel
    def pull_column(frame, column, step, left):
        """One of them: (status, observations left)."""
        mesh_t, V, setting = slots.FORWARD_T(frame), plane(slots.FORWARD_STAGES(frame), step), slots.SETTING(frame)
        lam, K_bar, last = slots.LAM(frame), slots.K_BAR(frame), setting[slots.LAST_STAGE]
        t, t_new, status = mesh_t[step], mesh_t[step + 1], SUCCESS
        h = t_new - t
        slots.PLACE(frame)[slots.COLUMN] = column
        _copy(lam, row(slots.LAMS(frame), column))
        _copy(row(K_bar, 0), row(slots.FIRST_BARS(frame), column))
        clear_step(frame, last)
        left, dense = seed_observations(frame, step, left, t, h, t_new, column * lam.size)
        if column > 0:
            status = add_curvature(frame, t, h, t_new, V, setting[slots.TOP] if dense else last)
        if status == SUCCESS:
            status = pull_stages(frame, t, h, t_new, V, dense)
        _copy(row(slots.LAMS(frame), column), slots.Y_BAR(frame))
        _copy(row(slots.FIRST_BARS(frame), column), row(K_bar, 0))
        return status, left

    @kernel
    def pull_one_step(frame, step, left):
        status, remaining = SUCCESS, left
        for column in range(slots.LAMS(frame).shape[0]):
            if status == SUCCESS:
                status, remaining = pull_column(frame, column, step, left)
        return status, remaining

    return pull_one_step


def _make_first_stage(calls: Calls) -> Callable:
    pull, curve = _make_pull(calls), _make_curve(calls)

    @kernel
    def first_stage(frame, step):
        """The transpose of K[0] = f(t, u) at the start of a step, which no step before has taken over, for all columns."""
        u, t, bar = row(plane(slots.FORWARD_STAGES(frame), step), 0), slots.FORWARD_T(frame)[step], slots.STAGE_BAR(frame)
        slots.PLACE(frame)[slots.STEP] = step
        for column in range(slots.LAMS(frame).shape[0]):
            lam, w = row(slots.LAMS(frame), column), row(slots.FIRST_BARS(frame), column)
            slots.PLACE(frame)[slots.COLUMN] = column
            if pull(frame, t, u, w, bar, 0) != 0:
                return CALLBACK_RAISED
            _add(lam, bar)
            if column > 0:
                if curve(frame, t, u, 0) != 0:
                    return CALLBACK_RAISED
                _add(lam, bar)
            for k in range(w.size):
                w[k] = 0.0
        return SUCCESS

    return first_stage


@kernel
def _add_observed(frame, row_of_jumps):
    lams, u_bars = slots.LAMS(frame), row(slots.JUMPS(frame), row_of_jumps)
    n = lams.shape[1]
    for column in range(lams.shape[0]):
        _add(row(lams, column), segment(u_bars, column * n, n))


def _make_cross(first_stage: Callable) -> Callable:
    @kernel
    def cross(frame, step, behind, left):
        """Where f or the state may jump: the slope at the start of the step behind, if there is one (not -1), is one of its own."""
        mesh_t, times = slots.FORWARD_T(frame), slots.TIMES(frame)
        direction = 1.0 if mesh_t[step + 1] >= mesh_t[0] else -1.0
        if behind >= 0 and first_stage(frame, behind) != SUCCESS:
            return CALLBACK_RAISED, left
        while left > 0 and sees(frame, direction, times[left - 1], step):
            left -= 1
            _add_observed(frame, left)
        return SUCCESS, left

    return cross


@kernel
def _begin(frame):
    """Everything to its start, which is behind the last step that has a part in the loss."""
    lams, firsts, totals, count = slots.LAMS(frame), slots.FIRST_BARS(frame), slots.TOTALS(frame), slots.COUNT(frame)
    mesh_t, times, steps = slots.FORWARD_T(frame), slots.TIMES(frame), slots.FORWARD_COUNT(frame)[slots.STEPS]
    for column in range(lams.shape[0]):
        for k in range(lams.shape[1]):
            lams[column, k] = firsts[column, k] = 0.0
        for k in range(totals.shape[1]):
            totals[column, k] = 0.0
    for k in range(count.size):
        count[k] = 0
    for k in range(slots.CLOCK(frame).size):
        slots.CLOCK(frame)[k] = 0.0
    direction = 1.0 if mesh_t[steps] >= mesh_t[0] else -1.0
    jumps = slots.FORWARD_COUNT(frame)[slots.OCCURRED] > 0  # all of which are gone over
    while not jumps and steps > 0 and (times.size == 0 or not direction * (times[times.size - 1] - mesh_t[steps - 1]) > 0.0):
        steps -= 1
    place = slots.PLACE(frame)
    place[slots.RELEVANT] = place[slots.STEP] = steps
    place[slots.LEFT], count[slots.ENTERED] = times.size, 1


@kernel
def _meet_jumps(frame, step):
    """Cross the jumps of a step, if there are any; STORE_FULL where that is for others to do."""
    kinds = slots.FORWARD_KIND(frame)
    if kinds.size == 0 or kinds[step] < slots.JUMP:
        return SUCCESS
    if are_at_rest(frame, kinds[step] - slots.JUMP):
        pull_doses(frame, kinds[step] - slots.JUMP)
        return SUCCESS
    slots.PLACE(frame)[slots.STEP] = step
    return STORE_FULL


def make_second_order(calls: Calls = PORTABLE, stages: None = None, *, solver: Solver = EXPLICIT) -> Callable:
    """The kernel of the pass, along stages and their tangents that other passes have recorded."""
    first_stage = _make_first_stage(calls)
    pull_explicit_step = _make_pull_step(calls, EXPLICIT) if solver.switches else None
    pull_step = make_pull_any(make_pull_by_kind(_make_pull_step(calls, solver), pull_explicit_step), _make_cross(first_stage))

    @kernel
    def second_order(frame):
        """LAMS and TOTALS at t0, from the cotangents and their tangents in JUMPS; STORE_FULL at STEP, for its jumps."""
        place, kinds, status = slots.PLACE(frame), slots.FORWARD_KIND(frame), SUCCESS
        if slots.COUNT(frame)[slots.ENTERED] == 0:
            _begin(frame)
        begin_watch(frame)
        steps = place[slots.RELEVANT]
        for step in range(place[slots.STEP] - 1, -1, -1):
            place[slots.STEP] = step
            status = keep_watch(frame, steps - 1 - step)
            if status == SUCCESS:
                status, place[slots.LEFT] = pull_step(frame, step, place[slots.LEFT])
            if status == SUCCESS:
                status = _meet_jumps(frame, step)
            if status != SUCCESS:
                return status
        if steps > 0 and (kinds.size == 0 or kinds[0] < slots.CROSSING):
            if first_stage(frame, 0) != SUCCESS:
                return CALLBACK_RAISED
        finite = True
        for column in range(slots.LAMS(frame).shape[0]):
            finite &= all_finite(row(slots.LAMS(frame), column)) and all_finite(row(slots.TOTALS(frame), column))
        return SUCCESS if finite else NON_FINITE

    return second_order
