"""What the backends of an ensemble share: the outcome of a call, and the blocks in which shared cotangents are summed.

A backend is made once for a problem and called many times:

    backend = ThreadEnsemble(dynamics, loss, wrt, shared, options)
    outcome = backend(u0, theta, t_span)

`u0` is (N, n), `theta` (N, m) and `t_span` (N, 2), each with a single row in place of N where all trajectories share it; `shared`
names those of "u0" and "theta" for which this is so. The backend raises for bad options only: a trajectory that fails has a status.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_MOST_BLOCKS = 1024
_LEAST_BLOCKS = 128
_PARTIAL_SUMS = 1 << 23  # entries: of large shared blocks, fewer partial sums are kept


@dataclass(eq=False)
class Outcome:
    """What a backend returns for one call.

    Attributes
    ----------
    value : (N,) array
        The losses; NaN where the trajectory failed.
    u0, theta : (N, n), (N, m) arrays or None
        Cotangents, NaN in the rows of trajectories that failed; None if not wanted. Of what is shared, sums over blocks of
        trajectories in place of N rows, without those that failed.
    status : (N,) array of int
        `adjode.Status` of each trajectory.
    work : (N, 4) or (N, 3) array of int or None
        Evaluations of f, steps accepted and rejected in the forward pass of each trajectory, where the backend counts them; and
        whether one of these steps was so short that f may have jumped there, where that is looked for.
    error : (N, 2) array or None
        Estimates of the errors of the cotangents of u0 and theta of each trajectory, see `Cotangents.error`, where they are judged.
    """

    value: np.ndarray
    u0: np.ndarray | None
    theta: np.ndarray | None
    status: np.ndarray
    work: np.ndarray | None = None
    error: np.ndarray | None = None


@dataclass(eq=False)
class States:
    """What a backend returns for forward passes alone.

    Attributes
    ----------
    states : (N, k, n) array
        At the times asked for, in the order of integration, and last at T; NaN where the trajectory failed.
    status, work
        As in `Outcome`.
    """

    states: np.ndarray
    status: np.ndarray
    work: np.ndarray | None = None


def count_rows(given: Sequence[np.ndarray], loss: Any = None) -> int:
    """N, of inputs with N rows or one, and of a loss that may have data for N."""
    members = getattr(loss, "members", None)
    return min((rows.shape[0] for rows in given if rows.shape[0] != 1), default=1) if members is None else members


def block_size(N: int, width: int) -> int:
    """How many trajectories share a partial sum of `width` entries: it depends on nothing else, so the sum has the same bits
    whatever the number of threads or machines."""
    blocks = min(_MOST_BLOCKS, max(_LEAST_BLOCKS, _PARTIAL_SUMS // max(width, 1)))
    return max(1, -(-N // blocks))


def pairwise_sum(rows: np.ndarray) -> np.ndarray:
    """The sum over the first axis, neighbours first: an order that depends on the number of rows alone."""
    while len(rows) > 1:
        odd = rows[len(rows) & ~1 :]
        rows = np.concatenate([rows[:-1:2] + rows[1::2], odd])
    return rows[0] if len(rows) else np.zeros(rows.shape[1:])
