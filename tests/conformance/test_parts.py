"""Mappings in parts: advice about some of the pages splits a mapping, and each part holds the buffer."""

from __future__ import annotations

import errno
import mmap
import sys
from typing import Any

import pytest

from tests.conformance.kernels import RO, SHARED, System, refused
from tests.support.page_size import PAGE

NORMAL, RANDOM, SEQUENTIAL, WILLNEED, DONTNEED, REMOVE, DONTFORK, DOFORK = 0, 1, 2, 3, 4, 9, 10, 11
HUGEPAGE, NOHUGEPAGE, DONTDUMP, DODUMP, KEEPONFORK = 14, 15, 16, 17, 19
MAP_STACK = 0x20000
PAGES = 6
_KEEPS_A_DESCRIPTOR = sys.version_info < (3, 13)
"""A real mapping's duplicate of the descriptor, which counts like a part of it."""


class Mapped:
    """A buffer, and one mapping of all of it."""

    def __init__(
        self, system: System, provider: str, prot: int = mmap.PROT_READ | mmap.PROT_WRITE, more_flags: int = 0
    ) -> None:
        self._system = system
        self.fd = system.buffer(provider, PAGES)
        self._before = self._count()
        self.mapping: Any = system.mmap(self.fd, PAGES * PAGE, prot, SHARED | more_flags)
        self._duplicates = int(_KEEPS_A_DESCRIPTOR and system.holds_duplicates)

    def _count(self) -> int:
        return int(self._system.fdinfo(self.fd)["count"])

    @property
    def parts(self) -> int:
        """How often the mapping holds the buffer."""
        return self._count() - self._before - self._duplicates

    def advise(self, advice: int, first: int = 0, end: int = PAGES) -> int:
        """Give advice about the pages from *first* on; the parts that there are then."""
        self.mapping.madvise(advice, first * PAGE, (end - first) * PAGE)
        return self.parts


@pytest.fixture
def mapped(system: System, provider: str) -> Mapped:
    return Mapped(system, provider)


def joins(system: System, provider: str) -> bool:
    """Whether parts that are alike become one again: those of pages that the kernel counts."""
    return not system.maps_numbers(provider)


def test_what_is_mapped_for_a_stack_has_no_huge_pages_from_the_start(system: System, provider: str) -> None:
    mapped = Mapped(system, provider, more_flags=MAP_STACK)
    has_none = system.since("6.7")
    assert mapped.advise(NOHUGEPAGE, 1, 2) == (1 if has_none else 3)
    assert mapped.advise(HUGEPAGE, 4, 5) == (3 if has_none else 5)


@pytest.mark.parametrize("advice", [RANDOM, SEQUENTIAL, DONTFORK, HUGEPAGE, NOHUGEPAGE])
@pytest.mark.parametrize(("first", "end", "parts"), [(1, 3, 3), (0, 2, 2), (4, 6, 2), (0, 6, 1)])
def test_advice_that_is_kept_splits_a_mapping(mapped: Mapped, advice: int, first: int, end: int, parts: int) -> None:
    assert mapped.parts == 1
    assert [mapped.advise(advice, first, end) for _ in range(2)] == [parts, parts]


@pytest.mark.parametrize("advice", [NORMAL, WILLNEED, KEEPONFORK])
def test_advice_that_changes_nothing_splits_nothing(mapped: Mapped, advice: int) -> None:
    assert mapped.advise(advice, 1, 3) == 1


def test_no_dump_has_what_was_mapped_by_numbers(system: System, provider: str, mapped: Mapped) -> None:
    assert mapped.advise(DONTDUMP, 1, 3) == (3 if joins(system, provider) else 1)


@pytest.mark.parametrize("advice", [DONTNEED, REMOVE, DODUMP, 5])
def test_advice_that_is_refused_splits_nothing(system: System, provider: str, mapped: Mapped, advice: int) -> None:
    if advice in (DONTNEED, DODUMP) and joins(system, provider):
        mapped.advise(advice, 1, 3)
    else:
        with refused(errno.ENODEV if advice == REMOVE else errno.EINVAL):
            mapped.advise(advice, 1, 3)
    assert mapped.parts == 1


@pytest.mark.parametrize(("there", "back"), [(RANDOM, NORMAL), (SEQUENTIAL, NORMAL)])
def test_parts_that_are_alike_join_if_their_pages_are_counted(
    system: System, provider: str, mapped: Mapped, there: int, back: int
) -> None:
    assert mapped.advise(there, 1, 3) == 3
    assert mapped.advise(back, 1, 3) == (1 if joins(system, provider) else 3)


def test_a_part_can_be_split_again(system: System, provider: str, mapped: Mapped) -> None:
    steps = [(RANDOM, 1, 3), (RANDOM, 2, 5), (SEQUENTIAL, 0, 3), (DONTFORK, 2, 4), (NORMAL, 0, 6)]
    counts = [mapped.advise(*step) for step in steps]
    assert counts == ([3, 3, 3, 5, 3] if joins(system, provider) else [3, 4, 4, 6, 6])


def test_what_lies_between_two_parts_is_one(system: System, provider: str, mapped: Mapped) -> None:
    counts = [mapped.advise(*step) for step in ((RANDOM, 1, 2), (SEQUENTIAL, 3, 4), (RANDOM, 0, 6))]
    assert counts == ([3, 5, 1] if joins(system, provider) else [3, 5, 5])


def test_advice_reaches_to_the_end_of_its_last_page(mapped: Mapped) -> None:
    mapped.mapping.madvise(RANDOM, PAGE, 1)
    assert mapped.parts == 3
    mapped.mapping.madvise(RANDOM, 5 * PAGE, 7 * PAGE)
    assert mapped.parts == 4
    mapped.mapping.madvise(SEQUENTIAL, PAGE, 0)
    assert mapped.parts == 4


@pytest.mark.parametrize("prot", [0, RO])
def test_what_a_mapping_may_do_is_not_asked(system: System, provider: str, prot: int) -> None:
    assert Mapped(system, provider, prot).advise(RANDOM, 1, 3) == 3


def test_all_parts_go_with_the_mapping(system: System, provider: str, mapped: Mapped) -> None:
    mapped.advise(RANDOM, 1, 3)
    other = system.mmap(mapped.fd, 2 * PAGE, flags=SHARED, offset=4 * PAGE)
    other.madvise(SEQUENTIAL, 0, PAGE)
    for mapping in (other, mapped.mapping):
        mapping.close()
    assert system.fdinfo(mapped.fd)["count"] == "1"


def test_a_mapping_in_parts_outlives_the_descriptor(system: System, mapped: Mapped) -> None:
    mapped.mapping[3 * PAGE] = 7
    mapped.advise(RANDOM, 1, 3)
    system.close(mapped.fd)
    assert mapped.mapping[3 * PAGE] == 7
