"""What an accepted step is off by, from the estimate that it was accepted with.

That is the error of a solution of lower order, or what a pair of them makes of each other. The step goes on with the better
solution, whose error is a higher power of the step. Both are sums over rooted trees, here of coefficients as large as those of
the first trees that do not vanish are in the mean.
"""

from __future__ import annotations

import numpy as np

from adjode.tableaus.order_conditions import elementary_weights


def step_error(
    A: np.ndarray, b: np.ndarray, E: np.ndarray, orders: tuple[int, int], beta: np.ndarray | None = None
) -> tuple[float, float]:
    """(power, factor): `factor * ratio**power` is the relative error of a step, for the ratio of its estimate and the state.

    Parameters
    ----------
    A, b, E : (r, r), (r,), (1 or 2, r) arrays
        Of the stages; the error norm of two estimates is |e1|^2 / sqrt(|e1|^2 + 0.01 |e2|^2).
    orders : (int, int)
        Of the step and of the error estimate.
    beta : (r, r) array, optional
        See `elementary_weights`.
    """
    order, error_order = orders
    phi, sizes, densities = elementary_weights(A, order + 1, beta)
    highest = sizes == order + 1
    error = _mean(phi[highest] @ b - 1.0 / densities[highest])
    if len(E) == 1:
        estimate = _mean(phi[sizes == error_order + 1] @ E[0])
    else:  # in the limit of short steps the second is the larger one
        fine, coarse = (next(_mean(values) for values in _by_size(phi @ e, sizes) if _mean(values) > _ROUNDING) for e in E)
        estimate = fine**2 / (0.1 * coarse)
    power = (order + 1) / (error_order + 1)
    return power, error / estimate**power


_ROUNDING = 1e-12


def _by_size(values: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    return [values[sizes == size] for size in range(1, sizes[-1] + 1)]


def _mean(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
