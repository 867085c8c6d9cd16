"""FakeKernel: Linux, as far as dma-bufs go, behind the ``dmasync.Backend`` protocol."""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import select
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dmasync.fakes.kernel.dma_buf.dma_buf import DmaBuf
from dmasync.fakes.kernel.dma_buf.dma_fence import Fence, signaled_stub
from dmasync.fakes.kernel.dma_buf.dma_resv import Usage
from dmasync.fakes.kernel.errors import bad_descriptor, os_error
from dmasync.fakes.kernel.files.descriptors import Descriptors
from dmasync.fakes.kernel.files.file import File, PathFile
from dmasync.fakes.kernel.files.ioctl import do_vfs_ioctl
from dmasync.fakes.kernel.files.mapped import Area
from dmasync.fakes.kernel.files.memfd import Memfd
from dmasync.fakes.kernel.files.memfd_create import memfd_create
from dmasync.fakes.kernel.files.mmap import check_length_in_file, check_mmap, for_the_file, may_write
from dmasync.fakes.kernel.hugetlb.huge_mapping import area_of
from dmasync.fakes.kernel.hugetlb.pool import HugePool, pools_of
from dmasync.fakes.kernel.machine import HOST, Machine, machine_named
from dmasync.fakes.kernel.nodes import O_EMPTYPATH, Nodes
from dmasync.fakes.kernel.profile import DEFAULT_PROFILE, Profile, profile_named
from dmasync.fakes.kernel.short_arguments import CHOICES, EFAULT, ZEROS, before_a_hole
from dmasync.fakes.kernel.usermem import Argument
from dmasync.fakes.kernel.waiting import Deadline, Waker
from dmasync.fakes.memory.coherent import BufferMemory
from dmasync.fakes.memory.pages import FakeMapping, Run

_O_CLOEXEC = os.O_CLOEXEC
_REQUEST = 0xFFFF_FFFF
_SEEK_MAX = 4


class FakeKernel:
    """Answers as Linux does: memfds, ``/dev/udmabuf``, ``/dev/dma_heap/*``, dma-bufs, sync files.

    *providers* are the device nodes that exist: paths, or objects with ``path`` and ``flag`` as
    ``dmasync.Provider`` is; None means all that the allocator knows, or, under pyfakefs, those of the fake
    file system (whose permissions hold in any case, see :mod:`dmasync.fakes.kernel.nodes`). *profile* says which
    release answers: "6.1", "6.6", "6.12", "6.18" or "7.3", another release between them ("6.17", "6.12.93"), or
    "host", the running kernel's. *machine* is the processor that it was built for: "x86_64", "aarch64" or "host"
    (:mod:`dmasync.fakes.kernel.machine`), *page_size* the bytes of its pages, 16384 or 65536 for an arm64 with larger
    ones; the host's or a multiple of them. *coherent* and *memory* choose what lies behind a buffer
    (:mod:`dmasync.fakes.memory.coherent`).
    *list_limit* and *size_limit_mb* (None: as the release has it) are udmabuf's module parameters, and attributes that
    may be changed at any time. *memory_mb* is what heap buffers and the pages
    of memfds in udmabufs may take together, in MiB; beyond it is ENOMEM. *cma_mb* gives each CMA heap a region of that
    many MiB of its own instead. *huge_pages* are what ``/proc/sys/vm/nr_hugepages`` reserves: a number of pages of the
    usual size (2 MiB with pages of 4 KiB), or numbers by sizes in bytes, ``{2 << 20: 16, 1 << 30: 1}``.
    *descriptor_limit* is RLIMIT_NOFILE; beyond it is EMFILE. *short_arguments* says what follows an ioctl's argument
    that is shorter than its structure: "zeros", as behind ``fcntl.ioctl``, or nothing at all, "EFAULT".

    Each method returns what the system call returns and raises ``OSError`` with its errno, after the same
    checks in the same order. What Linux knows but the fake does not raises
    :class:`~dmasync.fakes.kernel.errors.UnmodelledCallError`, which is no OSError. Calls from several threads are
    safe.
    """

    def __init__(
        self,
        *,
        providers: Iterable[Any] | None = None,
        profile: str = DEFAULT_PROFILE,
        machine: str = HOST,
        coherent: bool = True,
        list_limit: int = 1024,
        size_limit_mb: int | None = None,
        page_size: int = mmap.PAGESIZE,
        memory: Callable[[Sequence[Run]], BufferMemory] | None = None,
        memory_mb: int = 1024,
        cma_mb: int | None = None,
        huge_pages: int | Mapping[int, int] = 0,
        descriptor_limit: int | None = None,
        short_arguments: str = ZEROS,
    ) -> None:
        if page_size < mmap.PAGESIZE or page_size % mmap.PAGESIZE:
            raise ValueError(f"page_size={page_size} must be a multiple of the host's, {mmap.PAGESIZE}")
        if short_arguments not in CHOICES:
            raise ValueError(f"short_arguments={short_arguments!r} must be one of {', '.join(map(repr, CHOICES))}")
        self.profile: Profile = profile_named(profile)
        self.machine: Machine = machine_named(machine)
        self.coherent = coherent
        self.list_limit = list_limit
        self.size_limit_mb = self.profile.size_limit_mb if size_limit_mb is None else size_limit_mb
        self.page_size = page_size
        self.memory = memory or _memory_class(coherent)
        self.nodes = Nodes(providers)
        self.lock = threading.RLock()
        self.huge_pools: Mapping[int, HugePool] = pools_of(huge_pages, self.machine, page_size, self.lock)
        self.descriptors = Descriptors(self.lock, descriptor_limit)
        self.stub_fence: Fence = signaled_stub(time.monotonic_ns())
        self.on_spoiled: Callable[[int], object] = lambda inode: None
        """Hears of dma-bufs whose pages Linux has just begun to give to others, although they are mapped."""
        self.lost: list[DmaBuf] = []
        self._files = self.descriptors.files
        self._ends_arguments = short_arguments == EFAULT
        self._memory_mb, self._memory_left = memory_mb, memory_mb << 20
        self._region_size = None if cma_mb is None else cma_mb << 20
        self._region_left: dict[str, int] = {}
        self._inodes = itertools.count(1)
        self._left_mapped: list[Area] = []
        """What the process has mapped and could not unmap."""
        self._mappings: dict[int, weakref.ref[FakeMapping]] = {}

    # The protocol

    def open(self, path: str, flags: int) -> int:
        """``open(2)`` of a device node."""
        name = os.fsdecode(path)
        if not self.profile.empty_paths:
            flags &= ~O_EMPTYPATH
        self.nodes.check_flags(name, flags)
        if self.profile.descriptor_before_path:
            fd = self.descriptors.reserve()
            self.nodes.check_path(name, flags)
        else:
            self.nodes.check_path(name, flags)
            fd = self.descriptors.reserve()
        file = self.nodes.open(self, name, flags)
        # os.open adds O_CLOEXEC to every call (PEP 446), and so does the real backend.
        return self.descriptors.install(fd, file, close_on_exec=True)

    def close(self, fd: int) -> None:
        """``close(2)``; the descriptor is gone also when a signal handler raises in here."""
        try:
            self.descriptors.remove(fd).put()
        except OSError:
            raise
        except BaseException:
            if fd in self._files:
                self.descriptors.remove(fd).put()
            raise

    def dup(self, fd: int) -> int:
        """``fcntl(fd, F_DUPFD_CLOEXEC, 0)``."""
        return self.descriptors.add(self.descriptors.any_file(fd), close_on_exec=True)

    def ioctl(self, fd: int, request: int, arg: Argument = 0, mutate_flag: bool = True) -> Any:
        """``ioctl(2)`` with the arguments of ``fcntl.ioctl``.

        *arg*: a bytearray (or another writable buffer), changed in place; an int, which is the value or the
        address in this process that the kernel gets; bytes, copied, and the copy after the call is what is
        returned.
        """
        file = self._files.get(fd) if fd.__class__ is int else self._slow_lookup(fd)
        if file is None:
            raise bad_descriptor(fd)
        if arg.__class__ is bytearray and not self._ends_arguments:
            return file.ioctl(fd, request & _REQUEST, arg)
        return self._ioctl_with_any(file, fd, request & _REQUEST, arg)

    def memfd_create(self, name: str, flags: int) -> int:
        """``memfd_create(2)``."""
        return memfd_create(self, name, flags)

    def ftruncate(self, fd: int, length: int) -> None:
        """``ftruncate(2)``."""
        if length < 0:
            raise os_error(errno.EINVAL)
        self.descriptors.file(fd).truncate(length)

    def add_seals(self, fd: int, seals: int) -> None:
        """``fcntl(fd, F_ADD_SEALS, seals)``."""
        self.descriptors.file(fd).add_seals(seals & 0xFFFF_FFFF)

    def get_seals(self, fd: int) -> int:
        """``fcntl(fd, F_GET_SEALS)``."""
        return self.descriptors.file(fd).get_seals()

    def mmap(self, fd: int, length: int, prot: int, flags: int, offset: int = 0) -> FakeMapping:
        """``mmap(2)``; as Python's ``mmap.mmap``, a memfd cannot be mapped beyond its end (ValueError)."""
        if length < 0:
            raise OverflowError("memory mapped length must be positive")
        if offset < 0:
            raise OverflowError("memory mapped offset must be positive")
        file = self.descriptors.files.get(fd)
        if isinstance(file, PathFile):
            file = file.of
        if isinstance(file, Memfd):
            check_length_in_file(file, length, offset)
        if offset % self.page_size:
            raise os_error(errno.EINVAL)
        file = self.descriptors.file(fd)
        check_mmap(file, length, prot, flags)
        mapping = file.map(length, prot, for_the_file(prot, flags), offset)
        mapping.area = area = area_of(mapping, file, length, prot, flags, offset)
        self._track(mapping, area, file, may_write(file, flags))
        return mapping

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        """``lseek(2)``."""
        file = self.descriptors.file(fd)
        if not 0 <= whence <= _SEEK_MAX:
            raise os_error(errno.EINVAL)
        return file.seek(offset, whence)

    def poll(self, fd: int, events: int, timeout_ms: int | None) -> int:
        """``poll(2)`` on one descriptor: the revents, POLLNVAL for one that is not open, 0 at the
        time-out.
        """
        if fd < 0:
            raise bad_descriptor(fd)
        file = self.descriptors.find(fd)
        if file is None:
            return select.POLLNVAL
        wanted = events | select.POLLERR | select.POLLHUP
        if timeout_ms == 0:
            return file.poll(wanted, None) & wanted
        deadline = Deadline(timeout_ms)
        with Waker() as waker:
            file.get()
            try:
                ready = file.poll(wanted, waker) & wanted
                while not ready and waker.sleep(deadline.left_ms()):
                    ready = file.poll(wanted, None) & wanted
            finally:
                file.stop_polling(waker)
                file.put()
        return ready

    # Looking in from outside

    def buffer_of(self, fd: int) -> DmaBuf:
        """The dma-buf behind *fd*, the same object for each of its descriptors; EBADF, EINVAL for other
        files.
        """
        file = self.descriptors.file(fd)
        if not isinstance(file, DmaBuf):
            raise os_error(errno.EINVAL)
        return file

    def attach_fence(self, fd: int, fence: Fence, *, write: bool = True) -> None:
        """Let the dma-buf *fd* wait for *fence*: work of a device that writes it, or, with write=False,
        reads it.
        """
        with self.lock:
            self.buffer_of(fd).reservation.add(fence, Usage.WRITE if write else Usage.READ)

    def stat(self, path: str) -> os.stat_result:
        """``stat(2)`` of a node, on the file system that this kernel sees; OSError."""
        return self.nodes.stat(path)

    def listdir(self, path: str) -> list[str]:
        """The names in a folder of nodes, such as ``/dev/dma_heap``; FileNotFoundError."""
        return self.nodes.listdir(path)

    def fdinfo(self, fd: int) -> dict[str, int | str]:
        """What ``/proc/self/fdinfo/<fd>`` shows, as far as it is the file's own.

        ``pos`` and ``flags`` of every file; of a dma-buf also ``ino``, ``size`` (bytes), ``count``
        (references),
        ``exp_name`` and, once it has one, ``name``.
        """
        file = self.descriptors.any_file(fd)
        close_on_exec = _O_CLOEXEC if fd in self.descriptors.close_on_exec else 0
        info: dict[str, int | str] = {"pos": file.position, "flags": file.flags | close_on_exec}
        if isinstance(file, DmaBuf):
            info |= {
                "ino": file.ino,
                "size": file.size,
                "count": file.references,
                "exp_name": file.exporter_name,
            }
            if file.name is not None:
                info["name"] = os.fsdecode(file.name)
        return info

    def open_fds(self) -> dict[int, str]:
        """The descriptors that are open, and what each is ("dmabuf", "memfd", "heap device", ...)."""
        return {fd: file.kind for fd, file in list(self._files.items())}

    def mappings(self) -> list[FakeMapping]:
        """The mappings that have not been closed."""
        return [mapping for ref in list(self._mappings.values()) if (mapping := ref()) is not None]

    # For the files

    def mappings_of(self, file: File) -> list[FakeMapping]:
        """Those of *file* that have not been closed."""
        return [mapping for mapping in self.mappings() if mapping.area is not None and mapping.area.is_of(file)]

    def memfd_gone(self, holders: Sequence[Any]) -> None:
        """Nobody has the memfd any more of which *holders* have pages: :attr:`on_spoiled` where Linux miscounts them.

        Older releases do so for each that a mapping of the dma-buf has touched by then.
        """
        from dmasync.fakes.memory.touched import Touched

        for buffer in holders:
            if any(Touched(mapping).pages() for mapping in buffer.counted_mappings()):
                self.on_spoiled(buffer.ino)

    def next_inode(self) -> int:
        """A number that no dma-buf of this kernel has had."""
        return next(self._inodes)

    def take_memory(self, size: int, region: str | None = None) -> None:
        """Count *size* bytes that are allocated (negative: given back); ENOMEM when there are no more.

        *region* is the CMA heap whose own memory it is, where such heaps have any.
        """
        with self.lock:
            if region is not None and self._region_size is not None:
                left = self._region_left.get(region, self._region_size)
                if size > left:
                    raise os_error(errno.ENOMEM, f"{size} bytes were asked for, {left} are free in {region}'s region")
                self._region_left[region] = left - size
                return
            if size > self._memory_left:
                limit, left = self._memory_mb, self._memory_left
                raise os_error(
                    errno.ENOMEM,
                    f"{size} bytes were asked for, {left} are free of the fake kernel's memory_mb={limit}",
                )
            self._memory_left -= size

    def vfs_ioctl(self, fd: int, file: File, request: int, arg: Argument) -> int | None:
        """The VFS's own answer to a request, None where it leaves it to the driver."""
        return do_vfs_ioctl(self, fd, file, request, arg)

    # Insides

    def _slow_lookup(self, fd: Any) -> File | None:
        # Python takes whatever has a fileno(); an int subclass is a number.
        return self._files.get(int(fd.fileno()) if hasattr(fd, "fileno") else int(fd))

    def _ioctl_with_any(self, file: File, fd: int, request: int, arg: Argument) -> Any:
        if isinstance(arg, (bytes, str)):
            copy = bytearray(arg.encode() if isinstance(arg, str) else arg)
            self._ioctl_with_any(file, fd, request, copy)
            return bytes(copy)
        if self._ends_arguments and not isinstance(arg, int):
            with before_a_hole(arg) as address:
                return file.ioctl(fd, request, address)
        return file.ioctl(fd, request, arg)

    def _track(self, mapping: FakeMapping, area: Area, file: File, writable: bool) -> None:
        key = id(mapping)
        if writable and isinstance(file, Memfd):
            file.inode.mapped(1)

        def unmapped() -> None:
            self._mappings.pop(key, None)
            if not area.can_unmap:
                self._left_mapped.append(area)
                return
            if writable and isinstance(file, Memfd):
                file.inode.mapped(-1)
            area.unmapped()

        self._mappings[key] = weakref.ref(mapping)
        mapping.on_unmap = unmapped


def _memory_class(coherent: bool) -> Callable[[Sequence[Run]], BufferMemory]:
    if coherent:
        return BufferMemory
    # Imported when it is asked for: most kernels are coherent.
    from dmasync.fakes.memory.noncoherent import NoncoherentMemory

    return NoncoherentMemory
