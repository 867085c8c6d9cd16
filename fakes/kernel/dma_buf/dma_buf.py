"""The dma-buf core (``drivers/dma-buf/dma-buf.c``): a buffer as a file."""

from __future__ import annotations

import errno
import os
import select
import struct

from dmasync import uapi
from dmasync.access import SyncType
from dmasync.fakes.kernel.dma_buf.dma_fence import unwrapped
from dmasync.fakes.kernel.dma_buf.dma_resv import Reservation, Usage, usage_to_wait_for
from dmasync.fakes.kernel.dma_buf.sync_file import SyncFile
from dmasync.fakes.kernel.errors import os_error
from dmasync.fakes.kernel.files.file import File
from dmasync.fakes.kernel.files.mmap import MAP_TYPE
from dmasync.fakes.kernel.parts import Kernel
from dmasync.fakes.kernel.usermem import Argument, copy_from, copy_string, copy_to
from dmasync.fakes.kernel.waiting import WaitQueue, Waker
from dmasync.fakes.memory.coherent import BufferMemory, moves_bytes
from dmasync.fakes.memory.pages import FakeMapping
from dmasync.fakes.uninterrupted import completed

_SYNC = uapi.DMA_BUF_IOCTL_SYNC
_RW = uapi.DMA_BUF_SYNC_RW
_flags_of = struct.Struct("=Q").unpack_from

# flags of struct dma_buf_sync -> (is it END, the access, whom START waits for); any other value is EINVAL.
_STEPS = {
    (step | access.value,): (
        bool(step),
        access,
        usage_to_wait_for(bool(access.value & uapi.DMA_BUF_SYNC_WRITE)),
    )
    for step in (uapi.DMA_BUF_SYNC_START, uapi.DMA_BUF_SYNC_END)
    for access in (SyncType.READ, SyncType.WRITE, SyncType.READ_WRITE)
}


class DmaBuf(File):
    """A dma-buf. Exporters derive from it.

    ``ino`` is the inode's number: the same for every descriptor of this buffer, another one for each other
    buffer of this kernel. ``size`` is in bytes, ``name`` is None until somebody gives one.
    """

    kind = "dmabuf"
    can_map = True

    def __init__(self, kernel: Kernel, flags: int, exporter_name: str, memory: BufferMemory) -> None:
        super().__init__(kernel, flags & (os.O_ACCMODE | os.O_NONBLOCK))
        self.ino = kernel.next_inode()
        self.exporter_name = exporter_name
        self.memory = memory
        self._moves_bytes = moves_bytes(memory)
        memory.inode = self.ino
        self.size = memory.size
        self.name: bytes | None = None
        self.reservation = Reservation()
        self._queue = WaitQueue()
        self._polled = {select.POLLOUT: False, select.POLLIN: False}  # dma_buf_poll_cb_t.active

    # Exporter

    def begin_cpu_access(self, access: SyncType) -> None:
        """The exporter's part of START, but for the bytes: see :meth:`ioctl`."""

    def end_cpu_access(self, access: SyncType) -> None:
        """The exporter's part of END, but for the bytes: see :meth:`ioctl`."""

    def release(self) -> None:
        self.memory.release()
        super().release()

    def may_execute(self) -> bool:
        return self.kernel.profile.dma_bufs_execute

    def may_map(self, length: int, flags: int, offset: int) -> None:
        """What the exporter has against a mapping that lies within the buffer."""

    # The file's operations

    def ioctl(self, fd: int, request: int, arg: Argument) -> int:
        # The requests of dma-buf.c and those of the VFS do not meet: look here first, and first for SYNC.
        if request != _SYNC:
            handler = _HANDLERS.get(request)
            return super().ioctl(fd, request, arg) if handler is None else handler(self, arg)
        if arg.__class__ is bytearray and len(arg) >= 8:
            step = _STEPS.get(_flags_of(arg))
        else:
            step = _STEPS.get(_flags_of(copy_from(arg, uapi.dma_buf_sync.size)))
        if step is None:
            raise os_error(errno.EINVAL)
        is_end, access, usage = step
        if is_end:
            self.end_cpu_access(access)
        else:
            self.begin_cpu_access(access)
            if self.reservation.entries:  # most have none, and this is asked at every START
                self.reservation.wait(usage)
        if not self._moves_bytes:
            return 0
        # Last, although the kernel invalidates before it waits: a START that was interrupted while it waited
        # has opened no window, and what the device writes until its fence signals must be seen.
        move = self.memory.end if is_end else self.memory.start
        # In C from the end of the move to the return: no signal handler's exception can hide that it succeeded.
        for _ in completed(move, ((access,),)):
            return 0
        raise AssertionError  # pragma: no cover - map of one call yields it

    def _set_name(self, arg: Argument) -> int:
        self.name = copy_string(arg, uapi.DMA_BUF_NAME_LEN)
        return 0

    def _export_sync_file(self, arg: Argument) -> int:
        data = copy_from(arg, uapi.dma_buf_export_sync_file.size)
        flags = uapi.dma_buf_export_sync_file.get(data, "flags")
        if flags & ~_RW or not flags & _RW:
            raise os_error(errno.EINVAL)
        descriptors = self.kernel.descriptors
        fd = descriptors.reserve()
        fence = self.reservation.singleton(usage_to_wait_for(bool(flags & uapi.DMA_BUF_SYNC_WRITE)))
        sync_file = SyncFile(self.kernel, fence or self.kernel.stub_fence)
        copy_to(arg, bytes(uapi.dma_buf_export_sync_file.pack(flags, fd)))
        descriptors.install(fd, sync_file, close_on_exec=True)
        return 0

    def _import_sync_file(self, arg: Argument) -> int:
        data = copy_from(arg, uapi.dma_buf_import_sync_file.size)
        flags = uapi.dma_buf_import_sync_file.get(data, "flags")
        if flags & ~_RW or not flags & _RW:
            raise os_error(errno.EINVAL)
        sync_file = self.kernel.descriptors.find(uapi.dma_buf_import_sync_file.get(data, "fd"))
        if not isinstance(sync_file, SyncFile):
            raise os_error(errno.EINVAL)
        usage = Usage.WRITE if flags & uapi.DMA_BUF_SYNC_WRITE else Usage.READ
        with self.kernel.lock:
            self.reservation.add_all(tuple(unwrapped(sync_file.fence)), usage)
        return 0

    def seek(self, offset: int, whence: int) -> int:
        if whence == os.SEEK_END:
            base = self.size
        elif whence == os.SEEK_SET:
            base = 0
        else:
            raise os_error(errno.EINVAL)
        if offset:
            raise os_error(errno.EINVAL)
        return base

    def poll(self, events: int, waker: Waker | None) -> int:
        """POLLIN once writers are done, POLLOUT once readers are too; nothing for any other event."""
        if waker is not None:
            self._queue.add(waker)
        ready = 0
        for event, usage in ((select.POLLOUT, Usage.READ), (select.POLLIN, Usage.WRITE)):
            if events & event and not self._await_fences(event, usage):
                ready |= event
        return ready

    def stop_polling(self, waker: Waker) -> None:
        self._queue.remove(waker)

    def _await_fences(self, event: int, usage: Usage) -> bool:
        """Whether a fence has yet to signal; if so it calls back, and the file stays until it does."""
        with self.kernel.lock:
            if self._polled[event]:
                return True

            def signaled() -> None:
                self._polled[event] = False
                self._queue.wake_all()
                self.put()

            for fence in self.reservation.pending(usage):
                self._polled[event] = True
                self.get()
                if fence.add_callback(signaled):
                    return True
                self._polled[event] = False
                self.put()
        self._queue.wake_all()
        return False

    def map(self, length: int, prot: int, flags: int, offset: int) -> FakeMapping:
        page = self.kernel.page_size
        if offset // page + -(-length // page) > self.size // page:
            raise os_error(errno.EINVAL)
        self.may_map(length, flags, offset)
        # Its pages are there already, and those of a private mapping are copied no sooner than they are written.
        return self.memory.map_cpu(length, prot, flags & MAP_TYPE, offset)


_HANDLERS = {
    uapi.DMA_BUF_SET_NAME_A: DmaBuf._set_name,
    uapi.DMA_BUF_SET_NAME_B: DmaBuf._set_name,
    uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE: DmaBuf._export_sync_file,
    uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE: DmaBuf._import_sync_file,
}
