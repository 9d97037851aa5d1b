"""The Python blocks of README.md and docs/*.md run, and print what the text block after them shows."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import curve_fit

from adjode.tableaus import METHODS, tableau
from tests import ROOT
from tests.project.pages import Block, assert_same_text, blocks_of, run

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SLOW = {"vjp.md", "stiff.md"}


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
@pytest.mark.jitted
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
def test_links_exist(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", prose):
        assert (page.parent / target).exists(), target


TO_BE_MADE = ("examples/output", "adjode/_precompiled", "docs/_build", "benchmarks/.asv", "adjode/tableaus/ralston.py")


@pytest.mark.parametrize("name", [*(str(page.relative_to(ROOT)) for page in PAGES), "CONTRIBUTING.md", ".ci/run", "Makefile"])
def test_paths_exist(name):
    """Files and folders of the repository that are named."""
    named = re.findall(r"(?<![\w/.-])(?:adjode|examples|docs|tests|benchmarks)/[\w/.]*\w", (ROOT / name).read_text())
    assert [path for path in named if not path.startswith(TO_BE_MADE) and not (ROOT / path).exists()] == []


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


@pytest.mark.slow
def test_the_properties_of_the_house_are_found():
    script = ROOT / "examples" / "house.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^  \S.*? +(\S+), true +(\S+)  k", done.stdout, re.MULTILINE)
    assert len(found) == 6
    for value, true in found:
        assert float(value) == pytest.approx(float(true), rel=0.05)
    assert Path(re.search(r"figure: (.+)", done.stdout)[1]).exists()


@pytest.mark.slow
def test_the_contacts_of_an_epidemic_are_found():
    done = subprocess.run([sys.executable, ROOT / "examples" / "epidemic.py"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = [(float(a), float(b)) for a, b in re.findall(r"^ *[\d.]+ +(\S+)   (\S+)$", done.stdout, re.MULTILINE)]
    assert len(found) == 9
    for value, true in found[1:-1]:  # at the ends the counts say little
        assert value == pytest.approx(true, rel=0.15)
    assert Path(re.search(r"figure: (.+)", done.stdout)[1]).exists()


@pytest.mark.slow
def test_what_is_typical_of_a_population():
    """Typical values and errors as mixed-effects models find them: Pinheiro and Bates (2000), chapter 8."""
    done = subprocess.run([sys.executable, ROOT / "examples" / "population.py"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = {name: float(value) for name, value in re.findall(r"^(\w+) +(\S+) (?:1/h|L/h/kg|mg/L)$", done.stdout, re.MULTILINE)}
    np.testing.assert_allclose(np.log(found["absorption"]), 0.45, atol=0.1)
    np.testing.assert_allclose(np.log(found["elimination"]), -2.45, atol=0.1)
    np.testing.assert_allclose(np.log(found["clearance"]), -3.23, atol=0.05)
    assert found["sigma"] == pytest.approx(0.68, abs=0.07)


@pytest.mark.slow
def test_the_fits_of_theophylline_are_those_of_the_closed_form():
    done = subprocess.run([sys.executable, ROOT / "examples" / "theophylline.py"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^ +(\d+) +(\S+)/h +(\S+)/h +(\S+) L/h/kg +(\S+) mg/kg", done.stdout, re.MULTILINE)
    data = np.loadtxt(ROOT / "examples" / "data" / "theophylline.csv", delimiter=",", skiprows=2)
    assert len(found) == 12
    for person, *numbers in found:
        (_, _, (dose, *_), times, seen), (*rates, given) = data[data[:, 0] == int(person)].T, map(float, numbers)

        def concentration(t, log_ka, log_ke, log_cl, dose=dose):
            ka, ke, cl = np.exp([log_ka, log_ke, log_cl])
            return dose * ke * ka / (cl * (ka - ke)) * (np.exp(-ke * t) - np.exp(-ka * t))

        fitted, _ = curve_fit(concentration, times, seen, p0=np.log([1.5, 0.08, 0.04]))
        np.testing.assert_allclose(rates, np.exp(fitted), rtol=5e-3)
        assert given == pytest.approx(10.0 * 12.0 * rates[2], rel=0.1)  # what leaves in twelve hours at 10 mg/L
