"""A buffer's birth, its bytes, its end."""

from __future__ import annotations

import mmap
from typing import Any

from dmasync import DmaBuf, SyncType
from dmasync.harness.bench.measure import Operation
from dmasync.harness.bench.timed.call_counter import CountingBackend
from dmasync.harness.bench.timed.surroundings import Bench

LARGEST_BLOCK = 64 << 20
"""Bytes that live at once between two blocks."""


def _most(size: int) -> int:
    return max(1, min(8, LARGEST_BLOCK // size))


def allocate_and_release(bench: Bench, *, provider: str, size: int) -> Operation:
    """alloc() and close()."""
    allocator = bench.allocator(provider)

    def run(count: int) -> None:
        for _ in range(count):
            allocator.alloc("dmasync-bench", size).close()

    return Operation(run, most=8, facts={"calls": _calls(bench, provider, size, release=True)})


def allocate(bench: Bench, *, provider: str, size: int) -> Operation:
    """alloc() alone."""
    allocator = bench.allocator(provider)
    buffers: list[DmaBuf] = []

    def run(count: int) -> None:
        for _ in range(count):
            buffers.append(allocator.alloc("dmasync-bench", size))

    def clean() -> None:
        for buffer in buffers:
            buffer.close()
        buffers.clear()

    return Operation(run, clean=clean, most=_most(size), facts={"calls": _calls(bench, provider, size, release=False)})


def release(bench: Bench, *, provider: str, size: int) -> Operation:
    """close() of a buffer that nobody mapped."""
    allocator = bench.allocator(provider)
    buffers: list[DmaBuf] = []

    def prepare(count: int) -> None:
        buffers[:] = [allocator.alloc("dmasync-bench", size) for _ in range(count)]

    def run(count: int) -> None:
        for buffer in buffers:
            buffer.close()

    return Operation(run, prepare=prepare, most=_most(size))


def map_buffer(bench: Bench, *, provider: str, size: int) -> Operation:
    """map() of a buffer; the mappings go between the blocks."""
    buffer = bench.buffer(provider, size)
    mappings: list[Any] = []

    def run(count: int) -> None:
        for _ in range(count):
            mappings.append(buffer.map(SyncType.READ_WRITE))

    def clean() -> None:
        for mapping in mappings:
            mapping.close()
        mappings.clear()

    # A slab gives out once in some twelve mappings: many must bear that, or a block has it or has it not.
    return Operation(run, clean=clean, least=32, most=32)


def first_touch(bench: Bench, *, provider: str, size: int) -> Operation:
    """Write one byte of each page of a new mapping."""
    buffer = bench.buffer(provider, size)
    mappings: list[Any] = []

    def prepare(count: int) -> None:
        mappings[:] = [buffer.map(SyncType.READ_WRITE) for _ in range(count)]

    def run(count: int) -> None:
        for mapping in mappings:
            view = memoryview(mapping)
            for offset in range(0, size, mmap.PAGESIZE):
                view[offset] = 1
            view.release()

    def clean() -> None:
        for mapping in mappings:
            mapping.close()
        mappings.clear()

    return Operation(run, prepare, clean, most=8, facts={"calls": 0})


def _calls(bench: Bench, provider: str, size: int, *, release: bool) -> int:
    """How many system calls it is: asked of the library, not counted by hand."""
    backend = CountingBackend(bench.backend)
    allocator = bench.allocator(provider, backend)
    backend.calls = 0
    buffer = allocator.alloc("dmasync-bench", size)
    calls = backend.calls
    buffer.close()
    return backend.calls if release else calls
