"""Exact, fast gradients through ODE solves."""

from adjode import functions, kernels, losses, plots
from adjode.api.consistent import consistent_initial
from adjode.api.equilibrium import steady_state
from adjode.api.gradient import value_and_gradient, vjp
from adjode.api.hessians import hessian_vector_product
from adjode.api.residuals import residuals_and_jacobian
from adjode.api.solution import Solution
from adjode.api.solve import solve
from adjode.derivation import derivative, derive
from adjode.derivatives.check import VjpReport, check_vjp
from adjode.ensembles.gradient import ensemble_value_and_gradient
from adjode.ensembles.solution import EnsembleSolution, solve_ensemble
from adjode.frontends import priors
from adjode.frontends.entries import Parameter
from adjode.frontends.experiments import Experiment, Experiments
from adjode.frontends.fit import Fit
from adjode.frontends.start import SteadyState
from adjode.model.doses import Doses
from adjode.model.dynamics import Dynamics
from adjode.model.events import Event
from adjode.passes.result import Cotangents, Tangents
from adjode.status import SolveError, Status
from adjode.tables import Table

__all__ = [
    "Cotangents",
    "Doses",
    "Dynamics",
    "EnsembleSolution",
    "Event",
    "Experiment",
    "Experiments",
    "Fit",
    "Parameter",
    "Solution",
    "SolveError",
    "Status",
    "SteadyState",
    "Table",
    "Tangents",
    "VjpReport",
    "check_vjp",
    "consistent_initial",
    "derivative",
    "derive",
    "ensemble_value_and_gradient",
    "functions",
    "hessian_vector_product",
    "kernels",
    "losses",
    "plots",
    "priors",
    "residuals_and_jacobian",
    "solve",
    "solve_ensemble",
    "steady_state",
    "value_and_gradient",
    "vjp",
]

__version__ = "0.1.0"
