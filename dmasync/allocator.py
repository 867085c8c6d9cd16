"""Allocates dma-bufs from whatever this system has. After libcamera's ``DmaBufAllocator``."""

from __future__ import annotations

import errno
import mmap
import operator
import os
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, NoReturn

from dmasync import uapi
from dmasync.advice import about_nodes, about_shortage
from dmasync.arguments import check_backend, listed
from dmasync.backend import LINUX, Backend, retried
from dmasync.buffer import DmaBuf
from dmasync.core import File
from dmasync.errors import AllocationError, NoProviderError
from dmasync.frame import FrameBuffer, Plane, close_all
from dmasync.owners import note_owner
from dmasync.providers import DEFAULT_PROVIDERS, DmaBufAllocatorFlag, Provider
from dmasync.sync_file import warn_unclosed
from dmasync.udmabuf import size_limit

_LARGEST = 2**63 - 1
"""Bytes that a file can have: loff_t."""


class DmaBufAllocator:
    """Opens the first provider that works and allocates from it. A context manager that closes it.

    *flags* says which kinds of providers may serve; they are tried in the order of *providers*. A node that is there
    but may not be opened does not stop the search. Raises NoProviderError where none can be opened: the message names
    each node tried, what the kernel said and what to do.

    *page_size*, in bytes, is what sizes are rounded up to before a udmabuf is made (its driver refuses anything else);
    it is this system's own unless the backend stands for another system.
    """

    _process: int
    _let_go = False
    """Whether close() was called."""

    def __init__(
        self,
        flags: DmaBufAllocatorFlag = DmaBufAllocatorFlag.CMA_HEAP,
        *,
        providers: Iterable[Provider] = DEFAULT_PROVIDERS,
        backend: Backend | None = None,
        page_size: int = mmap.PAGESIZE,
    ) -> None:
        if not isinstance(flags, DmaBufAllocatorFlag):
            raise TypeError(f"flags must be DmaBufAllocatorFlag members, not {flags!r}")
        if not flags.value:
            raise ValueError("flags must name at least one kind of provider, not an empty DmaBufAllocatorFlag")
        rows = listed(providers, "providers", "an iterable of Provider objects")
        for row in rows:
            if not isinstance(row, Provider):
                raise TypeError(f"providers must hold Provider objects, not {row!r}")
        if not isinstance(page_size, int) or page_size < 1 or page_size & (page_size - 1):
            raise ValueError(f"page_size must be a power of two in bytes, not {page_size!r}")
        self._page_size = page_size
        backend = LINUX if backend is None else backend
        check_backend(backend)
        self._provider, self._file = _first_that_opens(backend, rows, flags)
        note_owner(self, self._file.fd, backend)

    @property
    def provider(self) -> Provider:
        """The node that serves."""
        return self._provider

    @property
    def closed(self) -> bool:
        return self._file.closed

    def fileno(self) -> int:
        """The node's descriptor, which stays this object's. Raises ValueError after close()."""
        if self._file.closed:
            raise ValueError("the DmaBufAllocator was closed: make a new one")
        return self._file.fd

    def alloc(self, name: str, size: int) -> DmaBuf:
        """A new dma-buf of at least *size* bytes (rounded up to whole pages), with *name* in the kernel.

        *name* has at most 31 bytes in UTF-8. Raises TypeError or ValueError for what no kernel would take, before
        anything is allocated; AllocationError, with the kernel's errno, for what this one refuses. Nothing is left
        of an allocation that failed. One that a signal interrupts is tried again.
        """
        label = _checked_name(name)
        size = _checked_size(size, "size", self._page_size)
        self.fileno()
        backend = self._file.backend
        make = self._udmabuf if self._provider.flag is DmaBufAllocatorFlag.UDMABUF else self._heap_buffer
        file = make(name, size)
        try:
            self._do("naming it", backend.ioctl, file.fd, uapi.DMA_BUF_SET_NAME, bytearray(label + b"\0"))
            actual = self._do("asking for its size", backend.lseek, file.fd, 0, os.SEEK_END)
            return DmaBuf(file, actual, name, self._provider, object())
        except BaseException:
            file.close()
            raise

    def export_buffers(self, count: int, plane_sizes: Sequence[int]) -> list[FrameBuffer]:
        """*count* frames, each one dma-buf with a plane of each of *plane_sizes* bytes, one behind the other.

        All or nothing: when one allocation fails those before it are closed. Raises as alloc() does. The buffers are
        named frame-0, frame-1, … as libcamera's ``exportBuffers`` names them.
        """
        count = _integer(count, "count")
        if count < 0:
            raise ValueError(f"count must not be negative, it is {count}")
        sizes = [
            _checked_size(size, f"plane_sizes[{i}]", self._page_size)
            for i, size in enumerate(listed(plane_sizes, "plane_sizes", "a sequence of numbers of bytes"))
        ]
        if not sizes:
            raise ValueError("plane_sizes must name at least one plane")
        total = _checked_size(sum(sizes), "the sum of plane_sizes", self._page_size)
        buffers: list[DmaBuf] = []
        try:
            for number in range(count):
                buffers.append(self.alloc(f"frame-{number}", total))
            return [FrameBuffer(_planes(buffer, sizes)) for buffer in buffers]
        except BaseException:
            close_all(buffers)
            raise

    def close(self) -> None:
        """Close the node; buffers stay as they are. Harmless when called again."""
        self._let_go = True
        self._file.close()

    def __enter__(self) -> DmaBufAllocator:
        self.fileno()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        warn_unclosed(self, self.close)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a DmaBufAllocator cannot be copied or pickled, both would close its descriptor")

    def __repr__(self) -> str:
        return f"<DmaBufAllocator {self._provider.path}{' closed' if self.closed else ''}>"

    def _heap_buffer(self, name: str, size: int) -> File:
        argument = uapi.dma_heap_allocation_data.pack(size, 0, os.O_RDWR | os.O_CLOEXEC, 0)
        offset = uapi.dma_heap_allocation_data.offsets["fd"]
        heap, request = self._file, uapi.DMA_HEAP_IOCTL_ALLOC
        doing = f"allocating {size} bytes for {name!r}"
        return self._open(doing, offset, heap.ioctl, heap.fd, request, argument)

    def _udmabuf(self, name: str, size: int) -> File:
        """A udmabuf of a memfd of its own, which it keeps alive: the memfd's descriptor is closed at once."""
        device, backend = self._file, self._file.backend
        size = -(-size // self._page_size) * self._page_size
        flags = uapi.MFD_ALLOW_SEALING | uapi.MFD_CLOEXEC
        memfd = self._open(f"making a memfd for {name!r}", None, backend.memfd_create, name, flags)
        try:
            self._do(f"giving the memfd of {name!r} its {size} bytes", backend.ftruncate, memfd.fd, size)
            # The driver pins the pages: they must not go away, and must stay writable (check_memfd_seals).
            self._do(f"sealing the memfd of {name!r}", backend.add_seals, memfd.fd, uapi.F_SEAL_SHRINK)
            argument = uapi.udmabuf_create.pack(memfd.fd, uapi.UDMABUF_FLAGS_CLOEXEC, 0, size)
            doing = f"making a udmabuf of {size} bytes for {name!r}"
            try:
                return self._open(doing, None, device.ioctl, device.fd, uapi.UDMABUF_CREATE, argument)
            except AllocationError as error:
                limit = size_limit(device.ioctl, device.fd, size) if error.errno == errno.EINVAL else None
                if limit is None:
                    raise
                raise AllocationError(
                    errno.EINVAL,
                    f"{self._provider.path}: {doing} failed: the driver's size_limit_mb is {limit >> 20} MiB; "
                    "raise it in /sys/module/udmabuf/parameters/size_limit_mb, or with the kernel argument "
                    "udmabuf.size_limit_mb=",
                ) from error.__cause__
        finally:
            memfd.close()

    def _open(self, what: str, offset: int | None, call: Callable[..., Any], *arguments: Any) -> File:
        """The File of the descriptor that *call* makes, as File.opened() has it; refusals as _do() has them."""
        file: File = self._do(what, File.opened, self._file.backend, offset, call, *arguments)
        return file

    def _do(self, what: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """``call(*arguments)``; what the kernel refuses becomes an AllocationError that says *what* was being done."""
        try:
            return retried(call, *arguments)
        except OSError as error:
            code = error.errno or errno.EIO
            more = about_shortage(error, self._provider.flag)
            raise AllocationError(
                code, f"{self._provider.path}: {what} failed: {os.strerror(code)}{more and ': ' + more}"
            ) from error


def _first_that_opens(backend: Backend, rows: Sequence[Provider], flags: DmaBufAllocatorFlag) -> tuple[Provider, File]:
    refusals: list[tuple[Provider, OSError]] = []
    for row in rows:
        if row.flag & flags:
            try:
                opened = retried(File.opened, backend, None, backend.open, row.path, os.O_RDWR | os.O_CLOEXEC)
                return row, opened
            except OSError as error:
                refusals.append((row, error))
    if not refusals:
        raise NoProviderError(errno.ENOENT, f"providers hold no node for {flags}: pass one, or other flags")
    tried = tuple((row.path, error.errno or errno.EIO) for row, error in refusals)
    codes = [code for _, code in tried]
    refused = [code for code in codes if code in (errno.EACCES, errno.EPERM)]
    others = [code for code in codes if code != errno.ENOENT]
    said = ", ".join(f"{path}: {os.strerror(code)}" for path, code in tried)
    raise NoProviderError(
        (refused or others or codes)[0],
        f"no node that gives dma-bufs could be opened ({said}): {about_nodes(backend, refusals)}",
        tried,
    )


def _planes(buffer: DmaBuf, sizes: Sequence[int]) -> list[Plane]:
    planes, offset = [], 0
    for size in sizes:
        planes.append(Plane(buffer, offset, size))
        offset += size
    return planes


def _integer(value: object, argument: str) -> int:
    if isinstance(value, bool):
        raise TypeError(f"{argument} must be an integer, not {value!r}")
    try:
        return operator.index(value)  # type: ignore[arg-type]  # numpy's integers are welcome
    except TypeError:
        raise TypeError(f"{argument} must be an integer, not {value!r}") from None


def _checked_size(value: object, argument: str, page_size: int) -> int:
    size = _integer(value, argument)
    if size < 1:
        raise ValueError(f"{argument} must be at least 1 byte, it is {size}")
    if size > _LARGEST - page_size:
        raise ValueError(f"{argument} must be below 2**63 bytes, the most a file can have, it is {size}")
    return size


def _checked_name(name: object) -> bytes:
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {name!r}")
    try:
        label = name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"name must be text that UTF-8 can hold, not {name!r}") from None
    if b"\0" in label:
        raise ValueError(f"name must not hold a NUL, the kernel's strings end there: {name!r}")
    if len(label) >= uapi.DMA_BUF_NAME_LEN:
        raise ValueError(
            f"name must have at most {uapi.DMA_BUF_NAME_LEN - 1} bytes in UTF-8, {name!r} has {len(label)}"
        )
    return label
