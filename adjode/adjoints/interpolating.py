"""The interpolating adjoint: lam runs back along the stored dense output of the forward solve.

d lam/dt = -(df/du)^T lam - dg/du at u(t), jumps `lam += u_bar_k` at the observation times (Pontryagin et al. 1962; for the
computation see Cao, Li, Petzold, Serban (2003), SIAM J. Sci. Comput. 24, 1076-1089).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numba import types

from adjode.adjoints import products
from adjode.adjoints.backward_pass import BackwardPass
from adjode.adjoints.jumps import Sweep
from adjode.jit import cube, integers, kernel, matrix, vector
from adjode.loops.loop import compile_integrate
from adjode.loops.trajectory import locate, state_at
from adjode.solution import Solution

# system: (products, mesh t, mesh u, mesh c, [step last looked at, number of steps], jumps, u)
_TYPE = types.Tuple((products.TYPE, vector, matrix, cube, integers, matrix, vector))


@kernel
def _look_up(system, t):
    """u = the forward solution at t."""
    parts, mesh_t, mesh_u, mesh_c, place, jumps, u = system
    place[0] = locate(mesh_t, place[1], place[0], t)
    state_at(mesh_t, mesh_u, mesh_c, place[0], t, u)


@kernel
def _slope(system, t, lam, lam_slope, q):
    _look_up(system, t)
    return products.lam_slope(system[0], t, system[6], lam, lam_slope, q)


@kernel
def _integrand(system, t, lam, q):
    _look_up(system, t)
    return products.integrand(system[0], t, system[6], lam, q)


@kernel
def _jump(system, k, lam):
    jumps = system[5]
    for i in range(lam.size):
        lam[i] += jumps[k, i]


@functools.cache
def entry() -> Callable:
    return compile_integrate("interpolating", _TYPE, _slope, _integrand, _jump)


def prepare(solution: Solution, plan: Sweep, parts: tuple, atol: float, reanchor: bool) -> BackwardPass:
    dense, n = solution.dense, plan.lam.size
    place = np.array([dense.steps - 1, dense.steps], dtype=np.int64)
    system = parts, dense.t, dense.u, dense.c, place, plan.jumps, np.zeros(n)
    return BackwardPass(entry(), system, plan.lam, plan.stops, np.full(n, atol), lam_from=0)
