"""What can be asked of a mapping: madvise, msync, and what ``mmap`` objects say of their file."""

from __future__ import annotations

import errno
import mmap
import os
import sys

import pytest

from dmasync import uapi
from dmasync.backend import LINUX, kernel_beneath
from tests.conformance.kernels import PRIVATE, RO, RW, SEALED_MAPS_READ, SHARED, System, refused
from tests.support.page_size import PAGE

# asm-generic/mman-common.h; Python names some of them.
WILLNEED, DONTNEED, FREE, REMOVE, DONTFORK, DOFORK, MERGEABLE, UNMERGEABLE = 3, 4, 8, 9, 10, 11, 12, 13
HUGEPAGE, NOHUGEPAGE, DONTDUMP, DODUMP, WIPEONFORK, KEEPONFORK, COLD, PAGEOUT = 14, 15, 16, 17, 18, 19, 20, 21
POPULATE_READ, POPULATE_WRITE, DONTNEED_LOCKED, COLLAPSE, GUARD_INSTALL, GUARD_REMOVE = 22, 23, 24, 25, 102, 103
HINTS = (0, 1, 2, WILLNEED, DONTFORK, HUGEPAGE, NOHUGEPAGE, DONTDUMP, KEEPONFORK)
OF_COUNTED_PAGES = (DONTNEED, DODUMP, COLD, PAGEOUT, POPULATE_READ, POPULATE_WRITE, DONTNEED_LOCKED)
keeps_a_descriptor = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="a mapping of the real backend holds no descriptor: neither size() nor resize()"
)


@pytest.mark.parametrize("prot", [RW, RO, 0, mmap.PROT_WRITE])
@pytest.mark.parametrize("advice", HINTS)
def test_hints_are_taken_whatever_is_mapped(system: System, provider: str, advice: int, prot: int) -> None:
    buffer, memfd = system.buffer(provider), system.memfd()
    for mapping in (system.mmap(buffer, prot=prot), system.mmap(memfd, prot=prot), system.mmap(memfd, flags=PRIVATE)):
        mapping.madvise(advice)


@pytest.mark.parametrize("advice", [MERGEABLE, UNMERGEABLE])
def test_merging_is_a_hint_where_the_kernel_was_built_with_it(system: System, provider: str, advice: int) -> None:
    merges = kernel_beneath(system.backend) is not LINUX or os.path.exists("/sys/kernel/mm/ksm")
    for mapping in (system.mmap(system.buffer(provider)), system.mmap(system.memfd())):
        if merges:
            mapping.madvise(advice)
        else:
            with refused(errno.EINVAL):
                mapping.madvise(advice)


@pytest.mark.parametrize("advice", OF_COUNTED_PAGES)
def test_advice_about_single_pages_is_for_pages_that_are_counted(system: System, provider: str, advice: int) -> None:
    mapping = system.mmap(system.buffer(provider, 2), 2 * PAGE)
    mapping[:4] = b"kept"
    if system.maps_numbers(provider):
        with refused(errno.EINVAL):
            mapping.madvise(advice)
    else:
        mapping.madvise(advice)
    assert mapping[:4] == b"kept"


def test_dofork_is_refused_where_the_pages_are_a_device_s(system: System, provider: str) -> None:
    mapping = system.mmap(system.buffer(provider))
    since = {"udmabuf": "7.2", "cma": "6.9"}.get(provider, "0.0")
    if system.since(since):
        with refused(errno.EINVAL):
            mapping.madvise(DOFORK)
    else:
        mapping.madvise(DOFORK)


@pytest.mark.parametrize("advice", [5, 6, 7, FREE, WIPEONFORK, COLLAPSE, 26, 99, 104, -1])
def test_other_advice_is_refused(system: System, provider: str, advice: int) -> None:
    for fd in (system.buffer(provider), system.memfd()):
        with refused(errno.EINVAL):
            system.mmap(fd).madvise(advice)


def test_files_have_guard_regions_since_6_15(system: System, provider: str) -> None:
    mapping = system.mmap(system.memfd())
    if system.since("6.15"):
        mapping.madvise(GUARD_REMOVE)
    else:
        with refused(errno.EINVAL):
            mapping.madvise(GUARD_REMOVE)
    if system.maps_numbers(provider):
        with refused(errno.EINVAL):
            system.mmap(system.buffer(provider)).madvise(GUARD_INSTALL)


def may_remove(system: System, prot: int) -> bool:
    """Whether MADV_REMOVE takes a shared mapping of a file that may be written: later also one that may only read."""
    return bool(prot & mmap.PROT_WRITE) or system.since(*SEALED_MAPS_READ)


@pytest.mark.parametrize("prot", [RW, RO, 0])
def test_no_hole_can_be_made_in_a_buffer(system: System, provider: str, prot: int) -> None:
    with refused(errno.ENODEV if may_remove(system, prot) else errno.EACCES):
        system.mmap(system.buffer(provider), prot=prot).madvise(REMOVE)


def test_no_hole_can_be_made_through_a_private_mapping(system: System) -> None:
    for fd in (system.memfd(), system.buffer("system")):
        with refused(errno.EACCES):
            system.mmap(fd, flags=PRIVATE).madvise(REMOVE)


@pytest.mark.parametrize("prot", [RW, RO, 0])
def test_remove_takes_the_pages_of_a_memfd(system: System, prot: int) -> None:
    memfd = system.memfd(3)
    shown = system.mmap(memfd, 3 * PAGE)
    for page in range(3):
        shown[page * PAGE : page * PAGE + 4] = b"page"
    copy = system.mmap(memfd, 3 * PAGE, flags=PRIVATE)
    copy[PAGE : PAGE + 4] = b"mine"
    remover = system.mmap(memfd, 2 * PAGE, prot=prot, offset=PAGE)
    if not may_remove(system, prot):
        with refused(errno.EACCES):
            remover.madvise(REMOVE, 0, 1)
        return
    remover.madvise(REMOVE, 0, 1)
    assert system.bytes_in_pages(memfd) == 2 * PAGE  # before a look brings the page again
    assert [shown[page * PAGE : page * PAGE + 4] for page in range(3)] == [b"page", bytes(4), b"page"]
    assert copy[PAGE : PAGE + 4] == b"mine"
    assert system.size(memfd) == 3 * PAGE


def test_a_seal_on_writing_keeps_the_pages(system: System) -> None:
    memfd = system.memfd(1, seals=0)
    before, reader = system.mmap(memfd), system.mmap(memfd, prot=RO)
    before[:4] = b"kept"
    system.backend.add_seals(memfd, uapi.F_SEAL_FUTURE_WRITE)
    for mapping, prot in ((before, RW), (reader, RO)):
        with refused(errno.EPERM if may_remove(system, prot) else errno.EACCES):
            mapping.madvise(REMOVE)
    with refused(errno.EACCES):  # a mapping that was made under the seal can never write
        system.mmap(memfd, prot=RO).madvise(REMOVE)
    assert before[:4] == b"kept"


@pytest.mark.parametrize("advice", [DONTNEED, DONTNEED_LOCKED])
@pytest.mark.parametrize("length", [1, PAGE])
def test_a_private_mapping_lets_its_copies_go(system: System, advice: int, length: int) -> None:
    memfd = system.memfd(2)
    shown, copy = system.mmap(memfd, 2 * PAGE), system.mmap(memfd, 2 * PAGE, flags=PRIVATE)
    last = slice(PAGE - 4, PAGE)
    shown[:4], shown[last] = b"file", b"file"
    copy[:4], copy[last], copy[PAGE : PAGE + 4] = b"mine", b"mine", b"mine"
    copy.madvise(advice, 0, length)
    assert (copy[:4], copy[last], copy[PAGE : PAGE + 4], shown[:4]) == (b"file", b"file", b"mine", b"file")


@pytest.mark.parametrize(
    ("advice", "prot"), [(POPULATE_READ, RO), (POPULATE_READ, RW), (POPULATE_WRITE, RW), (POPULATE_WRITE, 2)]
)
@pytest.mark.parametrize("flags", [SHARED, PRIVATE])
def test_populate_brings_the_pages_of_a_memfd(system: System, advice: int, prot: int, flags: int) -> None:
    memfd = system.memfd(4)
    system.mmap(memfd, 4 * PAGE, prot=prot, flags=flags).madvise(advice, PAGE, PAGE + 1)
    assert system.bytes_in_pages(memfd) == 2 * PAGE


@pytest.mark.parametrize(("advice", "prot"), [(POPULATE_READ, 2), (POPULATE_READ, 0), (POPULATE_WRITE, RO)])
def test_populate_heeds_what_the_mapping_may_do(system: System, advice: int, prot: int) -> None:
    memfd = system.memfd()
    with refused(errno.EINVAL):
        system.mmap(memfd, prot=prot).madvise(advice)
    assert system.bytes_in_pages(memfd) == 0


def test_advice_is_about_whole_pages_from_the_start_of_one(system: System, provider: str) -> None:
    for mapping in (system.mmap(system.buffer(provider, 2), 2 * PAGE), system.mmap(system.memfd(2), 2 * PAGE)):
        for start, length in ((1, 0), (1, PAGE), (PAGE - 1, 1)):
            with refused(errno.EINVAL):
                mapping.madvise(WILLNEED, start, length)
        mapping.madvise(WILLNEED, PAGE, 10 * PAGE)
        with pytest.raises(ValueError, match="start"):
            mapping.madvise(WILLNEED, 2 * PAGE)
        with pytest.raises(ValueError, match="length"):
            mapping.madvise(WILLNEED, 0, -1)


@pytest.mark.parametrize("advice", [DONTNEED, REMOVE, POPULATE_READ, COLLAPSE, DOFORK])
def test_of_no_bytes_any_advice_is_taken(system: System, provider: str, advice: int) -> None:
    mapping = system.mmap(system.buffer(provider))
    mapping.madvise(advice, 0, 0)
    with refused(errno.EINVAL):
        mapping.madvise(5, 0, 0)


def test_a_buffer_that_was_written_cannot_be_flushed(system: System, provider: str) -> None:
    mapping = system.mmap(system.buffer(provider, 2), 2 * PAGE)
    for span in ((), (PAGE, PAGE), (0, 1)):
        with refused(errno.EINVAL):
            mapping.flush(*span)
    mapping.flush(0, 0)
    system.mmap(system.buffer(provider), prot=RO).flush()  # Python does not ask


def test_a_memfd_and_a_copy_can_be_flushed(system: System) -> None:
    mapping = system.mmap(system.memfd(2), 2 * PAGE)
    mapping.flush()
    mapping.flush(PAGE, 1)
    with refused(errno.EINVAL):
        mapping.flush(1, 1)
    with pytest.raises(ValueError, match="range"):
        mapping.flush(0, 2 * PAGE + 1)
    system.mmap(system.memfd(), flags=PRIVATE).flush()
    system.mmap(system.buffer("system"), flags=PRIVATE).flush()


@keeps_a_descriptor
def test_a_mapping_tells_its_files_size(system: System, provider: str) -> None:
    memfd = system.memfd(3)
    for fd in (system.buffer(provider, 3), memfd):
        assert system.mmap(fd, PAGE, offset=PAGE).size() == 3 * PAGE
    system.backend.ftruncate(memfd, 5 * PAGE)
    assert system.mmap(memfd).size() == 5 * PAGE


@keeps_a_descriptor
@pytest.mark.parametrize("pages", [0, 1, 2, 4])
def test_a_mapping_of_a_buffer_keeps_its_length(system: System, provider: str, pages: int) -> None:
    mapping = system.mmap(system.buffer(provider, 2), 2 * PAGE)
    with refused(errno.EINVAL):
        mapping.resize(pages * PAGE)
    assert len(mapping) == 2 * PAGE


@keeps_a_descriptor
def test_a_mapping_of_a_memfd_takes_the_file_along(system: System) -> None:
    memfd = system.memfd(3, seals=0)
    mapping = system.mmap(memfd, 2 * PAGE, offset=PAGE)
    mapping[:4] = b"kept"
    for length, size in ((PAGE, 2 * PAGE), (4 * PAGE, 5 * PAGE), (PAGE + 7, 2 * PAGE + 7)):
        mapping.resize(length)
        assert (len(mapping), mapping[:4], system.size(memfd)) == (length, b"kept", size)
    with pytest.raises(ValueError, match="new size"):
        mapping.resize(-1)


@keeps_a_descriptor
@pytest.mark.parametrize(("seal", "pages"), [(uapi.F_SEAL_SHRINK, 1), (uapi.F_SEAL_GROW, 3)])
def test_seals_on_the_size_keep_a_mapping_as_it_is(system: System, seal: int, pages: int) -> None:
    mapping = system.mmap(system.memfd(2, seals=seal), 2 * PAGE)
    with refused(errno.EPERM):
        mapping.resize(pages * PAGE)
    assert len(mapping) == 2 * PAGE


@keeps_a_descriptor
def test_a_mapping_that_cannot_write_or_is_looked_at_keeps_its_length(system: System) -> None:
    memfd = system.memfd(2, seals=0)
    with pytest.raises(TypeError):
        system.mmap(memfd, prot=RO).resize(1)
    mapping = system.mmap(memfd, 2 * PAGE)
    with memoryview(mapping), pytest.raises(BufferError):
        mapping.resize(1)
    assert system.size(memfd) == 2 * PAGE
