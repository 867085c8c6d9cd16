"""Fixtures of the library's own tests."""

from __future__ import annotations

import pytest

from dmasync import DmaBufAllocator, DmaBufAllocatorFlag
from dmasync.fakes import FakeBackend
from tests.support.signal_storm import open_files, storm

__all__ = ["backend", "buffer", "buffers", "open_files", "storm"]


@pytest.fixture
def backend():
    return FakeBackend()


@pytest.fixture
def buffer(backend):
    with DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=backend) as allocator:
        buffer = allocator.alloc("frame", 4096)
    yield buffer
    buffer.close()


@pytest.fixture
def buffers(backend):
    with DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=backend) as allocator:
        buffers = [allocator.alloc(f"frame-{number}", 4096) for number in range(3)]
    yield buffers
    for buffer in buffers:
        buffer.close()
