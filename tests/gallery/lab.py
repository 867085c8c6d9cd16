"""What the gallery's programs run in: buffers, a device, and the plain ioctl that such programs use."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dmasync import DmaBuf, DmaBufAllocator, DmaBufAllocatorFlag, uapi
from dmasync.fakes import FakeBackend, FakeDevice, Finding, Sanitizer

SIZE = 16384
RAW = bytes(range(1, 129)) * (SIZE // 128)
"""What the device writes: every byte differs from its neighbours, from 0 and from DONE."""
DONE = bytes(range(129, 257 - 1)) * (SIZE // 127) + b"\xff" * (SIZE % 127)
"""What the CPU writes."""

READ, WRITE, RW = uapi.DMA_BUF_SYNC_READ, uapi.DMA_BUF_SYNC_WRITE, uapi.DMA_BUF_SYNC_RW
START, END = uapi.DMA_BUF_SYNC_START, uapi.DMA_BUF_SYNC_END

Outcome = tuple[bytes, bytes]
"""What came out, and what should have."""


@dataclass
class Lab:
    """One fake machine."""

    backend: FakeBackend
    device: FakeDevice
    allocator: DmaBufAllocator
    log: list[str] = field(default_factory=list)
    exits: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def buffer(self) -> DmaBuf:
        """A buffer of SIZE bytes, closed when the program is over."""
        return self.exits.enter_context(self.allocator.alloc("frame", SIZE))

    def view(self, buffer: DmaBuf) -> memoryview[Any]:
        """All bytes of *buffer*, mapped until the program is over."""
        mapping = buffer.map()
        self.exits.callback(mapping.close)
        view = memoryview(mapping)  # type: ignore[arg-type]  # a Mapping has the buffer protocol
        self.exits.callback(view.release)
        return view

    def sync(self, buffer: DmaBuf | int, flags: int) -> None:
        """The bare ioctl."""
        fd = buffer if isinstance(buffer, int) else buffer.fileno()
        self.backend.ioctl(fd, uapi.DMA_BUF_IOCTL_SYNC, uapi.dma_buf_sync.pack(flags))


def run(program: Callable[[Lab], Outcome], *, coherent: bool = False, seed: int = 0) -> tuple[Outcome, list[Finding]]:
    """Run *program* on a machine of its own; what came out and what the sanitizer found."""
    backend = FakeBackend(coherent=coherent, watch=True, seed=seed)
    with _lab(backend) as lab:
        outcome = program(lab)
    return outcome, Sanitizer(backend).findings()


@contextlib.contextmanager
def _lab(backend: FakeBackend) -> Iterator[Lab]:
    flags = DmaBufAllocatorFlag.SYSTEM_HEAP
    with DmaBufAllocator(flags, backend=backend) as allocator, FakeDevice(backend) as device:
        lab = Lab(backend, device, allocator)
        with lab.exits:
            yield lab
