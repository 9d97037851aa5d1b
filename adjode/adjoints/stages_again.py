"""The stages of a step again, from the state at its start, by the arithmetic of the forward solve that has not recorded them."""

from __future__ import annotations

from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.calls import Calls
from adjode.compile.flags import kernel
from adjode.compile.views import plane, row
from adjode.status import CALLBACK_RAISED, SUCCESS
from adjode.steppers.explicit import ExplicitStepper


def make_stages_again(calls: Calls, stages: tuple[int, int] | None) -> Callable:
    call_f = calls.f

    @kernel
    def stage_slope(frame, t, u, slope, q):
        return call_f(frame, t, u, slope)

    stepper = ExplicitStepper(stage_slope, stages)
    inner_stages, last_stages = stepper.inner_stages, stepper.last_stages

    @kernel
    def stages_again(frame, step, t, h, t_new, dense):
        """K and STAGES of the step as in the forward solve, as far as its transpose needs them."""
        count, K, y = slots.COUNT(frame), slots.K(frame), slots.Y(frame)
        setting, mesh_u = slots.SETTING(frame), slots.FORWARD_U(frame)
        V, last, top = plane(slots.STAGES(frame), 0), setting[slots.LAST_STAGE], setting[slots.TOP]
        for k in range(y.size):
            y[k] = V[0, k] = mesh_u[step, k]
            V[last, k] = mesh_u[step + 1, k]
        count[slots.DERIVATIVES] += top + 1 if dense else last
        if stage_slope(frame, t, y, row(K, 0), row(slots.Q(frame), 0)) != 0:
            return CALLBACK_RAISED
        if inner_stages(frame, t, h, t_new, V, 1, last - 1) != 0:
            return CALLBACK_RAISED
        if dense:
            if last_stages(frame, t, h, t_new, V, last, top) != 0:
                return CALLBACK_RAISED
        return SUCCESS

    return stages_again
