"""What a fresh process pays: importing, compiling or loading the core, compiling the user's callbacks."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORT = "import adjode"
TIERS = ("portable", "fused")
CACHES = ("empty", "precompiled", "full")  # precompiled: by `python -m adjode.precompile`, and nothing else


def first_gradient(tier: str, method: str = "Tsit5") -> str:
    """What a fresh process does; the checkout goes to the end of the path, lest it hide the adjode that is to be measured."""
    return f"""
import sys
sys.path.append({str(ROOT)!r})
from benchmarks.problems import lv_final
lv_final(fused={tier == "fused"}).value_and_gradient(method={method!r})()
"""


def seconds(code: str, cache: str, precompiled: str | None = None, checkout: Path | None = None) -> float:
    """Wall time of `code` in a fresh process that keeps compiled kernels in the folder `cache`, with the adjode of `checkout`."""
    folders = {"NUMBA_CACHE_DIR": cache, "ADJODE_PRECOMPILED": precompiled or cache}
    folders |= {"PYTHONPATH": str(checkout)} if checkout else {}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=os.environ | folders, cwd=cache, check=True)
    return time.perf_counter() - start


class Import:
    """Seconds from the start of the interpreter to an imported package, the best of five."""

    unit = "seconds"

    def track_import(self):
        with tempfile.TemporaryDirectory() as cache:
            return min(seconds(IMPORT, cache) for _ in range(5))


class Startup:
    """Seconds from the start of the interpreter to the first gradient, by tier and by what is on disk."""

    params = (TIERS, CACHES)
    param_names = ["tier", "cache"]
    timeout = 900
    unit = "seconds"

    def setup_cache(self):
        """With a full cache the best of three; an empty one is empty only once. Kernels are compiled where adjode keeps them, most
        often a while ago: by `make venv`."""
        command = [sys.executable, "-c", "from adjode.precompile import precompile; print(precompile())"]
        times, kernels = {}, subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        for tier in TIERS:
            with tempfile.TemporaryDirectory() as cache:
                times[tier, "precompiled"] = seconds(first_gradient(tier), cache, kernels)
            with tempfile.TemporaryDirectory() as cache:
                times[tier, "empty"] = seconds(first_gradient(tier), cache)
                times[tier, "full"] = min(seconds(first_gradient(tier), cache) for _ in range(3))
        return times

    setup_cache.timeout = 900

    def track_first_gradient(self, times, tier, cache):
        return times[tier, cache]
