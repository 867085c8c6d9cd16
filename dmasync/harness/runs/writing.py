"""Write a result so that it is there whole or not at all: a full disk or a kill leaves the old one."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from dmasync.harness.exit_status import CommandError

_NOT_BESIDE = (errno.EACCES, errno.EPERM, errno.EROFS)
"""A folder in which nothing can be made, though a file in it may be open to all."""


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Put *content* at *path*, as :func:`replacing` does."""
    with replacing(path) as place:
        place.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Where the block is to write what *path* shall hold: a temporary file beside it, which takes its place when the
    block ends. A device or a pipe, and a file in a folder where nothing can be made, is written to directly.

    CommandError (status 2) names the file and the system's reason; what was at *path* is then unchanged.
    """
    target = Path(os.path.realpath(path))  # a symbolic link stays one
    try:
        beside = _beside(target)
        try:
            yield beside or target
            if beside is not None:
                _take_place(beside, target)
        finally:
            if beside is not None:
                beside.unlink(missing_ok=True)
    except OSError as error:
        raise _refusal("", path, error) from None


def refuse_unwritable(
    outputs: Mapping[str, str | os.PathLike[str] | None], inputs: Iterable[str | os.PathLike[str]] = ()
) -> None:
    """Before any work: CommandError if one of *outputs* (option: path, None where it was not given) cannot be written,
    is one of the *inputs*, or is another one of the outputs. Nothing is changed, and nothing new is left.
    """
    read = {os.path.realpath(path) for path in inputs}
    taken: dict[str, str] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        target = Path(os.path.realpath(path))
        if str(target) in read:
            raise CommandError(f"{option} would overwrite its own input {os.fspath(path)!r}: name another file")
        if not target.exists() or target.is_file():
            other = taken.setdefault(str(target), option)
            if other != option:
                raise CommandError(
                    f"{option} {os.fspath(path)!r} is what {other} writes already: give each a file of its own"
                )
        try:
            _try(target)
        except OSError as error:
            raise _refusal(f"{option} ", path, error) from None


def made_folder(path: Path) -> Path:
    """*path* as a folder to write to, made if it is not there; CommandError (status 2) if it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"the folder {path} cannot be made: {error.strerror}") from None
    try:
        _new_file(path).unlink()
    except OSError as error:
        raise CommandError(f"the folder {path} cannot be written: {error.strerror}") from None
    return path


@contextlib.contextmanager
def no_empty_folder(path: Path) -> Iterator[None]:
    """*path* and the folders above it that are not there yet are gone again where the block leaves them empty."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # one that is not empty ends it
            for folder in missing:
                folder.rmdir()


def _refusal(option: str, path: str | os.PathLike[str], error: OSError) -> CommandError:
    parent = Path(os.path.realpath(path)).parent
    missing = f": {parent}" if error.errno == errno.ENOENT and not parent.exists() else ""
    return CommandError(f"{option}{os.fspath(path)!r} cannot be written: {error.strerror}{missing}")


def _try(target: Path) -> None:
    """OSError unless *target* can be written. Who may and what fits, only the kernel knows: make what it takes."""
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if target.exists() and not target.is_file():
        # Whoever reads a pipe would take an open and close for the end of it.
        if not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return
    if target.exists():
        os.close(os.open(target, os.O_WRONLY | os.O_CLOEXEC))
    beside = _beside(target)
    if beside is not None:
        beside.unlink()


def _beside(target: Path) -> Path | None:
    """A new file in the folder of *target*, or None where that must be written itself."""
    if target.exists() and not target.is_file():
        return None
    try:
        return _new_file(target.parent)
    except OSError as error:
        if error.errno in _NOT_BESIDE and target.is_file():
            return None
        raise


def _new_file(folder: Path) -> Path:
    path = folder / f".dmasync-{secrets.token_hex(8)}.partial"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    return path


def _take_place(beside: Path, target: Path) -> None:
    """What *beside* holds is on the disk before it is under the name of *target*, whose owner and mode it takes."""
    descriptor = os.open(beside, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
        with contextlib.suppress(OSError):
            old = target.stat()
            with contextlib.suppress(OSError):
                os.fchown(descriptor, old.st_uid, old.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
    finally:
        os.close(descriptor)
    os.replace(beside, target)
