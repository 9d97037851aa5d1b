"""What passes have in their frames that walk over recorded steps, backwards or with tangents, and choose none themselves."""

from __future__ import annotations

import numpy as np

from adjode.compile import slots
from adjode.compile.frame import Frame
from adjode.passes.base import put_method
from adjode.tableaus import Tableau


def put_replay(frame: Frame, tableau: Tableau, kind: int, n: int) -> None:
    """Fill the slots of the method, of a quadrature rule, of counts, and of the stages of one step."""
    rows = len(tableau.A)
    put_method(frame, tableau, kind)
    frame[slots.SETTING] = slots.SETTING.fill(
        last_stage=tableau.stages,
        top=rows - 1,
        adaptive=0,
        dense=0,
        record=0,
        rule=kind,
        integrand_free=0,
        filtered=0,
        centred=tableau.centred,
        judged=False,
    )
    frame[slots.COUNT] = slots.COUNT.zeros()
    frame[slots.CLOCK], frame[slots.PLACE] = slots.CLOCK.zeros(), slots.PLACE.zeros()
    frame[slots.STAGES] = np.zeros((1, rows, n))
