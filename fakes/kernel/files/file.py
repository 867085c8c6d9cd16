"""An open file (``struct file``) and what the VFS says for it where its driver is silent."""

from __future__ import annotations

import errno
import mmap
import os
import select
from enum import IntFlag

from dmasync.fakes.kernel.errors import os_error
from dmasync.fakes.kernel.parts import Kernel
from dmasync.fakes.kernel.usermem import Argument
from dmasync.fakes.kernel.waiting import Waker
from dmasync.fakes.memory.pages import FakeMapping

ACCESS_MODE = os.O_ACCMODE
O_LARGEFILE = 0o740000 & ~(os.O_DIRECT | os.O_DIRECTORY | os.O_NOFOLLOW)
"""What the kernel adds to every open of a 64-bit process (os.O_LARGEFILE may be 0 there).

Architectures give the same four bits to these four flags, each in an order of its own (asm/fcntl.h).
"""
DEFAULT_POLL = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM


class Pages(IntFlag):
    """What a driver says of the pages that it maps: VM_PFNMAP, numbers only; VM_IO; VM_DONTEXPAND of pages that are
    counted, which never grow nor join. Nothing: pages as of a file.
    """

    COUNTED = 0
    NUMBERS = 1
    IO = 2
    FIXED = 4


class File:
    """What descriptors and mappings refer to; gone with the last of them.

    ``references`` counts descriptors, mappings and callbacks in flight, as ``file_count()`` does.
    """

    kind = "file"
    regular = False  # S_ISREG

    def __init__(self, kernel: Kernel, flags: int) -> None:
        self.kernel = kernel
        self.flags = flags
        self.position = 0
        self.references = 0
        mode = (flags + 1) & ACCESS_MODE  # OPEN_FMODE(): access mode 3 may do neither
        self.readable = bool(mode & 1)
        self.writable = bool(mode & 2)

    def get(self) -> None:
        """Take a reference."""
        with self.kernel.lock:
            self.references += 1

    def put(self) -> None:
        """Drop a reference; the last one releases the file."""
        with self.kernel.lock:
            self.references -= 1
            last = not self.references
        if last:
            self.release()

    def release(self) -> None:
        """The last reference is gone."""

    def ioctl(self, fd: int, request: int, arg: Argument) -> int:
        """``ioctl(2)`` with a request of 32 bits."""
        result = self.kernel.vfs_ioctl(fd, self, request, arg)
        return self.driver_ioctl(request, arg) if result is None else result

    def driver_ioctl(self, request: int, arg: Argument) -> int:
        """``unlocked_ioctl``: what the VFS did not answer itself."""
        raise os_error(errno.ENOTTY)

    def block_size(self) -> int:
        """``s_blocksize`` of the file system that the inode lives in."""
        return self.kernel.page_size

    def poll(self, events: int, waker: Waker | None) -> int:
        """The events that are; *waker*, if given, is woken when they may have changed."""
        return DEFAULT_POLL

    def stop_polling(self, waker: Waker) -> None:
        """Forget *waker*."""

    def seek(self, offset: int, whence: int) -> int:
        """``llseek``."""
        raise os_error(errno.ESPIPE)

    def truncate(self, length: int) -> None:
        """``ftruncate(2)`` with a length that is not negative."""
        raise os_error(errno.EINVAL)

    def add_seals(self, seals: int) -> None:
        """``F_ADD_SEALS``: only memfds have any, and the question about writing comes first."""
        raise os_error(errno.EINVAL if self.writable else errno.EPERM)

    def get_seals(self) -> int:
        """``F_GET_SEALS``."""
        raise os_error(errno.EINVAL)

    can_open_again = False
    """Whether its place in ``/proc/self/fd`` can be opened: anonymous inodes and dma-bufs have no ``open``."""
    direct = False
    """Whether it can be opened with O_DIRECT."""

    def opened_again(self, flags: int) -> File:
        """Another open file of the same inode."""
        return type(self)(self.kernel, flags)

    def cut_on_open(self) -> None:
        """O_TRUNC, which only regular files heed."""

    can_map = False
    can_sync = False
    """Whether msync() has anything to call."""
    size: int
    """In bytes, of what can be mapped."""

    def mapped_pages(self) -> Pages:
        """What its mappings are made of."""
        return Pages.COUNTED

    def may_execute(self) -> bool:
        """Whether its file system lets it be mapped with PROT_EXEC (``path_noexec()``)."""
        return True

    def check_map(self, prot: int, shared: bool) -> None:
        """What stands against a mapping before the driver is asked: seals."""

    def map(self, length: int, prot: int, flags: int, offset: int) -> FakeMapping:
        """``mmap`` of the driver; *length* in bytes as asked for, *flags* say shared or private, and MAP_POPULATE."""
        raise NotImplementedError  # pragma: no cover - asked only where can_map is set


class NullDevice(File):
    """An open ``/dev/null`` (``drivers/char/mem.c``): whatever is sought, its position is 0."""

    kind = "null device"
    can_open_again = True

    def seek(self, offset: int, whence: int) -> int:
        return 0


class Directory(File):
    """An open folder of nodes (``fs/libfs.c``, in a tmpfs): sought from its start, or from where it is."""

    kind = "directory"
    can_open_again = True

    def __init__(self, kernel: Kernel, flags: int, path: str) -> None:
        super().__init__(kernel, flags)
        self.path = path

    def opened_again(self, flags: int) -> File:
        return Directory(self.kernel, flags, self.path)

    def seek(self, offset: int, whence: int) -> int:
        if whence not in (os.SEEK_SET, os.SEEK_CUR):
            raise os_error(errno.EINVAL)
        position = offset if whence == os.SEEK_SET else self.position + offset
        if not 0 <= position <= self.kernel.profile.folder_end:
            raise os_error(errno.EINVAL)
        self.position = position
        return position


class PathFile(File):
    """A file opened with O_PATH: a place, nothing that can be used; *of* is what lies there, None for a link itself."""

    kind = "path"

    def __init__(self, kernel: Kernel, flags: int, of: File | None) -> None:
        super().__init__(kernel, flags)
        self.of = of

    def ioctl(self, fd: int, request: int, arg: Argument) -> int:
        raise os_error(errno.EBADF)


def is_shared(flags: int) -> bool:
    """Whether mmap *flags* ask for a shared mapping."""
    return flags & 0x0F in (mmap.MAP_SHARED, 0x03)
