"""The disk cache: a second process compiles no kernel, the folder stops growing, a changed source is never served stale."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adjode import disk

ROOT = Path(__file__).parent.parent

# Counts what Numba compiled, by the module of the function: "adjode" for kernels, "__main__" for the user's callbacks.
SCRIPT = """
import collections, sys
from numba.core import event

compiled = collections.Counter()

class Count(event.Listener):
    def on_start(self, e):
        compiled[e.data["dispatcher"].py_func.__module__] += 1
    def on_end(self, e):
        pass

event.register("numba:compile", Count())
import adjode
print(adjode.__file__, file=sys.stderr)

def f(t, u, theta, du):
    du[0] = -theta[0] * u[0]

def vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -theta[0] * lam[0]
    theta_bar[0] = -u[0] * lam[0]

solution = adjode.solve(adjode.Dynamics(f, vjp), [1.0], [0.5], (0.0, 1.0), t_eval=[0.5])
for adjoint in ("interpolating", "backsolve"):
    bar = solution.pullback([1.0], adjoint=adjoint)
kernels = sum(n for module, n in compiled.items() if module.startswith("adjode") and module != "adjode.adapters")
print(kernels, compiled["__main__"], repr(float(bar.u0[0])))
"""


def run(tmp_path, package=ROOT, **environment):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    variables = {
        **os.environ,
        "PYTHONPATH": str(package),
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "ADJODE_PRECOMPILED": str(tmp_path),
        **environment,
    }
    done = subprocess.run([sys.executable, str(script)], env=variables, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stderr.split()[0]).is_relative_to(package)
    kernels, callbacks, value = done.stdout.split()
    return int(kernels), int(callbacks), float(value)


def files(tmp_path):
    return {
        p.relative_to(tmp_path): (p.stat().st_mtime_ns, p.stat().st_size) for p in (tmp_path / "cache").rglob("*") if p.is_file()
    }


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT", "0") != "0", reason="nothing is compiled")
@pytest.mark.slow
def test_cache_across_processes_and_changes(tmp_path):
    package = tmp_path / "copy"
    shutil.copytree(ROOT / "adjode", package / "adjode", ignore=shutil.ignore_patterns("__pycache__"))

    kernels, callbacks, value = run(tmp_path, package)
    assert kernels > 5 and callbacks > 0 and value == pytest.approx(0.6065, abs=1e-3)
    stored = files(tmp_path)
    # an index and a binary for each of solve, evaluate, slopes and two adjoints; the same and a mark for f and vjp
    assert len(stored) == 10 + 6

    again = run(tmp_path, package)
    assert again == (0, 0, value)
    assert files(tmp_path) == stored

    # A helper in another file than the entries: five is what the right-hand side is multiplied by
    helper = package / "adjode" / "steppers" / "explicit.py"
    source = helper.read_text()
    status = helper.stat()
    changed = source.replace("base[k] + h * total", "base[k] + 5.0 * h * total")
    assert changed != source
    helper.write_text(changed)
    os.utime(helper, ns=(status.st_atime_ns, status.st_mtime_ns))
    kernels, _, stale = run(tmp_path, package)
    assert kernels > 5 and stale != pytest.approx(value, rel=1e-3)

    helper.write_text(source)
    assert run(tmp_path, package) == again  # the first version is still there
    assert len(files(tmp_path)) == 2 * len(stored)


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT", "0") != "0", reason="nothing is compiled")
@pytest.mark.slow
def test_precompiled_kernels_are_found_whatever_the_cache(tmp_path):
    folder = str(ROOT / "adjode" / "_precompiled")  # that of the checkout, where `make venv` has compiled them
    command = [sys.executable, "-m", "adjode.precompile"]
    environment = {**os.environ, "ADJODE_PRECOMPILED": folder}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and f"kernels are in {folder}" in done.stdout, done.stderr
    kernels, callbacks, value = run(tmp_path, ADJODE_PRECOMPILED=folder)
    assert kernels == 0 and callbacks > 0
    kernels, _, compiled_here = run(tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "other"))
    assert kernels > 5 and compiled_here == value


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT", "0") != "0", reason="nothing is compiled")
def test_settings_that_change_machine_code_have_their_own_folder(monkeypatch):
    disk.source_hash.cache_clear()
    plain = disk.source_hash()
    monkeypatch.setattr(disk.config, "BOUNDSCHECK", 1 - (disk.config.BOUNDSCHECK or 0))
    disk.source_hash.cache_clear()
    assert disk.source_hash() != plain
    monkeypatch.undo()
    disk.source_hash.cache_clear()
    assert disk.source_hash() == plain


def test_only_the_last_few_versions_are_kept(tmp_path, monkeypatch):
    for k in range(7):
        monkeypatch.setattr(disk, "source_hash", lambda k=k: f"{k:016d}")
        disk._EntryLocator(str(tmp_path)).ensure_cache_path()
        folder = tmp_path / f"adjode-{k:016d}"
        os.utime(folder, (k, k))
    assert sorted(p.name[-1] for p in tmp_path.iterdir()) == ["3", "4", "5", "6"]


def test_bytes_are_kept_where_that_is_possible(tmp_path, monkeypatch):
    monkeypatch.setattr(disk.config, "CACHE_DIR", str(tmp_path))
    assert disk.kept_bytes("some.bc") is None
    disk.keep_bytes("some.bc", b"bitcode")
    assert disk.kept_bytes("some.bc") == b"bitcode"
    (file,) = tmp_path.glob("*/*")  # nothing half written beside it
    plain = file.with_name("plain")
    plain.touch()
    assert file.stat().st_mode == plain.stat().st_mode  # readable by whom the cache is for

    not_a_folder = tmp_path / "file"
    not_a_folder.touch()
    monkeypatch.setattr(disk.config, "CACHE_DIR", str(not_a_folder))
    disk.keep_bytes("other.bc", b"bitcode")
    assert disk.kept_bytes("other.bc") is None


def test_old_entries_go_whoever_else_deletes_them(tmp_path):
    for k in range(disk._KEPT_FILES + 1):
        file = tmp_path / f"f-{k}-entry.nbi"
        file.touch()
        os.utime(file, (k + 1, k + 1))
    (tmp_path / "f-deleted-entry.nbi").symlink_to(tmp_path / "nowhere")  # listed, and not there when looked at
    disk.keep_newest(tmp_path)
    left = {p.name for p in tmp_path.iterdir()}
    assert len(left) == disk._KEPT_FILES and not left & {"f-deleted-entry.nbi", "f-0-entry.nbi"}
