"""A line on stderr where compiling keeps somebody waiting: once a process, and only where stderr is a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process

from adjode.compile.cache import own_folder

PATIENCE = 2.0  # seconds of compiling, all together, after which it is said
_TEXT = (
    "adjode is compiling a method or model that it meets for the first time, which takes some ten seconds, or a minute if it has "
    "no kernels yet. The result is kept in {folder}; `python -m adjode.precompile` compiles all kernels in advance."
)
_spent = 0.0
_is_said = False
_is_open = False  # whether a compilation runs that is counted: those inside of it are parts of it


@contextmanager
def announced() -> Iterator[None]:
    """What is compiled here is said to be, if it takes long."""
    global _spent, _is_open
    if _is_said or _is_open or not _has_reader():
        yield
        return
    timer = threading.Timer(max(PATIENCE - _spent, 0.0), _say)
    timer.daemon = True
    _is_open, started = True, time.monotonic()
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        _spent, _is_open = _spent + time.monotonic() - started, False


def _has_reader() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and parent_process() is None


def _say() -> None:
    global _is_said
    if not _is_said:
        _is_said = True
        print(_TEXT.format(folder=own_folder() or "memory alone"), file=sys.stderr, flush=True)
