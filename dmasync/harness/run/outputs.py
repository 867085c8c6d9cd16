"""What a run leaves: traces, pictures. Whether they can be written is found out before the program is started."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from dmasync.harness.exit_status import CommandError
from dmasync.harness.formats.sarif import sarif as sarif_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dmasync.fakes import Finding, Journal


def check(paths: Mapping[str, str | None]) -> None:
    """CommandError, which names the option, unless each of *paths* (option: path) can be written. What is there stays
    as it is, and nothing new is left.
    """
    taken: dict[str, str] = {}
    for option, path in paths.items():
        if path is not None:
            other = taken.setdefault(os.path.realpath(path), option)
            if other != option and (os.path.isfile(path) or not os.path.exists(path)):
                raise CommandError(f"{option} {path!r} is what {other} writes already: give each a file of its own")
            try:
                _try(path)
            except OSError as problem:
                raise CommandError(f"{option} {path!r} cannot be written: {problem.strerror}") from None


def _try(path: str) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    except FileExistsError:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            # Whoever reads a pipe would take an open and close for the end of it.
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None
        else:
            os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
    else:
        with contextlib.suppress(OSError):
            os.unlink(path)


def write(
    journal: Journal,
    *,
    trace: str | None,
    perfetto: str | None,
    svg: str | None,
    sarif: tuple[str, Sequence[Finding]] | None = None,
) -> None:
    """Write each that is asked for, the others too where one fails; CommandError that names those."""
    failed = []
    for path, put in (
        (trace, journal.dump),
        (perfetto, lambda path: Path(path).write_text(json.dumps(journal.to_trace()), encoding="utf-8")),
        (sarif and sarif[0], lambda path: Path(path).write_text(sarif_of(sarif[1] if sarif else ()), encoding="utf-8")),
        (svg, lambda path: Path(path).write_text(journal.to_svg(), encoding="utf-8")),
    ):
        if path:
            try:
                put(path)
            except OSError as problem:
                failed.append(f"{path!r} cannot be written: {problem.strerror}")
    if failed:
        raise CommandError("; ".join(failed))
