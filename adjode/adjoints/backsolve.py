"""The backsolve adjoint: the state runs back beside lam, as one system of 2n equations [u, lam].

Nothing of the forward trajectory is needed but its end (Chen, Rubanova, Bettencourt, Duvenaud 2018, algorithm 1). What the flow
contracts forwards it expands backwards, so the state may drift away from the true one: the pullback compares it with the true
initial state, and can put it back onto the stored trajectory at every stored step ("re-anchoring").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.adjoints import products
from adjode.adjoints.backward import Backward
from adjode.adjoints.jumps import Jumps
from adjode.compile import slots
from adjode.compile.calls import Calls
from adjode.compile.flags import kernel
from adjode.compile.views import segment
from adjode.loops.run import make_integrate
from adjode.status import SUCCESS


@kernel
def _jump(frame, k, y):
    jumps, anchors = slots.JUMPS(frame), slots.ANCHORS(frame)
    n, at = y.size // 2, jumps.shape[0] - 1 - k
    for i in range(n):
        y[n + i] += jumps[at, i]
        if anchors.shape[0] > 0:
            y[i] = anchors[at, i]
    return SUCCESS


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

    return make_integrate(joint_slope, _jump, joint_integrand, stages)


def prepare(
    state: Callable[[Any], np.ndarray], mesh: np.ndarray, plan: Jumps, atol_u: np.ndarray, atol: float | None, reanchor: bool
) -> Backward:
    """`state(t)` is the forward solution, `atol_u` its tolerance; `mesh` are its times, at which it is taken anew to `reanchor`."""
    n = plan.lam.size
    stops, jumps, anchors = plan.stops, plan.jumps, np.zeros((0, n))
    if reanchor:
        stops, jumps = _with_mesh(plan, mesh)
        anchors = state(stops[:-1])
    y = np.concatenate([state(plan.start), plan.lam])
    tolerances = np.concatenate([atol_u, np.full(n, atol or 0.0)])
    arrays = {slots.JUMPS: np.ascontiguousarray(jumps[::-1]), slots.ANCHORS: np.ascontiguousarray(anchors[::-1])}
    arrays[slots.PLACE] = slots.PLACE.zeros()
    return Backward("backsolve", make_backward, arrays, plan.start, y, stops, tolerances, lam_from=n)


def _with_mesh(plan: Jumps, mesh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stops and jumps with the stored times between start and t0 among them, as stops without a jump."""
    low, high = sorted((plan.start, float(plan.stops[-1])))
    inside = mesh[(mesh > low) & (mesh < high)]
    times = np.union1d(inside, plan.stops[:-1])
    jumps = np.zeros((times.size, plan.lam.size))
    jumps[np.searchsorted(times, plan.stops[:-1])] = plan.jumps
    if plan.start == high:
        times, jumps = times[::-1], np.ascontiguousarray(jumps[::-1])
    return np.append(times, plan.stops[-1]), jumps


def drift(states: np.ndarray, y: np.ndarray, rtol: float, atol_u: np.ndarray | None) -> float:
    """How far the state has ended from the true initial state, in units of the forward solve's tolerance.

    The tolerance of a component counts its largest size along the trajectory: what has decayed to nothing cannot be recovered to
    better than that. Fixed steps have no tolerance (`atol_u` is None); there the unit is a thousandth of that size.
    """
    size = np.abs(states).max(axis=0)
    scale = 1e-3 * np.where(size > 0, size, 1.0) if atol_u is None else atol_u + rtol * size
    with np.errstate(all="ignore"):
        return float(np.max(np.abs(y[: scale.size] - states[0]) / scale, initial=0.0))
