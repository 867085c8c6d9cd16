"""The operations on what owns a descriptor: buffers, allocators, frames, sync files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from dmasync import (
    DmaBuf,
    DmaBufAllocator,
    DmaBufAllocatorFlag,
    DmaSyncer,
    DmaSyncerGroup,
    Provider,
    SyncFile,
    SyncType,
)
from tests.support.points.explore import Operation, Step
from tests.support.points.world import World

HEAP, UDMABUF = DmaBufAllocatorFlag.SYSTEM_HEAP, DmaBufAllocatorFlag.UDMABUF


def _closed_in_a_window(world: World) -> Step:
    def step() -> None:
        buffer = buffers.pop()
        with DmaSyncer(buffer, SyncType.READ):
            buffer.close()

    buffers = [world.buffer()]
    return step


def _closed_in_two_windows(world: World) -> Step:
    def step() -> None:
        buffer = buffers.pop()
        with DmaSyncer(buffer, SyncType.READ), DmaSyncer(buffer, SyncType.WRITE):
            buffer.close()

    buffers = [world.buffer()]
    return step


def _closed_in_a_group(world: World) -> Step:
    buffers = [world.buffer() for _ in range(2)]

    def step() -> None:
        with DmaSyncerGroup([(buffer, SyncType.READ) for buffer in buffers]):
            for buffer in buffers:
                buffer.close()

    return step


def _closed_in_its_access(world: World) -> Step:
    world.count_mappings()
    buffer = world.buffer()

    def step() -> None:
        with buffer.cpu_access(SyncType.WRITE) as view:
            view[0] = 1
            buffer.close()

    return step


def _dropped_in_a_window(world: World) -> Step:
    buffers = [DmaBuf.from_fd(world.memfd(kept=False), backend=world.backend)]

    def step() -> None:
        syncer = DmaSyncer(buffers[0], SyncType.READ)
        syncer.start()
        buffers.clear()
        syncer.end()

    world.afterwards(lambda: [buffer.close() for buffer in buffers])
    return step


def _mapped_by_the_first_access(world: World) -> Step:
    world.count_mappings()
    buffer = world.buffer()

    def step() -> None:
        with buffer.cpu_access(SyncType.READ):
            pass

    return step


def _map(world: World) -> Step:
    world.count_mappings()
    buffer = world.buffer()

    def step() -> None:
        buffer.map(SyncType.READ).close()

    return step


def _dup(world: World) -> Step:
    buffer = world.buffer()

    def step() -> None:
        with buffer.dup():
            pass

    return step


def _close_if_open(number: int, inode: int) -> None:
    with contextlib.suppress(OSError):
        if os.fstat(number).st_ino == inode:
            os.close(number)


def _release(world: World) -> Step:
    buffer = DmaBuf.from_fd(world.memfd(kept=False), backend=world.backend)
    number = buffer.fileno()
    inode = os.fstat(number).st_ino

    def step() -> None:
        buffer.release()

    def tidy() -> None:
        # It was the caller's, or it is the buffer's still: whichever it is, it is open.
        assert os.fstat(number).st_ino == inode
        if buffer.closed:
            os.close(number)
        else:
            buffer.close()

    world.afterwards(tidy)
    return step


def _from_fd(world: World) -> Step:
    number = world.memfd(kept=False)
    inode = os.fstat(number).st_ino

    def step() -> None:
        DmaBuf.from_fd(number, backend=world.backend).close()

    # An interruption leaves it to the caller or takes it over; nobody is told which when it was the very last moment.
    world.afterwards(lambda: _close_if_open(number, inode))
    return step


def _allocator(world: World, flag: DmaBufAllocatorFlag) -> DmaBufAllocator:
    """No node is opened but /dev/null; what it answers is the small kernel's."""
    return DmaBufAllocator(flag, providers=[Provider(flag, "/dev/null")], backend=world.backend)


def _opened(world: World) -> Step:
    def step() -> None:
        with _allocator(world, HEAP):
            pass

    return step


def _alloc(flag: DmaBufAllocatorFlag) -> Callable[[World], Step]:
    def prepare(world: World) -> Step:
        allocator = _allocator(world, flag)
        world.afterwards(allocator.close)

        def step() -> None:
            allocator.alloc("points", 4096).close()

        return step

    return prepare


def _alloc_in_a_block(world: World) -> Step:
    allocator = _allocator(world, UDMABUF)
    world.afterwards(allocator.close)

    def step() -> None:
        with allocator.alloc("points", 4096) as buffer, DmaSyncer(buffer):
            pass

    return step


def _export_buffers(flag: DmaBufAllocatorFlag) -> Callable[[World], Step]:
    def prepare(world: World) -> Step:
        allocator = _allocator(world, flag)
        world.afterwards(allocator.close)

        def step() -> None:
            for frame in allocator.export_buffers(2, [4096, 100]):
                frame.close()

        return step

    return prepare


def _frame_window(world: World) -> Step:
    allocator = _allocator(world, HEAP)
    (frame,) = allocator.export_buffers(1, [4096, 4096])
    world.afterwards(frame.close)
    world.afterwards(allocator.close)

    def step() -> None:
        with frame.syncer(SyncType.READ):
            pass

    return step


def _export_sync_file(world: World) -> Step:
    buffer = world.buffer()

    def step() -> None:
        with buffer.export_sync_file(SyncType.READ) as fences:
            fences.wait(0)

    return step


def _import_sync_file(world: World) -> Step:
    buffer = world.buffer()
    fences = buffer.export_sync_file(SyncType.READ)
    world.afterwards(fences.close)

    def step() -> None:
        buffer.import_sync_file(fences, SyncType.WRITE)

    return step


def _sync_file_of_a_number(world: World) -> Step:
    number = world.memfd(kept=False)
    inode = os.fstat(number).st_ino

    def step() -> None:
        SyncFile(number, backend=world.backend).close()

    world.afterwards(lambda: _close_if_open(number, inode))
    return step


def operations() -> Iterator[Operation]:
    yield Operation("DmaBuf closed in a window", _closed_in_a_window, block=True)
    yield Operation("DmaBuf closed in two windows", _closed_in_two_windows, block=True)
    yield Operation("DmaBufs closed in a group", _closed_in_a_group, block=True)
    yield Operation("DmaBuf closed in its cpu_access", _closed_in_its_access, block=True)
    yield Operation("DmaBuf dropped in a window", _dropped_in_a_window)
    yield Operation("cpu_access that maps", _mapped_by_the_first_access, block=True)
    yield Operation("DmaBuf.map", _map)
    yield Operation("DmaBuf.dup", _dup)
    yield Operation("DmaBuf.release", _release)
    yield Operation("DmaBuf.from_fd", _from_fd)
    yield Operation("DmaBufAllocator", _opened)
    yield Operation("DmaBufAllocator.alloc, heap", _alloc(HEAP))
    yield Operation("DmaBufAllocator.alloc, udmabuf", _alloc(UDMABUF))
    yield Operation("DmaBufAllocator.alloc and a window", _alloc_in_a_block)
    yield Operation("DmaBufAllocator.export_buffers, heap", _export_buffers(HEAP))
    yield Operation("DmaBufAllocator.export_buffers, udmabuf", _export_buffers(UDMABUF))
    yield Operation("FrameBuffer.syncer", _frame_window, block=True)
    yield Operation("DmaBuf.export_sync_file", _export_sync_file)
    yield Operation("DmaBuf.import_sync_file", _import_sync_file)
    yield Operation("SyncFile of a number", _sync_file_of_a_number)
