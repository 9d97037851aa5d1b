"""diffrax: jitted, on the CPU, in double precision."""

from __future__ import annotations

import functools
import os
from functools import partial

import numpy as np

from benchmarks.cases import CASES, HIDDEN, JACOBIANS, STIFF_JACOBIANS, Gradient, ResidualCase
from benchmarks.peers import Contender
from benchmarks.stiff_cases import CHEMICAL, REACTIONS, rate_terms

REQUIRES = ("diffrax", "jax", "equinox")
VARIANTS = (
    ("RecursiveCheckpointAdjoint", "Tsit5"),
    ("RecursiveCheckpointAdjoint", "Dopri8"),
    ("BacksolveAdjoint", "Tsit5"),
    ("BacksolveAdjoint", "Dopri8"),
    ("ForwardMode", "Tsit5"),
    ("ForwardMode", "Dopri8"),
)


def contenders() -> list[Contender]:
    ordinary = [
        Contender(
            "diffrax",
            f"{adjoint}, {method}",
            partial(_make, adjoint, method),
            cases=(*CASES, *JACOBIANS) if adjoint == "ForwardMode" else CASES,
            startup=(adjoint, method) == VARIANTS[0],
        )
        for adjoint, method in VARIANTS
    ]
    stiff = [
        Contender("diffrax", f"{adjoint}, Kvaerno5", partial(_make, adjoint, "Kvaerno5"), cases, startup=adjoint != "ForwardMode")
        for adjoint, cases in (("RecursiveCheckpointAdjoint", CHEMICAL), ("ForwardMode", STIFF_JACOBIANS))
    ]
    return [*ordinary, *stiff]


def _lotka_volterra(t, u, theta):
    import jax.numpy as jnp

    both = u[0] * u[1]
    return jnp.stack([theta[0] * u[0] - theta[1] * both, theta[3] * both - theta[2] * u[1]])


def _spiral(t, u, theta):
    import jax.numpy as jnp

    n = HIDDEN
    w1, b1 = theta[: 2 * n].reshape(n, 2), theta[2 * n : 3 * n]
    w2, b2 = theta[3 * n : 5 * n].reshape(2, n), theta[5 * n :]
    return w2 @ jnp.tanh(w1 @ u**3 + b1) + b2


def _chemistry(case):
    import jax.numpy as jnp

    terms = rate_terms(REACTIONS[case.system], case.u0.size, "theta[{}]", "u[{}]")
    return eval(f"lambda t, u, theta: stack([{', '.join(terms)}])", {"stack": jnp.stack})


SYSTEMS = {"lotka_volterra": _lotka_volterra, "spiral": _spiral}


def _make(adjoint, method, case, tol):
    compiled = _compiled(adjoint, method, case)

    def value_and_gradient(u0, theta):
        (u0_bar, theta_bar), (value, success) = compiled((u0, theta), tol)
        if not success:
            raise RuntimeError("diffeqsolve failed")
        value = 0.5 * float(value @ value) if value.ndim else float(value)
        return Gradient(value, np.asarray(u0_bar), np.asarray(theta_bar))

    return value_and_gradient


@functools.cache
def _compiled(adjoint, method, case):
    """((u0, theta), tol) -> gradient, (value, success); compiled once for all tolerances.

    With `throw=False` success is a result, which spares a callback to Python.
    """
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_platforms", "cpu")
    is_stiff = case.system in REACTIONS
    term, times = diffrax.ODETerm(_chemistry(case) if is_stiff else SYSTEMS[case.system]), jnp.asarray(case.times)
    scales = jnp.asarray(case.scales()) if is_stiff else 1.0

    def loss(u0_and_theta, tol):
        u0, theta = u0_and_theta
        controller = diffrax.PIDController(rtol=tol, atol=tol * scales)
        solver, how = getattr(diffrax, method)(), getattr(diffrax, adjoint)
        if adjoint == "BacksolveAdjoint":
            how = partial(how, solver=solver, stepsize_controller=controller)
        options = {"saveat": diffrax.SaveAt(ts=times), "stepsize_controller": controller, "max_steps": 16**4, "throw": False}
        solution = diffrax.diffeqsolve(term, solver, *case.t_span, None, u0, theta, adjoint=how(), **options)
        u = solution.ys
        if isinstance(case, ResidualCase):
            value = ((u - jnp.asarray(case.data)) / jnp.asarray(case.sigma)).ravel()
        elif is_stiff:
            value = jnp.sum(u @ jnp.asarray(case.weights))
        else:
            value = jnp.sum(u) if case.data is None else jnp.sum((u - jnp.asarray(case.data)) ** 2)
        return value, (value, solution.result == diffrax.RESULTS.successful)

    derivative = jax.jacfwd if adjoint == "ForwardMode" else jax.jacrev
    return jax.jit(derivative(loss, has_aux=True))
