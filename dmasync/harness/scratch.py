"""Scratch folders: gone when their block ends, and reclaimed by a later call where a kill left them behind.

Each holds a file that its owner keeps locked. The kernel drops the lock with the process, however that ends, so a
folder whose file can be locked has no owner any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_OWNED = ".owner"


@contextlib.contextmanager
def scratch_folder(purpose: str, parent: str | None = None) -> Iterator[Path]:
    """A folder ``dmasync-PURPOSE-…`` in *parent* (default: where temporary files go)."""
    place = Path(parent or tempfile.gettempdir())
    reclaim(place)
    with tempfile.TemporaryDirectory(prefix=f"dmasync-{purpose}-", dir=place) as name:
        folder = Path(name)
        with (folder / f"{_OWNED}.new").open("w") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX)
            # Under this name only when it is locked: until then nobody may take the folder for abandoned.
            (folder / f"{_OWNED}.new").rename(folder / _OWNED)
            yield folder


def reclaim(place: Path) -> list[Path]:
    """Remove this user's scratch folders in *place* whose owners are gone; return them."""
    gone = []
    with contextlib.suppress(OSError):
        for folder in place.glob("dmasync-*-*"):
            if _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)
                gone.append(folder)
    return gone


def _is_abandoned(folder: Path) -> bool:
    try:
        status = folder.lstat()
        # In a folder that all may write to, a link or another's folder of such a name is none of ours.
        if folder.is_symlink() or status.st_uid != os.geteuid():
            return False
        with (folder / _OWNED).open("r+") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        return False
