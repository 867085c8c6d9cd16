"""A world whose kernel answered earlier: what ``executor.c`` wrote, handed out call by call.

The same code that ran the program on the fake runs it once more, and makes the same observations of these answers.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import methodcaller
from typing import Any

from tests.conformance.search_calls import Code, translated
from tests.conformance.search_memory import Arena
from tests.conformance.search_world import Held, Placed, World

ANSWER = struct.Struct("<IIq")
ANSWERED = struct.Struct("<Ii")
"""Before the answers of each program: how many bytes they are, and the signal that killed the executor, or 0."""
_BEYOND_FILE = -1002
_TOUCHING_KILLS = -1001
_MOST_ERRNO = 4095


class OffTheTrackError(Exception):
    """Another call is asked for than was made: the kernels went different ways before."""


class Answers:
    """The answers of one program, in order."""

    def __init__(self, data: memoryview, by_python: Sequence[tuple[int, Exception | None]]) -> None:
        self._data = data
        self._at = self._count = 0
        self._by_python = list(reversed(by_python))

    def next(self, code: int) -> tuple[int, memoryview]:
        """The result, negative where it is an errno, and the bytes of the call that is next."""
        self.by_python()
        at = self._at
        if at >= len(self._data):
            raise OffTheTrackError(f"{Code(code).name} is asked for, and there is no answer left")
        said, length, result = ANSWER.unpack_from(self._data, at)
        if said != code:
            raise OffTheTrackError(f"{Code(code).name} is asked for, {Code(said).name} was answered")
        at += 16
        self._at = at + (length + 7 & ~7)
        self._count += 1
        return result, self._data[at : at + length]

    def by_python(self) -> None:
        """Answer as Python did by itself, instead of the next call."""
        if self._by_python and self._by_python[-1][0] == self._count:
            failure = self._by_python.pop()[1]
            if failure is not None:
                raise failure

    def value(self, code: int) -> int:
        """The result; OSError."""
        result, _ = self.next(code)
        if -_MOST_ERRNO <= result < 0:
            raise OSError(-result, os.strerror(-result))
        return result


class ReplayBackend:
    """The answers as a backend."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def open(self, path: str, flags: int) -> int:
        return self._answers.value(Code.OPEN)

    def open_again(self, fd: int, flags: int) -> int:
        return self._answers.value(Code.REOPEN)

    def memfd_create(self, name: str, flags: int) -> int:
        return self._answers.value(Code.MEMFD)

    def dup(self, fd: int) -> int:
        return self._answers.value(Code.DUP)

    def close(self, fd: int) -> None:
        self._answers.value(Code.CLOSE)

    def ftruncate(self, fd: int, length: int) -> None:
        self._answers.value(Code.FTRUNCATE)

    def add_seals(self, fd: int, seals: int) -> None:
        self._answers.value(Code.ADD_SEALS)

    def get_seals(self, fd: int) -> int:
        return self._answers.value(Code.GET_SEALS)

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        return self._answers.value(Code.LSEEK)

    def poll(self, fd: int, events: int, timeout_ms: int) -> int:
        return self._answers.value(Code.POLL)

    def mmap(self, fd: int, length: int, prot: int, flags: int, offset: int) -> ReplayMapping:
        result, _ = self._answers.next(Code.MMAP)
        if result == _BEYOND_FILE:
            raise ValueError("mmap length is greater than file size")
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return ReplayMapping(self._answers, length, writable=bool(prot & 2))


class ReplayMapping:
    """A mapping that was there."""

    def __init__(self, answers: Answers, length: int, *, writable: bool) -> None:
        self._answers, self._length, self._writable = answers, length, writable

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, where: slice) -> Any:
        result, data = self._answers.next(Code.PEEK)
        return _fatal(result) if result < 0 else bytes(data)

    def __setitem__(self, where: slice, data: bytes) -> None:
        self._answers.value(Code.POKE)

    def content(self) -> Any:
        return self[0 : self._length]

    def checksum(self) -> Any:
        result, _ = self._answers.next(Code.CHECKSUM)
        return _fatal(result) if result < 0 else result

    def madvise(self, advice: int, at: int, length: int) -> None:
        self._answers.value(Code.MADVISE)

    def flush(self, at: int, length: int) -> None:
        if self._writable:
            self._answers.value(Code.MSYNC)
        else:
            self._answers.by_python()  # and no call

    def size(self) -> int:
        return self._answers.value(Code.FILE_SIZE)

    def resize(self, length: int) -> None:
        self._answers.value(Code.RESIZE)
        self._length = length

    def close(self) -> None:
        self._answers.value(Code.MUNMAP)


def _fatal(result: int) -> str:
    return "touching it kills" if result == _TOUCHING_KILLS else errno.errorcode.get(-result, str(-result))


class ReplayWorld(World):
    """The kernel that answered."""

    def __init__(
        self, answers: Answers, arena: Arena, *, contents: bool = False, machine: str = "", huge_page: int = 0
    ) -> None:
        super().__init__(arena)
        self.huge_page = huge_page
        self._machine = machine
        self._answers = answers
        self.backend = ReplayBackend(answers)
        self.bytes_as = methodcaller("content" if contents else "checksum")

    def open_again(self, fd: int, flags: int) -> int:
        return int(self.backend.open_again(fd, flags))

    def ioctl(self, fd: int, request: int, placed: Placed) -> int:
        result, after = self._answers.next(Code.IOCTL)
        if placed.kind != "i":
            shown = len(placed.filled) - placed.cut
            self._put(placed, bytes(after[:shown]))
            if len(after) > shown:
                ctypes.memmove(self._table_address, bytes(after[shown:]), len(after) - shown)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result

    def _put(self, placed: Placed, after: bytes) -> None:
        if placed.kind == "b":
            placed.argument[:] = after
        elif after != self.arena.get(placed.argument):
            if placed.kind == "m":
                ctypes.memmove(placed.argument, after, len(after))
            else:
                self.arena.put_read_only(after)

    def fdinfo(self, held: Held) -> tuple[Any, ...]:
        result, text = self._answers.next(Code.FDINFO)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        pos, flags, *more = self.told_by(bytes(text), held, doubled=True)
        return (pos, b"0%o" % translated(int(flags, 8), self._machine), *more)

    @contextmanager
    def without_descriptors(self) -> Iterator[None]:
        self._answers.value(Code.NONE_LEFT)
        try:
            yield
        finally:
            self._answers.value(Code.SOME_LEFT)

    def set_limits(self, list_limit: int, size_limit_mb: int) -> None:
        self._answers.value(Code.LIMITS)

    def new_fence(self) -> tuple[Any, int]:
        return None, self._answers.value(Code.FENCE)

    def signal_fence(self, fence: Any) -> None:
        self._answers.value(Code.SIGNAL)

    def unknown_descriptor(self) -> int | None:
        result, _ = self._answers.next(Code.UNKNOWN)
        return None if result < 0 else result

    def close(self) -> None:
        """Nothing: the executor has tidied up."""
