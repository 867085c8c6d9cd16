"""Sync files: fences as descriptors (``drivers/dma-buf/sync_file.c``)."""

from __future__ import annotations

import errno
import os
import select

from dmasync import uapi
from dmasync.fakes.kernel.dma_buf.dma_fence import Fence, merged, names, unwrapped
from dmasync.fakes.kernel.errors import os_error
from dmasync.fakes.kernel.files.file import File
from dmasync.fakes.kernel.parts import Kernel
from dmasync.fakes.kernel.usermem import Argument, copy_from, copy_to, copy_words_to
from dmasync.fakes.kernel.waiting import WaitQueue, Waker

_NAME_LENGTH = 32


class SyncFile(File):
    """One fence, or several merged into one."""

    kind = "sync_file"

    def __init__(self, kernel: Kernel, fence: Fence, user_name: bytes = b"") -> None:
        super().__init__(kernel, os.O_RDONLY)
        self.fence = fence
        self._user_name = user_name
        self._queue = WaitQueue()
        self._poll_enabled = False

    def write_name(self, old: bytes) -> bytes:
        """``sync_file_get_name()`` into the field *old*: the merger's name for it, else one made from the fence.

        What stands behind the name's NUL stays.
        """
        if self._user_name:
            name = self._user_name
        else:
            fence = self.fence
            driver, timeline = names(fence, detached=self.kernel.profile.detached_names)
            made = f"{driver}-{timeline}{fence.context}-{fence.seqno}"
            name = made.encode()[: _NAME_LENGTH - 1]
        name += b"\0"
        return name + old[len(name) :]

    def release(self) -> None:
        self.fence.remove_callback(self._queue.wake_all)

    def poll(self, events: int, waker: Waker | None) -> int:
        if waker is not None:
            self._queue.add(waker)
        if not self._poll_enabled:
            self._poll_enabled = True
            self.fence.add_callback(self._queue.wake_all)
        return select.POLLIN if self.fence.is_signaled() else 0

    def stop_polling(self, waker: Waker) -> None:
        self._queue.remove(waker)

    def may_execute(self) -> bool:
        return self.kernel.profile.anonymous_files_execute

    def driver_ioctl(self, request: int, arg: Argument) -> int:
        handler = _HANDLERS.get(request)
        if handler is None or request not in self.kernel.profile.sync_file_requests:
            raise os_error(errno.ENOTTY)
        handler(self, arg)
        return 0

    def _merge(self, arg: Argument) -> None:
        descriptors = self.kernel.descriptors
        fd = descriptors.reserve()
        data = copy_from(arg, uapi.sync_merge_data.size)
        name, fd2, _, flags, pad = uapi.sync_merge_data.unpack(data)
        if flags or pad:
            raise os_error(errno.EINVAL)
        other = descriptors.find(fd2) if isinstance(fd2, int) else None
        if not isinstance(other, SyncFile):
            raise os_error(errno.ENOENT)
        assert isinstance(name, bytes)  # noqa: S101 - the layout says so
        name = name[: _NAME_LENGTH - 1] + b"\0"
        result = SyncFile(self.kernel, merged(self.fence, other.fence), name.partition(b"\0")[0])
        copy_to(arg, bytes(uapi.sync_merge_data.pack(name, fd2, fd, flags, pad)))
        descriptors.install(fd, result, close_on_exec=True)

    def _info(self, arg: Argument) -> None:
        data = copy_from(arg, uapi.sync_file_info.size)
        old_name, _, flags, room, pad, pointer = uapi.sync_file_info.unpack(data)
        if flags or pad:
            raise os_error(errno.EINVAL)
        fences = list(unwrapped(self.fence))
        if not room:
            status = self.fence.status()
        else:
            assert isinstance(room, int)  # noqa: S101 - the layout says so
            assert isinstance(pointer, int)  # noqa: S101 - the layout says so
            if room < len(fences):
                raise os_error(errno.EINVAL)
            status = 1
            table = b""
            for fence in fences:
                driver, timeline = names(fence, detached=self.kernel.profile.detached_names)
                its_status = fence.status()
                status = status if status <= 0 else its_status
                table += uapi.sync_fence_info.pack(
                    timeline.encode()[: _NAME_LENGTH - 1],
                    driver.encode()[: _NAME_LENGTH - 1],
                    its_status,
                    0,
                    fence.timestamp_ns,
                )
            copy_words_to(pointer, table, whole=self.kernel.machine.copies_words)
        assert isinstance(old_name, bytes)  # noqa: S101 - the layout says so
        name = self.write_name(old_name)
        copy_to(arg, bytes(uapi.sync_file_info.pack(name, status, 0, len(fences), 0, pointer)))

    def _set_deadline(self, arg: Argument) -> None:
        data = copy_from(arg, uapi.sync_set_deadline.size)
        if uapi.sync_set_deadline.get(data, "pad"):
            raise os_error(errno.EINVAL)
        self.fence.is_signaled()  # dma_fence_set_deadline() asks, by which several fences are known to have signalled


_HANDLERS = {
    uapi.SYNC_IOC_MERGE: SyncFile._merge,
    uapi.SYNC_IOC_FILE_INFO: SyncFile._info,
    uapi.SYNC_IOC_SET_DEADLINE: SyncFile._set_deadline,
}
