"""What passes have in their frames that walk over recorded steps, backwards or with tangents, and choose none themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from adjode.compile import slots
from adjode.compile.frame import Frame
from adjode.passes.base import Pass, put_method
from adjode.passes.trajectory import Trajectory
from adjode.tableaus import Tableau


class Replay(Pass):
    """A pass along the steps of a trajectory."""

    _followed: tuple[Any, ...] = (None, None, None)

    def follow(self, trajectory: Trajectory, count: np.ndarray) -> None:
        """Run along this trajectory; `count` has the STEPS in it, and EARLIER ones, which are asked for where it begins."""
        followed = trajectory.t, trajectory.jumps.t, count  # the arrays of either store are made anew all together
        if all(one is other for one, other in zip(followed, self._followed, strict=True)):
            return
        trajectory.put_forward(self.frame)
        self.frame[slots.FORWARD_COUNT] = count
        self._followed = followed

    def follow_on(self, trajectory: Trajectory, count: np.ndarray) -> None:
        """The same where EARLIER steps have been asked for and are at hand now."""
        self.follow(trajectory, count)


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
