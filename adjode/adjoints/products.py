"""What every adjoint does at a point (t, u, lam): the user's products, and the running cost's part in them.

The integrand `q` holds theta_bar's m entries if theta is wanted, then the running cost's value if there is one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from adjode.compile import slots
from adjode.compile.calls import Calls
from adjode.compile.flags import kernel
from adjode.compile.frame import Frame
from adjode.compile.times import time_at
from adjode.compile.views import invoke, segment
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics


@kernel
def pull_cost(frame, t, u):
    """G_U = dg/du and THETA_BAR = dg/dtheta."""
    arrays = (u, slots.THETA(frame), slots.G_U(frame), slots.THETA_BAR(frame))
    return invoke(slots.G_VJP(frame), time_at(frame, t), arrays)


@kernel
def cost(frame, t, u):
    """VALUE = g."""
    return invoke(slots.G(frame), time_at(frame, t), (u, slots.THETA(frame), slots.VALUE(frame)))


@kernel
def _add_cost(frame, t, u, slope, q, with_integrand):
    """Add dg/du to `slope` and, if asked, dg/dtheta and g to the integrand."""
    wants = slots.WANTS(frame)
    status = 0
    if wants[slots.WANTS_LAM] == 1:
        status |= pull_cost(frame, t, u)
        g_u, theta_bar = slots.G_U(frame), slots.THETA_BAR(frame)
        for i in range(slope.size):
            slope[i] += g_u[i]
        if wants[slots.WANTS_THETA] == 1 and with_integrand:
            for i in range(theta_bar.size):
                q[i] += theta_bar[i]
    if with_integrand:
        status |= cost(frame, t, u)
        q[q.size - 1] = slots.VALUE(frame)[0]
    return status


@functools.cache
def make_pull_state(calls: Calls) -> Callable:
    call_vjp, call_vjp_u = calls.vjp, calls.vjp_u

    @kernel
    def pull_state(frame, t, u, lam, u_bar, theta_bar):
        """u_bar = (df/du)^T lam; also theta_bar = (df/dtheta)^T lam unless `vjp_u` is used."""
        if slots.WANTS(frame)[slots.USES_VJP_U] == 1:
            return call_vjp_u(frame, t, u, lam, u_bar)
        return call_vjp(frame, t, u, lam, u_bar, theta_bar)

    return pull_state


@functools.cache
def make_products(calls: Calls) -> tuple[Callable, Callable]:
    """The kernels `lam_slope` and `integrand` for these calls."""
    pull_state, call_vjp = make_pull_state(calls), calls.vjp

    @kernel
    def lam_slope(frame, t, u, lam, slope, q):
        """slope = -(df/du)^T lam - (dg/du); leaves the whole integrand in q unless `vjp_u` is used."""
        wants = slots.WANTS(frame)
        if wants[slots.WANTS_LAM] == 0:
            for i in range(slope.size):
                slope[i] = 0.0
            return 0
        theta_bar = slots.THETA_BAR(frame)
        if wants[slots.WANTS_THETA] == 1 and wants[slots.USES_VJP_U] == 0:
            theta_bar = segment(q, 0, theta_bar.size)
        status = pull_state(frame, t, u, lam, slope, theta_bar)
        if wants[slots.WANTS_COST] == 1:
            status |= _add_cost(frame, t, u, slope, q, wants[slots.USES_VJP_U] == 0)
        for i in range(slope.size):
            slope[i] = -slope[i]
        return status

    @kernel
    def integrand(frame, t, u, lam, q):
        """q = (df/dtheta)^T lam + dg/dtheta, then g."""
        wants, u_bar = slots.WANTS(frame), slots.U_BAR(frame)
        status = 0
        if wants[slots.WANTS_THETA] == 1:
            status = call_vjp(frame, t, u, lam, u_bar, segment(q, 0, slots.THETA(frame).size))
        if wants[slots.WANTS_COST] == 1:
            status |= _add_cost(frame, t, u, u_bar, q, True)
        return status

    return lam_slope, integrand


def put_products(
    frame: Frame,
    dynamics: Dynamics,
    theta: np.ndarray,
    n: int,
    *,
    wants_theta: bool,
    wants_lam: bool,
    running_cost: tuple[Callback, Callback] | None,
    short: bool,
) -> None:
    """Fill the slots of the callbacks and of what they work on."""
    if not dynamics.calls.fused:
        frame[slots.F], frame[slots.VJP] = dynamics.f.handle, dynamics.vjp.handle
        if dynamics.vjp_u is not None:
            frame[slots.VJP_U] = dynamics.vjp_u.handle
    if running_cost is not None:
        frame[slots.G], frame[slots.G_VJP] = (callback.handle for callback in running_cost)
    frame[slots.THETA] = theta
    frame[slots.WANTS] = slots.WANTS.fill(
        wants_theta=wants_theta,
        wants_lam=wants_lam,
        wants_cost=running_cost is not None,
        uses_vjp_u=short,
        has_vjp_u=dynamics.vjp_u is not None,
    )
    for slot, size in ((slots.U_BAR, n), (slots.G_U, n), (slots.THETA_BAR, theta.size), (slots.VALUE, 1)):
        frame[slot] = np.zeros(size)
