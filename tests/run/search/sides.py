"""The executor at work: behind ``dmasync run`` on this machine, or on a real kernel in a virtual one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.conformance.search_executor import FASTER, ExecutorError
from tests.run.search.ops import EXECUTOR, framed, unframed

_ROOT = EXECUTOR.parents[3]
_GUEST_TIMEOUT_SECONDS = 12 * 3600


def compiled(folder: Path) -> Path:
    """The executor as a file in *folder* that needs no other; ExecutorError."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise ExecutorError("the search's executor is written in C, and there is no cc on PATH: install it")
    program = folder / "executor"
    sources = map(str, sorted(EXECUTOR.glob("*.c")))
    command = [compiler, "-O2", "-static", "-pthread", "-Wall", "-Wextra", "-Werror", "-o", str(program), *sources]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise ExecutorError(f"{' '.join(command)} failed: {made.stderr.strip()}")
    return program


class Side:
    """An executor that runs until it is closed; programs go in by files in a folder, answers come back by others."""

    def __init__(self, command: Sequence[str] = (), program: Path | None = None) -> None:
        """*command* comes before the executor and its folder; *program* is one that has been compiled."""
        self.folder = Path(tempfile.mkdtemp(prefix="dmasync-search-"))
        self.program = compiled(self.folder) if program is None else Path(shutil.copy(program, self.folder))
        self.errors = (self.folder / "errors").open("w+")
        self.process = subprocess.Popen(
            [*command, *self.command()], cwd=_ROOT, stdin=subprocess.DEVNULL, stderr=self.errors
        )
        self._sent = self._got = 0

    def command(self) -> list[str]:
        return [str(self.program), str(self.folder)]

    def hello(self, seconds: float = 600) -> list[str]:
        """Wait for it: release, machine, page size, whether there is a heap; ExecutorError."""
        self._wait_for(self.folder / "hello", seconds)
        return (self.folder / "hello").read_text().split()

    def send(self, programs: Sequence[bytes]) -> None:
        part = self.folder / "part"
        part.write_bytes(framed(programs))
        part.replace(self.folder / f"calls.{self._sent}")
        self._sent += 1

    def receive(self, seconds: float = 600) -> list[str]:
        """The answers of the file that was sent first and not yet received; ExecutorError."""
        file = self.folder / f"answers.{self._got}"
        self._wait_for(file, seconds)
        data = file.read_bytes()
        file.unlink()
        (self.folder / f"calls.{self._got}").unlink()
        self._got += 1
        return unframed(data)

    def ask(self, program: bytes) -> str:
        """The answers of one."""
        self.send([program])
        return self.receive()[0]

    def _wait_for(self, file: Path, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not file.exists():
            if self.process.poll() is not None:
                raise ExecutorError(f"the executor ended with status {self.process.returncode}: {self.said()}")
            if time.monotonic() > until:
                raise ExecutorError(f"no answer within {seconds:g} seconds: {self.said()}")
            time.sleep(0.003)

    def said(self) -> str:
        """What it and its surroundings wrote to standard error."""
        return (self.folder / "errors").read_text().strip()

    def close(self, patience: float = 20) -> None:
        """End it and remove its folder."""
        (self.folder / "stop").touch()
        for end in (lambda: None, self.process.terminate, self.process.kill):
            end()
            try:
                self.process.wait(patience)
                break
            except subprocess.TimeoutExpired:
                continue
        self.errors.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Door(Side):
    """On the fake kernel, behind ``dmasync run``."""

    def __init__(self, *options: str, program: Path | None = None) -> None:
        command = [sys.executable, "-m", "dmasync", "run", "--timeout", str(_GUEST_TIMEOUT_SECONDS), *options, "--"]
        super().__init__(command, program)


class Guest(Side):
    """On a real kernel, in a virtual machine; *options* are those of ``dmasync vm``."""

    def __init__(self, options: Sequence[str]) -> None:
        self.options = list(options)
        super().__init__()

    def command(self) -> list[str]:
        command = [sys.executable, "-m", "dmasync", "vm", "--timeout", str(_GUEST_TIMEOUT_SECONDS), *self.options]
        command += [f"--append={word}" for word in FASTER]
        command += ["--output", str(self.folder), "--result", str(self.folder / "result.json"), "--"]
        return [*command, f"exec {self.program} {self.folder}"]
