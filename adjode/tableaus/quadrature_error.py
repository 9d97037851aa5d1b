"""What the stages of a transposed step say of theta_bar as a quadrature, at no further evaluation.

The stages of the discrete adjoint are nodes of a quadrature of theta_bar, with integrand lam . df/dtheta. How rough that is shows
in sums of their parts p_i, with weights e that annihilate elementary differentials up to an order q (see adjoint_error.py): the
ratio |sum e_i p_i| / sum |p_i| is of order h^q, and a power of it is the error of the rule, as a part of the integral of the step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from adjode.tableaus.order_conditions import differentials, null_space

_HIGHEST = 6  # q: the conditions for more leave no weights
_PHASES = np.linspace(0.5, 6.3, 117)  # y, of integrands exp(i y x) in a step 0 <= x <= 1: from smooth ones to one turn
_RANK = 1e-8
_RESOLVED = 0.1  # of the integrand of a step, an error where just so much is resolved
_NEAR = 3  # powers of time that a slope is extrapolated by
_WORSE = 150.0, 12.0  # times the error where integrands vary like u and lam: one that these do not explain
_FEWEST = 3  # q that this is taken for at least: the ratios of lower ones say too little


@dataclass(frozen=True, eq=False)
class QuadratureError:
    """
    Attributes
    ----------
    weights : (2, rows) array
        e, without the first stage, which is pulled back with the step before, and with it; at most 1; zeros if there are none.
    halves, factor : int, float
        The error is `factor * ratio**(halves / 2)` of the integrand.
    excess : (2,) array
        How many times the ratio of u and lam that of the integrand may be; and where it has been more already.
    slopes : (rows, rows) array
        Increments h K_i of the state, by the stages whose weights are not zero, from the states of all stages less the first.
    sampled : bool
        Whether second differences of samples at the ends of steps take the place of e, which finds the last stage then, since
        there are no weights with q > 1. See adjoints/samples.py.
    """

    weights: np.ndarray
    halves: int
    factor: float
    excess: np.ndarray
    slopes: np.ndarray
    sampled: bool = False

    @property
    def for_kernels(self) -> tuple[np.ndarray, ...]:
        resolved = (_RESOLVED / self.factor) ** (2.0 / self.halves) if self.halves > 0 else math.inf
        return self.weights, self.slopes, np.array([self.halves, self.factor, *self.excess, resolved])


def quadrature_error(A: np.ndarray, c: np.ndarray, stages: int, order: int) -> QuadratureError:
    """For a method of this order; see `Tableau` for A, c and `stages`."""
    b = np.zeros(len(A))
    b[: stages + 1] = A[stages, : stages + 1]
    (inner, q), (whole, _) = (_weights(A, c, b, stages, first) for first in (1, 0))
    weights = np.array([inner, whole if q else inner])
    if q < 2:
        return _by_samples(c, b, stages, order)
    halves = round(2 * (order + 1) / (q + 1))
    rule, live = np.exp(1j * np.outer(_PHASES, c)) * b, inner != 0.0
    ratio = np.abs(rule @ inner) / np.abs(b[live]).sum()
    factor = _factor(rule, ratio, halves)
    excess = np.array(_WORSE) ** ((max(q, _FEWEST) + 1) / (order + 1))
    return QuadratureError(weights, halves, factor, excess, _slopes(A, c, stages, (weights != 0.0).any(axis=0)))


def _by_samples(c: np.ndarray, b: np.ndarray, stages: int, order: int) -> QuadratureError:
    """The ratio of a second difference is of order h^2."""
    rule, excess = np.exp(1j * np.outer(_PHASES, c)) * b, np.array(_WORSE) ** (2 / order)
    factor, rows = _factor(rule, 2.0 - 2.0 * np.cos(_PHASES), order), len(b)
    return QuadratureError(np.eye(rows)[[stages, stages]], order, factor, excess, np.zeros((rows, rows)), sampled=True)


def _factor(rule: np.ndarray, ratio: np.ndarray, halves: int) -> float:
    """What makes errors of these ratios, in the mean over the phases; `rule` has a row of the parts of the stages for each."""
    error = np.abs(rule.sum(axis=1) - (np.exp(1j * _PHASES) - 1.0) / (1j * _PHASES))
    return float(np.exp(np.median(np.log(error / ratio ** (halves / 2)))))


def no_quadrature_error(rows: int) -> QuadratureError:
    """Where nothing can be told."""
    return QuadratureError(np.zeros((2, rows)), 0, 0.0, np.zeros(2), np.zeros((rows, rows)))


def _weights(A: np.ndarray, c: np.ndarray, b: np.ndarray, stages: int, first: int) -> tuple[np.ndarray, int]:
    """Those of the highest q that respond to the next power of time, and that q."""
    weights, found, use = np.zeros(len(A)), 0, b != 0.0
    use[:first] = False
    use[stages] &= not b[0]  # or it is pulled back with the first stage of the step behind
    for q in range(1, _HIGHEST + 1 if use.any() else 0):
        null = null_space(np.vstack(differentials(A, b[None], q))[:, use])
        responses = null @ (b * c**q)[use]
        if not (responses.size and np.abs(responses).max() > _RANK):
            break
        weights[use], found = null.T @ responses, q
    return weights / (np.abs(weights).max() or 1.0), found


def _slopes(A: np.ndarray, c: np.ndarray, stages: int, needed: np.ndarray) -> np.ndarray:
    """What makes slopes of states. A first slope that is not among those is extrapolated from the others."""
    states, slopes, units = A[1 : stages + 1, : stages + 1].copy(), np.zeros(A.shape), np.eye(stages + 1)
    if A[1, 1] != 0.0:
        nodes = np.vander(c[1 : stages + 1], min(_NEAR, stages), increasing=True)
        first = np.linalg.lstsq(nodes.T, units[0, : nodes.shape[1]], rcond=None)[0]  # the least of those that are right for these
        states[:, 1:] += np.outer(states[:, 0], first)
        states[:, 0], units[1:, 0] = 0.0, first
    places = np.flatnonzero(needed)
    slopes[places, 1 : stages + 1] = np.linalg.lstsq(states.T, units[:, places], rcond=1e-13)[0].T
    return slopes
