"""Another process's memfd as a memfd of a backend: its pages, its size and its seals are those that the host has."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

from dmasync import LinuxBackend, uapi
from dmasync.fakes.foreign import caller
from dmasync.fakes.kernel import FakeKernel
from dmasync.fakes.kernel.errors import UnmodelledCallError, os_error
from dmasync.fakes.kernel.files.descriptors import Descriptors
from dmasync.fakes.kernel.files.memfd import Memfd, MemfdInode
from dmasync.fakes.memory import host
from dmasync.fakes.memory.pages import Run, Store

_libc = ctypes.CDLL(None, use_errno=True)


class _Adoption(threading.local):
    """What this thread is taking over at the moment."""

    fd: int | None = None
    """The memfd, until the backend has taken it."""
    in_progress = False
    """The calls that would size and seal it find that done."""
    is_ours = False
    """New descriptors are no program's."""


_adoption = _Adoption()


@contextlib.contextmanager
def ours() -> Iterator[None]:
    """The descriptors that this thread gets meanwhile are no program's, and not limited by its limit. May be nested."""
    before, _adoption.is_ours = _adoption.is_ours, True
    try:
        yield
    finally:
        _adoption.is_ours = before


def adopt(backend: Any, fd: int) -> int:
    """A descriptor of *backend* for the memfd *fd* of this process, which is taken over.

    The calls that would make such a memfd are made, so that a recorder writes them down and its trace can be replayed.
    OSError with EINVAL where *fd* is no memfd; it is closed whenever anything is raised.
    """
    _adoption.fd = fd
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        size = os.fstat(fd).st_size
        flags = uapi.MFD_CLOEXEC
        if seals != uapi.F_SEAL_SEAL:
            flags |= uapi.MFD_ALLOW_SEALING
        if seals & uapi.F_SEAL_EXEC:
            flags |= uapi.MFD_NOEXEC_SEAL
        mine = int(backend.memfd_create("program", flags))
    finally:
        if _adoption.fd is not None:
            os.close(_adoption.fd)
        _adoption.fd = None
    _adoption.in_progress = True
    try:
        if size:
            backend.ftruncate(mine, size)
        if flags & uapi.MFD_ALLOW_SEALING and seals & ~uapi.F_SEAL_EXEC:
            backend.add_seals(mine, seals & ~uapi.F_SEAL_EXEC)
    except BaseException:
        backend.close(mine)
        raise
    finally:
        _adoption.in_progress = False
    return mine


class _AdoptedStore(Store):
    """Pages that are there already; owns *fd*."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def resize(self, size: int) -> None:
        """Its owner does that."""


_HUGETLBFS = 0x958458F6
"""What statfs() tells of a memfd of huge pages (linux/magic.h)."""


def _is_huge(fd: int) -> bool:
    about = ctypes.create_string_buffer(256)  # struct statfs, whose first word is f_type
    return not _libc.fstatfs(fd, about) and int.from_bytes(about.raw[:4], sys.byteorder) == _HUGETLBFS


class _AdoptedInode(MemfdInode):
    """The memory of a memfd that is another process's as well; owns *fd*, a descriptor of it."""

    def __init__(self, kernel: FakeKernel, flags: int, fd: int) -> None:
        self._fd = fd
        super().__init__(kernel, flags)
        self.store = _AdoptedStore(fd)

    def pin(self, offset: int, size: int) -> Run | None:
        run = super().pin(offset, size)
        if run is not None:
            host.populate(self._fd, offset, size)  # at once: its owner asks the host about its holes
        return run

    # Attributes there; here nobody knows when the other process changes them.
    @property
    def size(self) -> int:
        return os.fstat(self._fd).st_size

    @size.setter
    def size(self, value: int) -> None:
        """The host's says it."""

    @property
    def seals(self) -> int:
        return fcntl.fcntl(self._fd, fcntl.F_GET_SEALS)

    @seals.setter
    def seals(self, value: int) -> None:
        """The host's says it."""


class _AdoptedHugeInode(_AdoptedInode):
    """The same of huge pages, which are the host's, and few hosts have any."""

    is_huge = True

    def pin(self, offset: int, size: int) -> Run | None:
        profile = self.kernel.profile
        if profile.udmabuf_pins_folios:
            self.check_pin(offset, size)
        elif not size:
            return None
        elif offset + size > self.size:
            raise os_error(errno.EINVAL)
        huge = os.fstat(self._fd).st_blksize
        begin, end = offset // huge * huge, -(-(offset + size) // huge) * huge
        try:
            mmap.mmap(self._fd, end - begin, prot=mmap.PROT_READ, offset=begin).close()
        except OSError:
            raise os_error(profile.missing_huge_page if profile.udmabuf_pins_folios else errno.EINVAL) from None
        raise UnmodelledCallError("a udmabuf of huge pages: they are the host's, which maps no part of one")


def _both_ways(fd: int) -> int:
    """*fd*, opened for reading and writing as the buffers' pages are, whatever the program opened it for."""
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR:
        return fd
    try:
        other = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return fd
    os.close(fd)
    return other


class _ForeignDescriptors(Descriptors):
    """Numbers that end where the calling process's do."""

    def reserve(self) -> int:
        who = caller.current()
        if who is not None and not _adoption.is_ours:
            who.need_number()
        return super().reserve()


class ForeignKernel(FakeKernel):
    """A fake kernel whose memfds may be another process's."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.descriptors = _ForeignDescriptors(self.lock, self.descriptors.limit)
        self._files = self.descriptors.files
        self.adopted: weakref.WeakValueDictionary[tuple[int, int], MemfdInode] = weakref.WeakValueDictionary()
        """By the host's device and inode: those that a buffer or a descriptor still refers to."""

    def memfd_create(self, name: str, flags: int) -> int:
        fd = _adoption.fd
        if fd is None:
            return super().memfd_create(name, flags)
        state = os.fstat(fd)
        key = state.st_dev, state.st_ino
        inode = self.adopted.get(key)
        if inode is None:
            kind = _AdoptedHugeInode if _is_huge(fd) else _AdoptedInode
            inode = self.adopted[key] = kind(self, flags, _both_ways(fd))
            _adoption.fd = None
        return self.descriptors.add(Memfd(self, inode), close_on_exec=True)

    def ftruncate(self, fd: int, length: int) -> None:
        if not _adoption.in_progress:
            super().ftruncate(fd, length)

    def add_seals(self, fd: int, seals: int) -> None:
        if not _adoption.in_progress:
            super().add_seals(fd, seals)


class ForeignLinux(LinuxBackend):
    """The real kernel, for calls of other processes."""

    def memfd_create(self, name: str, flags: int) -> int:  # type: ignore[override]  # static there
        fd = _adoption.fd
        if fd is None:
            return os.memfd_create(name, flags)
        _adoption.fd = None
        return fd

    def ftruncate(self, fd: int, length: int) -> None:
        if not _adoption.in_progress:
            os.ftruncate(fd, length)

    def add_seals(self, fd: int, seals: int, /) -> None:
        if not _adoption.in_progress:
            super().add_seals(fd, seals)
