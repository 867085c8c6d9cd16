"""Holes in a memfd of which a udmabuf holds pages: the buffer keeps them, and the file gets others."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from dmasync import uapi
from tests.conformance.kernels import PRIVATE, UDMABUF, System, refused
from tests.support.page_size import PAGE

REMOVE = 9
PAGES = 4


class Filled:
    """A memfd of four pages, each with its number in it, a mapping of it, and udmabufs of it."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.memfd = system.memfd(PAGES)
        self.file: Any = system.mmap(self.memfd, PAGES * PAGE)
        for page in range(PAGES):
            self.file[page * PAGE : page * PAGE + 4] = b"pg%02d" % page

    def buffer(self, first: int = 0, pages: int = PAGES) -> int:
        return self._system.create(self._system.open(UDMABUF), self.memfd, first * PAGE, pages * PAGE)

    def mapped(self, buffer: int, pages: int = PAGES) -> Any:
        return self._system.mmap(buffer, pages * PAGE)

    def punch(self, first: int, pages: int = 1) -> None:
        self.file.madvise(REMOVE, first * PAGE, pages * PAGE)

    def seal(self) -> None:
        """F_SEAL_WRITE, with nothing mapped that could stand against it."""
        self.file.close()
        self._system.backend.add_seals(self.memfd, uapi.F_SEAL_WRITE)


@pytest.fixture
def filled(system: System) -> Filled:
    return Filled(system)


def shown(mapping: Any) -> list[bytes]:
    return [mapping[at : at + 4] for at in range(0, len(mapping), PAGE)]


def needs_a_kernel_that_pins(system: System) -> None:
    if not system.maps_numbers("udmabuf"):
        pytest.skip("older releases of Linux miscount pages that are mapped through a udmabuf")


@pytest.mark.parametrize("touched", [False, True])
def test_a_buffer_keeps_its_pages(system: System, filled: Filled, touched: bool) -> None:
    needs_a_kernel_that_pins(system)
    buffer = filled.buffer()
    mapping = filled.mapped(buffer)
    if touched:
        assert shown(mapping) == [b"pg00", b"pg01", b"pg02", b"pg03"]
    filled.punch(1)
    assert shown(mapping) == [b"pg00", b"pg01", b"pg02", b"pg03"]
    assert shown(filled.file) == [b"pg00", bytes(4), b"pg02", b"pg03"]
    mapping[PAGE : PAGE + 4], filled.file[PAGE : PAGE + 4] = b"mine", b"file"
    mapping[0:4], filled.file[2 * PAGE : 2 * PAGE + 4] = b"both", b"too!"
    assert shown(mapping) == shown(filled.mapped(buffer)) == [b"both", b"mine", b"too!", b"pg03"]
    assert shown(filled.file) == [b"both", b"file", b"too!", b"pg03"]


def test_the_file_gets_a_hole(system: System, filled: Filled) -> None:
    buffer = filled.buffer()
    filled.punch(0, 3)
    assert system.bytes_in_pages(filled.memfd) == PAGE
    assert shown(filled.mapped(buffer)) == [b"pg00", b"pg01", b"pg02", b"pg03"]


def test_a_hole_in_what_nobody_had_written_leaves_the_buffer_zeros(system: System) -> None:
    memfd = system.memfd(2)
    buffer = system.create(system.open(UDMABUF), memfd, 0, 2 * PAGE)
    file = system.mmap(memfd, 2 * PAGE)
    file.madvise(REMOVE, 0, PAGE)
    assert system.bytes_in_pages(memfd) == PAGE
    mapping = system.mmap(buffer, 2 * PAGE)
    mapping[:4], file[:4] = b"mine", b"file"
    assert (mapping[:4], file[:4]) == (b"mine", b"file")


def test_buffers_that_had_the_page_have_it_together(system: System, filled: Filled) -> None:
    needs_a_kernel_that_pins(system)
    one, other = filled.mapped(filled.buffer()), filled.mapped(filled.buffer(1, 2), 2)
    filled.punch(1)
    one[PAGE : PAGE + 4] = b"ours"
    assert shown(other) == [b"ours", b"pg02"]


def test_a_later_buffer_has_the_pages_that_the_file_has_then(system: System, filled: Filled) -> None:
    needs_a_kernel_that_pins(system)
    before = filled.mapped(filled.buffer())
    filled.punch(1)
    after = filled.mapped(filled.buffer())
    after[PAGE : PAGE + 4] = b"new!"
    assert (shown(before)[1], shown(after)[1], shown(filled.file)[1]) == (b"pg01", b"new!", b"new!")
    filled.punch(1)
    assert (shown(before)[1], shown(after)[1], shown(filled.file)[1]) == (b"pg01", b"new!", bytes(4))


def test_a_list_may_name_a_page_twice(system: System, filled: Filled) -> None:
    needs_a_kernel_that_pins(system)
    items = [(filled.memfd, page * PAGE, PAGE) for page in (2, 1, 2)]
    mapping = filled.mapped(system.create_list(system.open(UDMABUF), items), 3)
    filled.punch(1, 2)
    assert shown(mapping) == [b"pg02", b"pg01", b"pg02"]
    mapping[:4] = b"same"
    assert shown(mapping) == [b"same", b"pg01", b"same"]


@pytest.mark.parametrize(
    ("first", "pages", "held"), [(0, 4, False), (1, 2, False), (1, 1, True), (0, 2, True), (3, 1, True)]
)
def test_only_pages_that_the_file_still_has_are_held_against_a_seal(
    system: System, filled: Filled, first: int, pages: int, held: bool
) -> None:
    filled.buffer(1, 2)
    filled.punch(first, pages)
    if held:
        with refused(errno.EBUSY):
            filled.seal()
    else:
        filled.seal()


def test_pages_that_are_held_anew_count_against_a_seal(system: System, filled: Filled) -> None:
    filled.buffer(0, 2)
    filled.punch(0, 2)
    again = filled.buffer(0, 1)
    with refused(errno.EBUSY):
        filled.seal()
    system.close(again)
    system.backend.add_seals(filled.memfd, uapi.F_SEAL_WRITE)


def test_a_private_mapping_sees_the_hole_where_it_has_no_copy(system: System, filled: Filled) -> None:
    buffer = filled.buffer()
    copy = system.mmap(filled.memfd, PAGES * PAGE, flags=PRIVATE)
    copy[8] = 1
    filled.punch(0, 2)
    assert shown(copy)[:2] == [b"pg00", bytes(4)]
    assert shown(filled.mapped(buffer))[:2] == [b"pg00", b"pg01"]


def test_a_buffer_keeps_them_longer_than_the_file_lives(system: System, filled: Filled) -> None:
    needs_a_kernel_that_pins(system)
    mapping = filled.mapped(filled.buffer())
    filled.punch(1)
    filled.file.close()
    system.close(filled.memfd)
    assert shown(mapping) == [b"pg00", b"pg01", b"pg02", b"pg03"]
