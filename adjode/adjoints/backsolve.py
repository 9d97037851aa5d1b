"""The backsolve adjoint: the state runs back beside lam, as one system of 2n equations [u, lam].

Nothing of the forward trajectory is needed but its end (Chen, Rubanova, Bettencourt, Duvenaud 2018, algorithm 1). What the flow
contracts forwards it expands backwards, so the state may drift away from the true one: the pullback compares it with the true
initial state, and can put it back onto the stored trajectory at every stored step ("re-anchoring").
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adjode import slots
from adjode.adjoints import products
from adjode.adjoints.backward_pass import BackwardPass
from adjode.adjoints.jumps import Sweep
from adjode.calls import Calls
from adjode.jit import kernel, segment
from adjode.loops.integrate import make_integrate
from adjode.solution import Solution


@kernel
def _jump(frame, k, y):
    jumps, anchors = slots.JUMPS(frame), slots.ANCHORS(frame)
    n, at = y.size // 2, jumps.shape[0] - 1 - k
    for i in range(n):
        y[n + i] += jumps[at, i]
        if anchors.shape[0] > 0:
            y[i] = anchors[at, i]


def make_backward(calls: Calls, stages: tuple[int, int] | None) -> Callable:
    """The kernel of the backward pass."""
    call_f = calls.f
    lam_slope, lam_integrand = products.make_products(calls)

    @kernel
    def joint_slope(frame, t, y, slope, q):
        n = y.size // 2
        u = segment(y, 0, n)
        status = call_f(frame, t, u, segment(slope, 0, n))
        return status | lam_slope(frame, t, u, segment(y, n, n), segment(slope, n, n), q)

    @kernel
    def joint_integrand(frame, t, y, q):
        n = y.size // 2
        return lam_integrand(frame, t, segment(y, 0, n), segment(y, n, n), q)

    return make_integrate(joint_slope, joint_integrand, _jump, stages)


def prepare(solution: Solution, plan: Sweep, atol: float, reanchor: bool) -> BackwardPass:
    n = plan.lam.size
    stops, jumps, anchors = plan.stops, plan.jumps, np.zeros((0, n))
    if reanchor:
        stops, jumps = _with_mesh(plan, solution.t)
        anchors = solution(stops[:-1])
    y = np.concatenate([solution(plan.start), plan.lam])
    tolerances = np.concatenate([solution.options["atol"], np.full(n, atol)])
    arrays = {slots.JUMPS: np.ascontiguousarray(jumps[::-1]), slots.ANCHORS: np.ascontiguousarray(anchors[::-1])}
    return BackwardPass("backsolve", make_backward, arrays, y, stops, tolerances, lam_from=n)


def _with_mesh(plan: Sweep, mesh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stops and jumps with the stored times between start and t0 among them, as stops without a jump."""
    low, high = sorted((plan.start, float(plan.stops[-1])))
    inside = mesh[(mesh > low) & (mesh < high)]
    times = np.union1d(inside, plan.stops[:-1])
    jumps = np.zeros((times.size, plan.lam.size))
    jumps[np.searchsorted(times, plan.stops[:-1])] = plan.jumps
    if plan.start == high:
        times, jumps = times[::-1], np.ascontiguousarray(jumps[::-1])
    return np.append(times, plan.stops[-1]), jumps


def drift(solution: Solution, y: np.ndarray) -> float:
    """How far the state has ended from the true initial state, in units of the forward solve's tolerance.

    The tolerance of a component counts its largest size along the trajectory: what has decayed to nothing cannot be recovered to
    better than that. Fixed steps have no tolerance; there the unit is a thousandth of that size.
    """
    size = np.abs(solution.u).max(axis=0)
    if solution.options["step"] is None:
        scale = solution.options["atol"] + solution.options["rtol"] * size
    else:
        scale = 1e-3 * np.where(size > 0, size, 1.0)
    with np.errstate(all="ignore"):
        return float(np.max(np.abs(y[: scale.size] - solution.u[0]) / scale, initial=0.0))
