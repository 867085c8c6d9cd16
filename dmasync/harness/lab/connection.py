"""One run on a board: the archive goes there, the answers come back, and whatever breaks ends in one line."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.lab import place
from dmasync.harness.lab.address import BoardAddress, PlaceAddress
from dmasync.harness.lab.bootstrap import MARK, PROGRAM

OPTIONS = (
    "-T", "-oBatchMode=yes", "-oConnectTimeout=20", "-oServerAliveInterval=10", "-oServerAliveCountMax=3",
)  # fmt: skip
"""A board that vanished is noticed within half a minute; nothing asks for a password."""


ENDING_SECONDS = 10
"""What a program that has been told to end may take: labgrid's closes its connections first."""


@dataclass
class Answered:
    """What came back: the board's facts around the run, and a line of JSON for each request that was answered."""

    address: str = ""
    """The board's address, with the full name of a place."""
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)


def measure_there(
    address: BoardAddress | PlaceAddress, archive: bytes, requests: int, timeout: float, answered: Callable[[], None]
) -> Answered:
    """Run the archive's plan of so many *requests* on the board; *answered* is called for each that is done.

    CommandError: 4 without ssh or labgrid here; 3 where the board refuses, cannot be reached, takes longer than
    *timeout* seconds, or ends before every request was answered. The line says how far it came. A place of labgrid is
    acquired first and released at the end, and what that raises is raised here.
    """
    command = f"exec python3 -c {shlex.quote(PROGRAM)}"
    if isinstance(address, BoardAddress):
        return _measured(address, _ssh_line(address, command), archive, requests, timeout, answered)
    with place.acquired(address) as name:
        full = PlaceAddress(name)
        return _measured(full, place.command_line(name, command), archive, requests, timeout, answered)


def check_programs(address: BoardAddress | PlaceAddress) -> None:
    """CommandError (4) where this machine lacks what leads to *address*."""
    if isinstance(address, BoardAddress):
        _ssh()
    else:
        place.program()


def _ssh() -> str:
    if found := shutil.which("ssh"):
        return found
    raise CommandError("ssh is not here: sudo apt-get install openssh-client", ExitStatus.SKIPPED)


def _ssh_line(address: BoardAddress, command: str) -> list[str]:
    who = [*(["-l", address.user] if address.user else []), *(["-p", str(address.port)] if address.port else [])]
    return [_ssh(), *OPTIONS, *who, "--", address.host, command]


def _measured(
    address: BoardAddress | PlaceAddress,
    line: Sequence[str],
    archive: bytes,
    requests: int,
    timeout: float,
    answered: Callable[[], None],
) -> Answered:
    found = Answered(str(address))
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as given:
        given.write(archive)
        given.seek(0)
        # In a group of its own, so that whatever the program has started ends with it.
        process = subprocess.Popen(line, stdin=given, stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
        late = threading.Event()

        def end() -> None:
            late.set()
            _end(process)

        timer = threading.Timer(timeout, end)
        timer.start()
        assert process.stdout is not None  # noqa: S101 - asked for above
        try:
            ended = _read(process.stdout, found, answered)
        finally:
            timer.cancel()
            _end(process)
            process.stdout.close()
        if ended is None or len(found.answers) != requests:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
            raise _lost(address, found, requests, f"no end after {timeout:g} s" if late.is_set() else ended, said)
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and what it started, if it runs: by a signal that it can act on, then by one that it cannot."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ENDING_SECONDS)
            return


def _read(stream: IO[bytes], found: Answered, answered: Callable[[], None]) -> str | None:
    """Take the lines in, to the end, by which the board has removed what it was given.

    Return why the board ended by itself, None where the connection did.
    """
    ended = None
    for raw in stream:
        text = raw.decode("utf-8", "replace").rstrip("\n")
        if not text.startswith(MARK):
            continue
        kind, _, content = text.removeprefix(MARK).partition(":")
        if kind == "answer":
            found.answers.append(content)
            answered()
        elif kind in ("before", "after"):
            setattr(found, kind, json.loads(content))
        elif kind == "refused":
            ended = content
        elif kind == "end":
            ended = f"its measuring process ended with status {content}"
    return ended


def _lost(
    address: BoardAddress | PlaceAddress, found: Answered, requests: int, why: str | None, said: list[str]
) -> CommandError:
    last = (said[-1] if isinstance(address, BoardAddress) else place.reason(said)) if said else "the connection ended"
    reached = bool(found.before)
    how_far = f" after {max(0, len(found.answers) - 1)} of {requests - 1} rows" if reached else ""
    what = "was lost" if reached and why is None else "cannot measure" if why else "cannot be reached"
    return CommandError(f"{address} {what}{how_far}: {why or last}", ExitStatus.CANNOT_JUDGE)
