"""What an operation is made from: the backend of the target, buffers of a provider, an importer to attach them to."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any

from dmasync import DEFAULT_PROVIDERS, DmaBuf, DmaBufAllocator, DmaBufAllocatorFlag, LinuxBackend, NoProviderError
from dmasync.harness.vgem import Vgem

FLAGS = {
    "udmabuf": DmaBufAllocatorFlag.UDMABUF,
    "system": DmaBufAllocatorFlag.SYSTEM_HEAP,
    "cma": DmaBufAllocatorFlag.CMA_HEAP,
}
"""Providers as the rows name them. The CMA heap has had several node names; it is one provider."""


class UnmeasurableError(Exception):
    """The row cannot be measured here; the message is the reason."""


class Bench:
    """One row's surroundings; closes what it gave."""

    def __init__(self, *, fake: bool = False) -> None:
        self.is_fake = fake
        if fake:
            from dmasync.fakes import FakeBackend

            self.backend: Any = FakeBackend()
        else:
            self.backend = LinuxBackend()
        self._stack = contextlib.ExitStack()
        self._allocators: dict[str, DmaBufAllocator] = {}
        self._importer: Vgem | None = None

    def allocator(self, provider: str, backend: Any = None) -> DmaBufAllocator:
        """The allocator of *provider*; over another *backend* a new one."""
        if provider in self._allocators and backend is None:
            return self._allocators[provider]
        # Plain numbers reach the real kernel without dmasync's help: the default backend is what users have.
        chosen = backend if backend is not None else self.backend if self.is_fake else None
        allocator = self._stack.enter_context(
            DmaBufAllocator(FLAGS[provider], providers=DEFAULT_PROVIDERS, backend=chosen)
        )
        if backend is None:
            self._allocators[provider] = allocator
        return allocator

    def buffer(self, provider: str, size: int, attached: bool = False) -> DmaBuf:
        """A buffer of *size* bytes; *attached*: imported into vgem, which attaches and maps it."""
        buffer = self._stack.enter_context(self.allocator(provider).alloc("dmasync-bench", size))
        if attached:
            self.importer().import_buffer(buffer.fileno())
        return buffer

    def importer(self) -> Vgem:
        if self._importer is None:
            if self.is_fake:
                raise UnmeasurableError("the fake has no importer to attach a buffer to")
            self._importer = self._stack.enter_context(Vgem.find())
        return self._importer

    def keep(self, fd: int) -> int:
        """Close *fd* with the row."""
        self._stack.callback(os.close, fd)
        return fd

    def keep_open(self, buffer: DmaBuf) -> DmaBuf:
        """Close *buffer* with the row."""
        return self._stack.enter_context(buffer)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()


def providers(bench: Bench) -> dict[str, str]:
    """Ask each provider for a page: the empty text where it gave one, else the reason why not."""
    found = {}
    for name in FLAGS:
        try:
            bench.buffer(name, 4096)
            found[name] = ""
        except NoProviderError as error:
            codes = {number for number in (error.errno,) if number}
            found[name] = f"no node opens ({', '.join(errno.errorcode.get(code, str(code)) for code in codes)})"
        except OSError as error:
            found[name] = f"gives no buffer: {error.strerror or error}"
    return found


def importers(bench: Bench) -> str:
    """The empty text where an importer is there, else the reason why not."""
    try:
        bench.importer()
    except (OSError, UnmeasurableError) as error:
        return str(error)
    return ""


def process(bench: Bench) -> int:
    """The number of the process that a row is measured in."""
    return os.getpid()


def server(bench: Bench) -> int:
    """The number of the process that forks it."""
    return os.getppid()


def die(bench: Bench, *, status: int) -> None:
    """End that process without an answer."""
    os._exit(status)
