"""Which entries the data determine: directions that the residuals do not see, and profiles that do not close.

A. Raue et al. (2009), Bioinformatics 25, 1923-1929: structurally not identifiable are entries along whose profile the loss does not
rise, practically not those whose profile stays below the threshold on a side. Here the former are found by the Jacobian alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adjode.frontends.frames import data_frame
from adjode.frontends.least_squares import Fitted
from adjode.frontends.profile import Others, Profile, profile
from adjode.frontends.starts import StartOptions
from adjode.frontends.uncertainty import ACCURACY, Uncertainty, decomposed, takes_part

if TYPE_CHECKING:
    import pandas

IDENTIFIABLE, PRACTICALLY_NOT, STRUCTURALLY_NOT = "identifiable", "practically not", "structurally not"


@dataclass(frozen=True, eq=False, repr=False)
class Identifiability:
    """A verdict for each entry; `str()` gives a table.

    Attributes
    ----------
    verdicts : dict of name -> str
        "identifiable", "practically not" or "structurally not".
    directions : (d, k) array
        Directions along which the residuals do not change, to first order, on the scale of the fit.
    profile : Profile or None
        The profile of the entries that are not "structurally not".
    """

    verdicts: dict[str, str]
    directions: np.ndarray
    profile: Profile | None

    def __str__(self) -> str:
        rows = [("entry", "identifiable?", "" if self.profile is None else f"{100 * self.profile.level:g}% interval")]
        for name, verdict in self.verdicts.items():
            ends = "" if self.profile is None or name not in self.profile.intervals else self.profile.shown(name)[1]
            rows.append((name, verdict, ends))
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return "\n".join(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}".rstrip() for row in rows)

    def __repr__(self) -> str:
        return f"Identifiability({self.verdicts})"

    def to_frame(self) -> pandas.DataFrame:
        """A row for each entry: its verdict, and the ends of its interval."""
        known = {} if self.profile is None else self.profile.intervals
        ends = np.array([known.get(name, (np.nan, np.nan)) for name in self.verdicts])
        columns = {"verdict": list(self.verdicts.values()), "low": ends[:, 0], "high": ends[:, 1]}
        return data_frame(columns, list(self.verdicts), "entry")


def identifiability(
    fit: Fitted, x: np.ndarray, rates: np.ndarray, level: float, absolute_sigma: bool, rtol: float, how: StartOptions
) -> Identifiability:
    """The verdicts at a minimum x (k,); `rates` say which entries are logarithms, see `Entries`."""
    r, J = fit.evaluate_residuals(x)
    sizes, singular, V = decomposed(J)
    directions = V[singular <= max(rtol, ACCURACY) * singular[0]]
    structural: np.ndarray = np.zeros(x.size, dtype=bool)
    if len(directions):
        structural |= takes_part(directions).any(axis=0)
    names = [name for name, part in zip(fit.names, structural, strict=True) if not part]
    found = None
    if names:
        rest = Others(fit, _chosen(directions, x.size), x)
        at = rest.x0, rates[rest.free], (r, J[:, rest.free]), _no_push
        found = profile(rest, Uncertainty.at_minimum(rest, *at, absolute_sigma, rtol), names, level, how)
    verdicts = dict.fromkeys(fit.names, STRUCTURALLY_NOT)
    for name in names:
        assert found is not None
        verdicts[name] = IDENTIFIABLE if found.is_closed[name] else PRACTICALLY_NOT
    return Identifiability(verdicts, directions / sizes, found)


def _chosen(directions: np.ndarray, k: int) -> np.ndarray:
    """As many entries as there are open directions, a mask (k,): held, they leave none open."""
    from scipy import linalg

    held = np.zeros(k, dtype=bool)
    if len(directions):
        _, _, order = linalg.qr(directions, mode="economic", pivoting=True)
        held[order[: len(directions)]] = True
    return held


def _no_push(times: Any, experiment: str | None) -> Any:
    raise ValueError("there are no predictions for part of a fit.")
