"""lam(t) along a solution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from adjode.passes.result import Cotangents
from adjode.plots.axes import axes_or_new


def adjoint(bar: Cotangents, *, names: Sequence[str] | None = None, points: int = 500, axes: Any = None) -> Any:
    """Draw lam(t), the derivative of the loss by the state at t.

    Parameters
    ----------
    bar : Cotangents
        The result of a pullback with `dense_adjoint=True`.
    names : sequence of n str, optional
        Names of the states, for the legend.
    points : int
        The number of times at which to draw it.
    axes : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If `bar` has no lam(t).
    """
    if bar.adjoint is None:
        raise ValueError("there is no lam(t): pull back with dense_adjoint=True.")
    axes, t = axes_or_new(axes), np.linspace(bar.adjoint.t[0], bar.adjoint.t[-1], points)
    lam = bar.adjoint(t)
    axes.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    for i in range(lam.shape[1]):
        axes.plot(t, lam[:, i], label=f"u[{i}]" if names is None else names[i])
    axes.set(xlabel="t", ylabel="dL/du(t)")
    axes.legend()
    return axes
