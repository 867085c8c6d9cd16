"""Where 6.1 answers otherwise than 6.12; read in the sources of Debian's linux-source-6.1."""

from __future__ import annotations

import errno
import os

import pytest

from dmasync import uapi
from dmasync.fakes.kernel import FakeKernel
from tests.support.page_size import PAGE
from tests.support.paged import fake_kernel

HUGE = 2 << 20
FIOQSIZE = 0x5460
CLOSED = 99_999


@pytest.fixture(params=["6.1", "6.12"])
def kernel(request: pytest.FixtureRequest) -> FakeKernel:
    return fake_kernel(profile=request.param)


def answer(call: object, *args: object) -> str:
    try:
        call(*args)
    except OSError as failure:
        return errno.errorcode[failure.errno or 0]
    return "fine"


def expect(kernel: FakeKernel, old: str, new: str) -> str:
    return old if kernel.profile.name == "6.1" else new


@pytest.mark.parametrize("flags", [uapi.MFD_EXEC, uapi.MFD_NOEXEC_SEAL])
def test_memfds_know_execution_since_6_3(kernel: FakeKernel, flags: int) -> None:
    assert answer(kernel.memfd_create, "m", flags) == expect(kernel, "EINVAL", "fine")


def test_the_exec_seal_came_in_6_3(kernel: FakeKernel) -> None:
    memfd = kernel.memfd_create("m", uapi.MFD_ALLOW_SEALING)
    assert answer(kernel.add_seals, memfd, uapi.F_SEAL_EXEC) == expect(kernel, "EINVAL", "fine")


def test_deadlines_came_in_6_4(kernel: FakeKernel) -> None:
    argument = uapi.dma_heap_allocation_data.pack(1, 0, os.O_RDWR, 0)
    kernel.ioctl(kernel.open("/dev/dma_heap/system", os.O_RDWR), uapi.DMA_HEAP_IOCTL_ALLOC, argument)
    export = uapi.dma_buf_export_sync_file.pack(1, -1)
    kernel.ioctl(uapi.dma_heap_allocation_data.get(argument, "fd"), uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE, export)
    sync_file = uapi.dma_buf_export_sync_file.get(export, "fd")
    deadline = uapi.sync_set_deadline.pack(0, 0)
    assert answer(kernel.ioctl, sync_file, uapi.SYNC_IOC_SET_DEADLINE, deadline) == expect(kernel, "ENOTTY", "fine")


@pytest.mark.parametrize(
    ("items", "size", "old", "new"),
    [
        ([(0, PAGE), (0, 0)], PAGE, "fine", "EINVAL"),
        ([(0, 2 * PAGE)], PAGE + 1, "fine", "EINVAL"),
        ([(0, 2 * PAGE)], PAGE, "EINVAL", "EINVAL"),
        ([(PAGE, PAGE)], PAGE + 1, "fine", "EINVAL"),
        ([(1 << 63, PAGE)], PAGE, "EFBIG", "EINVAL"),
        ([((1 << 63) - PAGE, PAGE)], PAGE, "EINVAL", "EINVAL"),
    ],
)
def test_udmabuf_pins_folios_since_6_12(
    kernel: FakeKernel, items: list[tuple[int, int]], size: int, old: str, new: str
) -> None:
    memfd, device = kernel.memfd_create("m", uapi.MFD_ALLOW_SEALING), kernel.open("/dev/udmabuf", os.O_RDWR)
    kernel.ftruncate(memfd, size)
    kernel.add_seals(memfd, uapi.F_SEAL_SHRINK)
    argument = uapi.udmabuf_create_list.pack(1, len(items))
    for offset, length in items:
        argument += uapi.udmabuf_create_item.pack(memfd, 0, offset, length)
    assert answer(kernel.ioctl, device, uapi.UDMABUF_CREATE_LIST, argument) == expect(kernel, old, new)


def create(kernel: FakeKernel, *items: tuple[int, int, int]) -> str:
    """The answer to a list of (memfd, offset, size)."""
    argument = uapi.udmabuf_create_list.pack(1, len(items))
    for memfd, offset, size in items:
        argument += uapi.udmabuf_create_item.pack(memfd, 0, offset, size)
    return answer(kernel.ioctl, kernel.open("/dev/udmabuf", os.O_RDWR), uapi.UDMABUF_CREATE_LIST, argument)


def sealed(kernel: FakeKernel, size: int, flags: int = 0) -> int:
    memfd = kernel.memfd_create("m", uapi.MFD_ALLOW_SEALING | flags)
    kernel.ftruncate(memfd, size)
    kernel.add_seals(memfd, uapi.F_SEAL_SHRINK)
    return memfd


def bytes_in_pages(kernel: FakeKernel, memfd: int) -> int:
    told = bytearray(8)
    kernel.ioctl(memfd, FIOQSIZE, told)
    return int.from_bytes(told, "little")


@pytest.mark.parametrize(
    ("offset", "size", "old", "new"),
    [(0, PAGE, "EINVAL", "ENOMEM"), (0, 0, "fine", "EINVAL"), (1 << 63, PAGE, "EINVAL", "EINVAL")],
)
def test_huge_pages_that_are_not_there_were_looked_for_only(
    kernel: FakeKernel, offset: int, size: int, old: str, new: str
) -> None:
    page, huge = sealed(kernel, PAGE), sealed(kernel, HUGE, uapi.MFD_HUGETLB)
    assert create(kernel, (page, 0, PAGE), (huge, offset, size)) == expect(kernel, old, new)
    assert bytes_in_pages(kernel, huge) == 0


def test_pages_were_looked_up_one_by_one_up_to_the_first_that_is_not_there(kernel: FakeKernel) -> None:
    memfd = sealed(kernel, 2 * PAGE)
    assert create(kernel, (memfd, PAGE, 2 * PAGE)) == "EINVAL"
    assert bytes_in_pages(kernel, memfd) == (PAGE if kernel.profile.name == "6.1" else 0)


@pytest.mark.parametrize(
    ("size", "old", "new"),
    [(2 << 30, "EBADFD", "EBADFD"), ((2 << 30) + PAGE, "ENOMEM", "EBADFD"), (1 << 40, "ENOMEM", "ENOMEM")],
)
def test_the_table_of_pages_must_be_allocated_before_a_memfd_is_looked_at(
    kernel: FakeKernel, size: int, old: str, new: str
) -> None:
    scale = PAGE // 4096
    kernel.size_limit_mb = (1 << 21) * scale
    assert create(kernel, (CLOSED, 0, size * scale)) == expect(kernel, old, new)
