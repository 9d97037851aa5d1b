"""What `import adjode` brings with it."""

import subprocess
import sys

UNWANTED = ("scipy.optimize", "scipy.sparse", "scipy.linalg", "tqdm", "matplotlib", "numpy.lib.recfunctions", "numba_cuda")


def test_import_takes_nothing_that_only_some_calls_need():
    script = "import sys, numba, numpy; before = set(sys.modules); import adjode; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    brought = done.stdout.split()
    assert "adjode.api.solve" in brought
    assert [name for name in brought if name.startswith(UNWANTED)] == []
