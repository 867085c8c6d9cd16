"""One dma-buf: its descriptor, its bytes, its windows and its fences."""

from __future__ import annotations

import contextlib
import errno
import mmap as _mmap
import os
import sys
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from dmasync import uapi
from dmasync.access import SyncType
from dmasync.advice import raise_explained
from dmasync.arguments import check_sync_type, file_number
from dmasync.backend import LINUX, Backend, Mapping, retried
from dmasync.core import File, quicken
from dmasync.owners import check_free, forget_owner, note_owner
from dmasync.retry import DEFAULT_RETRY, OnError, RetryPolicy
from dmasync.sync_file import SyncFile, warn_unclosed
from dmasync.syncer import DmaSyncer

if TYPE_CHECKING:
    from dmasync.providers import Provider


_READ, _WRITE = SyncType.READ, SyncType.WRITE  # an enum looks its members up in Python before CPython 3.12

_HERE = os.path.dirname(__file__) + os.sep
_CLOSED = "the DmaBuf was closed: allocate or import it again"


class DmaBuf:
    """Owns one file descriptor of one dma-buf. A context manager that closes it.

    Made by :meth:`DmaBufAllocator.alloc`, :meth:`from_fd` and :meth:`dup`. A window that is open when the buffer is
    closed keeps the descriptor until its END.
    """

    _process: int
    _let_go = False
    """Whether close() or release() was called."""

    def __init__(self, file: File, size: int, name: str, provider: Provider | None, key: object) -> None:
        """For this package; elsewhere see :meth:`from_fd`. *key* is the same object for all buffers of one dma-buf."""
        self._file = file
        self._size = size
        self._name = name
        self._provider = provider
        self._key = key
        self._mapping: Mapping | None = None
        # What all windows' views are views of: one mapping per window would cost page faults each time.
        self._to_read: memoryview | None = None
        self._to_write: memoryview | None = None
        note_owner(self, file.fd, file.backend)

    @classmethod
    def from_fd(cls, fd: int, *, backend: Backend | None = None) -> DmaBuf:
        """A DmaBuf that takes over *fd*, a dma-buf's descriptor that came from elsewhere.

        Raises TypeError or ValueError, and leaves *fd* to the caller, if it is no descriptor, not a dma-buf's, or one
        that another DmaBuf closes; an OSError of the kernel as it is (EBADF for a number that is not open).
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
        check_free(fd, backend)
        size = backend.lseek(fd, 0, os.SEEK_END)
        return cls(File(fd, backend, True), size, "", None, object())

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
        return self._file.closed

    def fileno(self) -> int:
        """The descriptor's number, which stays this object's. Raises ValueError after close()."""
        if self._file.closed:
            raise ValueError(_CLOSED)
        return self._file.fd

    def map(self, sync_type: SyncType = SyncType.READ_WRITE) -> Mapping:
        """A new mapping of the whole buffer, read-only for READ, which the caller closes; it outlives close().

        Bracket every access to it: see :meth:`cpu_access`, which does. Raises OSError as ``mmap(2)`` does.
        """
        check_sync_type(sync_type)
        self.fileno()
        writing = bool(sync_type & _WRITE)
        try:
            return self._map(writing)
        except OSError as error:
            if error.errno == errno.EACCES:
                raise self._unlike_its_descriptor(writing, error) from error
            raise

    def cpu_access(
        self,
        sync_type: SyncType = SyncType.READ_WRITE,
        *,
        retry: RetryPolicy = DEFAULT_RETRY,
        on_error: OnError = "raise",
    ) -> CpuAccess:
        """A window and the buffer's bytes in one: ``with buffer.cpu_access(SyncType.WRITE) as view``.

        *view* is a memoryview of ``size`` bytes, read-only for READ, that raises ValueError once the window is
        closed. What is made from it without a copy cannot be taken back: a slice, a cast, ``Plane.view()`` and
        ``numpy.frombuffer(view, …)`` can be read after END, and after close(), and may then show stale bytes.

        Raises PermissionError for WRITE where the descriptor was exported without O_RDWR (DRM_RDWR).
        """
        # Mapped before START, so that nothing that can fail stands between START and the body.
        view = self._to_read if sync_type is _READ else self._to_write
        if view is None or self._file.closed:
            view = self._map_once(sync_type)
        if retry is DEFAULT_RETRY and on_error == "raise":
            access = CpuAccess(self, sync_type)  # the short way
        else:
            access = CpuAccess(self, sync_type, retry=retry, on_error=on_error)
        access._bytes = view
        return access

    def export_sync_file(self, sync_type: SyncType) -> SyncFile:
        """The fences that an access of *sync_type* has to wait for, as a new sync file.

        ``DMA_BUF_IOCTL_EXPORT_SYNC_FILE``: READ waits for writers, WRITE for everybody. OSError of the kernel.
        """
        check_sync_type(sync_type)
        fd = self.fileno()
        backend = self._file.backend
        argument = uapi.dma_buf_export_sync_file.pack(sync_type.value, -1)
        offset = uapi.dma_buf_export_sync_file.offsets["fd"]
        request = uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE
        try:
            return SyncFile._of(retried(File.opened, backend, offset, backend.ioctl, fd, request, argument))
        except OSError as error:
            raise_explained(error, "exporting a sync file")

    def import_sync_file(self, sync_file: SyncFile | int, sync_type: SyncType) -> None:
        """Add the fences of *sync_file* (borrowed) to the buffer: as a reader's for READ, else as a writer's.

        ``DMA_BUF_IOCTL_IMPORT_SYNC_FILE``; OSError of the kernel.
        """
        check_sync_type(sync_type)
        number = file_number(sync_file, "sync_file")
        argument = uapi.dma_buf_import_sync_file.pack(sync_type.value, number)
        retried(self._file.backend.ioctl, self.fileno(), uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE, argument)

    def dup(self) -> DmaBuf:
        """Another DmaBuf, with a descriptor of its own, of the same dma-buf."""
        fd = self.fileno()
        backend = self._file.backend
        try:
            file = retried(File.opened, backend, None, backend.dup, fd)
        except OSError as error:
            raise_explained(error, "duplicating the descriptor")
        return DmaBuf(file, self._size, self._name, self._provider, self._key)

    def release(self) -> int:
        """The descriptor's number, which the caller has to close from now on; the DmaBuf is closed without it."""
        self.fileno()
        self._let_go = True
        kept = self._unmap()
        number = self._file.release()
        forget_owner(self)  # last: until the File has let go it closes the number
        self._warn_of(kept)
        return number

    def close(self) -> None:
        """Close the descriptor, or leave that to the END of the last open window; harmless when called again.

        ResourceWarning where a slice, a cast or an array of a window's view is kept: the bytes stay mapped for it.
        """
        self._let_go = True
        kept = None
        try:
            kept = self._unmap()
        finally:
            self._file.close()
        self._warn_of(kept)

    def __enter__(self) -> DmaBuf:
        self.fileno()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Windows that are left can go on: they keep the File, which closes the number when the last of them goes.
        warn_unclosed(self, self._unmap)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a DmaBuf cannot be copied or pickled, both would close its descriptor: use dup(), or send fileno() to the "
            "other process (socket.send_fds), which takes it over with DmaBuf.from_fd()"
        )

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"fd={self._file.fd}"
        return f"<DmaBuf {self._name!r} {self._size} bytes {state}>"

    def _map(self, writing: bool) -> Mapping:
        protection = _mmap.PROT_READ | (_mmap.PROT_WRITE if writing else 0)
        file = self._file
        mapping: Mapping = retried(file.backend.mmap, file.fd, self._size, protection, _mmap.MAP_SHARED, 0)
        return mapping

    def _map_once(self, sync_type: SyncType) -> memoryview:
        """The memoryview that windows of *sync_type* give views of."""
        check_sync_type(sync_type)
        self.fileno()
        writing = bool(sync_type & _WRITE)
        view = self._to_write if writing else self._to_read
        if view is None:
            to_write = None
            try:
                mapping = self._map(True)
                to_write = memoryview(mapping)
            except OSError as error:
                if error.errno != errno.EACCES:
                    raise
                # A descriptor that was exported for reading only (dma_buf_mmap: EACCES) can still be read.
                if writing:
                    raise self._unlike_its_descriptor(writing, error) from error
                mapping = self.map(_READ)
            to_read = memoryview(mapping).toreadonly()
            if self._mapping is None:
                self._mapping, self._to_read, self._to_write = mapping, to_read, to_write
            view = self._to_write if writing else self._to_read
            if self._let_go or view is None:
                # Another thread closed the buffer meanwhile, and found nothing to unmap.
                self._unmap()
                raise ValueError(_CLOSED)
        assert view is not None  # noqa: S101 - for the type checker
        return view

    def _unlike_its_descriptor(self, writing: bool, error: OSError) -> OSError:
        """What to raise for a mapping that was refused with EACCES."""
        if writing:
            with contextlib.suppress(OSError):
                self._map(False).close()
                return OSError(
                    errno.EACCES,
                    f"fd {self._file.fd} cannot be mapped for writing: whoever exported the dma-buf left out O_RDWR "
                    "(DRM_RDWR); SyncType.READ works",
                )
        return OSError(
            errno.EACCES,
            f"fd {self._file.fd} cannot be mapped, not even for reading: if it was exported with O_WRONLY, let its "
            f"exporter say O_RDWR; the kernel says: {error.strerror}",
        )

    def _unmap(self) -> Mapping | None:
        """The mapping, if it stays since somebody still looks at the bytes; it goes with the last who does.

        That is a window that is open, or what was made from a window's view and outlives it: a slice, a cast, an array.
        """
        mapping, *views = self._mapping, self._to_read, self._to_write
        self._mapping = self._to_read = self._to_write = None
        try:
            for view in views:
                if view is not None:
                    view.release()
            if mapping is not None:
                mapping.close()
        except BufferError:
            return mapping
        return None

    def _warn_of(self, kept: Mapping | None) -> None:
        """Say that the closed buffer stays mapped, unless that is for a window that is open."""
        if kept is None or self._file.windows:
            return
        # Before CPython 3.13 a mapping has a duplicate of its descriptor: see LinuxBackend.mmap.
        descriptor = type(kept) is _mmap.mmap and sys.version_info < (3, 13)
        frame, level = sys._getframe(1), 2
        while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
            frame, level = frame.f_back, level + 1
        warnings.warn(
            f"{self!r} stays mapped for what was made from a window's view and is kept (a slice, a cast, a Plane's "
            f"view, an array): {self._size} bytes and {'1 descriptor' if descriptor else 'no descriptor'} until that "
            "is gone; it can be read outside of any window, and stale: keep a copy, bytes(view), instead",
            ResourceWarning,
            stacklevel=level,
        )


@quicken
class CpuAccess(DmaSyncer):
    """A window whose ``with`` block gets the bytes. Made by :meth:`DmaBuf.cpu_access` alone."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __enter__(self) -> memoryview: ...  # type: ignore[override]  # the whole point: the bytes, not the syncer

    def move(self) -> DmaSyncer:
        """The window alone: the bytes are gone with this one, and it lets go of the buffer."""
        heir = super().move()
        self._bytes = None
        return heir

    def _refuse(self, reason: str) -> None:
        if reason == "moved":
            raise ValueError("the window was moved away: call cpu_access() again for another")
        super()._refuse(reason)
