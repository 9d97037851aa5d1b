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
from adjode.compile.finite import is_finite
from adjode.compile.flags import exact_kernel, kernel
from adjode.compile.views import row
from adjode.loops.along import find_forward_step
from adjode.loops.control import SAFETY, step_factor
from adjode.loops.errors import add_step_errors, add_to_lam
from adjode.loops.tolerances import in_size_left, quadrature_atol, set_tolerances
from adjode.status import CALLBACK_RAISED, SUCCESS
from adjode.steppers.explicit import interpolate
from adjode.steppers.stepper import Stepper, stage_time
from adjode.tableaus import Tableau

NONE, GAUSS, AUGMENTED_LAM, AUGMENTED_ALL = range(4)
_GAUSS_ORDER = 8.0  # |e3| (|e3| / |e1|)^2 shrinks as h^9
_SMALL = SAFETY ** (_GAUSS_ORDER + 1.0)


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
        atol, rtol, theta = quadrature_atol(frame), control[slots.Q_RTOL], slots.THETA(frame)
        scaled = theta.size if control[slots.Q_ATOL_SCALE] > 0.0 and slots.WANTS(frame)[slots.WANTS_THETA] == 1 else 0
        combine(increment, None, -h, weights, 0, q, weights.shape[1])
        fine, coarse, finite = 0.0, 0.0, True
        for k in range(total.size):
            finite &= is_finite(total[k] + increment[k])
        if not finite:
            return math.nan, math.nan
        if estimates:
            for k in range(total.size):
                before, after = abs(total[k]), abs(total[k] + increment[k])
                unit = abs(theta[k]) if k < scaled and theta[k] != 0.0 else 1.0
                scale = atol + rtol * unit * (after if after > before else before)
                e_fine, e_coarse = 0.0, 0.0
                for i in range(weights.shape[1]):
                    e_fine += weights[1, i] * q[i, k]
                    e_coarse += weights[2, i] * q[i, k]
                ratio_fine = h * unit * e_fine / scale if e_fine != 0.0 else 0.0
                ratio_coarse = h * unit * e_coarse / scale if e_coarse != 0.0 else 0.0
                fine += ratio_fine * ratio_fine
                coarse += ratio_coarse * ratio_coarse
        return fine, coarse

    return quadrature_step


@exact_kernel
def _gauss_estimate(fine, coarse, size):
    """|e3| min(1, |e3| / |e1|)^2 from the two sums of squares."""
    if not fine > 0.0:
        return fine
    return math.sqrt(fine / size) * (fine / coarse if fine < coarse else 1.0)


@kernel
def _small_estimate(factor):
    """The error of the rule below which it cannot hold back a step that is to grow by `factor`: no logarithm needed."""
    cubed = factor * factor * factor
    return _SMALL / (cubed * cubed * cubed) if factor > 1.0 else _SMALL


class Quadrature:
    """The kernels that a pass with an integrand runs beside those of its method.

    Parameters
    ----------
    integrand : kernel
        `integrand(frame, t, y, q) -> status`.
    stepper : Stepper

    Attributes
    ----------
    begin : (frame, t, stage) -> status
        Tolerances and the integrand at a new place.
    along_stages : (frame, t, h, t_new, V) -> status, first, second, size
        A rule on the stages: the step's INCREMENT, and what joins the error norm of the step, see `Stepper`.
    along_dense_output : (frame, t, h, t_new, V, coefficients, norm, factor) -> status, norm, factor
        A rule on the dense output of a step that would be accepted: its INCREMENT, and norm and factor with this error too.
    accept : (frame, log_error)
        Add the increment, set the tolerances of the next step and, if that is wanted, sum up what this one is off by.
    in_size_left : (frame, norm, y_new) -> norm
        See loops/tolerances.py.
    """

    def __init__(self, integrand: Callable, stepper: Stepper):
        quadrature_step = make_quadrature_step(stepper.combine)
        self.begin = _make_begin(integrand)
        at_stages = _make_at_stages(integrand) if stepper.implicit else _known_at_stages
        self.along_stages = _make_along_stages(at_stages, quadrature_step)
        self.along_dense_output = _make_along_dense_output(_make_at_nodes(integrand), quadrature_step)
        self.accept, self.in_size_left = _accept, in_size_left


def _make_begin(integrand: Callable) -> Callable:
    @kernel
    def begin(frame, t, stage):
        setting = slots.SETTING(frame)
        find_forward_step(frame, t)
        of_lam = slots.CLOCK(frame)[slots.SIZE_OF_LAM]
        set_tolerances(frame)
        if setting[slots.JUDGED] == 1:
            add_to_lam(frame, of_lam)
        if setting[slots.RULE] != GAUSS or setting[slots.INTEGRAND_FREE]:
            return SUCCESS
        slots.COUNT(frame)[slots.INTEGRANDS] += 1
        return SUCCESS if integrand(frame, t, stage, row(slots.Q(frame), 0)) == 0 else CALLBACK_RAISED

    return begin


def _make_at_stages(integrand: Callable) -> Callable:
    @kernel
    def at_stages(frame, t, h, t_new, V):
        """Evaluate the integrand at the stages of the step just computed, which for an implicit method are known only now."""
        count, q, last = slots.COUNT(frame), slots.Q(frame), slots.SETTING(frame)[slots.LAST_STAGE]
        for i in range(1, last + 1):
            count[slots.INTEGRANDS] += 1
            if integrand(frame, stage_time(frame, t, h, t_new, i), row(V, i), row(q, i)) != 0:
                return CALLBACK_RAISED
        return SUCCESS

    return at_stages


@kernel
def _known_at_stages(frame, t, h, t_new, V):
    """The stages of an explicit method have provided the integrand."""
    return SUCCESS


def _make_along_stages(at_stages: Callable, quadrature_step: Callable) -> Callable:
    @kernel
    def along_stages(frame, t, h, t_new, V):
        rule = slots.SETTING(frame)[slots.RULE]
        if rule <= GAUSS:
            return SUCCESS, 0.0, 0.0, 0
        if at_stages(frame, t, h, t_new, V) != SUCCESS:
            return CALLBACK_RAISED, 0.0, 0.0, 0
        first, second = quadrature_step(frame, h, rule == AUGMENTED_ALL)
        return SUCCESS, first, second, slots.TOTAL(frame).size if rule == AUGMENTED_ALL else 0

    return along_stages


def _make_at_nodes(integrand: Callable) -> Callable:
    @kernel
    def at_nodes(frame, t, h, t_new, V, coefficients):
        """Evaluate the integrand at the nodes of the step just computed."""
        count, setting = slots.COUNT(frame), slots.SETTING(frame)
        nodes, q, y = slots.NODES(frame), slots.Q(frame), slots.Y(frame)
        stage = row(V, 0)
        for i in range(nodes.size):
            interpolate(stage, y, coefficients, nodes[i])
            count[slots.INTEGRANDS] += 1
            if integrand(frame, t + nodes[i] * h, stage, row(q, i + 1)) != 0:
                return CALLBACK_RAISED
        if not setting[slots.INTEGRAND_FREE]:
            count[slots.INTEGRANDS] += 1
            if integrand(frame, t_new, row(V, setting[slots.LAST_STAGE]), row(q, nodes.size + 1)) != 0:
                return CALLBACK_RAISED
        return SUCCESS

    return at_nodes


def _make_along_dense_output(at_nodes: Callable, quadrature_step: Callable) -> Callable:
    @kernel
    def along_dense_output(frame, t, h, t_new, V, coefficients, norm, factor):
        setting = slots.SETTING(frame)
        if setting[slots.RULE] != GAUSS:
            return SUCCESS, norm, factor
        if at_nodes(frame, t, h, t_new, V, coefficients) != SUCCESS:
            return CALLBACK_RAISED, norm, factor
        first, second = quadrature_step(frame, h, True)
        estimate = _gauss_estimate(first, second, slots.TOTAL(frame).size)
        if math.isnan(estimate) or (setting[slots.ADAPTIVE] == 1 and not estimate <= _small_estimate(factor)):
            least, _ = step_factor(estimate, 0.0, _GAUSS_ORDER)
            factor = least if least < factor else factor
            norm = estimate if not estimate <= norm else norm
        if setting[slots.JUDGED] == 1:
            slots.TRUST(frame)[slots.THETA_ALONG] = estimate
        return SUCCESS, norm, factor

    return along_dense_output


@kernel
def _accept(frame, log_error):
    total, increment, q = slots.TOTAL(frame), slots.INCREMENT(frame), slots.Q(frame)
    end = slots.WEIGHTS(frame).shape[1] - 1
    for k in range(total.size):
        total[k] += increment[k]
        q[0, k] = q[end, k]
    clock = slots.CLOCK(frame)
    of_theta, of_lam, unit = clock[slots.SIZE_OF_THETA], clock[slots.SIZE_OF_LAM], clock[slots.LAM_UNIT]
    set_tolerances(frame)
    if slots.SETTING(frame)[slots.JUDGED] == 1:
        add_step_errors(frame, log_error, of_theta, of_lam, unit)


class NoQuadrature(Quadrature):
    """The same for a pass without an integrand."""

    def __init__(self) -> None:
        self.begin, self.along_stages = _no_begin, _no_stages
        self.along_dense_output, self.accept, self.in_size_left = _no_dense_output, _no_accept, _norm_as_it_is


@kernel
def _no_begin(frame, t, stage):
    return SUCCESS


@kernel
def _no_stages(frame, t, h, t_new, V):
    return SUCCESS, 0.0, 0.0, 0


@kernel
def _no_dense_output(frame, t, h, t_new, V, coefficients, norm, factor):
    return SUCCESS, norm, factor


@kernel
def _no_accept(frame, log_error):
    pass


@kernel
def _norm_as_it_is(frame, norm, y_new):
    return norm
