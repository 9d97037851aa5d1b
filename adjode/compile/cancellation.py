"""What stops the work of some threads from another one: of Ctrl-C only the main thread learns.

The passes of a thread ask for it where they look at the clock (watch.py), from compiled code. So it is kept where C finds it: in
the dictionary that CPython keeps for each thread.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

OF_THREAD = "adjode.cancellation"  # its key there

_dict_of_thread = ctypes.pythonapi.PyThreadState_GetDict
_dict_of_thread.restype = ctypes.c_void_p  # a borrowed reference, where ctypes would take an object to be its own


def _kept_for_thread() -> dict[str, Any]:
    return ctypes.cast(_dict_of_thread(), ctypes.py_object).value


def is_cancelled() -> bool:
    """Whether the work of this thread is no longer wanted."""
    return bool(_kept_for_thread().get(OF_THREAD, False))


class Cancellation:
    """A context, for tasks in other threads: `cancellation(task)` is a task that ends with a KeyboardInterrupt, soon after the
    context has been left by an exception, or after the work of the thread that entered it has been cancelled. True if it has been.
    """

    def __init__(self) -> None:
        self._is_set, self._outer = False, _kept_for_thread().get(OF_THREAD, False)

    def __bool__(self) -> bool:
        return self._is_set or bool(self._outer)

    def __enter__(self) -> Cancellation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        self._is_set = kind is not None

    def __call__(self, task: Callable) -> Callable:
        return functools.partial(self._run, task)

    def _run(self, task: Callable, *given: Any) -> Any:
        if self:
            raise KeyboardInterrupt
        kept = _kept_for_thread()
        before, kept[OF_THREAD] = kept.get(OF_THREAD, False), self
        try:
            return task(*given)
        finally:
            kept[OF_THREAD] = before
