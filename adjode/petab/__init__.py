"""Fits from PEtab problems, with models in SBML; see `load`."""

from adjode.petab.problem import Problem, load

__all__ = ["Problem", "load"]
