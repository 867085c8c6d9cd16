"""What a storage holds, without reading every file every time.

The index is one file in the storage, and nothing depends on it: an entry counts only while the file's size, times and
inode are what they were when it was read, and an index that is cut off, of another version or not there makes the files
be read again. Whoever lists writes a new one in its place; of two at once the last stays, which costs the other's
entries and no more. Where it cannot be written, every list reads the files.

Damaged files are never in it: what is wrong with them may be that this user may not read them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import astuple
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from dmasync.harness import old_names
from dmasync.harness.exit_status import CommandError
from dmasync.harness.runs.kept import KeptRun, Kind, Summary
from dmasync.harness.runs.writing import write_atomically

INDEX_NAME = ".dmasync-index"
INDEX_VERSION = 1
_SAVE_EVERY = 10.0
"""Seconds of reading after which the index is written: whoever is interrupted does not start again."""
_TICK = 2_000_000_000
"""Nanoseconds: the coarsest times of a file system (FAT's). A file this young could change and keep its times."""


class Stamp(NamedTuple):
    """What tells that a file is the one that was read."""

    size: int
    modified: int
    changed: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """OSError where the file is gone."""
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def indexed(folder: Path, files: Iterable[Path]) -> list[KeptRun]:
    """Each of *files*, which lie in *folder*, from the index where it knows them; those that went away are left out."""
    known = _load(folder)
    inside = os.path.join(folder, "")
    entries: dict[str, tuple[Stamp, Summary]] = {}
    found: list[KeptRun] = []
    is_new = is_whole = False
    saved = time.monotonic()
    try:
        for path in files:
            name = str(path)[len(inside) :]
            try:
                stamp = Stamp.of(path)
            except OSError:
                if os.path.lexists(path):
                    found.append(KeptRun.read(path))
                continue
            entry = known.get(name)
            if entry is not None and entry[0] == stamp:
                entries[name] = entry
                found.append(KeptRun(path, entry[1]))
                continue
            kept = KeptRun.read(path)
            if kept.summary is None and not os.path.lexists(path):
                continue
            found.append(kept)
            if kept.summary is not None and _is_still(path, stamp):
                entries[name] = (stamp, kept.summary)
                is_new = True
                if time.monotonic() - saved > _SAVE_EVERY:
                    _save(folder, {**known, **entries})
                    saved = time.monotonic()
        is_whole = True
    finally:
        if is_new or (is_whole and len(entries) < len(known)):
            _save(folder, entries if is_whole else {**known, **entries})
    return found


def _is_still(path: Path, stamp: Stamp) -> bool:
    with suppress(OSError):
        return Stamp.of(path) == stamp
    return False


def _load(folder: Path) -> dict[str, tuple[Stamp, Summary]]:
    """The entries of the index, none where it cannot be trusted."""
    try:
        descriptor = os.open(folder / INDEX_NAME, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return {}
            head, _, body = file.read().partition(b"\n")
        if head != _head(body):
            return {}
        # Times of one file system are compared with one another: its clock may not be this machine's.
        settled = status.st_mtime_ns - _TICK
        found = {name: (Stamp(*stamp), _summary(told)) for name, stamp, told in json.loads(body)}
        return {name: entry for name, entry in found.items() if max(entry[0].changed, entry[0].modified) < settled}
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def _save(folder: Path, entries: dict[str, tuple[Stamp, Summary]]) -> None:
    path = folder / INDEX_NAME
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        return  # somebody else's
    body = json.dumps([[name, stamp, _told(summary)] for name, (stamp, summary) in entries.items()]).encode()
    with suppress(CommandError, OSError):
        write_atomically(path, _head(body) + b"\n" + body)


def _head(body: bytes) -> bytes:
    """The first line: which index this is, which code read the files, and the digest of the rest."""
    head = {"format": "dmasync-index", "version": INDEX_VERSION, "reader": _reader()}
    return json.dumps({**head, "sha256": hashlib.sha256(body).hexdigest()}).encode()


@functools.cache
def _reader() -> str:
    """The digest of the code that says what a file is: another version of it has to look for itself."""
    digest = hashlib.sha256()
    for path in (*sorted(Path(__file__).parent.glob("*.py")), Path(old_names.__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _told(summary: Summary) -> list[Any]:
    moment = summary.moment.isoformat() if summary.moment else None
    return [list(astuple(summary.kind)), summary.kernel, moment, summary.rows]


def _summary(told: list[Any]) -> Summary:
    kind, kernel, moment, rows = told
    return Summary(_kind(*kind), kernel, datetime.fromisoformat(moment) if moment else None, rows)


_kind = functools.lru_cache(maxsize=1024)(Kind)
"""Thousands of runs have few kinds between them."""
