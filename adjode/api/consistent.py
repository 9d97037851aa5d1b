"""`consistent_initial`: an initial state that satisfies the algebraic equations of a problem with a singular mass matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from adjode.api.first_calls import Part, backward_parts, try_at_start
from adjode.checks import float_vector, positive, relative_tolerance
from adjode.linalg.mass import Mass
from adjode.model.dynamics import Dynamics
from adjode.status import HIGH_INDEX, NON_FINITE, SolveError, Status, solve_error

_MOST = 50  # iterations


def consistent_initial(dynamics: Dynamics, u0: Any, theta: Any, t0: float = 0.0, *, rtol: float = 1e-9, atol: float = 1e-12) -> Any:
    """Solve the algebraic equations of `M du/dt = f(t, u, theta)` for the algebraic components of u0, without changing M u0.

    Parameters
    ----------
    dynamics : Dynamics
        Must have a mass matrix.
    u0 : (n,) array, dict of named scalars or arrays, or structured scalar
        The differential components, and a guess of the algebraic ones.
    theta : (m,) array, dict or structured scalar
    t0 : float
    rtol, atol : float
        Newton's iteration ends with a correction of at most atol + rtol |u|, so the result has about twice as many correct digits.

    Returns
    -------
    array, or the form of u0

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid.
    SolveError
        If the algebraic equations do not determine the algebraic components, or Newton's iteration does not converge from here.
    """
    mass = dynamics.mass
    if mass is None:
        raise ValueError("these dynamics have no mass matrix, so every u0 is consistent: give Dynamics a mass.")
    layouts = dynamics.layouts(u0, theta)
    u, parameters = layouts[0].flatten("u0", u0), layouts[1].flatten("theta", theta)
    t, rtol, atol = float(float_vector("t0", t0, 1)[0]), relative_tolerance("rtol", rtol), positive("atol", atol, allow_zero=True)
    dynamics.require_order(*layouts)
    mass.require_size(u.size)
    try_at_start(dynamics, [Part(dynamics.f), *backward_parts(dynamics, wants_theta=False)], t, u, parameters)
    for _ in range(_MOST):
        change = _correction(dynamics, mass, t, u, parameters)
        u += change
        if (abs(change) <= atol + rtol * abs(u)).all():
            return layouts[0].unflatten(u)
    worst = int(np.argmax(abs(change)))
    name = layouts[0].entry_names()[worst]
    raise SolveError(
        f"Newton's iteration for a consistent initial state has not converged after {_MOST} iterations, and {name} changes by "
        f"{change[worst]:.3g} still: start from a closer guess.",
        phase="forward",
        status=Status.INCONSISTENT,
        t=t,
        component=dynamics.entry("u", worst)["component"],
    )


def _correction(dynamics: Dynamics, mass: Mass, t: float, u: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """One correction of Newton's: M change = 0 and N^T J change = -N^T f, both in one system since M maps to what N leaves out."""
    from scipy import sparse
    from scipy.sparse.linalg import splu

    arguments = dynamics.f.arguments({"u": u, "theta": theta})
    dynamics.f(t, *arguments)
    f = arguments[-1]
    rows = []
    for k in range(mass.null.shape[0]):
        arguments = dynamics.vjp.arguments({"u": u, "theta": theta, "lam": mass.null[[k]].toarray()[0]})
        dynamics.vjp(t, *arguments)
        rows.append(sparse.csr_array(arguments[3][None]))
    slopes = sparse.vstack(rows) if rows else sparse.csr_array((0, mass.n))
    if not (np.isfinite(f).all() and np.isfinite(slopes.data).all()):
        raise solve_error(NON_FINITE, phase="forward", t=t, callback="f or vjp")
    try:
        change = splu(sparse.csc_array(mass.matrix + mass.null.T @ slopes)).solve(-mass.algebraic_part(f))
    except RuntimeError:  # exactly singular
        change = np.full(mass.n, np.nan)
    if not np.isfinite(change).all():
        raise solve_error(HIGH_INDEX, phase="forward", t=t)
    return change
