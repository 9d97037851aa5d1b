"""What the data say of fitted entries: profile likelihoods and correlations."""

from __future__ import annotations

from typing import Any

import numpy as np

from adjode.frontends.profile import Profile
from adjode.frontends.uncertainty import Uncertainty
from adjode.plots.axes import axes_or_new, row_of_axes


def profiles(profile: Profile, *, axes: Any = None) -> list[Any]:
    """Draw profile likelihoods, a panel for each entry: the rise of the loss against the value held, and the interval.

    The rise is in squared standard deviations of a residual, a parabola where the model is linear, and the line across it the
    squared quantile that ends the interval.

    Parameters
    ----------
    profile : Profile
        The result of `Fit.profile`.
    axes : p matplotlib Axes, optional
        One for each of the p entries; a new figure by default.

    Returns
    -------
    list of matplotlib Axes

    Raises
    ------
    ValueError
        If the number of axes differs from that of entries.
    """
    panels = row_of_axes(axes, len(profile.names))
    for panel, name in zip(panels, profile.names, strict=True):
        panel.plot(profile.values[name], profile.roots[name] ** 2, "o-", markersize=3)
        panel.axhline(profile.quantile**2, color="0.6", linewidth=0.8)
        panel.axvline(profile.estimates[name], color="0.6", linewidth=0.8)
        panel.axvspan(*_within(profile.intervals[name], profile.values[name]), color="tab:blue", alpha=0.12, linewidth=0.0)
        panel.set(xlabel=name, ylabel="rise of the loss")
    return panels


def _within(interval: tuple[float, float], values: np.ndarray) -> tuple[float, float]:
    """The part of an interval, which may be open, along which the profile is known."""
    low, high = np.clip(interval, values.min(), values.max())
    return float(low), float(high)


def correlations(uncertainty: Uncertainty, *, axes: Any = None) -> Any:
    """Draw the correlations of estimates as a matrix of colours and numbers.

    Parameters
    ----------
    uncertainty : Uncertainty
        The result of `Fit.uncertainty`.
    axes : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib Axes
    """
    axes, matrix, names = axes_or_new(axes), uncertainty.correlation, uncertainty.names
    axes.imshow(matrix, vmin=-1.0, vmax=1.0, cmap="RdBu_r")
    if len(names) <= 12:
        for (i, j), value in np.ndenumerate(matrix):
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if abs(value) > 0.6 else "black", fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    return axes
