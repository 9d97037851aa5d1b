"""Figures of fits, their uncertainty and adjoints: functions that take axes of Matplotlib, or make some, and return them."""

from adjode.plots.adjoints import adjoint
from adjode.plots.fits import fit, residuals, waterfall
from adjode.plots.uncertainties import correlations, profiles

__all__ = ["adjoint", "correlations", "fit", "profiles", "residuals", "waterfall"]
