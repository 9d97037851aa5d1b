"""Second derivatives of a `Likelihood`: of its densities, of what is observed, and of scales that are functions."""

from __future__ import annotations

from typing import Any

import numpy as np

from adjode.compile import slots
from adjode.model.losses import densities
from adjode.model.losses.density_curvatures import curvatures
from adjode.model.losses.prepared_likelihood import PreparedLikelihood


def tangents_of_likelihood(loss: PreparedLikelihood, dots: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How the cotangents that the last run has found change along tangents of the states (c, n) and theta (m,): the same shapes."""
    given, frame, u_bar_dots, theta_bar_dot = loss.loss, loss.frame, np.zeros_like(dots), np.zeros_like(w)
    later, factors = given.previous >= 0, frame[slots.COLUMN_NUMBERS][0]
    entries = given.entries(w.size)
    by_function = np.array([callable(one.scale) for one in given.noise])
    y_dots = dots[loss.rows][:, given.components] if loss.rule is None else along(loss, loss.rule, dots, w)
    y_dots[later] -= y_dots[given.previous[later]]
    s_dots = np.zeros(y_dots.shape)
    if by_function.any():
        s_dots[:, by_function] = (factors * along(loss, given.scale_rule, dots, w))[:, by_function]
    of_theta = entries >= 0
    s_dots[:, of_theta[0]] = (factors * w[entries[0]])[of_theta[0]]
    q_dots = np.where(of_theta[1], w[entries[1]], 0.0)
    y_bar_dots, s_bar_dots, q_bar_dots = _of_densities(loss, entries, y_dots, s_dots, q_dots)
    theta_bar_dot += _of_own_densities(loss, y_dots, w, y_bar_dots)
    np.add.at(theta_bar_dot, entries[0][of_theta[0]], (factors * s_bar_dots.sum(axis=0))[of_theta[0]])
    np.add.at(theta_bar_dot, entries[1][of_theta[1]], q_bar_dots.sum(axis=0)[of_theta[1]])
    np.subtract.at(y_bar_dots, given.previous[later], y_bar_dots[later])
    pulled = [] if loss.rule is None else [(loss.rule, frame[slots.RESULTS_BAR], y_bar_dots)]
    if by_function.any():
        scaled = [factors * by_function * bars for bars in (frame[slots.SCALES_BAR], s_bar_dots)]
        pulled.append((given.scale_rule, *scaled))
    if loss.rule is None:
        np.add.at(u_bar_dots, (loss.rows[:, None], given.components), y_bar_dots)
    for rule, bars, bar_dots in pulled:
        for k, (numbers, u) in enumerate(loss.calls(rule)):
            at, out = loss.rows[k], (np.full(u.size, np.nan), np.full(w.size, np.nan))
            rule.vjp_dot(*numbers, u.copy(), loss.theta, bars[k], dots[at], w, np.ascontiguousarray(bar_dots[k]), *out)
            u_bar_dots[at] += out[0]
            theta_bar_dot += out[1]
    return u_bar_dots, theta_bar_dot


def _of_densities(
    loss: PreparedLikelihood, entries: np.ndarray, y_dots: np.ndarray, s_dots: np.ndarray, q_dots: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How the derivatives of all densities by what is observed, by scales and by shapes change, (k, c) each; 0 without data."""
    given, frame, bars = loss.loss, loss.frame, np.zeros((3, *y_dots.shape))
    y, later = frame[slots.RESULTS].copy(), given.previous >= 0
    y[later] -= frame[slots.RESULTS][given.previous[later]]
    for c, one in enumerate(given.noise):
        if one.density == densities.OWN:
            continue
        there = ~given.missing[:, c]
        shape = loss.theta[entries[1, c]] if entries[1, c] >= 0 else frame[slots.COLUMN_NUMBERS][1, c]
        place = y[there, c], given.data[there, c], frame[slots.SCALES][there, c], np.full(np.count_nonzero(there), shape)
        yy, ys, yq, ss, sq, qq = curvatures(one.density, *place)
        moved = y_dots[there, c], s_dots[there, c], q_dots[c]
        for bar, slopes in zip(bars, ((yy, ys, yq), (ys, ss, sq), (yq, sq, qq)), strict=True):
            bar[there, c] = sum(slope * dot for slope, dot in zip(slopes, moved, strict=True))
    return bars[0], bars[1], bars[2]


def _of_own_densities(loss: PreparedLikelihood, y_dots: np.ndarray, w: np.ndarray, y_bar_dots: np.ndarray) -> np.ndarray:
    """The same of densities of the user's own: written into those of what is observed, (k, c); returned for theta, (m,)."""
    theta_bar_dot = np.zeros(w.size)
    for rule in loss.loss.density_rules:
        for (k, c), (numbers, y) in zip(loss.of_own(rule), loss.calls(rule), strict=True):
            out = np.full(1, np.nan), np.full(w.size, np.nan)
            rule.vjp_dot(*numbers, y, loss.theta, y_dots[k, c : c + 1].copy(), w, *out)
            y_bar_dots[k, c] = out[0][0]
            theta_bar_dot += out[1]
    return theta_bar_dot


def along(loss: Any, rule: Any, dots: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The tangents (k, c) of what a rule's function makes at all observations, from those of the states (c, n) and theta (m,)."""
    found = np.empty((loss.rows.size, loss.c))
    for k, (numbers, u) in enumerate(loss.calls(rule)):
        for c, unit in enumerate(np.eye(loss.c)):
            bars = np.full(u.size, np.nan), np.full(w.size, np.nan)
            rule.vjp(*numbers, u.copy(), loss.theta, unit, *bars)
            found[k, c] = bars[0] @ dots[loss.rows[k]] + bars[1] @ w
    return found
