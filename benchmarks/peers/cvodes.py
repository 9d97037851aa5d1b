"""CVODES in C: BDF and its continuous adjoint, with analytic Jacobians; KLU on the grid. For the stiff problems alone."""

from __future__ import annotations

from benchmarks import cvodes
from benchmarks.peers import Contender
from benchmarks.stiff_cases import STIFF_CASES

REQUIRES = ()
why_not = cvodes.why_not


def contenders() -> list[Contender]:
    return [Contender("cvodes", "BDF, adjoint, in C", cvodes.evaluator, cases=STIFF_CASES)]
