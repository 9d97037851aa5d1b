"""The stages of the step being pulled back, and du/dt at one of its ends, for `drift.py` to follow the product with lam.

Where stages are evaluated again, it is the slope that the step after has begun with. Else f is asked, and twice where it reads the
time. A forcing of size zero makes no difference, nor does one that is over, but if f at another time is not the same, the product
is followed no longer.
"""

from __future__ import annotations

from collections.abc import Callable

from adjode.adjoints.shifts import ALONE
from adjode.adjoints.stages_again import make_stages_again
from adjode.adjoints.trust import begin_step
from adjode.compile import slots
from adjode.compile.calls import Calls
from adjode.compile.flags import kernel
from adjode.compile.views import plane, row
from adjode.status import CALLBACK_RAISED, SUCCESS
from adjode.steppers.family import Solver

READS_TIME = 2.0  # of MAY_CONSERVE


@kernel
def _keep_slope(frame):
    """FLOW = the slope that the step after has begun with."""
    flow, K = row(slots.FLOW(frame), 0), slots.K(frame)
    for k in range(flow.size):
        flow[k] = K[0, k]


def make_stages_at_hand(calls: Calls, stages: tuple[int, int] | None, recorded: bool) -> Callable:
    """The kernel that gives the status and the states of the stages of a step."""
    if recorded:

        @kernel
        def recorded_stages(frame, step, t, h, t_new, dense):
            return SUCCESS, plane(slots.FORWARD_STAGES(frame), step)

        return recorded_stages
    stages_again, judged = make_stages_again(calls, stages), calls.judged

    @kernel
    def computed_stages(frame, step, t, h, t_new, dense):
        if judged:
            _keep_slope(frame)
        return stages_again(frame, step, t, h, t_new, dense), plane(slots.STAGES(frame), 0)

    return computed_stages


def make_call_flow(calls: Calls) -> Callable:
    call_f = calls.f

    @kernel
    def call_flow(frame, t, u):
        """FLOW = f(t, u), whose product is followed no longer if it depends on time; the status."""
        trust, flow, other = slots.TRUST(frame), row(slots.FLOW(frame), 0), row(slots.FLOW(frame), 1)
        slots.COUNT(frame)[slots.DERIVATIVES] += 1
        trust[slots.FLOW_T] = t
        if call_f(frame, t, u, flow) != 0:
            return CALLBACK_RAISED
        if trust[slots.AUTONOMOUS] == READS_TIME and trust[slots.DRIFT_LEFT] == trust[slots.LEFT_NOW]:
            slots.COUNT(frame)[slots.DERIVATIVES] += 1
            is_same = call_f(frame, trust[slots.LAST_FLOW_T], u, other) == 0  # the state may be none for f to have at that time
            for k in range(flow.size):
                is_same &= other[k] == flow[k]
            if not is_same:
                trust[slots.AUTONOMOUS] = trust[slots.FOLLOWS] = 0.0
        return SUCCESS

    return call_flow


def make_begin_judging(calls: Calls, recorded: bool, solver: Solver) -> Callable:
    call_flow, judged, implicit = make_call_flow(calls), calls.judged, solver.implicit

    @kernel
    def begin_judging(frame, step, h, V, left, observed):
        """Whether the step is judged, and what that needs to begin with; the status."""
        trust, last = slots.TRUST(frame), slots.SETTING(frame)[slots.LAST_STAGE]
        if left == ALONE or not judged:
            trust[slots.COUNTS_FOR] = 0.0
            return SUCCESS
        begin_step(frame, step, h, V, left, observed)
        if implicit or trust[slots.FOLLOWS] == 0.0:
            return SUCCESS
        if recorded or trust[slots.AUTONOMOUS] == READS_TIME:
            return call_flow(frame, slots.FORWARD_T(frame)[step + 1], row(V, last))
        return SUCCESS

    return begin_judging
