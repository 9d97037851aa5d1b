"""CVODES in C, with analytic Jacobians: BDF and its continuous adjoint for the stiff problems, KLU on the grid; for Jacobians of
residuals forward sensitivities, by Adams' methods where the problem is not stiff."""

from __future__ import annotations

from functools import partial

from benchmarks import cvodes
from benchmarks.cases import JACOBIANS, STIFF_JACOBIANS
from benchmarks.peers import Contender
from benchmarks.stiff_cases import STIFF_CASES

REQUIRES = ()
why_not = cvodes.why_not


def contenders() -> list[Contender]:
    forward = [
        Contender("cvodes", f"{method}, {how} sensitivities, in C", partial(cvodes.jacobian_evaluator, how == "staggered"), cases)
        for method, cases in (("Adams", JACOBIANS), ("BDF", STIFF_JACOBIANS))
        for how in ("simultaneous", "staggered")
    ]
    return [Contender("cvodes", "BDF, adjoint, in C", cvodes.evaluator, cases=STIFF_CASES), *forward]
