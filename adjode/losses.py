"""Losses: scalar functions of a trajectory that know their own cotangents.

A loss is any object with `value_and_cotangents(solution) -> (value, seeds)`, where `seeds` are keyword arguments of
`Solution.pullback`: `u_T_bar`, `observations`, `event_times` or `theta_bar`. The losses of this module can also be prepared for
many calls, which is how `value_and_gradient` runs them without a `Solution` in between; other objects take the long way.
"""

from adjode.model.losses import (
    Density,
    EventTimes,
    FinalState,
    Gaussian,
    Laplace,
    LeastSquares,
    Likelihood,
    LogLaplace,
    LogNormal,
    Loss,
    NegativeBinomial,
    Observables,
    Poisson,
    Series,
    StudentT,
)

__all__ = [
    "Density",
    "EventTimes",
    "FinalState",
    "Gaussian",
    "Laplace",
    "LeastSquares",
    "Likelihood",
    "LogLaplace",
    "LogNormal",
    "Loss",
    "NegativeBinomial",
    "Observables",
    "Poisson",
    "Series",
    "StudentT",
]
