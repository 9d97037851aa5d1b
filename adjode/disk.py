"""The disk cache of compiled code: one folder for each state of the sources.

Numba's cache=True looks only at the file of the function itself, and so would serve a stale entry after a change in a kernel that
the entry calls. Here the folder's name is a hash of everything that shapes the machine code.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import sys
import threading
from pathlib import Path

import llvmlite
import numba
from numba.core import caching, config
from numba.misc.appdirs import AppDirs

_KEPT_FILES = 400  # of entries that belong to the callbacks of one user or another


@functools.cache
def source_hash() -> str:
    """Hash of the sources of this package, of the compilers' versions and of the settings that change machine code."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    settings = (numba.__version__, llvmlite.__version__, sys.version_info[:3], config.OPT, config.BOUNDSCHECK)
    digest.update(repr(settings).encode())
    return digest.hexdigest()[:16]


class _EntryLocator(caching._CacheLocator):
    """A folder named by `source_hash` in NUMBA_CACHE_DIR, else beside the package, else in the user's cache."""

    _KEPT_FOLDERS = 4  # versions of the sources whose kernels are kept; older ones are deleted

    def __init__(self, parent: str):
        self._path = os.path.join(parent, f"adjode-{source_hash()}")

    @classmethod
    def from_function(cls, py_func, py_file):
        here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__pycache__")
        user = AppDirs(appname="adjode", appauthor=False).user_cache_dir
        for parent in [config.CACHE_DIR] if config.CACHE_DIR else [here, user]:
            locator = cls(parent)
            try:
                locator.ensure_cache_path()
            except OSError:
                continue
            return locator
        return None

    def ensure_cache_path(self):
        fresh = not os.path.isdir(self._path)
        super().ensure_cache_path()
        if fresh:
            for stale in _by_age(Path(self._path).parent, "adjode-" + "?" * 16)[: -self._KEPT_FOLDERS]:
                shutil.rmtree(stale, ignore_errors=True)

    def get_cache_path(self):
        return self._path

    def get_source_stamp(self):
        return source_hash()

    def get_disambiguator(self):
        return "entry"


class _EntryCacheImpl(caching.CompileResultCacheImpl):
    _locator_classes = [_EntryLocator]

    def reduce(self, data):
        # Environments name the modules of the functions inside, to be imported on loading; those made by exec have none.
        *payload, environments = super().reduce(data)
        return *payload, tuple(env for env in environments if env.globals.get("__name__") in sys.modules)


class EntryCache(caching.FunctionCache):
    _impl_class = _EntryCacheImpl

    def _index_key(self, sig, codegen):
        # Numba's own key pickles closures, and a closed-over kernel pickles differently in every process. The folder
        # already stands for the sources, and the file's name for the entry.
        return sig, codegen.magic_tuple()

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context) or self._load_precompiled(sig, target_context)
        except ImportError:  # a module of the user's that this process does not have
            return None

    def _load_precompiled(self, sig, target_context):
        try:
            return _PrecompiledCache(self._py_func).load_overload(sig, target_context)
        except RuntimeError:  # there are none
            return None


class _PrecompiledLocator(_EntryLocator):
    @classmethod
    def from_function(cls, py_func, py_file):
        locator = cls(str(precompiled_folder()))
        return locator if os.path.isdir(locator.get_cache_path()) else None


class _PrecompiledCacheImpl(_EntryCacheImpl):
    _locator_classes = [_PrecompiledLocator]


class _PrecompiledCache(EntryCache):
    _impl_class = _PrecompiledCacheImpl

    def _load_precompiled(self, sig, target_context):
        return None


def precompiled_folder() -> Path:
    """Where `python -m adjode.precompile` keeps kernels."""
    return Path(os.environ.get("ADJODE_PRECOMPILED", Path(__file__).parent / "_precompiled"))


def _by_age(folder: Path, pattern: str) -> list[Path]:
    """The files of this pattern, the oldest first; those that another process deletes meanwhile count as the oldest."""

    def changed(file: Path) -> float:
        with contextlib.suppress(FileNotFoundError):
            return file.stat().st_mtime
        return 0.0

    return sorted(folder.glob(pattern), key=changed)


def keep_newest(folder: Path) -> None:
    """Entries with a key come and go with the user's callbacks: delete the oldest."""
    for stale in _by_age(folder, "*-*-entry.*")[:-_KEPT_FILES]:
        stale.unlink(missing_ok=True)


def kept_bytes(name: str) -> bytes | None:
    """The file of this name that this process's cache has, or `python -m adjode.precompile` has made; None if there is none."""
    for kind in (_EntryLocator, _PrecompiledLocator):
        locator = kind.from_function(None, None)
        file = None if locator is None else Path(locator.get_cache_path()) / name
        if file is not None and file.exists():
            return file.read_bytes()
    return None


def keep_bytes(name: str, content: bytes) -> None:
    """Write a file into the cache, whole or not at all, whoever else writes it; nothing where there is no writable folder."""
    locator = _EntryLocator.from_function(None, None)
    if locator is None:
        return
    with contextlib.suppress(OSError):
        file = Path(locator.get_cache_path()) / name
        written = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        written.write_bytes(content)
        os.replace(written, file)


def mark_of(key: str | None) -> Path | None:
    """A file in the disk cache that stands for "the callbacks with this key compile"; None where nothing can be kept."""
    locator = _EntryLocator.from_function(None, None) if key and not config.DISABLE_JIT else None
    return None if locator is None else Path(locator.get_cache_path()) / f"callbacks-{key}.ok"
