"""What the fake says of huge pages by itself: how many of which size there are, and touches that should have killed."""

from __future__ import annotations

import errno
import mmap
import threading

import pytest

from dmasync import uapi
from dmasync.fakes import FakeBackend, FakeKernel
from dmasync.fakes.kernel import UnmodelledCallError

RW, SHARED, PRIVATE, NORESERVE = 3, mmap.MAP_SHARED, mmap.MAP_PRIVATE, 0x4000
PAGE, SIZE = 4096, 2 << 20
"""Of an x86-64, which all of this is asked of, whatever this host is."""


def memfd(kernel: FakeKernel, size: int, pages: int = 1) -> int:
    fd = kernel.memfd_create("huge", uapi.MFD_HUGETLB | uapi.MFD_ALLOW_SEALING | size.bit_length() - 1 << 26)
    kernel.ftruncate(fd, pages * size)
    return fd


@pytest.mark.parametrize(
    ("machine", "page", "size"),
    [
        ("x86_64", PAGE, SIZE),
        ("aarch64", 4096, 2 << 20),
        ("aarch64", 16384, 32 << 20),
        ("aarch64", 65536, 512 << 20),
    ],
)
def test_a_number_is_of_the_usual_size(machine: str, page: int, size: int) -> None:
    kernel = FakeKernel(machine=machine, page_size=page, huge_pages=2)
    fd = memfd(kernel, size, 3)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        kernel.mmap(fd, 3 * size, RW, SHARED)
    with kernel.mmap(fd, 2 * size, RW, SHARED) as mapping:
        mapping[size] = 1
        assert mapping[2 * size - 1] == 0


def test_each_size_has_pages_of_its_own() -> None:
    kernel = FakeKernel(machine="x86_64", page_size=4096, huge_pages={2 << 20: 1, 1 << 30: 1})
    large, small = memfd(kernel, 1 << 30), memfd(kernel, 2 << 20)
    with kernel.mmap(large, 1 << 30, RW, SHARED) as one, kernel.mmap(small, 2 << 20, RW, SHARED) as other:
        one[(1 << 30) - 1] = other[0] = 1
        for fd, size in ((large, 1 << 30), (small, 2 << 20)):
            argument = bytearray(8)
            kernel.ioctl(fd, 0x5460, argument)
            assert int.from_bytes(argument, "little") == size


def test_a_size_that_is_named_with_no_pages_is_there_all_the_same() -> None:
    kernel = FakeKernel(machine="x86_64", page_size=4096, huge_pages={1 << 30: 0})
    with pytest.raises(OSError, match="Cannot allocate memory"):
        kernel.mmap(memfd(kernel, 1 << 30), 1 << 30, RW, SHARED)


@pytest.mark.parametrize(
    ("huge_pages", "said"),
    [
        (-1, "must not be negative"),
        ({2 << 20: -1}, "must not be negative"),
        ({4096: 1}, r"none of 4096 bytes, only of"),
    ],
)
def test_counts_and_sizes_that_cannot_be_are_refused(huge_pages: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FakeKernel(machine="x86_64", page_size=4096, huge_pages=huge_pages)  # type: ignore[arg-type]


@pytest.mark.parametrize("flags", [SHARED, PRIVATE])
def test_a_touch_too_many_between_two_calls_is_told_by_the_next(flags: int) -> None:
    kernel, size = FakeKernel(machine="x86_64", page_size=PAGE, huge_pages=1), SIZE
    fd = memfd(kernel, size, 2)
    mapping = kernel.mmap(fd, 2 * size, RW, flags | NORESERVE)
    mapping[0] = mapping[size] = 1
    with pytest.raises(UnmodelledCallError, match="SIGBUS"):
        kernel.mmap(fd, size, RW, flags)
    mapping.close()
    kernel.close(fd)
    with kernel.mmap(memfd(kernel, size), size, RW, flags) as other:
        assert other[0] == 0


def test_the_ready_made_backend_takes_them() -> None:
    backend = FakeBackend(machine="x86_64", page_size=PAGE, huge_pages=1)
    fd = memfd(backend, SIZE)  # type: ignore[arg-type]
    backend.add_seals(fd, uapi.F_SEAL_SHRINK)
    argument = uapi.udmabuf_create.pack(fd, 1, PAGE, PAGE)
    with backend.mmap(backend.ioctl(backend.open("/dev/udmabuf", 2), uapi.UDMABUF_CREATE, argument), PAGE, RW, SHARED):
        pass


def test_several_threads_are_promised_no_more_than_there_are() -> None:
    kernel, size = FakeKernel(machine="x86_64", page_size=PAGE, huge_pages=5), SIZE
    answers: list[int] = []

    def work() -> None:
        fd = memfd(kernel, size)
        try:
            kernel.mmap(fd, size, RW, SHARED)[0] = 1
            answers.append(0)
        except OSError as failure:
            answers.append(failure.errno or 0)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [0] * 5 + [errno.ENOMEM] * 3
