"""/dev/dma_heap/system: drivers/dma-buf/dma-heap.c, heaps/system_heap.c."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from dmasync import uapi
from tests.conformance.kernels import END_RW, MACHINE, PAGE, PRIVATE, RO, RW, SYSTEM_HEAP, System, refused

ALLOC = uapi.DMA_HEAP_IOCTL_ALLOC
MAP_POPULATE = 0x8000
MIB = 1 << 20


def sized(size: int, directions: int = 3, number: int = 0, kind: int = ord("H")) -> int:
    return directions << 30 | size << 16 | kind << 8 | number


@pytest.mark.parametrize(
    ("length", "size"),
    [
        (1, PAGE),
        (PAGE - 1, PAGE),
        (PAGE, PAGE),
        (PAGE + 1, 2 * PAGE),
        (MIB - 1, MIB),
        (MIB, MIB),
        (MIB + 1, MIB + PAGE),
        (3 * MIB + 17 * PAGE, 3 * MIB + 17 * PAGE),
    ],
)
def test_a_length_is_rounded_up_to_pages(system: System, length: int, size: int) -> None:
    assert system.size(system.allocate(system.open(SYSTEM_HEAP), length)) == size


@pytest.mark.parametrize("length", [0, (1 << 64) - 1, (1 << 64) - PAGE + 1])
def test_a_length_of_no_pages_is_refused(system: System, length: int) -> None:
    with refused(errno.EINVAL):
        system.allocate(system.open(SYSTEM_HEAP), length)


@pytest.mark.parametrize(
    ("fd_flags", "shown"),
    [
        (os.O_RDONLY, "00"),
        (os.O_WRONLY, "01"),
        (os.O_RDWR, "02"),
        (3, "03"),
        (os.O_RDONLY | os.O_CLOEXEC, "02000000"),
        (os.O_RDWR | os.O_CLOEXEC, "02000002"),
    ],
)
def test_the_descriptor_has_the_flags_asked_for(system: System, fd_flags: int, shown: str) -> None:
    fd = system.allocate(system.open(SYSTEM_HEAP), PAGE, fd_flags)
    assert system.fdinfo(fd)["flags"] == shown


@pytest.mark.parametrize("bit", [bit for bit in range(32) if 1 << bit not in (1, 2, os.O_CLOEXEC)])
def test_every_other_descriptor_flag_is_refused(system: System, bit: int) -> None:
    with refused(errno.EINVAL):
        system.allocate(system.open(SYSTEM_HEAP), PAGE, os.O_RDWR | 1 << bit)


@pytest.mark.parametrize("bit", [0, 1, 7, 31, 32, 63])
def test_every_heap_flag_is_refused(system: System, bit: int) -> None:
    with refused(errno.EINVAL):
        system.allocate(system.open(SYSTEM_HEAP), PAGE, heap_flags=1 << bit)


@pytest.mark.parametrize("fd", [1, 3, 0x8000_0000, 0xFFFF_FFFF])
def test_the_fd_field_must_be_zero(system: System, fd: int) -> None:
    with refused(errno.EINVAL):
        system.allocate(system.open(SYSTEM_HEAP), PAGE, fd=fd)


def test_a_refused_argument_is_left_as_it_was(system: System) -> None:
    argument = uapi.dma_heap_allocation_data.pack(PAGE, 7, os.O_RDWR, 0)
    before = bytes(argument)
    with refused(errno.EINVAL):
        system.backend.ioctl(system.open(SYSTEM_HEAP), ALLOC, argument)
    assert argument == before


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, 3])
def test_how_the_node_was_opened_does_not_matter(system: System, flags: int) -> None:
    system.allocate(system.open(SYSTEM_HEAP, flags), PAGE)


def test_new_buffers_are_zero_also_where_old_ones_were_not(system: System) -> None:
    heap = system.open(SYSTEM_HEAP)
    for _ in range(8):
        buffer = system.allocate(heap, 4 * PAGE)
        mapping = system.mmap(buffer, 4 * PAGE)
        assert mapping[:] == bytes(4 * PAGE)
        mapping[:] = b"\xff" * (4 * PAGE)
        mapping.close()
        system.close(buffer)


def test_buffers_do_not_share_pages(system: System) -> None:
    heap = system.open(SYSTEM_HEAP)
    one, other = system.mmap(system.allocate(heap, PAGE)), system.mmap(system.allocate(heap, PAGE))
    one[0] = 1
    assert other[0] == 0


def test_the_buffer_outlives_the_heaps_descriptor(system: System) -> None:
    heap = system.open(SYSTEM_HEAP)
    buffer = system.allocate(heap, PAGE)
    system.close(heap)
    system.mmap(buffer)[0] = 1


def test_a_new_buffer_has_no_name_and_names_its_heap(system: System) -> None:
    info = system.fdinfo(system.buffer("system", 2))
    assert info == {
        "pos": "0",
        "flags": "02000002",
        "size": str(2 * PAGE),
        "count": "1",
        "exp_name": "system",
    }


def test_end_before_any_start_is_fine(system: System) -> None:
    system.sync(system.buffer("system"), END_RW)


def test_everything_else_is_found_before_the_descriptor_limit(system: System) -> None:
    heap = system.open(SYSTEM_HEAP)
    with system.no_descriptors_left():
        with refused(errno.EINVAL):
            system.allocate(heap, 0)
        with refused(errno.EMFILE):
            system.allocate(heap, PAGE)


# What a caller of another age passes: a structure of another size


@pytest.mark.parametrize("size", [16, 17, 20, 23, 24, 25, 32, 48, 128, 129, 256, 1024])
def test_a_caller_may_have_a_smaller_or_larger_structure(system: System, size: int) -> None:
    heap = system.open(SYSTEM_HEAP)
    tail = bytes(range(1, 256)) * 5
    argument = bytearray((struct.pack("=QIIQ", PAGE, 0, os.O_RDWR | os.O_CLOEXEC, 0) + tail)[:size])
    before = bytes(argument)
    assert system.backend.ioctl(heap, sized(size), argument) == 0
    fd = system.owned(int.from_bytes(argument[8:12], "little"))
    assert system.size(fd) == PAGE
    assert argument[:8] + bytes(4) + argument[12:] == before


@pytest.mark.parametrize("size", [17, 20, 23])
def test_what_a_smaller_structure_has_of_the_heap_flags_counts(system: System, size: int) -> None:
    argument = bytearray(struct.pack("=QIIQ", PAGE, 0, os.O_RDWR, 1)[:size])
    with refused(errno.EINVAL):
        system.backend.ioctl(system.open(SYSTEM_HEAP), sized(size), argument)


def test_heap_flags_that_a_smaller_structure_has_not_are_not_read(system: System) -> None:
    argument = bytearray(struct.pack("=QIIQ", PAGE, 0, os.O_RDWR | os.O_CLOEXEC, 1))
    assert system.backend.ioctl(system.open(SYSTEM_HEAP), sized(16), argument) == 0
    system.owned(uapi.dma_heap_allocation_data.get(argument, "fd"))
    assert uapi.dma_heap_allocation_data.get(argument, "heap_flags") == 1


def test_a_structure_without_fd_flags_gives_a_read_only_descriptor(system: System) -> None:
    argument = bytearray(struct.pack("=QIIQ", PAGE, 0, os.O_RDWR, 0))
    assert system.backend.ioctl(system.open(SYSTEM_HEAP), sized(12), argument) == 0
    fd = system.owned(uapi.dma_heap_allocation_data.get(argument, "fd"))
    assert system.fdinfo(fd)["flags"] == "00"


@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_structure_that_is_too_small_for_a_length(system: System, size: int) -> None:
    argument = bytearray(struct.pack("=QIIQ", 0x0100_0000_0000_0000, 0, os.O_RDWR, 0))
    with refused(errno.EINVAL):
        system.backend.ioctl(system.open(SYSTEM_HEAP), sized(size), argument)


@pytest.mark.parametrize("directions", [0, 2])
def test_a_request_that_writes_nothing_asks_for_no_bytes(system: System, directions: int) -> None:
    argument = bytearray(struct.pack("=QIIQ", PAGE, 0, os.O_RDWR, 0))
    with refused(errno.EINVAL):
        system.backend.ioctl(system.open(SYSTEM_HEAP), sized(24, directions), argument)


@pytest.mark.parametrize("kind", [0, 1, ord("H"), ord("b"), 255])
@pytest.mark.parametrize("size", [16, 24, 40])
def test_the_requests_type_is_not_looked_at(system: System, kind: int, size: int) -> None:
    argument = bytearray(struct.pack("=QIIQ", PAGE, 0, os.O_RDWR | os.O_CLOEXEC, 0) + bytes(16))
    assert system.backend.ioctl(system.open(SYSTEM_HEAP), sized(size, kind=kind), argument) == 0
    system.owned(uapi.dma_heap_allocation_data.get(argument, "fd"))


@pytest.mark.parametrize("number", [1, 2, 3, 0x42, 0x80, 0xFF])
@pytest.mark.parametrize("kind", [ord("H"), ord("b"), ord("T")])
def test_other_request_numbers_are_einval(system: System, number: int, kind: int) -> None:
    argument = bytearray(struct.pack("=QIIQ", PAGE, 0, os.O_RDWR | os.O_CLOEXEC, 0))
    with refused(errno.EINVAL):
        system.backend.ioctl(system.open(SYSTEM_HEAP), sized(24, number=number, kind=kind), argument)


def test_a_wrong_number_is_found_before_a_bad_address(system: System) -> None:
    heap = system.open(SYSTEM_HEAP)
    with refused(errno.EINVAL):
        system.backend.ioctl(heap, sized(24, number=1), 0)
    with refused(errno.EFAULT):
        system.backend.ioctl(heap, ALLOC, 0)


def test_a_request_of_no_bytes_reads_none(system: System) -> None:
    with refused(errno.EINVAL):
        system.backend.ioctl(system.open(SYSTEM_HEAP), 0, 0)


@pytest.mark.parametrize("cut", [1, 8, 23])
def test_an_argument_that_cannot_be_read_to_its_end_is_efault(system: System, cut: int) -> None:
    heap, memory = system.open(SYSTEM_HEAP), system.low_memory()
    argument = bytes(uapi.dma_heap_allocation_data.pack(PAGE, 0, os.O_RDWR, 0))
    with refused(errno.EFAULT):
        system.backend.ioctl(heap, ALLOC, memory.put_before_end(argument[:-cut]))


def left_behind(system: System) -> int:
    """Descriptors that a heap makes and does not tell: older kernels install them before they write the number."""
    return 0 if system.since("7.2", "6.12.112", "6.1.191", "6.6") else 1


def test_an_argument_that_cannot_be_written_is_efault(system: System) -> None:
    heap, memory = system.open(SYSTEM_HEAP), system.low_memory()
    address = memory.put_before_end(bytes(uapi.dma_heap_allocation_data.pack(PAGE, 0, os.O_RDWR, 0)))
    memory.make_read_only()
    with refused(errno.EFAULT):
        system.backend.ioctl(heap, ALLOC, address)
    assert system.close_unknown() == left_behind(system)


def test_an_argument_that_can_be_written_in_part_is_efault(system: System) -> None:
    heap, memory = system.open(SYSTEM_HEAP), system.low_memory()
    argument = bytes(uapi.dma_heap_allocation_data.pack(PAGE, 0, os.O_RDWR, 0))
    assert argument[16:] == bytes(8)
    address = memory.put_before_end(argument[:16])
    memory.make_hole_readable()
    with refused(errno.EFAULT):
        system.backend.ioctl(heap, ALLOC, address)
    assert system.close_unknown() == left_behind(system)


@pytest.mark.parametrize("size", [24, 128, 1000])
def test_a_refused_request_that_only_reads_gets_zeros_as_far_as_it_says(system: System, size: int) -> None:
    """Releases that install the descriptor last write nothing back when they refuse."""
    argument = bytearray(b"\xff" * size)
    with refused(errno.EINVAL):
        system.backend.ioctl(system.open(SYSTEM_HEAP), sized(size, directions=2), argument)
    assert argument == (bytes(size) if left_behind(system) else b"\xff" * size)


@pytest.mark.parametrize(("size", "room", "in_words"), [(12, 11, 8), (7, 5, 4), (7, 3, 1), (24, 23, 16), (31, 30, 30)])
def test_what_is_written_back_ends_with_memory_or_with_a_whole_word(
    system: System, size: int, room: int, in_words: int
) -> None:
    memory = system.low_memory()
    address = memory.put_before_end(b"\xff" * room)
    with refused(errno.EFAULT if left_behind(system) else errno.EINVAL):
        system.backend.ioctl(system.open(SYSTEM_HEAP), sized(size, directions=2), address)
    written = (in_words if MACHINE == "aarch64" else room) if left_behind(system) else 0
    assert memory.get(address, room) == bytes(written) + b"\xff" * (room - written)


@pytest.mark.parametrize(("fd", "heap_flags"), [(1, 0), (0, 1)])
def test_a_refused_argument_that_cannot_be_written(system: System, fd: int, heap_flags: int) -> None:
    heap, memory = system.open(SYSTEM_HEAP), system.low_memory()
    argument = bytes(uapi.dma_heap_allocation_data.pack(PAGE, fd, os.O_RDWR, heap_flags))
    address = memory.put_before_end(argument)
    memory.make_read_only()
    with refused(errno.EFAULT if left_behind(system) else errno.EINVAL):
        system.backend.ioctl(heap, ALLOC, address)


def test_no_descriptor_left_and_an_argument_that_cannot_be_written(system: System) -> None:
    heap, memory = system.open(SYSTEM_HEAP), system.low_memory()
    address = memory.put_before_end(bytes(uapi.dma_heap_allocation_data.pack(PAGE, 0, os.O_RDWR, 0)))
    memory.make_read_only()
    with system.no_descriptors_left(), refused(errno.EFAULT if left_behind(system) else errno.EMFILE):
        system.backend.ioctl(heap, ALLOC, address)


def test_a_refused_request_that_only_writes(system: System) -> None:
    argument = bytearray(b"\xaa" * 24)
    with refused(errno.EINVAL):
        system.backend.ioctl(system.open(SYSTEM_HEAP), 2 << 30 | 24 << 16 | ord("H") << 8, argument)
    assert argument == (bytes(24) if left_behind(system) else b"\xaa" * 24)


def test_an_argument_by_address_is_changed_in_place(system: System) -> None:
    heap, memory = system.open(SYSTEM_HEAP), system.low_memory()
    address = memory.put_before_end(bytes(uapi.dma_heap_allocation_data.pack(PAGE, 0, os.O_RDWR, 0)))
    assert system.backend.ioctl(heap, ALLOC, address) == 0
    fd = system.owned(int.from_bytes(memory.get(address + 8, 4), "little"))
    assert system.size(fd) == PAGE


@pytest.mark.parametrize(
    ("fd_flags", "prot", "flags", "code"),
    [
        (os.O_RDONLY, RO, 1, None),
        (os.O_RDONLY, RW, 1, errno.EACCES),
        (os.O_RDONLY, 2, 1, errno.EACCES),
        (os.O_RDONLY, RW, PRIVATE, None),
        (os.O_WRONLY, RO, 1, errno.EACCES),
        (os.O_WRONLY, RW, 1, errno.EACCES),
        (os.O_WRONLY, RO, PRIVATE, errno.EACCES),
        (3, RO, 1, errno.EACCES),
        (3, RW, 1, errno.EACCES),
        (os.O_RDWR, RO, 1, None),
        (os.O_RDWR, 2, 1, None),
        (os.O_RDWR, 0, 1, None),
    ],
)
def test_a_mapping_may_do_what_the_descriptor_may(
    system: System, fd_flags: int, prot: int, flags: int, code: int | None
) -> None:
    fd = system.allocate(system.open(SYSTEM_HEAP), PAGE, fd_flags)
    if code is None:
        system.mmap(fd, prot=prot, flags=flags)
    else:
        with refused(code):
            system.mmap(fd, prot=prot, flags=flags)


@pytest.mark.parametrize("fd_flags", [os.O_RDONLY, os.O_WRONLY, 3])
def test_a_descriptor_without_writing_can_be_synced_all_the_same(system: System, fd_flags: int) -> None:
    fd = system.allocate(system.open(SYSTEM_HEAP), PAGE, fd_flags)
    for flags in (1, 2, 3, 5, 6, 7):
        system.sync(fd, flags)


@pytest.mark.parametrize("prot", [RO, RW])
@pytest.mark.parametrize(
    ("pages", "first", "count", "within_a_block"),
    [
        (16, 0, 16, True),
        (16, 3, 5, True),
        (15, 0, 2, False),
        (17, 0, 16, True),
        (17, 0, 17, False),
        (17, 15, 2, False),
        (33, 16, 16, True),
        (33, 14, 4, False),
        (33, 31, 2, False),
        (256, 0, 256, True),
        (256, 100, 50, True),
        (273, 0, 256, True),
        (273, 255, 2, False),
        (273, 256, 16, True),
        (273, 257, 15, True),
        (273, 257, 16, False),
        (273, 272, 1, True),
    ],
)
def test_a_private_mapping_lies_within_a_block_of_pages(
    system: System, pages: int, first: int, count: int, within_a_block: bool, prot: int
) -> None:
    """The system heap takes blocks of 256, 16 and 1 pages, the largest first; older releases map page by page."""
    buffer = system.buffer("system", pages)
    if count > 1 and not (within_a_block and system.since("7.2")):
        with refused(errno.EINVAL):
            system.mmap(buffer, count * PAGE, prot, PRIVATE, first * PAGE)
        return
    private = system.mmap(buffer, count * PAGE, prot, PRIVATE, first * PAGE)
    shared = system.mmap(buffer, pages * PAGE)
    last = (first + count) * PAGE - 1
    shared[first * PAGE] = shared[last] = 5
    assert (private[0], private[count * PAGE - 1]) == (5, 5)
    if prot == RW:
        private[0] = private[count * PAGE - 1] = 9
        assert (shared[first * PAGE], shared[last]) == (5, 5)


@pytest.mark.parametrize("prot", [RO, RW])
def test_a_private_mapping_may_have_one_page(system: System, prot: int) -> None:
    buffer = system.buffer("system", 2)
    private = system.mmap(buffer, prot=prot, flags=PRIVATE)
    shared = system.mmap(buffer)
    shared[1] = 5
    assert private[1] == 5
    if prot == RW:
        private[0] = 9
        assert (private[0], shared[0]) == (9, 0)
    for length, offset in ((2 * PAGE, 0), (PAGE + 1, 0)):
        with refused(errno.EINVAL):
            system.mmap(buffer, length, prot, PRIVATE, offset)


def test_a_private_mapping_copies_a_page_when_it_is_written_and_no_sooner(system: System) -> None:
    buffer = system.buffer("system")
    shared, private = system.mmap(buffer), system.mmap(buffer, flags=PRIVATE | MAP_POPULATE)
    shared[0] = 7
    assert private[0] == 7
    private[0] = 8
    shared[0] = 9
    assert (shared[0], private[0]) == (9, 8)
