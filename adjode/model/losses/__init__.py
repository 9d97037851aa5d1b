"""The losses that users know as `adjode.losses`, and what their preparation for many calls takes."""

from adjode.model.losses.event_times import EventTimes
from adjode.model.losses.final_state import FinalState
from adjode.model.losses.least_squares import (
    LeastSquares,
    PreparedLeastSquares,
    least_squares_entry,
    make_least_squares,
)
from adjode.model.losses.likelihood import Likelihood, Observables
from adjode.model.losses.linear import PreparedLinear, linear_entry, make_linear
from adjode.model.losses.loss import Loss, loss_for
from adjode.model.losses.noise import Density, Gaussian, Laplace, LogLaplace, LogNormal, NegativeBinomial, Noise, Poisson, StudentT
from adjode.model.losses.observed import PreparedObserved
from adjode.model.losses.prepared import PreparedLoss
from adjode.model.losses.prepared_event_times import event_times_entry
from adjode.model.losses.prepared_likelihood import likelihood_entry
from adjode.model.losses.residuals import Probing, Reading, Residuals, probing_entry, reading_entry
from adjode.model.losses.rule import readers_in
from adjode.model.losses.series import Series, make_series

ENTRIES = (  # those that depend on no callback
    event_times_entry,
    linear_entry,
    least_squares_entry,
    probing_entry,
    reading_entry,
    likelihood_entry,
)

__all__ = [
    "ENTRIES",
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
    "Noise",
    "Observables",
    "Poisson",
    "PreparedLeastSquares",
    "PreparedLinear",
    "PreparedLoss",
    "PreparedObserved",
    "Probing",
    "Reading",
    "Residuals",
    "Series",
    "StudentT",
    "loss_for",
    "make_least_squares",
    "make_linear",
    "make_series",
    "readers_in",
]
