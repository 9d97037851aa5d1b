"""Quadratures along a step: `integral of q dt` with an error estimate, for integrands that do not feed back.

Two rules share one form. Integrand vectors stand in the rows of `q`; a rule is a row of weights and two rows of error weights.

- "gauss": five Gauss-Lobatto nodes on the step's dense output (degree 7). The end nodes are shared with the neighbouring
  steps. Simpson's rule (nodes 0, 2, 4) and the trapezoid (nodes 0, 4) are nested in it: with e3 and e1 their distances from it,
  the error of the rule is estimated by |e3| min(1, |e3| / |e1|)^2, the way the errors fall from degree 1 over 3 to 7.
- "augmented": the stages of the Runge-Kutta step with the weights of the method. This is what integrating theta_bar as further
  ODE states computes, to the letter, since those states feed back into nothing; but it costs one sum and not the arithmetic of a
  stage for each parameter.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adjode.compile import slots
from adjode.compile.flags import exact_kernel, kernel
from adjode.tableaus import Tableau

NONE, GAUSS, AUGMENTED_LAM, AUGMENTED_ALL = range(4)
GAUSS_ORDER = 8.0  # |e3| (|e3| / |e1|)^2 shrinks as h^9


@dataclass(frozen=True, eq=False)
class Rule:
    """A quadrature rule for steps of one method.

    Attributes
    ----------
    kind : int
        NONE, GAUSS, AUGMENTED_LAM or AUGMENTED_ALL.
    weights : (3, r) array
        The rule, and the two error functionals (fine and coarse), on rows 0..r-1 of `q`.
    nodes : (r - 2,) array
        Interior nodes in (0, 1) at which the loop evaluates the integrand; empty where the stages provide it.
    stage_rows : (stages,) int array
        The row of `q` that each stage's evaluation of the right-hand side may write its integrand to; r is the scratch row.
    """

    kind: int
    weights: np.ndarray
    nodes: np.ndarray
    stage_rows: np.ndarray


_NODE = math.sqrt(3.0 / 7.0)
LOBATTO_NODES = np.array([(1 - _NODE) / 2, 0.5, (1 + _NODE) / 2])
LOBATTO = np.array([1 / 20, 49 / 180, 16 / 45, 49 / 180, 1 / 20])
_SIMPSON = np.array([1 / 6, 0, 2 / 3, 0, 1 / 6])
_TRAPEZOID = np.array([1 / 2, 0, 0, 0, 1 / 2])


@functools.cache
def rule(kind: int, tableau: Tableau) -> Rule:
    size, s = len(tableau.A), tableau.stages
    if kind == NONE:
        return Rule(NONE, np.zeros((3, 0)), np.zeros(0), np.zeros(size, dtype=np.int64))
    if kind == GAUSS:
        weights = np.array([LOBATTO, LOBATTO - _SIMPSON, LOBATTO - _TRAPEZOID])
        rows = np.full(size, 5, dtype=np.int64)
        rows[0], rows[s] = 0, 4
        return Rule(GAUSS, weights, LOBATTO_NODES, rows)
    weights = np.zeros((3, s + 1))
    weights[0] = tableau.A[s, : s + 1]
    weights[1 : 1 + len(tableau.E)] = tableau.E[:, : s + 1]
    return Rule(kind, weights, np.zeros(0), np.minimum(np.arange(size), s + 1))


def make_quadrature_step(combine: Callable) -> Callable:
    @kernel
    def quadrature_step(frame, h, estimates):
        """Fill INCREMENT; the scaled sums of squares of the two error functionals if asked; NaN if anything is not finite.

        INCREMENT = -h sum_i WEIGHTS[0, i] Q[i]: the integral runs against the integration, as theta_bar's does.
        """
        weights, q, control = slots.WEIGHTS(frame), slots.Q(frame), slots.CONTROL(frame)
        total, increment = slots.TOTAL(frame), slots.INCREMENT(frame)
        atol, rtol = control[slots.Q_ATOL], control[slots.Q_RTOL]
        combine(increment, None, -h, weights, 0, q, weights.shape[1])
        fine, coarse, infinite = 0.0, 0.0, 0.0
        for k in range(total.size):
            infinite += 0.0 * (total[k] + increment[k])
        if infinite != 0.0:
            return math.nan, math.nan
        if estimates:
            for k in range(total.size):
                before, after = abs(total[k]), abs(total[k] + increment[k])
                scale = atol + rtol * (after if after > before else before)
                e_fine, e_coarse = 0.0, 0.0
                for i in range(weights.shape[1]):
                    e_fine += weights[1, i] * q[i, k]
                    e_coarse += weights[2, i] * q[i, k]
                ratio_fine = h * e_fine / scale if e_fine != 0.0 else 0.0
                ratio_coarse = h * e_coarse / scale if e_coarse != 0.0 else 0.0
                fine += ratio_fine * ratio_fine
                coarse += ratio_coarse * ratio_coarse
        return fine, coarse

    return quadrature_step


@exact_kernel
def gauss_estimate(fine, coarse, size):
    """|e3| min(1, |e3| / |e1|)^2 from the two sums of squares."""
    if not fine > 0.0:
        return fine
    return math.sqrt(fine / size) * (fine / coarse if fine < coarse else 1.0)
