"""That compiling is under way is said once, where somebody waits at a terminal, and not elsewhere."""

import io
import time

import pytest

from adjode.compile import notice
from adjode.compile.cache import own_folder


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def stderr(monkeypatch):
    monkeypatch.setattr(notice, "PATIENCE", 0.05)
    for name, value in (("_spent", 0.0), ("_is_said", False), ("_is_open", False)):
        monkeypatch.setattr(notice, name, value)
    monkeypatch.setattr(notice, "parent_process", lambda: None)

    def take(stream):
        monkeypatch.setattr("sys.stderr", stream)
        return stream

    return take


def compiled(seconds):
    with notice.announced(), notice.announced():
        time.sleep(seconds)


def test_long_compilation_is_said_once(stderr):
    stream = stderr(Terminal())
    for _ in range(3):
        compiled(0.2)
    text = stream.getvalue()
    assert text.count("adjode is compiling") == 1 and str(own_folder() or "memory") in text


def test_many_short_ones_add_up(stderr):
    stream = stderr(Terminal())
    for _ in range(8):
        compiled(0.015)
    compiled(0.05)
    assert "adjode is compiling" in stream.getvalue()


def test_short_ones_and_logs_are_left_alone(stderr):
    stream = stderr(Terminal())
    compiled(0.0)
    time.sleep(0.1)
    assert not stream.getvalue()
    stream = stderr(io.StringIO())
    compiled(0.2)
    assert not stream.getvalue()


def test_nothing_is_said_in_processes_that_others_started(stderr, monkeypatch):
    stream = stderr(Terminal())
    monkeypatch.setattr(notice, "parent_process", lambda: object())
    compiled(0.2)
    assert not stream.getvalue()
