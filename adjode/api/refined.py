"""Solutions with shorter steps, where a backward pass along them has found that it needs these."""

from __future__ import annotations

from typing import Any

from adjode.passes.discrete import Discrete
from adjode.passes.forward import Forward
from adjode.passes.program import FORWARD, Program
from adjode.status import SUCCESS


def run_refined(solution: Any, made: Discrete) -> tuple[int, Forward]:
    """Solve within the limits that `made` has set in its last run, and run it again; its status, and the pass along whose steps.

    Raises
    ------
    SolveError
        If the solve fails.
    """
    problem = made.dynamics, solution.options, solution.structure, solution.u0, made.theta, solution.span.ends
    forward = Forward(*problem, record=solution.trajectory.record, jumps=solution.jumps)
    forward.share_watch(made.watch)
    forward.limit_by(made.frame)
    program = Program(forward, None, made, goes_on=True)
    status = program.run(again=True)
    if status != SUCCESS and program.ran == FORWARD:
        raise forward.error(status, solution.layouts[0])
    return status, forward
