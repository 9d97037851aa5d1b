"""The disk cache: a second process compiles no kernel, the folder stops growing, a changed source is never served stale.

What lies there is code, so what others can have written is left alone, and what is damaged is compiled anew.
"""

import os
import pickle
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from adjode.compile import cache, trusted
from tests import ROOT

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
kernels = sum(n for module, n in compiled.items() if module.startswith("adjode") and module != "adjode.compile.adapters")
print(kernels, compiled["__main__"], repr(float(bar.u0[0])))
"""


def start(tmp_path, source, package=ROOT, **environment):
    """A process that runs a script, with a cache folder of its own in `tmp_path`."""
    script = tmp_path / "script.py"
    script.write_text(source)
    variables = {
        **os.environ,
        "PYTHONPATH": str(package),
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "ADJODE_PRECOMPILED": str(tmp_path),
        **environment,
    }
    done = subprocess.run([sys.executable, str(script)], env=variables, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return done


def run(tmp_path, package=ROOT, **environment):
    done = start(tmp_path, SCRIPT, package, **environment)
    assert Path(done.stderr.split()[0]).is_relative_to(package)
    kernels, callbacks, value = done.stdout.split()
    return int(kernels), int(callbacks), float(value)


def files(tmp_path):
    return {
        p.relative_to(tmp_path): (p.stat().st_mtime_ns, p.stat().st_size) for p in (tmp_path / "cache").rglob("*") if p.is_file()
    }


@pytest.mark.jitted
@pytest.mark.slow
def test_cache_across_processes_and_changes(tmp_path):
    package = tmp_path / "copy"
    shutil.copytree(ROOT / "adjode", package / "adjode", ignore=shutil.ignore_patterns("__pycache__"))

    kernels, callbacks, value = run(tmp_path, package)
    assert kernels > 5 and callbacks > 0 and value == pytest.approx(0.6065, abs=1e-3)
    stored = files(tmp_path)
    # a file for each of solve, evaluate, slopes, two adjoints and the program; a file and a mark for f and vjp; the pipeline's mark
    assert len(stored) == 6 + 4 + 1

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


# Callbacks that call into Numba's runtime, BLAS and LAPACK, and tables of hashes.
RUNTIME = """
import os, sys
import numpy as np
import adjode

def f(t, u, theta, du):
    rates = [theta[i] for i in range(2)]
    where = {"first": 0, "second": 1}
    A = np.array([[2.0, rates[0]], [rates[1], 3.0]])
    x = np.linalg.solve(A, u) + np.dot(A, u)
    du[where["first"]], du[where["second"]] = -x[0], -x[1]

def vjp(t, u, theta, lam, u_bar, theta_bar):
    A = np.array([[2.0, theta[0]], [theta[1], 3.0]])
    x, mu = np.linalg.solve(A, u), np.linalg.solve(A.T.copy(), lam)
    u_bar[:] = -mu - np.dot(A.T.copy(), lam)
    theta_bar[0] = mu[0] * x[1] - lam[0] * u[1]
    theta_bar[1] = mu[1] * x[0] - lam[1] * u[0]

dynamics = adjode.Dynamics(f, vjp, fused=bool(os.environ["FUSED"]))
value, bar = adjode.value_and_gradient(dynamics, adjode.losses.FinalState([1.0, 0.0]), (0.0, 1.0))([1.0, 2.0], [0.3, 0.4])
print("numba.np.arraymath" in sys.modules, value, *bar.theta)
"""


@pytest.mark.jitted
@pytest.mark.parametrize("fused", ["", "yes"])
def test_what_is_loaded_needs_nothing_that_only_compiling_needs(tmp_path, fused):
    """Numba's rules for arrays take a quarter of a second to import and to list."""
    first, second = (
        start(tmp_path, RUNTIME, FUSED=fused, ADJODE_PRECOMPILED=str(cache.precompiled_folder())).stdout.split() for _ in range(2)
    )
    assert first[0] == "True" and second[0] == "False"
    assert second[1:] == first[1:] and float(first[1]) > 0


@pytest.mark.jitted
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


@pytest.mark.jitted
def test_settings_that_change_machine_code_have_their_own_folder(monkeypatch):
    cache.source_hash.cache_clear()
    plain = cache.source_hash()
    monkeypatch.setattr(cache.config, "BOUNDSCHECK", 1 - (cache.config.BOUNDSCHECK or 0))
    cache.source_hash.cache_clear()
    assert cache.source_hash() != plain
    monkeypatch.undo()
    cache.source_hash.cache_clear()
    assert cache.source_hash() == plain


def test_rooms_that_are_no_part_of_the_hash_hold_no_kernels():
    for room in cache._WITHOUT_KERNELS:
        for path in (trusted.PACKAGE / room).rglob("*.py"):
            assert "numba" not in path.read_text(), path


def test_only_the_last_few_versions_are_kept(tmp_path, monkeypatch):
    for k in range(7):
        monkeypatch.setattr(cache, "source_hash", lambda k=k: f"{k:016d}")
        cache.claimed(tmp_path)
        folder = tmp_path / f"adjode-{k:016d}"
        os.utime(folder, (k, k))
    assert sorted(p.name[-1] for p in tmp_path.iterdir()) == ["3", "4", "5", "6"]


def test_bytes_are_kept_where_that_is_possible(tmp_path, monkeypatch):
    monkeypatch.setattr(cache.config, "CACHE_DIR", str(tmp_path))
    assert cache.kept_bytes("some.bc") is None
    cache.keep_bytes("some.bc", b"bitcode")
    assert cache.kept_bytes("some.bc") == b"bitcode"
    (file,) = tmp_path.glob("*/*")  # nothing half written beside it
    plain = file.with_name("plain")
    plain.touch()
    assert file.stat().st_mode == plain.stat().st_mode  # readable by whom the cache is for

    not_a_folder = tmp_path / "file"
    not_a_folder.touch()
    monkeypatch.setattr(cache.config, "CACHE_DIR", str(not_a_folder))
    cache.keep_bytes("other.bc", b"bitcode")
    assert cache.kept_bytes("other.bc") is None


def test_old_entries_go_whoever_else_deletes_them(tmp_path):
    for k in range(cache._KEPT_FILES + 1):
        file = tmp_path / f"solve.{k}.cpu.entry"
        file.touch()
        os.utime(file, (k + 1, k + 1))
    (tmp_path / "discrete-recorded.cpu.entry").touch()  # of no callbacks, so it stays
    cache.keep_newest(tmp_path)
    left = {p.name for p in tmp_path.iterdir()}
    assert len(left) == cache._KEPT_FILES + 1 and "solve.0.cpu.entry" not in left


# An entry and the bitcode of a pass, the smallest there are; says what was compiled.
SMALL = """
from adjode.compile.flags import i8, kernel
from adjode.compile.entries import entry
from adjode.compile.tiers import outline

def double(n):
    return 2 * n

@kernel
def seven(frame):
    return 7

made = []
doubled = entry(double, (i8,), "double")
bitcode = outline("seven", lambda: made.append("bitcode") or seven)
if doubled.stats.cache_misses:
    made.append("entry")
print(doubled(21), b"adjode.pass" in bitcode, *made)
"""
WARM, COLD = ["42", "True"], ["42", "True", "bitcode", "entry"]


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A cache that has what `SMALL` needs."""
    made = tmp_path_factory.mktemp("warm")
    assert start(made, SMALL).stdout.split() == COLD
    return made / "cache"


@pytest.fixture
def kept(warm, tmp_path):
    """A copy of it for one test, as the files of the entry and of the pass."""
    shutil.copytree(warm, tmp_path / "cache")
    return sorted([*(tmp_path / "cache").glob("*/double.*"), *(tmp_path / "cache").glob("*/*.bc")])


def modes(folder):
    return {stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*")) if path.is_dir()}


@pytest.mark.skipif(os.name == "nt", reason="no such modes")
def test_folders_are_the_users_alone_whatever_the_umask(tmp_path, monkeypatch):
    monkeypatch.setattr(cache.config, "CACHE_DIR", str(tmp_path / "new" / "cache"))
    umask = os.umask(0)
    try:
        cache.keep_bytes("some.bc", b"bitcode")
        cache.claimed(tmp_path / "precompiled", mode=0o755)
    finally:
        os.umask(umask)
    assert modes(tmp_path / "new") == {0o700} and modes(tmp_path / "precompiled") == {0o755}
    (file,) = (tmp_path / "new").glob("*/*/*")
    assert not file.stat().st_mode & 0o022


@pytest.mark.jitted
@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-1], lambda whole: b"", lambda whole: whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]]
)
def test_damaged_files_are_compiled_anew(tmp_path, kept, damage):
    whole = [file.read_bytes() for file in kept]
    for file, contents in zip(kept, whole, strict=True):
        file.write_bytes(damage(contents))
    assert start(tmp_path, SMALL).stdout.split() == COLD
    assert start(tmp_path, SMALL).stdout.split() == WARM


@pytest.mark.jitted
def test_a_file_is_not_taken_for_another(tmp_path, kept):
    shutil.copy(kept[1], kept[0])
    assert start(tmp_path, SMALL).stdout.split() == [*COLD[:2], "entry"]


class Planted:
    """Makes a file when it is read."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.jitted
@pytest.mark.skipif(os.name == "nt", reason="no such modes")
@pytest.mark.parametrize("closed", [False, True])
def test_what_others_may_have_planted_is_not_executed(tmp_path, kept, closed):
    mark = tmp_path / "executed"
    planted = pickle.dumps(Planted(mark))
    kept[0].write_bytes(trusted._digest(kept[0].name, planted) + planted)
    kept[0].parent.chmod(0o700 if closed else 0o777)
    before = [file.read_bytes() for file in kept]
    done = start(tmp_path, SMALL)
    assert done.stdout.split()[:2] == WARM
    if closed:  # the user has written it: this is what it does
        assert mark.exists() and done.stderr == ""
        return
    assert not mark.exists() and done.stdout.split() == COLD
    assert done.stderr.count("RuntimeWarning") == 1 and f"others may write to {kept[0].parent}" in done.stderr
    assert [file.read_bytes() for file in kept] == before


@pytest.mark.jitted
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_files_of_others_are_left_alone(tmp_path, kept):
    os.chown(kept[0], 12345, -1)
    before = kept[0].read_bytes()
    done = start(tmp_path, SMALL)
    assert done.stdout.split() == [*COLD[:2], "entry"]
    assert done.stderr.count("RuntimeWarning") == 1 and f"{kept[0]} belongs to user 12345" in done.stderr
    assert kept[0].read_bytes() == before


@pytest.mark.jitted
def test_precompiled_kernels_serve_where_no_folder_can_be_used(tmp_path, kept):
    (tmp_path / "cache").rename(tmp_path / "precompiled")
    (tmp_path / "file").touch()
    done = start(tmp_path, SMALL, NUMBA_CACHE_DIR=str(tmp_path / "file"), ADJODE_PRECOMPILED=str(tmp_path / "precompiled"))
    assert done.stdout.split() == WARM and done.stderr == ""


@pytest.mark.jitted
def test_what_has_large_constants_is_compiled_by_every_process(tmp_path):
    source = """
import numpy as np
from adjode.compile.entries import entry
from adjode.compile.flags import i8, linked

table = np.full(1_000_001, 3.0)  # so large that Numba compiles its address in

@linked
def look_up(k):
    return table[k]

found = entry(lambda k: look_up(k), (i8,), "look_up", "key")
print(found(1_000_000), sum(found.stats.cache_misses.values()))
"""
    for _ in range(2):
        done = start(tmp_path, source)
        assert done.stdout.split() == ["3.0", "1"] and done.stderr == ""
