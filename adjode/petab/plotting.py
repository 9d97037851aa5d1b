"""Figures of experiments: data, and what the model says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from adjode.petab.problem import Problem

_POINTS = 200


def plot(problem: Problem, x: Any, folder: Path) -> Iterator[Path]:
    """Write a figure of each experiment at x, and yield its path.

    Raises
    ------
    ImportError
        If matplotlib is not there.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'adjode[plot]'.") from error
    for name, scenario in problem.scenarios.items():
        times = np.linspace(0.0, scenario.end, _POINTS)
        curves = problem.observables(name, times, x)
        measured = np.flatnonzero(~np.isnan(scenario.data).all(axis=0))
        across, down = min(len(measured), 4), -(-len(measured) // 4)
        figure = Figure(figsize=(3.6 * across, 2.8 * down), layout="constrained")
        for k, column in enumerate(measured):
            axes = figure.add_subplot(down, across, k + 1)
            axes.plot(times, curves[:, column])
            axes.plot(np.zeros_like(scenario.times) if scenario.at_rest else scenario.times, scenario.data[:, column], ".")
            axes.set(title=problem.channels[column], xlabel="time")
        file = folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)}.png"
        figure.savefig(file, dpi=120)
        yield file
