"""heyoka.py: Taylor's method of adaptive step, compiled by LLVM.

"variational": u and its derivatives, by `var_ode_sys`, in one pass with dense output at the observations. "adjoint": (u, lam,
theta_bar) back from one observation to the one before, u put back onto the forward solution at each.
"""

from __future__ import annotations

import numpy as np

from benchmarks.cases import CASES, HIDDEN, JACOBIANS, Gradient
from benchmarks.peers import Contender
from benchmarks.peers.scipy import from_rows, tangent_start

REQUIRES = ("heyoka",)


def contenders() -> list[Contender]:
    return [
        Contender("heyoka", "variational equations", _make_variational, (*CASES, *JACOBIANS), startup=True, fine=True),
        Contender("heyoka", "adjoint", _make_adjoint, startup=True, fine=True),
    ]


def _lotka_volterra():
    import heyoka as hy

    x, y = hy.make_vars("x", "y")
    a, b, c, d = (hy.par[i] for i in range(4))
    return [(x, a * x - b * x * y), (y, -c * y + d * x * y)]


def _spiral():
    import heyoka as hy

    x, y = hy.make_vars("x", "y")
    x3, y3, p, n = x * x * x, y * y * y, hy.par, HIDDEN
    active = [hy.tanh(p[2 * i] * x3 + p[2 * i + 1] * y3 + p[2 * n + i]) for i in range(n)]
    rows = [hy.sum([p[(3 + k) * n + i] * active[i] for i in range(n)] + [p[5 * n + k]]) for k in range(2)]
    return [(x, rows[0]), (y, rows[1])]


SYSTEMS = {"lotka_volterra": _lotka_volterra, "spiral": _spiral}


def _options(case, tol):
    # the spiral is too long to unroll
    return {"tol": tol, "fast_math": True, "compact_mode": case.system == "spiral"}


def _outputs(integrator, case):
    """The states at the observation times, from t0 on."""
    start = case.t_span[0]
    if case.times.size == 1:
        integrator.propagate_until(case.times[0])
        return integrator.state[None].copy()
    skip = 1 if case.times[0] > start else 0
    grid = np.concatenate([[start], case.times])[1 - skip :]
    return integrator.propagate_grid(grid)[-1][skip:]


def _make_variational(case, tol):
    import heyoka as hy

    equations = hy.var_ode_sys(SYSTEMS[case.system](), hy.var_args.vars | hy.var_args.params, order=1)
    integrator = hy.taylor_adaptive(equations, list(case.u0), pars=list(case.theta), **_options(case, tol))

    def value_and_gradient(u0, theta):
        integrator.time = case.t_span[0]
        integrator.state[:] = tangent_start(u0, theta)
        integrator.pars[:] = theta
        return from_rows(case, _outputs(integrator, case), u0.size)

    return value_and_gradient


def _backward_system(case):
    import heyoka as hy

    system = SYSTEMS[case.system]()
    n, m = case.u0.size, case.theta.size
    states = [state for state, _ in system]
    lam = hy.make_vars(*(f"lam_{i}" for i in range(n)))
    product = hy.sum([lam[i] * system[i][1] for i in range(n)])
    by_all = hy.diff_tensors([product], [*states, *(hy.par[k] for k in range(m))], diff_order=1).gradient
    theta_bar = hy.make_vars(*(f"theta_bar_{k}" for k in range(m)))
    reversed_time = [(state, -slope) for state, slope in system]
    return [*reversed_time, *zip(lam, by_all[:n], strict=True), *zip(theta_bar, by_all[n:], strict=True)]


def _make_adjoint(case, tol):
    import heyoka as hy

    n, m, options = case.u0.size, case.theta.size, _options(case, tol)
    forward = hy.taylor_adaptive(SYSTEMS[case.system](), list(case.u0), pars=list(case.theta), **options)
    backward = hy.taylor_adaptive(_backward_system(case), [0.0] * (2 * n + m), pars=list(case.theta), **options)
    stops = np.concatenate([[case.t_span[0]], case.times])

    def value_and_gradient(u0, theta):
        forward.time = case.t_span[0]
        forward.state[:] = u0
        forward.pars[:] = backward.pars[:] = theta
        u = _outputs(forward, case)
        value, u_bars = case.loss(u)
        y = backward.state
        y[:] = 0.0
        for k in range(len(u) - 1, -1, -1):
            y[:n] = u[k]
            y[n : 2 * n] += u_bars[k]
            length = stops[k + 1] - stops[k]
            if length > 0.0:
                backward.time = 0.0
                backward.propagate_until(length)
        return Gradient(value, y[n : 2 * n].copy(), y[2 * n :].copy())

    return value_and_gradient
