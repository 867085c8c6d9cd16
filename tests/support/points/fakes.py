"""Windows on the fake kernel and its layers: the journal must show an END for each START."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from dmasync import DmaBuf, DmaBufAllocator, DmaBufAllocatorFlag, DmaSyncer, DmaSyncerGroup, SyncType
from dmasync.fakes import FakeBackend, faults
from tests.support.points.explore import Operation, Step
from tests.support.points.world import Call, World


class FakeWorld(World):
    """One fake backend a run; the descriptors and mappings are the fake kernel's."""

    backend: FakeBackend

    def __init__(self, points: ModuleType, *, direct: bool) -> None:
        self._fake = FakeBackend()
        super().__init__(points, direct=direct)
        self.backend = self._fake

    def calls(self) -> list[Call]:
        return [
            (attempt.fd, attempt.flags or 0, attempt.buffer or 0, attempt.errno)
            for attempt in self._fake.journal.attempts
            if attempt.succeeded or attempt.flags is not None
        ]

    def strays(self) -> int:
        return sum(attempt.errno == errno.EBADF for attempt in self._fake.journal.attempts)

    def descriptors(self) -> int:
        return len(self._fake.kernel.open_fds())

    def mappings(self) -> int:
        return len(self._fake.kernel.mappings())

    def forgive(self) -> None:
        """The plans of these operations end by themselves."""

    def buffer(self) -> DmaBuf:
        with DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=self._fake) as allocator:
            buffer = allocator.alloc("points", 4096)
        self.afterwards(buffer.close)
        return buffer


def _fresh(world: World) -> Step:
    buffer = world.buffer()

    def step() -> None:
        with DmaSyncer(buffer, SyncType.WRITE):
            pass

    return step


def _reused(world: World) -> Step:
    buffer = world.buffer()
    syncer = DmaSyncer(buffer, SyncType.WRITE)
    world.watch(syncer, buffer.fileno())

    def step() -> None:
        with syncer:
            pass

    return step


def _group(world: World) -> Step:
    group = DmaSyncerGroup([(world.buffer(), SyncType.READ) for _ in range(3)])

    def step() -> None:
        with group:
            pass

    return step


def _access(world: World) -> Step:
    world.count_mappings()
    buffer = world.buffer()

    def step() -> None:
        with buffer.cpu_access(SyncType.WRITE) as view:
            view[0] = 1

    return step


def _with_plans(prepare: Callable[[World], Step], *plans: Any) -> Callable[[World], Step]:
    def prepared(world: World) -> Step:
        step = prepare(world)
        assert isinstance(world, FakeWorld)
        world.backend.inject(*plans)
        return step

    return prepared


def operations() -> Iterator[Operation]:
    """Windows alone: a layer's close() is Python, and may be interrupted before it reaches the kernel beneath."""
    if sys.version_info[:2] == (3, 14):
        # There an exception can come between a lock and its with block (cpython gh-148874), which leaves it locked.
        return

    def on_the_fake(name: str, prepare: Callable[[World], Step], *, block: bool = False) -> Operation:
        return Operation(f"FakeBackend: {name}", prepare, block=block, world=FakeWorld)

    for name, prepare in (("DmaSyncer fresh", _fresh), ("DmaSyncerGroup reused", _group), ("cpu_access", _access)):
        yield on_the_fake(name, prepare, block=True)
        storm = _with_plans(prepare, faults.storm(errno.EINTR, 2))
        yield on_the_fake(f"{name}, START interrupted twice", storm, block=True)
    yield on_the_fake("DmaSyncer reused", _reused, block=True)
