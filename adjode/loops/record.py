"""What a pass writes down on its way: steps where they are recorded, and states at the TIMES."""

from __future__ import annotations

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.slots import RECORD_DENSE, RECORD_MESH, RECORD_STAGES, WHERE_OBSERVED
from adjode.compile.views import row
from adjode.steppers.explicit import interpolate


@kernel
def stages_at(frame, slot):
    """The plane of STAGES for the states of the stages of step `slot`: the only one, if they are not recorded."""
    return slot if slots.SETTING(frame)[slots.RECORD] & RECORD_STAGES else 0


@kernel
def dense_at(frame, slot):
    """The same in MESH_C, for its dense output."""
    return slot if slots.SETTING(frame)[slots.RECORD] & RECORD_DENSE else 0


@kernel
def record_start(frame, V):
    """The state at the start of a step as its first stage, for the adjoint."""
    if slots.SETTING(frame)[slots.RECORD] & RECORD_STAGES:
        y = slots.Y(frame)
        for k in range(y.size):
            V[0, k] = y[k]


@kernel
def record(frame, slot, t):
    """The time and the state at the start of step `slot`, or at the end of the pass."""
    mesh_t, mesh_u, y = slots.MESH_T(frame), slots.MESH_U(frame), slots.Y(frame)
    kept = slots.SETTING(frame)[slots.RECORD]
    if kept != 0:
        mesh_t[slot] = t
    if kept & (RECORD_DENSE | RECORD_MESH):
        for k in range(y.size):
            mesh_u[slot, k] = y[k]


@kernel
def needs_dense(frame, t_new):
    """Whether a step to t_new needs its dense output: all do, or a time is observed inside, or at its end if that may move."""
    setting, times, seen = slots.SETTING(frame), slots.TIMES(frame), slots.COUNT(frame)[slots.SEEN]
    if setting[slots.DENSE] == 1:
        return True
    if seen == times.size:
        return False
    ahead = slots.CONTROL(frame)[slots.DIRECTION] * (times[seen] - t_new)
    return ahead < 0.0 or (ahead == 0.0 and setting[slots.RECORD] & WHERE_OBSERVED > 0)


@kernel
def observe(frame, t, h, t_new, y_new, coefficients):
    """Write down the states at the TIMES up to t_new."""
    times, observed, count = slots.TIMES(frame), slots.OBSERVED(frame), slots.COUNT(frame)
    direction, y = slots.CONTROL(frame)[slots.DIRECTION], slots.Y(frame)
    seen = count[slots.SEEN]
    while seen < times.size and direction * (times[seen] - t_new) <= 0.0:
        if times[seen] == t_new:
            for k in range(y.size):
                observed[seen, k] = y_new[k]
        else:
            interpolate(row(observed, seen), y, coefficients, (times[seen] - t) / h)
        seen += 1
    count[slots.SEEN] = seen
