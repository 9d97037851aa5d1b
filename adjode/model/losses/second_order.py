"""Second derivatives of losses: how their cotangents change along tangents of the states and of theta."""

from __future__ import annotations

from typing import Any

import numpy as np

from adjode.model.losses.least_squares import LeastSquares, PreparedLeastSquares
from adjode.model.losses.likelihood_second_order import tangents_of_likelihood
from adjode.model.losses.linear import PreparedLinear
from adjode.model.losses.observed import PreparedObserved
from adjode.model.losses.prepared import PreparedLoss
from adjode.model.losses.prepared_likelihood import PreparedLikelihood

Dots = tuple[np.ndarray, np.ndarray]


def require_second_order(loss: Any) -> None:
    """Raise a TypeError if a prepared loss has no second derivatives, with what is missing."""
    if isinstance(loss, PreparedObserved):
        for rule in loss.rules:
            rule.vjp_dot  # noqa: B018  (so that what is refused is refused here)
    elif not isinstance(loss, (PreparedLeastSquares, PreparedLinear)):
        raise TypeError(
            f"second derivatives of the loss are needed, and this {type(getattr(loss, 'loss', loss)).__name__} has only a "
            "cotangent: use adjode.losses.LeastSquares, Likelihood, FinalState, or Series(t_obs, value=...), whose derivatives "
            "are derived."
        )


def tangents_of_cotangents(loss: PreparedLoss, dots: np.ndarray, theta_dots: np.ndarray) -> Dots:
    """How the cotangents that the last run has found change.

    Parameters
    ----------
    loss : PreparedLoss
        For which `require_second_order` holds.
    dots : (c, p, n) array
        Tangents of the states at its times, in p directions.
    theta_dots : (p, m) array

    Returns
    -------
    u_bar_dots : (c, p, n) array
        Of the cotangents of the states.
    theta_bar_dots : (p, m) array
        Of the loss's own cotangent of theta.
    """
    bars = np.zeros_like(dots), np.zeros_like(theta_dots)
    if isinstance(loss, PreparedLeastSquares):
        _of_components(loss, dots, bars[0])
    elif isinstance(loss, PreparedLikelihood):
        for d, w in enumerate(theta_dots):
            bars[0][:, d], bars[1][d] = tangents_of_likelihood(loss, dots[:, d], w)
    elif isinstance(loss, PreparedObserved):
        for d, w in enumerate(theta_dots):
            for k, (numbers, u) in enumerate(loss.calls(loss.rule)):
                at = loss.rows[k]
                u_bar_dot, theta_bar_dot = _of_function(loss, k, numbers, (u, loss.theta), (dots[at, d], w))
                bars[0][at, d] += u_bar_dot
                bars[1][d] += theta_bar_dot
    return bars


def _of_components(loss: PreparedLeastSquares, dots: np.ndarray, u_bar_dots: np.ndarray) -> None:
    given, rows = loss.loss, loss.rows
    curvatures = _curvatures(loss.observed[rows][:, given.components], given.y_obs, given.weights, given.log)
    summed = np.zeros((len(dots), 1, given.components.size))
    np.add.at(summed[:, 0], rows, curvatures)  # an observation may have been made more than once
    u_bar_dots[:, :, given.components] = summed * dots[:, :, given.components]


def _curvatures(y: np.ndarray, data: np.ndarray, weights: np.ndarray, log: bool) -> np.ndarray:
    """The second derivative of half of each square by y, and 0 where data are missing."""
    weights = np.where(np.isnan(data), 0.0, weights)
    if not log:
        return weights**2
    with np.errstate(all="ignore"):
        return np.where(weights > 0.0, (weights / y) ** 2 * (1.0 - (np.log(y) - data)), 0.0)


def _of_function(loss: PreparedObserved, k: int, numbers: tuple, place: Dots, moved: Dots) -> Dots:
    """The same of observation k of a loss of a function of state and parameters."""
    rule, (u, theta), given = loss.rule, place, loss.loss
    out = np.full(u.size, np.nan), np.full(theta.size, np.nan)
    if not isinstance(given, LeastSquares):
        rule.vjp_dot(*numbers, u.copy(), theta, *moved, *out)
        return out
    y = np.full(loss.c, np.nan)
    rule.function(*numbers, u.copy(), theta, y)
    y_dot = np.array([_along(rule, numbers, place, moved, e) for e in np.eye(loss.c)])
    there, data = ~given.missing[k], given.y_obs[k]
    residuals = np.where(there, (np.log(y) if given.log else y) - data, 0.0) * given.weights[k]
    y_bar = residuals * given.weights[k] / (y if given.log else 1.0)
    y_bar_dot = _curvatures(y, data, given.weights[k], given.log) * y_dot
    rule.vjp_dot(*numbers, u.copy(), theta, y_bar, *moved, y_bar_dot, *out)
    return out


def _along(rule: Any, numbers: tuple, place: Dots, moved: Dots, y_bar: np.ndarray) -> float:
    """The tangent of y_bar . y."""
    (u, theta), bars = place, (np.full(place[0].size, np.nan), np.full(place[1].size, np.nan))
    rule.vjp(*numbers, u.copy(), theta, y_bar, *bars)
    return float(bars[0] @ moved[0] + bars[1] @ moved[1])
