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
    "jvp": ("t, u, theta, v, w, du_dot", "t, u, theta[:{m}], v, w[:{m}], du_dot"),
    "vjp_dot": (
        "t, u, theta, lam, v, w, lam_dot, u_bar_dot, theta_bar_dot",
        "t, u, theta[:{m}], lam, v, w[:{m}], lam_dot, u_bar_dot, theta_bar_dot[:{m}]",
    ),
    "f_dt": ("t, u, theta, du_dot", "t, u, theta[:{m}], du_dot"),
    "sides": ("t, u, theta, du, values", "t, u, theta[:{m}], du, values"),
    "jac": ("t, u, theta, J", "t, u, theta[:{m}], J.reshape(u.size * u.size)"),
}


def with_inflows(
    dynamics: Dynamics, states: tuple[int, ...], m: int, *, tangents: bool = False, second_order: bool = False
) -> Dynamics:
    """The dynamics whose parameters, m of them, are followed by the inflow of each of these states; itself if there are none.

    For `tangents` they have a jvp, where the dynamics have one; for `second_order` also a vjp_dot.
    """
    if not states:
        return dynamics
    more: list[str] = ["jvp"] if tangents or second_order else []
    if second_order:
        more.append("vjp_dot")
    return dynamics.once(("inflows", states, m, *more), lambda: _extended(dynamics, states, m, more))


def _extended(dynamics: Dynamics, states: tuple[int, ...], m: int, more: list[str]) -> Dynamics:
    extras = {"f": "", "vjp": "", "jvp": "", "vjp_dot": ""}
    for k, state in enumerate(states):
        column = _column_of_mass(dynamics, state)
        extras["f"] += "".join(f"    du[{i}] += {value!r} * theta[{m + k}]\n" for i, value in column)
        extras["vjp"] += f"    theta_bar[{m + k}] = {' + '.join(f'{value!r} * lam[{i}]' for i, value in column)}\n"
        extras["vjp_dot"] += f"    theta_bar_dot[{m + k}] = {' + '.join(f'{value!r} * lam_dot[{i}]' for i, value in column)}\n"
        extras["jvp"] += "".join(f"    du_dot[{i}] += {value!r} * w[{m + k}]\n" for i, value in column)
    made: dict[str, Any] = {}
    parts = [part for part in dynamics.callbacks if part.name not in ("jvp", "vjp_dot")]
    for part in [*parts, *filter(None, (getattr(dynamics, name) for name in more))]:
        arguments, given = _ARGUMENTS[part.name]
        body = f"    inner({given.format(m=m)})\n{extras.get(part.name, '')}"
        made[part.name] = make_function(part.name, arguments, body, {"inner": part.in_place})
    mass = None if dynamics.mass is None else dynamics.mass.matrix
    options: dict[str, Any] = {"jac_sparsity": dynamics.sparsity, "mass": mass, "name": dynamics.name, "fused": dynamics.fused}
    options |= {"states": None if dynamics.states is None else dynamics.states.shapes, "breaks": (), "debug": dynamics.debug}
    extended = Dynamics(**made, **options)
    for name in ("f_dt", "sides"):  # read of the source of f, which that around it does not show
        part = getattr(dynamics, name)
        setattr(extended, name, _with_room(part, m, dynamics.debug) if isinstance(part, Callback) else part)
    return extended


def _column_of_mass(dynamics: Dynamics, state: int) -> list[tuple[int, float]]:
    """What an inflow of 1 into a state adds to f: rows, and entries there."""
    if dynamics.mass is None:
        return [(state, 1.0)]
    column = dynamics.mass.matrix[:, [state]].toarray()[:, 0]
    return [(int(i), float(column[i])) for i in column.nonzero()[0]]


def _with_room(part: Callback, m: int, debug: bool) -> Callback:
    """What inflows leave as it is."""
    arguments, given = _ARGUMENTS[part.name]
    body = f"    inner({given.format(m=m)})\n"
    return callback(part.name, make_function(part.name, arguments, body, {"inner": part.in_place}), debug)
