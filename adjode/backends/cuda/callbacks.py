"""The user's functions on a device, where an exception ends the thread: its status then stays CALLBACK_RAISED."""

from __future__ import annotations

import copy
import linecache
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from adjode.compile import slots
from adjode.compile.calls import Calls, call_kernel
from adjode.compile.flags import DISABLED, kernel
from adjode.compile.kinds import KINDS
from adjode.compile.outside import INVOCATIONS, invoke_glance
from adjode.compile.slot import Slot
from adjode.compile.times import time_at
from adjode.compile.views import array_view
from adjode.model.callbacks import Callback
from adjode.model.dynamics import Dynamics
from adjode.passes.jumps import Jumps
from adjode.status import CALLBACK_RAISED


def on_device(dynamics: Dynamics, n: int) -> Dynamics:
    """The dynamics with calls for a device."""
    device = copy.copy(dynamics)
    device.calls = device_calls(dynamics, n)
    return device


def device_calls(dynamics: Dynamics, n: int) -> Calls:
    """Calls of the user's functions on a device, for n states."""

    @kernel
    def absent(frame, *arguments):
        return CALLBACK_RAISED  # never called

    kernels = dict.fromkeys(KINDS, absent)
    for callback in dynamics.callbacks:
        function = _guard(form_of(callback, n))
        kernels[callback.name] = call_kernel(KINDS[callback.name], "function(t, {arrays})", function=function)
    return Calls(kernels, None, fused=True, judged=False)


def called_outside(dynamics: Dynamics, jumps: Jumps, backward: bool) -> dict[Slot, Callback]:
    """The callbacks that passes with jumps call through addresses, by their slots."""
    found: dict[Slot, Any] = {slots.F: dynamics.f, slots.F_DT: dynamics.f_dt} if backward else {}
    if jumps.guards is not None:
        found |= {slots.GUARDS: jumps.guards.guards, slots.RESETS: jumps.guards.resets}
    if jumps.guards is not None and backward:
        found |= {slots.GUARDS_VJP: jumps.guards.guards_vjp, slots.GUARDS_DT: jumps.guards.guards_dt}
        found |= {slots.RESETS_VJP: jumps.guards.resets_vjp, slots.RESETS_DT: jumps.guards.resets_dt}
    return {slot: callback for slot, callback in found.items() if isinstance(callback, Callback)}


def in_simulator(callbacks: dict[Slot, Callback]) -> dict[Slot, Callable]:
    """What a frame of the simulator has for them."""
    if not DISABLED:
        return {}
    return {slot: _guard(callback.as_written) for slot, callback in callbacks.items()} | {slots.GLANCE: _sees_nothing}


def replacements(callbacks: dict[Slot, Callback], joined: list[Callback], n: int) -> dict[Callable, Callable]:
    """What device code has in place of calls through addresses, and of what has been `joined`, whose loops are those of the CPU."""
    calls = {INVOCATIONS[slot]: _called(_guard(form_of(callback, n))) for slot, callback in callbacks.items()}
    calls[invoke_glance] = _sees_nothing
    return calls | {one.in_place: form_of(one, n) for one in joined}


@kernel
def _sees_nothing(*arguments):
    """In place of a glance: steps are looked at as it would leave them, since threads that go apart there are waited for."""
    return 1


_COPY = "lam.copy()"  # in derivatives of what overwrites its results


def form_of(callback: Callback, n: int) -> Callable:
    """A callback for a device, which allocates nothing: what is derived from code that overwrites its results has a copy of lam."""
    function = callback.as_written
    python = getattr(function, "py_func", function)
    text = "".join(linecache.getlines(python.__code__.co_filename))
    if DISABLED or _COPY not in text or python.__closure__:
        return function
    space = {**python.__globals__, "local_copy": _make_local_copy(n)}
    exec(compile(text.replace(_COPY, "local_copy(lam)"), python.__code__.co_filename, "exec"), space)
    return njit(space[python.__name__])


def _make_local_copy(n: int) -> Callable:
    @intrinsic
    def local_copy(typingctx, array):
        """A copy of a vector of n numbers in a thread's own memory."""
        found = types.Array(array.dtype, 1, "C")

        def codegen(context, builder, sig, args):
            element, source = context.get_data_type(found.dtype), context.make_array(sig.args[0])(context, builder, args[0])
            start = builder.bitcast(cgutils.alloca_once(builder, ir.ArrayType(element, n)), element.as_pointer())
            cgutils.raw_memcpy(builder, start, source.data, context.get_constant(types.intp, n), found.dtype.bitwidth // 8)
            return array_view(context, builder, found, start, [context.get_constant(types.intp, n)])

        return found(types.Array(array.dtype, 1, "C")), codegen

    return local_copy


def _called(function: Callable) -> Callable:
    @kernel
    def call(frame, t, arrays):
        return function(time_at(frame, t), *arrays)

    return call


def _guard(function: Callable) -> Callable:
    return _guarded(function) if DISABLED else _unguarded(function)


def _unguarded(function: Callable) -> Callable:
    @kernel
    def call(*arguments):
        function(*arguments)
        return 0

    return call


def _guarded(function: Callable) -> Callable:
    def call(*arguments):
        try:
            function(*arguments)
        except Exception:  # whatever the user's code raises; on a device this is what the hardware's exit is
            return CALLBACK_RAISED
        return 0

    return call
