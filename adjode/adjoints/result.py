"""What a backward pass returns, the work it counts, and what a callback raised in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adjode.model.callbacks import Callback
from adjode.solution import DenseOutput, Solution


@dataclass
class PullbackStats:
    """Work of a pullback: evaluations of each callback, steps of the backward pass, drift of a backsolve in tolerances.

    For implicit methods also Jacobians, whose rows are among the evaluations, factorisations (real and complex ones alike), and
    iterations: of Newton, or for the discrete adjoint of GMRES.
    """

    n_f: int = 0
    n_vjp: int = 0
    n_vjp_u: int = 0
    n_g: int = 0
    n_g_vjp: int = 0
    n_steps: int = 0
    n_rejected: int = 0
    drift: float | None = None
    n_jac: int = 0
    n_lu: int = 0
    n_newton: int = 0


@dataclass(frozen=True, eq=False)
class EnsembleStats:
    """How each of N trajectories went: its `Status`, and in the forward pass evaluations of f, steps accepted and rejected.

    Attributes
    ----------
    status : (N,) array of int
        0 for success.
    n_f, n_steps, n_rejected : (N,) arrays of int, or None where they are not counted
    """

    status: np.ndarray
    n_f: np.ndarray | None = None
    n_steps: np.ndarray | None = None
    n_rejected: np.ndarray | None = None

    @property
    def n_failed(self) -> int:
        return int(np.count_nonzero(self.status))


@dataclass(frozen=True, eq=False)
class SweepResult:
    lam: np.ndarray  # at t0+, before what was observed at t0
    theta_bar: np.ndarray
    running_cost: float
    adjoint: DenseOutput | None


def find_cause(
    solution: Solution, cost: tuple[Callback, Callback] | None, places: list[tuple[float, np.ndarray]]
) -> Exception | None:
    """The exception that one of the callbacks raises at one of the `places` (t, lam)."""
    callbacks = [solution.dynamics.vjp, solution.dynamics.vjp_u, solution.dynamics.jac, solution.dynamics.f, *(cost or ())]
    for t, lam in places:
        inputs = {"u": solution(t), "theta": solution.theta, "lam": lam}
        for callback in filter(None, callbacks):
            cause = callback.reproduce_error(t, *callback.arguments(inputs))
            if cause is not None:
                return cause
    return None
