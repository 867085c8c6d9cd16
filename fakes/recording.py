"""Runs a Python program with a recorder underneath its default backend.

``python -m dmasync.fakes.recording TRACE PROGRAM …``

The program is not changed and need not know. The trace is written while it runs, so that one that is killed leaves
what it did up to a moment before. A process that it forks writes to a file of its own, ``TRACE.<pid>``.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import platform
import resource
import runpy
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from dmasync import backend as seam
from dmasync.fakes.journal import ROW, Call
from dmasync.fakes.journal.json_lines import Writer
from dmasync.fakes.layers.beneath import METHODS
from dmasync.fakes.layers.recorder import Recorder
from dmasync.fakes.uninterrupted import completed

_BATCH: Final = 512
"""Attempts that may be in memory only."""

_kept: Final[dict[str, Any]] = {}
"""The program's globals, which without a recorder would outlive its atexit functions too."""


class TracingRecorder(Recorder):
    """A recorder whose journal goes to a file as it grows."""

    def __init__(self, inner: seam.Backend, path: str) -> None:
        super().__init__(inner, stacks=True)
        self._path = path
        self._pid = os.getpid()
        self._file = -1
        self._writer = Writer(self.journal)
        self._plain = self.ioctl
        self.ioctl = self._flushing_ioctl()
        self.journal.facts = {
            "kernel": platform.release(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "program": list(sys.argv),
        }

    def _flushing_ioctl(self) -> Callable[[int, int, Any], Any]:
        plain = self._plain
        rows = self.journal.rows
        limit = _BATCH * ROW.size

        def ioctl(fd: int, request: int, arg: Any = 0, /) -> Any:
            nonlocal limit
            if len(rows) >= limit:
                limit = len(rows) + _BATCH * ROW.size
                self.flush()
            for result in completed(plain, ((fd, request, arg),)):
                return result
            raise AssertionError  # pragma: no cover - map of one call yields it

        return ioctl

    def _begun(self, method: str, arguments: tuple[Any, ...], fd: int | None = None) -> Call:
        self.flush()
        return super()._begun(method, arguments, fd)

    def flush(self) -> None:
        """Write what is new."""
        if self._file < 0 or self._pid != os.getpid():
            self._begin()
        data = "".join(self._writer.news()).encode()
        if data:
            os.write(self._file, data)

    def _begin(self) -> None:
        path = self._path
        if self._pid != os.getpid():
            self._pid = os.getpid()
            path = f"{path}.{self._pid}"
        self._writer = Writer(self.journal)
        low = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        # Out of the way: the program's own descriptors get the numbers that they have without a recorder.
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._file = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, min(limit, 1024) // 2)
        os.close(low)
        os.write(self._file, self._writer.header().encode())

    def finish(self) -> None:
        """Write what is left, and the end."""
        self.flush()
        places = {id(call): index for index, call in enumerate(self.journal.calls)}
        self.journal.facts["open_mappings"] = [places[id(call)] for call in self.open_mappings()]
        os.write(self._file, self._writer.end().encode())


def install(path: str) -> TracingRecorder:
    """Put a recorder under the default backend of this process."""
    recorder = TracingRecorder(seam.LinuxBackend(), path)
    for name in METHODS:
        # On the instance: everybody has it already, and looks its methods up when they are needed.
        setattr(seam.LINUX, name, getattr(recorder, name))
    atexit.register(recorder.finish)
    return recorder


def main(arguments: Sequence[str]) -> None:
    """Run the program that *arguments*, a trace's path and then a command line for Python, name."""
    path, *program = arguments
    recorder_path = os.path.abspath(path)
    sys.argv = program
    if program[0] == "-c":
        sys.argv = ["-c", *program[2:]]
        sys.path.insert(0, "")
        install(recorder_path)
        # What python -c does, with the caller's own text.
        exec(compile(program[1], "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})  # noqa: S102
    elif program[0] == "-m":
        sys.argv = program[1:]
        sys.path.insert(0, os.getcwd())
        install(recorder_path)
        _kept.update(runpy.run_module(program[1], run_name="__main__", alter_sys=True))
    else:
        sys.path.insert(0, os.path.dirname(os.path.abspath(program[0])))
        install(recorder_path)
        _kept.update(runpy.run_path(program[0], run_name="__main__"))


if __name__ == "__main__":
    # Under its own name, not as __main__: that place is the program's.
    from dmasync.fakes import recording

    recording.main(sys.argv[1:])
