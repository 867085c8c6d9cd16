"""Boards that are an sshd of this user, and a lab of them: labgrid's coordinator and exporter, all on this machine."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import yaml

from dmasync.harness.lab.place import program

BARE = f'exec "{sys.executable}" -S "$@"'
"""A python3 that sees no installed package, as a board's."""


_NEW_PLACE = {
    "acquired": None, "acquired_resources": [], "aliases": [], "allowed": [], "changed": 0.0, "comment": "",
    "created": 0.0, "reservation": None, "tags": {},
}  # fmt: skip


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def read_to_the_end(stream: IO[str]) -> None:
    """So that who writes it never waits for a reader."""
    with stream:
        deque(stream, maxlen=0)


class Board:
    """An sshd whose commands find the board's own programs first, and its own folder for temporary files."""

    def __init__(self, folder: Path, own: Path, around: str = "") -> None:
        """*around* is what runs the commands, if not this machine's shell."""
        server = shutil.which("sshd") or "/usr/sbin/sshd"
        assert Path(server).exists(), "needs sshd: sudo apt-get install openssh-server"
        Path("/run/sshd").mkdir(exist_ok=True)
        self.folder, self.programs, self.temporary = folder, folder / "programs", folder / "temporary"
        self.programs.mkdir(parents=True)
        self.temporary.mkdir()
        self.own_variables = f"PATH={self.programs}:$PATH TMPDIR={self.temporary}"
        self.port = free_port()
        self.python(BARE)
        host = key(folder / "host")
        shutil.copy(own.with_suffix(".pub"), folder / "authorized")
        settings = {
            "HostKey": host, "AuthorizedKeysFile": folder / "authorized", "PidFile": folder / "pid",
            "StrictModes": "no", "UsePAM": "no", "ListenAddress": f"127.0.0.1:{self.port}",
            "ForceCommand": around or f'{self.own_variables} sh -c "$SSH_ORIGINAL_COMMAND"',
        }  # fmt: skip
        (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        line = [server, "-D", "-e", "-f", str(folder / "sshd_config")]
        self._serving = subprocess.Popen(line, stderr=subprocess.PIPE)
        assert self._serving.stderr is not None
        assert any(b"listening" in line for line in self._serving.stderr)

    def python(self, script: str) -> None:
        """What this board's python3 does."""
        (self.programs / "python3").write_text(f"#!/bin/sh\n{script}\n")
        (self.programs / "python3").chmod(0o755)

    def dies_after(self, rows: int) -> None:
        """The board is gone once it has said so many lines: the connection, and whoever would take another."""
        # This program's ancestors up to the sshd that listens are the connection.
        gone = (
            f'at=$PPID; last=$(cat "{self.folder}/pid"); while [ $at != $last ]; do '
            "read -r _ _ _ up _ </proc/$at/stat; kill -9 $at; at=$up; done; kill -9 $last"
        )
        self.python(f'"{sys.executable}" -S "$@" | {{ head -n {rows}; {gone}; }}')

    @property
    def left_behind(self) -> list[str]:
        return [path.name for path in self.temporary.iterdir()]

    def close(self) -> None:
        self._serving.terminate()
        assert self._serving.stderr is not None
        self._serving.stderr.close()
        self._serving.wait()


class Lab:
    """A coordinator, an exporter, and a place for each board."""

    def __init__(
        self,
        folder: Path,
        boards: Mapping[str, Board],
        own: Path,
        ports: Mapping[str, int] | None = None,
        seconds_to_connect: float = 5.0,
    ) -> None:
        """*ports* are those of further boards, by the names of their places."""
        folder.mkdir()
        self.boards = boards
        ports = {**{name: board.port for name, board in boards.items()}, **(ports or {})}
        self.coordinator = f"127.0.0.1:{free_port()}"
        services = {
            name: {"NetworkService": {"address": "127.0.0.1", "port": port, "username": getpass.getuser()}}
            for name, port in ports.items()
        }
        (folder / "exporter.yaml").write_text(yaml.safe_dump(services))
        targets = {
            name: {
                "resources": {"RemotePlace": {"name": name}},
                "drivers": {"SSHDriver": {"keyfile": str(own), "connection_timeout": seconds_to_connect}},
            }
            for name in ports
        }
        (folder / "environment.yaml").write_text(yaml.safe_dump({"targets": targets}))
        self.variables = {"LG_COORDINATOR": self.coordinator, "LG_ENV": str(folder / "environment.yaml")}
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._drains: list[threading.Thread] = []
        # As the coordinator keeps them: labgrid-client creates places one by one, a second each.
        match = {"exporter": "lab", "cls": "*", "name": None, "rename": None}
        places = {name: {"matches": [{**match, "group": name}], **_NEW_PLACE} for name in ports}
        (folder / "places.yaml").write_text(yaml.safe_dump(places))
        self._start(folder, "coordinator", ["-l", self.coordinator], "Coordinator ready")
        self._start(folder, "exporter", ["-c", self.coordinator, "-n", "lab", "exporter.yaml"], "queued update")
        while len(self.client("resources").split()) < len(ports):
            pass  # each asks the coordinator, which may have to be told yet

    def _start(self, folder: Path, name: str, options: Sequence[str], ready: str) -> None:
        line = [str(Path(program()).with_name(f"labgrid-{name}")), *options]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            line, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._processes[name] = process
        assert process.stdout is not None
        assert any(ready.lower() in text.lower() for text in process.stdout), f"{name} ended"
        drain = threading.Thread(target=read_to_the_end, args=(process.stdout,))
        drain.start()
        self._drains.append(drain)

    def client(self, *words: str, user: str | None = None, drivers: bool = False, given: bytes | None = None) -> str:
        """What labgrid-client prints, as this user or another one; with *drivers* it has the environment's key.

        It reads *given* from standard input.
        """
        environment = {**os.environ, "LG_COORDINATOR": self.coordinator, **({"LG_USERNAME": user} if user else {})}
        environment.pop("LG_ENV", None)
        if drivers:
            environment |= self.variables
        done = subprocess.run([program(), *words], env=environment, input=given, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    @property
    def locked(self) -> list[str]:
        """The places that somebody has."""
        return self.client("places", "--acquired").split()

    def stop(self, name: str) -> None:
        """Stop the coordinator or the exporter."""
        self._processes[name].terminate()
        self._processes[name].wait()

    def close(self) -> None:
        for name in reversed(self._processes):
            self.stop(name)
        for drain in self._drains:
            drain.join()
