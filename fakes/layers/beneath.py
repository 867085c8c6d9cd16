"""What the layers have in common: finding what lies beneath them, and naming a buffer through any descriptor."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from dmasync import Backend, LinuxBackend

METHODS: Final = (
    "open",
    "close",
    "dup",
    "ioctl",
    "memfd_create",
    "ftruncate",
    "add_seals",
    "get_seals",
    "mmap",
    "lseek",
    "poll",
)
"""What a backend is called by."""

BufferOf = Callable[[int], "int | None"]


def find(backend: object, attribute: str) -> Any:
    """The *attribute* of the outermost of *backend* and the layers beneath it (``inner``) that has it, or
    None.
    """
    layer: object | None = backend
    while layer is not None:
        if hasattr(layer, attribute):
            return getattr(layer, attribute)
        layer = getattr(layer, "inner", None)
    return None


def buffer_of_file(fd: int) -> int | None:
    """The inode number of *fd*, the same through each of its duplicates; None when it is not open.

    Every dma-buf has an inode of its own that is never used again while the system runs
    (drivers/dma-buf/dma-buf.c).
    """
    try:
        return os.fstat(fd).st_ino
    except (OSError, OverflowError, TypeError):
        return None


def buffer_of(backend: Backend) -> BufferOf:
    """How to name the buffers of *backend*: by inode number, asked of a fake kernel or of the real one.

    A backend that is neither, and has no ``buffer_of(fd)``, can only be asked by descriptor: there the descriptor is
    the name.
    """
    found = find(backend, "buffer_of")
    if found is None:
        innermost: object = backend
        while hasattr(innermost, "inner"):
            innermost = innermost.inner
        return buffer_of_file if isinstance(innermost, LinuxBackend) else _itself

    def buffer_of_kernel(fd: int) -> int | None:
        try:
            buffer = found(fd)
        except OSError:
            return None
        return buffer if isinstance(buffer, int) else buffer.ino

    return buffer_of_kernel


def fake_files(backend: Backend) -> dict[int, Any] | None:
    """The open files of the fake kernel beneath *backend*, by descriptor; None where there is no fake kernel.

    Only a dma-buf has an ``ino``, which names it.
    """
    kernel = getattr(find(backend, "buffer_of"), "__self__", None)
    files = getattr(getattr(kernel, "descriptors", None), "files", None)
    return files if isinstance(files, dict) else None


def _itself(fd: int) -> int:
    return fd
