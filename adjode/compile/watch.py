"""The watch: a compiled pass looks up now and then, and stops where its caller no longer wants it to go on.

Python runs a handler of signals, Ctrl-C's for one, in its interpreter alone, which waits while a pass runs without the GIL. So a
pass looks at the clock after a number of steps that takes some milliseconds. It stops with TIMED_OUT after its deadline, and with
INTERRUPTED where another thread has cancelled it, or where a handler raises: several times a second it takes the GIL, has Python
run the handlers that are due, and asks for a cancellation of its thread (cancellation.py). What handlers raise waits in the watch
for `raise_pending`, after the pass has returned.

A call has one watch, which the frames of all its passes share.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from adjode.compile import slots
from adjode.compile.cancellation import OF_THREAD, is_cancelled
from adjode.compile.flags import DISABLED, integers, kernel
from adjode.status import INTERRUPTED, SUCCESS, TIMED_OUT

# Entries of WATCH; times in nanoseconds. RAISED is where the exception of a handler waits: three addresses.
DEADLINE, LAST_LOOK, NEXT_CALL, STRIDE, NEXT_LOOK, CANCELLED, RAISED = range(7)
_ENTRIES = RAISED + 3

NEVER = int(np.iinfo(np.int64).max)
_LOOK_EVERY = 2_000_000
_CALL_EVERY = 50_000_000
_LONGEST_STRIDE = 1 << 24  # steps

_ON_WINDOWS = os.name == "nt"
_CLOCK = 0 if _ON_WINDOWS else getattr(time, "CLOCK_UPTIME_RAW", time.CLOCK_MONOTONIC)


def new_watch() -> np.ndarray:
    watch = np.zeros(_ENTRIES, dtype=np.int64)
    watch[DEADLINE] = NEVER
    return watch


def set_deadline(watch: np.ndarray, seconds: float | None) -> None:
    """Let what runs under this watch stop after so many seconds from now; without a limit for None."""
    watch[DEADLINE] = NEVER if seconds is None else min(_now() + int(min(seconds, 1e9) * 1e9), NEVER)


_thread = threading.local()


def keep_raised(error: BaseException) -> None:
    """For what compiled code calls and a handler of signals interrupts: let `raise_pending` raise this in the same thread."""
    _thread.error = error


def forget_kept() -> dict[str, BaseException]:
    """Before a pass: users' compiled code, which raises by itself, may have left what had been kept. Where this thread keeps it."""
    kept = vars(_thread)
    kept.clear()
    return kept


def raise_kept() -> None:
    """Raise what has been kept, if anything, behind a pass that could not stop for it."""
    error = vars(_thread).pop("error", None)
    if error is not None:
        raise error


def c_callback(action: Callable[[int], int], failed: Callable[[BaseException], int]) -> Any:
    """What compiled code can call by its address, with a number, to have `action` done in Python.

    It returns what `action` returns, or `failed` of what that or a handler of signals raises, which is to keep it. Python runs
    handlers when a function is entered, before any `try` in it; a generator goes on inside of its own.
    """

    def act():
        result = 0
        while True:
            try:
                while True:
                    result = action((yield result))
            except GeneratorExit:
                return
            except BaseException as error:
                result = failed(error)

    acting = act()
    next(acting)
    return acting.send if DISABLED else ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(acting.send)


def raise_pending(watch: np.ndarray) -> NoReturn:
    """Raise what a handler of signals has raised inside a pass that returned INTERRUPTED."""
    raised = watch[RAISED:].tolist()
    watch[RAISED:] = 0
    raise_kept()
    if any(raised):
        ctypes.pythonapi.PyErr_Restore(*map(ctypes.c_void_p, raised))  # which ctypes sees, and raises
    raise KeyboardInterrupt


def _now() -> int:
    if not _ON_WINDOWS:
        return time.clock_gettime_ns(_CLOCK)
    ticks = ctypes.c_uint64()
    ctypes.windll.kernel32.QueryUnbiasedInterruptTime(ctypes.byref(ticks))  # type: ignore[attr-defined]
    return 100 * ticks.value


if DISABLED:
    nanoseconds = _now

    def ask_python(watch):
        return int(is_cancelled())  # the interpreter runs handlers by itself

    def raise_interruption(watch, status):
        if status == INTERRUPTED:
            raise_pending(watch)

else:
    _i32, _i64 = ir.IntType(32), ir.IntType(64)
    _bytes = ir.IntType(8).as_pointer()

    def _c_call(builder, name, result, arguments=()):
        """Call a C function of the process by its name."""
        function_type = ir.FunctionType(result, [argument.type for argument in arguments])
        return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), arguments)

    @intrinsic
    def nanoseconds(typingctx):
        """A clock that never runs back."""

        def codegen(context, builder, sig, args):
            parts = cgutils.alloca_once(builder, ir.ArrayType(_i64, 2))
            first = builder.bitcast(parts, _i64.as_pointer())
            if _ON_WINDOWS:
                _c_call(builder, "QueryUnbiasedInterruptTime", _i32, [first])
                return builder.mul(builder.load(first), _i64(100))
            _c_call(builder, "clock_gettime", _i32, [_i32(_CLOCK), first])
            return builder.add(builder.mul(builder.load(first), _i64(10**9)), builder.load(builder.gep(first, [_i64(1)])))

        return types.int64(), codegen

    @intrinsic
    def ask_python(typingctx, watch):
        """Have Python run the handlers of signals that are due; whether one has raised, which then waits in RAISED, or whether the
        thread is cancelled."""

        def codegen(context, builder, sig, args):
            data = context.make_array(integers)(context, builder, args[0]).data
            key = context.insert_const_string(builder.module, OF_THREAD)
            state = _c_call(builder, "PyGILState_Ensure", _i32)
            stops = cgutils.alloca_once_value(builder, _c_call(builder, "PyErr_CheckSignals", _i32))
            kept = _c_call(builder, "PyThreadState_GetDict", _bytes)
            with builder.if_then(cgutils.is_not_null(builder, kept)):
                cancellation = _c_call(builder, "PyDict_GetItemString", _bytes, [kept, key])
                asks = builder.and_(
                    cgutils.is_null(builder, builder.load(stops)), builder.not_(cgutils.is_null(builder, cancellation))
                )
                with builder.if_then(asks, likely=False):
                    builder.store(_c_call(builder, "PyObject_IsTrue", _i32, [cancellation]), stops)
            stop = cgutils.is_not_null(builder, builder.load(stops))
            with builder.if_then(stop, likely=False):
                places = [builder.bitcast(builder.gep(data, [_i64(RAISED + k)]), _bytes.as_pointer()) for k in range(3)]
                _c_call(builder, "PyErr_Fetch", ir.VoidType(), places)
            _c_call(builder, "PyGILState_Release", ir.VoidType(), [state])
            return builder.zext(stop, _i64)

        return types.int64(integers), codegen

    @intrinsic
    def raise_interruption(typingctx, watch, status):
        """`raise_pending` for users' compiled code, where the status says that a pass was interrupted."""

        def codegen(context, builder, sig, args):
            data = context.make_array(integers)(context, builder, args[0]).data
            with builder.if_then(builder.icmp_signed("==", args[1], _i64(INTERRUPTED)), likely=False):
                places = [builder.bitcast(builder.gep(data, [_i64(RAISED + k)]), _bytes.as_pointer()) for k in range(3)]
                raised = [builder.load(place) for place in places]
                state = _c_call(builder, "PyGILState_Ensure", _i32)
                with builder.if_else(cgutils.is_null(builder, raised[0])) as (by_itself, by_handler):
                    with by_itself:
                        # Numba has this name stand for the class itself, where C has a pointer to it
                        kind = context.get_c_value(builder, _bytes.pointee, "PyExc_KeyboardInterrupt")
                        _c_call(builder, "PyErr_SetNone", ir.VoidType(), [kind])
                    with by_handler:
                        _c_call(builder, "PyErr_Restore", ir.VoidType(), raised)
                for place in places:
                    builder.store(_bytes(None), place)
                _c_call(builder, "PyGILState_Release", ir.VoidType(), [state])
                context.call_conv.return_exc(builder)
            return context.get_dummy_value()

        return types.none(integers, types.int64), codegen


@kernel
def start_watch(watch):
    watch[LAST_LOOK], watch[STRIDE] = nanoseconds(), 1  # NEXT_CALL stays: of many short passes too, some have to ask
    watch[NEXT_LOOK] = 1 if watch[DEADLINE] == NEVER else 0


@kernel
def look_up(watch, done):
    """Whether to go on after `done` steps: SUCCESS, TIMED_OUT or INTERRUPTED."""
    now, stride = nanoseconds(), watch[STRIDE]
    if watch[CANCELLED] != 0:
        return INTERRUPTED
    if now >= watch[DEADLINE]:
        return TIMED_OUT
    if now >= watch[NEXT_CALL]:
        watch[NEXT_CALL] = now + _CALL_EVERY
        if ask_python(watch) != 0:
            return INTERRUPTED
    elapsed = now - watch[LAST_LOOK]
    if elapsed < _LOOK_EVERY:
        stride = min(4 * stride, _LONGEST_STRIDE)
    elif elapsed > 4 * _LOOK_EVERY:
        stride = max(stride // 4, 1)
    watch[LAST_LOOK], watch[STRIDE], watch[NEXT_LOOK] = now, stride, done + stride
    return SUCCESS


# Device code has no interpreter to ask: for a GPU these two are replaced by `unwatched`, see cuda/target.py.


@kernel
def begin_watch(frame):
    start_watch(slots.WATCH(frame))
    return SUCCESS


@kernel
def keep_watch(frame, done):
    """What a pass asks after every step."""
    watch = slots.WATCH(frame)
    return SUCCESS if done < watch[NEXT_LOOK] else look_up(watch, done)


@kernel
def unwatched(frame, done=0):
    return SUCCESS
