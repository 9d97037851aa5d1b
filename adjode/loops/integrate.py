"""The loop that serves every pass: step, estimate, accept or reject, store, observe, stop.

It knows no method (tableaus are data) and no meaning (`make_integrate` closes over three kernels):

- `derivative(frame, t, y, dy, q) -> status`: the right-hand side; may leave the integrand of the quadrature in `q`.
- `integrand(frame, t, y, q) -> status`: the integrand of the quadrature alone; None for a pass without one.
- `at_stop(frame, k, y) -> status`: what happens to the state at stop k, a jump for instance.

Everything it works on is in a frame (frame.py), which a `Loop` (loop.py) fills from Python. The kernel starts from START; it can be
left and entered again when a store is full, which is how its stores grow.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from adjode import slots
from adjode.jit import exact_kernel, kernel, plane, row
from adjode.loops.control import make_initial_step, pi_factor, predictive_factor, step_factor
from adjode.loops.quadrature import AUGMENTED_ALL, GAUSS, GAUSS_ORDER, gauss_estimate, make_quadrature_step
from adjode.loops.switch import make_switching
from adjode.status import CALLBACK_RAISED, MAX_STEPS, NEWTON_FAILED, NON_FINITE, STEP_TOO_SMALL, STORE_FULL, SUCCESS
from adjode.steppers.explicit import Stepper, interpolate
from adjode.steppers.frozen import STALE
from adjode.steppers.implicit import ImplicitStepper
from adjode.watch import begin_watch, keep_watch

_NEWTON_SHRINKS = 0.5  # what to multiply the step by where Newton's iteration fails
_SPACINGS = 4.0  # see `_half_width`
_SNAP = 1e-6  # a step that would leave less than this fraction of itself before a stop is stretched to the stop


@kernel
def all_finite(x):
    total = 0.0
    for k in range(x.size):
        total += 0.0 * x[k]
    return total == 0.0


@kernel
def _begin(frame):
    """Everything to its start; NON_FINITE if what is given is not."""
    clock, count, control = slots.CLOCK(frame), slots.COUNT(frame), slots.CONTROL(frame)
    y, start, total = slots.Y(frame), slots.START(frame), slots.TOTAL(frame)
    for k in range(clock.size):
        clock[k] = 0.0
    clock[slots.T], clock[slots.H], clock[slots.REMAINS] = control[slots.T_START], control[slots.FIRST_STEP], 1.0
    for k in range(count.size):
        count[k] = 0
    for k in range(y.size):
        y[k] = start[k]
    for k in range(total.size):
        total[k] = 0.0
    clock[slots.T_FROM], count[slots.ENTERED] = control[slots.T_START], 1
    begin_watch(frame)
    return SUCCESS if all_finite(start) and all_finite(slots.THETA(frame)) else NON_FINITE


@kernel
def _scale_tolerances(frame):
    """Absolute tolerances in units of the largest cotangent."""
    control, start, jumps = slots.CONTROL(frame), slots.START(frame), slots.JUMPS(frame)
    atol, largest = slots.ATOL(frame), 0.0
    for i in range(start.size):
        if abs(start[i]) > largest:
            largest = abs(start[i])
        for k in range(jumps.shape[0]):
            if abs(jumps[k, i]) > largest:
                largest = abs(jumps[k, i])
    control[slots.Q_ATOL] = control[slots.ATOL_SCALE] * largest
    for i in range(atol.size):
        atol[i] = control[slots.Q_ATOL]


@kernel
def _observe(frame, t, h, t_new, y_new, coefficients):
    """Write down the states at the TIMES up to t_new."""
    times, observed, count = slots.TIMES(frame), slots.OBSERVED(frame), slots.COUNT(frame)
    direction, y = slots.CONTROL(frame)[slots.DIRECTION], slots.Y(frame)
    seen = count[slots.SEEN]
    while seen < times.size and direction * (times[seen] - t_new) <= 0.0:
        if times[seen] == t_new:
            for k in range(y.size):
                observed[seen, k] = y_new[k]
        else:
            interpolate(row(observed, seen), y, coefficients, (times[seen] - t) / h)
        seen += 1
    count[slots.SEEN] = seen


@kernel
def _record(frame, slot, t):
    mesh_t, mesh_u, y = slots.MESH_T(frame), slots.MESH_U(frame), slots.Y(frame)
    record = slots.SETTING(frame)[slots.RECORD]
    if record != 0:
        mesh_t[slot] = t
    if record & (slots.RECORD_DENSE | slots.RECORD_MESH):
        for k in range(y.size):
            mesh_u[slot, k] = y[k]


@exact_kernel
def _fine_step(frame, t, h_free, stop, lands):
    """The step, where it ends, and what that lacks by rounding: a compensated sum, so that a step may be below the spacing of t."""
    rest, direction = slots.CLOCK(frame)[slots.T_REST], slots.CONTROL(frame)[slots.DIRECTION]
    if lands:
        return (stop - t) - rest, stop, 0.0
    h = direction * h_free
    t_new = t + (h + rest)
    return h, t_new, (h + rest) - (t_new - t)


@exact_kernel
def _resolution(frame, t):
    """What the smallest step is measured by: t, or the time since the last stop if less, but not the square of the spacing at t."""
    clock = slots.CLOCK(frame)
    since = abs((t - clock[slots.T_FROM]) + clock[slots.T_REST]) + slots.CONTROL(frame)[slots.EPS] * abs(t)
    return since if since < abs(t) else abs(t)


@kernel
def _small_estimate(factor):
    """The error of the quadrature below which it cannot hold back a step that is to grow by `factor`: no logarithm needed."""
    cubed = factor * factor * factor
    return 0.9**9 / (cubed * cubed * cubed) if factor > 1.0 else 0.9**9


def make_steps(derivative: Callable, integrand: Callable | None, stepper: Stepper | ImplicitStepper) -> tuple[Callable, Callable]:
    """For one method: `enter(frame, t) -> status` at a new place, `step_on(frame, t, stop) -> status` for an attempt at a step."""
    step_stages, dense_output, error_norm = stepper.step_stages, stepper.dense_output, stepper.error_norm
    implicit, extra_stages = stepper.implicit, stepper.extra_stages
    enter_method, accept_method, begin_method = stepper.enter, stepper.accept, stepper.begin
    next_factor = predictive_factor if implicit and stepper.keeps_steps else pi_factor
    initial_step, quadrature_step = make_initial_step(derivative, stepper.to_slope), make_quadrature_step(stepper.combine)
    integrates, begins, has_extra = integrand is not None, begin_method is not None, extra_stages is not None
    # behind a jump of lam a stiff transient may be over before t, as a floating-point number, has changed
    resolves = implicit and integrates

    @kernel
    def enter(frame, t):
        """Evaluate K[0] (and the integrand) at a new place; choose the first step."""
        clock, count, setting = slots.CLOCK(frame), slots.COUNT(frame), slots.SETTING(frame)
        K, q, y = slots.K(frame), slots.Q(frame), slots.Y(frame)
        slot = count[slots.STEPS] if setting[slots.RECORD] & slots.RECORD_STAGES else 0
        stage = row(plane(slots.STAGES(frame), slot), 0)
        clock[slots.T_TRIED], clock[slots.H_TRIED] = t, 0.0
        count[slots.DERIVATIVES] += 1
        for k in range(y.size):
            stage[k] = y[k]  # where an exception came from
        if derivative(frame, t, stage, row(K, 0), row(q, 0)) != 0:
            return CALLBACK_RAISED
        if not all_finite(row(K, 0)):
            return NON_FINITE
        if integrates:
            if setting[slots.RULE] == GAUSS and not setting[slots.INTEGRAND_FREE]:
                count[slots.INTEGRANDS] += 1
                if integrand(frame, t, stage, row(q, 0)) != 0:
                    return CALLBACK_RAISED
        count[slots.FRESH] = 1
        if implicit:
            enter_method(frame)
        if begins:
            status = begin_method(frame, t)
            if status != SUCCESS:
                return status
        if clock[slots.H] == 0.0:
            return CALLBACK_RAISED if initial_step(frame, t, stage, _room(frame, t)) != 0 else SUCCESS
        return SUCCESS

    @kernel
    def gauss_nodes(frame, t, h, t_new, V, coefficients):
        """Evaluate the integrand at the nodes of the step just computed."""
        count, setting = slots.COUNT(frame), slots.SETTING(frame)
        nodes, q, y = slots.NODES(frame), slots.Q(frame), slots.Y(frame)
        stage = row(V, 0)
        for i in range(nodes.size):
            interpolate(stage, y, coefficients, nodes[i])
            count[slots.INTEGRANDS] += 1
            if integrand(frame, t + nodes[i] * h, stage, row(q, i + 1)) != 0:
                return CALLBACK_RAISED
        if not setting[slots.INTEGRAND_FREE]:
            count[slots.INTEGRANDS] += 1
            if integrand(frame, t_new, row(V, setting[slots.LAST_STAGE]), row(q, nodes.size + 1)) != 0:
                return CALLBACK_RAISED
        return SUCCESS

    @kernel
    def dense_part(frame, t, h, t_new, V, coefficients):
        """The dense output of a step, for which the method may need further stages."""
        setting, count = slots.SETTING(frame), slots.COUNT(frame)
        last, top = setting[slots.LAST_STAGE], setting[slots.TOP]
        if has_extra:
            if top > last:
                count[slots.DERIVATIVES] += top - last
                if extra_stages(frame, t, h, t_new, V, last + 1, top) != 0:
                    return CALLBACK_RAISED
        dense_output(frame, h, coefficients)
        return SUCCESS

    @kernel
    def stage_integrands(frame, t, h, t_new, V):
        """Evaluate the integrand at the stages of the step just computed, which for an implicit method are known only now."""
        count, c, q = slots.COUNT(frame), slots.C(frame), slots.Q(frame)
        last = slots.SETTING(frame)[slots.LAST_STAGE]
        for i in range(1, last + 1):
            count[slots.INTEGRANDS] += 1
            if integrand(frame, t_new if i == last else t + c[i] * h, row(V, i), row(q, i)) != 0:
                return CALLBACK_RAISED
        return SUCCESS

    @kernel
    def try_step(frame, t, h, t_new, V, coefficients, dense):
        """Take one step: (status, its error norm, the factor for the next step, the logarithm of the norm).

        A norm of at most 1 is an accepted step; NaN is not.
        """
        count, setting = slots.COUNT(frame), slots.SETTING(frame)
        control, size = slots.CONTROL(frame), slots.TOTAL(frame).size
        last, rule, adaptive = setting[slots.LAST_STAGE], setting[slots.RULE], setting[slots.ADAPTIVE] == 1
        status = step_stages(frame, t, h, t_new, V, 1, last)
        if implicit:
            if status in (NON_FINITE, NEWTON_FAILED):
                failed = math.nan if status == NON_FINITE else math.inf
                return SUCCESS, failed, _NEWTON_SHRINKS, 0.0
        else:
            count[slots.DERIVATIVES] += last
        if status != SUCCESS:
            return status, 0.0, 0.0, 0.0
        y_new, first, second, joined = row(V, last), 0.0, 0.0, 0
        if integrates:
            if rule > GAUSS:  # the stages have provided the integrand
                if implicit:
                    if stage_integrands(frame, t, h, t_new, V) != SUCCESS:
                        return CALLBACK_RAISED, 0.0, 0.0, 0.0
                first, second = quadrature_step(frame, h, rule == AUGMENTED_ALL)
                joined = size if rule == AUGMENTED_ALL else 0
        if adaptive:
            norm = error_norm(frame, h, last + 1, control[slots.RTOL], y_new, first, second, joined)
        else:
            norm = 0.0 if all_finite(y_new) and not math.isnan(first) else math.nan
        if integrates:
            norm = norm if not math.isnan(first) else first
        factor, log_error = next_factor(frame, norm, h)
        if not norm <= 1.0 or not dense:
            return SUCCESS, norm, factor, log_error
        if dense_part(frame, t, h, t_new, V, coefficients) != SUCCESS:
            return CALLBACK_RAISED, 0.0, 0.0, 0.0
        if integrates:
            if rule == GAUSS:
                if gauss_nodes(frame, t, h, t_new, V, coefficients) != SUCCESS:
                    return CALLBACK_RAISED, 0.0, 0.0, 0.0
                first, second = quadrature_step(frame, h, True)
                estimate = gauss_estimate(first, second, size)
                if math.isnan(estimate) or (adaptive and not estimate <= _small_estimate(factor)):
                    least, _ = step_factor(estimate, 0.0, GAUSS_ORDER)
                    factor = least if least < factor else factor
                    norm = estimate if not estimate <= norm else norm
        return SUCCESS, norm, factor, log_error

    @kernel
    def accept(frame, slot, t, h, y_new):
        """Record the step and move to its end."""
        if implicit:
            accept_method(frame, h)
        y, K, last = slots.Y(frame), slots.K(frame), slots.SETTING(frame)[slots.LAST_STAGE]
        _record(frame, slot, t)
        kinds = slots.MESH_KIND(frame)
        if kinds.size > 0:
            kinds[slot] = slots.EXPLICIT_STEP  # a method that switches says itself which it is
        for k in range(y.size):
            y[k] = y_new[k]
            K[0, k] = K[last, k]
        if integrates:
            total, increment, q = slots.TOTAL(frame), slots.INCREMENT(frame), slots.Q(frame)
            end = slots.WEIGHTS(frame).shape[1] - 1
            for k in range(total.size):
                total[k] += increment[k]
                q[0, k] = q[end, k]

    @kernel
    def step_on(frame, t, stop):
        """One attempt at a step towards the stop."""
        setting, control = slots.SETTING(frame), slots.CONTROL(frame)
        count, clock = slots.COUNT(frame), slots.CLOCK(frame)
        y, times, direction = slots.Y(frame), slots.TIMES(frame), control[slots.DIRECTION]
        record, slot = setting[slots.RECORD], count[slots.STEPS]
        V = plane(slots.STAGES(frame), slot if record & slots.RECORD_STAGES else 0)
        coefficients = plane(slots.MESH_C(frame), slot if record & slots.RECORD_DENSE else 0)
        h_free = clock[slots.H] if clock[slots.H] < control[slots.MAX_STEP] else control[slots.MAX_STEP]
        lands = h_free * (1.0 + _SNAP) >= abs(stop - t)
        t_new, rest = stop if lands else t + direction * h_free, 0.0
        h = t_new - t  # what the mesh will say, to the last bit: the discrete adjoint takes the step again
        if resolves:
            h, t_new, rest = _fine_step(frame, t, h_free, stop, lands)
        clock[slots.T_TRIED], clock[slots.H_TRIED] = t, h
        if record & slots.RECORD_STAGES:
            for k in range(y.size):
                V[0, k] = y[k]
        seen = count[slots.SEEN]
        observes = seen < times.size and direction * (times[seen] - t_new) < 0.0
        status, norm, factor, log_error = try_step(frame, t, h, t_new, V, coefficients, observes or setting[slots.DENSE] == 1)
        if status != SUCCESS:
            return status
        if not norm <= 1.0:
            count[slots.REJECTED] += 1
            count[slots.RETRY] = 1
            clock[slots.H] = abs(h) * factor
            passed = _resolution(frame, t) if resolves else abs(t)
            smallest = 10.0 * control[slots.EPS] * (passed + 1e-100 * control[slots.SPAN])
            if setting[slots.ADAPTIVE] and clock[slots.H] > smallest:
                return SUCCESS
            if implicit:
                if norm == math.inf:
                    return NEWTON_FAILED
            return STEP_TOO_SMALL if norm < math.inf else NON_FINITE
        y_new = row(V, setting[slots.LAST_STAGE])
        _observe(frame, t, h, t_new, y_new, coefficients)
        accept(frame, slot, t, h, y_new)
        count[slots.STEPS] += 1
        clock[slots.T], clock[slots.T_REST] = t_new, rest
        if setting[slots.ADAPTIVE]:
            if count[slots.RETRY] == 1:
                factor = factor if factor < 1.0 else 1.0
                count[slots.RETRY] = 0
            clock[slots.H] = abs(h) * factor
            if not lands:
                clock[slots.LOG_ERROR], clock[slots.H_LAST] = log_error, abs(h)
            elif factor >= 1.0 and h_free > clock[slots.H]:  # the stop cut this step short: go on with the step that was wanted
                clock[slots.H] = h_free
        return SUCCESS

    return enter, step_on


@kernel
def _half_width(frame, k):
    """How far before stop k steps end, and how far behind it they go on, signed.

    Where f may jump, a few times the spacing of numbers in the span, so that rounding takes no stage to the other side.
    """
    crossed, stops, control = slots.CROSSED(frame), slots.STOPS(frame), slots.CONTROL(frame)
    if crossed.size == 0 or crossed[k] == 0:
        return 0.0
    largest = max(abs(stops[stops.size - 1]), abs(control[slots.T_START]))
    return control[slots.DIRECTION] * _SPACINGS * control[slots.EPS] * largest


@kernel
def _landing(frame, k):
    """Where steps towards stop k end."""
    return slots.STOPS(frame)[k] - _half_width(frame, k)


@kernel
def _resumption(frame, k):
    """Where steps from stop k begin: behind it, but not behind the end."""
    direction, stops = slots.CONTROL(frame)[slots.DIRECTION], slots.STOPS(frame)
    t, end = stops[k] + _half_width(frame, k), stops[stops.size - 1]
    return end if direction * (t - end) > 0.0 else t


@kernel
def _find_stop(frame, k):
    """The first stop from k on that is before the end or, where f may jump, anywhere in the span; or the last one, the end."""
    control, stops, crossed = slots.CONTROL(frame), slots.STOPS(frame), slots.CROSSED(frame)
    direction, last = control[slots.DIRECTION], stops.size - 1
    while k < last:
        left = direction * (stops[last] - stops[k])
        if crossed.size == 0 or crossed[k] == 0:
            if left > 0.0:
                return k
        elif left >= 0.0 and direction * (stops[k] - control[slots.T_START]) >= 0.0:
            return k
        k += 1
    return last


@kernel
def _room(frame, t):
    """How far from t on f does not jump, as far as that is known, but at most the span."""
    control, count, crossed = slots.CONTROL(frame), slots.COUNT(frame), slots.CROSSED(frame)
    direction, room = control[slots.DIRECTION], control[slots.SPAN]
    for k in range(count[slots.STOP], crossed.size):
        if crossed[k] == 1:
            ahead = direction * (_landing(frame, k) - t)
            if ahead <= 0.0:  # there is an observation between the two
                ahead = direction * (_landing(frame, count[slots.STOP]) - t)
            return min(ahead, room)
    return room


@kernel
def _cross(frame, slot, t, t_new, y):
    """Record a step from t to t_new in which the state stays as it is."""
    record, count = slots.SETTING(frame)[slots.RECORD], slots.COUNT(frame)
    coefficients = plane(slots.MESH_C(frame), slot if record & slots.RECORD_DENSE else 0)
    stage = row(plane(slots.STAGES(frame), slot if record & slots.RECORD_STAGES else 0), 0)
    for k in range(y.size):
        stage[k] = y[k]
        for p in range(coefficients.shape[0]):
            coefficients[p, k] = 0.0
    _observe(frame, t, t_new - t, t_new, y, coefficients)
    _record(frame, slot, t)
    kinds = slots.MESH_KIND(frame)
    if kinds.size > 0:
        kinds[slot] = slots.CROSSING
    count[slots.STEPS] += 1
    count[slots.CROSSINGS] += 1
    slots.CLOCK(frame)[slots.T] = t_new


@kernel
def cross(frame, k, y):
    """At a stop of a forward pass: across it, in two steps, so that the stop itself is in the mesh unless another is as near."""
    stop, behind, direction = slots.STOPS(frame)[k], _resumption(frame, k), slots.CONTROL(frame)[slots.DIRECTION]
    count, record = slots.COUNT(frame), slots.SETTING(frame)[slots.RECORD]
    if record != 0:
        if count[slots.STEPS] + 2 > slots.MESH_T(frame).size - 1:
            return STORE_FULL
    for t_new in (stop, behind):
        t = slots.CLOCK(frame)[slots.T]
        if direction * (t_new - t) > 0.0:
            _cross(frame, count[slots.STEPS] if record != 0 else 0, t, t_new, y)
    return SUCCESS


def make_integrate(
    derivative: Callable,
    at_stop: Callable,
    integrand: Callable | None = None,
    stages: tuple[int, int] | None = None,
    stepper: Stepper | ImplicitStepper | None = None,
    switches: bool = False,
) -> Callable:
    """The loop, with `stepper`, or explicit steps if there is none; or with both, if it switches."""
    scales = integrand is not None  # a pass over lam
    enter, step_on = make_steps(derivative, integrand, stepper or Stepper(derivative, stages))
    if switches:
        enter, step_on = make_switching(make_steps(derivative, integrand, Stepper(derivative, stages)), (enter, step_on))

    @kernel
    def stop_at(frame, t, k):
        """Do what is to be done at stop k, and go on behind it."""
        count, clock = slots.COUNT(frame), slots.CLOCK(frame)
        clock[slots.T_REST] = 0.0  # two stops are never closer than that
        status = at_stop(frame, k, slots.Y(frame))
        if status == SUCCESS:
            behind = _resumption(frame, k)
            if slots.CONTROL(frame)[slots.DIRECTION] * (behind - t) > 0.0:
                clock[slots.T] = behind
            if _half_width(frame, k) != 0.0:  # f, its Jacobian and how fast Newton converges are others
                count[slots.FRESHNESS], clock[slots.H_FACTORED], clock[slots.REMAINS] = STALE, 0.0, 1.0
            clock[slots.T_FROM] = clock[slots.T]
            count[slots.STOP] = _find_stop(frame, k + 1)
            count[slots.FRESH] = 0
        return status

    @kernel
    def run(frame):
        count, clock, stops = slots.COUNT(frame), slots.CLOCK(frame), slots.STOPS(frame)
        control, direction = slots.CONTROL(frame), slots.CONTROL(frame)[slots.DIRECTION]
        store, record = slots.MESH_T(frame).size - 1, slots.SETTING(frame)[slots.RECORD]
        while True:
            t, k_stop = clock[slots.T], count[slots.STOP]
            landing = _landing(frame, k_stop)
            if direction * (t - landing) >= 0.0:
                if k_stop == stops.size - 1:
                    _record(frame, count[slots.STEPS], t)
                    return SUCCESS
                status = stop_at(frame, t, k_stop)
                if status != SUCCESS:
                    return status
                continue
            if record != 0 and count[slots.STEPS] == store:
                return STORE_FULL
            attempts = count[slots.STEPS] - count[slots.CROSSINGS] + count[slots.REJECTED]
            if attempts >= control[slots.MAX_ATTEMPTS]:
                return MAX_STEPS
            status = keep_watch(frame, attempts)
            if status != SUCCESS:
                return status
            if count[slots.FRESH] == 0:
                status = enter(frame, t)
                if status != SUCCESS:
                    return status
            status = step_on(frame, t, landing)
            if status != SUCCESS:
                return status

    @kernel
    def integrate(frame):
        """From START to the last of STOPS; the status."""
        count, control, y = slots.COUNT(frame), slots.CONTROL(frame), slots.Y(frame)
        if count[slots.ENTERED] == 0:
            if _begin(frame) != SUCCESS:
                count[slots.ENTERED] = 0
                return NON_FINITE
            if scales:
                if control[slots.ATOL_SCALE] > 0.0:
                    _scale_tolerances(frame)
            t = control[slots.T_START]
            count[slots.STOP] = _find_stop(frame, 0)
            _observe(frame, t, 1.0, t, y, plane(slots.MESH_C(frame), 0))
        status = run(frame)
        if status != STORE_FULL:
            count[slots.ENTERED] = 0
        return status

    return integrate
