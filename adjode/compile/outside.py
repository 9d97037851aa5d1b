"""Calls of callbacks through their addresses in the frame, in the fused tier too: a copy would be inlined for each call.

`invoke_f(frame, t, (u, theta, du))` and its like return 0, or 1 if the user's code raised; t is as passes count it. A GPU knows no
such addresses: `backends/cuda` puts other kernels in the place of these.
"""

from __future__ import annotations

from collections.abc import Callable

from adjode.compile import slots
from adjode.compile.flags import kernel
from adjode.compile.slot import Slot
from adjode.compile.times import time_at
from adjode.compile.views import invoke


def _through_address(slot: Slot) -> Callable:
    @kernel
    def call(frame, t, arrays):
        return invoke(slot(frame), time_at(frame, t), arrays)

    return call


invoke_f = _through_address(slots.F)
invoke_vjp = _through_address(slots.VJP)
invoke_sides = _through_address(slots.SIDES)
invoke_f_dt = _through_address(slots.F_DT)
invoke_g = _through_address(slots.G)
invoke_g_vjp = _through_address(slots.G_VJP)
invoke_g_dt = _through_address(slots.G_DT)
invoke_guards = _through_address(slots.GUARDS)
invoke_glance = _through_address(slots.GLANCE)
invoke_guards_vjp = _through_address(slots.GUARDS_VJP)
invoke_guards_dt = _through_address(slots.GUARDS_DT)
invoke_resets = _through_address(slots.RESETS)
invoke_resets_vjp = _through_address(slots.RESETS_VJP)
invoke_resets_jvp = _through_address(slots.RESETS_JVP)
invoke_resets_dt = _through_address(slots.RESETS_DT)

INVOCATIONS = {
    slots.F: invoke_f,
    slots.F_DT: invoke_f_dt,
    slots.GUARDS: invoke_guards,
    slots.GUARDS_VJP: invoke_guards_vjp,
    slots.GUARDS_DT: invoke_guards_dt,
    slots.RESETS: invoke_resets,
    slots.RESETS_VJP: invoke_resets_vjp,
    slots.RESETS_DT: invoke_resets_dt,
}  # those that passes of ensembles have
