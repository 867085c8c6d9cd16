"""Where a store is: in a folder of this machine, or of a bucket (``s3://BUCKET/FOLDER``), which fsspec reaches.

A bucket's folder has the methods of a :class:`~pathlib.Path` that a store uses. Three things differ there: nobody makes
or removes folders, a file arrives whole or not at all by itself, and nothing can be locked.
"""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.runs.reading import printable
from dmasync.harness.runs.writing import made_folder, no_empty_folder, replacing


def store_folder(given: str) -> Path:
    """The folder that *given* names; nothing is asked of it yet.

    CommandError: 4 where the packages for such an address are not installed, 2 where there are none.
    """
    kind, separator, rest = given.partition("://")
    if not separator:
        return Path(given)
    if kind == "file":
        return Path(rest)
    try:
        from fsspec import get_filesystem_class  # type: ignore[import-untyped]  # it has no types
        from upath import UPath

        get_filesystem_class(kind)  # loads the service's own package
    except ImportError as error:
        package = printable(error) if error.name is None else error.name
        raise CommandError(
            f"{printable(given)}: a store in a bucket needs more ({package}): python3 -m pip install '.[bucket]' in a "
            "clone, or universal-pathlib and s3fs (for gs:// gcsfs)",
            ExitStatus.SKIPPED,
        ) from None
    except ValueError as error:
        raise CommandError(
            f"{printable(given)}: no such kind of address ({printable(error)}): name a folder, or a bucket's as "
            "s3://BUCKET/FOLDER"
        ) from None
    # What another machine adds meanwhile is there as soon as it is added.
    return cast("Path", UPath(given, use_listings_cache=False))


def in_bucket(folder: Path) -> bool:
    return not isinstance(folder, Path)


def file_system(folder: Path) -> Any:
    """fsspec's, of a bucket's folder."""
    return cast("Any", folder).fs


@contextlib.contextmanager
def answering(folder: Path) -> Iterator[None]:
    """What the service of a bucket's *folder* raises in the block is a CommandError in a line."""
    try:
        yield
    except Exception as error:
        # Each service's package has exceptions of its own; one of Python's is a mistake here, unless it is an OSError.
        if not in_bucket(folder) or isinstance(error, CommandError):
            raise
        if type(error).__module__ == "builtins" and not isinstance(error, OSError):
            raise
        raise CommandError(f"{printable(folder)}: {printable(_line(error))}") from None


def _line(error: BaseException) -> str:
    told = str(error).strip().splitlines()
    return told[0] if told else type(error).__name__


def writable(folder: Path) -> Path:
    """*folder*, made if it is not there; CommandError where nothing can be written in it."""
    if not in_bucket(folder):
        return made_folder(folder)
    tried = folder / f".dmasync-{secrets.token_hex(8)}.partial"
    with answering(folder):
        tried.write_bytes(b"dmasync")
        tried.unlink()
    return folder


def left_as_found(folder: Path) -> contextlib.AbstractContextManager[None]:
    """A folder of this machine that was not there and is empty behind the block is gone again."""
    return contextlib.nullcontext() if in_bucket(folder) else no_empty_folder(folder)


@contextlib.contextmanager
def arriving_whole(path: Path) -> Iterator[Path]:
    """A file of this machine for the block to write, which is then at *path*, or nowhere where the block fails."""
    if not in_bucket(path):
        with replacing(path) as place:
            yield place
        return
    with tempfile.TemporaryDirectory(prefix="dmasync-") as folder:
        place = Path(folder) / path.name
        yield place
        file_system(path).put_file(str(place), cast("Any", path).path)
