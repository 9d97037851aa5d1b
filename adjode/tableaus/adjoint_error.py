"""Error weights of transposed steps: what the stages of a discrete adjoint say of its error, at no further evaluation.

The transpose of a Runge-Kutta step is a Runge-Kutta step of the adjoint equation: with the cotangents w_i of the slopes, the stages
give J_i^T w_i, and lam after the step is lam plus their sum (Hager 2000, Numer. Math. 87, 247-282). Weights d that annihilate its
elementary differentials up to some order q leave sum_i d_i J_i^T w_i of order h^(q+1): an error estimate, as that of an embedded
solution is. The elementary differentials are those of a tree whose trunk runs through J^T, and whose branches are those of the
forward step, which vary J.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from adjode.tableaus.order_conditions import differentials, null_space

_HIGHEST = 4  # embedded order: the conditions for more leave no weights, and take long to find that out
_TYPICAL = 1e-8  # the relative error of a step at which powers that do not quite match are made to agree
_RANK = 1e-8
_RAISED = 1  # more powers need a better frozen matrix, fewer see too little of what decays fast
_SEEN = 0.5  # of a decay, at least
_LONG = 6.0  # h times the rate of a step somewhat longer than stability allows


@dataclass(frozen=True, eq=False)
class AdjointError:
    """
    Attributes
    ----------
    weights : (rows,) array
        d, normalised to sum_i d_i J_i^T w_i = (h J^T)^(q+1) lam for constant J; zeros if there are none.
    order : int
        q + 1.
    halves, factor : int, float
        `factor * ratio**(halves / 2)` is the relative error of the step itself, for the ratio of the estimate and lam: that of a
        lower order, to the power that makes it one of the method's.
    step : (2, rows) array
        Of an implicit method: the weights of the stages in place of d, for cotangents of slopes in place of J_i^T w_i; and those
        whose product with the weights of the dense output is its first term in h J^T that need not be right. Empty for others.
    raised : int
        By how many powers of h J^T the sum over its stages is raised.
    by_lam : float
        The factor of (h J^T)^(p+1) lam that is its error, where lam is what it is found by.
    """

    weights: np.ndarray
    order: int = 1
    halves: int = 0
    factor: float = 0.0
    step: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    raised: int = 0
    by_lam: float = 0.0


def adjoint_error(A: np.ndarray, P: np.ndarray, stages: int, order: int) -> AdjointError:
    """The weights of highest order for an explicit method; see `Tableau` for A, P and `stages`.

    They are those of the inner stages, 1 to s - 1: the first and the last are pulled back with other steps. Cotangents of states
    inside a step enter by the weights P of its dense output: of these the estimate is free to one order less.
    """
    b = np.zeros(len(A))
    b[: stages + 1] = A[stages, : stages + 1]
    inner, weights, found = slice(1, stages), np.zeros(len(A)), 0
    of_lam, of_seeds = (differentials(A, seeds, _HIGHEST) for seeds in (b[None], P.T))
    talls = _tall_trees(A, b, max(stages, order + 1))
    for q in range(1, _HIGHEST + 1 if stages > 1 else 0):
        null = null_space(np.vstack([*of_lam[:q], *of_seeds[: q - 1 or 1]])[:, inner])
        responses = null @ talls[q:, inner].T  # to h J^T to the powers q + 1 and more
        if null.size and np.abs(responses[:, 0]).max() > _RANK * np.abs(talls[q]).max():
            weights[inner], found = null.T @ _combination(responses), q + 1
    if not found:
        return AdjointError(weights)
    weights[np.abs(weights) < _RANK * np.abs(weights).max()] = 0.0  # rounding, which would cost as much as any other
    constant = abs(talls[order].sum() - 1.0 / math.factorial(order + 1))
    return AdjointError(weights, found, *_as_error_of_step(constant, order, found))


def implicit_adjoint_error(A: np.ndarray, order: int, dense_order: int) -> AdjointError:
    """What steppers/transposed_error.py finds the error R(z) - exp(z) of a transposed implicit step by."""
    b, powers = A[-1], [np.ones(len(A))]
    for _ in range(max(order, dense_order)):
        powers.append(A @ powers[-1])
    constant = float(b @ powers[order]) - 1.0 / math.factorial(order + 1)
    weights, found = _stage_sum(A, order)
    z, gamma = -np.logspace(-1.0, 1.5, 51), _real_pole(A)
    exact = np.array([1.0 + x * (b @ np.linalg.solve(np.eye(len(A)) - x * A, powers[0])) for x in z]) - np.exp(z)
    sums = np.array([weights @ np.linalg.solve(np.eye(len(A)) - x * A.T, b) for x in z])
    damp = 1.0 / (1.0 - gamma * z)
    halves = round(2 * (order + 1) / (found + 1 + _RAISED))
    by_stages = constant * np.abs(z * sums * (z * damp) ** _RAISED * damp) ** (halves / 2)
    by_lam = constant * (z * damp) ** (order + 1) * damp
    # estimates for short steps are made too large by what those for long ones are too small, each by the root of their ratio
    of_stages, of_lam = (math.sqrt(np.abs(exact / estimate).max()) for estimate in (by_stages, by_lam))
    return AdjointError(
        np.zeros(len(A)),
        order=found + 1 + _RAISED,
        halves=halves,
        factor=abs(constant) * of_stages,
        step=np.array([weights, powers[dense_order]]),
        raised=_RAISED,
        by_lam=constant * of_lam,
    )


def _stage_sum(A: np.ndarray, order: int) -> tuple[np.ndarray, int]:
    """Weights of implicit stages, normalised to sum_i d_i w_i = (h J^T)^(q-1) h lam for constant J, of the highest q, and that."""
    weights, found, b, stages = np.zeros(len(A)), 0, A[-1], slice(1, len(A))
    of_lam, talls = differentials(A, b[None], order), _tall_trees(A, b, order + 1)
    for q in range(1, order + 1):
        null = null_space(np.vstack(of_lam[:q])[:, stages])
        responses = null @ talls[q, stages]
        if responses.size and np.abs(responses).max() > _RANK * np.abs(talls[q]).max():
            weights[stages], found = null.T @ responses / (responses @ responses), q
    return weights, found


def _real_pole(A: np.ndarray) -> float:
    """gamma, for which R has a pole at 1 / gamma."""
    values = np.linalg.eigvals(A[1:, 1:])
    return float(values[np.argmin(np.abs(values.imag))].real)


def _tall_trees(A: np.ndarray, b: np.ndarray, powers: int) -> np.ndarray:
    """The weights of the stages in so many powers of h J^T, from the first on."""
    rows = [b]
    for _ in range(powers - 1):
        rows.append(A.T @ rows[-1])
    return np.array(rows)


def _combination(responses: np.ndarray) -> np.ndarray:
    """Of weights that respond with 1 to the lowest power, the least; or, if these overlook some decay within the step, others.

    For u' = z u the estimate of others is to respond like (1 - 2 z)^2 times the lowest power, as far as it can: the more
    decays within the step, the more of it is seen. So it is for the least weights of methods of lower order.
    """
    first, z = responses[:, 0], np.linspace(-_LONG, 0.0, 61)
    seen = np.polynomial.polynomial.polyval(z, responses.T)  # a row for each of the weights
    least = first / (first @ first)
    if (least @ seen).min() > _SEEN:
        return least
    nearest = np.linalg.lstsq(seen.T, (1.0 - 2.0 * z) ** 2, rcond=1e-10)[0]
    return nearest / (first @ nearest)


def _as_error_of_step(constant: float, order: int, estimated: int) -> tuple[int, float]:
    """(halves, factor) by which an estimate z^`estimated` gives that of the step for u' = z u, constant z^(order + 1)."""
    halves = round(2 * (order + 1) / estimated)
    typical = (_TYPICAL / constant) ** (1.0 / (order + 1))
    return halves, constant * typical ** (order + 1 - estimated * halves / 2.0)
