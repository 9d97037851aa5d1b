"""The interpolating adjoint: lam runs back along the stored dense output of the forward solve.

d lam/dt = -(df/du)^T lam - dg/du at u(t), jumps `lam += u_bar_k` at the observation times (Pontryagin et al. 1962; for the
computation see Cao, Li, Petzold, Serban (2003), SIAM J. Sci. Comput. 24, 1076-1089).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adjode import slots
from adjode.adjoints import products
from adjode.adjoints.backward_pass import BackwardPass
from adjode.adjoints.jumps import Sweep
from adjode.calls import Calls
from adjode.jacobian import make_jacobian
from adjode.jit import kernel, plane, row
from adjode.loops.integrate import make_integrate
from adjode.slot import Slot
from adjode.solution import Solution
from adjode.steppers.explicit import interpolate
from adjode.steppers.families import EXPLICIT, Solver


@kernel
def _look_up(frame, t):
    """U = the forward solution at t, which is most often in the step of the last look or the one before it."""
    place, u, mesh_t = slots.PLACE(frame), slots.U(frame), slots.FORWARD_T(frame)
    direction, steps = -slots.CONTROL(frame)[slots.DIRECTION], slots.FORWARD_COUNT(frame)[slots.STEPS]
    k = place[0] if place[0] < steps else steps - 1
    while k > 0 and direction * (t - mesh_t[k]) < 0.0:
        k -= 1
    while k < steps - 1 and direction * (t - mesh_t[k + 1]) > 0.0:
        k += 1
    place[0] = k
    x = (t - mesh_t[k]) / (mesh_t[k + 1] - mesh_t[k])
    interpolate(u, row(slots.FORWARD_U(frame), k), plane(slots.FORWARD_C(frame), k), x)


@kernel
def _jump(frame, k, lam):
    jumps = slots.JUMPS(frame)
    for i in range(lam.size):
        lam[i] += jumps[jumps.shape[0] - 1 - k, i]


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
    return make_integrate(slope_along, integrand_along, _jump, stages, stepper, solver.switches)


def prepare(solution: Solution, plan: Sweep, atol: float, reanchor: bool) -> BackwardPass:
    arrays = {
        **arrays_along(solution.dense.t, solution.dense.u, solution.dense.c, np.array([solution.dense.steps])),
        slots.JUMPS: np.ascontiguousarray(plan.jumps[::-1]),
        slots.U: np.zeros(plan.lam.size),
    }
    return BackwardPass("interpolating", make_backward, arrays, plan.lam, plan.stops, np.full(plan.lam.size, atol), lam_from=0)


def arrays_along(t: np.ndarray, u: np.ndarray, c: np.ndarray, count: np.ndarray) -> dict[Slot, np.ndarray]:
    """What the frame needs of the forward solve: its dense output, and an array that starts with its number of steps."""
    place = slots.PLACE.zeros()
    return {slots.FORWARD_T: t, slots.FORWARD_U: u, slots.FORWARD_C: c, slots.FORWARD_COUNT: count, slots.PLACE: place}
