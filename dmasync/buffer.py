"""One dma-buf: its descriptor, its bytes, its windows and its fences."""

from __future__ import annotations

import contextlib
import errno
import mmap as _mmap
import os
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from dmasync import uapi
from dmasync.access import SyncType
from dmasync.acquire import Acquired, retried
from dmasync.backend import LINUX, Backend, Mapping
from dmasync.descriptor import Descriptor
from dmasync.interrupts import guarded
from dmasync.lane import MOVED
from dmasync.retry import DEFAULT_RETRY, OnError, RetryPolicy
from dmasync.source import file_number
from dmasync.sync_file import SyncFile, warn_unclosed
from dmasync.syncer import DmaSyncer
from dmasync.window import check_sync_type

if TYPE_CHECKING:
    from dmasync.providers import Provider


class DmaBuf:
    """Owns one file descriptor of one dma-buf. A context manager that closes it.

    Made by :meth:`DmaBufAllocator.alloc`, :meth:`from_fd` and :meth:`dup`. A window that is open when the buffer is
    closed keeps the descriptor until its END.
    """

    def __init__(self, descriptor: Descriptor, size: int, name: str, provider: Provider | None, key: object) -> None:
        """For this package; elsewhere see :meth:`from_fd`. *key* is the same object for all buffers of one dma-buf."""
        self._descriptor = descriptor
        self._lanes = descriptor.lanes
        self._size = size
        self._name = name
        self._provider = provider
        self._key = key
        self._mapping: Mapping | None = None
        self._mapped_writable: bool

    @classmethod
    def from_fd(cls, fd: int, *, backend: Backend | None = None) -> DmaBuf:
        """A DmaBuf that takes over *fd*, a dma-buf's descriptor that came from elsewhere.

        Raises TypeError or ValueError, and leaves *fd* to the caller, if it is no descriptor or not a dma-buf's; an
        OSError of the kernel as it is (EBADF for a number that is not open).
        """
        fd = file_number(fd, "fd")
        if backend is None:
            backend = LINUX
        try:
            # Every dma-buf refuses a null name (EFAULT: dma_buf_set_name), nothing else does, and nothing changes.
            backend.ioctl(fd, uapi.DMA_BUF_SET_NAME, 0)
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.EINVAL):
                raise ValueError(f"fd must be a dma-buf's descriptor, {fd} is another file's") from error
            if error.errno != errno.EFAULT:
                raise
        size = backend.lseek(fd, 0, os.SEEK_END)
        buffer = cls(Descriptor(backend, fd), size, "", None, object())
        buffer._descriptor.own()
        return buffer

    @property
    def size(self) -> int:
        """Bytes, a multiple of the page size."""
        return self._size

    @property
    def name(self) -> str:
        """The name that the buffer has in the kernel; "" if it came from elsewhere."""
        return self._name

    @property
    def provider(self) -> Provider | None:
        """The node that gave the buffer; None if it came from elsewhere."""
        return self._provider

    @property
    def closed(self) -> bool:
        return self._descriptor.closed

    def fileno(self) -> int:
        """The descriptor's number, which stays this object's. Raises ValueError after close()."""
        if self._descriptor.closed:
            raise ValueError("the DmaBuf was closed: allocate or import it again")
        return self._descriptor.fd

    def map(self, sync_type: SyncType = SyncType.READ_WRITE) -> Mapping:
        """A new mapping of the whole buffer, read-only for READ, which the caller closes; it outlives close().

        Bracket every access to it: see :meth:`cpu_access`, which does. Raises OSError as ``mmap(2)`` does.
        """
        check_sync_type(sync_type)
        fd = self.fileno()
        protection = _mmap.PROT_READ
        if SyncType.WRITE in sync_type:
            protection |= _mmap.PROT_WRITE
        mapping: Mapping = retried(self._descriptor.backend.mmap, fd, self._size, protection, _mmap.MAP_SHARED, 0)
        return mapping

    def cpu_access(
        self,
        sync_type: SyncType = SyncType.READ_WRITE,
        *,
        retry: RetryPolicy = DEFAULT_RETRY,
        on_error: OnError = "raise",
    ) -> CpuAccess:
        """A window and the buffer's bytes in one: ``with buffer.cpu_access(SyncType.WRITE) as view``.

        *view* is a memoryview of ``size`` bytes, read-only for READ, that raises ValueError once the window is
        closed. ``numpy.frombuffer(view, …)`` copies nothing; such an array cannot be taken back, do not use it later.
        """
        if self._descriptor.share is None:
            self.fileno()
        if retry is DEFAULT_RETRY and on_error == "raise":
            access = CpuAccess(self, sync_type)  # the short way
        else:
            access = CpuAccess(self, sync_type, retry=retry, on_error=on_error)
        access._buffer = self
        return access

    def export_sync_file(self, sync_type: SyncType) -> SyncFile:
        """The fences that an access of *sync_type* has to wait for, as a new sync file.

        ``DMA_BUF_IOCTL_EXPORT_SYNC_FILE``: READ waits for writers, WRITE for everybody. OSError of the kernel.
        """
        check_sync_type(sync_type)
        fd = self.fileno()
        backend = self._descriptor.backend
        argument = uapi.dma_buf_export_sync_file.pack(sync_type.value, -1)
        offset = uapi.dma_buf_export_sync_file.offsets["fd"]
        acquired = Acquired(backend)
        try:
            number = acquired.get_from(argument, offset, backend.ioctl, fd, uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE)
            descriptor = Descriptor(backend, number)
            sync_file = SyncFile._of(descriptor)
            acquired.give(descriptor)
            return sync_file
        finally:
            acquired.close()

    def import_sync_file(self, sync_file: SyncFile | int, sync_type: SyncType) -> None:
        """Add the fences of *sync_file* (borrowed) to the buffer: as a reader's for READ, else as a writer's.

        ``DMA_BUF_IOCTL_IMPORT_SYNC_FILE``; OSError of the kernel.
        """
        check_sync_type(sync_type)
        number = file_number(sync_file, "sync_file")
        argument = uapi.dma_buf_import_sync_file.pack(sync_type.value, number)
        retried(self._descriptor.backend.ioctl, self.fileno(), uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE, argument)

    def dup(self) -> DmaBuf:
        """Another DmaBuf, with a descriptor of its own, of the same dma-buf."""
        fd = self.fileno()
        backend = self._descriptor.backend
        acquired = Acquired(backend)
        try:
            descriptor = Descriptor(backend, acquired.get(backend.dup, fd))
            buffer = DmaBuf(descriptor, self._size, self._name, self._provider, self._key)
            acquired.give(descriptor)
            return buffer
        finally:
            acquired.close()

    def release(self) -> int:
        """The descriptor's number, which the caller has to close from now on; the DmaBuf is closed without it."""
        self.fileno()
        self._unmap()
        return self._descriptor.release()

    def close(self) -> None:
        """Close the descriptor, or leave that to the END of the last open window; harmless when called again."""
        try:
            self._unmap()
        finally:
            self._descriptor.close()

    def __enter__(self) -> DmaBuf:
        self.fileno()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        warn_unclosed(self, self._let_go)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a DmaBuf cannot be copied or pickled, both would close its descriptor: use dup()")

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"fd={self._descriptor.fd}"
        return f"<DmaBuf {self._name!r} {self._size} bytes {state}>"

    def _view(self, sync_type: SyncType) -> memoryview:
        """The bytes, from the one mapping that all windows share: one per window would cost page faults each time."""
        writable = sync_type._writes
        if self._mapping is None or (writable and not self._mapped_writable):
            self._map_once(writable)
        view = memoryview(self._mapping)  # type: ignore[arg-type]  # a Mapping is a buffer: Protocols cannot say so before 3.12
        return view if writable else view.toreadonly()

    def _map_once(self, writable: bool) -> None:
        try:
            mapping = self.map(SyncType.READ_WRITE)
            mapped_writable = True
        except OSError as error:
            # A descriptor that was exported for reading only (dma_buf_mmap: EACCES) can still be read.
            if writable or error.errno != errno.EACCES:
                raise
            mapping = self.map(SyncType.READ)
            mapped_writable = False
        self._mapping, self._mapped_writable = mapping, mapped_writable

    def _let_go(self) -> None:
        """What close() does, but the windows that are left can go on: they keep the descriptor."""
        try:
            self._unmap()
        finally:
            self._descriptor.abandon()

    def _unmap(self) -> None:
        mapping, self._mapping = self._mapping, None
        if mapping is not None:
            # A BufferError says that somebody still looks at the bytes (a window that is open, an array made from a
            # view): they are unmapped when the last of those is gone.
            with contextlib.suppress(BufferError):
                mapping.close()


class CpuAccess(DmaSyncer):
    """A window whose ``with`` block gets the bytes; see :meth:`DmaBuf.cpu_access`."""

    __slots__ = ("_buffer", "_view")
    _buffer: DmaBuf
    _view: memoryview

    def __enter__(self) -> memoryview:  # type: ignore[override]  # the whole point: the bytes, not the syncer
        lane = self._lane
        if self._state is not lane:
            self._refuse()
        if lane is MOVED:
            raise ValueError("the window was moved away: call cpu_access() again for another")
        try:
            # Mapped before START, so that nothing that can fail stands between START and the body.
            self._view = view = self._buffer._view(lane.sync_type)
            DmaSyncer.__enter__(self)
            return view
        except BaseException as failure:
            try:
                if self._state is not lane:  # a signal, just behind the START
                    self._end_slowly(None, failure)
            finally:
                self._release()
            raise

    @guarded
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            for _ in self._state:
                self._state = self._lane
                self._view.release()
                return
            if self._state is not self._lane:  # a StopIteration from below
                self._end_slowly(None, exc)
            self._release()  # the window was moved away, or START was refused and that only logged
        except BaseException as error:
            try:
                if self._state is not self._lane:
                    self._end_slowly(error, exc)
                elif not isinstance(error, BufferError):
                    raise
            finally:
                self._release()

    def move(self) -> DmaSyncer:
        """The window alone: the bytes are gone with this one, and it lets go of the buffer."""
        heir = super().move()
        self._buffer = None  # type: ignore[assignment]  # nobody asks before looking whether it was moved
        return heir

    def _release(self) -> None:
        # Never entered; or something made from the view still looks at the bytes, and keeps them.
        with contextlib.suppress(AttributeError, BufferError):
            self._view.release()
