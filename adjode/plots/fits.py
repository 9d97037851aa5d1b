"""Data beside the fitted solution: curves with bands, residuals, and what many starts have found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from adjode.frontends.evaluation import Evaluation
from adjode.frontends.fit import Fit
from adjode.model.losses import LeastSquares
from adjode.plots.axes import axes_or_new


def fit(
    fit: Fit,
    x: Any = None,
    *,
    components: Sequence[int] | None = None,
    level: float = 0.95,
    absolute_sigma: bool = False,
    points: int = 200,
    experiment: str | None = None,
    axes: Any = None,
) -> Any:
    """Draw the fitted states with pointwise confidence bands, and the data.

    Parameters
    ----------
    fit : Fit
        A fit with a `LeastSquares` loss of components of the state.
    x : (k,) array, optional
        The minimum; by default the last one found.
    components : sequence of int, optional
        Which states to draw; by default those that were observed.
    level, absolute_sigma
        As for `Fit.predict`.
    points : int
        The number of times at which to draw.
    experiment : str, optional
        For a fit of several experiments, the name of one.
    axes : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError, TypeError
        As for `Fit.predict`.
    """
    part, _ = fit.part(experiment)
    loss, names = _data_of(part), part.state_names
    if loss.of is not None:
        raise ValueError("plots.fit draws states, but the loss compares what `observe` makes of them: use plots.residuals.")
    observed = {int(component): column for column, component in enumerate(loss.components)}
    times = np.linspace(*part.t_span, points)
    band = fit.predict(times, x, level=level, absolute_sigma=absolute_sigma, experiment=experiment)
    axes, data = axes_or_new(axes), np.exp(loss.y_obs) if loss.log else loss.y_obs
    for i in observed if components is None else components:
        (line,) = axes.plot(band.times, band.u[:, i], label=names[i])
        axes.fill_between(band.times, band.low[:, i], band.high[:, i], color=line.get_color(), alpha=0.25, linewidth=0.0)
        if i in observed:
            axes.plot(loss.t_obs, data[:, observed[i]], "o", color=line.get_color(), markersize=4)
    axes.set(xlabel="t", ylabel="u")
    axes.legend()
    return axes


def residuals(fit: Fit, x: Any = None, *, experiment: str | None = None, axes: Any = None) -> Any:
    """Draw the residuals of a least-squares fit, in standard deviations, against the times of their data.

    Parameters
    ----------
    fit : Fit
        A fit with a `LeastSquares` loss.
    x : (k,) array, optional
        Where to evaluate them; by default the last minimum found.
    experiment : str, optional
        For a fit of several experiments, the name of one.
    axes : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib Axes
    """
    part, z = fit.part(experiment, fit.minimum if x is None else x)
    loss, (r, _) = _data_of(part), part.residuals_and_jacobian(z)
    rows, columns = np.nonzero(~loss.missing)
    axes = axes_or_new(axes)
    axes.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    for column in range(loss.missing.shape[1]):
        name = f"y[{column}]" if loss.of is not None else part.state_names[loss.components[column]]
        axes.plot(loss.t_obs[rows[columns == column]], r[columns == column], "o", markersize=4, label=name)
    axes.set(xlabel="t", ylabel="residual / sigma")
    axes.legend()
    return axes


def waterfall(result: Any, *, axes: Any = None) -> Any:
    """Draw the losses at which the starts of a fit ended, from the lowest to the highest: a step for each minimum.

    Parameters
    ----------
    result : OptimizeResult
        The result of a fit with `starts=`.
    axes : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If there was only one start.
    """
    if "starts" not in result:
        raise ValueError("this fit had one start: give starts=N.")
    axes, losses = axes_or_new(axes), np.sort(result.starts.losses)
    axes.plot(1 + np.arange(losses.size), losses - min(losses[0], 0.0), "o-", markersize=4)
    if losses[0] > 0.0 and losses[-1] > 10.0 * losses[0]:
        axes.set_yscale("log")
    axes.set(xlabel="start, by its loss", ylabel="loss")
    return axes


def _data_of(part: Evaluation) -> LeastSquares:
    if not isinstance(part.loss, LeastSquares):
        raise TypeError(f"only a LeastSquares loss has data to draw, but this is a fit of a {type(part.loss).__name__}.")
    return part.loss
