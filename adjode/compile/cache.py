"""The disk cache of compiled code: one folder for each state of the sources.

Numba's cache=True looks only at the file of the function itself, and so would serve a stale entry after a change in a kernel that
the entry calls. Here the folder's name is a hash of everything that shapes the machine code. A file is an entry, the bitcode of a
pass, or a mark; `trusted` says which files are read.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import config

from adjode.compile import trusted
from adjode.compile.trusted import PACKAGE
from adjode.compile.versions import warn_lost

_WITHOUT_KERNELS = ("frontends", "petab", "plots")  # rooms that no kernel imports and that hold none
_KEPT_FOLDERS = 4  # versions of the sources whose kernels are kept; older ones are deleted
_KEPT_FILES = 1000  # entries that belong to the callbacks of one user or another, of some ten kilobytes each


@functools.cache
def source_hash() -> str:
    """Hash of the sources that kernels are made of, of the compilers' versions and of the settings that change machine code."""
    digest = hashlib.sha256()
    for name in sorted(_sources()):
        with open(os.path.join(PACKAGE, name), "rb") as file:
            digest.update(name.encode() + b"\0" + file.read() + b"\0")
    settings = (numba.__version__, llvmlite.__version__, sys.version_info[:3], config.OPT, config.BOUNDSCHECK)
    digest.update(repr(settings).encode())
    return digest.hexdigest()[:16]


def _sources() -> Iterator[str]:
    for folder, rooms, files in os.walk(PACKAGE):
        here = os.path.relpath(folder, PACKAGE)
        if here == ".":
            rooms[:] = set(rooms) - set(_WITHOUT_KERNELS)
        rooms[:] = set(rooms) - {"__pycache__", "_precompiled"}
        yield from (os.path.normpath(os.path.join(here, file)) for file in files if file.endswith(".py"))


class EntryCache:
    """What Numba asks for a compiled entry before it compiles one, and hands one to afterwards.

    `key` stands for the callbacks that are part of the entry; it is "" where there are none.
    """

    cache_path = None

    def __init__(self, name: str, key: str):
        self._name = f"{name}.{key}" if key else name
        self._keyed = bool(key)

    def _file(self, signature: Any, codegen: Any) -> str:
        made_for = repr((signature, codegen.magic_tuple())).encode()  # the latter names the CPU
        return f"{self._name}.{hashlib.sha256(made_for).hexdigest()[:16]}.entry"

    def has(self, sig: Any, dispatcher: Any) -> bool:
        """Whether there is a file for a signature, whatever is in it."""
        try:
            name = self._file(sig, dispatcher.targetctx.codegen())
        except Exception:  # which `load_overload` reports
            return False
        return any((folder / name).is_file() for folder in _folders())

    def load_overload(self, sig, target_context):
        """The compiled entry for a signature, or None."""
        try:
            contents = kept_bytes(self._file(sig, target_context.codegen()))
            payload = None if contents is None else _unpickled(contents)
            return None if payload is None else _rebuilt(target_context, payload)
        except Exception as error:
            warn_lost("Compiled kernels cannot be read from disk", error)
            return None

    def save_overload(self, sig, cres):
        try:
            if cres.library.has_dynamic_globals:  # addresses of this process
                return
            keep_bytes(self._file(sig, cres.codegen), _reduced(cres))
        except Exception as error:
            warn_lost("Compiled kernels cannot be kept on disk", error)
            return
        folder = own_folder() if self._keyed else None
        if folder is not None:
            keep_newest(folder)


def _reduced(compiled: Any) -> bytes:
    from numba.core.serialize import dumps  # here and below: what may not be there costs the cache, not the import

    # Environments name the modules of the functions inside, to be imported on loading; those made by exec have none.
    *payload, environments = compiled._reduce()
    return dumps((*payload, tuple(env for env in environments if env.globals.get("__name__") in sys.modules)))


def _unpickled(contents: bytes) -> Any:
    try:
        return pickle.loads(contents)
    except Exception:  # as when a module of the user's is not there any more, or is another one
        return None


def _rebuilt(target_context: Any, payload: tuple) -> Any:
    from numba.core.compiler import CompileResult
    from numba.core.runtime import rtsys
    from numba.cpython import hashing  # noqa: F401  (has a symbol too)

    rtsys.initialize(target_context)  # symbols that compiled code refers to; what Numba knows otherwise is for compiling alone
    return CompileResult._rebuild(target_context, *payload)


def kept_bytes(name: str) -> bytes | None:
    """The file of this name that this process's cache has, or `python -m adjode.precompile` has made; None if there is none."""
    return next((contents for folder in _folders() if (contents := trusted.read(folder, name)) is not None), None)


def _folders() -> Iterator[Path]:
    own = own_folder()
    if own is not None:
        yield own
    yield precompiled_folder() / _folder_name()


def keep_bytes(name: str, contents: bytes) -> None:
    """Write a file into the cache, whole or not at all, whoever else writes it; nothing where there is no folder for it."""
    folder = own_folder()
    if folder is not None:
        trusted.write(folder, name, contents)


def precompiled_folder() -> Path:
    """Where `python -m adjode.precompile` keeps kernels."""
    return Path(os.environ.get("ADJODE_PRECOMPILED", PACKAGE / "_precompiled"))


def _folder_name() -> str:
    return f"adjode-{source_hash()}"


def own_folder() -> Path | None:
    """The folder to write to: in NUMBA_CACHE_DIR, else beside the package, else in the user's cache; None if none can be used."""
    for parent in [Path(config.CACHE_DIR)] if config.CACHE_DIR else [PACKAGE / "__pycache__", _users_cache()]:
        try:
            return claimed(parent)
        except OSError as error:
            trusted.report(parent / _folder_name(), error)
    return None


def _users_cache() -> Path:
    homes = {"win32": os.environ.get("LOCALAPPDATA"), "darwin": "~/Library/Caches"}
    return Path(homes.get(sys.platform) or os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "adjode"


def claimed(parent: Path, mode: int = 0o700) -> Path:
    """The folder in `parent` for these sources, made with this mode; an OSError if it cannot be trusted or written to."""
    folder = parent / _folder_name()
    fresh = not folder.is_dir()
    trusted.claim(folder, mode)
    if fresh:
        for stale in _by_age(parent, "adjode-" + "?" * 16)[:-_KEPT_FOLDERS]:
            shutil.rmtree(stale, ignore_errors=True)
    return folder


def _by_age(folder: Path, pattern: str) -> list[Path]:
    """The user's own files of this pattern, the oldest first, without those that another process deletes meanwhile."""
    changed = {}
    for file in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):
            status = file.lstat()
            if not hasattr(os, "geteuid") or status.st_uid == os.geteuid():
                changed[file] = status.st_mtime
    return sorted(changed, key=changed.__getitem__)


def keep_newest(folder: Path) -> None:
    """Entries with a key come and go with the user's callbacks: delete the oldest."""
    for stale in _by_age(folder, "*.*.*.entry")[:-_KEPT_FILES]:
        stale.unlink(missing_ok=True)
