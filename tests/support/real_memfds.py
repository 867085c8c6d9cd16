"""Small backends on real file descriptors that any Linux has, for tests of what signals can tear apart.

They keep a backend's contract to the letter: a call that raises anything has not succeeded. What happens after the
one C call that counts holds no place where CPython runs signal handlers.
"""

from __future__ import annotations

import functools
import io
import mmap
import os
import re
import sys
from typing import Any

from dmasync import LinuxBackend, uapi

_FD = uapi.dma_heap_allocation_data.offsets["fd"]
_NUMBERS = [number.to_bytes(4, sys.byteorder) for number in range(4096)]
_LINE = re.compile(r"(\d+) (\d+) bytearray\((b'[^']*')\)\n")


class MemfdBackend(LinuxBackend):
    """The kernel, but each device node is /dev/null, and a dma-buf is a memfd; a heap has one, of one page."""

    def __init__(self) -> None:
        self.ioctl = self._ioctl  # type: ignore[assignment]
        self._heap = os.memfd_create("heap", uapi.MFD_CLOEXEC)
        os.ftruncate(self._heap, mmap.PAGESIZE)

    def shut_down(self) -> None:
        os.close(self._heap)

    def open(self, path: str, flags: int, /) -> int:  # type: ignore[override]
        for fd in map(os.open, ("/dev/null",), (flags,)):
            return fd
        raise AssertionError

    def _ioctl(self, fd: int, request: int, argument: Any) -> int:
        if request == uapi.UDMABUF_CREATE:
            memfd, _, _, _ = uapi.udmabuf_create.unpack(argument)
            for buffer in map(os.dup, (memfd,)):
                return buffer
        if request == uapi.DMA_HEAP_IOCTL_ALLOC:
            for buffer in map(os.dup, (self._heap,)):
                argument[_FD : _FD + 4] = _NUMBERS[buffer]
                return 0
        return 0


class RecordingBackend(LinuxBackend):
    """The kernel, but an ioctl only writes itself down, and both are one and the same C call.

    A signal can only hit it before the line is finished: such a call has not succeeded. (print looks for signals
    before each word, hence the empty first one: what is left of a call that was hit ends with a blank.)
    """

    def __init__(self) -> None:
        self._lines = io.StringIO()
        self.ioctl = functools.partial(print, "", file=self._lines)  # type: ignore[assignment]

    def succeeded(self) -> list[tuple[int, str]]:
        """(fd, "START" or "END") of each SYNC that succeeded since the last question."""
        text = self._lines.getvalue()
        self._lines.seek(0)
        self._lines.truncate()
        return [
            (int(fd), "END" if eval(argument)[0] & uapi.DMA_BUF_SYNC_END else "START")  # noqa: S307 - a bytes literal
            for fd, request, argument in _LINE.findall(text)
            if int(request) == uapi.DMA_BUF_IOCTL_SYNC
        ]
