"""The Python blocks of README.md and docs/*.md run, and print what the text block after them shows."""

import contextlib
import io
import linecache
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from adjode.tableaus import METHODS, tableau

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SLOW = {"vjp.md"}

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


def pages_with_blocks():
    for page in PAGES:
        if any(blocks_of(page.read_text())):
            yield pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.name in SLOW else [])


@pytest.fixture
def own_methods():
    """Take away again what a page adds to the methods."""
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)
    tableau.cache_clear()


@pytest.mark.usefixtures("own_methods")
@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT", "0") != "0", reason="the pages show what the compiler says")
@pytest.mark.parametrize("page", list(pages_with_blocks()))
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for block in blocks_of(page.read_text()):
        try:
            printed = run(block, namespace)
            if block.shown is not None:
                assert_same_text(printed, block.shown)
        except Exception as error:
            error.add_note(f"in the block at {page.relative_to(ROOT)}:{block.line}")
            raise


def test_blocks_are_found():
    text = "a\n```python\nx = 1\n```\n\n<!-- not run -->\n```python\nx = 2\n```\n```python\nprint(x)\n```\n\n```text\n1\n```\n"
    assert list(blocks_of(text)) == [Block(3, "x = 1\n", None), Block(11, "print(x)\n", "1\n")]
    assert_same_text("a = 0.30001\n b", "a = 0.3 b")
    with pytest.raises(AssertionError):
        assert_same_text("a = 0.31", "a = 0.3")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_paths_exist(page):
    """Relative links between pages, and files of the repository that are named in commands."""
    text = page.read_text()
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", prose):
        assert (page.parent / target).exists(), target
    for path in re.findall(r"(?:python|pytest) ((?:examples|docs|tests|benchmarks)/\S+\.py)", text):
        assert (ROOT / path).exists(), path


@pytest.mark.slow
@pytest.mark.parametrize("script", ["spiral"])
def test_example_runs(script, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / f"{script}.py"], capture_output=True, text=True, cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr
    before, after = re.search(r"loss before: (\S+), after: (\S+)", done.stdout).groups()
    assert float(after) < 1e-4 * float(before.rstrip(","))
    assert Path(re.search(r"figure: (.+)", done.stdout)[1]).exists()


@pytest.mark.slow
def test_the_fit_of_robertsons_rates_ends_at_the_same_rates_from_every_start():
    script = ROOT / "examples" / "robertson.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"true rates: (.+), (.+), (.+) times", done.stdout)
    assert len(found) == 4
    for ratios in found:
        assert all(abs(float(ratio) - 1.0) < 0.03 for ratio in ratios)
        assert all(abs(float(ratio) - float(first)) < 0.002 for ratio, first in zip(ratios, found[0], strict=True))
