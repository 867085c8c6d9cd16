"""What the kernel's own selftests look at (tools/testing/selftests: drivers/dma-buf/udmabuf.c, dmabuf-heaps)."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from dmasync import uapi
from tests.conformance.kernels import END_RW, PAGE, START_RW, SYSTEM_HEAP, UDMABUF, System, refused

MIB = 1 << 20


@pytest.fixture
def sealed_memfd(system: System) -> int:
    return system.memfd(4)


@pytest.mark.parametrize(("offset", "size"), [(PAGE // 2, PAGE), (0, PAGE // 2)])
def test_udmabuf_wants_whole_pages(system: System, sealed_memfd: int, offset: int, size: int) -> None:
    with refused(errno.EINVAL):
        system.create(system.open(UDMABUF), sealed_memfd, offset, size)


def test_udmabuf_wants_a_memfd(system: System) -> None:
    device = system.open(UDMABUF)
    with refused(errno.EBADFD):
        system.create(device, device, 0, 4 * PAGE)


def test_udmabuf_takes_a_memfd_that_has_been_written(system: System, sealed_memfd: int) -> None:
    mapping = system.mmap(sealed_memfd, 4 * PAGE)
    for page in range(4):
        mapping[page * PAGE] = ord("a")
    system.create(system.open(UDMABUF), sealed_memfd, 0, 4 * PAGE)


def test_udmabuf_sees_what_the_memfd_got_after_the_pages_were_pinned(system: System) -> None:
    pages = 1024
    memfd = system.memfd(pages)
    file = system.mmap(memfd, pages * PAGE)
    for page in range(pages):
        file[page * PAGE] = ord("a")
    quarter = pages // 4 * PAGE
    items = [(memfd, index * quarter, 4 * PAGE) for index in range(4)]
    buffer = system.mmap(system.create_list(system.open(UDMABUF), items), 16 * PAGE)
    for page in range(pages):
        file[page * PAGE] = ord("b")
    for index in range(4):
        for page in range(4):
            assert buffer[(index * 4 + page) * PAGE] == file[index * quarter + page * PAGE] == ord("b")


def test_a_heap_buffer_can_be_filled_within_windows(system: System) -> None:
    buffer = system.allocate(system.open(SYSTEM_HEAP), MIB)
    mapping = system.mmap(buffer, MIB)
    for fill in (b"\1" * (MIB // 2) + bytes(MIB // 2), b"\xff" * MIB):
        system.sync(buffer, START_RW)
        mapping[:] = fill
        system.sync(buffer, END_RW)
    assert mapping[:] == b"\xff" * MIB


@pytest.mark.parametrize("size", [4 * 1024, MIB])
def test_a_heaps_buffers_are_zeroed(system: System, size: int) -> None:
    heap = system.open(SYSTEM_HEAP)
    for fill in (True, False):
        buffers = [system.allocate(heap, size) for _ in range(32)]
        for buffer in buffers:
            mapping = system.mmap(buffer, size)
            system.sync(buffer, START_RW)
            if fill:
                mapping[:] = b"\xff" * size
            else:
                assert mapping[:] == bytes(size)
            system.sync(buffer, END_RW)
            mapping.close()
        for buffer in buffers:
            system.close(buffer)


@pytest.mark.parametrize("newer", [False, True], ids=["older", "newer"])
def test_a_heap_takes_an_older_and_a_newer_structure(system: System, newer: bool) -> None:
    garbage = struct.pack("=QQQ", 0xFFFFFFFF, 0x88888888, 0x11111111)
    argument = bytearray(struct.pack("=QII", MIB, 0, os.O_RDWR | os.O_CLOEXEC))
    if newer:
        argument += bytes(8) + garbage
    request = 3 << 30 | len(argument) << 16 | ord("H") << 8
    assert system.backend.ioctl(system.open(SYSTEM_HEAP), request, argument) == 0
    system.owned(int.from_bytes(argument[8:12], "little"))
    if newer:
        assert argument[24:] == garbage


def test_a_heap_refuses_bad_descriptors_and_flags(system: System) -> None:
    heap, memfd = system.open(SYSTEM_HEAP), system.memfd()
    with refused(errno.ENOTTY):
        system.allocate(memfd, MIB, heap_flags=0x111111)
    with refused(errno.EINVAL):
        system.allocate(heap, MIB, heap_flags=0x111111)
    with refused(errno.EINVAL):
        system.allocate(heap, MIB, ~(os.O_RDWR | os.O_CLOEXEC) & 0xFFFFFFFF)
    system.close(heap)
    with refused(errno.EBADF):
        system.backend.ioctl(heap, uapi.DMA_HEAP_IOCTL_ALLOC, bytearray(24))
