"""``executor.c`` at work: compiled, started here or in a virtual machine, given programs, asked for answers."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.conformance.search_calls import PROGRAM
from tests.conformance.search_replay import ANSWERED

HERE = Path(__file__).parent
FASTER = ("mitigations=off", "clearcpuid=erms,fsrm,fsrs,rep_good")
"""For the kernel's command line. An emulator runs the string instructions of x86 byte by byte: a kernel that clears and
copies pages without them is faster. To other processors the words mean nothing."""
_GUEST_TIMEOUT_SECONDS = 12 * 3600

_COMPILED: dict[str | None, bytes] = {}
"""The executor by its machine: compiled once in each process."""


class ExecutorError(Exception):
    """It could not be compiled or started; the message says why."""


class Hello(NamedTuple):
    """What the executor says of the kernel that it runs on."""

    release: str
    machine: str
    page_size: int
    has_vgem: bool
    merges_pages: bool
    """Whether the kernel was built with CONFIG_KSM."""
    has_heap: bool
    """Whether there is a system heap: Debian's arm64 kernels have none."""
    huge_pages: int = 0
    """How many of the usual size are reserved: ``--append hugepages=64``."""


class Answered(NamedTuple):
    """What was answered to one program."""

    data: bytes
    signal: int
    """What killed the executor in it, or 0."""


def compiled(folder: Path, machine: str | None = None) -> Path:
    """The executor as a file in *folder* that needs no other, for *machine* (by ``uname -m``); ExecutorError."""
    own = platform.machine()
    compiler = "cc" if machine in (None, own) else f"{machine}-linux-gnu-gcc"
    if shutil.which(compiler) is None:
        raise ExecutorError(f"the search's executor is written in C, and there is no {compiler} on PATH: install it")
    program = folder / "executor"
    command = [compiler, "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(HERE / "executor.c")]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise ExecutorError(f"{' '.join(command)} failed: {made.stderr.strip()}")
    return program


class Executor:
    """One executor; programs go in by files in a folder, answers come back by others."""

    def __init__(self, guest: Sequence[str] | None, machine: str | None = None) -> None:
        """*guest*: options of ``dmasync vm``; None: on this very kernel."""
        self.folder = Path(tempfile.mkdtemp(prefix="dmasync-search-"))
        program = self.folder / "executor"
        if machine not in _COMPILED:
            _COMPILED[machine] = compiled(self.folder, machine).read_bytes()
        program.write_bytes(_COMPILED[machine])
        program.chmod(0o755)
        if guest is None:
            command = [str(program), str(self.folder)]
        else:
            command = [sys.executable, "-m", "dmasync", "vm", "--timeout", str(_GUEST_TIMEOUT_SECONDS), *guest]
            command += [f"--append={word}" for word in FASTER]
            command += ["--output", str(self.folder), "--result", str(self.folder / "result.json"), "--"]
            command += [f"modprobe -q vgem; exec {program} {self.folder}"]
        self._process = subprocess.Popen(command, cwd=HERE.parents[1], stdin=subprocess.DEVNULL)
        self._sent = 0
        self._read: dict[int, int] = {}

    def hello(self, seconds: float) -> Hello:
        """Wait until the executor is there; ExecutorError."""
        file = self.folder / "hello"
        until = time.monotonic() + seconds
        while not file.exists():
            if self._process.poll() is not None:
                raise ExecutorError(f"the executor did not start: status {self._process.returncode}")
            if time.monotonic() > until:
                raise ExecutorError(f"the executor did not start within {seconds:g} seconds")
            time.sleep(0.05)
        release, machine, page_size, vgem, merges, heap, huge_pages = file.read_text().split()
        return Hello(release, machine, int(page_size), vgem == "1", merges == "1", heap == "1", int(huge_pages))

    def send(self, programs: Sequence[bytes]) -> int:
        """Ask the executor for *programs*, each the calls of one; the number by which :meth:`answers` is asked."""
        number, self._sent = self._sent, self._sent + 1
        part = self.folder / "part"
        with part.open("wb") as stream:
            for calls in programs:
                stream.write(PROGRAM.pack(len(calls), 0))
                stream.write(calls)
        part.replace(self.folder / f"calls.{number}")
        self._read[number] = 0
        return number

    def answers(self, number: int) -> list[Answered]:
        """What came since the last time of those that :meth:`send` called *number*."""
        try:
            with (self.folder / f"answers.{number}").open("rb") as stream:
                stream.seek(self._read[number])
                data = stream.read()
        except FileNotFoundError:
            return []
        at, found = 0, []
        while len(data) - at >= ANSWERED.size:
            length, signal = ANSWERED.unpack_from(data, at)
            end = at + ANSWERED.size + length
            if end > len(data):
                break
            found.append(Answered(data[at + ANSWERED.size : end], signal))
            at = end
        self._read[number] += at
        return found

    def done(self, number: int) -> None:
        """Remove the files of a number."""
        for name in ("calls", "answers"):
            (self.folder / f"{name}.{number}").unlink(missing_ok=True)

    def is_alive(self) -> bool:
        """Whether it, or the machine that it runs in, still runs."""
        return self._process.poll() is None

    def close(self, patience: float = 20) -> float:
        """End it and remove its folder; the seconds in which it had something to do, as far as it could tell."""
        (self.folder / "stop").touch()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        busy = self.folder / "busy"
        seconds = float(busy.read_text()) if busy.exists() else 0.0
        shutil.rmtree(self.folder, ignore_errors=True)
        return seconds
