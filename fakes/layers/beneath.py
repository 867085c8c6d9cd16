"""What the layers have in common: finding what lies beneath them, and naming a buffer through any descriptor.

How a layer keeps a success from turning into an exception: CPython runs signal handlers after calls, at the
entry of Python functions and at backward jumps, but not while ``for result in map(call, …)`` steps its
iterator in C and enters the body. So the body is reached exactly when the inner call succeeded, and a body
without calls, backward jumps or conditions cannot be interrupted: the exception waits until the caller has
the result.
"""

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

    files = getattr(getattr(getattr(found, "__self__", None), "descriptors", None), "files", None)
    if isinstance(files, dict):
        # The fake kernel's own table: every recorded edge asks, and the way through three calls is a third of its cost.
        def buffer_of_fake(fd: int) -> int | None:
            try:
                return files[fd].ino  # type: ignore[no-any-return]
            except (KeyError, AttributeError):
                return None

        return buffer_of_fake

    def buffer_of_kernel(fd: int) -> int | None:
        try:
            buffer = found(fd)
        except OSError:
            return None
        return buffer if isinstance(buffer, int) else buffer.ino

    return buffer_of_kernel


def _itself(fd: int) -> int:
    return fd
