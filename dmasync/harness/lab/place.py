"""A board that labgrid administers: acquired for one run, and released however that run ends.

All of it goes through labgrid's own command, ``labgrid-client``, which finds the coordinator (LG_COORDINATOR), the way
through the exporter's host, and the board's key or password.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from socket import gethostname

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.lab.address import PlaceAddress

ANSWER_SECONDS = 60
"""After which a coordinator has not answered."""


@contextlib.contextmanager
def acquired(address: PlaceAddress) -> Iterator[str]:
    """Have the place for as long as the block lasts; its full name is what the block gets.

    CommandError: 4 without labgrid here, 2 where no place or more than one has such a name, 3 where somebody else has
    it, or the coordinator or the board's exporter is not there.
    """
    client = program()
    # A thread ends its call even where a signal's exception ends the wait for it: no place is left half acquired.
    with ThreadPoolExecutor(1) as calls:
        acquiring = calls.submit(_call, [client, "-p", address.place, "acquire"])
        try:
            name = _name(address, acquiring.result())
            yield name
        finally:
            done = acquiring.result()
            if done.returncode == 0:
                # Nobody else's lock is taken away, should somebody have broken this one.
                calls.submit(_release, [client, "-p", _named(address, done), "release-from", whose()])


def program() -> str:
    """The path of ``labgrid-client``; CommandError (4) where it is not installed."""
    beside = Path(sys.executable).with_name("labgrid-client")
    found = shutil.which("labgrid-client") or (str(beside) if beside.exists() else None)
    if found is None:
        raise CommandError(
            "labgrid is not here: python3 -m pip install 'dmabuf-sync[lab]'",
            ExitStatus.SKIPPED,
        )
    return found


def whose() -> str:
    """The name under which labgrid knows this user: ``HOST/USER``."""
    return f"{os.environ.get('LG_HOSTNAME', gethostname())}/{os.environ.get('LG_USERNAME') or getpass.getuser()}"


def command_line(place: str, command: str) -> list[str]:
    """What runs the shell command *command* on the board of an acquired place, with this program's standard streams."""
    # No "--" before it, which would reach the board's shell. The command does not begin with a dash.
    return [program(), "-p", place, "ssh", command]


def reason(said: Sequence[str]) -> str:
    """The line of what labgrid-client printed on standard error that tells most; empty where nothing does."""
    lines = [line for line in said if line and not line.startswith((" ", "Traceback", "During", "The above"))]
    of_ssh = [line[line.index("ssh: ") :] for line in lines if "ssh: " in line and not line.endswith("ssh: ")]
    return of_ssh[-1] if of_ssh else _plain(lines[-1]) if lines else ""


def _call(line: Sequence[str]) -> subprocess.CompletedProcess[str]:
    # An environment file may name further places, and all of them would be acquired.
    environment = {name: value for name, value in os.environ.items() if name != "LG_ENV"}
    try:
        # In a session of its own: Ctrl-C in this terminal is for dmasync, which then releases the place.
        return subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
            env=environment, start_new_session=True, timeout=ANSWER_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(line, 1, "", f"the coordinator has not answered for {ANSWER_SECONDS} s")


def _release(line: Sequence[str]) -> None:
    done = _call(line)
    if done.returncode != 0:
        why = reason(done.stderr.splitlines())
        sys.stderr.write(f"dmasync: place {line[2]} was not released ({why}): {' '.join(line)}\n")


def _named(address: PlaceAddress, done: subprocess.CompletedProcess[str]) -> str:
    """The full name: labgrid takes a part of one, and aliases."""
    found = re.search(r"^acquired place (.+)$", done.stdout, re.MULTILINE)
    return found[1] if found else address.place


def _name(address: PlaceAddress, done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == 0:
        return _named(address, done)
    why = reason(done.stderr.splitlines())
    if other := re.search(r"already acquired by (\S+?)\.?(\s|$)", why):
        raise CommandError(f"{address} is in use: {other[1]} has acquired it", ExitStatus.CANNOT_JUDGE)
    if own := re.search(r"already acquired place (\S+?)\.?(?: on (\S+?)\.)?(\s|$)", why):
        where = f" on {own[2]}" if own[2] else ""
        raise CommandError(
            f"{address} is in use: you have acquired it yourself{where} (labgrid-client -p {own[1]} release)",
            ExitStatus.CANNOT_JUDGE,
        )
    if "matches nothing" in why:
        raise CommandError(f"{address}: the coordinator knows no such place; labgrid-client places lists them")
    if "matches multiple" in why:
        raise CommandError(f"{address}: {why}")
    if "connect to coordinator" in why:
        where = os.environ.get("LG_COORDINATOR", "127.0.0.1:20408, as LG_COORDINATOR names none")
        why = f"no coordinator answers at {where}"
    raise CommandError(f"{address} cannot be acquired: {why}", ExitStatus.CANNOT_JUDGE)


def _plain(line: str) -> str:
    return re.sub(r"^(labgrid-client: |Server error: |error: |Error: |Exception: )+", "", line)
