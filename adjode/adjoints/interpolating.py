"""The interpolating adjoint: lam runs back along the stored dense output of the forward solve.

d lam/dt = -(df/du)^T lam - dg/du at u(t), jumps `lam += u_bar_k` at the observation times (Pontryagin et al. 1962; for the
computation see Cao, Li, Petzold, Serban (2003), SIAM J. Sci. Comput. 24, 1076-1089).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adjode.adjoints import products
from adjode.adjoints.backward import Backward
from adjode.adjoints.jumping import forget_jump, pull_jumps
from adjode.adjoints.jumps import Jumps
from adjode.compile import slots
from adjode.compile.calls import Calls
from adjode.compile.flags import kernel
from adjode.compile.views import plane, row
from adjode.jacobian import make_jacobian
from adjode.loops.along import find_forward_step
from adjode.loops.events import changes
from adjode.loops.jumps import begin_stops, insert_stop
from adjode.loops.run import make_integrate
from adjode.loops.stops import clearance
from adjode.status import STORE_FULL, SUCCESS
from adjode.steppers.explicit import interpolate
from adjode.steppers.family import EXPLICIT, Solver

# in JUMP_ROWS: where steps of the forward pass are asked for; jump 0 of the state, one less for the next
PAUSE, FIRST_JUMP = -2, -3


@kernel
def _look_up(frame, t):
    """U = the forward solution at t."""
    u, mesh_t, k = slots.U(frame), slots.FORWARD_T(frame), find_forward_step(frame, t)
    x = (t - mesh_t[k]) / (mesh_t[k + 1] - mesh_t[k])
    interpolate(u, row(slots.FORWARD_U(frame), k), plane(slots.FORWARD_C(frame), k), x)


@kernel
def _forget_jumps_behind(frame):
    """Those that the sweep, which starts before them, does not come by."""
    times, control = slots.JUMP_T(frame), slots.CONTROL(frame)
    for k in range(slots.FORWARD_COUNT(frame)[slots.OCCURRED] - 1, -1, -1):
        if control[slots.DIRECTION] * (times[k] + clearance(frame) - control[slots.T_START]) <= 0.0:
            forget_jump(frame, k)


@kernel
def _begin(frame):
    """At the start of a sweep: stops where the state has jumped, and its end, if an event has ended the solution."""
    forward, whats, times, clock = slots.FORWARD_COUNT(frame), slots.JUMP_WHAT(frame), slots.JUMP_T(frame), slots.CLOCK(frame)
    if whats.size == 0:
        return SUCCESS
    many, stops, last = begin_stops(frame), slots.STOPS(frame), forward[slots.OCCURRED] - 1
    direction, near = slots.CONTROL(frame)[slots.DIRECTION], 2.0 * abs(clearance(frame))
    if forward[slots.ENDED] > 0 and direction * (clock[slots.T] - times[last]) < 0.0:
        clock[slots.T] = clock[slots.T_FROM] = times[last]
        for k in range(many):
            if direction * (stops[k] - times[last]) < 0.0:
                stops[k] = times[last]
    while last >= 0:
        first = whats[3 * last + 2]
        if changes(frame, first, last) or (forward[slots.ENDED] > 0 and last == forward[slots.OCCURRED] - 1):
            for k in range(many):  # what is observed at the start is observed behind a jump there
                if stops[k] == stops[stops.size - 1] and abs(stops[k] - times[last]) <= near:
                    stops[k] -= direction * near
            many = insert_stop(frame, many, times[last], FIRST_JUMP - last, times[last] + clearance(frame))
        last = first - 1
    _forget_jumps_behind(frame)
    return SUCCESS


@kernel
def _add(frame, k, lam):
    """What is observed at stop k; STORE_FULL if it is a pause."""
    jumps, rows = slots.JUMPS(frame), slots.JUMP_ROWS(frame)
    at = rows[k] if rows.size > 0 else jumps.shape[0] - 1 - k
    if at == PAUSE:
        return STORE_FULL
    if at >= 0:
        for i in range(lam.size):
            lam[i] += jumps[at, i]
    return SUCCESS


@kernel
def _jump(frame, k, lam):
    """The jump of lam at stop k."""
    rows = slots.JUMP_ROWS(frame)
    if rows.size > 0 and rows[k] <= FIRST_JUMP:
        return pull_jumps(frame, FIRST_JUMP - rows[k], (False, False), lam)
    return _add(frame, k, lam)


def make_backward(calls: Calls, stages: tuple[int, int] | None, solver: Solver = EXPLICIT) -> Callable:
    """The kernel of the backward pass."""
    lam_slope, lam_integrand = products.make_products(calls)
    jacobian = make_jacobian(calls)

    @kernel
    def slope_along(frame, t, lam, slope, q):
        _look_up(frame, t)
        return lam_slope(frame, t, slots.U(frame), lam, slope, q)

    @kernel
    def integrand_along(frame, t, lam, q):
        _look_up(frame, t)
        return lam_integrand(frame, t, slots.U(frame), lam, q)

    @kernel
    def jacobian_along(frame, t, lam):
        _look_up(frame, t)
        return jacobian(frame, t, slots.U(frame))

    stepper = solver.stepper(slope_along, jacobian_along, turned=True)
    if not calls.may_jump:
        return make_integrate(slope_along, _add, integrand_along, stages, stepper, solver.switches)
    return make_integrate(slope_along, _jump, integrand_along, stages, stepper, solver.switches, _begin)


def prepare(jumps: Jumps, atol: float | None, crossed: np.ndarray, backwards: bool) -> Backward:
    """From the last cotangent that is not zero, which is the start, through all others back to t0.

    `crossed` are times at which f may jump, rising; `backwards` says whether the sweep runs back in time.
    """
    reverse = np.ascontiguousarray(jumps.jumps[::-1])
    return _backward(jumps.start, jumps.lam, reverse, atol, _Stops(jumps.stops, crossed, backwards, first=False))


def prepare_observed(
    times: np.ndarray, u_bars: np.ndarray, t0: float, atol: float | None, crossed: np.ndarray, backwards: bool
) -> Backward:
    """From the last of `times`, in the order of integration, whose cotangents `u_bars` are not known yet: each is a stop."""
    start = float(times[-1]) if times.size else t0
    stops = _Stops(np.append(times[::-1], t0), crossed, backwards, first=times.size > 0)
    return _backward(start, np.zeros(u_bars.shape[1]), u_bars, atol, stops)


class _Stops:
    """The stops of a sweep: jumps of lam, whose cotangents stand in reverse order, times at which f may jump, and the end.

    `first` says that the first jump is the start of the sweep, whatever time that will be.
    """

    def __init__(self, stops: np.ndarray, crossed: np.ndarray, backwards: bool, first: bool):
        self.times, self.arrays, self.crossed = stops, {}, None
        if not crossed.size:
            return
        jumps = stops.size - 1
        times = np.append(stops[:-1], crossed)
        # where lam jumps at such a time, it does so behind it: steps must not end in between
        order = np.lexsort((np.arange(times.size) < jumps, -times if backwards else times))
        if first:
            order = np.append(0, order[order != 0])
        self.times = np.append(times[order], stops[-1])
        self.crossed = np.append(order >= jumps, False).astype(np.int64)
        self.arrays = {slots.JUMP_ROWS: np.where(order < jumps, jumps - 1 - order, -1)}


def _backward(start: float, lam: np.ndarray, jumps: np.ndarray, atol: float | None, stops: _Stops) -> Backward:
    arrays = {slots.JUMPS: jumps, slots.U: np.zeros(lam.size), slots.PLACE: slots.PLACE.zeros(), **stops.arrays}
    tolerances = np.full(lam.size, atol or 0.0)
    return Backward("interpolating", make_backward, arrays, start, lam, stops.times, tolerances, crossed=stops.crossed)
