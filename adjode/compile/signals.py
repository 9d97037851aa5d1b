"""Signals while Numba compiles or threads start: what handles them waits until it is done.

An exception in the middle of Numba or LLVM, which Ctrl-C raises wherever Python is at the time, may leave objects there that are
freed twice or never finished, and so end the process, or spoil all that is compiled later.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NUMBERS = tuple(map(int, signal.valid_signals()))  # to be asked for takes longer than to look at all of them
_waiting = False  # in the main thread, the only one in which Python handles signals


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Have handlers of signals that arrive meanwhile called at the end, where what they raise does no harm."""
    global _waiting
    if _waiting or threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[int, Any] = {number: handler for number in _NUMBERS if callable(handler := signal.getsignal(number))}
    arrived: set[int] = set()

    def wait(number: int, frame: Any) -> None:
        arrived.add(number)

    try:
        for number in handlers:
            signal.signal(number, wait)
        _waiting = True
        yield
    finally:
        _waiting = False
        _give_back(handlers, arrived)


def _give_back(handlers: dict[int, Any], arrived: set[int]) -> None:
    """Put all handlers back and have those called that are due, whatever one of them raises."""
    try:
        while handlers:
            number = next(iter(handlers))
            signal.signal(number, handlers[number])
            handlers.pop(number)
        while arrived:
            signal.raise_signal(arrived.pop())
    finally:
        if handlers or arrived:
            _give_back(handlers, arrived)
