"""Whether a change of the code keeps every bit of values and gradients.

    python -m benchmarks.bits --old PATH [--runs PATTERN ...] [--expected PATTERN ...]

computes the runs of benchmarks/bit_runs.py on the adjode of another checkout, then on this one, and lists each run whose numbers
differ; the exit status is 1 if there is one. In two steps, `--old PATH --write FILE` keeps {name of the run: digest} of the other
checkout as JSON, and `--check FILE` computes the digests of this one and compares. Bits depend on the CPU and on the compiler, so
both must come from the same machine. Patterns are those of the shell: `--runs 'gradient/*/Radau/*' 'pullback/*'` selects runs,
`--expected` names those that may differ, as `EXPECTED` does with a reason.

With kernels on disk all runs take about a minute for each checkout, without them half an hour, most of it for 'stiff/*' and
'*/fused/*'. Kernels are kept where adjode keeps them, beside the package or in NUMBA_CACHE_DIR; `python -m adjode.precompile`
makes many of them sooner, on all CPUs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from benchmarks.bit_runs import Numbers, table
from benchmarks.checkout import ROOT, command
from benchmarks.peers.process import ONE_THREAD

# Runs that may differ from the old code: pattern -> why.
EXPECTED: dict[str, str] = {
    "gradient/*/backsolve/*": "a loss has one formula, that of its kernel, which adds in another order than NumPy",
    "gradient/*/reanchored/*": "the same",
    "larger/*/backsolve": "the same",
    "larger/*/reanchored": "the same",
}


def digest(numbers: Numbers) -> str:
    """Of the bytes of all numbers, and of their shapes; or of an error's sentence."""
    total = hashlib.sha256()
    for given in numbers:
        array = np.asarray(np.nan if given is None else given, dtype=np.float64)
        total.update(repr(array.shape).encode() + array.tobytes())
    return total.hexdigest()


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def write_digests(file: str, *patterns: str) -> None:
    """Into a file, those of the runs that match a pattern, by the adjode of this process."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a backsolve drifts and says so
        for name, run in table().items():
            if matches(name, patterns):
                try:
                    found[name] = digest(run())
                except Exception as error:  # where the other code succeeds, that is a difference as well
                    found[name] = f"{type(error).__name__}: {error}"
    Path(file).write_text(json.dumps(found, indent=0) + "\n")


def digests(checkout: Path, patterns: list[str]) -> dict[str, str]:
    """The digests that the adjode of a checkout gives, with BLAS on one thread, whose number shapes its bits."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="adjode-bits-") as folder:
        file = Path(folder) / "digests.json"
        task = command(checkout, "benchmarks.bits", "write_digests", str(file), *patterns)
        subprocess.run(task, cwd=checkout, env=os.environ | ONE_THREAD, check=True)
        found = json.loads(file.read_text())
    errors = sum(":" in kept for kept in found.values())
    took = f"{time.perf_counter() - start:.0f} s" + (f", {errors} end in an error" if errors else "")
    print(f"{len(found)} runs with the adjode of {checkout}, {took}", flush=True)
    return found


def differences(old: dict[str, str], new: dict[str, str], expected: Iterable[str]) -> list[str]:
    """A line for each run that differs, or that one of the two lacks, unless it matches an expected pattern."""
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name) and not matches(name, expected):
            lines.append(f"{name}: {old.get(name, 'no such run')[:80]} -> {new.get(name, 'no such run')[:80]}")
    return lines


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, metavar="PATH", help="the checkout to compare with")
    parser.add_argument("--write", type=Path, metavar="FILE", help="keep the digests of that checkout, or of this one")
    parser.add_argument("--check", type=Path, metavar="FILE", help="compare with digests that were kept")
    parser.add_argument("--runs", nargs="+", default=["*"], metavar="PATTERN", help="only these runs")
    parser.add_argument("--expected", nargs="+", default=[], metavar="PATTERN", help="runs that may differ")
    given = parser.parse_args()
    if not (given.old or given.write or given.check):
        parser.error("give --old, --write or --check")
    return given


def main() -> None:
    given = arguments()
    if given.write:
        given.write.write_text(json.dumps(digests(given.old or ROOT, given.runs), indent=0) + "\n")
        return
    kept = json.loads(given.check.read_text()) if given.check else digests(given.old, given.runs)
    old = {name: kept[name] for name in kept if matches(name, given.runs)}
    found = differences(old, digests(ROOT, given.runs), [*EXPECTED, *given.expected])
    print("\n".join(found) or "no bit differs")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
