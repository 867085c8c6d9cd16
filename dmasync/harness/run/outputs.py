"""What a run leaves: traces, pictures. Whether they can be written is found out before the program is started."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dmasync.harness.exit_status import CommandError
from dmasync.harness.formats.sarif import sarif as sarif_of
from dmasync.harness.runs.writing import refuse_unwritable, replacing, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dmasync.fakes import Finding, Journal

_BESIDE = ".dmasync"
"""Behind the name of a file that the program wrote itself."""


class Outputs:
    """The files that a run was asked for, by the option that named them."""

    def __init__(self, asked: Mapping[str, str | None], inputs: Iterable[str] = ()) -> None:
        """CommandError, which names the option, for a file that cannot be written, for one of *inputs* and for two
        options that name the same. What is there stays as it is, and nothing new is left.
        """
        refuse_unwritable(asked, inputs)
        self._paths = {option: path for option, path in asked.items() if path is not None}
        self._before = {path: _state(path) for path in self._paths.values()}

    def write(self, journal: Journal, findings: Sequence[Finding] = ()) -> None:
        """Write each, the others too where one fails; CommandError that names those.

        A file that the program wrote meanwhile is the program's: ours then goes beside it, and CommandError says so.
        """
        failed = []
        for option, path in self._paths.items():
            place = path
            if _state(path) != self._before[path]:
                place = f"{path}{_BESIDE}"
                failed.append(f"{option} {path!r} is a file that the program wrote: see {place!r} instead")
            try:
                _put(option, place, journal, findings)
            except CommandError as problem:
                failed.append(f"{option} {problem}")
        if failed:
            raise CommandError("; ".join(failed))


def _put(option: str, path: str, journal: Journal, findings: Sequence[Finding]) -> None:
    if option == "--perfetto":
        write_atomically(path, json.dumps(journal.to_trace()))
    elif option == "--sarif":
        write_atomically(path, sarif_of(findings))
    elif option == "--svg":
        write_atomically(path, journal.to_svg())
    else:
        with replacing(path) as place:
            journal.dump(place)


def _state(path: str) -> tuple[int, int, int] | None:
    """What changes when somebody writes the file at *path*; None where there is none, and for a device or a pipe."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size) if Path(path).is_file() else None
