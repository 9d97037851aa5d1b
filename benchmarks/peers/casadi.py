"""CasADi: adjoints of CVODES, and of RK4 with fixed steps written out and compiled by gcc."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import tempfile

import numpy as np

from benchmarks.cases import HIDDEN, Gradient
from benchmarks.peers import Contender
from benchmarks.stiff_cases import CHEMICAL, REACTIONS, rate_terms

REQUIRES = ("casadi",)


def contenders() -> list[Contender]:
    return [
        Contender("casadi", "CVODES, Adams", _make_cvodes, startup=True),
        Contender("casadi", "RK4, fixed steps, compiled by gcc", _make_rk4, startup=True),
        Contender("casadi", "CVODES, BDF", _make_bdf, cases=CHEMICAL, startup=True),
    ]


@functools.cache
def _folder():
    """CasADi leaves its C code in the current folder."""
    return tempfile.TemporaryDirectory(prefix="adjode-casadi-")


def _right_hand_side(case):
    import casadi as ca

    u, theta = ca.SX.sym("u", case.u0.size), ca.SX.sym("theta", case.theta.size)
    if case.name in REACTIONS:
        terms = rate_terms(REACTIONS[case.name], case.u0.size, "theta[{}]", "u[{}]")
        du = ca.vertcat(*(eval(term, {"u": u, "theta": theta}) for term in terms))
    elif case.system == "lotka_volterra":
        both = u[0] * u[1]
        du = ca.vertcat(theta[0] * u[0] - theta[1] * both, theta[3] * both - theta[2] * u[1])
    else:
        n = HIDDEN
        w1, w2 = theta[: 2 * n].reshape((2, n)).T, theta[3 * n : 5 * n].reshape((n, 2)).T  # columns first
        du = w2 @ ca.tanh(w1 @ u**3 + theta[2 * n : 3 * n]) + theta[5 * n :]
    return u, theta, du


def _gradient_of(case, states, **options):
    """value_and_gradient of the case; `states(u0, theta)` is an expression of those at the observation times, (n, k)."""
    import casadi as ca

    u0, theta = ca.MX.sym("u0", case.u0.size), ca.MX.sym("theta", case.theta.size)
    u = states(u0, theta)
    if case.name in REACTIONS:
        loss = ca.sum1(u.T @ ca.DM(case.weights))
    else:
        loss = ca.sum1(ca.vec(u)) if case.data is None else ca.sumsqr(u - case.data.T)
    evaluate = ca.Function("evaluate", [u0, theta], [loss, ca.gradient(loss, u0), ca.gradient(loss, theta)], options)

    arguments = np.zeros(case.u0.size), np.zeros(case.theta.size)
    results = np.zeros(1), np.zeros(case.u0.size), np.zeros(case.theta.size)
    buffer, run = evaluate.buffer()  # skips the conversion of arrays
    for k, array in enumerate(arguments):
        buffer.set_arg(k, memoryview(array))
    for k, array in enumerate(results):
        buffer.set_res(k, memoryview(array))

    def value_and_gradient(u0, theta):
        arguments[0][:], arguments[1][:] = u0, theta
        run()
        if buffer.ret():
            raise RuntimeError("CasADi reports a failure")
        return Gradient(float(results[0][0]), results[1].copy(), results[2].copy())

    value_and_gradient.function = evaluate
    return value_and_gradient


def _make_cvodes(case, tol):
    import casadi as ca

    u, theta, du = _right_hand_side(case)
    options = {
        "reltol": tol,
        "abstol": tol,
        "linear_multistep_method": "adams",
        "nonlinear_solver_iteration": "functional",
        "max_num_steps": 100_000,
    }
    solver = ca.integrator("solver", "cvodes", {"x": u, "p": theta, "ode": du}, case.t_span[0], list(case.times), options)
    return _gradient_of(case, lambda u0, theta: solver(x0=u0, p=theta)["xf"])


def _make_bdf(case, tol):
    import casadi as ca

    u, theta, du = _right_hand_side(case)
    options = {"reltol": tol, "abstol": tol * float(np.max(case.scales())), "max_num_steps": 1_000_000}
    solver = ca.integrator("solver", "cvodes", {"x": u, "p": theta, "ode": du}, case.t_span[0], list(case.times), options)
    return _gradient_of(case, lambda u0, theta: solver(x0=u0, p=theta)["xf"])


def _make_rk4(case, tol):
    import casadi as ca

    if shutil.which("gcc") is None:
        raise RuntimeError("needs gcc")
    u, theta, du = _right_hand_side(case)
    f = ca.Function("f", [u, theta], [du])
    # an error about as large as that of the others, proportional to the fourth power of the step
    steps = (10.0 if case.system == "lotka_volterra" else 0.3) * tol**-0.25
    stops = np.concatenate([[case.t_span[0]], case.times])
    length = float(stops[-1] - stops[-2]) if case.times.size > 1 else case.t_span[1] - case.t_span[0]
    count = max(1, round(steps * length / (case.t_span[1] - case.t_span[0])))
    h = ca.SX.sym("h")
    k1 = f(u, theta)
    k2 = f(u + h / 2 * k1, theta)
    k3 = f(u + h / 2 * k2, theta)
    k4 = f(u + h * k3, theta)
    step = ca.Function("step", [u, theta, h], [u + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)])
    many = step.mapaccum("many", count)

    def states(u0, theta):
        rows, u = [], u0
        for start, stop in itertools.pairwise(stops):
            if stop > start:
                u = many(u, theta, (stop - start) / count)[:, -1]
            rows.append(u)
        return ca.horzcat(*rows)

    before = os.getcwd()
    os.chdir(_folder().name)
    try:
        flags = {"flags": ["-O3", "-march=native"], "compiler": "gcc", "verbose": False}
        return _gradient_of(case, states, jit=True, compiler="shell", jit_options=flags, jit_cleanup=False)
    finally:
        os.chdir(before)
