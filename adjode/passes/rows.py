"""`Rows`: cotangents of what is observed pulled back along one forward pass, again and again: rows of a Jacobian.

By one such row it is judged, too, whether the steps serve all tangents along them: these are the dual of the discrete adjoint, to
rounding, so that what this knows of its error for a cotangent w is the error of w . J, however J is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from adjode.compile import slots
from adjode.linalg.structure import Structure
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics
from adjode.model.losses import Probing, Residuals
from adjode.passes.discrete import Discrete, jumps_at_start
from adjode.passes.forward import Forward
from adjode.passes.jumps import Jumps
from adjode.passes.options import SolveOptions
from adjode.passes.program import Program
from adjode.status import REFINE, SUCCESS


def probe(rows: int, columns: int) -> np.ndarray:
    """Cotangents that see every entry: uneven, and of one sign in each column, so that what is seen more than once adds up."""
    uneven = 0.75 + 0.5 * np.modf(0.618 * np.arange(rows * columns))[0].reshape(rows, columns)
    return uneven * np.where(np.arange(columns) % 2 == 0, 1.0, -1.0)


class Rows:
    """
    Parameters
    ----------
    dynamics, options, structure, theta, jumps
        Of the forward pass; `theta` (m + inflows,) is read whenever a row is computed.
    forward : Forward
        Which records the states of the stages, and observes.
    times : (c,) array
        When, in the order of integration.
    m : int
        How many entries of theta are the user's.
    wants_theta : bool
    on_inaccurate : str
        See `adjode.api.pullback.pullback`.
    cost : pair of Callbacks, optional
        A running cost, for which the forward pass keeps its dense output too.

    Attributes
    ----------
    backward : Discrete
    bars : (c, n) array
        The cotangents that are pulled back.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        options: SolveOptions,
        structure: Structure | None,
        forward: Forward,
        theta: np.ndarray,
        times: np.ndarray,
        m: int,
        *,
        wants_theta: bool,
        on_inaccurate: str,
        jumps: Jumps,
        cost: tuple[Callback, Callback] | None = None,
    ):
        n = forward.y.size
        self._forward, self._m, self.bars = forward, m, np.zeros((times.size, n))
        seeds = np.zeros(n), times, self.bars
        how: Any = {"wants_theta": wants_theta, "recorded": cost is None, "on_inaccurate": on_inaccurate, "jumps": jumps}
        how["max_seconds"] = options.max_seconds
        self.backward = Discrete(dynamics, options, structure, forward.span, theta, *seeds, cost=cost, **how)
        forward.limit_by(self.backward.frame)
        forward.measure_for(self.backward.frame)
        self.backward.share_watch(forward.watch)
        self.backward.follow(forward.trajectory, forward.count)
        self._program = Program(backward=self.backward, goes_on=True)

    def pull(self, u_bars: np.ndarray) -> int:
        """Pull cotangents (c, n) of the states at the times back; the status, REFINE where the solve is to take shorter steps."""
        self.bars[:] = u_bars
        self.backward.follow(self._forward.trajectory, self._forward.count)
        return self._program.run()

    @property
    def row(self) -> np.ndarray:
        """The cotangents of u0 and theta, (n + m,), that the last `pull` has found."""
        forward, lam, found = self._forward, self.backward.lam.copy(), self.backward.theta_bar[: self._m]
        if not jumps_at_start(forward.trajectory.kinds):
            lam += self.bars[forward.frame[slots.TIMES] == forward.t_start].sum(axis=0)
        return np.concatenate([lam, found if found.size else np.zeros(self._m)])

    def jacobian(self, residuals: Residuals, probing: Probing) -> tuple[int, np.ndarray]:
        """The derivatives (N, n + m) of N residuals, and the status; `probing` is theirs, and writes to `bars`.

        The steps have been judged before, by all of them together: one that hardly changes need not be as exact by itself.
        """
        trust, J, status = self.backward.trust, np.empty((residuals.count, self.bars.shape[1] + self._m)), SUCCESS
        most = trust[slots.MOST]
        trust[slots.MOST] = math.inf
        try:
            for k in range(residuals.count):
                status, theta_bar = residuals.pull(probing, k)
                if status != SUCCESS or (status := self.pull(self.bars)) != SUCCESS:
                    break
                J[k] = self.row
                J[k, J.shape[1] - self._m :][: theta_bar.size] += theta_bar
        finally:
            trust[slots.MOST] = most
        return status, J


def solve_until_served(solving: Program, judge: Callable[[], int]) -> int:
    """Run a forward pass, and again with shorter steps while `judge() -> status` asks for them; the status of what ran last."""
    status = solving.run()
    while status == SUCCESS:
        status = judge()
        if status != REFINE:
            break
        status = solving.run(again=True)
    return status
