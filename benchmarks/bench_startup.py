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
# appended to the path: put first, the checkout would hide the adjode that is to be measured
FIRST_GRADIENT = f"""
import sys
sys.path.append({str(ROOT)!r})
from benchmarks.problems import lv_final
lv_final().value_and_gradient()()
"""


def seconds(code: str, cache: str) -> float:
    """Wall time of `code` in a fresh process that keeps compiled kernels in the folder `cache`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"NUMBA_CACHE_DIR": cache}, cwd=cache, check=True)
    return time.perf_counter() - start


class Startup:
    """Seconds from the start of the interpreter."""

    timeout = 300
    unit = "seconds"

    def setup_cache(self):
        """Each time is the best of three, except the cold start, of which there is one."""
        with tempfile.TemporaryDirectory() as cache:
            return {
                "import": min(seconds(IMPORT, cache) for _ in range(3)),
                "cold": seconds(FIRST_GRADIENT, cache),
                "warm": min(seconds(FIRST_GRADIENT, cache) for _ in range(3)),
            }

    def track_import(self, times):
        return times["import"]

    def track_first_gradient_empty_cache(self, times):
        return times["cold"]

    def track_first_gradient_full_cache(self, times):
        return times["warm"]
