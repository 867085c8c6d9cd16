"""Open files opened once more by ``/proc/self/fd/N``: how a program gives a memfd away to be read only."""

from __future__ import annotations

import errno
import mmap
import os

import pytest

from dmasync import uapi
from tests.conformance.kernels import (
    END_READ,
    O_LARGEFILE,
    PRIVATE,
    RO,
    RW,
    SHARED,
    START_READ,
    UDMABUF,
    System,
    refused,
)
from tests.support.page_size import PAGE

O_PATH = 0o10000000
NAMES = ("/proc/self/fd/{}", "/dev/fd/{}", "/proc/thread-self/fd/{}", "/proc//self/fd//{}", "/proc/self/fd/../fd/{}")
NODES = (UDMABUF, "/dev/null")


def again(system: System, fd: int, flags: int, name: str = NAMES[0]) -> int:
    return system.owned(system.backend.open(name.format(fd).replace("PID", str(os.getpid())), flags))


@pytest.mark.parametrize("name", [*NAMES, "/proc/PID/fd/{}"], ids=lambda name: name.format("N"))
def test_a_memfd_is_opened_again_by_each_name_of_its_descriptor(system: System, name: str) -> None:
    memfd = system.memfd(2)
    other = again(system, memfd, os.O_RDONLY, name)
    assert system.size(other) == 2 * PAGE
    assert other != memfd


def test_each_open_file_has_a_position_and_flags_of_its_own(system: System) -> None:
    memfd = system.memfd(2)
    other = again(system, memfd, os.O_RDWR | os.O_APPEND)
    system.backend.lseek(memfd, 77, os.SEEK_SET)
    assert system.backend.lseek(other, 0, os.SEEK_CUR) == 0
    assert system.fdinfo(other)["flags"] == f"0{os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | O_LARGEFILE:o}"


@pytest.mark.parametrize("flags", [os.O_RDONLY, 3], ids=["O_RDONLY", "neither"])
def test_what_is_not_open_for_writing_is_neither_sealed_nor_cut(system: System, flags: int) -> None:
    memfd = system.memfd(2, seals=0)
    other = again(system, memfd, flags)
    with refused(errno.EPERM):
        system.backend.add_seals(other, uapi.F_SEAL_SHRINK)
    with refused(errno.EINVAL):
        system.backend.ftruncate(other, PAGE)
    assert system.backend.get_seals(other) == 0


def test_seals_and_size_are_the_memory_s_own(system: System) -> None:
    memfd = system.memfd(1, seals=0)
    other = again(system, memfd, os.O_WRONLY)
    system.backend.ftruncate(other, 3 * PAGE)
    system.backend.add_seals(other, uapi.F_SEAL_SHRINK)
    assert system.size(memfd) == 3 * PAGE
    assert system.backend.get_seals(memfd) == uapi.F_SEAL_SHRINK


def test_a_mapping_may_do_what_its_open_file_may(system: System) -> None:
    memfd = system.memfd(1)
    reader, writer = again(system, memfd, os.O_RDONLY), again(system, memfd, os.O_WRONLY)
    with refused(errno.EACCES):
        system.mmap(reader, prot=RW)
    with refused(errno.EACCES):
        system.mmap(writer, prot=mmap.PROT_WRITE)
    copy, shown = system.mmap(reader, prot=RW, flags=PRIVATE), system.mmap(reader, prot=RO)
    system.mmap(memfd)[:3] = b"new"
    assert (copy[:3], shown[:3]) == (b"new", b"new")


def test_a_mapping_of_a_reader_does_not_keep_the_write_seal_away(system: System) -> None:
    memfd = system.memfd(1)
    system.mmap(again(system, memfd, os.O_RDONLY), prot=RO)
    system.backend.add_seals(memfd, uapi.F_SEAL_WRITE)
    assert system.backend.get_seals(memfd) & uapi.F_SEAL_WRITE


def test_a_mapping_of_another_writer_keeps_the_write_seal_away(system: System) -> None:
    memfd = system.memfd(1)
    system.mmap(again(system, memfd, os.O_RDWR))
    with refused(errno.EBUSY):
        system.backend.add_seals(memfd, uapi.F_SEAL_WRITE)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, 3])
def test_a_udmabuf_is_made_of_any_open_file_of_a_sealed_memfd(system: System, flags: int) -> None:
    memfd = system.memfd(1)
    other = again(system, memfd, flags)
    buffer = system.create(system.open(UDMABUF), other)
    system.close(other)
    with refused(errno.EBUSY):
        system.backend.add_seals(memfd, uapi.F_SEAL_WRITE)
    system.mmap(memfd)[:4] = b"seen"
    system.sync(buffer, START_READ)
    assert system.mmap(buffer)[:4] == b"seen"
    system.sync(buffer, END_READ)


@pytest.mark.parametrize("access", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, 3])
def test_o_trunc_cuts_a_memfd_whatever_the_access(system: System, access: int) -> None:
    memfd = system.memfd(2, seals=0)
    again(system, memfd, access | os.O_TRUNC)
    assert system.size(memfd) == 0


def test_o_trunc_heeds_the_seal_on_shrinking(system: System) -> None:
    memfd = system.memfd(2)
    with refused(errno.EPERM):
        system.backend.open(NAMES[0].format(memfd), os.O_RDWR | os.O_TRUNC)
    assert system.size(memfd) == 2 * PAGE


@pytest.mark.parametrize("kind", ["udmabuf", "system", "sync file"])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_DIRECT, os.O_RDWR | os.O_TRUNC])
def test_neither_buffers_nor_sync_files_can_be_opened_again(system: System, kind: str, flags: int) -> None:
    fd = system.export(system.buffer("udmabuf")) if kind == "sync file" else system.buffer(kind)
    with refused(errno.ENXIO):
        system.backend.open(NAMES[0].format(fd), flags)


@pytest.mark.parametrize("node", NODES)
def test_a_node_is_opened_again_with_another_access(system: System, node: str) -> None:
    reader = system.open(node, os.O_RDONLY)
    other = again(system, reader, os.O_RDWR)
    assert system.fdinfo(other)["flags"] == f"0{os.O_RDWR | os.O_CLOEXEC | O_LARGEFILE:o}"
    with refused(errno.EINVAL):
        system.backend.open(NAMES[0].format(reader), os.O_RDWR | os.O_DIRECT)


def test_a_udmabuf_device_that_was_opened_again_makes_udmabufs(system: System) -> None:
    device = again(system, system.open(UDMABUF, O_PATH), os.O_RDWR)
    assert system.size(system.create(device, system.memfd(1))) == PAGE


@pytest.mark.parametrize("kind", ["memfd", "udmabuf", "node"])
def test_any_file_can_be_opened_as_a_place(system: System, kind: str) -> None:
    fd = {"memfd": system.memfd, "udmabuf": lambda: system.buffer("udmabuf"), "node": lambda: system.open(UDMABUF)}[
        kind
    ]()
    place = again(system, fd, O_PATH)
    with refused(errno.EBADF):
        system.backend.lseek(place, 0, os.SEEK_END)
    again(system, place, O_PATH)
    if kind == "udmabuf":
        with refused(errno.ENXIO):
            system.backend.open(NAMES[0].format(place), os.O_RDONLY)
    else:
        again(system, place, os.O_RDONLY)


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (os.O_CREAT | os.O_EXCL, errno.EEXIST),
        (os.O_DIRECTORY, errno.ENOTDIR),
        (os.O_DIRECTORY | O_PATH, errno.ENOTDIR),
        (os.O_NOFOLLOW, errno.ELOOP),
        (os.O_NOFOLLOW | os.O_CREAT, errno.ELOOP),
        (os.O_NOFOLLOW | os.O_DIRECTORY, errno.ENOTDIR),
        (os.O_NOFOLLOW | os.O_DIRECTORY | O_PATH, errno.ENOTDIR),
    ],
    ids=oct,
)
@pytest.mark.parametrize("kind", ["memfd", "node"])
def test_other_ways_to_open_it_again_are_refused(system: System, kind: str, flags: int, error: int) -> None:
    fd = system.memfd() if kind == "memfd" else system.open(UDMABUF)
    with refused(error):
        system.backend.open(NAMES[0].format(fd), flags)


def test_the_link_itself_is_a_place_that_leads_nowhere(system: System) -> None:
    link = again(system, system.memfd(), O_PATH | os.O_NOFOLLOW)
    again(system, link, O_PATH)
    with refused(errno.ELOOP):
        system.backend.open(NAMES[0].format(link), os.O_RDONLY)


def test_below_a_folder_lies_what_is_in_it(system: System) -> None:
    folder = system.open("/dev/dma_heap", os.O_RDONLY)
    assert system.fdinfo(again(system, folder, os.O_RDONLY, "/proc/self/fd/{}/"))["pos"] == "0"
    with refused(errno.ENOENT):
        system.backend.open(f"/proc/self/fd/{folder}/nosuch", os.O_RDWR)
    with refused(errno.EISDIR):
        system.backend.open(f"/proc/self/fd/{folder}", os.O_RDWR)
    heap = again(system, folder, os.O_RDWR, "/proc/self/fd/{}/system")
    assert system.size(system.allocate(heap, PAGE)) == PAGE


@pytest.mark.parametrize("rest", ["/", "/x"])
def test_below_another_file_there_is_nothing(system: System, rest: str) -> None:
    with refused(errno.ENOTDIR):
        system.backend.open(f"/proc/self/fd/{system.memfd()}{rest}", os.O_RDONLY)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR | os.O_CREAT], ids=oct)
def test_a_number_that_is_not_open_has_no_entry(system: System, flags: int) -> None:
    memfd = system.memfd()
    with refused(errno.ENOENT):
        system.backend.open(f"/proc/self/fd/0{memfd}", flags)
    system.close(memfd)
    with refused(errno.ENOENT):
        system.backend.open(f"/proc/self/fd/{memfd}", flags)


def test_with_no_descriptor_left_it_is_emfile(system: System) -> None:
    memfd = system.memfd()
    with system.no_descriptors_left(), refused(errno.EMFILE):
        system.backend.open(f"/proc/self/fd/{memfd}", os.O_RDONLY)
    assert system.mmap(memfd, flags=SHARED)[:1] == b"\0"


def test_a_memfd_is_opened_with_o_direct_since_6_6(system: System) -> None:
    place = NAMES[0].format(system.memfd())
    if system.since("6.6"):
        system.open(place, os.O_RDWR | os.O_DIRECT)
    else:
        with refused(errno.EINVAL):
            system.open(place, os.O_RDWR | os.O_DIRECT)
