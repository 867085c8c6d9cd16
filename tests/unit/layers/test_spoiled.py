"""Closing a memfd while its udmabuf is mapped: Linux before 6.11 then gives mapped pages to others."""

from __future__ import annotations

import mmap
import os

import pytest

from dmasync import uapi
from dmasync.fakes import FakeBackend, Sanitizer

PAGE = mmap.PAGESIZE
KIND = "memfd-closed-while-mapped"
RW = mmap.PROT_READ | mmap.PROT_WRITE


class Program:
    """A backend, a memfd of two pages and its udmabuf."""

    def __init__(self, profile: str = "6.1") -> None:
        self.backend = FakeBackend(profile=profile, page_size=PAGE)
        self.memfd = self.backend.memfd_create("frames", uapi.MFD_ALLOW_SEALING | uapi.MFD_CLOEXEC)
        self.backend.ftruncate(self.memfd, 2 * PAGE)
        self.backend.add_seals(self.memfd, uapi.F_SEAL_SHRINK)
        device = self.backend.open("/dev/udmabuf", os.O_RDWR)
        argument = uapi.udmabuf_create.pack(self.memfd, 1, 0, 2 * PAGE)
        self.buffer = self.backend.ioctl(device, uapi.UDMABUF_CREATE, argument)
        self.backend.close(device)

    def map(self, fd: int) -> mmap.mmap:
        mapping = self.backend.mmap(fd, 2 * PAGE, RW, mmap.MAP_SHARED)
        assert isinstance(mapping, mmap.mmap)
        return mapping

    def found(self) -> list[str]:
        return [finding.kind for finding in Sanitizer(self.backend, leaks=False).findings()]


def test_the_last_close_of_the_memfd_while_pages_are_mapped_is_found() -> None:
    program = Program()
    mapping = program.map(program.buffer)
    mapping[PAGE] = 1
    assert program.found() == []
    program.backend.close(program.memfd)
    (finding,) = Sanitizer(program.backend, leaks=False).findings()
    assert (finding.kind, finding.buffer, [trace.what[:4] for trace in finding.traces]) == (KIND, 1, ["mmap", "the "])
    assert "before 6.11" in finding.consequence
    assert "memory-spoiled of buffer 1" in program.backend.journal.timeline()


@pytest.mark.parametrize("profile", ["6.6.17", "6.10"])
def test_so_it_is_up_to_6_10(profile: str) -> None:
    program = Program(profile)
    program.map(program.buffer)[0] = 1
    mapping = program.map(program.buffer)
    mapping[0] = 2
    program.backend.close(program.memfd)
    assert program.found() == [KIND]


@pytest.mark.parametrize("profile", ["6.6", "6.11", "6.12", "7.3"])
def test_later_the_mapping_is_of_numbers_that_nobody_counts(profile: str) -> None:
    program = Program(profile)
    mapping = program.map(program.buffer)
    mapping[0] = 1
    program.backend.close(program.memfd)
    assert program.found() == []


def test_a_memfd_that_is_closed_before_the_buffer_is_mapped_does_no_harm() -> None:
    program = Program()
    program.backend.close(program.memfd)
    mapping = program.map(program.buffer)
    mapping[0] = 1
    assert program.found() == []


def test_what_is_mapped_and_not_touched_or_mapped_no_more_does_no_harm() -> None:
    program = Program()
    program.map(program.buffer).close()
    untouched = program.map(program.buffer)
    program.backend.close(program.memfd)
    untouched[0] = 1
    assert program.found() == []


@pytest.mark.parametrize("way", ["dup", "reopened", "mapped"])
def test_it_is_the_last_of_all_who_have_the_memfd_that_matters(way: str) -> None:
    program = Program()
    mapping = program.map(program.buffer)
    mapping[0] = 1
    other: mmap.mmap | None = None
    fd = None
    if way == "mapped":
        other = program.map(program.memfd)
    else:
        fd = (
            program.backend.dup(program.memfd)
            if way == "dup"
            else program.backend.open(f"/proc/self/fd/{program.memfd}", os.O_RDONLY)
        )
    program.backend.close(program.memfd)
    assert program.found() == []
    if other is not None:
        other.close()
    if fd is not None:
        program.backend.close(fd)
    assert program.found() == [KIND]


def test_a_heaps_buffer_has_no_memfd() -> None:
    program = Program()
    heap = program.backend.open("/dev/dma_heap/system", os.O_RDWR)
    argument = uapi.dma_heap_allocation_data.pack(PAGE, 0, os.O_RDWR | os.O_CLOEXEC, 0)
    program.backend.ioctl(heap, uapi.DMA_HEAP_IOCTL_ALLOC, argument)
    mapping = program.backend.mmap(uapi.dma_heap_allocation_data.get(argument, "fd"), PAGE, RW, mmap.MAP_SHARED)
    memoryview(mapping)[0] = 1
    program.backend.close(program.memfd)
    assert program.found() == []
