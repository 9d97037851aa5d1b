"""auto: Tsit5, and Radau where the problem is stiff."""

from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np

from adjode.tableaus.radau import radau
from adjode.tableaus.tableau import Tableau
from adjode.tableaus.tsit5 import tsit5


@dataclass(frozen=True, eq=False)
class SwitchingTableau(Tableau):
    """An explicit method, and beside it the implicit one whose steps are taken where the problem is stiff, its `partner`."""

    family: ClassVar[str] = "auto"
    implicit: ClassVar[bool] = True


def auto() -> SwitchingTableau:
    """The numbers of Tsit5, with those of Radau beside them, whose dense output has a zero power more than it needs."""
    explicit, stiff = tsit5(), radau()
    more = explicit.P.shape[1] - stiff.P.shape[1]
    partner = replace(stiff, P=np.pad(stiff.P, ((0, 0), (0, more))))
    numbers = {field.name: getattr(explicit, field.name) for field in fields(explicit)}
    return SwitchingTableau(**numbers | {"name": "auto", "partner": partner})
