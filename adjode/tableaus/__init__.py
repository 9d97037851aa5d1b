"""The methods by name: numbers only, one file a family."""

from __future__ import annotations

import functools

from adjode.tableaus.auto import auto
from adjode.tableaus.classical import bs3, euler, midpoint, rk4
from adjode.tableaus.dop853 import dop853
from adjode.tableaus.esdirk import kvaerno5, trbdf2
from adjode.tableaus.radau import radau
from adjode.tableaus.rk45 import rk45
from adjode.tableaus.rodas5p import rodas5p
from adjode.tableaus.tableau import ImplicitTableau, Tableau
from adjode.tableaus.tsit5 import tsit5
from adjode.tableaus.vern7 import vern7
from adjode.tableaus.vern9 import vern9

__all__ = ["METHODS", "ImplicitTableau", "Tableau", "tableau"]

METHODS = {
    "Tsit5": tsit5,
    "RK45": rk45,
    "DOP853": dop853,
    "Vern7": vern7,
    "Vern9": vern9,
    "BS3": bs3,
    "RK23": bs3,
    "RK4": rk4,
    "Midpoint": midpoint,
    "Euler": euler,
    "Radau": radau,
    "Kvaerno5": kvaerno5,
    "TRBDF2": trbdf2,
    "Rodas5P": rodas5p,
    "auto": auto,
}


@functools.cache
def tableau(method: str) -> Tableau:
    """The tableau of `method`, built and checked on first use."""
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown; choose one of {', '.join(METHODS)}")
    return METHODS[method]()
