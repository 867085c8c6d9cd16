"""Descriptors and what the VFS does for all of them: fs/open.c, fs/ioctl.c, fs/file.c, mm/mmap.c."""

from __future__ import annotations

import contextlib
import errno
import os
import select

import pytest

from dmasync import uapi
from tests.conformance.kernels import (
    ADDRESS_SPACE,
    MACHINE,
    O_LARGEFILE,
    PAGE,
    PRIVATE,
    RO,
    SHARED,
    SYSTEM_HEAP,
    UDMABUF,
    System,
    refused,
)

MAP_SHARED_VALIDATE = 3
FIOCLEX, FIONCLEX, FIONBIO, FIOASYNC = 0x5451, 0x5450, 0x5421, 0x5452
FIOQSIZE, FIONREAD, FIGETBSZ = 0x5460, 0x541B, 2
O_PATH, O_EMPTYPATH = 0o10000000, 1 << 26
NODES = pytest.mark.parametrize("node", [UDMABUF, SYSTEM_HEAP])
KINDS = pytest.mark.parametrize("kind", ["memfd", UDMABUF, SYSTEM_HEAP, "udmabuf", "system", "sync file"])
DEFAULT = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM


def opened(system: System, kind: str) -> int:
    if kind == "memfd":
        return system.memfd()
    if kind == "sync file":
        return system.export(system.buffer("udmabuf"))
    return system.open(kind) if kind.startswith("/") else system.buffer(kind)


@NODES
@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        (os.O_RDONLY, O_LARGEFILE),
        (os.O_WRONLY, os.O_WRONLY | O_LARGEFILE),
        (os.O_RDWR, os.O_RDWR | O_LARGEFILE),
        (os.O_RDWR | os.O_NONBLOCK, os.O_RDWR | os.O_NONBLOCK | O_LARGEFILE),
        (os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOCTTY, os.O_RDWR | O_LARGEFILE),
        (os.O_RDONLY | os.O_EXCL, O_LARGEFILE),
        (os.O_RDWR | os.O_APPEND, os.O_RDWR | os.O_APPEND | O_LARGEFILE),
        (os.O_RDWR | os.O_NOFOLLOW, os.O_RDWR | os.O_NOFOLLOW | O_LARGEFILE),
        (0o10000000, 0o10000000),
        (0o10000000 | os.O_RDWR, 0o10000000),
    ],
)
def test_a_node_opens_with_the_flags_asked_for(system: System, node: str, flags: int, kept: int) -> None:
    assert system.fdinfo(system.open(node, flags))["flags"] == f"0{kept | os.O_CLOEXEC:o}"


@NODES
@pytest.mark.parametrize(("flags", "on", "code"), [(0, 0, 0), (0, 1, errno.ENOTTY), (1, 0, errno.ENOTTY), (1, 1, 0)])
def test_no_node_changes_whether_it_sends_signals(system: System, node: str, flags: int, on: int, code: int) -> None:
    fd = system.open(node, os.O_RDWR | flags * os.O_ASYNC)
    with refused(code) if code else contextlib.nullcontext():
        system.backend.ioctl(fd, FIOASYNC, bytearray(on.to_bytes(4, "little")))


@pytest.mark.parametrize("request_", [FIGETBSZ, FIONREAD])
@pytest.mark.parametrize("reachable", [0, 1, 3])
def test_a_number_is_written_whole_or_not_at_all(system: System, request_: int, reachable: int) -> None:
    memory, fd = system.low_memory(), system.memfd()
    address = memory.put_before_end(b"?" * reachable)
    with refused(errno.EFAULT):
        system.backend.ioctl(fd, request_, address)
    assert memory.get(address, reachable) == b"?" * reachable


@NODES
@pytest.mark.parametrize(
    ("suffix", "flags", "code"),
    [
        ("x", os.O_RDWR, errno.ENOENT),
        ("/", os.O_RDWR, errno.ENOTDIR),
        ("/x", os.O_RDWR, errno.ENOTDIR),
        ("", os.O_RDWR | os.O_DIRECTORY, errno.ENOTDIR),
        ("", os.O_RDWR | os.O_CREAT | os.O_EXCL, errno.EEXIST),
        ("", os.O_RDONLY | os.O_CREAT | os.O_DIRECTORY, errno.EINVAL),
        ("", os.O_RDWR | os.O_DIRECT, errno.EINVAL),
        ("/", os.O_RDWR | os.O_CREAT, errno.EISDIR),
        ("/", os.O_RDWR | os.O_CREAT | os.O_EXCL, errno.EISDIR),
        ("//", os.O_RDONLY | os.O_CREAT, errno.EISDIR),
        ("/x/", os.O_RDWR | os.O_CREAT, errno.ENOTDIR),
        ("", os.O_RDWR | 0o20000000, errno.EINVAL),
        ("", os.O_RDONLY | os.O_TMPFILE, errno.EINVAL),
        ("", os.O_RDWR | os.O_TMPFILE, errno.ENOTDIR),
        ("x", os.O_RDWR | os.O_TMPFILE, errno.ENOENT),
        ("x" * 256, os.O_RDWR, errno.ENAMETOOLONG),
        ("/" * 4096, os.O_RDWR, errno.ENAMETOOLONG),
    ],
)
def test_other_opens_are_refused(system: System, node: str, suffix: str, flags: int, code: int) -> None:
    with refused(code):
        system.open(node + suffix, flags)


@pytest.mark.parametrize(
    ("before", "code"),
    [
        ("/dev/", errno.ENAMETOOLONG),
        ("/dev/./../dev//", errno.ENAMETOOLONG),
        ("/dev/udmabuf/", errno.ENOTDIR),
        ("/dev/null/", errno.ENOTDIR),
        ("/dev/nosuch/", errno.ENOENT),
        ("/dev/nosuch/there/", errno.ENOENT),
        ("/dev/dma_heap/nosuch/", errno.ENOENT),
        ("/dev/udmabuf/there/", errno.ENOTDIR),
    ],
)
@pytest.mark.parametrize("behind", ["", "/", "/x"])
@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_PATH])
def test_a_name_that_is_too_long_is_found_when_its_folder_has_been(
    system: System, before: str, code: int, behind: str, flags: int
) -> None:
    with refused(code):
        system.open(before + "x" * 256 + behind, flags)


@pytest.mark.parametrize(
    ("path", "flags", "code"),
    [
        ("", os.O_RDWR, errno.ENOENT),
        ("/dev/dma_heap/nosuch", os.O_RDWR, errno.ENOENT),
        ("/dev/nosuch/system", os.O_RDWR, errno.ENOENT),
        ("/dev/dma_heap", os.O_RDWR, errno.EISDIR),
        ("/dev/dma_heap", os.O_WRONLY, errno.EISDIR),
        ("/dev/dma_heap/", os.O_RDWR, errno.EISDIR),
        ("/dev", os.O_RDWR, errno.EISDIR),
        ("/dev", os.O_RDWR | os.O_CREAT, errno.EISDIR),
        ("/dev", os.O_RDONLY | os.O_CREAT | os.O_EXCL, errno.EEXIST),
        ("/dev/dma_heap", os.O_RDWR | os.O_CREAT | os.O_EXCL, errno.EEXIST),
        ("/dev/dma_heap/", os.O_RDWR | os.O_CREAT | os.O_EXCL, errno.EISDIR),
        ("/dev/new/", os.O_RDWR | os.O_CREAT, errno.EISDIR),
        ("/dev/nosuch/x/", os.O_RDWR | os.O_CREAT, errno.ENOENT),
        ("/dev/nosuch/x", os.O_RDWR | os.O_CREAT, errno.ENOENT),
    ],
)
def test_what_is_not_a_node_is_refused(system: System, path: str, flags: int, code: int) -> None:
    with refused(code):
        system.open(path, flags)


@pytest.mark.parametrize("path", ["/dev/../dev/udmabuf", "/dev//udmabuf", "/dev/./dma_heap/../udmabuf"])
def test_a_path_may_go_round(system: System, path: str) -> None:
    system.create(system.open(path), system.memfd())


def test_open_with_no_descriptor_left_is_emfile(system: System) -> None:
    with system.no_descriptors_left(), refused(errno.EMFILE):
        system.open(UDMABUF)


@pytest.mark.parametrize(
    ("path", "flags"),
    [
        (UDMABUF, os.O_RDWR | os.O_DIRECTORY),
        (UDMABUF, os.O_RDWR | os.O_DIRECT),
        (UDMABUF, os.O_RDWR | os.O_CREAT | os.O_EXCL),
        (UDMABUF + "x", os.O_RDWR),
        ("/dev/" + "x" * 256, os.O_RDWR),
    ],
)
def test_the_descriptor_limit_is_found_before_anything_about_the_path(system: System, path: str, flags: int) -> None:
    with system.no_descriptors_left(), refused(errno.EMFILE):
        system.open(path, flags)


@pytest.mark.parametrize(
    ("path", "flags", "code"),
    [
        (UDMABUF, os.O_RDWR | os.O_CREAT | os.O_DIRECTORY, errno.EINVAL),
        ("", os.O_RDWR, errno.ENOENT),
        ("/" * 4096, os.O_RDWR, errno.ENAMETOOLONG),
    ],
)
def test_flags_and_an_impossible_path_are_found_before_the_descriptor_limit(
    system: System, path: str, flags: int, code: int
) -> None:
    if code != errno.EINVAL and system.since("7.2"):
        code = errno.EMFILE
    with system.no_descriptors_left(), refused(code):
        system.open(path, flags)


@NODES
@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_RDONLY, O_PATH, O_PATH | os.O_NOFOLLOW])
def test_the_flag_for_empty_paths_is_kept_where_it_is_known(system: System, node: str, flags: int) -> None:
    fd = system.open(node, flags | O_EMPTYPATH)
    assert bool(int(system.fdinfo(fd)["flags"], 8) & O_EMPTYPATH) == system.since("7.2")


@NODES
def test_a_path_descriptor_can_only_be_duplicated_and_closed(system: System, node: str) -> None:
    fd = system.open(node, 0o10000000)
    copy = system.dup(fd)
    for call in (
        lambda: system.backend.ioctl(copy, FIOCLEX, 0),
        lambda: system.backend.ioctl(copy, uapi.UDMABUF_CREATE, bytearray(24)),
        lambda: system.backend.lseek(copy, 0, os.SEEK_SET),
        lambda: system.backend.ftruncate(copy, 0),
        lambda: system.backend.add_seals(copy, 0),
        lambda: system.backend.get_seals(copy),
        lambda: system.backend.mmap(copy, PAGE, RO, SHARED),
        lambda: system.backend.mmap(copy, 0, RO, SHARED),
    ):
        with refused(errno.EBADF):
            call()
    assert system.backend.poll(copy, select.POLLIN, 0) == select.POLLNVAL


@KINDS
def test_close_on_exec_can_be_set_and_cleared(system: System, kind: str) -> None:
    fd = opened(system, kind)
    for request, wanted in ((FIONCLEX, 0), (FIOCLEX, os.O_CLOEXEC), (FIONCLEX, 0), (FIOCLEX, os.O_CLOEXEC)):
        assert system.backend.ioctl(fd, request, 0) == 0
        assert int(system.fdinfo(fd)["flags"], 8) & os.O_CLOEXEC == wanted


def test_close_on_exec_belongs_to_the_descriptor(system: System, provider: str) -> None:
    fd = system.buffer(provider)
    copy = system.dup(fd)
    system.backend.ioctl(fd, FIONCLEX, 0)
    assert int(system.fdinfo(copy)["flags"], 8) & os.O_CLOEXEC
    assert not int(system.fdinfo(fd)["flags"], 8) & os.O_CLOEXEC


@KINDS
def test_nonblocking_can_be_set_and_cleared_for_all_descriptors_of_a_file(system: System, kind: str) -> None:
    fd = opened(system, kind)
    copy = system.dup(fd)
    for value, wanted in ((1, os.O_NONBLOCK), (0, 0), (-5, os.O_NONBLOCK)):
        argument = bytearray(value.to_bytes(4, "little", signed=True))
        assert system.backend.ioctl(fd, FIONBIO, argument) == 0
        assert int(system.fdinfo(copy)["flags"], 8) & os.O_NONBLOCK == wanted
    with refused(errno.EFAULT):
        system.backend.ioctl(fd, FIONBIO, 0)


@KINDS
def test_no_file_of_these_sends_signals(system: System, kind: str) -> None:
    fd = opened(system, kind)
    assert system.backend.ioctl(fd, FIOASYNC, bytearray(4)) == 0
    with refused(errno.ENOTTY):
        system.backend.ioctl(fd, FIOASYNC, bytearray(b"\1\0\0\0"))
    with refused(errno.EFAULT):
        system.backend.ioctl(fd, FIOASYNC, 0)


@KINDS
def test_the_block_size_is_a_page(system: System, kind: str) -> None:
    argument = bytearray(4)
    fd = opened(system, kind)
    assert system.backend.ioctl(fd, FIGETBSZ, argument) == 0
    assert int.from_bytes(argument, "little") == PAGE
    with refused(errno.EFAULT):
        system.backend.ioctl(fd, FIGETBSZ, 0)


@KINDS
def test_only_a_memfd_tells_what_is_left_to_read(system: System, kind: str) -> None:
    fd = opened(system, kind)
    argument = bytearray(4)
    if kind == "memfd":
        system.backend.lseek(fd, 100, os.SEEK_SET)
        assert system.backend.ioctl(fd, FIONREAD, argument) == 0
        assert int.from_bytes(argument, "little") == PAGE - 100
    else:
        with refused(errno.EINVAL if kind == SYSTEM_HEAP else errno.ENOTTY):
            system.backend.ioctl(fd, FIONREAD, argument)


@pytest.mark.parametrize("room", range(9))
def test_a_number_that_has_no_room_is_written_up_to_there_or_as_one_byte(system: System, room: int) -> None:
    fd, memory = system.memfd(2), system.low_memory()
    address = memory.put_before_end(b"\xff" * room)
    with contextlib.nullcontext() if room == 8 else refused(errno.EFAULT):
        system.backend.ioctl(fd, FIOQSIZE, address)
    written = min(room, 1) if MACHINE == "aarch64" and room < 8 else room
    assert memory.get(address, room) == bytes(written) + b"\xff" * (room - written)


@KINDS
def test_only_a_memfd_tells_how_many_bytes_its_pages_take(system: System, kind: str) -> None:
    fd = opened(system, kind)
    argument = bytearray(8)
    if kind == "memfd":
        system.backend.ftruncate(fd, 8 * PAGE)
        assert system.backend.ioctl(fd, FIOQSIZE, argument) == 0
        assert int.from_bytes(argument, "little") == 0
        mapping = system.mmap(fd, 8 * PAGE)
        mapping[0] = mapping[5 * PAGE] = 1
        assert system.backend.ioctl(fd, FIOQSIZE, argument) == 0
        assert int.from_bytes(argument, "little") == 2 * PAGE
        system.backend.add_seals(fd, uapi.F_SEAL_SHRINK)
        system.create(system.open(UDMABUF), fd, PAGE, 2 * PAGE)
        assert system.backend.ioctl(fd, FIOQSIZE, argument) == 0
        assert int.from_bytes(argument, "little") == 4 * PAGE
        mapping[7 * PAGE] = 1
        assert system.backend.ioctl(fd, FIOQSIZE, argument) == 0
        assert int.from_bytes(argument, "little") == 5 * PAGE
        with refused(errno.EFAULT):
            system.backend.ioctl(fd, FIOQSIZE, 0)
    else:
        with refused(errno.ENOTTY):
            system.backend.ioctl(fd, FIOQSIZE, argument)


@KINDS
def test_what_no_file_system_here_can_do(system: System, kind: str) -> None:
    fd = opened(system, kind)
    unreadable = {0xC020660B: errno.EOPNOTSUPP, 0x4020940D: errno.EFAULT, 0xC0189436: errno.EFAULT}
    for request, code in unreadable.items():
        with refused(code):
            system.backend.ioctl(fd, request, 0)
    for request in (0x40086602, 0x401C5820):
        with refused(errno.EFAULT):
            system.backend.ioctl(fd, request, 0)
    with refused(errno.EBADF):
        system.backend.ioctl(fd, 0x40049409, bytearray(2000))
    with refused(errno.EBADF):
        system.backend.ioctl(fd, 0x4020940D, bytearray(b"\xff" * 8 + bytes(24)))


@pytest.mark.parametrize("kind", [UDMABUF, SYSTEM_HEAP, "udmabuf", "system", "sync file"])
@pytest.mark.parametrize("request_number", [0x40086602, 0x401C5820])
def test_attributes_that_no_file_has_are_left_to_the_driver(system: System, kind: str, request_number: int) -> None:
    with refused(errno.EINVAL if kind == SYSTEM_HEAP else errno.ENOTTY):
        system.backend.ioctl(opened(system, kind), request_number, bytearray(64))


@pytest.mark.parametrize("kind", ["udmabuf", "system", "sync file", SYSTEM_HEAP, UDMABUF])
def test_no_file_system_here_has_a_place_in_sysfs(system: System, kind: str) -> None:
    # Before 6.9 it is the driver that is asked.
    with refused(errno.EINVAL if kind == SYSTEM_HEAP and not system.since("6.9") else errno.ENOTTY):
        system.backend.ioctl(opened(system, kind), 0x80811501, bytearray(200))
    if not kind.startswith("/"):
        with refused(errno.ENOTTY):
            system.backend.ioctl(opened(system, kind), 0x80111500, bytearray(64))


@KINDS
@pytest.mark.parametrize(
    ("argument", "code"),
    [
        (bytes(64), None),
        (bytes(16) + b"\0\0\1\0" + bytes(44), errno.EINVAL),
        (bytes(16) + b"\xff\xff" + bytes(46), errno.ENOMEM),
    ],
)
def test_deduplication_is_not_for_these(system: System, kind: str, argument: bytes, code: int | None) -> None:
    with refused(code or (errno.EOPNOTSUPP if kind == "memfd" else errno.EINVAL)):
        system.backend.ioctl(opened(system, kind), 0xC0189436, bytearray(argument))


@KINDS
def test_the_upper_half_of_a_request_does_not_reach_the_kernel(system: System, kind: str) -> None:
    fd = opened(system, kind)
    assert system.backend.ioctl(fd, FIGETBSZ, bytearray(4)) == 0


@pytest.mark.parametrize("kind", ["memfd", UDMABUF, SYSTEM_HEAP])
@pytest.mark.parametrize("events", [0, select.POLLIN, select.POLLOUT, DEFAULT, DEFAULT | select.POLLPRI])
@pytest.mark.parametrize("timeout", [0, 1])
def test_files_without_a_poll_of_their_own_are_always_ready(
    system: System, kind: str, events: int, timeout: int
) -> None:
    assert system.backend.poll(opened(system, kind), events, timeout) == events & DEFAULT


@KINDS
def test_every_number_is_new_while_others_are_open(system: System, kind: str) -> None:
    fd = opened(system, kind)
    copies = {system.dup(fd) for _ in range(5)}
    assert len(copies | {fd}) == 6


@pytest.mark.parametrize("length", [1, PAGE - 1, PAGE, 3 * PAGE])
@pytest.mark.parametrize("flags", [SHARED, PRIVATE, 3])
def test_a_memfd_maps(system: System, length: int, flags: int) -> None:
    mapping = system.mmap(system.memfd(3), length, flags=flags)
    assert len(mapping) == length
    mapping[length - 1] = 7
    assert mapping[length - 1] == 7


def test_a_private_mapping_of_a_memfd_keeps_its_writes(system: System) -> None:
    fd = system.memfd()
    shared, private = system.mmap(fd), system.mmap(fd, flags=PRIVATE)
    shared[0] = 1
    assert private[0] == 1
    private[0] = 2
    shared[0] = 3
    assert (private[0], shared[0], system.mmap(fd)[0]) == (2, 3, 3)


def test_a_memfds_mapping_outlives_it(system: System) -> None:
    fd = system.memfd()
    mapping = system.mmap(fd)
    system.close(fd)
    mapping[1] = 9
    assert mapping[1] == 9


@pytest.mark.parametrize(
    ("length", "offset", "error"),
    [
        (PAGE, 1, OSError),
        (2 * PAGE + 1, 0, ValueError),
        (PAGE, 2 * PAGE, ValueError),
        (1, 3 * PAGE, ValueError),
        (-1, 0, OverflowError),
        (PAGE, -PAGE, OverflowError),
    ],
)
def test_pythons_mmap_keeps_within_a_memfd(system: System, length: int, offset: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        system.mmap(system.memfd(2), length, offset=offset)


def test_length_0_is_refused_also_where_python_would_map_all_of_the_file(system: System) -> None:
    for fd in (system.memfd(0), system.memfd(3)):
        for offset in (0, PAGE):
            with refused(errno.EINVAL):
                system.mmap(fd, 0, offset=offset)


@pytest.mark.parametrize("flag", [0x40, 0x80], ids=["MAP_32BIT", "MAP_ABOVE4G"])
def test_flags_that_x86_alone_has_are_known_there_alone(system: System, provider: str, flag: int) -> None:
    buffer = system.buffer(provider)
    known = MACHINE == "x86_64" and (flag == 0x40 or system.since("6.6"))
    with contextlib.nullcontext() if known else refused(errno.EOPNOTSUPP):
        system.mmap(buffer, flags=MAP_SHARED_VALIDATE | flag)


@pytest.mark.parametrize("length", [ADDRESS_SPACE - PAGE, ADDRESS_SPACE, 1 << 62, (1 << 63) - 1])
def test_a_mapping_larger_than_the_address_space_is_enomem(system: System, provider: str, length: int) -> None:
    with refused(errno.ENOMEM):
        system.mmap(system.buffer(provider), length)
