"""START, END and pairs of them, through each way of calling."""

from __future__ import annotations

import ctypes
import enum
import fcntl
import struct
from typing import Any

from dmasync import DmaSyncer, DmaSyncerGroup, SyncType, uapi
from dmasync.harness.bench.measure import Operation
from dmasync.harness.bench.timed.surroundings import Bench, UnmeasurableError

REQUEST = uapi.DMA_BUF_IOCTL_SYNC


def _argument(step: int, access: str) -> bytearray:
    return uapi.dma_buf_sync.pack(SyncType[access].value | step)


def pair(bench: Bench, *, api: str, provider: str, size: int, access: str, attached: bool = False) -> Operation:
    """A START and its END."""
    return _PAIRS[api](bench, provider, size, SyncType[access], attached)


def start(bench: Bench, *, provider: str, size: int, access: str, attached: bool = False) -> Operation:
    """START alone through fcntl. The buffer was STARTed before; the ENDs are sent between the blocks."""
    buffer = bench.buffer(provider, size, attached)
    ioctl, fd = bench.backend.ioctl, buffer.fileno()
    first, second = _argument(uapi.DMA_BUF_SYNC_START, access), _argument(uapi.DMA_BUF_SYNC_END, access)
    opened = 0

    def run(count: int) -> None:
        nonlocal opened
        opened = count
        for _ in range(count):
            ioctl(fd, REQUEST, first)

    def clean() -> None:
        for _ in range(opened):
            ioctl(fd, REQUEST, second)

    ioctl(fd, REQUEST, first)
    ioctl(fd, REQUEST, second)
    return Operation(run, clean=clean)


def end(bench: Bench, *, provider: str, size: int, access: str, attached: bool = False) -> Operation:
    """END alone through fcntl. The STARTs are sent between the blocks."""
    buffer = bench.buffer(provider, size, attached)
    ioctl, fd = bench.backend.ioctl, buffer.fileno()
    first, second = _argument(uapi.DMA_BUF_SYNC_START, access), _argument(uapi.DMA_BUF_SYNC_END, access)

    def prepare(count: int) -> None:
        for _ in range(count):
            ioctl(fd, REQUEST, first)

    def run(count: int) -> None:
        for _ in range(count):
            ioctl(fd, REQUEST, second)

    return Operation(run, prepare=prepare)


def first_start(bench: Bench, *, provider: str, size: int, access: str, attached: bool = False) -> Operation:
    """The first START of a new buffer: a udmabuf builds and maps its page table in it."""
    ioctl = bench.backend.ioctl
    allocator = bench.allocator(provider)
    first, second = _argument(uapi.DMA_BUF_SYNC_START, access), _argument(uapi.DMA_BUF_SYNC_END, access)
    buffers: list[Any] = []
    fds: list[int] = []

    def prepare(count: int) -> None:
        for _ in range(count):
            buffer = allocator.alloc("dmasync-bench", size)
            buffers.append(buffer)
            fds.append(buffer.fileno())

    def run(count: int) -> None:
        for fd in fds:
            ioctl(fd, REQUEST, first)

    def clean() -> None:
        for fd in fds:
            ioctl(fd, REQUEST, second)
        for buffer in buffers:
            buffer.close()
        fds.clear()
        buffers.clear()

    return Operation(run, prepare, clean, most=max(1, min(16, (64 << 20) // size)))


def _fcntl(bench: Bench, provider: str, size: int, access: SyncType, attached: bool) -> Operation:
    fd = bench.buffer(provider, size, attached).fileno()
    ioctl = bench.backend.ioctl
    first, second = (
        _argument(uapi.DMA_BUF_SYNC_START, str(access.name)),
        _argument(uapi.DMA_BUF_SYNC_END, str(access.name)),
    )

    def run(count: int) -> None:
        for _ in range(count):
            ioctl(fd, REQUEST, first)
            ioctl(fd, REQUEST, second)

    return Operation(run)


def _reused(bench: Bench, provider: str, size: int, access: SyncType, attached: bool) -> Operation:
    syncer = DmaSyncer(bench.buffer(provider, size, attached), access)

    def run(count: int) -> None:
        for _ in range(count):
            with syncer:
                pass

    return Operation(run)


def _fresh(bench: Bench, provider: str, size: int, access: SyncType, attached: bool) -> Operation:
    buffer = bench.buffer(provider, size, attached)

    def run(count: int) -> None:
        for _ in range(count):
            with DmaSyncer(buffer, access):
                pass

    return Operation(run)


def _cpu_access(bench: Bench, provider: str, size: int, access: SyncType, attached: bool) -> Operation:
    buffer = bench.buffer(provider, size, attached)

    def run(count: int) -> None:
        for _ in range(count):
            with buffer.cpu_access(access):
                pass

    return Operation(run)


def _group(bench: Bench, provider: str, size: int, access: SyncType, attached: bool) -> Operation:
    group = DmaSyncerGroup([(bench.buffer(provider, size, attached), access) for _ in range(4)])

    def run(count: int) -> None:
        for _ in range(count):
            with group:
                pass

    return Operation(run, facts={"calls": 8, "buffers": 4})


class _Struct(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64),)


class _Flags(enum.IntFlag):
    READ = 1
    WRITE = 2
    START = 0
    END = 4


def _refuse_fake(bench: Bench) -> None:
    if bench.is_fake:
        raise UnmeasurableError("calls the kernel past the seam, where no fake can answer")


def _ctypes(bench: Bench, provider: str, size: int, access: SyncType, attached: bool) -> Operation:
    _refuse_fake(bench)
    fd = bench.buffer(provider, size, attached).fileno()
    flags = access.value

    def run(count: int) -> None:
        for _ in range(count):
            fcntl.ioctl(fd, REQUEST, _Struct(flags))
            fcntl.ioctl(fd, REQUEST, _Struct(flags | uapi.DMA_BUF_SYNC_END))

    return Operation(run)


def _ctypes_flags(bench: Bench, provider: str, size: int, access: SyncType, attached: bool) -> Operation:
    _refuse_fake(bench)
    fd = bench.buffer(provider, size, attached).fileno()
    flags = _Flags(access.value)

    def run(count: int) -> None:
        for _ in range(count):
            fcntl.ioctl(fd, REQUEST, _Struct(flags | _Flags.START))
            fcntl.ioctl(fd, REQUEST, _Struct(flags | _Flags.END))

    return Operation(run)


def _bytes(bench: Bench, provider: str, size: int, access: SyncType, attached: bool) -> Operation:
    _refuse_fake(bench)
    fd = bench.buffer(provider, size, attached).fileno()
    flags = access.value

    def run(count: int) -> None:
        for _ in range(count):
            fcntl.ioctl(fd, REQUEST, struct.pack("Q", flags))
            fcntl.ioctl(fd, REQUEST, struct.pack("Q", flags | uapi.DMA_BUF_SYNC_END))

    return Operation(run)


_PAIRS = {
    "fcntl": _fcntl,
    "DmaSyncer-reused": _reused,
    "DmaSyncer-fresh": _fresh,
    "cpu_access": _cpu_access,
    "group-of-4": _group,
    "ctypes-struct": _ctypes,
    "ctypes-struct-IntFlag": _ctypes_flags,
    "bytes": _bytes,
}
