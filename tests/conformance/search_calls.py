"""Programs of the search as the calls that they make: what ``executor.c`` reads, written while they run on the fake.

A call is :data:`CALL` (code, bytes that follow, four numbers) and its bytes, padded to eight. A descriptor is told by
the fake's own number for it, which is a slot to the executor; a mapping by an index. :class:`RecordingWorld` is the
fake, and notes each call that it is asked for.
"""

from __future__ import annotations

import mmap
import os
import platform
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum, auto
from operator import methodcaller
from typing import Any, TypeVar

from dmasync import uapi
from dmasync.fakes.kernel.machine import HOST
from tests.conformance.search_memory import Arena
from tests.conformance.search_world import CLOSED, FakeWorld, Held, Placed, is_told, made_by

T = TypeVar("T")
CALL = struct.Struct("<IIqqqq")
PROGRAM = struct.Struct("<II")
"""Before the calls of each program: how many bytes they are, and zero."""
NOWHERE = -1
"""Instead of a slot or an index: the fake refused, nothing will be named."""
KINDS = {"b": 0, "m": 1, "r": 2, "i": 3}
_PATCH = struct.Struct("<HHIq")
_HOST = platform.machine()
_ASIDE = 40
_MADV_POPULATE_WRITE = 23
_ORDERS = {  # O_DIRECT, O_LARGEFILE, O_DIRECTORY, O_NOFOLLOW
    "x86_64": (0o40000, 0o100000, 0o200000, 0o400000),
    "aarch64": (0o200000, 0o400000, 0o40000, 0o100000),
}
_DESCRIPTOR, _TABLE, _END_OF_MEMORY = range(3)
_FENCES_AT = uapi.sync_file_info.offsets["num_fences"]


def translated(flags: int, machine: str) -> int:
    """Flags of ``open(2)`` that this host's fake was given, as *machine* has them, or the other way about: arm64 has
    four of them in another order (``arch/arm64/include/uapi/asm/fcntl.h``).
    """
    if machine in ("", _HOST) or {machine, _HOST} != {"aarch64", "x86_64"}:
        return flags
    for here, there in zip(_ORDERS[_HOST], _ORDERS[machine], strict=True):
        if flags & here:
            flags = flags & ~here | there << _ASIDE
    return flags & (1 << _ASIDE) - 1 | flags >> _ASIDE


class Code(IntEnum):
    """What a call is: ``executor.c`` has the same list."""

    OPEN = 0
    REOPEN = auto()
    MEMFD = auto()
    DUP = auto()
    CLOSE = auto()
    FTRUNCATE = auto()
    ADD_SEALS = auto()
    GET_SEALS = auto()
    LSEEK = auto()
    POLL = auto()
    MMAP = auto()
    MUNMAP = auto()
    MADVISE = auto()
    MSYNC = auto()
    FILE_SIZE = auto()
    RESIZE = auto()
    PEEK = auto()
    POKE = auto()
    CHECKSUM = auto()
    FDINFO = auto()
    IOCTL = auto()
    NONE_LEFT = auto()
    SOME_LEFT = auto()
    LIMITS = auto()
    FENCE = auto()
    SIGNAL = auto()
    UNKNOWN = auto()


class Calls:
    """The calls of one program so far."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.count = 0
        self.by_python: list[tuple[int, Exception | None]] = []
        """What Python's ``mmap`` answers by itself (None: it returns), and after how many calls: no kernel is asked."""

    def add(self, code: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0, data: bytes = b"") -> None:
        """Note one call."""
        self.data += CALL.pack(code, len(data), a, b, c, d)
        if data:
            self.data += data
            self.data += bytes(-len(data) % 8)
        self.count += 1

    def mark(self) -> tuple[int, int, int]:
        """Where :meth:`back_to` can return to."""
        return len(self.data), self.count, len(self.by_python)

    def back_to(self, mark: tuple[int, int, int]) -> None:
        """Forget what came after *mark*."""
        length, self.count, by_python = mark
        del self.data[length:]
        del self.by_python[by_python:]


class RecordingBackend:
    """The fake kernel as a backend that notes each call."""

    def __init__(self, kernel: Any, calls: Calls, *, keep_memfds: bool, machine: str = "") -> None:
        self._machine = machine
        self._kernel, self._calls = kernel, calls
        self._keep_memfds = int(keep_memfds)
        self.free_maps: list[int] = []
        self._maps = 0

    def _new(self, code: int, call: Callable[[], int], a: int, b: int, d: int, data: bytes) -> int:
        made = NOWHERE
        try:
            made = call()
        except OSError:
            self._calls.add(code, a, b, made, d, data)
            raise
        self._calls.add(code, a, b, made, d, data)
        return made

    def open(self, path: str, flags: int) -> int:
        return self._new(
            Code.OPEN, lambda: self._kernel.open(path, flags), 0, self._of(flags), 0, os.fsencode(path) + b"\0"
        )

    def open_again(self, fd: int, flags: int) -> int:
        place = f"/proc/self/fd/{fd}"
        return self._new(Code.REOPEN, lambda: self._kernel.open(place, flags), fd, self._of(flags), 0, b"")

    def _of(self, flags: int) -> int:
        return translated(flags, self._machine)

    def memfd_create(self, name: str, flags: int) -> int:
        data = os.fsencode(name) + b"\0"
        return self._new(Code.MEMFD, lambda: self._kernel.memfd_create(name, flags), 0, flags, self._keep_memfds, data)

    def dup(self, fd: int) -> int:
        return self._new(Code.DUP, lambda: self._kernel.dup(fd), fd, 0, 0, b"")

    def close(self, fd: int) -> None:
        self._calls.add(Code.CLOSE, fd)
        self._kernel.close(fd)

    def ftruncate(self, fd: int, length: int) -> None:
        self._calls.add(Code.FTRUNCATE, fd, length)
        self._kernel.ftruncate(fd, length)

    def add_seals(self, fd: int, seals: int) -> None:
        self._calls.add(Code.ADD_SEALS, fd, seals)
        self._kernel.add_seals(fd, seals)

    def get_seals(self, fd: int) -> int:
        self._calls.add(Code.GET_SEALS, fd)
        return int(self._kernel.get_seals(fd))

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        self._calls.add(Code.LSEEK, fd, offset, whence)
        return int(self._kernel.lseek(fd, offset, whence))

    def poll(self, fd: int, events: int, timeout_ms: int) -> int:
        assert timeout_ms == 0, "the search does not wait"
        self._calls.add(Code.POLL, fd, events)
        return int(self._kernel.poll(fd, events, timeout_ms))

    def mmap(self, fd: int, length: int, prot: int, flags: int, offset: int) -> RecordingMapping:
        index = NOWHERE
        try:
            mapping = self._kernel.mmap(fd, length, prot, flags, offset)
            if self.free_maps:
                index = self.free_maps.pop()
            else:
                index, self._maps = self._maps, self._maps + 1
        finally:
            # ValueError too: a file that is too short is refused by what the kernel says of its size.
            self._calls.add(Code.MMAP, fd, length, offset, index, struct.pack("<qq", prot, flags))
        made = RecordingMapping(mapping, index, prot, offset, self)
        made.copies_pages = self._kernel.page_size if flags & mmap.MAP_PRIVATE else 0
        return made

    def note(self, code: int, *numbers: int, data: bytes = b"") -> None:
        self._calls.add(code, *numbers, data=data)

    def look(self) -> None:
        """Let the fake see which huge pages were touched up to now: the order of touches is lost by its next call."""
        for pool in self._kernel.huge_pools.values():
            with pool.changing():
                pass

    def by_python(self, failure: Exception | None) -> None:
        """An answer that no kernel is asked for."""
        self._calls.by_python.append((self._calls.count, failure))


class RecordingMapping:
    """A mapping of the fake's that notes what is asked of it."""

    copies_pages = 0
    """The bytes of the page that the kernel copies when a byte of it is written, 0 where it copies none."""

    def __init__(self, mapping: Any, index: int, prot: int, offset: int, backend: RecordingBackend) -> None:
        self._mapping, self._index, self._offset, self._backend = mapping, index, offset, backend
        self._may_write = bool(prot & 2)

    def __len__(self) -> int:
        return len(self._mapping)

    def __getitem__(self, where: slice) -> bytes:
        self._backend.note(Code.PEEK, self._index, where.start, where.stop - where.start)
        self._backend.look()
        return bytes(self._mapping[where])

    def __setitem__(self, where: slice, data: bytes) -> None:
        self._backend.note(Code.POKE, self._index, where.start, data=data)
        self._backend.look()
        if self.copies_pages > mmap.PAGESIZE:
            # The fake's mapping is the host's memory, which is copied by the host's smaller pages.
            begin = where.start // self.copies_pages * self.copies_pages
            length = -(-(where.stop - begin) // self.copies_pages) * self.copies_pages
            mmap.mmap.madvise(self._mapping, _MADV_POPULATE_WRITE, begin, length)
        self._mapping[where] = data

    def content(self) -> bytes:
        """All bytes."""
        return self[0 : len(self._mapping)]

    def checksum(self) -> int:
        """CRC-32 of all bytes."""
        self._backend.note(Code.CHECKSUM, self._index)
        self._backend.look()
        return zlib.crc32(self._mapping)

    def _asked(self, call: Callable[[], T], code: int, *numbers: int) -> T:
        try:
            answer = call()
        except (ValueError, OverflowError, TypeError) as refusal:
            self._backend.by_python(refusal)
            raise
        except OSError:
            self._backend.note(code, self._index, *numbers)
            raise
        self._backend.note(code, self._index, *numbers)
        return answer

    def madvise(self, advice: int, at: int, length: int) -> None:
        clipped = min(length, len(self._mapping) - at)
        self._asked(lambda: self._mapping.madvise(advice, at, length), Code.MADVISE, advice, at, clipped)

    def flush(self, at: int, length: int) -> None:
        if self._may_write:
            self._asked(lambda: self._mapping.flush(at, length), Code.MSYNC, at, length)
            return
        try:
            self._mapping.flush(at, length)  # Python makes no call for one that cannot be written
        except ValueError as refusal:
            self._backend.by_python(refusal)
            raise
        self._backend.by_python(None)

    def size(self) -> int:
        return self._asked(lambda: int(self._mapping.size()), Code.FILE_SIZE)

    def resize(self, length: int) -> None:
        self._asked(lambda: self._mapping.resize(length), Code.RESIZE, length, self._offset)

    def close(self) -> None:
        self._backend.note(Code.MUNMAP, self._index)
        self._backend.free_maps.append(self._index)
        self._mapping.close()


class RecordingWorld(FakeWorld):
    """The fake, which notes the calls that a real kernel is to be asked."""

    tick = 0.0002

    def __init__(
        self,
        profile: str,
        arena: Arena,
        *,
        keep_memfds: bool,
        contents: bool = False,
        has_heap: bool = True,
        machine: str = "",
        huge_pages: int = 0,
    ) -> None:
        super().__init__(profile, arena, has_heap=has_heap, machine=machine or HOST, huge_pages=huge_pages)
        self.calls = Calls()
        self.backend = RecordingBackend(self.kernel, self.calls, keep_memfds=keep_memfds, machine=machine)
        self.bytes_as = methodcaller("content" if contents else "checksum")
        self._fences = 0

    def open_again(self, fd: int, flags: int) -> int:
        return int(self.backend.open_again(fd, flags))

    def ioctl(self, fd: int, request: int, placed: Placed) -> int:
        kind = KINDS[placed.kind] | placed.cut << 8 | placed.may_wait << 24 | len(placed.patches) << 32
        number = placed.argument if placed.kind == "i" else 0
        recording, self.backend = self.backend, self.kernel
        try:
            result = super().ioctl(fd, request, placed)
        except OSError:
            self.calls.add(Code.IOCTL, fd, request, kind, number, self._bytes(placed))
            raise
        finally:
            self.backend = recording
        after = self._after(placed)
        made = made_by(placed.file_kind, request)
        if made is not None:
            at = made[1]
            if at is None:
                kind, number = kind | 1 << 48, result
            elif is_told(request, at, len(after)):
                kind, number = kind | at + 2 << 48, int.from_bytes(after[at : at + 4], "little")
        elif placed.patches and placed.patches[0][2] == "table" and len(after) >= _FENCES_AT + 4:
            number = int.from_bytes(after[_FENCES_AT : _FENCES_AT + 4], "little") * uapi.sync_fence_info.size
        self.calls.add(Code.IOCTL, fd, request, kind, number, self._bytes(placed))
        return result

    def _after(self, placed: Placed) -> bytes:
        if placed.kind == "i":
            return b""
        return bytes(placed.argument) if placed.kind == "b" else self.arena.get(placed.argument)

    def _bytes(self, placed: Placed) -> bytes:
        if not placed.patches:
            return placed.filled
        head = b""
        for at, size, value in placed.patches:
            if value == "table":
                head += _PATCH.pack(at, size, _TABLE, 0)
            elif value == "edge":
                head += _PATCH.pack(at, size, _END_OF_MEMORY, uapi.sync_fence_info.size)
            else:
                head += _PATCH.pack(at, size, _DESCRIPTOR, self._value(value))
        return head + placed.filled

    def fdinfo(self, held: Held) -> tuple[Any, ...]:
        self.calls.add(Code.FDINFO, held.fd)
        return super().fdinfo(held)

    @contextmanager
    def without_descriptors(self) -> Iterator[None]:
        self.calls.add(Code.NONE_LEFT)
        try:
            with super().without_descriptors():
                yield
        finally:
            self.calls.add(Code.SOME_LEFT)

    def set_limits(self, list_limit: int, size_limit_mb: int) -> None:
        self.calls.add(Code.LIMITS, list_limit, size_limit_mb)
        super().set_limits(list_limit, size_limit_mb)

    def new_fence(self) -> tuple[Any, int]:
        fence, fd = super().new_fence()
        self._fences += 1
        self.calls.add(Code.FENCE, fd, self._fences)
        return (self._fences, fence), fd

    def signal_fence(self, fence: Any) -> None:
        number, fake = fence
        self.calls.add(Code.SIGNAL, number)
        super().signal_fence(fake)

    def unknown_descriptor(self) -> int | None:
        found = super().unknown_descriptor()
        self.calls.add(Code.UNKNOWN, NOWHERE if found is None else found)
        return found


assert CLOSED < 1 << 30, "a slot begins where no other number is"
