"""The cache folder: what was fetched or built once, checked, and safe with several processes at work.

An entry is a folder. It is made under another name beside its place and renamed when it is whole, so that a reader sees
all of it or nothing. A lock per entry makes a second process wait for the first instead of doing the work again.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs
from filelock import FileLock

from dmasync.harness.exit_status import CommandError, ExitStatus

MANIFEST = "dmasync-manifest.json"
"""Written last into an entry: the SHA-256 of each file that is checked before the entry is used."""


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class CacheError(CommandError):
    """Nothing can be kept in the cache folder."""


class FullDiskError(CacheError):
    """There is no room left where a virtual machine's parts go: the message names the folder."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        setting = "TMPDIR" if os.fspath(folder) == os.environ.get("TMPDIR", "/tmp") else "XDG_CACHE_HOME"  # noqa: S108
        super().__init__(
            f"the disk of {os.fspath(folder)} is full; make room there, or set {setting} to a folder with room"
        )


def cache_directory() -> Path:
    """Return this user's cache folder for dmasync: ``$XDG_CACHE_HOME/dmasync``, as a rule ``~/.cache/dmasync``."""
    return platformdirs.user_cache_path("dmasync", appauthor=False)


def cannot_write() -> str:
    """Why nothing can be kept in the cache folder, in the system's words; empty where it can. Nothing is left there."""
    folder = cache_directory()
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        with tempfile.TemporaryDirectory(prefix=".dmasync-probe-", dir=folder):
            return ""
    except OSError as error:
        return f"{folder}: {error.strerror}"


def entry(path: Path, build: Callable[[Path], list[str]]) -> Path:
    """Return the cache entry *path*, calling *build* for it if it is missing or damaged.

    *build* fills the empty folder that it is given and returns the names, relative to it, of the files whose content
    must be checked before each use. Raises what *build* raises, and :class:`CommandError` where the cache cannot be
    written; nothing half made is left in either case.
    """
    if is_whole(path):
        return path
    with locked(path):
        if is_whole(path):  # another process made it while this one waited
            return path
        discard(path)
        for left_over in path.parent.glob(f".{glob.escape(path.name)}.*"):
            if left_over.is_dir():  # of a process that was killed: whoever is at work holds the lock
                shutil.rmtree(left_over, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            scratch.chmod(0o755)
            checked = build(scratch)
            manifest = {name: _digest(scratch / name) for name in checked}
            (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            scratch.rename(path)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    return path


def is_whole(path: Path) -> bool:
    """Tell whether the entry is there and its checked files are what they were when it was made."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        return all(_digest(path / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError, AttributeError):
        return False


def discard(path: Path) -> None:
    """Remove an entry; its name is given up first, so that nobody finds half of it."""
    if not path.exists():
        return
    doomed = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    path.rename(doomed / "entry")
    shutil.rmtree(doomed, ignore_errors=True)


def clear() -> list[Path]:
    """Remove everything that was fetched or built: each entry under its lock, so that no process at work loses its own
    half way. Returns what was removed.
    """
    removed = []
    for group in ("kernels/*/*", "built/*/*", "objects/*/*", "trees/*", "roots/*", "apt/*"):
        for path in sorted(cache_directory().glob(group)):
            if path.name.startswith("."):
                continue
            with locked(path):
                discard(path)
            removed.append(path)
    return removed


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that belongs to *path*; it goes with the process, however that ends."""
    lock = FileLock(path.parent / f".{path.name}.lock", mode=0o644)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise CacheError(
            f"the cache folder {path.parent} cannot be written ({error.strerror}); set XDG_CACHE_HOME to one that can",
            ExitStatus.UNUSABLE,
        ) from error
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise FullDiskError(path.parent) from error
        raise
    finally:
        lock.release()


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
