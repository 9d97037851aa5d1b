"""What every continuous adjoint does at a point (t, u, lam): the user's products, and the running cost's part in them.

The kernels here take `products`, a tuple of the callbacks and of the arrays they write to:

    (vjp, vjp_u, g, g_vjp, theta, wants, u_bar, theta_bar, g_u, value)

`wants` holds flags, named below; `u_bar` (n,), `theta_bar` (m,), `g_u` (n,) and `value` (1,) are scratch. The integrand `q` holds
theta_bar's m entries if theta is wanted, then the running cost's value if there is one.
"""

from __future__ import annotations

import numpy as np
from numba import types

from adjode.callbacks import Callback
from adjode.dynamics import Dynamics
from adjode.jit import i8, integers, invoke, kernel, segment, vector

THETA, LAM, COST, SHORT = range(4)  # flags: theta_bar; lam; a running cost; vjp_u in place of vjp along lam

TYPE = types.Tuple((i8, i8, i8, i8, vector, integers, vector, vector, vector, vector))


@kernel
def lam_slope(products, t, u, lam, lam_slope, q):
    """lam_slope = -(df/du)^T lam - (dg/du); leaves the whole integrand in q unless `vjp_u` is used."""
    vjp, vjp_u, g, g_vjp, theta, wants, u_bar, theta_bar, g_u, value = products
    if wants[LAM] == 0:
        for i in range(lam_slope.size):
            lam_slope[i] = 0.0
        return 0
    if wants[SHORT] == 1:
        status = invoke(vjp_u, t, (u, theta, lam, lam_slope))
    elif wants[THETA] == 1:
        status = invoke(vjp, t, (u, theta, lam, lam_slope, segment(q, 0, theta.size)))
    else:
        status = invoke(vjp, t, (u, theta, lam, lam_slope, theta_bar))
    if wants[COST] == 1:
        status |= _add_cost(products, t, u, lam_slope, q, wants[SHORT] == 0)
    for i in range(lam_slope.size):
        lam_slope[i] = -lam_slope[i]
    return status


@kernel
def integrand(products, t, u, lam, q):
    """q = (df/dtheta)^T lam + dg/dtheta, then g."""
    vjp, vjp_u, g, g_vjp, theta, wants, u_bar, theta_bar, g_u, value = products
    status = 0
    if wants[THETA] == 1:
        status = invoke(vjp, t, (u, theta, lam, u_bar, segment(q, 0, theta.size)))
    if wants[COST] == 1:
        status |= _add_cost(products, t, u, u_bar, q, True)
    return status


@kernel
def _add_cost(products, t, u, slope, q, with_integrand):
    """Add dg/du to `slope` and, if asked, dg/dtheta and g to the integrand."""
    vjp, vjp_u, g, g_vjp, theta, wants, u_bar, theta_bar, g_u, value = products
    status = 0
    if wants[LAM] == 1:
        status |= invoke(g_vjp, t, (u, theta, g_u, theta_bar))
        for i in range(slope.size):
            slope[i] += g_u[i]
        if wants[THETA] == 1 and with_integrand:
            for i in range(theta.size):
                q[i] += theta_bar[i]
    if with_integrand:
        status |= invoke(g, t, (u, theta, value))
        q[q.size - 1] = value[0]
    return status


def make_products(
    dynamics: Dynamics,
    theta: np.ndarray,
    n: int,
    *,
    wants_theta: bool,
    wants_lam: bool,
    cost: tuple[Callback, Callback] | None,
    short: bool,
) -> tuple:
    g, g_vjp = (callback.handle for callback in cost) if cost else (0, 0)
    vjp_u = dynamics.vjp_u.handle if dynamics.vjp_u is not None else 0
    wants = np.array([wants_theta, wants_lam, cost is not None, short], dtype=np.int64)
    scratch = np.zeros(n), np.zeros(theta.size), np.zeros(n), np.zeros(1)
    return (dynamics.vjp.handle, vjp_u, g, g_vjp, theta, wants, *scratch)
