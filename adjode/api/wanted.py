"""Which cotangents are asked for, and whether a problem has them."""

from __future__ import annotations

from collections.abc import Sequence

from adjode.model.dynamics import Dynamics

WRT = ("u0", "theta", "t0", "T", "observation_times")


def check_wrt(wrt: Sequence[str]) -> frozenset[str]:
    names = (wrt,) if isinstance(wrt, str) else tuple(wrt)
    for name in names:
        if name not in WRT:
            raise ValueError(f"wrt may hold {', '.join(map(repr, WRT))}, but {name!r} was given.")
    return frozenset(names)


def check_adjoint(dynamics: Dynamics, adjoint: str, wanted: frozenset[str]) -> None:
    """Refuse what problems with a mass matrix or with switches do not have; tell of switches that cannot be read."""
    dynamics.switches.warn(stacklevel=4)
    if adjoint == "backsolve":
        dynamics.switches.refuse("adjoint='backsolve' does not support such times: choose adjoint='discrete' or 'interpolating'")
    if dynamics.mass is None:
        return
    times = sorted(wanted - {"u0", "theta"}) if dynamics.mass.singular else []
    if times:
        raise ValueError(
            f"with a singular mass matrix f does not say how fast the algebraic components change, which the cotangents of "
            f"{', '.join(times)} need: choose wrt=('u0', 'theta') or less, with adjoint='discrete'."
        )
    if adjoint != "discrete":
        raise ValueError(f"adjoint={adjoint!r} is not available with a mass matrix: choose adjoint='discrete'.")
