"""What the fake has beside the kernel's answers: its own limits, its gaps and its view from outside."""

from __future__ import annotations

import ctypes
import errno
import gc
import mmap
import os
import resource
import threading
from typing import Any

import pytest

from dmasync import uapi
from dmasync.fakes.kernel import BadDescriptorError, FakeKernel, UnmodelledCallError
from dmasync.fakes.memory import BufferMemory, host
from tests.support.page_size import PAGE
from tests.support.paged import fake_kernel

FIOQSIZE = 0x5460
FIRST_FD = 1 << 30
START, END = uapi.dma_buf_sync.pack(3), uapi.dma_buf_sync.pack(7)


def heap_buffer(kernel: FakeKernel, size: int = PAGE, heap: str = "system") -> int:
    device = kernel.open(f"/dev/dma_heap/{heap}", os.O_RDWR)
    argument = uapi.dma_heap_allocation_data.pack(size, 0, os.O_RDWR | os.O_CLOEXEC, 0)
    try:
        kernel.ioctl(device, uapi.DMA_HEAP_IOCTL_ALLOC, argument)
    finally:
        kernel.close(device)
    return uapi.dma_heap_allocation_data.get(argument, "fd")


def sealed_memfd(kernel: FakeKernel, size: int = PAGE) -> int:
    memfd = kernel.memfd_create("m", uapi.MFD_ALLOW_SEALING)
    kernel.ftruncate(memfd, size)
    kernel.add_seals(memfd, uapi.F_SEAL_SHRINK)
    return memfd


def udmabuf(kernel: FakeKernel, size: int = PAGE) -> int:
    memfd = sealed_memfd(kernel, size)
    device = kernel.open("/dev/udmabuf", os.O_RDWR)
    fd = kernel.ioctl(device, uapi.UDMABUF_CREATE, uapi.udmabuf_create.pack(memfd, 1, 0, size))
    kernel.close(device)
    kernel.close(memfd)
    return int(fd)


def code_of(call: Any, *args: Any) -> int:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is the answer
        call(*args)
    return caught.value.errno or 0


# Descriptors


def test_descriptors_are_far_above_the_processs_own() -> None:
    kernel = fake_kernel()
    fds = [kernel.memfd_create("m", 0) for _ in range(3)]
    assert fds == [FIRST_FD, FIRST_FD + 1, FIRST_FD + 2]
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_a_number_that_was_closed_is_not_given_out_again() -> None:
    kernel = fake_kernel()
    numbers = set()
    for _ in range(100):
        fd = kernel.memfd_create("m", 0)
        kernel.close(fd)
        numbers.add(fd)
    assert len(numbers) == 100


def test_numbers_start_again_only_at_the_end_of_their_range_and_skip_those_in_use() -> None:
    kernel = fake_kernel()
    kept = kernel.memfd_create("kept", 0)
    kernel.descriptors._next = (1 << 31) - 1
    assert kernel.memfd_create("last", 0) == (1 << 31) - 1
    assert kernel.memfd_create("first again", 0) == kept + 1
    kernel.descriptors._next = (1 << 31) - 1
    assert kernel.memfd_create("the last is in use", 0) == kept + 2


@pytest.mark.parametrize("fd", [0, 1, 2, 1000, FIRST_FD - 1, FIRST_FD + 5])
def test_a_descriptor_that_is_not_the_fakes_is_ebadf(fd: int) -> None:
    kernel = fake_kernel()
    for call, args in (
        (kernel.close, ()),
        (kernel.dup, ()),
        (kernel.ioctl, (uapi.DMA_BUF_IOCTL_SYNC, START)),
        (kernel.ftruncate, (0,)),
        (kernel.add_seals, (0,)),
        (kernel.get_seals, ()),
        (kernel.mmap, (PAGE, 3, 1)),
        (kernel.lseek, (0, 0)),
        (kernel.buffer_of, ()),
    ):
        assert code_of(call, fd, *args) == errno.EBADF


@pytest.mark.parametrize("call", ["close", "dup", "ioctl", "poll"])
def test_a_negative_descriptor_is_ebadf_and_a_value_error(call: str) -> None:
    kernel = fake_kernel()
    args = {"ioctl": (0, START), "poll": (1, 0)}.get(call, ())
    for error in (OSError, ValueError, BadDescriptorError):
        with pytest.raises(error) as caught:
            getattr(kernel, call)(-1, *args)
        assert caught.value.errno == errno.EBADF


def test_a_descriptor_limit_is_emfile() -> None:
    kernel = fake_kernel(descriptor_limit=2)
    kernel.dup(kernel.memfd_create("m", 0))
    assert code_of(kernel.memfd_create, "m", 0) == errno.EMFILE


def test_an_object_with_a_fileno_is_a_descriptor() -> None:
    kernel = fake_kernel()

    class Owner:
        def fileno(self) -> int:
            return fd

    fd = heap_buffer(kernel)
    assert kernel.ioctl(Owner(), uapi.DMA_BUF_IOCTL_SYNC, START) == 0

    class Number(int):
        pass

    assert kernel.ioctl(Number(fd), uapi.DMA_BUF_IOCTL_SYNC, END) == 0


# Arguments of ioctl


@pytest.mark.parametrize("request_number", [uapi.DMA_BUF_IOCTL_SYNC, uapi.DMA_BUF_IOCTL_SYNC | 1 << 32])
def test_a_request_has_32_bits(request_number: int) -> None:
    kernel = fake_kernel()
    assert kernel.ioctl(heap_buffer(kernel), request_number, START) == 0


def test_bytes_are_copied_and_the_copy_is_returned() -> None:
    kernel = fake_kernel()
    fd = heap_buffer(kernel)
    assert kernel.ioctl(fd, uapi.DMA_BUF_IOCTL_SYNC, bytes(START)) == bytes(START)
    answer = kernel.ioctl(fd, uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE, bytes(uapi.dma_buf_export_sync_file.pack(1, -1)))
    assert kernel.open_fds()[uapi.dma_buf_export_sync_file.get(answer, "fd")] == "sync_file"
    assert kernel.ioctl(fd, uapi.DMA_BUF_SET_NAME, "text") == b"text"
    assert kernel.fdinfo(fd)["name"] == "text"


def test_any_writable_buffer_will_do() -> None:
    kernel = fake_kernel()
    fd = heap_buffer(kernel)
    for argument in (memoryview(bytearray(START)), ctypes.c_uint64(3)):
        assert kernel.ioctl(fd, uapi.DMA_BUF_IOCTL_SYNC, argument) == 0
    number = ctypes.c_int(-1)
    kernel.ioctl(fd, 2, number)
    assert number.value == PAGE


def test_a_buffer_that_is_too_short_is_read_as_if_zeros_followed() -> None:
    kernel = fake_kernel()
    fd = heap_buffer(kernel)
    assert kernel.ioctl(fd, uapi.DMA_BUF_IOCTL_SYNC, bytearray(b"\3")) == 0
    assert code_of(kernel.ioctl, fd, uapi.DMA_BUF_IOCTL_SYNC, bytearray()) == errno.EINVAL


def test_what_the_kernel_writes_beyond_a_short_buffer_is_lost() -> None:
    kernel = fake_kernel()
    fd = heap_buffer(kernel)
    for length in (4, 5):
        argument = bytearray(b"\1\0\0\0\xff"[:length])
        assert kernel.ioctl(fd, uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE, argument) == 0
        assert len(argument) == length
    assert list(kernel.open_fds().values()).count("sync_file") == 2


def test_an_address_that_does_not_fit_a_pointer_wraps_as_in_c() -> None:
    kernel = fake_kernel()
    fd = heap_buffer(kernel)
    text = ctypes.create_string_buffer(b"name")
    kernel.ioctl(fd, uapi.DMA_BUF_SET_NAME, ctypes.addressof(text) - (1 << 64))
    assert kernel.fdinfo(fd)["name"] == "name"
    for address in (-1, -4096, 1 << 63):
        assert code_of(kernel.ioctl, fd, uapi.DMA_BUF_SET_NAME, address) == errno.EFAULT


# Gaps


def test_what_linux_knows_and_the_fake_does_not_is_no_oserror() -> None:
    kernel = fake_kernel()
    memfd = kernel.memfd_create("m", 0)
    kernel.ftruncate(memfd, PAGE)
    assert not issubclass(UnmodelledCallError, OSError)
    for call, args in (
        (fake_kernel(machine="x86_64", page_size=4096).memfd_create, ("huge", uapi.MFD_HUGETLB | 30 << 26)),
        (kernel.ioctl, (memfd, 1, bytearray(4))),
        (kernel.ioctl, (memfd, 0x40305828, bytearray(48))),
        (kernel.ioctl, (memfd, 0xC0045877, bytearray(4))),
        (kernel.ioctl, (memfd, 0x80111500, bytearray(32))),
        (kernel.ioctl, (memfd, 0x40086602, bytearray(8))),
        (kernel.ioctl, (memfd, 0x40049409, memfd)),
        (kernel.mmap, (memfd, PAGE, 3, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)),
        (kernel.mmap, (memfd, PAGE, 3, mmap.MAP_SHARED | 0x10)),
    ):
        with pytest.raises(UnmodelledCallError):
            call(*args)


def test_a_nul_in_a_name_is_a_value_error_as_everywhere_in_python() -> None:
    with pytest.raises(ValueError, match="null byte"):
        fake_kernel().memfd_create("a\0b", 0)


@pytest.mark.parametrize("options", [{"profile": "5.10"}, {"page_size": 1024}, {"page_size": PAGE + 1}])
def test_a_kernel_that_cannot_be_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        fake_kernel(**options)


def test_a_larger_page_size_rounds_and_aligns() -> None:
    kernel = fake_kernel(page_size=4 * PAGE)
    fd = heap_buffer(kernel, 1)
    assert kernel.lseek(fd, 0, os.SEEK_END) == 4 * PAGE
    assert code_of(kernel.mmap, fd, PAGE, 3, 1, PAGE) == errno.EINVAL
    memfd, device = sealed_memfd(kernel, 8 * PAGE), kernel.open("/dev/udmabuf", os.O_RDWR)
    argument = uapi.udmabuf_create.pack(memfd, 1, PAGE, 4 * PAGE)
    assert code_of(kernel.ioctl, device, uapi.UDMABUF_CREATE, argument) == errno.EINVAL


def test_a_hole_up_to_the_end_of_a_file_that_ends_within_a_larger_page() -> None:
    page = 4 * PAGE
    kernel = fake_kernel(page_size=page)
    memfd = sealed_memfd(kernel, page + PAGE + 5)
    buffer = kernel.ioctl(
        kernel.open("/dev/udmabuf", os.O_RDWR), uapi.UDMABUF_CREATE, uapi.udmabuf_create.pack(memfd, 1, 0, page)
    )
    with kernel.mmap(memfd, page + PAGE + 5, 3, 1) as mapping, kernel.mmap(buffer, page, 3, 1) as view:
        mapping[page - 1] = mapping[page + PAGE] = 7
        mapping.madvise(mmap.MADV_REMOVE)
        assert (mapping[page - 1], mapping[page + PAGE], view[page - 1]) == (0, 0, 7)


def test_a_larger_page_is_data_as_a_whole() -> None:
    page = 4 * PAGE
    kernel = fake_kernel(page_size=page)
    memfd = kernel.memfd_create("m", 0)
    kernel.ftruncate(memfd, 4 * page)
    with kernel.mmap(memfd, 4 * page, 3, 1) as mapping:
        mapping[page] = mapping[page + 2 * PAGE] = mapping[2 * page + PAGE] = 1  # two parts of a page, one of the next
    assert kernel.lseek(memfd, 0, os.SEEK_HOLE) == 0
    assert kernel.lseek(memfd, 0, os.SEEK_DATA) == page
    assert kernel.lseek(memfd, page + 1, os.SEEK_DATA) == page + 1
    assert kernel.lseek(memfd, 3 * page - 1, os.SEEK_DATA) == 3 * page - 1
    assert kernel.lseek(memfd, page + 3 * PAGE, os.SEEK_HOLE) == 3 * page
    assert kernel.lseek(memfd, 3 * page + 5, os.SEEK_HOLE) == 3 * page + 5
    assert code_of(kernel.lseek, memfd, 3 * page, os.SEEK_DATA) == errno.ENXIO
    taken = bytearray(8)
    kernel.ioctl(memfd, FIOQSIZE, taken)
    assert int.from_bytes(taken, "little") == 2 * page


# Heaps that no virtual machine of ours has


@pytest.mark.parametrize("heap", ["linux,cma", "reserved", "default_cma_region", "default-pool"])
def test_cma_heaps_name_themselves_and_map_shared_only(heap: str) -> None:
    kernel = fake_kernel()
    fd = heap_buffer(kernel, heap=heap)
    assert kernel.fdinfo(fd)["exp_name"] == heap
    kernel.ioctl(fd, uapi.DMA_BUF_IOCTL_SYNC, END)
    assert code_of(kernel.mmap, fd, PAGE, 1, mmap.MAP_PRIVATE) == errno.EINVAL
    with kernel.mmap(fd, PAGE, 3, mmap.MAP_SHARED) as mapping:
        assert mapping[:] == bytes(PAGE)


def test_heaps_run_out_of_memory_and_get_it_back() -> None:
    kernel = fake_kernel(memory_mb=1)
    first = heap_buffer(kernel, 1 << 19)
    second = heap_buffer(kernel, 1 << 19, heap="reserved")
    assert code_of(heap_buffer, kernel, 1) == errno.ENOMEM
    assert code_of(heap_buffer, kernel, 1 << 62) == errno.ENOMEM
    kernel.close(first)
    heap_buffer(kernel, 1 << 19)
    kernel.close(second)
    limited = fake_kernel(memory_mb=1, descriptor_limit=1)
    for _ in range(3):
        assert code_of(heap_buffer, limited, 1 << 20) == errno.EMFILE


def udmabuf_of(kernel: FakeKernel, memfd: int, offset: int, size: int) -> int:
    device = kernel.open("/dev/udmabuf", os.O_RDWR)
    try:
        return int(kernel.ioctl(device, uapi.UDMABUF_CREATE, uapi.udmabuf_create.pack(memfd, 0, offset, size)))
    finally:
        kernel.close(device)


def test_udmabufs_run_out_of_the_same_memory_as_heaps() -> None:
    kernel = fake_kernel(memory_mb=1)
    heap = heap_buffer(kernel, 1 << 19)
    memfd = sealed_memfd(kernel, 1 << 20)
    assert code_of(udmabuf_of, kernel, memfd, 0, 1 << 20) == errno.ENOMEM
    half = udmabuf_of(kernel, memfd, 0, 1 << 19)
    assert code_of(heap_buffer, kernel, PAGE) == errno.ENOMEM
    kernel.close(heap)
    udmabuf_of(kernel, memfd, 1 << 19, 1 << 19)
    kernel.close(half)
    assert code_of(heap_buffer, kernel, PAGE) == errno.ENOMEM  # the pages are the memfd's, and it is open


def test_pages_that_several_udmabufs_pin_are_there_once() -> None:
    kernel = fake_kernel(memory_mb=1)
    memfd = sealed_memfd(kernel, 1 << 20)
    parts = [(0, 1 << 18), (1 << 19, 1 << 18), (1 << 17, 1 << 19), (0, 1 << 20), (0, 1 << 20), (PAGE, PAGE)]
    made = [udmabuf_of(kernel, memfd, offset, size) for offset, size in parts]
    kernel.close(memfd)
    for fd in made:
        assert code_of(heap_buffer, kernel, PAGE) == errno.ENOMEM
        kernel.close(fd)
    heap_buffer(kernel, 1 << 20)


# The view from outside


def test_a_buffer_is_one_object_for_all_its_descriptors() -> None:
    kernel = fake_kernel()
    one, other = heap_buffer(kernel), heap_buffer(kernel)
    copy = kernel.dup(one)
    assert kernel.buffer_of(one) is kernel.buffer_of(copy)
    assert kernel.buffer_of(one).ino == kernel.fdinfo(copy)["ino"]
    assert kernel.buffer_of(one).ino != kernel.buffer_of(other).ino
    assert code_of(kernel.buffer_of, kernel.memfd_create("m", 0)) == errno.EINVAL


def test_what_is_open_and_mapped_is_listed_until_it_is_closed() -> None:
    kernel = fake_kernel()
    fd = udmabuf(kernel)
    assert kernel.open_fds() == {fd: "dmabuf"}
    mapping = kernel.mmap(fd, PAGE, 3, 1)
    kernel.close(fd)
    assert (kernel.open_fds(), kernel.mappings()) == ({}, [mapping])
    mapping.close()
    assert kernel.mappings() == []


def test_a_mapping_that_is_dropped_is_unmapped() -> None:
    kernel = fake_kernel()
    fd = udmabuf(kernel)
    buffer = kernel.buffer_of(fd)
    view = memoryview(kernel.mmap(fd, PAGE, 3, 1))
    kernel.close(fd)
    assert buffer.references == 1
    del view
    gc.collect()
    assert buffer.references == 0


def test_no_real_descriptor_is_left_behind() -> None:
    def own() -> int:
        return len(os.listdir("/proc/self/fd"))

    gc.collect()
    before = own()
    kernel = fake_kernel()
    fds = [udmabuf(kernel), heap_buffer(kernel), kernel.memfd_create("m", 0)]
    mapping = kernel.mmap(fds[0], PAGE, 3, 1)
    kernel.ioctl(fds[1], uapi.DMA_BUF_SET_NAME, ctypes.addressof(ctypes.create_string_buffer(b"x")))
    mapping.close()
    for fd in fds:
        kernel.close(fd)
    assert own() == before


def test_both_sides_of_a_coherent_buffer_are_the_same_bytes() -> None:
    kernel = fake_kernel()
    fd = udmabuf(kernel, 2 * PAGE)
    memory = kernel.buffer_of(fd).memory
    with kernel.mmap(fd, PAGE, 3, 1, PAGE) as mapping:
        memory.device_view()[PAGE] = 5
        assert mapping[0] == 5
        mapping[1] = 6
        assert memory.device_view()[PAGE + 1] == memory.cpu_view()[PAGE + 1] == 6
    assert memory.size == len(memory.cpu_view()) == 2 * PAGE


def test_another_memory_is_told_of_every_start_and_end() -> None:
    told = []

    class Watched(BufferMemory):
        def start(self, access: Any) -> None:
            told.append(("start", access.name))

        def end(self, access: Any) -> None:
            told.append(("end", access.name))

    kernel = fake_kernel(memory=Watched)
    for fd in (udmabuf(kernel), heap_buffer(kernel)):
        for flags in (1, 6, 3):
            kernel.ioctl(fd, uapi.DMA_BUF_IOCTL_SYNC, uapi.dma_buf_sync.pack(flags))
    assert told == [("start", "READ"), ("end", "WRITE"), ("start", "READ_WRITE")] * 2


def test_an_incoherent_kernel_has_two_sides() -> None:
    kernel = fake_kernel(coherent=False)
    fd = udmabuf(kernel)
    memory = kernel.buffer_of(fd).memory
    memory.device_view()[0] = 77
    kernel.ioctl(fd, uapi.DMA_BUF_IOCTL_SYNC, START)
    with kernel.mmap(fd, PAGE, 3, 1) as mapping:
        assert mapping[0] == 77


def test_threads_share_a_kernel() -> None:
    kernel = fake_kernel()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(100):
                fd = udmabuf(kernel)
                copy = kernel.dup(fd)
                mapping = kernel.mmap(copy, PAGE, 3, 1)
                kernel.ioctl(fd, uapi.DMA_BUF_IOCTL_SYNC, START)
                kernel.ioctl(copy, uapi.DMA_BUF_IOCTL_SYNC, END)
                kernel.close(fd)
                mapping.close()
                kernel.close(copy)
        except BaseException as failure:  # the thread's own exception would go unseen
            failures.append(failure)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (kernel.open_fds(), kernel.mappings()) == ({}, [])


def test_an_interrupted_close_has_closed() -> None:
    kernel = fake_kernel()
    fd, remove = heap_buffer(kernel), kernel.descriptors.remove
    interrupts = [KeyboardInterrupt(), KeyboardInterrupt()]

    def before(number: int) -> Any:
        if interrupts:
            raise interrupts.pop()
        return remove(number)

    kernel.descriptors.remove = before  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        kernel.close(fd)
    assert kernel.open_fds() == {fd: "dmabuf"}  # two in one call are more than it withstands
    interrupts.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        kernel.close(fd)
    assert kernel.open_fds() == {}

    def after(number: int) -> Any:
        remove(number)
        raise KeyboardInterrupt

    fd = heap_buffer(kernel)
    kernel.descriptors.remove = after  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        kernel.close(fd)
    assert kernel.open_fds() == {}


def test_a_request_that_takes_no_answer_gets_a_buffer_that_nobody_is_told_of() -> None:
    kernel = fake_kernel()
    heap = kernel.open("/dev/dma_heap/system", os.O_RDWR)
    argument = uapi.dma_heap_allocation_data.pack(PAGE, 0, os.O_RDWR, 0)
    before = bytes(argument)
    assert kernel.ioctl(heap, uapi.DMA_HEAP_IOCTL_ALLOC & ~(2 << 30), argument) == 0
    assert argument == before
    assert list(kernel.open_fds().values()) == ["heap device", "dmabuf"]


@pytest.fixture
def no_real_descriptor_left() -> Any:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_process_without_descriptors_can_have_no_fake_pages_either(no_real_descriptor_left: None) -> None:
    kernel = fake_kernel()
    assert code_of(kernel.memfd_create, "m", 0) == errno.EMFILE
    assert code_of(heap_buffer, kernel) == errno.EMFILE
    assert kernel.open_fds() == {}


def test_pages_that_the_host_does_not_give_are_an_error() -> None:
    with mmap.mmap(-1, PAGE) as place:
        assert code_of(host.map_over, host.address_of(place), PAGE, 3, mmap.MAP_SHARED, -1, 0) == errno.EBADF
    host.populate(-1, 0, PAGE)


def test_an_answer_into_nothing_is_lost() -> None:
    kernel = fake_kernel()
    assert kernel.ioctl(heap_buffer(kernel), 2, bytearray()) == 0


def test_a_list_whose_length_wraps_around_in_linux_is_not_modelled() -> None:
    kernel = fake_kernel(list_limit=-1)
    argument = uapi.udmabuf_create_list.pack(1, (1 << 32) // 24 + 1)
    with pytest.raises(UnmodelledCallError, match="items"):
        kernel.ioctl(kernel.open("/dev/udmabuf", os.O_RDWR), uapi.UDMABUF_CREATE_LIST, argument)


@pytest.mark.parametrize(("prot", "pages"), [(mmap.PROT_EXEC, 0), (mmap.PROT_EXEC | mmap.PROT_READ, 1)])
def test_pages_of_a_mapping_that_can_only_be_executed_are_not_brought(prot: int, pages: int) -> None:
    kernel = fake_kernel()
    memfd = kernel.memfd_create("m", 0)
    kernel.ftruncate(memfd, PAGE)
    mapping = kernel.mmap(memfd, PAGE, prot, mmap.MAP_SHARED | 0x8000)
    told = bytearray(8)
    kernel.ioctl(memfd, FIOQSIZE, told)
    assert int.from_bytes(told, "little") == pages * PAGE
    mapping.close()
