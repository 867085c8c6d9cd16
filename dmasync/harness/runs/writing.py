"""Write a result so that it is there whole or not at all: a full disk or a kill leaves the old one."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from dmasync.harness.exit_status import CommandError, ExitStatus


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Put *content* at *path* by way of a temporary file beside it (a device or a pipe: directly).

    CommandError (status 2) names the file and the system's reason; what was at *path* is then unchanged.
    """
    data = content.encode() if isinstance(content, str) else content
    target = Path(os.path.realpath(path))  # a symbolic link stays one
    try:
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            target.write_bytes(data)
        else:
            _replace(target, data)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}", ExitStatus.UNUSABLE) from None


def refuse_unwritable(outputs: Iterable[str | os.PathLike[str]], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Before any work: CommandError if an output cannot be written, or is one of the inputs."""
    read = {os.path.realpath(path) for path in inputs}
    for path in outputs:
        target = Path(os.path.realpath(path))
        if str(target) in read:
            raise CommandError(f"would overwrite its own input {path}: name another file", ExitStatus.UNUSABLE)
        if target.is_dir():
            raise CommandError(f"cannot write {path}: is a directory", ExitStatus.UNUSABLE)
        if not target.parent.is_dir():
            raise CommandError(f"cannot write {path}: no directory {target.parent}", ExitStatus.UNUSABLE)
        try:
            if target.exists() and not target.is_file():
                os.close(os.open(target, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            else:
                _try(target)
        except OSError as error:
            if error.errno != errno.ENXIO:  # a FIFO that nobody reads yet
                raise CommandError(f"cannot write {path}: {error.strerror}", ExitStatus.UNUSABLE) from None


def made_folder(path: Path) -> Path:
    """*path* as a folder to write to, made if it is not there; CommandError (status 2) if it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot make the folder {path}: {error.strerror}", ExitStatus.UNUSABLE) from None
    try:
        _try(path / "dmasync")
    except OSError as error:
        raise CommandError(f"cannot write to the folder {path}: {error.strerror}", ExitStatus.UNUSABLE) from None
    return path


def _try(target: Path) -> None:
    """Make and remove the temporary file that :func:`_replace` would: who may and what fits, only the kernel knows."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    os.close(descriptor)
    os.unlink(temporary)


def _replace(target: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
            os.fchmod(descriptor, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
