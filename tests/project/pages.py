"""The Python blocks of a page: finding them, running them, comparing what they print with what the page shows."""

from __future__ import annotations

import contextlib
import io
import linecache
import re
from dataclasses import dataclass

import pytest

# An opening fence, what it holds, a closing fence; before it perhaps a comment, after it perhaps a block of text.
_BLOCK = re.compile(
    r"(?P<skip><!-- not run -->\n+)?^```python\n(?P<code>.*?)^```\n(?:\n*^```text\n(?P<shown>.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
_NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Block:
    line: int
    code: str
    shown: str | None


def blocks_of(text):
    for match in _BLOCK.finditer(text):
        if match["skip"] is None:
            line = 1 + text.count("\n", 0, match.start("code"))
            yield Block(line, match["code"], match["shown"])


def run(block, namespace):
    """Run a block and return what it printed; errors name its code as the file model.py."""
    linecache.cache["model.py"] = (len(block.code), None, block.code.splitlines(keepends=True), "model.py")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.code, "model.py", "exec"), namespace)
    return printed.getvalue()


def assert_same_text(printed, shown):
    """The same words, and numbers that agree to three digits; those below 1e-8 are rounding errors."""
    printed, shown = " ".join(printed.split()), " ".join(shown.split())
    assert _NUMBER.sub("#", printed) == _NUMBER.sub("#", shown), f"printed: {printed}"
    numbers = [[float(x) for x in _NUMBER.findall(text)] for text in (printed, shown)]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-3, abs=1e-8), f"printed: {printed}"
