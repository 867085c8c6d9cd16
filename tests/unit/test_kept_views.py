"""What is made from a window's view and kept: it stays readable after END and close(), and close() says so."""

from __future__ import annotations

import errno
import mmap
import os
import sys
import threading
import warnings

import pytest

from dmasync import DmaBuf, DmaBufAllocator, LinuxBackend, Plane, SyncType, uapi
from dmasync.fakes import FakeBackend

READ, WRITE, READ_WRITE = SyncType.READ, SyncType.WRITE, SyncType.READ_WRITE


def array_of(view, buffer):
    return pytest.importorskip("numpy").frombuffer(view, "u1")


KEPT = {
    "slice": lambda view, buffer: view[:16],
    "cast": lambda view, buffer: view.cast("I"),
    "plane": lambda view, buffer: Plane(buffer, 16, 32).view(view),
    "array": array_of,
    "memoryview": lambda view, buffer: memoryview(view),
}


@pytest.mark.parametrize("make", KEPT.values(), ids=KEPT)
def test_close_says_how_much_is_kept_for_what_outlives_the_window(backend, buffer, make):
    with buffer.cpu_access(WRITE) as view:
        view[:] = b"x" * 4096
        kept = make(view, buffer)
    with pytest.raises(ValueError, match="released"):
        view[0]
    with pytest.warns(
        ResourceWarning, match=r"stays mapped .* \(a slice, a cast.*: 4096 bytes and no descriptor"
    ) as told:
        buffer.close()
    assert told[0].filename == __file__
    assert bytes(kept)[:1] == b"x"
    assert len(backend.kernel.mappings()) == 1
    del kept
    assert backend.kernel.mappings() == []


def test_release_and_the_end_of_a_with_block_say_it_too(backend, buffer):
    with pytest.warns(ResourceWarning, match="stays mapped") as told, buffer.dup() as first:
        with first.cpu_access(READ) as view:
            kept = [view[:1]]
    assert told[0].filename == __file__
    second = buffer.dup()
    with second.cpu_access(READ) as view:
        kept.append(view[:1])
    with pytest.warns(ResourceWarning, match="stays mapped") as told:
        backend.close(second.release())
    assert told[0].filename == __file__
    assert len(kept) == 2


@pytest.mark.parametrize("keep", [bytes, bytearray, lambda view: view.tolist(), lambda view: None])
def test_copies_keep_nothing(backend, buffer, keep):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with buffer.cpu_access(READ) as view:
            kept = keep(view)
        buffer.close()
    assert backend.kernel.mappings() == []
    del kept


def test_a_window_that_is_open_at_close_is_no_reason_to_warn(backend, buffer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with buffer.cpu_access(READ):
            buffer.close()
    assert backend.kernel.mappings() == []


def test_a_real_mapping_keeps_a_descriptor_before_python_3_13():
    class DmaBufsOfMemfds(LinuxBackend):
        @staticmethod
        def ioctl(fd, request, arg=0):
            if request == uapi.DMA_BUF_SET_NAME:
                raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
            return 0

    memfd = os.memfd_create("frame")
    os.ftruncate(memfd, mmap.PAGESIZE)
    buffer = DmaBuf.from_fd(memfd, backend=DmaBufsOfMemfds())
    with buffer.cpu_access(READ) as view:
        kept = view[:1]
    held = "1 descriptor" if sys.version_info < (3, 13) else "no descriptor"
    with pytest.warns(ResourceWarning, match=f"{mmap.PAGESIZE} bytes and {held}"):
        buffer.close()
    del kept


# A mapping is made while another thread closes the buffer


class ClosedMeanwhile(FakeBackend):
    """Closes a buffer, in another thread, as soon as it has been mapped."""

    buffer: DmaBuf | None = None
    how = "close"

    def mmap(self, *arguments):
        mapping = super().mmap(*arguments)
        if self.buffer is not None:
            closing, self.buffer = self.buffer, None
            thread = threading.Thread(target=getattr(closing, self.how))
            thread.start()
            thread.join()
        return mapping


@pytest.mark.parametrize("access", [READ, WRITE, READ_WRITE])
@pytest.mark.parametrize("how", ["close", "release"])
def test_a_buffer_that_is_closed_while_it_is_mapped_keeps_no_mapping(access, how):
    backend = ClosedMeanwhile()
    with DmaBufAllocator(backend=backend) as allocator:
        buffer = allocator.alloc("frame", 4096)
    backend.buffer, backend.how = buffer, how
    with pytest.raises(ValueError, match="the DmaBuf was closed"):
        buffer.cpu_access(access)
    assert backend.kernel.mappings() == []


def test_two_threads_that_map_at_once_share_one_mapping():
    class MappedMeanwhile(FakeBackend):
        buffer: DmaBuf | None = None

        def mmap(self, *arguments):
            mapping = super().mmap(*arguments)
            if self.buffer is not None:
                again, self.buffer = self.buffer, None
                thread = threading.Thread(target=again.cpu_access, args=(READ,))
                thread.start()
                thread.join()
            return mapping

    backend = MappedMeanwhile()
    with DmaBufAllocator(backend=backend) as allocator, allocator.alloc("frame", 4096) as buffer:
        backend.buffer = buffer
        first, second = buffer.cpu_access(READ), buffer.cpu_access(READ)
        assert len(backend.kernel.mappings()) == 1
        with first, second:
            pass
    assert backend.kernel.mappings() == []


# A descriptor that cannot be mapped as it was asked for


def exported(backend, flags):
    heap = backend.open("/dev/dma_heap/system", os.O_RDWR)
    argument = uapi.dma_heap_allocation_data.pack(4096, 0, flags | os.O_CLOEXEC, 0)
    backend.ioctl(heap, uapi.DMA_HEAP_IOCTL_ALLOC, argument)
    backend.close(heap)
    return DmaBuf.from_fd(uapi.dma_heap_allocation_data.get(argument, "fd"), backend=backend)


@pytest.mark.parametrize("access", [WRITE, READ_WRITE])
@pytest.mark.parametrize("ask", [DmaBuf.cpu_access, DmaBuf.map])
def test_writing_to_what_was_exported_for_reading_says_what_is_missing(backend, access, ask):
    with exported(backend, os.O_RDONLY) as buffer:
        with pytest.raises(
            PermissionError, match=r"exported the dma-buf left out O_RDWR \(DRM_RDWR\); SyncType.READ"
        ) as e:
            ask(buffer, access)
        assert e.value.errno == errno.EACCES
        with buffer.cpu_access(READ) as view:
            assert view.readonly
        with buffer.map(READ):
            pass
    assert backend.kernel.mappings() == []


@pytest.mark.parametrize("access", [READ, WRITE, READ_WRITE])
@pytest.mark.parametrize("ask", [DmaBuf.cpu_access, DmaBuf.map])
def test_what_was_exported_for_writing_only_cannot_be_mapped(backend, access, ask):
    with (
        exported(backend, os.O_WRONLY) as buffer,
        pytest.raises(PermissionError, match="not even for reading: if it was exported with O_WRONLY"),
    ):
        ask(buffer, access)


def test_another_refusal_of_mmap_comes_as_it_is(backend, buffer):
    from dmasync.fakes import faults

    backend.inject(faults.error(errno.ENOMEM, on="mmap"))
    with pytest.raises(OSError, match="Cannot allocate memory"):
        buffer.cpu_access(WRITE)
