"""Where a Python program is: what ``in_python/dmasync_stacks.py`` told of the thread that waits."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from dmasync.harness.run.program import memory
from dmasync.harness.run.program.stacks import Frame

PREFIX: Final = "/dev/dmasync/stacks/"
"""A Python that opens a path below it says where it keeps its stacks."""
FOLDER: Final = Path(__file__).with_name("in_python")
_SLOTS: Final = 128
_ROOM: Final = 4096
_HEAD: Final = struct.Struct("<II")
_FIELDS: Final = 3
_PATHS: Final = "PYTHONPATH"
_TOLD: Final = {"open": "open", "openat": "open", "mmap": "mmap"}
_BY_DESCRIPTOR: Final = ("fcntl", "dup", "dup2", "dup3", "close")
"""Python's os.dup() is a call of fcntl: for these the descriptor says which was told."""


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """*given*, with which every Python below tells its stacks."""
    return {**given, _PATHS: os.pathsep.join([str(FOLDER), *filter(None, [given.get(_PATHS)])])}


class PythonStacks:
    """What the programs' Pythons told."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}

    def announced(self, process: int, path: str) -> None:
        """*process* opened *path*."""
        try:
            self._places[process] = int(path.removeprefix(PREFIX), 16)
        except ValueError:
            return

    def forget(self, process: int) -> None:
        """It has ended, or is another program now."""
        self._places.pop(process, None)

    def take(self, process: int, thread: int, name: str, arguments: Sequence[int]) -> tuple[Frame, ...]:
        """The Python frames of *thread*, innermost first, at the call *name* with its *arguments*; none where nobody
        told.
        """
        if name == "ioctl":
            mark = f"ioctl {arguments[1] & 0xFFFF_FFFF}"
        elif name in _BY_DESCRIPTOR:
            mark = f"fcntl {arguments[0] & 0xFFFF_FFFF}"
        else:
            mark = _TOLD.get(name, "")
        place = self._places.get(process)
        if place is None:
            return ()
        place += thread % _SLOTS * _ROOM
        head = memory.peek(thread, place, _HEAD.size)
        if len(head) < _HEAD.size:
            return ()
        whose, length = _HEAD.unpack(head)
        if whose != thread or not 0 < length <= _ROOM - _HEAD.size:
            return ()
        told, *fields = memory.peek(thread, place + _HEAD.size, length).decode(errors="replace").split("\0")
        if told != mark or not mark:
            return ()  # an older call: this one was made where Python hears of nothing
        frames = []
        for begin in range(0, len(fields) - _FIELDS + 1, _FIELDS):
            file, line, function = fields[begin : begin + _FIELDS]
            frames.append((file, int(line) if line.isdigit() else 0, function))
        return tuple(frames)
