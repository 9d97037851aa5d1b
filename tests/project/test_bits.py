"""The comparison of bits between two versions of the code."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import bits
from benchmarks.bit_runs import table
from benchmarks.checkout import ROOT, command

PROBLEMS = """
def show(word):
    import adjode, benchmarks.checkout
    print(adjode.__file__, benchmarks.checkout.__file__, word)
"""
RUN, OTHER = "solve/forward/RK4", "solve/forward/Euler"


def test_a_digest_tells_bits_and_shapes():
    x = np.array([1.0, 2.0])
    assert bits.digest([x]) == bits.digest([x.copy()]) == bits.digest([[1, 2]])
    others = [[np.nextafter(x, 3.0)], [x[:, None]], [x[:1], x[1:]], [-x], [x, None]]
    assert len({bits.digest([x]), *map(bits.digest, others)}) == 1 + len(others)


def test_each_difference_is_a_line():
    old, new = {"a/1": "x", "a/2": "x", "b": "x", "gone": "x"}, {"a/1": "y", "a/2": "x", "b": "y", "more": "x"}
    lines = bits.differences(old, new, [])
    assert [line.partition(":")[0] for line in lines] == ["a/1", "b", "gone", "more"]
    assert "no such run" in lines[2] and "no such run" in lines[3]
    assert [line.partition(":")[0] for line in bits.differences(old, new, ["a/*", "gone", "more"])] == ["b"]


def test_a_changed_digest_is_reported(tmp_path, monkeypatch, capsys):
    """From the command line, with digests of a process of its own and those of this one."""
    runs, file = table(), tmp_path / "kept.json"
    kept = {name: bits.digest(runs[name]()) for name in (RUN, OTHER)}
    file.write_text(json.dumps(kept | {OTHER: kept[RUN]}))
    monkeypatch.setattr(sys, "argv", ["bits", "--check", str(file), "--runs", RUN, "solve/forward/Eul*"])
    with pytest.raises(SystemExit, match="1"):
        bits.main()
    printed = capsys.readouterr().out
    assert "2 runs" in printed and f"{OTHER}: {kept[RUN]} -> {kept[OTHER]}" in printed and RUN not in printed
    monkeypatch.setattr(bits, "digests", lambda checkout, patterns: kept)
    sys.argv += ["--expected", OTHER]
    with pytest.raises(SystemExit, match="0"):
        bits.main()


def test_a_run_that_fails_is_kept_as_its_error(tmp_path, monkeypatch):
    monkeypatch.setattr(bits, "table", lambda: {"bad": lambda: [1 / 0], "good": lambda: [1.0]})
    bits.write_digests(str(tmp_path / "file"), "*")
    assert json.loads((tmp_path / "file").read_text()) == {"bad": "ZeroDivisionError: division by zero", "good": bits.digest([1.0])}


def test_the_other_checkout_brings_adjode_and_problems(tmp_path):
    for package in ("adjode", "benchmarks"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "benchmarks" / "stiff_problems.py").touch()
    (tmp_path / "benchmarks" / "problems.py").write_text(PROBLEMS)
    task = command(tmp_path, "benchmarks.problems", "show", "said")
    said = subprocess.run(task, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()
    assert said == [str(tmp_path / "adjode" / "__init__.py"), str(ROOT / "benchmarks" / "checkout.py"), "said"]
    empty = tmp_path / "empty"
    empty.mkdir()
    refused = subprocess.run(command(empty, "benchmarks.problems", "show"), cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 1 and "has no adjode" in refused.stderr
