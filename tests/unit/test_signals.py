"""Whatever a signal handler raises, wherever it runs: each START has its one END, each descriptor its one close."""

from __future__ import annotations

import mmap
import os
import sys

import pytest

from dmasync import (
    DmaBuf,
    DmaBufAllocator,
    DmaBufAllocatorFlag,
    DmaSyncer,
    DmaSyncerGroup,
    RetryPolicy,
    SyncType,
    compiled,
)
from tests.support.real_memfds import MemfdBackend, RecordingBackend

pytestmark = [
    pytest.mark.timeout(method="thread"),
    pytest.mark.skipif(
        not compiled,
        reason="in plain Python a storm may delay an END until its window is dropped, and lose it there",
    ),
    pytest.mark.skipif(
        sys.gettrace() is not None,
        reason="a trace function (coverage) is a place more where exceptions surface: run without one",
    ),
]

ROUNDS = 300
# Few: test_points.py tries every place. Real signals also come inside system calls, where no place can be chosen.
CMA, UDMABUF = DmaBufAllocatorFlag.CMA_HEAP, DmaBufAllocatorFlag.UDMABUF


@pytest.fixture
def backend():
    return RecordingBackend()


class Windows:
    """Checks what succeeded: START and END of each buffer alternate, and the windows that are open are known."""

    def __init__(self, backend: RecordingBackend) -> None:
        self._backend = backend
        self.opened: list[int] = []
        self.seen = 0

    def check(self) -> None:
        for fd, step in self._backend.succeeded():
            self.seen += 1
            if step == "START":
                assert fd not in self.opened
                self.opened.append(fd)
            else:
                assert self.opened, f"END of {fd} without START"
                assert self.opened.pop() == fd

    def check_shut(self) -> None:
        self.check()
        assert self.opened == []


@pytest.fixture
def windows(backend):
    windows = Windows(backend)
    yield windows
    windows.check_shut()
    assert windows.seen > 0


RETRIES = pytest.mark.parametrize(
    "retry",
    [RetryPolicy(), RetryPolicy(deadline=60.0), RetryPolicy(max_attempts=2)],
    ids=["default", "deadline", "max"],
)


@RETRIES
def test_a_syncer_in_a_with_block(storm, backend, windows, retry):
    syncer = DmaSyncer(5, SyncType.READ, backend=backend, retry=retry)

    def step() -> None:
        while True:
            with syncer:
                pass

    storm(ROUNDS, step, windows.check_shut)
    assert not syncer.active


def test_a_syncer_made_for_each_window(storm, backend, windows):
    def step() -> None:
        while True:
            with DmaSyncer(5, backend=backend):
                pass

    storm(ROUNDS, step, windows.check_shut)


@RETRIES
def test_a_syncer_started_and_ended_by_hand(storm, backend, windows, retry):
    syncer = DmaSyncer(5, backend=backend, retry=retry)

    def step() -> None:
        while True:
            syncer.start()
            syncer.end()

    def check() -> None:
        windows.check()
        assert windows.opened == [5] * syncer.active
        syncer.end()
        assert not syncer.active
        windows.check_shut()

    storm(ROUNDS, step, check)


def test_a_syncer_that_is_moved_while_open(storm, backend, windows):
    def step() -> None:
        while True:
            syncer = DmaSyncer(5, backend=backend)
            syncer.start()
            heir = syncer.move()
            syncer.end()
            heir.end()

    storm(ROUNDS, step, windows.check_shut)


def test_a_syncer_that_is_dropped_while_open(storm, backend, windows):
    def step() -> None:
        while True:
            syncer = DmaSyncer(5, backend=backend)
            syncer.start()
            del syncer

    storm(ROUNDS, step, windows.check_shut)


@RETRIES
def test_a_group_in_a_with_block(storm, backend, windows, retry):
    group = DmaSyncerGroup(
        [(5, SyncType.READ), (6, SyncType.WRITE), (7, SyncType.READ_WRITE)], backend=backend, retry=retry
    )

    def step() -> None:
        while True:
            with group:
                pass

    storm(ROUNDS, step, windows.check_shut)
    assert not group.active


def test_a_group_started_and_ended_by_hand(storm, backend, windows):
    group = DmaSyncerGroup([(5, SyncType.READ), (6, SyncType.WRITE)], backend=backend)

    def step() -> None:
        while True:
            group.start()
            group.end()

    def check() -> None:
        windows.check()
        assert windows.opened == [5, 6] * group.active
        group.end()
        windows.check_shut()

    storm(ROUNDS, step, check)


def test_a_group_made_for_each_window_and_dropped(storm, backend, windows):
    def step() -> None:
        while True:
            group = DmaSyncerGroup([(5, SyncType.READ), (6, SyncType.WRITE)], backend=backend)
            group.start()
            del group

    storm(ROUNDS, step, windows.check_shut)


@pytest.fixture
def buffer(backend):
    memfd = os.memfd_create("bytes", os.MFD_CLOEXEC)
    os.ftruncate(memfd, mmap.PAGESIZE)
    with DmaBuf.from_fd(memfd, backend=backend) as buffer:
        yield buffer


def test_cpu_access(storm, backend, windows, buffer):
    backend.succeeded()

    def step() -> None:
        while True:
            with buffer.cpu_access(SyncType.WRITE) as view:
                view[0] = 1

    storm(ROUNDS, step, windows.check_shut)


def test_cpu_access_used_again(storm, backend, windows, buffer):
    access = buffer.cpu_access(SyncType.READ)

    def step() -> None:
        while True:
            with access as view:
                view[0]

    storm(ROUNDS, step, windows.check_shut)
    with access as view:
        assert view[0] == 0


def test_a_buffer_that_is_closed_while_a_window_is_open_is_closed_by_its_end(
    storm, backend, windows, buffer, open_files
):
    before = open_files()

    def step() -> None:
        while True:
            duplicate = buffer.dup()
            with DmaSyncer(duplicate):
                duplicate.close()

    def check() -> None:
        windows.check_shut()
        assert open_files() == before

    storm(ROUNDS, step, check)


def test_the_allocator_loses_no_device(storm, open_files):
    backend = MemfdBackend()
    before = open_files()

    def step() -> None:
        while True:
            with DmaBufAllocator(UDMABUF, backend=backend):
                pass

    def check() -> None:
        assert open_files() == before

    storm(ROUNDS, step, check)
    backend.shut_down()


@pytest.mark.parametrize("flag", [CMA, UDMABUF], ids=lambda flag: flag.name)
def test_alloc_loses_no_buffer_and_closes_none_twice(storm, open_files, flag):
    backend = MemfdBackend()
    allocator = DmaBufAllocator(flag, backend=backend)
    before = open_files()

    def step() -> None:
        while True:
            with allocator.alloc("frame", mmap.PAGESIZE) as buffer, buffer.dup():
                pass

    def check() -> None:
        assert open_files() == before

    storm(ROUNDS, step, check)
    allocator.close()
    backend.shut_down()


def test_export_buffers_gives_all_or_loses_none(storm, open_files):
    backend = MemfdBackend()
    allocator = DmaBufAllocator(UDMABUF, backend=backend)
    before = open_files()

    def step() -> None:
        while True:
            for frame in allocator.export_buffers(3, [100, 200]):
                frame.close()

    def check() -> None:
        assert open_files() == before

    storm(ROUNDS, step, check)
    allocator.close()
    backend.shut_down()
