"""The two kernels that the suite questions, with short words for what every test needs."""

from __future__ import annotations

import contextlib
import ctypes
import errno as errnos
import mmap
import os
import platform
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dmasync import uapi
from dmasync.backend import LINUX
from dmasync.fakes import FakeDevice
from dmasync.fakes.kernel import FakeFence, FakeKernel
from dmasync.fakes.kernel.hugetlb.pool import pools_of
from dmasync.fakes.kernel.releases import Release, Since
from dmasync.harness.vgem import Vgem
from tests.support.page_size import MACHINE, PAGE, PROFILE

UDMABUF = "/dev/udmabuf"
SYSTEM_HEAP = "/dev/dma_heap/system"
RW, RO = mmap.PROT_READ | mmap.PROT_WRITE, mmap.PROT_READ
SHARED, PRIVATE = mmap.MAP_SHARED, mmap.MAP_PRIVATE
O_LARGEFILE = {"x86_64": 0o100000, "aarch64": 0o400000}[platform.machine()]
"""asm/fcntl.h; the kernel adds it to every open of a 64-bit process."""
SEALED_MAPS_READ = ("6.7", "6.12.9", "6.6.103", "6.1.149")
"""Since when a mapping to read that was made under a seal on writing is known never to write."""
ADDRESS_SPACE = 1 << {"x86_64": 47, "aarch64": 48}[MACHINE]
"""asm/processor.h: what a process has, in bytes."""
START_READ, START_WRITE, START_RW = 1, 2, 3
END_READ, END_WRITE, END_RW = 5, 6, 7

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_MAP_FIXED_NOREPLACE = 0x100000
_FIOQSIZE = 0x5460
_HUGE_PAGES = Path("/proc/sys/vm/nr_hugepages")


@contextlib.contextmanager
def refused(errno: int) -> Iterator[None]:
    """The block raises an OSError with *errno*."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what is looked at
        yield
    got, want = (errnos.errorcode.get(code or 0) for code in (caught.value.errno, errno))
    assert got == want


class LowMemory:
    """Two pages below 2 GiB of which the second is a hole: addresses that fit fcntl's int argument."""

    def __init__(self) -> None:
        flags = PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED_NOREPLACE
        places = range(1 << 30, (1 << 31) - 2 * PAGE, 2 * PAGE)
        self.address = next(place for place in places if _libc.mmap(place, 2 * PAGE, RW, flags, -1, 0) == place)
        self.end = self.address + PAGE
        _libc.mprotect(self.end, PAGE, 0)

    def put_before_end(self, data: bytes) -> int:
        """Write *data* so that it ends where readable memory ends; its address."""
        ctypes.memmove(self.end - len(data), data, len(data))
        return self.end - len(data)

    def get(self, address: int, length: int) -> bytes:
        return ctypes.string_at(address, length)

    def make_read_only(self) -> None:
        _libc.mprotect(self.address, PAGE, RO)

    def make_hole_readable(self) -> None:
        _libc.mprotect(self.end, PAGE, RO)

    def close(self) -> None:
        _libc.munmap(self.address, 2 * PAGE)


class System:
    """A backend, and the words; remembers what it opened."""

    backend: Any
    release: Release
    """The kernel that answers, or that the fake imitates."""
    holds_duplicates: bool
    """Whether Python's mappings of it hold a duplicate of their descriptor, where Python's do."""

    def __init__(self, has_heap: bool = True) -> None:
        self.has_heap = has_heap
        self._fds: list[int] = []
        self._closers: list[Any] = []

    # Words

    def since(self, first: str, *updates: str) -> bool:
        """Whether the kernel is of the release *first* or later, or of one of the *updates* or later in that line."""
        return self.release in Since.of(first, *updates)

    def maps_numbers(self, provider: str) -> bool:
        """Whether Linux counts the pages of such a buffer's mapping no more than a device's."""
        return self.since(*{"udmabuf": ("6.11", "6.6.87"), "cma": ("6.9",)}.get(provider, ("0.0",)))

    @property
    def cma_heap(self) -> str:
        """The node of the default CMA region, where no device tree names it."""
        return "/dev/dma_heap/" + ("default_cma_region" if self.since("6.17") else "reserved")

    @property
    def signalled_names(self) -> tuple[str, str]:
        """The driver and the time line that "nothing to wait for" tells."""
        return ("detached-driver", "signaled-timeline") if self.since("6.17") else ("stub", "stub")

    @property
    def stub(self) -> str:
        """The name of a sync file of "nothing to wait for", as far as it has room."""
        return f"{'-'.join(self.signalled_names)}0-0"[:31]

    def owned(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def close(self, fd: int) -> None:
        self._fds.remove(fd)
        self.backend.close(fd)

    def open(self, path: str, flags: int = os.O_RDWR) -> int:
        if not self.has_heap and "dma_heap" in path:
            pytest.skip("needs a dma-heap, which --dmasync-no-heap says is not there")
        return self.owned(self.backend.open(path, flags))

    def dup(self, fd: int) -> int:
        return self.owned(self.backend.dup(fd))

    def memfd(self, pages: float = 1, seals: int = uapi.F_SEAL_SHRINK, flags: int = uapi.MFD_ALLOW_SEALING) -> int:
        fd = self.owned(self.backend.memfd_create("conformance", flags | uapi.MFD_CLOEXEC))
        self.backend.ftruncate(fd, int(pages * PAGE))
        if seals:
            self.backend.add_seals(fd, seals)
        return fd

    def create(self, device: int, memfd: int, offset: int = 0, size: int = PAGE, flags: int = 1) -> int:
        argument = uapi.udmabuf_create.pack(memfd & 0xFFFFFFFF, flags, offset, size)
        before = bytes(argument)
        fd = self.owned(self.backend.ioctl(device, uapi.UDMABUF_CREATE, argument))
        assert argument == before
        return fd

    def create_list(
        self, device: int, items: list[tuple[int, int, int]], flags: int = 1, count: int | None = None
    ) -> int:
        head = uapi.udmabuf_create_list.pack(flags, len(items) if count is None else count)
        body = b"".join(uapi.udmabuf_create_item.pack(fd & 0xFFFFFFFF, 0, at, size) for fd, at, size in items)
        return self.owned(self.backend.ioctl(device, uapi.UDMABUF_CREATE_LIST, bytearray(head + body)))

    def allocate(
        self,
        heap: int,
        length: int,
        fd_flags: int = os.O_RDWR | os.O_CLOEXEC,
        heap_flags: int = 0,
        fd: int = 0,
        request: int = uapi.DMA_HEAP_IOCTL_ALLOC,
    ) -> int:
        argument = uapi.dma_heap_allocation_data.pack(length, fd, fd_flags, heap_flags)
        assert self.backend.ioctl(heap, request, argument) == 0
        got_length, got_fd, got_flags, got_heap_flags = uapi.dma_heap_allocation_data.unpack(argument)
        assert (got_length, got_flags, got_heap_flags) == (length, fd_flags, heap_flags)
        return self.owned(int(got_fd))

    def buffer(self, provider: str, pages: int = 1) -> int:
        """A dma-buf of *pages* pages that nobody has synced yet."""
        if provider == "udmabuf":
            return self.create(self.open(UDMABUF), self.memfd(pages), size=pages * PAGE)
        return self.allocate(self.open(SYSTEM_HEAP if provider == "system" else self.cma_heap), pages * PAGE)

    def sync(self, fd: int, flags: int) -> None:
        argument = uapi.dma_buf_sync.pack(flags)
        assert self.backend.ioctl(fd, uapi.DMA_BUF_IOCTL_SYNC, argument) == 0
        assert argument == uapi.dma_buf_sync.pack(flags)

    def set_name(self, fd: int, name: bytes, request: int = uapi.DMA_BUF_SET_NAME) -> None:
        assert self.backend.ioctl(fd, request, bytearray(name)) == 0

    def export(self, fd: int, flags: int = 3) -> int:
        argument = uapi.dma_buf_export_sync_file.pack(flags, -1)
        assert self.backend.ioctl(fd, uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE, argument) == 0
        assert uapi.dma_buf_export_sync_file.get(argument, "flags") == flags
        return self.owned(uapi.dma_buf_export_sync_file.get(argument, "fd"))

    def import_(self, fd: int, sync_file: int, flags: int) -> None:
        argument = uapi.dma_buf_import_sync_file.pack(flags, sync_file)
        assert self.backend.ioctl(fd, uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE, argument) == 0
        assert argument == uapi.dma_buf_import_sync_file.pack(flags, sync_file)

    def merge(self, one: int, other: int, name: bytes = b"merged") -> int:
        argument = uapi.sync_merge_data.pack(name, other, -1, 0, 0)
        assert self.backend.ioctl(one, uapi.SYNC_IOC_MERGE, argument) == 0
        return self.owned(uapi.sync_merge_data.get(argument, "fence"))

    def info(self, sync_file: int, room: int = 8) -> SyncFileInfo:
        """What SYNC_IOC_FILE_INFO tells, with *room* for that many fences."""
        table = ctypes.create_string_buffer(room * uapi.sync_fence_info.size + 1)
        argument = uapi.sync_file_info.pack(b"", 0, 0, room, 0, ctypes.addressof(table) if room else 0)
        assert self.backend.ioctl(sync_file, uapi.SYNC_IOC_FILE_INFO, argument) == 0
        return SyncFileInfo(argument, table.raw)

    def mmap(self, fd: int, length: int = PAGE, prot: int = RW, flags: int = SHARED, offset: int = 0) -> Any:
        mapping = self.backend.mmap(fd, length, prot, flags, offset)
        self._closers.append(mapping)
        return mapping

    def size(self, fd: int) -> int:
        return int(self.backend.lseek(fd, 0, os.SEEK_END))

    def bytes_in_pages(self, memfd: int) -> int:
        """What FIOQSIZE tells: the pages that are there."""
        argument = bytearray(8)
        assert self.backend.ioctl(memfd, _FIOQSIZE, argument) == 0
        return int.from_bytes(argument, "little")

    def low_memory(self) -> LowMemory:
        memory = LowMemory()
        self._closers.append(memory)
        return memory

    def close_everything(self) -> None:
        for closer in self._closers:
            closer.close()
        for fd in self._fds:
            self.backend.close(fd)

    # What differs between the two

    def close_unknown(self) -> int:
        """Close the descriptors that no call has told; how many there were."""
        raise NotImplementedError

    def left_over(self) -> list[Any]:
        """Descriptors and mappings that nobody closed."""
        raise NotImplementedError

    def fdinfo(self, fd: int) -> dict[str, str]:
        """What /proc/self/fdinfo shows, without what only a real file system has."""
        raise NotImplementedError

    def huge_pages(self, count: int) -> contextlib.AbstractContextManager[None]:
        """For a while, *count* huge pages of the usual size are reserved, all of which come back before it ends."""
        raise NotImplementedError

    def huge_counts(self) -> tuple[int, int]:
        """Huge pages that are free, and that are promised to somebody."""
        raise NotImplementedError

    def udmabuf_limits(self, **limits: int) -> contextlib.AbstractContextManager[None]:
        """For a while, other values of udmabuf's module parameters."""
        raise NotImplementedError

    def no_descriptors_left(self) -> contextlib.AbstractContextManager[None]:
        """For a while, every new descriptor is one too many."""
        raise NotImplementedError

    def imported(self, buffer: int) -> contextlib.AbstractContextManager[None]:
        """For a while, a device is attached to *buffer* and has it mapped."""
        raise NotImplementedError

    def fence(self) -> Fence:
        """Work of a device that has not finished."""
        raise NotImplementedError


class SyncFileInfo:
    """One answer to SYNC_IOC_FILE_INFO."""

    def __init__(self, argument: bytearray, table: bytes) -> None:
        name, self.status, self.flags, self.num_fences, self.pad, _ = uapi.sync_file_info.unpack(argument)
        self.name = _text(name)
        self.fences = [
            (_text(driver), _text(timeline), status, flags, timestamp)
            for timeline, driver, status, flags, timestamp in (
                uapi.sync_fence_info.unpack(table, index * uapi.sync_fence_info.size)
                for index in range((len(table) - 1) // uapi.sync_fence_info.size)
            )
        ]


class Fence:
    """A fence that is out of the test's hands until it signals it; *sync_file* holds it."""

    sync_file: int

    def signal(self) -> None:
        raise NotImplementedError


class FakeSystem(System):
    holds_duplicates = False

    def __init__(self, has_heap: bool = True) -> None:
        super().__init__(has_heap)
        options = {"machine": MACHINE} if PROFILE is None else {"machine": MACHINE, "profile": PROFILE}
        self.backend = self.kernel = FakeKernel(
            page_size=PAGE, providers=None if has_heap else [UDMABUF], cma_mb=16, **options
        )
        self.release = self.kernel.profile.release

    def close_unknown(self) -> int:
        unknown = set(self.kernel.open_fds()) - set(self._fds)
        for fd in unknown:
            self.kernel.close(fd)
        return len(unknown)

    def left_over(self) -> list[Any]:
        return [*self.kernel.open_fds().items(), *self.kernel.mappings()]

    def fdinfo(self, fd: int) -> dict[str, str]:
        info = self.kernel.fdinfo(fd)
        info["flags"] = f"0{info['flags']:o}"
        return {key: str(value) for key, value in info.items() if key != "ino"}

    @contextlib.contextmanager
    def huge_pages(self, count: int) -> Iterator[None]:
        before = self.kernel.huge_pools
        self.kernel.huge_pools = pools_of(count, self.kernel.machine, PAGE, self.kernel.lock)
        try:
            yield
            assert self.huge_counts() == (count, 0)
        finally:
            self.kernel.huge_pools = before

    def huge_counts(self) -> tuple[int, int]:
        pool = self.kernel.huge_pools[PAGE * (PAGE // 8)]
        with pool.changing():
            return pool.free, pool.promised

    @contextlib.contextmanager
    def udmabuf_limits(self, **limits: int) -> Iterator[None]:
        before = {name: getattr(self.kernel, name) for name in limits}
        vars(self.kernel).update(limits)
        try:
            yield
        finally:
            vars(self.kernel).update(before)

    @contextlib.contextmanager
    def no_descriptors_left(self) -> Iterator[None]:
        self.kernel.descriptors.limit = len(self.kernel.open_fds())
        try:
            yield
        finally:
            self.kernel.descriptors.limit = None

    @contextlib.contextmanager
    def imported(self, buffer: int) -> Iterator[None]:
        with FakeDevice(self.kernel) as device:
            device.attach(buffer)
            yield

    def fence(self) -> Fence:
        return _FakeFence(self)


class _FakeFence(Fence):
    def __init__(self, system: FakeSystem) -> None:
        self._fence = FakeFence()
        carrier = system.buffer("udmabuf")
        system.kernel.attach_fence(carrier, self._fence)
        self.sync_file = system.export(carrier)
        system.close(carrier)

    def signal(self) -> None:
        self._fence.signal()


class RealSystem(System):
    holds_duplicates = True

    def __init__(self, has_heap: bool = True) -> None:
        super().__init__(has_heap)
        self.backend = LINUX
        release = Release.parse(platform.release())
        assert release is not None
        self.release = release
        self._vgem: Vgem | None = None
        self._before = _own_descriptors()

    def close_unknown(self) -> int:
        unknown = {int(name.split()[0]) for name in _own_descriptors() - self._before} - set(self._fds)
        for fd in unknown:
            os.close(fd)
        return len(unknown)

    def left_over(self) -> list[Any]:
        if self._vgem is not None:
            self._vgem.close()
            self._vgem = None
        return sorted(_own_descriptors() - self._before)

    def fdinfo(self, fd: int) -> dict[str, str]:
        lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
        info = {key: value.lstrip("\t") for key, _, value in (line.partition(":") for line in lines)}
        return {key: value for key, value in info.items() if key not in ("mnt_id", "ino")}

    @contextlib.contextmanager
    def huge_pages(self, count: int) -> Iterator[None]:
        needed, memory = count * PAGE * (PAGE // 8), os.sysconf("SC_PHYS_PAGES") * PAGE
        if needed > memory // 4:
            pytest.skip(f"{count} huge pages are {needed >> 20} MiB, and this machine has {memory >> 20} MiB in all")
        before = _HUGE_PAGES.read_text()
        _HUGE_PAGES.write_text(str(count))
        try:
            assert self.huge_counts() == (count, 0)
            yield
            assert self.huge_counts() == (count, 0)
        finally:
            _HUGE_PAGES.write_text(before)

    def huge_counts(self) -> tuple[int, int]:
        lines = Path("/proc/meminfo").read_text().splitlines()
        told = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        free, promised = told["HugePages_Free"], told["HugePages_Rsvd"]
        return free, promised if promised < 1 << 63 else promised - (1 << 64)

    @contextlib.contextmanager
    def udmabuf_limits(self, **limits: int) -> Iterator[None]:
        files = {Path("/sys/module/udmabuf/parameters", name): value for name, value in limits.items()}
        before = {file: file.read_text() for file in files}
        for file, value in files.items():
            file.write_text(str(value))
        try:
            yield
        finally:
            for file, text in before.items():
                file.write_text(text)

    @contextlib.contextmanager
    def no_descriptors_left(self) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.open("/", os.O_RDONLY)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)

    @property
    def vgem(self) -> Vgem:
        if self._vgem is None:
            self._vgem = Vgem.find()
        return self._vgem

    @contextlib.contextmanager
    def imported(self, buffer: int) -> Iterator[None]:
        handle = self.vgem.import_buffer(buffer)
        try:
            yield
        finally:
            self.vgem.forget(handle)

    def fence(self) -> Fence:
        return _VgemFence(self, self.vgem)


class _VgemFence(Fence):
    """A fence of vgem's, which expires by itself after ten seconds."""

    def __init__(self, system: RealSystem, vgem: Vgem) -> None:
        self._vgem = vgem
        self._fence, sync_file = vgem.sync_file()
        self.sync_file = system.owned(sync_file)

    def signal(self) -> None:
        self._vgem.signal(self._fence)


def _own_descriptors() -> set[str]:
    return {f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}" for fd in os.listdir("/proc/self/fd") if _is_open(fd)}


def _is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode()


VGEM_NAME = re.compile(r"vgem-unbound\d+-1")
