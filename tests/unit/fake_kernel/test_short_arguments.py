"""``short_arguments="EFAULT"``: nothing is behind an ioctl's argument, as where memory ends at an unmapped page."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from dmasync import uapi
from dmasync.fakes import FakeBackend, FakeKernel

PAGE = os.sysconf("SC_PAGE_SIZE")
SYSTEM, UDMABUF = "/dev/dma_heap/system", "/dev/udmabuf"


def new_kernel() -> FakeKernel:
    return FakeKernel(short_arguments="EFAULT")


def buffer_of(kernel: FakeKernel) -> int:
    argument = uapi.dma_heap_allocation_data.pack(PAGE, 0, os.O_RDWR, 0)
    kernel.ioctl(kernel.open(SYSTEM, os.O_RDWR), uapi.DMA_HEAP_IOCTL_ALLOC, argument)
    return uapi.dma_heap_allocation_data.get(argument, "fd")


def sync_file_of(kernel: FakeKernel) -> int:
    argument = uapi.dma_buf_export_sync_file.pack(uapi.DMA_BUF_SYNC_RW, -1)
    kernel.ioctl(buffer_of(kernel), uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE, argument)
    return uapi.dma_buf_export_sync_file.get(argument, "fd")


def sealed(kernel: FakeKernel) -> int:
    memfd = kernel.memfd_create("pages", uapi.MFD_ALLOW_SEALING)
    kernel.ftruncate(memfd, 4 * PAGE)
    kernel.add_seals(memfd, uapi.F_SEAL_SHRINK)
    return memfd


CALLS: dict[str, tuple[int, Callable[[FakeKernel], int], Callable[[FakeKernel], bytes]]] = {
    "SYNC": (uapi.DMA_BUF_IOCTL_SYNC, buffer_of, lambda _: bytes(uapi.dma_buf_sync.pack(uapi.DMA_BUF_SYNC_READ))),
    "EXPORT": (
        uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE,
        buffer_of,
        lambda _: bytes(uapi.dma_buf_export_sync_file.pack(uapi.DMA_BUF_SYNC_READ, -1)),
    ),
    "IMPORT": (
        uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE,
        buffer_of,
        lambda kernel: bytes(uapi.dma_buf_import_sync_file.pack(uapi.DMA_BUF_SYNC_READ, sync_file_of(kernel))),
    ),
    "MERGE": (
        uapi.SYNC_IOC_MERGE,
        sync_file_of,
        lambda kernel: bytes(uapi.sync_merge_data.pack(b"both", sync_file_of(kernel), 0, 0, 0)),
    ),
    "FILE_INFO": (uapi.SYNC_IOC_FILE_INFO, sync_file_of, lambda _: bytes(uapi.sync_file_info.size)),
    "SET_DEADLINE": (uapi.SYNC_IOC_SET_DEADLINE, sync_file_of, lambda _: bytes(uapi.sync_set_deadline.pack(1, 0))),
    "ALLOC": (
        uapi.DMA_HEAP_IOCTL_ALLOC,
        lambda kernel: kernel.open(SYSTEM, os.O_RDWR),
        lambda _: bytes(uapi.dma_heap_allocation_data.pack(PAGE, 0, os.O_RDWR, 0)),
    ),
    "CREATE": (
        uapi.UDMABUF_CREATE,
        lambda kernel: kernel.open(UDMABUF, os.O_RDWR),
        lambda kernel: bytes(uapi.udmabuf_create.pack(sealed(kernel), 0, 0, PAGE)),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_structure_of_which_a_byte_is_missing_is_efault_and_a_whole_one_is_taken(name: str) -> None:
    kernel = new_kernel()
    request, file, argument = CALLS[name]
    fd, whole = file(kernel), argument(kernel)
    before = dict(kernel.open_fds())
    for length in range(len(whole)):
        with pytest.raises(OSError, match="Bad address") as caught:
            kernel.ioctl(fd, request, bytearray(whole[:length]))
        assert caught.value.errno == errno.EFAULT
    assert kernel.open_fds() == before
    kernel.ioctl(fd, request, bytearray(whole))


def test_the_items_of_a_list_are_missed_too() -> None:
    kernel = new_kernel()
    item = b"".join(number.to_bytes(size, "little") for number, size in ((sealed(kernel), 8), (0, 8), (PAGE, 8)))
    whole = bytes(uapi.udmabuf_create_list.pack(0, 2)) + 2 * item
    device = kernel.open(UDMABUF, os.O_RDWR)
    for length in (8, 9, 31, 32, 55):
        with pytest.raises(OSError, match="Bad address"):
            kernel.ioctl(device, uapi.UDMABUF_CREATE_LIST, bytearray(whole[:length]))
    assert kernel.lseek(kernel.ioctl(device, uapi.UDMABUF_CREATE_LIST, bytearray(whole)), 0, os.SEEK_END) == 2 * PAGE


def test_a_name_must_end_before_its_argument_does() -> None:
    kernel = new_kernel()
    buffer = buffer_of(kernel)
    with pytest.raises(OSError, match="Bad address"):
        kernel.ioctl(buffer, uapi.DMA_BUF_SET_NAME, bytearray(b"frame"))
    kernel.ioctl(buffer, uapi.DMA_BUF_SET_NAME, bytearray(b"frame\0"))
    assert kernel.fdinfo(buffer)["name"] == "frame"


@pytest.mark.parametrize("length", [PAGE - 1, PAGE, PAGE + 1])
def test_a_long_argument_is_copied_whole(length: int) -> None:
    kernel = new_kernel()
    argument = uapi.dma_heap_allocation_data.pack(PAGE, 0, os.O_RDWR, 0).ljust(length, b"x")
    kernel.ioctl(kernel.open(SYSTEM, os.O_RDWR), uapi.DMA_HEAP_IOCTL_ALLOC, argument)
    assert kernel.open_fds()[uapi.dma_heap_allocation_data.get(argument, "fd")] == "dmabuf"
    assert argument[uapi.dma_heap_allocation_data.size :] == b"x" * (length - uapi.dma_heap_allocation_data.size)


def test_other_arguments_of_fcntl_are_as_short() -> None:
    kernel = new_kernel()
    buffer = buffer_of(kernel)
    for short in (b"\1\0\0\0", memoryview(bytearray(4)), ctypes.c_uint32(1)):
        with pytest.raises(OSError, match="Bad address"):
            kernel.ioctl(buffer, uapi.DMA_BUF_IOCTL_SYNC, short)
    assert kernel.ioctl(buffer, uapi.DMA_BUF_IOCTL_SYNC, bytes(uapi.dma_buf_sync.pack(1))) == b"\1" + bytes(7)
    number = ctypes.c_int(-1)
    kernel.ioctl(buffer, 2, number)  # FIGETBSZ
    assert number.value == PAGE


def test_the_backend_takes_it_and_windows_open_as_ever() -> None:
    from dmasync import DmaBufAllocator, SyncType

    backend: Any = FakeBackend(short_arguments="EFAULT")
    with DmaBufAllocator(backend=backend) as allocator, allocator.alloc("frame", PAGE) as buffer:
        with buffer.cpu_access(SyncType.WRITE) as view:
            view[:2] = b"ok"
    backend.journal.assert_balanced()


def test_another_word_is_refused_with_the_two_that_there_are() -> None:
    with pytest.raises(ValueError, match="short_arguments='EINVAL' must be one of 'zeros', 'EFAULT'"):
        FakeKernel(short_arguments="EINVAL")
