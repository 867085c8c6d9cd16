"""A CMA heap (drivers/dma-buf/heaps/cma_heap.c): what it does beyond every dma-buf; the real one has 16 MiB or more."""

from __future__ import annotations

import errno
import os

import pytest

from dmasync import uapi
from tests.conformance.kernels import END_RW, PAGE, PRIVATE, RO, RW, SHARED, START_READ, START_RW, System, refused

MIB = 1 << 20
ALLOC = uapi.DMA_HEAP_IOCTL_ALLOC


def test_its_buffers_carry_its_name(system: System) -> None:
    info = system.fdinfo(system.buffer("cma", 2))
    assert info == {
        "pos": "0",
        "flags": "02000002",
        "size": str(2 * PAGE),
        "count": "1",
        "exp_name": os.path.basename(system.cma_heap),
    }


def test_end_before_any_start_is_fine(system: System) -> None:
    system.sync(system.buffer("cma"), END_RW)


@pytest.mark.parametrize("length", [1, PAGE - 1, PAGE + 1, 3 * PAGE, 5 * PAGE + 1, MIB + 1])
def test_a_length_is_rounded_up_to_pages_and_no_further(system: System, length: int) -> None:
    buffer = system.allocate(system.open(system.cma_heap), length)
    size = -(-length // PAGE) * PAGE
    assert system.size(buffer) == size
    with refused(errno.EINVAL):
        system.mmap(buffer, size + PAGE)
    assert system.mmap(buffer, size)[:] == bytes(size)


@pytest.mark.parametrize("length", [0, (1 << 64) - PAGE + 1, (1 << 64) - 1])
def test_a_length_of_no_pages_is_refused(system: System, length: int) -> None:
    with refused(errno.EINVAL):
        system.allocate(system.open(system.cma_heap), length)


@pytest.mark.parametrize("length", [1 << 30, 1 << 40, 1 << 62, (1 << 64) - PAGE])
def test_more_than_the_region_has_is_enomem_and_nothing_is_lost(system: System, length: int) -> None:
    heap = system.open(system.cma_heap)
    for _ in range(3):
        with refused(errno.ENOMEM):
            system.allocate(heap, length)
    system.close(system.allocate(heap, MIB))


def test_a_region_that_ran_dry_has_room_again_when_a_buffer_goes(system: System) -> None:
    heap, buffers = system.open(system.cma_heap), []
    with refused(errno.ENOMEM):
        while True:
            buffers.append(system.allocate(heap, 2 * MIB))
    with refused(errno.ENOMEM):
        system.allocate(heap, 2 * MIB)
    assert buffers
    system.close(buffers.pop())
    system.allocate(heap, 2 * MIB)


def test_memory_that_comes_back_is_zeroed(system: System) -> None:
    heap = system.open(system.cma_heap)
    for _ in range(3):
        buffers = [system.allocate(heap, MIB // 4) for _ in range(8)]
        for buffer in buffers:
            mapping = system.mmap(buffer, MIB // 4)
            system.sync(buffer, START_RW)
            assert mapping[:] == bytes(MIB // 4)
            mapping[:] = b"\xff" * (MIB // 4)
            system.sync(buffer, END_RW)
            mapping.close()
        for buffer in buffers:
            system.close(buffer)


@pytest.mark.parametrize("prot", [0, RO, RW])
@pytest.mark.parametrize("length", [1, PAGE, 2 * PAGE])
def test_a_private_mapping_is_refused(system: System, prot: int, length: int) -> None:
    with refused(errno.EINVAL):
        system.mmap(system.buffer("cma", 2), length, prot, PRIVATE)


def test_two_mappings_and_a_later_page_show_the_same_bytes(system: System) -> None:
    buffer = system.buffer("cma", 4)
    one, other = system.mmap(buffer, 4 * PAGE), system.mmap(buffer, PAGE, RO, SHARED, 2 * PAGE)
    one[2 * PAGE : 2 * PAGE + 5] = b"bytes"
    assert other[:5] == b"bytes"


def test_a_mapping_outlives_the_descriptor(system: System) -> None:
    buffer = system.buffer("cma")
    mapping = system.mmap(buffer)
    system.close(buffer)
    mapping[0] = 7
    assert mapping[0] == 7


@pytest.mark.parametrize(
    ("length", "fd", "fd_flags", "heap_flags"),
    [(PAGE, 1, os.O_RDWR, 0), (PAGE, 0, os.O_RDWR | os.O_CREAT, 0), (PAGE, 0, os.O_RDWR, 1)],
)
def test_what_every_heap_refuses_it_refuses(
    system: System, length: int, fd: int, fd_flags: int, heap_flags: int
) -> None:
    with refused(errno.EINVAL):
        system.allocate(system.open(system.cma_heap), length, fd_flags, heap_flags, fd)


def test_bad_flags_are_found_before_a_length_that_is_too_large(system: System) -> None:
    with refused(errno.EINVAL):
        system.allocate(system.open(system.cma_heap), 1 << 40, heap_flags=1)


def test_no_memory_is_found_before_the_descriptor_limit(system: System) -> None:
    heap = system.open(system.cma_heap)
    with system.no_descriptors_left():
        with refused(errno.ENOMEM):
            system.allocate(heap, 1 << 40)
        with refused(errno.EMFILE):
            system.allocate(heap, PAGE)


def test_a_window_over_a_buffer_that_a_device_has_imported(system: System) -> None:
    buffer = system.buffer("cma", 4)
    with system.imported(buffer):
        for flags in (START_RW, END_RW, START_READ, END_RW, END_RW):
            system.sync(buffer, flags)
    system.sync(buffer, END_RW)
