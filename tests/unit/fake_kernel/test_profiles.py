"""Where 6.1 answers otherwise than 6.12; read in the sources of Debian's linux-source-6.1."""

from __future__ import annotations

import errno
import os

import pytest
from page_size import PAGE
from paged import fake_kernel

from dmasync import uapi
from fakes.kernel import FakeKernel


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
