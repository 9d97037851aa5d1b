"""What every adjoint does at a point (t, u, lam): the user's products, and the running cost's part in them.

The integrand `q` is that of theta_bar, if theta is wanted. The integrals of a running cost itself do not depend on lam: costs.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from adjode.compile import slots
from adjode.compile.calls import Calls
from adjode.compile.flags import kernel
from adjode.compile.frame import Frame
from adjode.compile.outside import invoke_g, invoke_g_vjp
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics


@kernel
def entry_of(x, i):
    """x[i], with no address computed at run time: what has one lies in memory, in all of a pass."""
    found = 0.0
    for k in range(x.size):
        if k == i:
            found = x[k]
    return found


@kernel
def add_to_entry(x, i, value):
    """x[i] += value, likewise."""
    for k in range(x.size):
        if k == i:
            x[k] += value


@kernel
def dot(x, y):
    """The product of x with y, or with as many first entries of y."""
    total = 0.0
    for k in range(x.size):
        total += x[k] * y[k]
    return total


@kernel
def pull_cost(frame, t, u):
    """G_U = dg/du and THETA_BAR = dg/dtheta."""
    arrays = (u, slots.THETA(frame), slots.G_U(frame), slots.THETA_BAR(frame))
    return invoke_g_vjp(frame, t, arrays)


@kernel
def cost(frame, t, u):
    """VALUE = g."""
    return invoke_g(frame, t, (u, slots.THETA(frame), slots.VALUE(frame)))


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
def make_product(calls: Calls) -> Callable:
    call_vjp, call_vjp_u = calls.vjp, calls.vjp_u

    @kernel
    def product(frame, t, u, w, u_bar):
        """u_bar = (df/du)^T w, by vjp_u if there is one."""
        slots.COUNT(frame)[slots.PRODUCTS] += 1
        if slots.WANTS(frame)[slots.HAS_VJP_U] == 1:
            return call_vjp_u(frame, t, u, w, u_bar)
        return call_vjp(frame, t, u, w, u_bar, slots.THETA_BAR(frame))

    return product


@functools.cache
def make_products(calls: Calls) -> tuple[Callable, Callable]:
    """The kernels `lam_slope` and `integrand` for these calls."""
    pull_state, call_vjp = make_pull_state(calls), calls.vjp

    @kernel
    def lam_slope(frame, t, u, lam, slope, q):
        """slope = -(df/du)^T lam - (dg/du); leaves the whole integrand in q unless `vjp_u` is used."""
        wants = slots.WANTS(frame)
        theta_bar = slots.THETA_BAR(frame)
        if wants[slots.WANTS_THETA] == 1 and wants[slots.USES_VJP_U] == 0:
            theta_bar = q
        status = pull_state(frame, t, u, lam, slope, theta_bar)
        if wants[slots.WANTS_COST] == 1:
            status |= pull_cost(frame, t, u)
            g_u = slots.G_U(frame)
            for i in range(slope.size):
                slope[i] += g_u[i]
        for i in range(slope.size):
            slope[i] = -slope[i]
        return status

    @kernel
    def integrand(frame, t, u, lam, q):
        """q = (df/dtheta)^T lam"""
        return call_vjp(frame, t, u, lam, slots.U_BAR(frame), q)

    return lam_slope, integrand


def put_products(
    frame: Frame,
    dynamics: Dynamics,
    theta: np.ndarray,
    n: int,
    *,
    wants_theta: bool,
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
        wants_cost=running_cost is not None,
        uses_vjp_u=short,
        has_vjp_u=dynamics.vjp_u is not None,
    )
    for slot, size in ((slots.U_BAR, n), (slots.G_U, n), (slots.THETA_BAR, theta.size), (slots.VALUE, 1)):
        frame[slot] = np.zeros(size)
