"""memfd_create(), ftruncate() and seals: mm/memfd.c, mm/shmem.c, fs/open.c."""

from __future__ import annotations

import errno
import mmap
import os

import pytest

from dmasync import uapi
from tests.conformance.kernels import (
    MACHINE,
    O_LARGEFILE,
    PAGE,
    PRIVATE,
    RO,
    RW,
    SEALED_MAPS_READ,
    SHARED,
    UDMABUF,
    System,
    refused,
)

SEAL, SHRINK, GROW, WRITE = uapi.F_SEAL_SEAL, uapi.F_SEAL_SHRINK, uapi.F_SEAL_GROW, uapi.F_SEAL_WRITE
FUTURE, EXEC = uapi.F_SEAL_FUTURE_WRITE, uapi.F_SEAL_EXEC
MAP_POPULATE, MAP_NONBLOCK = 0x8000, 0x10000
ALL_SEALS = SEAL | SHRINK | GROW | WRITE | FUTURE | EXEC


@pytest.mark.parametrize(
    ("flags", "seals"),
    [
        (0, SEAL),
        (uapi.MFD_CLOEXEC, SEAL),
        (uapi.MFD_ALLOW_SEALING, 0),
        (uapi.MFD_CLOEXEC | uapi.MFD_ALLOW_SEALING, 0),
        (uapi.MFD_EXEC, SEAL),
        (uapi.MFD_EXEC | uapi.MFD_ALLOW_SEALING, 0),
        (uapi.MFD_NOEXEC_SEAL, EXEC),
        (uapi.MFD_NOEXEC_SEAL | uapi.MFD_ALLOW_SEALING, EXEC),
    ],
)
def test_creation_flags_decide_the_first_seals(system: System, flags: int, seals: int) -> None:
    if flags & (uapi.MFD_EXEC | uapi.MFD_NOEXEC_SEAL) and not system.since("6.3"):
        with refused(errno.EINVAL):
            system.backend.memfd_create("m", flags)
        return
    fd = system.owned(system.backend.memfd_create("m", flags))
    assert system.backend.get_seals(fd) == seals


@pytest.mark.parametrize("flags", [0, uapi.MFD_CLOEXEC])
def test_only_cloexec_sets_close_on_exec(system: System, flags: int) -> None:
    fd = system.owned(system.backend.memfd_create("m", flags))
    assert bool(int(system.fdinfo(fd)["flags"], 8) & os.O_CLOEXEC) == bool(flags)


@pytest.mark.parametrize(
    "flags",
    [
        0x20,
        0x21,
        0x40,
        0x8000_0000 - 0x1_0000_0000,
        1 << 26,
        21 << 26,
        uapi.MFD_EXEC | uapi.MFD_NOEXEC_SEAL,
        uapi.MFD_EXEC | uapi.MFD_NOEXEC_SEAL | uapi.MFD_ALLOW_SEALING,
        uapi.MFD_HUGETLB | 0x20,
        uapi.MFD_HUGETLB | uapi.MFD_EXEC | uapi.MFD_NOEXEC_SEAL,
    ],
)
def test_unknown_or_contradicting_creation_flags_are_refused(system: System, flags: int) -> None:
    with refused(errno.EINVAL):
        system.backend.memfd_create("m", flags & 0xFFFF_FFFF)


@pytest.mark.parametrize("name", ["", "m", "x" * 248, "x" * 249, "é" * 124, "a/b", "é" * 124 + "x"])
def test_names_up_to_249_bytes_are_taken(system: System, name: str) -> None:
    system.owned(system.backend.memfd_create(name, 0))


@pytest.mark.parametrize("name", ["x" * 250, "é" * 125, "x" * 5000])
def test_longer_names_are_refused(system: System, name: str) -> None:
    with refused(errno.EINVAL):
        system.backend.memfd_create(name, 0)


def test_a_memfd_with_no_descriptor_left_is_emfile(system: System) -> None:
    with system.no_descriptors_left(), refused(errno.EMFILE):
        system.backend.memfd_create("m", 0)


@pytest.mark.parametrize(("name", "flags"), [("x" * 250, 0), ("m", 0x20)])
def test_bad_arguments_are_found_before_the_descriptor_limit(system: System, name: str, flags: int) -> None:
    with system.no_descriptors_left(), refused(errno.EINVAL):
        system.backend.memfd_create(name, flags)


@pytest.mark.parametrize("length", [0, 1, PAGE - 1, PAGE, PAGE + 1, 1 << 40, (1 << 63) - 1])
def test_ftruncate_sets_the_size(system: System, length: int) -> None:
    fd = system.memfd(0, seals=0)
    system.backend.ftruncate(fd, length)
    assert system.size(fd) == length


def test_ftruncate_refuses_a_negative_length_before_it_looks_at_the_descriptor(system: System) -> None:
    fd = system.memfd()
    system.close(fd)
    with refused(errno.EINVAL):
        system.backend.ftruncate(fd, -1)
    with refused(errno.EBADF):
        system.backend.ftruncate(fd, 0)


def test_what_shrinking_cut_off_is_zero_when_it_grows_again(system: System) -> None:
    fd = system.memfd(2, seals=0)
    with system.backend.mmap(fd, 2 * PAGE, RW, SHARED) as mapping:
        mapping[:] = b"x" * (2 * PAGE)
    system.backend.ftruncate(fd, PAGE + 10)
    system.backend.ftruncate(fd, 2 * PAGE)
    assert system.mmap(fd, 2 * PAGE)[:] == b"x" * (PAGE + 10) + bytes(PAGE - 10)


@pytest.mark.parametrize(
    ("seals", "length", "code"),
    [
        (SHRINK, 2 * PAGE - 1, errno.EPERM),
        (SHRINK, 2 * PAGE, None),
        (SHRINK, 2 * PAGE + 1, None),
        (GROW, 2 * PAGE - 1, None),
        (GROW, 2 * PAGE, None),
        (GROW, 2 * PAGE + 1, errno.EPERM),
        (SHRINK | GROW, 2 * PAGE, None),
        (SHRINK | GROW, 0, errno.EPERM),
        (WRITE, 0, None),
        (WRITE, 3 * PAGE, None),
        (SEAL, 0, None),
        (FUTURE, 3 * PAGE, None),
    ],
)
def test_seals_decide_which_way_the_size_may_go(system: System, seals: int, length: int, code: int | None) -> None:
    fd = system.memfd(2, seals=seals)
    if code is None:
        system.backend.ftruncate(fd, length)
        assert system.size(fd) == length
    else:
        with refused(code):
            system.backend.ftruncate(fd, length)
        assert system.size(fd) == 2 * PAGE


@pytest.mark.parametrize("seal", [0, SEAL, SHRINK, GROW, WRITE, FUTURE, SEAL | SHRINK, WRITE | FUTURE, 0x1F])
def test_seals_are_added_and_told(system: System, seal: int) -> None:
    fd = system.memfd(seals=0)
    system.backend.add_seals(fd, seal)
    assert system.backend.get_seals(fd) == seal


def test_seals_accumulate(system: System) -> None:
    fd = system.memfd(seals=SHRINK)
    system.backend.add_seals(fd, GROW)
    system.backend.add_seals(fd, GROW)
    assert system.backend.get_seals(fd) == SHRINK | GROW


@pytest.mark.parametrize("seals", [0x40, 0x80, SHRINK | 0x40, 0x4000_0000, 0x8000_0000])
def test_unknown_seals_are_refused_and_none_is_added(system: System, seals: int) -> None:
    fd = system.memfd(seals=0)
    with refused(errno.EINVAL):
        system.backend.add_seals(fd, seals)
    assert system.backend.get_seals(fd) == 0


@pytest.mark.parametrize("seals", [0, SHRINK, SEAL, EXEC])
def test_nothing_is_added_once_sealing_is_sealed(system: System, seals: int) -> None:
    fd = system.memfd(seals=SEAL)
    known = seals != EXEC or system.since("6.3")
    with refused(errno.EPERM if known else errno.EINVAL):
        system.backend.add_seals(fd, seals)


def test_a_memfd_without_sealing_refuses_seals(system: System) -> None:
    fd = system.memfd(seals=0, flags=0)
    with refused(errno.EPERM):
        system.backend.add_seals(fd, SHRINK)


def test_unknown_seals_are_found_before_the_seal_on_sealing(system: System) -> None:
    fd = system.memfd(seals=0, flags=0)
    with refused(errno.EINVAL):
        system.backend.add_seals(fd, 0x40)


@pytest.mark.parametrize("prot", [RW, RO])
@pytest.mark.parametrize("seals", [WRITE, WRITE | SHRINK, EXEC])
def test_a_shared_mapping_keeps_the_write_seal_away(system: System, prot: int, seals: int) -> None:
    fd = system.memfd(seals=0)
    mapping = system.mmap(fd, prot=prot)
    if seals == EXEC and not system.since("6.3"):
        with refused(errno.EINVAL):
            system.backend.add_seals(fd, seals)
    elif seals == EXEC and not system.since("7.2", "6.18.44", "6.12.93", "6.6.143"):
        system.backend.add_seals(fd, seals)
        assert system.backend.get_seals(fd) == EXEC | SHRINK | GROW | WRITE | FUTURE
        with refused(errno.EPERM):
            system.mmap(fd)
        return
    else:
        with refused(errno.EBUSY):
            system.backend.add_seals(fd, seals)
    assert system.backend.get_seals(fd) == 0
    mapping.close()
    system.backend.add_seals(fd, WRITE)


@pytest.mark.parametrize("prot", [RW, RO])
def test_a_private_mapping_does_not_hinder_the_write_seal(system: System, prot: int) -> None:
    fd = system.memfd(seals=0)
    system.mmap(fd, prot=prot, flags=PRIVATE)
    system.backend.add_seals(fd, WRITE)


@pytest.mark.parametrize("seals", [SHRINK, GROW, FUTURE, SEAL])
def test_other_seals_do_not_mind_a_writable_mapping(system: System, seals: int) -> None:
    fd = system.memfd(seals=0)
    mapping = system.mmap(fd)
    system.backend.add_seals(fd, seals)
    mapping[0] = 7
    assert mapping[0] == 7


def test_a_read_only_mapping_made_under_future_write_does_not_hinder_the_write_seal(system: System) -> None:
    fd = system.memfd(seals=FUTURE)
    mapping = system.mmap(fd, prot=RO)
    if not system.since(*SEALED_MAPS_READ):
        with refused(errno.EBUSY):
            system.backend.add_seals(fd, WRITE)
        mapping.close()
    system.backend.add_seals(fd, WRITE)


def test_one_of_two_mappings_is_enough_to_hinder_the_write_seal(system: System) -> None:
    fd = system.memfd(seals=0)
    first, second = system.mmap(fd), system.mmap(system.dup(fd))
    first.close()
    with refused(errno.EBUSY):
        system.backend.add_seals(fd, WRITE)
    second.close()
    system.backend.add_seals(fd, WRITE)


@pytest.mark.parametrize("seal", [WRITE, FUTURE, WRITE | FUTURE])
@pytest.mark.parametrize(
    ("prot", "flags", "code"),
    [
        (RW, SHARED, errno.EPERM),
        (2, SHARED, errno.EPERM),
        (RO, SHARED, None),
        (RW, PRIVATE, None),
        (RO, PRIVATE, None),
    ],
)
def test_write_seals_allow_only_mappings_that_cannot_write(
    system: System, seal: int, prot: int, flags: int, code: int | None
) -> None:
    fd = system.memfd(seals=seal)
    if (prot, flags) == (RO, SHARED) and seal & WRITE and not system.since(*SEALED_MAPS_READ):
        code = errno.EPERM
    if code is None:
        system.mmap(fd, prot=prot, flags=flags)
    else:
        with refused(code):
            system.mmap(fd, prot=prot, flags=flags)


def test_the_exec_seal_on_an_executable_file_brings_the_others(system: System) -> None:
    if not system.since("6.3"):
        with refused(errno.EINVAL):
            system.memfd(seals=EXEC)
        return
    fd = system.memfd(seals=EXEC)
    assert system.backend.get_seals(fd) == EXEC | SHRINK | GROW | WRITE | FUTURE


def test_the_exec_seal_on_a_file_that_is_not_executable_comes_alone(system: System) -> None:
    if not system.since("6.3"):
        with refused(errno.EINVAL):
            system.memfd(seals=EXEC, flags=uapi.MFD_NOEXEC_SEAL)
        return
    fd = system.memfd(seals=EXEC, flags=uapi.MFD_NOEXEC_SEAL)
    assert system.backend.get_seals(fd) == EXEC


@pytest.mark.parametrize("keep", ["descriptor", "mapping"])
def test_pages_that_a_udmabuf_holds_keep_the_write_seal_away(system: System, keep: str) -> None:
    fd = system.memfd()
    buffer = system.create(system.open(UDMABUF), fd)
    mapping = system.mmap(buffer)
    if keep == "mapping":
        system.close(buffer)
    else:
        mapping.close()
    with refused(errno.EBUSY):
        system.backend.add_seals(fd, WRITE)
    assert system.backend.get_seals(fd) == SHRINK
    if keep == "mapping":
        mapping.close()
    else:
        system.close(buffer)
    system.backend.add_seals(fd, WRITE)


@pytest.mark.parametrize("seals", [GROW, FUTURE, SEAL])
def test_a_udmabuf_does_not_hinder_other_seals(system: System, seals: int) -> None:
    fd = system.memfd()
    buffer = system.create(system.open(UDMABUF), fd)
    system.backend.add_seals(fd, seals)
    system.mmap(buffer)[0] = 1


def test_seals_belong_to_the_file_not_to_the_descriptor(system: System) -> None:
    fd = system.memfd(seals=0)
    copy = system.dup(fd)
    system.backend.add_seals(copy, GROW)
    system.close(copy)
    assert system.backend.get_seals(fd) == GROW


def test_seals_of_what_is_not_open_are_ebadf(system: System) -> None:
    fd = system.memfd()
    system.close(fd)
    with refused(errno.EBADF):
        system.backend.get_seals(fd)
    with refused(errno.EBADF):
        system.backend.add_seals(fd, 0x40)


@pytest.mark.parametrize(
    ("offset", "whence", "result"),
    [
        (5, os.SEEK_SET, 5),
        (3 * PAGE, os.SEEK_SET, 3 * PAGE),
        (0, os.SEEK_END, PAGE),
        (-1, os.SEEK_END, PAGE - 1),
        (10, os.SEEK_END, PAGE + 10),
        (0, os.SEEK_CUR, 100),
        (-100, os.SEEK_CUR, 0),
        (7, os.SEEK_CUR, 107),
    ],
)
def test_lseek_on_a_memfd_moves_the_position(system: System, offset: int, whence: int, result: int) -> None:
    fd = system.memfd()
    system.backend.lseek(fd, 100, os.SEEK_SET)
    assert system.backend.lseek(fd, offset, whence) == result
    assert system.backend.lseek(system.dup(fd), 0, os.SEEK_CUR) == result
    assert system.fdinfo(fd)["pos"] == str(result)


@pytest.mark.parametrize(
    ("offset", "whence"),
    [
        (-1, os.SEEK_SET),
        (-101, os.SEEK_CUR),
        (-PAGE - 1, os.SEEK_END),
        (0, 5),
        (0, -1),
        ((1 << 63) - 1, os.SEEK_END),
        ((1 << 63) - 1, os.SEEK_CUR),
    ],
)
def test_lseek_on_a_memfd_refuses_what_is_not_a_position(system: System, offset: int, whence: int) -> None:
    fd = system.memfd()
    system.backend.lseek(fd, 100, os.SEEK_SET)
    with refused(errno.EINVAL):
        system.backend.lseek(fd, offset, whence)
    assert system.backend.lseek(fd, 0, os.SEEK_CUR) == 100


def test_lseek_finds_data_and_holes_of_a_memfd(system: System) -> None:
    fd = system.memfd(4, seals=0)
    assert system.backend.lseek(fd, 0, os.SEEK_HOLE) == 0
    with refused(errno.ENXIO):
        system.backend.lseek(fd, 0, os.SEEK_DATA)
    system.mmap(fd, 4 * PAGE)[2 * PAGE] = 1
    assert system.backend.lseek(fd, 0, os.SEEK_DATA) == 2 * PAGE
    assert system.backend.lseek(fd, 2 * PAGE, os.SEEK_HOLE) == 3 * PAGE
    assert system.fdinfo(fd)["pos"] == str(3 * PAGE)
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        with refused(errno.ENXIO):
            system.backend.lseek(fd, 4 * PAGE, whence)
        with refused(errno.ENXIO):
            system.backend.lseek(fd, -1, whence)


def test_a_udmabuf_fills_the_holes_that_it_is_made_of(system: System) -> None:
    fd = system.memfd(4)
    system.create(system.open(UDMABUF), fd, offset=PAGE, size=2 * PAGE)
    assert system.backend.lseek(fd, 0, os.SEEK_DATA) == PAGE
    assert system.backend.lseek(fd, PAGE, os.SEEK_HOLE) == 3 * PAGE


# Huge pages, of which none are reserved

HUGE = PAGE * (PAGE // 8)
"""A page of pointers: 2 MiB where pages have 4 KiB, 32 MiB with 16 KiB, 512 MiB with 64 KiB."""
USUAL = HUGE.bit_length() - 1


# Blocks of pages, or of huge pages, are huge pages too where the processor is an arm64.
BLOCKS = {4096: [16, 25, 30] if MACHINE == "aarch64" else [], 16384: [21, 30], 65536: [21, 34]}
SIZES = [0, USUAL, *BLOCKS.get(PAGE, [])]
OTHER_SIZES = [log for log in (1, 12, 16, 20, 22, 25, 29, 34, 63) if log not in SIZES]


@pytest.mark.parametrize("size_log", SIZES)
@pytest.mark.parametrize(("flags", "seals"), [(0, SEAL), (uapi.MFD_ALLOW_SEALING, 0), (uapi.MFD_NOEXEC_SEAL, EXEC)])
def test_a_memfd_of_huge_pages_can_be_made_without_any(system: System, size_log: int, flags: int, seals: int) -> None:
    if flags & uapi.MFD_NOEXEC_SEAL and not system.since("6.3"):
        with refused(errno.EINVAL):
            system.backend.memfd_create("huge", uapi.MFD_HUGETLB | flags | size_log << 26)
        return
    fd = system.owned(system.backend.memfd_create("huge", uapi.MFD_HUGETLB | flags | size_log << 26))
    assert system.backend.get_seals(fd) == seals
    assert system.fdinfo(fd)["flags"] == f"0{os.O_RDWR | O_LARGEFILE:o}"
    argument = bytearray(4)
    assert system.backend.ioctl(fd, 2, argument) == 0
    assert int.from_bytes(argument, "little") == (1 << size_log if size_log else HUGE) & 0xFFFF_FFFF  # an int


@pytest.mark.parametrize("size_log", OTHER_SIZES)
def test_huge_pages_of_another_size_are_enodev(system: System, size_log: int) -> None:
    with refused(errno.ENODEV):
        system.backend.memfd_create("huge", uapi.MFD_HUGETLB | size_log << 26)
    with system.no_descriptors_left(), refused(errno.EMFILE):
        system.backend.memfd_create("huge", uapi.MFD_HUGETLB | size_log << 26)


@pytest.mark.parametrize(
    ("seals", "length", "code"),
    [
        (0, HUGE, None),
        (0, 3 * HUGE, None),
        (0, 0, None),
        (0, HUGE + PAGE, errno.EINVAL),
        (SHRINK, 0, errno.EPERM),
        (SHRINK, PAGE, errno.EINVAL),
        (GROW, 3 * HUGE, errno.EPERM),
        (GROW | SHRINK, 2 * HUGE, None),
    ],
)
def test_huge_files_are_sized_in_huge_pages(system: System, seals: int, length: int, code: int | None) -> None:
    fd = system.memfd(2 * HUGE // PAGE, seals, uapi.MFD_ALLOW_SEALING | uapi.MFD_HUGETLB)
    if code is None:
        system.backend.ftruncate(fd, length)
        assert system.size(fd) == length
    else:
        with refused(code):
            system.backend.ftruncate(fd, length)


def test_what_needs_a_huge_page_is_enomem(system: System) -> None:
    fd = system.memfd(2 * HUGE // PAGE, SHRINK, uapi.MFD_ALLOW_SEALING | uapi.MFD_HUGETLB)
    for length, flags in ((HUGE, SHARED), (PAGE, SHARED), (2 * HUGE, PRIVATE)):
        with refused(errno.ENOMEM):
            system.mmap(fd, length, flags=flags)
    with refused(errno.EINVAL):
        system.mmap(fd, PAGE, offset=PAGE)
    device = system.open(UDMABUF)
    if system.since("6.17") and not system.since("7.2"):
        code = errno.EPERM
    else:
        code = errno.ENOMEM if system.since("6.11") else errno.EINVAL
    is_none = system.since("6.5") and not system.since("6.11")
    with refused(errno.EBADFD if is_none else code):
        system.create(device, fd)
    with refused(errno.EBADFD if is_none else code):
        system.create(device, fd, HUGE + PAGE, PAGE)
    with refused(errno.EBADFD if is_none else errno.EINVAL):
        system.create(device, fd, 2 * HUGE, PAGE)
    assert system.bytes_in_pages(fd) == 0
    system.backend.add_seals(fd, WRITE)
    with refused(errno.EPERM):
        system.mmap(fd, HUGE)
    with refused(errno.EBADFD if is_none else errno.EINVAL):
        system.create(device, fd)


@pytest.mark.parametrize(
    ("offset", "whence", "result"),
    [
        (5, os.SEEK_DATA, 5),
        (5, os.SEEK_HOLE, 2 * HUGE),
        (-HUGE, os.SEEK_END, HUGE),
        (2 * HUGE, os.SEEK_DATA, errno.ENXIO),
        (2 * HUGE, os.SEEK_HOLE, errno.ENXIO),
        (-1, os.SEEK_DATA, errno.EINVAL),
        (-1, os.SEEK_HOLE, 2 * HUGE),
        (-1, os.SEEK_SET, errno.EINVAL),
    ],
)
def test_huge_files_are_all_data(system: System, offset: int, whence: int, result: int) -> None:
    fd = system.memfd(2 * HUGE // PAGE, 0, uapi.MFD_ALLOW_SEALING | uapi.MFD_HUGETLB)
    if result < 1000 and result != 5:
        with refused(result):
            system.backend.lseek(fd, offset, whence)
        return
    assert system.backend.lseek(fd, offset, whence) == result


@pytest.mark.parametrize(
    ("prot", "flags", "pages"),
    [
        (RW, SHARED, 2),
        (RO, SHARED, 2),
        (RW, PRIVATE, 2),
        (RO, PRIVATE, 2),
        (mmap.PROT_EXEC | RO, SHARED, 2),
        (mmap.PROT_WRITE, SHARED, 2),
        (0, SHARED, 0),
        (RW, SHARED | MAP_NONBLOCK, 0),
    ],
)
def test_a_mapping_can_bring_all_its_pages(system: System, prot: int, flags: int, pages: int) -> None:
    fd = system.memfd(4)
    system.mmap(fd, 2 * PAGE, prot, flags, PAGE)
    assert system.bytes_in_pages(fd) == 0
    system.mmap(fd, 2 * PAGE, prot, flags | MAP_POPULATE, PAGE)
    assert system.bytes_in_pages(fd) == pages * PAGE


@pytest.mark.parametrize("flags", [0, MAP_POPULATE, MAP_POPULATE | MAP_NONBLOCK])
def test_a_private_mapping_that_brings_all_its_pages_has_copied_them(system: System, flags: int) -> None:
    fd = system.memfd(1)
    shared, private = system.mmap(fd), system.mmap(fd, flags=PRIVATE | flags)
    readable = system.mmap(fd, prot=RO, flags=PRIVATE | flags)
    shared[0] = 7
    assert (private[0], readable[0]) == (0 if flags == MAP_POPULATE else 7, 7)
