"""The paths at which the backend is found: device nodes, their folder, and the module's parameters."""

from __future__ import annotations

import contextlib
import ctypes
import os
import posixpath
from collections.abc import Iterable
from typing import Final

from dmasync.harness.run.program import memory

HEAPS: Final = "/dev/dma_heap"
UDMABUF: Final = "/dev/udmabuf"
PARAMETERS: Final = "/sys/module/udmabuf/parameters"
_AT_FDCWD: Final = -100
_PATH_MAX: Final = 4096


class Places:
    """*nodes* exist, those in *denied* may not be opened; with *fake* the host's own are hidden behind them."""

    def __init__(self, nodes: Iterable[str], denied: Iterable[str] = (), *, fake: bool) -> None:
        self.nodes = [posixpath.normpath(node) for node in nodes]
        self.denied = {posixpath.normpath(node) for node in denied}
        self.fake = fake
        self.folder: tuple[int, int] | None = None
        """(device, inode) of what stands for the heaps' folder in a program."""
        names = {posixpath.basename(node) for node in self.nodes}
        names |= {"udmabuf", "dma_heap", "list_limit", "size_limit_mb"}
        self._names = tuple(name.encode() for name in names)

    @property
    def heaps(self) -> list[str]:
        """What the folder of the heaps lists."""
        return [posixpath.basename(node) for node in self.nodes if posixpath.dirname(node) == HEAPS]

    def is_node(self, path: str) -> bool:
        """Whether *path* is for the backend to open, be it there or not."""
        return path in self.nodes or path == UDMABUF or posixpath.dirname(path) == HEAPS

    def of_call(self, thread: int, folder: int, address: int) -> str | None:
        """The absolute path that a call names, if it may be one of ours, or a descriptor's name in /proc."""
        try:
            raw = memory.string(thread, address, _PATH_MAX)
        except OSError:
            return None  # for the kernel to refuse
        if len(raw) >= _PATH_MAX:
            return None
        # The last name alone tells for nearly every path that it is not ours.
        name = raw.rstrip(b"/").rpartition(b"/")[2]
        likely = name in self._names or b"/udmabuf/" in raw or b"dma_heap/" in raw
        numbered = name.isdigit() and (b"/fd/" in raw or b"/fdinfo/" in raw)
        if not likely and not numbered and not self._is_link(thread, folder, raw):
            return None
        path = self._absolute(thread, folder, os.fsdecode(raw))
        if path is None or numbered:
            return path
        if not self.is_ours(path):
            path = _resolved(thread, path)
        # A path that ends so must be a folder.
        return path + "/" * raw.endswith(b"/") if self.is_ours(path) else None

    def is_ours(self, path: str) -> bool:
        return (
            path in (*self.nodes, UDMABUF, HEAPS)
            or path.startswith((HEAPS + "/", *(node + "/" for node in self.nodes)))
            or posixpath.dirname(path) == PARAMETERS
        )

    def _is_link(self, thread: int, folder: int, raw: bytes) -> bool:
        path = self._absolute(thread, folder, os.fsdecode(raw))
        return path is not None and os.path.islink(f"/proc/{thread}/root{path}")

    def _absolute(self, thread: int, folder: int, path: str) -> str | None:
        if not path.startswith("/"):
            number = ctypes.c_int(folder & 0xFFFF_FFFF).value
            link = f"/proc/{thread}/cwd" if number == _AT_FDCWD else f"/proc/{thread}/fd/{number}"
            try:
                state = os.stat(link)
                base = HEAPS if (state.st_dev, state.st_ino) == self.folder else os.readlink(link)
            except OSError:
                return None
            path = posixpath.join(base, path)
        if path.startswith("//"):
            path = path[1:]
        return posixpath.normpath(path)


def _resolved(thread: int, path: str) -> str:
    """*path* with the links followed as *thread* sees them; the last name need not exist."""
    root = f"/proc/{thread}/root"
    if os.readlink(root) == "/":
        return os.path.realpath(path)
    with contextlib.suppress(OSError):  # a root of its own: its links lead within that
        target = os.readlink(root + path)
        return posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return path
