"""Dynamics with inflows: further entries of theta that f adds to slopes, for what enters at a rate while an infusion lasts."""

from __future__ import annotations

from typing import Any

from adjode.compile.adapters import make_function
from adjode.model.dynamics import Dynamics

_ARGUMENTS = {
    "f": ("t, u, theta, du", "t, u, theta[:{m}], du"),
    "vjp": ("t, u, theta, lam, u_bar, theta_bar", "t, u, theta[:{m}], lam, u_bar, theta_bar[:{m}]"),
    "vjp_u": ("t, u, theta, lam, u_bar", "t, u, theta[:{m}], lam, u_bar"),
    "jvp": ("t, u, theta, v, w, du_dot", "t, u, theta[:{m}], v, w[:{m}], du_dot"),
    "jac": ("t, u, theta, J", "t, u, theta[:{m}], J.reshape(u.size * u.size)"),
}


def with_inflows(dynamics: Dynamics, states: tuple[int, ...], m: int, *, tangents: bool = False) -> Dynamics:
    """The dynamics whose parameters, m of them, are followed by the inflow of each of these states; itself if there are none.

    For `tangents` they have a jvp, where the dynamics have one.

    Raises
    ------
    ValueError
        If the dynamics have a mass matrix.
    """
    if not states:
        return dynamics
    return dynamics.once(("inflows", states, m, tangents), lambda: _extended(dynamics, states, m, tangents))


def _extended(dynamics: Dynamics, states: tuple[int, ...], m: int, tangents: bool) -> Dynamics:
    if dynamics.mass is not None:
        raise ValueError(
            "dynamics with a mass matrix take no doses over a duration: give them at once, or write the inflow into f."
        )
    extras = {
        "f": "".join(f"    du[{state}] += theta[{m + k}]\n" for k, state in enumerate(states)),
        "vjp": "".join(f"    theta_bar[{m + k}] = lam[{state}]\n" for k, state in enumerate(states)),
        "jvp": "".join(f"    du_dot[{state}] += w[{m + k}]\n" for k, state in enumerate(states)),
    }
    made: dict[str, Any] = {}
    jvp = [dynamics.jvp] if tangents and dynamics.jvp is not None else []
    for part in [*(one for one in dynamics.callbacks if one.name != "jvp"), *jvp]:
        arguments, given = _ARGUMENTS[part.name]
        body = f"    inner({given.format(m=m)})\n{extras.get(part.name, '')}"
        made[part.name] = make_function(part.name, arguments, body, {"inner": part.in_place})
    options: dict[str, Any] = {"jac_sparsity": dynamics.sparsity, "name": dynamics.name, "fused": dynamics.fused}
    return Dynamics(**made, **options, states=None if dynamics.states is None else dynamics.states.shapes, debug=dynamics.debug)
