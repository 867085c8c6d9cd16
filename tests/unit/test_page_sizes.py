"""The allocator and the fake with larger pages than this host's: 16 KiB and 64 KiB where the host's are 4 KiB."""

from __future__ import annotations

import errno
import mmap
import re

import pytest

from dmasync import AllocationError, DmaBufAllocator, DmaBufAllocatorFlag
from dmasync.fakes import FakeBackend
from tests.support.nested import pytest_of_its_own

SUITES = ("tests/unit/test_allocator.py", "tests/unit/fake_kernel", "tests/conformance")
LEFT_OUT = (
    "tests/conformance/test_recorded.py",  # answers of a kernel whose pages were 4 KiB
    "tests/unit/fake_kernel/test_interruption_storm.py",  # long, and of signals, not of pages
)
AT_LEAST = 1690
SHORT = ("tests/unit/test_allocator.py", "tests/conformance/test_udmabuf.py", "tests/conformance/test_heap.py")
SHORT_AT_LEAST = 560
OF_MACHINES = ("tests/conformance/test_memfd.py", "tests/conformance/test_files.py")
OF_MACHINES_AT_LEAST = 480
SIZES = pytest.mark.parametrize("size", [4 * mmap.PAGESIZE, 16 * mmap.PAGESIZE])


@pytest.mark.parametrize(
    ("size", "suites", "at_least"),
    [
        pytest.param(4 * mmap.PAGESIZE, SUITES, AT_LEAST, marks=pytest.mark.nightly),
        pytest.param(16 * mmap.PAGESIZE, SUITES, AT_LEAST, marks=pytest.mark.nightly),
        (16 * mmap.PAGESIZE, SHORT, SHORT_AT_LEAST),
        (mmap.PAGESIZE, OF_MACHINES, OF_MACHINES_AT_LEAST),
    ],
    ids=["4-all", "16-all", "16", "1"],
)
def test_the_allocators_tests_and_the_fakes_hold_on_an_arm64_and_with_larger_pages(
    size: int, suites: tuple[str, ...], at_least: int
) -> None:
    left_out = [f"--ignore={path}" for path in LEFT_OUT]
    run = pytest_of_its_own(f"--dmasync-page-size={size}", "--dmasync-machine=aarch64", *left_out, *suites)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    last = run.stdout.splitlines()[-1]
    passed = re.match(r"(\d+) passed in ", last)
    assert passed, last
    assert int(passed[1]) >= at_least


@SIZES
def test_an_assumed_page_size_makes_no_udmabuf_where_pages_are_larger(size: int) -> None:
    backend = FakeBackend(page_size=size)
    with DmaBufAllocator(DmaBufAllocatorFlag.UDMABUF, backend=backend, page_size=mmap.PAGESIZE) as allocator:
        with pytest.raises(AllocationError) as caught:
            allocator.alloc("frame", mmap.PAGESIZE + 1)
    assert caught.value.errno == errno.EINVAL
    with DmaBufAllocator(DmaBufAllocatorFlag.UDMABUF, backend=backend, page_size=size) as allocator:
        with allocator.alloc("frame", mmap.PAGESIZE + 1) as buffer:
            assert buffer.size == size
            buffer.map().close()
