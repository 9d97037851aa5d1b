"""auto: Tsit5, and Radau where the problem is stiff."""

from dataclasses import replace

import numpy as np

from adjode.tableaus.radau import radau
from adjode.tableaus.tableau import Tableau
from adjode.tableaus.tsit5 import tsit5


def auto() -> Tableau:
    """The numbers of Tsit5, with those of Radau beside them, whose dense output has a zero power more than it needs."""
    explicit, stiff = tsit5(), radau()
    more = explicit.P.shape[1] - stiff.P.shape[1]
    return replace(explicit, name="auto", family="auto", partner=replace(stiff, P=np.pad(stiff.P, ((0, 0), (0, more)))))
