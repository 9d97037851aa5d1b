"""Files that are code: read and written only where nobody else can have put or changed them, and read only whole.

Compiled kernels on disk are machine code and pickles: whoever can write one runs code as the next user that loads it. So a folder
of them is used only if it belongs to the user, to root or to the owner of this package, and only its owner may write to it; the
same goes for every file in it, looked at once it is open. Nobody else may be able to put another folder in its place either. Every
file begins with a digest of its name and contents, so that one cut short or altered is found before anything in it is used.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
import stat
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]

_OWNED = hasattr(os, "geteuid")  # Windows shows neither owners nor who may write
_PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_OTHERS = stat.S_IWGRP | stat.S_IWOTH

_reported: set[Path] = set()


class Untrusted(OSError):
    """Somebody else can have put this here."""


def report(folder: Path, error: OSError) -> None:
    """Say once for each folder that it is left alone because of an `Untrusted`; other errors are no news."""
    if isinstance(error, Untrusted) and folder not in _reported:
        _reported.add(folder)
        warnings.warn(
            f"adjode does not load the compiled kernels in {folder}, since {error}: they are code, and would run with your "
            "permissions. Delete what is not yours, remove write permission for others (chmod go-w), or name another folder "
            "(NUMBA_CACHE_DIR, ADJODE_PRECOMPILED).",
            RuntimeWarning,
            stacklevel=2,
        )


def claim(folder: Path, mode: int = 0o700) -> None:
    """Make the folder, and what is missing of its parents, unless it is there; an OSError if it cannot be trusted or written to."""
    with _opened(folder, mode):
        tempfile.TemporaryFile(dir=folder).close()


def read(folder: Path, name: str) -> bytes | None:
    """The contents of a file that `write` wrote; None if there is none, or none that is whole and can be trusted."""
    try:
        with _opened(folder) as at:
            path = name if at is not None else os.path.join(folder, name)
            _require_own(folder / name, os.stat(path, dir_fd=at, follow_symlinks=False))
            with open(os.open(path, os.O_RDONLY | _PLAIN, dir_fd=at), "rb") as file:
                _require_own(folder / name, os.fstat(file.fileno()))
                found = file.read()
            digest = _digest(name, b"")
            contents = found[len(digest) :]
            if found[: len(digest)] == _digest(name, contents):
                return contents
            os.unlink(path, dir_fd=at)
    except OSError as error:
        report(folder, error)
    return None


def write(folder: Path, name: str, contents: bytes) -> None:
    """Write a file whole or not at all, whoever else writes it; nothing where that is not possible."""
    try:
        with _opened(folder) as at:
            _replace(folder, at, name, contents)
    except OSError as error:
        report(folder, error)


def _replace(folder: Path, at: int | None, name: str, contents: bytes) -> None:
    unfinished = f"{name}.{secrets.token_hex(8)}"
    if at is None:
        name, unfinished = os.path.join(folder, name), os.path.join(folder, unfinished)
    else:
        with contextlib.suppress(FileNotFoundError):
            _require_own(folder / name, os.stat(name, dir_fd=at, follow_symlinks=False))
    try:
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN, 0o644, dir_fd=at), "wb") as file:
            file.write(_digest(os.path.basename(name), contents))
            file.write(contents)
        os.replace(unfinished, name, src_dir_fd=at, dst_dir_fd=at)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished, dir_fd=at)
        raise


def _digest(name: str, contents: bytes) -> bytes:
    digest = hashlib.sha256(name.encode() + b"\0")
    digest.update(contents)
    return digest.digest()


@contextlib.contextmanager
def _opened(folder: Path, mode: int | None = None) -> Iterator[int | None]:
    """The folder as a descriptor, which stays the same whatever is put in its place; None on Windows. Made if there is a `mode`."""
    if not _OWNED:
        if mode is not None:
            folder.mkdir(parents=True, exist_ok=True)
        yield None
        return
    _require_safe_way(folder)
    if mode is not None and not os.path.lexists(folder):
        _make(folder, mode)
    _require_own(folder, os.lstat(folder))
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _require_own(folder, os.fstat(descriptor))
        yield descriptor
    finally:
        os.close(descriptor)


def _make(folder: Path, mode: int) -> None:
    """What `mkdir(parents=True)` does, the parents with the same mode."""
    if not folder.parent.is_dir():
        _make(folder.parent, mode)
    folder.mkdir(mode, exist_ok=True)


def _owners() -> set[int]:
    """Whose files are trusted. Who owns the package can run code as its user anyway; root takes no such chance."""
    user = os.geteuid()
    return {0, user, PACKAGE.stat().st_uid} if user else {0}


def _require_own(path: Path, status: os.stat_result) -> None:
    if not _OWNED:
        return
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise Untrusted(f"{path} is a link or not a regular file")
    if status.st_uid not in _owners():
        raise Untrusted(f"{path} belongs to user {status.st_uid}")
    if status.st_mode & _OTHERS:
        raise Untrusted(f"others may write to {path}")


@functools.cache  # where it is safe it remains so, whatever others do
def _require_safe_way(folder: Path) -> None:
    """Raise an Untrusted if others can put a folder of their own in the place of this one."""
    for above in Path(os.path.abspath(folder)).parents:
        with contextlib.suppress(FileNotFoundError):
            status = above.lstat()
            if stat.S_ISLNK(status.st_mode) and status.st_uid not in _owners():
                raise Untrusted(f"the link {above} belongs to user {status.st_uid}")
    safe = {PACKAGE / "__pycache__", PACKAGE, *PACKAGE.parents}  # who may write there may change this package
    real = Path(os.path.realpath(folder.parent))
    for above in {real, *real.parents} - safe:
        with contextlib.suppress(FileNotFoundError):
            status = above.stat()
            sticky = status.st_mode & stat.S_ISVTX  # what is in it only its owner can move, as in /tmp
            alone = not status.st_mode & stat.S_IWOTH and _has_one_member(status.st_gid)
            if status.st_mode & _OTHERS and not sticky and not alone:
                raise Untrusted(f"others may write to {above}")


def _has_one_member(group_id: int) -> bool:
    """Whether a group is the one that many systems make for each user, so that its right to write is the user's own."""
    import grp  # not on Windows
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(group_id)
    except KeyError:
        return False
    return group_id == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
