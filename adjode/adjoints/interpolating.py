"""The interpolating adjoint: lam runs back along the stored dense output of the forward solve.

d lam/dt = -(df/du)^T lam - dg/du at u(t), jumps `lam += u_bar_k` at the observation times (Pontryagin et al. 1962; for the
computation see Cao, Li, Petzold, Serban (2003), SIAM J. Sci. Comput. 24, 1076-1089).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from adjode import frame as slots
from adjode.adjoints import products
from adjode.adjoints.backward_pass import BackwardPass
from adjode.adjoints.jumps import Sweep
from adjode.calls import Calls
from adjode.frame import cube_at, integers_at, matrix_at, vector_at
from adjode.jit import kernel
from adjode.loops.loop import compile_integrate
from adjode.loops.trajectory import locate, state_at
from adjode.solution import Solution


@kernel
def _look_up(frame, t):
    """U = the forward solution at t."""
    place, u = integers_at(frame, slots.PLACE), vector_at(frame, slots.U)
    mesh_t = vector_at(frame, slots.FORWARD_T)
    place[0] = locate(mesh_t, place[1], place[0], t)
    state_at(mesh_t, matrix_at(frame, slots.FORWARD_U), cube_at(frame, slots.FORWARD_C), place[0], t, u)


@kernel
def _jump(frame, k, lam):
    jumps = matrix_at(frame, slots.JUMPS)
    for i in range(lam.size):
        lam[i] += jumps[k, i]


@functools.cache
def entry(calls: Calls) -> Callable:
    lam_slope, lam_integrand = products.make_products(calls)

    @kernel
    def slope_along(frame, t, lam, slope, q):
        _look_up(frame, t)
        return lam_slope(frame, t, vector_at(frame, slots.U), lam, slope, q)

    @kernel
    def integrand_along(frame, t, lam, q):
        _look_up(frame, t)
        return lam_integrand(frame, t, vector_at(frame, slots.U), lam, q)

    return compile_integrate("interpolating", calls, slope_along, integrand_along, _jump)


def prepare(solution: Solution, plan: Sweep, atol: float, reanchor: bool) -> BackwardPass:
    dense, n = solution.dense, plan.lam.size
    arrays = {
        slots.FORWARD_T: dense.t,
        slots.FORWARD_U: dense.u,
        slots.FORWARD_C: dense.c,
        slots.PLACE: np.array([dense.steps - 1, dense.steps], dtype=np.int64),
        slots.JUMPS: plan.jumps,
        slots.U: np.zeros(n),
    }
    return BackwardPass(entry(solution.dynamics.calls), arrays, plan.lam, plan.stops, np.full(n, atol), lam_from=0)
