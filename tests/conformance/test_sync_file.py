"""Sync files of signalled fences: drivers/dma-buf/sync_file.c and dma-buf.c's export and import."""

from __future__ import annotations

import ctypes
import errno
import os
import select

import pytest

from dmasync import uapi
from tests.conformance.kernels import END_RW, MACHINE, PAGE, START_RW, System, refused

EXPORT, IMPORT = uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE, uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE
MERGE, INFO, DEADLINE = uapi.SYNC_IOC_MERGE, uapi.SYNC_IOC_FILE_INFO, uapi.SYNC_IOC_SET_DEADLINE
BAD_FLAGS = [0, 4, 5, 7, 8, 1 << 31, 0xFFFF_FFFF]


def sync_file(system: System) -> int:
    buffer = system.buffer("udmabuf")
    fd = system.export(buffer)
    system.close(buffer)
    return fd


@pytest.mark.parametrize("flags", [1, 2, 3])
def test_a_buffer_without_fences_exports_one_that_is_signalled(system: System, provider: str, flags: int) -> None:
    fd = system.export(system.buffer(provider), flags)
    assert system.backend.poll(fd, select.POLLIN, 0) == select.POLLIN
    info = system.info(fd)
    assert (info.name, info.status, info.num_fences) == (system.stub, 1, 1)
    assert info.fences[0][:4] == (*system.signalled_names, 1, 0)


@pytest.mark.parametrize("flags", BAD_FLAGS)
def test_export_refuses_other_flags_and_leaves_the_argument(system: System, provider: str, flags: int) -> None:
    argument = uapi.dma_buf_export_sync_file.pack(flags, 77)
    before = bytes(argument)
    with refused(errno.EINVAL):
        system.backend.ioctl(system.buffer(provider), EXPORT, argument)
    assert argument == before


def test_exports_flags_are_found_before_the_descriptor_limit(system: System, provider: str) -> None:
    buffer = system.buffer(provider)
    with system.no_descriptors_left():
        with refused(errno.EINVAL):
            system.export(buffer, 0)
        with refused(errno.EMFILE):
            system.export(buffer, 1)
        with refused(errno.EFAULT):
            system.backend.ioctl(buffer, EXPORT, 0)


def test_an_export_argument_that_cannot_be_reached_is_efault(system: System, provider: str) -> None:
    buffer, memory = system.buffer(provider), system.low_memory()
    with refused(errno.EFAULT):
        system.backend.ioctl(buffer, EXPORT, 0)
    with refused(errno.EFAULT):
        system.backend.ioctl(buffer, EXPORT, memory.put_before_end(bytes(7)))
    address = memory.put_before_end(bytes(uapi.dma_buf_export_sync_file.pack(3, -1)))
    memory.make_read_only()
    with refused(errno.EFAULT):
        system.backend.ioctl(buffer, EXPORT, address)


@pytest.mark.parametrize("flags", [1, 2, 3])
def test_a_signalled_fence_can_be_imported_and_changes_nothing(system: System, provider: str, flags: int) -> None:
    buffer = system.buffer(provider)
    system.import_(buffer, sync_file(system), flags)
    system.sync(buffer, START_RW)
    system.sync(buffer, END_RW)
    assert system.info(system.export(buffer)).name == system.stub


@pytest.mark.parametrize("flags", BAD_FLAGS)
def test_import_refuses_other_flags_before_it_looks_at_the_file(system: System, provider: str, flags: int) -> None:
    for fd in (sync_file(system), -1):
        with refused(errno.EINVAL):
            system.import_(system.buffer(provider), fd, flags)


@pytest.mark.parametrize("what", ["closed", "-1", "memfd", "buffer", "path only"])
def test_import_of_what_is_not_a_sync_file_is_einval(system: System, provider: str, what: str) -> None:
    buffer = system.buffer(provider)
    fd = -1
    if what == "closed":
        fd = sync_file(system)
        system.close(fd)
    elif what == "memfd":
        fd = system.memfd()
    elif what == "buffer":
        fd = buffer
    elif what == "path only":
        fd = system.open("/dev/udmabuf", 0o10000000)
    with refused(errno.EINVAL):
        system.import_(buffer, fd, 3)


def test_an_import_argument_that_cannot_be_read_is_efault(system: System, provider: str) -> None:
    buffer, memory = system.buffer(provider), system.low_memory()
    with refused(errno.EFAULT):
        system.backend.ioctl(buffer, IMPORT, 0)
    with refused(errno.EFAULT):
        system.backend.ioctl(buffer, IMPORT, memory.put_before_end(bytes(7)))


# The sync file's own requests


@pytest.mark.parametrize("name", [b"", b"m", b"merged", b"x" * 31, b"one\0two"])
def test_merging_signalled_files_gives_a_signalled_file(system: System, name: bytes) -> None:
    merged = system.merge(sync_file(system), sync_file(system), name)
    info = system.info(merged)
    shown = name.partition(b"\0")[0].decode()
    assert (info.name, info.status, info.num_fences) == (shown or system.stub, 1, 1)
    assert info.fences[0][:4] == (*system.signalled_names, 1, 0)
    assert system.fdinfo(merged)["flags"] == "02000000"


def test_merging_cuts_a_name_of_32_bytes_also_in_the_argument(system: System) -> None:
    one = sync_file(system)
    argument = uapi.sync_merge_data.pack(b"x" * 32, one, -1, 0, 0)
    assert system.backend.ioctl(one, MERGE, argument) == 0
    name, fd2, fence, flags, pad = uapi.sync_merge_data.unpack(argument)
    assert (name, fd2, flags, pad) == (b"x" * 31 + b"\0", one, 0, 0)
    assert system.info(system.owned(int(fence))).name == "x" * 31


def test_merging_keeps_what_follows_the_names_nul_in_the_argument(system: System) -> None:
    one = sync_file(system)
    argument = uapi.sync_merge_data.pack(b"a\0" + b"z" * 30, one, -1, 0, 0)
    assert system.backend.ioctl(one, MERGE, argument) == 0
    assert argument[:32] == b"a\0" + b"z" * 29 + b"\0"
    assert system.info(system.owned(uapi.sync_merge_data.get(argument, "fence"))).name == "a"


@pytest.mark.parametrize(
    ("flags", "pad", "own", "code"),
    [
        (1, 0, True, errno.EINVAL),
        (0, 1, True, errno.EINVAL),
        (1, 1, False, errno.EINVAL),
        (0, 0, False, errno.ENOENT),
    ],
)
def test_merging_checks_flags_before_the_other_file(system: System, flags: int, pad: int, own: bool, code: int) -> None:
    one = sync_file(system)
    argument = uapi.sync_merge_data.pack(b"n", one if own else -1, 99, flags, pad)
    before = bytes(argument)
    with refused(code):
        system.backend.ioctl(one, MERGE, argument)
    assert argument == before


@pytest.mark.parametrize("what", ["memfd", "buffer", "closed"])
def test_merging_with_what_is_not_a_sync_file_is_enoent(system: System, what: str) -> None:
    one = sync_file(system)
    other = system.buffer("udmabuf") if what == "buffer" else system.memfd()
    if what == "closed":
        system.close(other)
    with refused(errno.ENOENT):
        system.merge(one, other)


def test_mergings_descriptor_limit_comes_before_all_else(system: System) -> None:
    one = sync_file(system)
    with system.no_descriptors_left():
        for argument in (0, uapi.sync_merge_data.pack(b"", -1, 0, 1, 1)):
            with refused(errno.EMFILE):
                system.backend.ioctl(one, MERGE, argument)


def test_a_merge_argument_that_cannot_be_reached_is_efault(system: System) -> None:
    one, memory = sync_file(system), system.low_memory()
    argument = bytes(uapi.sync_merge_data.pack(b"n", one, -1, 0, 0))
    with refused(errno.EFAULT):
        system.backend.ioctl(one, MERGE, 0)
    with refused(errno.EFAULT):
        system.backend.ioctl(one, MERGE, memory.put_before_end(argument[:-1]))
    address = memory.put_before_end(argument)
    memory.make_read_only()
    with refused(errno.EFAULT):
        system.backend.ioctl(one, MERGE, address)


@pytest.mark.parametrize("room", [0, 1, 2, 8])
def test_info_tells_the_number_of_fences_whatever_the_room(system: System, room: int) -> None:
    info = system.info(sync_file(system), room)
    assert (info.status, info.flags, info.num_fences, info.pad) == (1, 0, 1, 0)
    assert len(info.fences) == room
    assert all(fence[:2] == ("", "") for fence in info.fences[1:])


@pytest.mark.parametrize(("flags", "pad"), [(1, 0), (0, 1), (0x8000_0000, 0)])
def test_info_refuses_flags_and_padding(system: System, flags: int, pad: int) -> None:
    argument = uapi.sync_file_info.pack(b"", 5, flags, 0, pad, 0)
    before = bytes(argument)
    with refused(errno.EINVAL):
        system.backend.ioctl(sync_file(system), INFO, argument)
    assert argument == before


def test_info_leaves_the_pointer_and_overwrites_name_and_status(system: System) -> None:
    argument = uapi.sync_file_info.pack(b"q" * 32, -7, 0, 0, 0, 0x1234)
    assert system.backend.ioctl(sync_file(system), INFO, argument) == 0
    name, status, flags, count, pad, pointer = uapi.sync_file_info.unpack(argument)
    assert name == (system.stub.encode() + b"\0").ljust(32, b"q")
    assert (status, flags, count, pad, pointer) == (1, 0, 1, 0, 0x1234)


@pytest.mark.parametrize("length", [1, 6, 7, 8, 15, 16, 30, 31])
def test_a_mergers_name_is_written_up_to_its_nul(system: System, length: int) -> None:
    merged = system.merge(sync_file(system), sync_file(system), b"n" * length)
    argument = uapi.sync_file_info.pack(b"q" * 32, -7, 0, 0, 0, 0)
    assert system.backend.ioctl(merged, INFO, argument) == 0
    assert argument[:32] == b"n" * length + b"\0" + b"q" * (31 - length)


def test_info_with_a_bad_table_is_efault_and_leaves_the_argument(system: System) -> None:
    fd, memory = sync_file(system), system.low_memory()
    for pointer in (0, 8, memory.end, memory.end - 79, (1 << 64) - 8):
        argument = uapi.sync_file_info.pack(b"old", 5, 0, 1, 0, pointer)
        before = bytes(argument)
        with refused(errno.EFAULT):
            system.backend.ioctl(fd, INFO, argument)
        assert argument == before
    argument = uapi.sync_file_info.pack(b"", 0, 0, 1, 0, memory.end - 80)
    assert system.backend.ioctl(fd, INFO, argument) == 0


def test_a_table_is_written_up_to_where_memory_ends_or_up_to_the_last_whole_word(system: System) -> None:
    fd, memory = sync_file(system), system.low_memory()
    table = memory.put_before_end(b"\xff" * 79)
    with refused(errno.EFAULT):
        system.backend.ioctl(fd, INFO, uapi.sync_file_info.pack(b"", 0, 0, 1, 0, table))
    driver, timeline = (name.encode().ljust(32, b"\0") for name in system.signalled_names)
    assert memory.get(table, 64) == timeline + driver
    assert (memory.get(table + 72, 7) == b"\xff" * 7) is (MACHINE == "aarch64")


def test_an_info_argument_that_cannot_be_reached_is_efault(system: System) -> None:
    fd, memory = sync_file(system), system.low_memory()
    argument = bytes(uapi.sync_file_info.pack(b"", 0, 0, 0, 0, 0))
    with refused(errno.EFAULT):
        system.backend.ioctl(fd, INFO, 0)
    with refused(errno.EFAULT):
        system.backend.ioctl(fd, INFO, memory.put_before_end(argument[:-1]))
    address = memory.put_before_end(argument)
    memory.make_read_only()
    with refused(errno.EFAULT):
        system.backend.ioctl(fd, INFO, address)


def test_info_writes_no_more_than_the_fences_that_are(system: System) -> None:
    table = ctypes.create_string_buffer(b"\xaa" * 240, 240)
    argument = uapi.sync_file_info.pack(b"", 0, 0, 3, 0, ctypes.addressof(table))
    assert system.backend.ioctl(sync_file(system), INFO, argument) == 0
    assert table.raw[80:] == b"\xaa" * 160
    driver, timeline = (name.encode().ljust(32, b"\0") for name in system.signalled_names)
    assert table.raw[:64] == timeline + driver


@pytest.mark.parametrize("deadline", [0, 1, (1 << 63) - 1, (1 << 64) - 1])
def test_a_deadline_is_taken(system: System, deadline: int) -> None:
    argument = uapi.sync_set_deadline.pack(deadline, 0)
    if system.since("6.7"):
        assert system.backend.ioctl(sync_file(system), DEADLINE, argument) == 0
    else:
        with refused(errno.ENOTTY):
            system.backend.ioctl(sync_file(system), DEADLINE, argument)


def test_a_deadline_with_padding_is_refused(system: System) -> None:
    fd, memory = sync_file(system), system.low_memory()
    if not system.since("6.7"):
        with refused(errno.ENOTTY):
            system.backend.ioctl(fd, DEADLINE, 0)
        return
    for pad in (1, 1 << 63):
        with refused(errno.EINVAL):
            system.backend.ioctl(fd, DEADLINE, uapi.sync_set_deadline.pack(0, pad))
    with refused(errno.EFAULT):
        system.backend.ioctl(fd, DEADLINE, 0)
    with refused(errno.EFAULT):
        system.backend.ioctl(fd, DEADLINE, memory.put_before_end(bytes(15)))


@pytest.mark.parametrize(
    "request_number",
    [MERGE ^ 1 << 30, MERGE + (1 << 16), INFO - 4 + 1, INFO & 0xFFFF, DEADLINE + 1, DEADLINE | 2 << 30, EXPORT, 0],
)
def test_other_requests_are_enotty(system: System, request_number: int) -> None:
    with refused(errno.ENOTTY):
        system.backend.ioctl(sync_file(system), request_number, bytearray(64))


@pytest.mark.parametrize(
    ("events", "ready"),
    [
        (0, 0),
        (select.POLLIN, select.POLLIN),
        (select.POLLOUT, 0),
        (select.POLLIN | select.POLLOUT | select.POLLPRI, select.POLLIN),
        (select.POLLRDNORM, 0),
    ],
)
@pytest.mark.parametrize("timeout", [0, 1])
def test_a_signalled_file_can_be_read_never_written(system: System, events: int, ready: int, timeout: int) -> None:
    assert system.backend.poll(sync_file(system), events, timeout) == ready


def test_a_sync_file_is_no_file_of_bytes(system: System) -> None:
    fd = sync_file(system)
    for whence in range(5):
        with refused(errno.ESPIPE):
            system.backend.lseek(fd, 0, whence)
    for whence in (5, -1):
        with refused(errno.EINVAL):
            system.backend.lseek(fd, 0, whence)
    with refused(errno.EINVAL):
        system.backend.ftruncate(fd, 0)
    with refused(errno.EPERM):
        system.backend.add_seals(fd, 0x40)
    with refused(errno.EINVAL):
        system.backend.get_seals(fd)


@pytest.mark.parametrize(
    ("prot", "flags", "code"),
    [
        (1, 1, errno.ENODEV),
        (1, 2, errno.ENODEV),
        (3, 2, errno.ENODEV),
        (3, 1, errno.EACCES),
        (2, 3, errno.EACCES),
        (1, 0, errno.EINVAL),
        (1, 3 | 0x80000, errno.EOPNOTSUPP),
        (3, 3 | 0x80000, errno.EOPNOTSUPP),
    ],
)
def test_a_sync_file_cannot_be_mapped(system: System, prot: int, flags: int, code: int) -> None:
    with refused(code):
        system.mmap(sync_file(system), PAGE, prot, flags)


@pytest.mark.parametrize(("prot", "flags"), [(4, 1), (5, 1), (5, 2), (7, 2)])
def test_a_sync_file_cannot_be_mapped_for_execution(system: System, prot: int, flags: int) -> None:
    with refused(errno.EPERM if system.since("6.16") else errno.ENODEV):
        system.mmap(sync_file(system), PAGE, prot, flags)


def test_a_sync_file_survives_its_buffer_and_lives_in_its_duplicates(system: System) -> None:
    fd = sync_file(system)
    copy = system.dup(fd)
    system.close(fd)
    assert system.info(copy).status == 1
    assert int(system.fdinfo(copy)["flags"], 8) == os.O_CLOEXEC
