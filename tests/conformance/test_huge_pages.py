"""Huge pages that are reserved: memfds of them, their mappings, and udmabufs: fs/hugetlbfs/inode.c, mm/hugetlb.c.

On a real kernel /proc/sys/vm/nr_hugepages reserves them for the while of a test. Besides what a program sees, the
counts of free and promised pages are compared, as /proc/meminfo tells them.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import mmap
import os
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dmasync import uapi
from tests.conformance.kernels import PAGE, PRIVATE, RO, RW, SHARED, UDMABUF, System, refused

HUGE = PAGE * (PAGE // 8)
COUNT = 4
"""Pages that there are."""
SHRINK, WRITE = uapi.F_SEAL_SHRINK, uapi.F_SEAL_WRITE
NORESERVE, POPULATE, STACK, HUGETLB = 0x4000, 0x8000, 0x20000, 0x40000
RANDOM, DONTNEED, REMOVE, DOFORK, HUGEPAGE, POPULATE_READ, POPULATE_WRITE = 1, 4, 9, 11, 14, 22, 23


@pytest.fixture
def huge(system: System) -> Iterator[System]:
    """The kernel with huge pages, all of which must be back at the end."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(system.huge_pages(COUNT))
        if (COUNT + 1) * HUGE > 64 << 20:  # more than a udmabuf may have, of larger pages
            stack.enter_context(system.udmabuf_limits(size_limit_mb=(COUNT + 1) * HUGE >> 20))
        yield system
        system.close_everything()
        forget(system)


def forget(system: System) -> None:
    """What was closed needs no closing again."""
    system._fds.clear()
    system._closers.clear()


def memfd(system: System, pages: int, seals: int = 0) -> int:
    return system.memfd(pages * HUGE // PAGE, seals, uapi.MFD_ALLOW_SEALING | uapi.MFD_HUGETLB)


def unmap(system: System, mapping: Any) -> None:
    system._closers.remove(mapping)
    mapping.close()


def kills(touch: Callable[[], object]) -> bool:
    """Whether the kernel kills a child that does that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads: the child does nothing that they hinder
        child = os.fork()
    if not child:
        faulthandler.disable()
        try:
            touch()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGBUS)
    return bool(status)


# Promises


def test_a_mapping_promises_its_pages_and_a_touch_takes_one(huge: System) -> None:
    fd = memfd(huge, 2)
    assert huge.huge_counts() == (4, 0)
    mapping = huge.mmap(fd, 2 * HUGE)
    assert (huge.huge_counts(), huge.bytes_in_pages(fd)) == ((4, 2), 0)
    assert mapping[HUGE + 5] == 0
    assert (huge.huge_counts(), huge.bytes_in_pages(fd)) == ((3, 1), HUGE)
    mapping[0] = 1
    assert (huge.huge_counts(), huge.bytes_in_pages(fd)) == ((2, 0), 2 * HUGE)
    other = huge.mmap(fd, HUGE, offset=HUGE, prot=RO)
    other_whole = huge.mmap(fd, 2 * HUGE)
    assert (other_whole[0], other[5], huge.huge_counts()) == (1, 0, (2, 0))
    unmap(huge, mapping)
    assert huge.huge_counts() == (2, 0)


def test_what_was_promised_goes_with_the_file_and_not_with_the_mapping(huge: System) -> None:
    fd = memfd(huge, 3)
    unmap(huge, huge.mmap(fd, 3 * HUGE))
    assert huge.huge_counts() == (4, 3)
    huge.mmap(fd, HUGE, offset=HUGE)
    huge.close(fd)
    assert huge.huge_counts() == (4, 3)


@pytest.mark.parametrize("flags", [SHARED, PRIVATE])
@pytest.mark.parametrize("prot", [RO, RW, mmap.PROT_WRITE, 0])
def test_more_pages_than_there_are_cannot_be_mapped(huge: System, flags: int, prot: int) -> None:
    fd, other = memfd(huge, COUNT + 1), memfd(huge, 1)
    with refused(errno.ENOMEM):
        huge.mmap(fd, (COUNT + 1) * HUGE, prot, flags)
    assert huge.huge_counts() == (4, 0)
    huge.mmap(fd, COUNT * HUGE, prot, flags)
    with refused(errno.ENOMEM):
        huge.mmap(other, HUGE, prot, flags)
    assert (huge.huge_counts(), huge.bytes_in_pages(fd)) == ((4, 4), 0)


def test_what_one_file_gives_back_another_may_have(huge: System) -> None:
    fd, other = memfd(huge, COUNT), memfd(huge, COUNT)
    mapping = huge.mmap(fd, COUNT * HUGE)
    mapping[0] = mapping[HUGE] = 1
    huge.backend.ftruncate(fd, HUGE)
    assert huge.huge_counts() == (3, 0)
    with refused(errno.ENOMEM):
        huge.mmap(other, COUNT * HUGE)
    huge.mmap(other, (COUNT - 1) * HUGE)
    assert huge.huge_counts() == (3, 3)


@pytest.mark.parametrize("flags", [SHARED, PRIVATE])
def test_a_mapping_without_a_promise_dies_where_there_is_no_page(huge: System, flags: int) -> None:
    fd, other = memfd(huge, 2), memfd(huge, COUNT)
    all_of_them = huge.mmap(other, COUNT * HUGE)
    mapping = huge.mmap(fd, 2 * HUGE, RW, flags | NORESERVE)
    assert huge.huge_counts() == (4, 4)
    assert kills(lambda: mapping[0])
    for advice in (POPULATE_READ, POPULATE_WRITE):
        with refused(errno.EFAULT):
            mapping.madvise(advice, 0, HUGE)
    unmap(huge, all_of_them)
    assert kills(lambda: mapping[0])
    huge.backend.ftruncate(other, 0)
    assert not kills(lambda: mapping[0])
    mapping[HUGE] = 3
    assert huge.bytes_in_pages(fd) == (2 * HUGE if flags == SHARED else 0)
    assert huge.huge_counts() == (2 if flags == SHARED else 3, 0)


def test_a_mapping_without_a_promise_uses_what_was_promised_to_its_file(huge: System) -> None:
    fd, other = memfd(huge, COUNT), memfd(huge, 2)
    huge.mmap(fd, 2 * HUGE)
    mapping = huge.mmap(fd, COUNT * HUGE, RW, SHARED | NORESERVE)
    mapping[0] = 1
    assert huge.huge_counts() == (3, 1)
    mapping[3 * HUGE] = 1
    assert huge.huge_counts() == (2, 1)
    with refused(errno.ENOMEM):
        huge.mmap(other, 2 * HUGE)
    huge.mmap(other, HUGE)
    assert (kills(lambda: mapping[2 * HUGE]), kills(lambda: mapping[HUGE])) == (True, False)
    assert huge.huge_counts() == (1, 1)


def test_a_promise_without_a_mapping_is_as_good(huge: System) -> None:
    fd = memfd(huge, COUNT)
    unmap(huge, huge.mmap(fd, COUNT * HUGE))
    mapping = huge.mmap(fd, COUNT * HUGE, RW, SHARED | NORESERVE)
    mapping[HUGE] = 4
    assert huge.huge_counts() == (3, 3)


@pytest.mark.parametrize(
    ("prot", "flags", "in_file", "counts"),
    [
        (RW, SHARED, 2, (2, 0)),
        (RO, SHARED, 2, (2, 0)),
        (RW, PRIVATE, 0, (2, 0)),
        (RO, PRIVATE, 0, (2, 0)),
        (RW, SHARED | NORESERVE, 2, (2, 0)),
        (RW, SHARED | 0x10000, 0, (4, 2)),
    ],
)
def test_populating_takes_the_pages_at_once(
    huge: System, prot: int, flags: int, in_file: int, counts: tuple[int, int]
) -> None:
    fd = memfd(huge, 2)
    mapping = huge.mmap(fd, 2 * HUGE, prot, flags | POPULATE)
    assert (huge.bytes_in_pages(fd), huge.huge_counts()) == (in_file * HUGE, counts)
    assert mapping[HUGE] == 0


# Lengths and places


@pytest.mark.parametrize("flags", [SHARED, PRIVATE, SHARED | HUGETLB, SHARED | NORESERVE])
def test_an_offset_is_whole_huge_pages(huge: System, flags: int) -> None:
    fd = memfd(huge, 2)
    with refused(errno.EINVAL):
        huge.mmap(fd, HUGE, RW, flags, PAGE)
    huge.mmap(fd, HUGE, RW, flags, HUGE)[0] = 1


@pytest.mark.parametrize(("length", "pages"), [(PAGE, 1), (HUGE + PAGE, 2), (HUGE - 1, 1), (2 * HUGE, 2)])
def test_a_part_of_a_huge_page_is_promised_as_a_whole(system: System, length: int, pages: int) -> None:
    """Such a mapping cannot be unmapped by its own length, and stays: in a child, which takes it along."""

    def ask() -> None:
        fd = memfd(system, 2)
        mapping = system.mmap(fd, length)
        assert system.huge_counts() == (4, pages)
        mapping[length - 1] = 1
        mapping.close()
        system.close(fd)
        assert system.huge_counts() == ((4, 0) if -(-length // PAGE) * PAGE % HUGE == 0 else (3, pages - 1))

    with system.huge_pages(COUNT):
        assert not kills(ask)


def test_a_file_that_is_cut_takes_its_pages_from_its_mappings(huge: System) -> None:
    fd = memfd(huge, COUNT)
    mapping = huge.mmap(fd, COUNT * HUGE)
    mapping[2 * HUGE] = 7
    huge.backend.ftruncate(fd, HUGE)
    assert huge.huge_counts() == (4, 1)
    assert (kills(lambda: mapping[2 * HUGE]), kills(lambda: mapping[0])) == (True, False)
    assert huge.huge_counts() == (3, 0)
    huge.backend.ftruncate(fd, COUNT * HUGE)
    assert mapping[2 * HUGE] == 0
    assert huge.huge_counts() == (2, 0)


# Holes


def test_a_hole_gives_a_page_back_and_its_promise(huge: System) -> None:
    fd = memfd(huge, 2)
    mapping = huge.mmap(fd, 2 * HUGE)
    mapping[0], mapping[HUGE] = 1, 2
    mapping.madvise(REMOVE, 0, HUGE)
    assert (huge.huge_counts(), huge.bytes_in_pages(fd)) == ((3, 0), HUGE)
    assert (mapping[0], mapping[HUGE]) == (0, 2)
    assert (huge.huge_counts(), huge.bytes_in_pages(fd)) == ((2, 0), 2 * HUGE)


def test_a_hole_where_no_page_was_leaves_the_promise(huge: System) -> None:
    mapping = huge.mmap(memfd(huge, 2), 2 * HUGE)
    mapping.madvise(REMOVE, 0, HUGE)
    assert huge.huge_counts() == (4, 2)


def test_a_hole_in_parts_of_huge_pages_only_clears_them(huge: System) -> None:
    fd = memfd(huge, 3)
    mapping = huge.mmap(fd, 3 * HUGE)
    for place in (0, PAGE, HUGE, 2 * HUGE, 2 * HUGE + PAGE):
        mapping[place] = 5
    mapping.madvise(REMOVE, PAGE, PAGE)
    assert ([mapping[0], mapping[PAGE]], huge.bytes_in_pages(fd)) == ([5, 0], 3 * HUGE)
    mapping.madvise(REMOVE, PAGE, 2 * HUGE)
    assert huge.bytes_in_pages(fd) == 2 * HUGE
    assert [mapping[place] for place in (0, HUGE, 2 * HUGE, 2 * HUGE + PAGE)] == [5, 0, 0, 5]


def test_what_was_given_back_through_a_hole_may_be_another_s(huge: System) -> None:
    fd, other = memfd(huge, COUNT), memfd(huge, 1)
    mapping = huge.mmap(fd, COUNT * HUGE)
    for place in range(COUNT):
        mapping[place * HUGE] = 1
    with refused(errno.ENOMEM):
        huge.mmap(other, HUGE)
    mapping.madvise(REMOVE, 0, HUGE)
    third = huge.mmap(other, HUGE)
    assert (kills(lambda: mapping[0]), kills(lambda: third[0])) == (True, False)
    with refused(errno.EFAULT):
        mapping.madvise(POPULATE_READ, 0, HUGE)
    assert huge.huge_counts() == (0, 0)


@pytest.mark.parametrize("prot", [RO, RW])
def test_no_hole_through_a_private_mapping(huge: System, prot: int) -> None:
    mapping = huge.mmap(memfd(huge, 1), HUGE, prot, PRIVATE)
    with refused(errno.EACCES):
        mapping.madvise(REMOVE, 0, HUGE)


def test_a_seal_on_writing_keeps_the_pages(huge: System) -> None:
    fd = memfd(huge, 1)
    mapping = huge.mmap(fd, HUGE)
    huge.backend.add_seals(fd, uapi.F_SEAL_FUTURE_WRITE)
    with refused(errno.EPERM):
        mapping.madvise(REMOVE, 0, HUGE)


# Private mappings


def test_a_private_mapping_is_promised_pages_of_its_own(huge: System) -> None:
    fd = memfd(huge, 2)
    private = huge.mmap(fd, 2 * HUGE, RW, PRIVATE)
    huge.mmap(fd, 2 * HUGE)
    assert huge.huge_counts() == (4, 4)
    private[0] = 1
    assert (huge.huge_counts(), huge.bytes_in_pages(fd)) == ((3, 3), 0)
    unmap(huge, private)
    assert huge.huge_counts() == (4, 2)


def test_what_is_read_before_the_file_has_it_is_the_mapping_s_own(huge: System) -> None:
    fd = memfd(huge, 2)
    private, shared = huge.mmap(fd, 2 * HUGE, RW, PRIVATE), huge.mmap(fd, 2 * HUGE)
    assert private[0] == 0
    assert (huge.huge_counts(), huge.bytes_in_pages(fd)) == ((3, 3), 0)
    shared[0] = 5
    assert (private[0], huge.huge_counts(), huge.bytes_in_pages(fd)) == (0, (2, 2), HUGE)
    shared[HUGE] = 6
    assert private[HUGE] == 6
    shared[HUGE] = 7
    assert (private[HUGE], huge.huge_counts()) == (7, (1, 1))


def test_a_private_mapping_copies_a_huge_page_when_it_is_written(huge: System) -> None:
    fd = memfd(huge, 1)
    private, shared = huge.mmap(fd, HUGE, RW, PRIVATE), huge.mmap(fd, HUGE)
    shared[0], shared[PAGE] = 1, 2
    assert (private[0], huge.huge_counts()) == (1, (3, 1))
    private[0] = 3
    assert huge.huge_counts() == (2, 0)
    shared[PAGE] = shared[HUGE - 1] = 4
    assert (private[0], private[PAGE], private[HUGE - 1]) == (3, 2, 0)
    assert shared[0] == 1


def test_what_a_private_mapping_gives_up_is_the_file_s_again(huge: System) -> None:
    fd = memfd(huge, 2)
    private, shared = huge.mmap(fd, 2 * HUGE, RW, PRIVATE), huge.mmap(fd, 2 * HUGE)
    shared[0] = 5
    private[0], private[HUGE] = 1, 2
    assert huge.huge_counts() == (1, 1)
    private.madvise(DONTNEED, 0, 2 * HUGE)
    assert huge.huge_counts() == (3, 3 if huge.since("6.9") else 1)
    assert (private[0], private[HUGE]) == (5, 0)
    assert huge.huge_counts() == (2, 2 if huge.since("6.9") else 1)


def test_a_file_that_is_cut_takes_private_copies_along(huge: System) -> None:
    fd = memfd(huge, 2)
    private = huge.mmap(fd, 2 * HUGE, RW, PRIVATE)
    private[0] = 4
    huge.backend.ftruncate(fd, 0)
    assert huge.huge_counts() == (4, 2 if huge.since("6.9") else 1)
    assert kills(lambda: private[0])
    huge.backend.ftruncate(fd, 2 * HUGE)
    assert private[0] == 0
    assert huge.huge_counts() == (3, 1)


def test_a_hole_takes_private_copies_along(huge: System) -> None:
    fd = memfd(huge, 2)
    shared = huge.mmap(fd, 2 * HUGE)
    shared[0] = 4
    private = huge.mmap(fd, 2 * HUGE, RW, PRIVATE)
    private[0] = 5
    shared.madvise(REMOVE, 0, HUGE)
    assert private[0] == 0
    assert huge.huge_counts() == (3, 2)
    assert shared[0] == 0
    assert huge.huge_counts() == (2, 2)


def test_a_private_mapping_has_the_last_page_before_others_are_promised_one(huge: System) -> None:
    fd, other = memfd(huge, COUNT), memfd(huge, 1)
    private = huge.mmap(fd, COUNT * HUGE, RW, PRIVATE)
    shared = huge.mmap(other, HUGE, RW, SHARED | NORESERVE)
    private[0] = 1
    assert kills(lambda: shared[0])
    unmap(huge, private)
    shared[0] = 2
    assert huge.huge_counts() == (3, 0)


def test_populating_a_private_mapping_copies_what_it_may_write(huge: System) -> None:
    fd = memfd(huge, 2)
    shared = huge.mmap(fd, HUGE)
    shared[7] = 7
    private = huge.mmap(fd, HUGE, RW, PRIVATE)
    private.madvise(POPULATE_READ)
    assert huge.huge_counts() == (3, 1)
    private.madvise(POPULATE_WRITE)
    assert huge.huge_counts() == (2, 0)
    shared[7] = 8
    assert private[7] == 7
    to_read = huge.mmap(fd, HUGE, RO, PRIVATE, HUGE)
    with refused(errno.EINVAL):
        to_read.madvise(POPULATE_WRITE)
    to_read.madvise(POPULATE_READ)
    assert (huge.huge_counts(), huge.bytes_in_pages(fd)) == ((1, 0), HUGE)


# Advice

ADVICE = [*range(5), *range(8, 12), *range(14, 26), 102, 103]
REFUSED = {8, 18, 20, 21, 25, 102, 103}


@pytest.mark.parametrize("advice", ADVICE)
def test_advice_about_huge_pages(huge: System, advice: int) -> None:
    mapping = huge.mmap(memfd(huge, 2), 2 * HUGE)
    if advice in REFUSED or (advice == DOFORK and huge.since("7.2")):
        with refused(errno.EINVAL):
            mapping.madvise(advice, 0, HUGE)
    else:
        mapping.madvise(advice, 0, HUGE)


@pytest.mark.parametrize("advice", [RANDOM, 2, 10, HUGEPAGE, 15, 16])
def test_advice_that_would_cut_a_huge_page_is_refused(huge: System, advice: int) -> None:
    mapping = huge.mmap(memfd(huge, 3), 3 * HUGE)
    for begin, length in ((PAGE, HUGE), (0, PAGE), (HUGE, HUGE + PAGE), (HUGE - PAGE, PAGE)):
        with refused(errno.EINVAL):
            mapping.madvise(advice, begin, length)
    mapping.madvise(advice, 0, HUGE)
    mapping.madvise(advice, PAGE, HUGE - PAGE)  # nothing changes there
    with refused(errno.EINVAL):
        mapping.madvise(advice, PAGE, HUGE)
    with refused(errno.EINVAL):
        mapping.madvise(advice, 0, 2 * HUGE + PAGE)
    mapping.madvise(advice, HUGE, 2 * HUGE)


def test_parts_that_are_alike_again_stay_apart(huge: System) -> None:
    mapping = huge.mmap(memfd(huge, 2), 2 * HUGE, flags=SHARED | STACK)
    if huge.since("6.7"):
        mapping.madvise(15, PAGE, PAGE)
    else:
        with refused(errno.EINVAL):
            mapping.madvise(15, PAGE, PAGE)


@pytest.mark.parametrize("flags", [SHARED, PRIVATE])
def test_pages_are_given_up_from_the_start_of_a_huge_one_and_whole(huge: System, flags: int) -> None:
    fd = memfd(huge, 2)
    mapping = huge.mmap(fd, 2 * HUGE, RW, flags)
    mapping[0] = 1
    for begin in (PAGE, HUGE - PAGE):
        with refused(errno.EINVAL):
            mapping.madvise(DONTNEED, begin, HUGE)
    mapping.madvise(DONTNEED, 0, HUGE - PAGE)
    assert mapping[0] == 1
    mapping.madvise(DONTNEED, 0, HUGE + PAGE)
    assert mapping[0] == (1 if flags == SHARED else 0)


# Seals, seeking and the rest of the file


def test_a_mapping_that_may_write_keeps_the_write_seal_away(huge: System) -> None:
    fd = memfd(huge, 2)
    mapping = huge.mmap(fd, HUGE)
    with refused(errno.EBUSY):
        huge.backend.add_seals(fd, WRITE)
    mapping[0] = 1
    unmap(huge, mapping)
    huge.backend.add_seals(fd, WRITE)
    with refused(errno.EPERM):
        huge.mmap(fd, HUGE)
    assert huge.mmap(fd, HUGE, RW, PRIVATE)[0] == 1
    assert huge.huge_counts() == (3, 1)


def test_a_file_that_is_open_to_read_is_promised_pages_too(huge: System) -> None:
    fd = memfd(huge, 2)
    reader = huge.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    with refused(errno.EACCES):
        huge.mmap(reader, HUGE)
    shared, private = huge.mmap(reader, 2 * HUGE, RO), huge.mmap(reader, HUGE, RW, PRIVATE)
    assert huge.huge_counts() == (4, 3)
    with refused(errno.EACCES):
        shared.madvise(REMOVE, 0, HUGE)
    assert shared[0] == 0
    private[0] = 1
    assert (shared[0], huge.huge_counts(), huge.bytes_in_pages(fd)) == (0, (2, 1), HUGE)


def test_what_was_written_can_be_flushed(huge: System) -> None:
    mapping = huge.mmap(memfd(huge, 1), HUGE)
    mapping[0] = 1
    mapping.flush()
    mapping.flush(PAGE, PAGE)


def test_a_mapping_shrinks_with_its_file_and_never_grows(huge: System) -> None:
    fd = memfd(huge, 2)
    mapping = huge.mmap(fd, 2 * HUGE)
    mapping[0] = 1
    try:
        mapping.size()
    except OSError:
        return  # Python 3.13 and later hold no descriptor
    with refused(errno.EINVAL):
        mapping.resize(3 * HUGE)
    assert (huge.size(fd), len(mapping)) == (3 * HUGE, 2 * HUGE)
    with refused(errno.EINVAL):
        mapping.resize(HUGE + PAGE)
    mapping.resize(HUGE)
    assert (huge.size(fd), mapping[0], huge.huge_counts()) == (HUGE, 1, (3, 0))


def test_a_private_mapping_that_shrinks_is_promised_less(huge: System) -> None:
    fd = memfd(huge, 2)
    mapping = huge.mmap(fd, 2 * HUGE, RW, PRIVATE)
    mapping[HUGE] = 1
    try:
        mapping.size()
    except OSError:
        return  # Python 3.13 and later hold no descriptor
    mapping.resize(HUGE)
    assert huge.huge_counts() == (4, 1)
    mapping[0] = 1
    assert huge.huge_counts() == (3, 0)


# udmabufs


def has_udmabuf_of_huge_pages(system: System) -> bool:
    return system.since("6.11") or not system.since("6.5")


def test_a_udmabuf_holds_parts_of_huge_pages(huge: System) -> None:
    fd = memfd(huge, 3, SHRINK)
    mapping = huge.mmap(fd, 3 * HUGE)
    for place in range(3):
        mapping[place * HUGE] = place + 1
    device = huge.open(UDMABUF)
    if not has_udmabuf_of_huge_pages(huge):
        with refused(errno.EBADFD):
            huge.create(device, fd)
        return
    buffer = huge.create(device, fd, PAGE, HUGE)
    assert (huge.size(buffer), huge.huge_counts()) == (HUGE, (1, 0))
    huge.sync(buffer, 3)
    huge.sync(buffer, 7)
    with refused(errno.EINVAL):
        huge.create(device, fd, 3 * HUGE - PAGE, 2 * PAGE)
    with refused(errno.EINVAL):
        huge.create(device, fd, 3 * HUGE, PAGE)
    with refused(errno.EINVAL):
        huge.create(device, fd, 1024, PAGE)
    with refused(errno.EBUSY):
        huge.backend.add_seals(fd, WRITE)
    listed = huge.create_list(device, [(fd, 2 * HUGE + PAGE, PAGE), (fd, HUGE - PAGE, 2 * PAGE), (fd, 0, PAGE)])
    assert (huge.size(listed), huge.huge_counts()) == (4 * PAGE, (1, 0))


def test_a_udmabufs_bytes_are_the_memfds(huge: System) -> None:
    if not huge.since("6.11"):
        return  # it is mapped otherwise than it says: see the fidelity table
    fd, small = memfd(huge, 2, SHRINK), huge.memfd(1)
    mapping = huge.mmap(fd, 2 * HUGE)
    mapping[PAGE], mapping[HUGE], mapping[0] = 3, 4, 9
    buffer = huge.create_list(huge.open(UDMABUF), [(fd, PAGE, HUGE), (small, 0, PAGE), (fd, 0, PAGE)])
    view = huge.mmap(buffer, HUGE + 2 * PAGE)
    assert [view[at] for at in (0, HUGE - PAGE, HUGE, HUGE + PAGE)] == [3, 4, 0, 9]
    view[HUGE - 1] = 8
    mapping[0] = 7
    assert (mapping[HUGE + PAGE - 1], view[HUGE + PAGE]) == (8, 7)
    with refused(errno.EINVAL):
        huge.mmap(buffer, PAGE, RW, PRIVATE)
    assert huge.mmap(buffer, PAGE, offset=HUGE - PAGE)[0] == 4


def takes_promised_alone(huge: System) -> bool:
    """Whether a udmabuf gets no page while none is promised to anybody."""
    return huge.since("6.16.12") and not huge.since("6.17")


def test_pages_that_are_not_there_yet_come_with_the_udmabuf(huge: System) -> None:
    fd = memfd(huge, 2, SHRINK)
    device = huge.open(UDMABUF)
    if not huge.since("6.11"):
        with refused(errno.EBADFD if huge.since("6.5") else errno.EINVAL):
            huge.create(device, fd, HUGE, PAGE)
        return
    promises = huge.since("6.17")
    if takes_promised_alone(huge):
        with refused(errno.ENOMEM):
            huge.create(device, fd, HUGE, PAGE)
        return
    buffer = huge.create(device, fd, HUGE, PAGE)
    assert (huge.bytes_in_pages(fd), huge.huge_counts()) == (HUGE, (3, 0 if promises else -1))
    mapping = huge.mmap(fd, 2 * HUGE)
    assert huge.huge_counts() == (3, 1)
    assert not any(mapping[HUGE : HUGE + PAGE])
    huge.close(buffer)
    assert (huge.bytes_in_pages(fd), huge.huge_counts()) == (HUGE, (3, 1))


def test_a_hole_gives_a_page_back_that_nobody_was_promised(huge: System) -> None:
    if not huge.since("6.11") or takes_promised_alone(huge):
        return  # there is no such udmabuf
    fd = memfd(huge, 1, SHRINK)
    huge.close(huge.create(huge.open(UDMABUF), fd))
    huge.mmap(fd, HUGE, RW, SHARED | NORESERVE).madvise(REMOVE)
    assert (huge.huge_counts(), huge.bytes_in_pages(fd)) == ((4, 0), 0)


def test_no_more_pages_are_promised_than_are_free(huge: System) -> None:
    fd, other = memfd(huge, 2, SHRINK), memfd(huge, COUNT)
    device = huge.open(UDMABUF)
    if not huge.since("6.11") or takes_promised_alone(huge):
        return  # there is no such udmabuf
    buffer = huge.create(device, fd, 0, 2 * HUGE)
    assert huge.huge_counts() == (2, 0 if huge.since("6.17") else -2)
    with refused(errno.ENOMEM):
        huge.mmap(other, 3 * HUGE)
    huge.mmap(other, 2 * HUGE)
    assert huge.huge_counts() == (2, 2 if huge.since("6.17") else 0)
    if huge.since("6.17"):
        with refused(errno.ENOMEM):
            huge.mmap(other, HUGE, offset=2 * HUGE)
    else:
        huge.mmap(other, 2 * HUGE, offset=2 * HUGE)
    assert huge.huge_counts() == (2, 2)
    huge.close(buffer)  # before the files: else the counts are wrong until the machine is restarted
    huge.close(fd)


def test_a_udmabuf_takes_what_others_were_promised_unless_it_was_promised_its_own(huge: System) -> None:
    fd, other = memfd(huge, 1, SHRINK), memfd(huge, 2)
    huge.mmap(other, 2 * HUGE)
    if not huge.since("6.11"):
        return  # there is no such udmabuf
    buffer = huge.create(huge.open(UDMABUF), fd)
    assert huge.huge_counts() == (3, 2 if huge.since("6.17") else 1)
    huge.close(buffer)
    huge.close(fd)
    assert huge.huge_counts() == (4, 2)


def test_a_udmabuf_of_more_pages_than_there_are_keeps_none(huge: System) -> None:
    fd = memfd(huge, COUNT + 1, SHRINK)
    device = huge.open(UDMABUF)
    if not huge.since("6.11"):
        with refused(errno.EBADFD if huge.since("6.5") else errno.EINVAL):
            huge.create(device, fd, 0, (COUNT + 1) * HUGE)
        return
    promises = huge.since("6.17")
    with refused(errno.EPERM if promises and not huge.since("7.2") else errno.ENOMEM):
        huge.create(device, fd, 0, (COUNT + 1) * HUGE)
    if takes_promised_alone(huge):
        assert (huge.bytes_in_pages(fd), huge.huge_counts()) == (0, (4, 0))
    else:
        assert (huge.bytes_in_pages(fd), huge.huge_counts()) == (COUNT * HUGE, (0, 0 if promises else -COUNT))
    huge.backend.add_seals(fd, WRITE)
    huge.close(fd)
    assert huge.huge_counts() == (4, 0)


def test_a_udmabuf_keeps_its_pages_when_the_memfd_is_gone(huge: System) -> None:
    if not has_udmabuf_of_huge_pages(huge):
        return
    fd = memfd(huge, 2, SHRINK)
    mapping = huge.mmap(fd, 2 * HUGE)
    mapping[0], mapping[HUGE] = 1, 2
    buffer = huge.create(huge.open(UDMABUF), fd, HUGE, PAGE)
    unmap(huge, mapping)
    huge.close(fd)
    assert huge.huge_counts() == (3, 0)
    if huge.since("6.11"):
        assert huge.mmap(buffer, PAGE)[0] == 2
        unmap(huge, huge._closers[-1])
    huge.close(buffer)
    assert huge.huge_counts() == (4, 0)


def test_a_udmabuf_keeps_its_pages_when_the_file_has_a_hole(huge: System) -> None:
    if not has_udmabuf_of_huge_pages(huge):
        return
    fd = memfd(huge, 2, SHRINK)
    mapping = huge.mmap(fd, 2 * HUGE)
    mapping[0], mapping[HUGE] = 1, 2
    device = huge.open(UDMABUF)
    buffer = huge.create(device, fd, 0, 2 * HUGE)
    mapping.madvise(REMOVE, 0, HUGE)
    assert (mapping[0], huge.huge_counts(), huge.bytes_in_pages(fd)) == (0, (1, 0), 2 * HUGE)
    mapping[0] = 3
    later = huge.create(device, fd, 0, PAGE)
    if huge.since("6.11"):
        view = huge.mmap(buffer, 2 * HUGE)
        assert (view[0], view[HUGE], huge.mmap(later, PAGE)[0]) == (1, 2, 3)
        unmap(huge, view)
    huge.close(buffer)
    assert huge.huge_counts() == (2, 0)


def test_a_hole_in_a_part_of_a_huge_page_is_the_udmabufs_too(huge: System) -> None:
    if not huge.since("6.11"):
        return
    fd = memfd(huge, 1, SHRINK)
    mapping = huge.mmap(fd, HUGE)
    mapping[0], mapping[PAGE] = 1, 2
    view = huge.mmap(huge.create(huge.open(UDMABUF), fd, 0, 2 * PAGE), 2 * PAGE)
    mapping.madvise(REMOVE, PAGE, PAGE)
    assert (view[0], view[PAGE]) == (1, 0)


def test_what_was_promised_to_one_file_a_udmabuf_may_have_before_6_17(huge: System) -> None:
    fd, other = memfd(huge, COUNT), memfd(huge, COUNT, SHRINK)
    mapping = huge.mmap(fd, COUNT * HUGE)
    device = huge.open(UDMABUF)
    if huge.since("6.11") and not huge.since("6.17"):
        buffer = huge.create(device, other, 0, COUNT * HUGE)
        assert huge.huge_counts() == (0, 0)
        assert kills(lambda: mapping[0])
        huge.close(buffer)  # before the files: else the counts are wrong until the machine is restarted
        huge.close(other)
        assert huge.huge_counts() == (4, 4)
        return
    if huge.since("6.17"):
        code = errno.ENOMEM if huge.since("7.2") else errno.EPERM
    else:
        code = errno.EBADFD if huge.since("6.5") else errno.EINVAL
    with refused(code):
        huge.create(device, other, 0, COUNT * HUGE)
    assert (huge.huge_counts(), kills(lambda: mapping[0])) == ((4, 4), False)


def test_a_size_limit_holds_for_huge_pages_too(huge: System) -> None:
    fd = memfd(huge, 2, SHRINK)
    mapping = huge.mmap(fd, 2 * HUGE)
    mapping[0] = mapping[HUGE] = 1
    device = huge.open(UDMABUF)
    with huge.udmabuf_limits(size_limit_mb=HUGE >> 20), refused(errno.EINVAL):
        huge.create(device, fd, 0, HUGE + PAGE)
