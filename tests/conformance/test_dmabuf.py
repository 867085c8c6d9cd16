"""What every dma-buf does: drivers/dma-buf/dma-buf.c, on a udmabuf and on a heap buffer."""

from __future__ import annotations

import errno
import mmap
import os
import select

import pytest

from dmasync import uapi
from tests.conformance.kernels import (
    END_READ,
    END_RW,
    END_WRITE,
    PAGE,
    PRIVATE,
    RO,
    RW,
    SHARED,
    START_READ,
    START_RW,
    START_WRITE,
    System,
    refused,
)

SYNC = uapi.DMA_BUF_IOCTL_SYNC
STARTS, ENDS = (START_READ, START_WRITE, START_RW), (END_READ, END_WRITE, END_RW)
IN, OUT = select.POLLIN, select.POLLOUT


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("start", STARTS)
def test_start_then_end_succeed_whatever_the_access(system: System, provider: str, start: int, end: int) -> None:
    buffer = system.buffer(provider)
    system.sync(buffer, start)
    system.sync(buffer, end)


@pytest.mark.parametrize("end", ENDS)
def test_end_before_the_first_start(system: System, provider: str, end: int) -> None:
    buffer = system.buffer(provider)
    if provider == "udmabuf":
        with refused(errno.EINVAL):
            system.sync(buffer, end)
        system.sync(buffer, START_READ)
    system.sync(buffer, end)
    system.sync(buffer, end)  # the core pairs nothing


def test_starts_may_pile_up(system: System, provider: str) -> None:
    buffer = system.buffer(provider)
    for flags in (*STARTS, *STARTS, *ENDS):
        system.sync(buffer, flags)


def test_a_start_through_one_descriptor_is_seen_through_another(system: System, provider: str) -> None:
    buffer = system.buffer(provider)
    copy = system.dup(buffer)
    system.sync(buffer, START_RW)
    system.close(buffer)
    system.sync(copy, END_RW)


def test_a_second_udmabuf_of_the_same_memfd_has_not_been_started(system: System) -> None:
    device, memfd = system.open("/dev/udmabuf"), system.memfd()
    one, other = system.create(device, memfd), system.create(device, memfd)
    system.sync(one, START_RW)
    with refused(errno.EINVAL):
        system.sync(other, END_RW)


@pytest.mark.parametrize(
    "flags",
    [
        0,
        4,
        8,
        9,
        11,
        12,
        15,
        16,
        17,
        0x100,
        1 << 31,
        1 << 32,
        (1 << 32) | 3,
        1 << 63,
        (1 << 63) | 7,
        (1 << 64) - 1,
    ],
)
def test_other_sync_flags_are_refused(system: System, provider: str, flags: int) -> None:
    buffer = system.buffer(provider)
    with refused(errno.EINVAL):
        system.sync(buffer, flags)
    if provider == "udmabuf":
        with refused(errno.EINVAL):
            system.sync(buffer, END_RW)  # nor did it start anything


def test_a_sync_argument_that_cannot_be_read_is_efault(system: System, provider: str) -> None:
    buffer, memory = system.buffer(provider), system.low_memory()
    with refused(errno.EFAULT):
        system.backend.ioctl(buffer, SYNC, 0)
    with refused(errno.EFAULT):
        system.backend.ioctl(buffer, SYNC, memory.put_before_end(bytes(7)))
    assert system.backend.ioctl(buffer, SYNC, memory.put_before_end(bytes(uapi.dma_buf_sync.pack(3)))) == 0


def test_sync_of_what_is_not_open_is_ebadf(system: System, provider: str) -> None:
    buffer = system.buffer(provider)
    system.close(buffer)
    for argument in (0, uapi.dma_buf_sync.pack(3)):
        with refused(errno.EBADF):
            system.backend.ioctl(buffer, SYNC, argument)


@pytest.mark.parametrize("kind", ["memfd", "udmabuf device", "sync file"])
def test_sync_of_another_kind_of_file_is_enotty(system: System, kind: str) -> None:
    if kind == "memfd":
        fd = system.memfd()
    elif kind == "sync file":
        fd = system.export(system.buffer("udmabuf"))
    else:
        fd = system.open("/dev/udmabuf")
    with refused(errno.ENOTTY):
        system.backend.ioctl(fd, SYNC, uapi.dma_buf_sync.pack(3))


@pytest.mark.parametrize(
    "request_number",
    [
        SYNC ^ 1 << 30,
        SYNC | 2 << 30,
        SYNC + (8 << 16),
        SYNC - (4 << 16),
        SYNC & 0xFFFF,
        SYNC + 4,
        uapi.DMA_BUF_SET_NAME_A + (1 << 16),
        uapi.DMA_BUF_SET_NAME_A & 0xFFFF,
        uapi.DMA_BUF_SET_NAME_B | 2 << 30,
        uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE ^ 2 << 30,
        uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE | 2 << 30,
        uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE + 1,
        uapi.UDMABUF_CREATE,
        uapi.DMA_HEAP_IOCTL_ALLOC,
        uapi.SYNC_IOC_FILE_INFO,
        0,
        0xFFFF_FFFF,
    ],
)
def test_other_requests_are_enotty(system: System, provider: str, request_number: int) -> None:
    with refused(errno.ENOTTY):
        system.backend.ioctl(system.buffer(provider), request_number, bytearray(64))


def test_an_unknown_request_is_enotty_before_its_argument_is_looked_at(system: System, provider: str) -> None:
    with refused(errno.ENOTTY):
        system.backend.ioctl(system.buffer(provider), SYNC + 4, 0)


# Names


@pytest.mark.parametrize("request_number", [uapi.DMA_BUF_SET_NAME_A, uapi.DMA_BUF_SET_NAME_B])
@pytest.mark.parametrize("name", [b"", b"a", b"frame 0", b"x" * 30, b"x" * 31, "é".encode(), b"\xff\xfe"])
def test_a_name_of_up_to_31_bytes_is_shown(system: System, provider: str, request_number: int, name: bytes) -> None:
    buffer = system.buffer(provider)
    system.set_name(buffer, name, request_number)
    if name != b"\xff\xfe":
        assert system.fdinfo(buffer)["name"] == name.decode()


@pytest.mark.parametrize("name", [b"x" * 32, b"x" * 33, b"x" * 1000, b"x" * 2000])
def test_a_longer_name_is_refused_and_the_old_one_stays(system: System, provider: str, name: bytes) -> None:
    buffer = system.buffer(provider)
    system.set_name(buffer, b"old")
    with refused(errno.EINVAL):
        system.set_name(buffer, name)
    assert system.fdinfo(buffer)["name"] == "old"


def test_a_name_ends_at_its_nul(system: System, provider: str) -> None:
    buffer = system.buffer(provider)
    system.set_name(buffer, b"one\0two")
    assert system.fdinfo(buffer)["name"] == "one"
    system.set_name(buffer, b"x" * 31 + b"\0" + b"y" * 20)
    assert system.fdinfo(buffer)["name"] == "x" * 31


def test_a_name_can_be_changed_and_belongs_to_the_buffer(system: System, provider: str) -> None:
    buffer = system.buffer(provider)
    copy = system.dup(buffer)
    assert "name" not in system.fdinfo(buffer)
    system.set_name(buffer, b"first")
    system.set_name(copy, b"second")
    assert system.fdinfo(buffer)["name"] == "second"
    system.set_name(buffer, b"")
    assert system.fdinfo(copy)["name"] == ""


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"ok\0", None),
        (b"\0", None),
        (b"x" * 31 + b"\0", None),
        (b"cut", errno.EFAULT),
        (b"x" * 31, errno.EFAULT),
        (b"x" * 32, errno.EINVAL),
        (b"", errno.EFAULT),
    ],
)
def test_a_name_is_read_only_as_far_as_needed(system: System, provider: str, text: bytes, code: int | None) -> None:
    buffer, memory = system.buffer(provider), system.low_memory()
    address = memory.put_before_end(text)
    if code is None:
        system.backend.ioctl(buffer, uapi.DMA_BUF_SET_NAME, address)
        assert system.fdinfo(buffer)["name"] == text[:-1].decode()
    else:
        with refused(code):
            system.backend.ioctl(buffer, uapi.DMA_BUF_SET_NAME, address)
        assert "name" not in system.fdinfo(buffer)


# Size and position


@pytest.mark.parametrize("pages", [1, 3, 256])
def test_the_end_tells_the_size_and_the_start_is_zero(system: System, provider: str, pages: int) -> None:
    buffer = system.buffer(provider, pages)
    assert system.backend.lseek(buffer, 0, os.SEEK_END) == pages * PAGE
    assert system.backend.lseek(buffer, 0, os.SEEK_SET) == 0
    assert system.fdinfo(buffer)["pos"] == "0"


@pytest.mark.parametrize(
    ("offset", "whence"),
    [
        (0, os.SEEK_CUR),
        (1, os.SEEK_SET),
        (-1, os.SEEK_SET),
        (1, os.SEEK_END),
        (-1, os.SEEK_END),
        (0, os.SEEK_DATA),
        (0, os.SEEK_HOLE),
        (0, 5),
        (0, -1),
        (1, os.SEEK_CUR),
        (PAGE, os.SEEK_SET),
    ],
)
def test_other_seeks_are_refused(system: System, provider: str, offset: int, whence: int) -> None:
    with refused(errno.EINVAL):
        system.backend.lseek(system.buffer(provider), offset, whence)


def test_a_dma_buf_has_neither_length_nor_seals_to_set(system: System, provider: str) -> None:
    buffer = system.buffer(provider)
    for length in (0, PAGE, 2 * PAGE):
        with refused(errno.EINVAL):
            system.backend.ftruncate(buffer, length)
    for seals in (0, 2, 0x40):
        with refused(errno.EINVAL):
            system.backend.add_seals(buffer, seals)
    with refused(errno.EINVAL):
        system.backend.get_seals(buffer)


# Mappings


@pytest.mark.parametrize(
    ("length", "offset", "fine"),
    [
        (1, 0, True),
        (PAGE, 0, True),
        (PAGE + 1, 0, True),
        (4 * PAGE, 0, True),
        (4 * PAGE - 1, 0, True),
        (PAGE, 3 * PAGE, True),
        (2 * PAGE, 2 * PAGE, True),
        (4 * PAGE + 1, 0, False),
        (5 * PAGE, 0, False),
        (PAGE + 1, 3 * PAGE, False),
        (PAGE, 4 * PAGE, False),
        (1, 4 * PAGE, False),
        (PAGE, 1 << 40, False),
        (PAGE, (1 << 63) - PAGE, False),
        (1 << 40, 0, False),
        (0, 0, False),
        (PAGE, 1, False),
        (PAGE, PAGE // 2, False),
    ],
)
def test_a_mapping_must_lie_within_the_buffer(
    system: System, provider: str, length: int, offset: int, fine: bool
) -> None:
    buffer = system.buffer(provider, 4)
    if fine:
        assert len(system.mmap(buffer, length, offset=offset)) == length
    else:
        with refused(errno.EINVAL):
            system.mmap(buffer, length, offset=offset)


def test_an_offset_shows_the_pages_behind_it(system: System, provider: str) -> None:
    buffer = system.buffer(provider, 4)
    whole, part = system.mmap(buffer, 4 * PAGE), system.mmap(buffer, PAGE, offset=2 * PAGE)
    part[7] = 42
    assert whole[2 * PAGE + 7] == 42
    assert whole[:] == bytes(2 * PAGE + 7) + b"*" + bytes(2 * PAGE - 8)


def test_two_mappings_show_the_same_bytes(system: System, provider: str) -> None:
    buffer = system.buffer(provider)
    writer, reader = system.mmap(buffer), system.mmap(system.dup(buffer), prot=RO)
    writer[10:15] = b"bytes"
    assert reader[10:15] == b"bytes"


def test_a_read_only_mapping_is_a_read_only_buffer(system: System, provider: str) -> None:
    mapping = system.mmap(system.buffer(provider), prot=RO)
    assert memoryview(mapping).readonly
    with pytest.raises(TypeError):
        mapping[0] = 1


def test_a_mapping_that_is_looked_at_cannot_be_closed(system: System, provider: str) -> None:
    mapping = system.mmap(system.buffer(provider))
    view = memoryview(mapping)
    with pytest.raises(BufferError):
        mapping.close()
    view[0] = 1
    view.release()
    mapping.close()
    mapping.close()


def test_a_mapping_outlives_its_descriptor(system: System, provider: str) -> None:
    buffer = system.buffer(provider)
    mapping = system.mmap(buffer)
    system.close(buffer)
    mapping[0] = 8
    assert mapping[0] == 8


@pytest.mark.parametrize("flags", [0, 4, 5, 8, 15])
def test_a_mapping_is_shared_or_private(system: System, provider: str, flags: int) -> None:
    with refused(errno.EINVAL):
        system.mmap(system.buffer(provider), flags=flags)


@pytest.mark.parametrize("prot", [0, RO, RW])
@pytest.mark.parametrize("length", [PAGE, 2 * PAGE])
def test_private_mappings_are_for_one_page_of_a_heap_buffer(
    system: System, provider: str, prot: int, length: int
) -> None:
    buffer = system.buffer(provider, 2)
    if provider == "system" and length == PAGE:
        system.mmap(buffer, length, prot, PRIVATE)
    else:
        with refused(errno.EINVAL):
            system.mmap(buffer, length, prot, PRIVATE)


@pytest.mark.parametrize("prot", [0, 1, 2, 3, 4, 5, 7])
def test_a_shared_mapping_may_have_any_protection_but_execution(system: System, provider: str, prot: int) -> None:
    buffer = system.buffer(provider)
    if prot & mmap.PROT_EXEC and system.since("7.2"):
        with refused(errno.EPERM):
            system.mmap(buffer, prot=prot)
        with refused(errno.EPERM):
            system.mmap(buffer, prot=prot, flags=PRIVATE)
        with refused(errno.EPERM):
            system.mmap(buffer, 2 * PAGE, prot=prot)
    else:
        system.mmap(buffer, prot=prot)


def test_shared_validate_refuses_unknown_flags_and_shared_ignores_them(system: System, provider: str) -> None:
    buffer = system.buffer(provider)
    system.mmap(buffer, flags=3)
    system.mmap(buffer, flags=SHARED | 0x80000)
    with refused(errno.EOPNOTSUPP):
        system.mmap(buffer, flags=3 | 0x80000)


@pytest.mark.parametrize("flag", [0x40000, 0x100])
def test_huge_pages_and_growing_down_are_refused(system: System, provider: str, flag: int) -> None:
    with refused(errno.EINVAL):
        system.mmap(system.buffer(provider), flags=SHARED | flag)


@pytest.mark.parametrize("flag", [0x4000, 0x8000, 0x10000, 0x20000, 0x800])
def test_hints_are_taken(system: System, provider: str, flag: int) -> None:
    system.mmap(system.buffer(provider), flags=SHARED | flag)[0] = 1


def test_mapping_what_is_not_open_is_ebadf(system: System, provider: str) -> None:
    buffer = system.buffer(provider)
    system.close(buffer)
    with refused(errno.EBADF):
        system.mmap(buffer)


def test_closing_twice_is_ebadf(system: System, provider: str) -> None:
    buffer = system.buffer(provider)
    system.close(buffer)
    for call in (system.backend.close, system.backend.dup):
        with refused(errno.EBADF):
            call(buffer)
    with refused(errno.EBADF):
        system.backend.lseek(buffer, 0, os.SEEK_END)


def test_descriptors_are_counted(system: System, provider: str) -> None:
    buffer = system.buffer(provider)
    copies = [system.dup(buffer) for _ in range(3)]
    assert system.fdinfo(buffer)["count"] == "4"
    for copy in copies:
        system.close(copy)
    assert system.fdinfo(buffer)["count"] == "1"


def test_dup_closes_on_exec_and_leaves_the_rest_as_it_is(system: System) -> None:
    heap = system.open("/dev/dma_heap/system")
    buffer = system.allocate(heap, PAGE, os.O_RDONLY)
    assert system.fdinfo(buffer)["flags"] == "00"
    assert system.fdinfo(system.dup(buffer))["flags"] == "02000000"


def test_dup_with_no_descriptor_left_is_emfile(system: System, provider: str) -> None:
    buffer = system.buffer(provider)
    with system.no_descriptors_left(), refused(errno.EMFILE):
        system.backend.dup(buffer)


# Poll without fences


@pytest.mark.parametrize(
    ("events", "ready"),
    [
        (0, 0),
        (IN, IN),
        (OUT, OUT),
        (IN | OUT, IN | OUT),
        (select.POLLPRI, 0),
        (select.POLLRDNORM, 0),
        (select.POLLWRNORM, 0),
        (IN | select.POLLRDNORM | select.POLLPRI, IN),
        (OUT | select.POLLERR | select.POLLHUP, OUT),
        (0xFFFF & ~0, IN | OUT),
    ],
)
@pytest.mark.parametrize("timeout", [0, 1])
def test_a_buffer_without_fences_is_ready(system: System, provider: str, events: int, ready: int, timeout: int) -> None:
    assert system.backend.poll(system.buffer(provider), events, timeout) == ready


def test_polling_what_is_not_open_is_pollnval(system: System, provider: str) -> None:
    buffer = system.buffer(provider)
    system.close(buffer)
    for timeout in (0, 1, None):
        assert system.backend.poll(buffer, IN, timeout) == select.POLLNVAL


def test_polling_leaves_no_reference(system: System, provider: str) -> None:
    buffer = system.buffer(provider)
    system.backend.poll(buffer, IN | OUT, 0)
    assert system.fdinfo(buffer)["count"] == "1"
