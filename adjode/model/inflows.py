"""Dynamics with inflows: further entries of theta that f adds to slopes, for what enters at a rate while an infusion lasts."""

from __future__ import annotations

from typing import Any

from adjode.compile.adapters import make_function
from adjode.model.callbacks import Callback, callback
from adjode.model.dynamics import Dynamics

_ARGUMENTS = {
    "f": ("t, u, theta, du", "t, u, theta[:{m}], du"),
    "vjp": ("t, u, theta, lam, u_bar, theta_bar", "t, u, theta[:{m}], lam, u_bar, theta_bar[:{m}]"),
    "vjp_u": ("t, u, theta, lam, u_bar", "t, u, theta[:{m}], lam, u_bar"),
    "jac": ("t, u, theta, J", "t, u, theta[:{m}], J.reshape(u.size * u.size)"),
}


def with_inflows(dynamics: Dynamics, states: tuple[int, ...], m: int) -> Dynamics:
    """The dynamics whose parameters, m of them, are followed by the inflow of each of these states; itself if there are none.

    Raises
    ------
    ValueError
        If the dynamics have a mass matrix.
    """
    return dynamics.once(("inflows", states, m), lambda: _extended(dynamics, states, m)) if states else dynamics


def _extended(dynamics: Dynamics, states: tuple[int, ...], m: int) -> Dynamics:
    if dynamics.mass is not None:
        raise ValueError(
            "dynamics with a mass matrix take no doses over a duration: give them at once, or write the inflow into f."
        )
    extras = {
        "f": "".join(f"    du[{state}] += theta[{m + k}]\n" for k, state in enumerate(states)),
        "vjp": "".join(f"    theta_bar[{m + k}] = lam[{state}]\n" for k, state in enumerate(states)),
    }
    made: dict[str, Any] = {}
    for part in dynamics.callbacks:
        arguments, given = _ARGUMENTS[part.name]
        body = f"    inner({given.format(m=m)})\n{extras.get(part.name, '')}"
        made[part.name] = make_function(part.name, arguments, body, {"inner": part.in_place})
    options: dict[str, Any] = {"jac_sparsity": dynamics.sparsity, "name": dynamics.name, "fused": dynamics.fused}
    extended = Dynamics(
        **made, **options, states=None if dynamics.states is None else dynamics.states.shapes, debug=dynamics.debug
    )
    extended.f_dt = _with_room(dynamics.f_dt, m, dynamics.debug)
    return extended


def _with_room(f_dt: Callback | str | None, m: int, debug: bool) -> Callback | str | None:
    """The derivative of f by time, which inflows leave as it is."""
    if not isinstance(f_dt, Callback):
        return f_dt
    body = f"    inner(t, u, theta[:{m}], du_dot)\n"
    return callback("f_dt", make_function("f_dt", "t, u, theta, du_dot", body, {"inner": f_dt.in_place}), debug)
