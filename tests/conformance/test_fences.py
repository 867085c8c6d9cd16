"""Fences that have not signalled: START, poll and sync files wait for them as the kernel's do (vgem's, there)."""

from __future__ import annotations

import errno
import select
import signal
import threading
from collections.abc import Callable

import pytest

from dmasync import uapi
from tests.conformance.kernels import (
    END_READ,
    END_RW,
    END_WRITE,
    START_READ,
    START_RW,
    START_WRITE,
    VGEM_NAME,
    System,
    refused,
)

READ, WRITE = uapi.DMA_BUF_SYNC_READ, uapi.DMA_BUF_SYNC_WRITE
IN, OUT = select.POLLIN, select.POLLOUT


class Starting(threading.Thread):
    """START in a thread of its own, which waits already when this is made."""

    def __init__(self, system: System, buffer: int) -> None:
        super().__init__(daemon=True)
        self._system, self._buffer = system, buffer
        self._through = threading.Event()
        self.start()
        assert not self.is_through(0.05)

    def run(self) -> None:
        self._system.sync(self._buffer, START_RW)
        self._through.set()

    def is_through(self, seconds: float) -> bool:
        """Whether START has returned, or does within *seconds*."""
        return self._through.wait(seconds)


@pytest.fixture
def alarm() -> object:
    """A timer whose ticks interrupt system calls, and do nothing else."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    yield lambda seconds, every=0.0: signal.setitimer(signal.ITIMER_REAL, seconds, every)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_pending_fence_tells_its_name_and_no_time(system: System) -> None:
    info = system.info(system.fence().sync_file)
    assert VGEM_NAME.fullmatch(info.name)
    assert (info.status, info.num_fences) == (0, 1)
    assert info.fences[0] == ("vgem", "unbound", 0, 0, 0)


def test_a_signalled_fence_tells_its_time(system: System) -> None:
    fence = system.fence()
    fence.signal()
    info = system.info(fence.sync_file)
    names = system.signalled_names if system.since("6.17") else ("vgem", "unbound")
    assert info.name.startswith("-".join(names)[:31])
    assert (info.status, info.num_fences) == (1, 1)
    *told, status, flags, timestamp = info.fences[0]
    assert (*told, status, flags) == (*names, 1, 0)
    assert timestamp > 0


@pytest.mark.parametrize(
    ("asks", "learns"),
    [
        (lambda system, fd: None, False),
        (lambda system, fd: system.info(fd), False),
        (lambda system, fd: system.info(fd, room=0), True),
        (lambda system, fd: system.backend.poll(fd, IN, 0), True),
        (
            lambda system, fd: (
                system.since("6.7")
                and system.backend.ioctl(fd, uapi.SYNC_IOC_SET_DEADLINE, uapi.sync_set_deadline.pack(1, 0))
            ),
            True,
        ),
    ],
    ids=["nobody", "info", "info-without-room", "poll", "deadline"],
)
def test_several_fences_give_up_their_name_when_somebody_asks_whether_all_have_signalled(
    system: System, asks: Callable[[System, int], object], learns: bool
) -> None:
    fences = [system.fence(), system.fence()]
    several = system.merge(fences[0].sync_file, fences[1].sync_file, name=b"")
    for fence in fences:
        fence.signal()
    asks(system, several)
    name = "detached-driver-signaled-timeli" if learns and system.since("6.17") else "dma_fence_array-unbound"
    assert system.info(several).name.startswith(name)


@pytest.mark.parametrize("room", [0, 1])
def test_the_status_is_told_without_room_for_the_fences_too(system: System, room: int) -> None:
    fence = system.fence()
    assert system.info(fence.sync_file, room).status == 0
    fence.signal()
    assert system.info(fence.sync_file, room).status == 1


# Who waits for whom: readers for writers, writers for everybody


@pytest.mark.parametrize(
    ("usage", "access", "waits"),
    [
        (WRITE, START_READ, True),
        (WRITE, START_WRITE, True),
        (WRITE, START_RW, True),
        (READ | WRITE, START_READ, True),
        (READ, START_READ, False),
        (READ, START_WRITE, True),
        (READ, START_RW, True),
    ],
)
def test_start_waits_for_the_fences_that_matter_to_it(
    system: System, provider: str, alarm: object, usage: int, access: int, waits: bool
) -> None:
    buffer, fence = system.buffer(provider), system.fence()
    system.import_(buffer, fence.sync_file, usage)
    if waits:
        alarm(0.05, 0.05)
        with refused(errno.EINTR):
            system.sync(buffer, access)
        alarm(0)
    else:
        system.sync(buffer, access)
    fence.signal()
    system.sync(buffer, access)


@pytest.mark.parametrize("end", [END_READ, END_WRITE, END_RW])
def test_end_never_waits(system: System, provider: str, end: int) -> None:
    buffer, fence = system.buffer(provider), system.fence()
    system.sync(buffer, START_RW)
    system.import_(buffer, fence.sync_file, WRITE)
    system.sync(buffer, end)


def test_a_start_that_was_interrupted_has_done_the_exporters_part(system: System, alarm: object) -> None:
    buffer, fence = system.buffer("udmabuf"), system.fence()
    with refused(errno.EINVAL):
        system.sync(buffer, END_RW)
    system.import_(buffer, fence.sync_file, WRITE)
    alarm(0.05, 0.05)
    with refused(errno.EINTR):
        system.sync(buffer, START_RW)
    alarm(0)
    system.sync(buffer, END_RW)


def test_a_start_in_another_thread_wakes_at_the_signal(system: System, provider: str) -> None:
    buffer, fence = system.buffer(provider), system.fence()
    system.import_(buffer, fence.sync_file, WRITE)
    thread = Starting(system, buffer)
    assert not thread.is_through(0.05)
    fence.signal()
    assert thread.is_through(10)
    thread.join()


@pytest.mark.parametrize(
    ("already", "added", "waits"),
    [(1, 1, False), (1, 4, False), (1, 5, True), (2, 1, True), (4, 1, True)],
    ids=["behind the last", "as many as there is room for", "the list grows", "in the second's place", "one of four"],
)
def test_a_start_that_waits_sees_what_comes_into_places_ahead_or_makes_the_list_grow(
    system: System, provider: str, already: int, added: int, waits: bool
) -> None:
    buffer, first = system.buffer(provider), system.fence()
    system.import_(buffer, first.sync_file, WRITE)
    for _ in range(already - 1):
        done_soon = system.fence()
        system.import_(buffer, done_soon.sync_file, WRITE)
        done_soon.signal()
    thread = Starting(system, buffer)
    later = [system.fence() for _ in range(added)]
    everything = later[0].sync_file
    for fence in later[1:]:
        everything = system.merge(everything, fence.sync_file)
    system.import_(buffer, everything, WRITE)
    first.signal()
    assert thread.is_through(0.05 if waits else 10) is not waits
    for fence in later:
        fence.signal()
    assert thread.is_through(10)
    thread.join()


def test_start_waits_for_all_of_several_fences(system: System, provider: str, alarm: object) -> None:
    buffer, fences = system.buffer(provider), [system.fence() for _ in range(3)]
    for fence in fences:
        system.import_(buffer, fence.sync_file, WRITE)
    for fence in (fences[1], fences[0], fences[2]):
        alarm(0.05, 0.05)
        with refused(errno.EINTR):
            system.sync(buffer, START_READ)
        alarm(0)
        fence.signal()
    system.sync(buffer, START_READ)


def test_interruptions_come_one_after_the_other_until_the_signal(system: System, provider: str, alarm: object) -> None:
    buffer, fence = system.buffer(provider), system.fence()
    system.import_(buffer, fence.sync_file, WRITE)
    alarm(0.02, 0.02)
    for _ in range(5):
        with refused(errno.EINTR):
            system.sync(buffer, START_RW)
    alarm(0)
    fence.signal()
    system.sync(buffer, START_RW)


def test_importing_a_fence_does_not_wait_and_is_no_start(system: System) -> None:
    buffer, fence = system.buffer("udmabuf"), system.fence()
    system.import_(buffer, fence.sync_file, WRITE)
    with refused(errno.EINVAL):
        system.sync(buffer, END_RW)


# Poll


@pytest.mark.parametrize(
    ("usage", "ready"),
    [(WRITE, 0), (READ, IN), (READ | WRITE, 0)],
)
def test_poll_tells_who_may_go_on(system: System, provider: str, usage: int, ready: int) -> None:
    buffer, fence = system.buffer(provider), system.fence()
    system.import_(buffer, fence.sync_file, usage)
    assert system.backend.poll(buffer, IN | OUT, 0) == ready
    assert system.backend.poll(buffer, IN, 0) == ready & IN
    assert system.backend.poll(buffer, OUT, 0) == 0
    fence.signal()
    assert system.backend.poll(buffer, IN | OUT, 0) == IN | OUT


@pytest.mark.parametrize(("events", "references"), [(IN, 1), (OUT, 1), (IN | OUT, 2), (0, 0), (select.POLLPRI, 0)])
def test_a_poll_holds_the_buffer_until_the_signal(system: System, provider: str, events: int, references: int) -> None:
    buffer, fence = system.buffer(provider), system.fence()
    system.import_(buffer, fence.sync_file, WRITE)
    for _ in range(2):
        assert system.backend.poll(buffer, events, 0) == 0
        assert system.fdinfo(buffer)["count"] == str(1 + references)
    fence.signal()
    assert system.fdinfo(buffer)["count"] == "1"


def test_a_poll_with_a_time_out_ends_at_the_signal(system: System, provider: str) -> None:
    buffer, fence = system.buffer(provider), system.fence()
    system.import_(buffer, fence.sync_file, WRITE)
    assert system.backend.poll(buffer, IN, 20) == 0
    timer = threading.Timer(0.05, fence.signal)
    timer.start()
    assert system.backend.poll(buffer, IN, 9000) == IN
    timer.join()
    assert system.backend.poll(buffer, IN | OUT, None) == IN | OUT


def test_a_poll_waits_for_the_next_fence_after_the_first(system: System, provider: str) -> None:
    buffer, first, second = system.buffer(provider), system.fence(), system.fence()
    system.import_(buffer, first.sync_file, WRITE)
    system.import_(buffer, second.sync_file, WRITE)
    assert system.backend.poll(buffer, IN, 0) == 0
    first.signal()
    assert system.backend.poll(buffer, IN, 0) == 0
    second.signal()
    assert system.backend.poll(buffer, IN, 0) == IN


def test_a_poll_that_hangs_on_a_fence_does_not_see_that_others_are_done(system: System, provider: str) -> None:
    buffer, reader, writer = system.buffer(provider), system.fence(), system.fence()
    system.import_(buffer, reader.sync_file, READ)
    system.import_(buffer, writer.sync_file, WRITE)
    assert system.backend.poll(buffer, OUT, 0) == 0
    writer.signal()
    assert system.backend.poll(buffer, IN | OUT, 0) == IN
    reader.signal()
    assert system.backend.poll(buffer, IN | OUT, 0) == IN | OUT


def test_a_sync_file_polls_ready_at_the_signal(system: System) -> None:
    fence = system.fence()
    for events in (IN, OUT, IN | OUT):
        assert system.backend.poll(fence.sync_file, events, 0) == 0
    timer = threading.Timer(0.05, fence.signal)
    timer.start()
    assert system.backend.poll(fence.sync_file, IN | OUT, None) == IN
    timer.join()


def test_polling_a_buffer_goes_on_after_a_signal_handler(system: System, provider: str, alarm: object) -> None:
    buffer, fence = system.buffer(provider), system.fence()
    system.import_(buffer, fence.sync_file, WRITE)
    alarm(0.01, 0.01)
    assert system.backend.poll(buffer, IN, 60) == 0
    alarm(0)


# What an export holds


@pytest.mark.parametrize(
    ("usage", "access", "held"),
    [(WRITE, READ, True), (WRITE, WRITE, True), (READ, READ, False), (READ, WRITE, True), (READ, 3, True)],
)
def test_an_export_holds_what_its_access_would_wait_for(
    system: System, provider: str, usage: int, access: int, held: bool
) -> None:
    buffer, fence = system.buffer(provider), system.fence()
    system.import_(buffer, fence.sync_file, usage)
    exported = system.export(buffer, access)
    info = system.info(exported)
    assert info.status == (0 if held else 1)
    assert info.name == (system.info(fence.sync_file).name if held else system.stub)
    fence.signal()
    assert system.info(exported).status == 1
    assert system.info(system.export(buffer, access)).name == system.stub


def test_an_export_of_several_fences_holds_them_all(system: System, provider: str) -> None:
    buffer, fences = system.buffer(provider), [system.fence() for _ in range(3)]
    for fence in fences:
        system.import_(buffer, fence.sync_file, WRITE)
    exported = system.export(buffer)
    info = system.info(exported)
    assert info.name.startswith("dma_fence_array-unbound")
    assert info.name.endswith("-1")
    assert (info.status, info.num_fences) == (0, 3)
    assert [entry[:3] for entry in info.fences[:3]] == [("vgem", "unbound", 0)] * 3
    for done, fence in enumerate(fences, 1):
        assert system.info(exported, 0).status == 0
        assert system.backend.poll(exported, IN, 0) == 0
        fence.signal()
        assert [entry[2] for entry in system.info(exported).fences[:3]] == [1] * done + [0] * (3 - done)
    assert (system.info(exported).status, system.info(exported, 0).status) == (1, 1)
    assert system.backend.poll(exported, IN, 0) == IN


def test_too_little_room_for_the_fences_is_refused(system: System, provider: str) -> None:
    buffer, fences = system.buffer(provider), [system.fence() for _ in range(3)]
    for fence in fences:
        system.import_(buffer, fence.sync_file, WRITE)
    exported = system.export(buffer)
    for room in (1, 2):
        with refused(errno.EINVAL):
            system.info(exported, room)
    assert system.info(exported, 3).num_fences == 3
    assert system.info(exported, 0).num_fences == 3


def test_importing_an_export_of_several_brings_each_fence(system: System, provider: str, alarm: object) -> None:
    source, target, fences = system.buffer(provider), system.buffer(provider), [system.fence() for _ in range(2)]
    for fence in fences:
        system.import_(source, fence.sync_file, WRITE)
    system.import_(target, system.export(source), READ)
    assert system.info(system.export(target, WRITE)).num_fences == 2
    assert system.info(system.export(target, READ)).name == system.stub
    fences[0].signal()
    assert system.info(system.export(target, WRITE)).name == system.info(fences[1].sync_file).name
    alarm(0.05, 0.05)
    with refused(errno.EINTR):
        system.sync(target, START_WRITE)
    alarm(0)
    system.sync(target, START_READ)


def test_the_same_fence_twice_is_one(system: System, provider: str) -> None:
    buffer, fence = system.buffer(provider), system.fence()
    system.import_(buffer, fence.sync_file, WRITE)
    system.import_(buffer, fence.sync_file, WRITE)
    assert system.info(system.export(buffer)).num_fences == 1


def test_a_fence_imported_for_writing_takes_the_place_of_the_same_for_reading(system: System, provider: str) -> None:
    buffer, fence = system.buffer(provider), system.fence()
    system.import_(buffer, fence.sync_file, READ)
    assert system.info(system.export(buffer, READ)).name == system.stub
    system.import_(buffer, fence.sync_file, WRITE)
    assert system.info(system.export(buffer, READ)).status == 0
    assert system.info(system.export(buffer, WRITE)).num_fences == 1


def test_a_fence_imported_for_reading_stands_beside_the_same_for_writing(system: System, provider: str) -> None:
    buffer, fence = system.buffer(provider), system.fence()
    system.import_(buffer, fence.sync_file, WRITE)
    system.import_(buffer, fence.sync_file, READ)
    assert system.info(system.export(buffer, READ)).num_fences == 1
    assert system.info(system.export(buffer, WRITE)).num_fences == 2


@pytest.mark.parametrize(
    ("count", "left"),
    # The list has room for 5 at first, then for 13: six fences and six again fit, seven and seven do not.
    [(2, 2), (3, 2), (4, 3), (6, 6), (7, 6)],
)
def test_only_a_list_that_grows_drops_what_has_signalled(system: System, provider: str, count: int, left: int) -> None:
    buffer, fences = system.buffer(provider), [system.fence() for _ in range(count)]
    for fence in fences:
        system.import_(buffer, fence.sync_file, WRITE)
    everything = system.export(buffer)
    fences[0].signal()
    # The second one takes the place of the first, and still stands in its own, unless the first is gone.
    system.import_(buffer, everything, WRITE)
    assert system.info(system.export(buffer)).num_fences == left


@pytest.mark.parametrize(
    ("at_once", "in_all", "left"),
    [
        # A list for one fence has room for 5 and grows to 13; one for five has room for 9, one for nine for 21.
        (1, 3, 3),
        (1, 4, 3),
        (1, 11, 11),
        (1, 12, 11),
        (5, 7, 7),
        (5, 8, 7),
        (9, 19, 19),
        (9, 20, 19),
    ],
)
def test_how_many_fences_a_list_has_room_for(system: System, at_once: int, in_all: int, left: int) -> None:
    fences = [system.fence() for _ in range(in_all)]
    first_two = system.merge(fences[0].sync_file, fences[1].sync_file)
    everything = fences[0].sync_file
    for fence in fences[1:at_once]:
        everything = system.merge(everything, fence.sync_file)
    buffer = system.buffer("udmabuf")
    system.import_(buffer, everything, WRITE)
    for fence in fences[at_once:]:
        system.import_(buffer, fence.sync_file, WRITE)
    fences[0].signal()
    # With room for two more, the second one takes the first one's place and keeps its own; else the first is gone.
    system.import_(buffer, first_two, WRITE)
    assert len(pending(system, system.export(buffer))) == left


def pending(system: System, sync_file: int) -> list[object]:
    """What a sync file tells of the fences that it waits for."""
    info = system.info(sync_file, room=32)
    return [fence for fence in info.fences[: info.num_fences] if fence[2] == 0]


# Merging


def test_merging_pending_files_holds_both(system: System) -> None:
    one, other = system.fence(), system.fence()
    merged = system.merge(one.sync_file, other.sync_file, b"both")
    info = system.info(merged)
    assert (info.name, info.status, info.num_fences) == ("both", 0, 2)
    one.signal()
    assert system.info(merged).status == 0
    other.signal()
    assert system.info(merged).status == 1
    assert system.info(merged).num_fences == 2


def test_merging_without_a_name_is_named_after_what_it_holds(system: System) -> None:
    one, other = system.fence(), system.fence()
    assert system.info(system.merge(one.sync_file, other.sync_file, b"")).name.startswith("dma_fence_array-")
    assert VGEM_NAME.fullmatch(system.info(system.merge(one.sync_file, one.sync_file, b"")).name)


def test_merging_leaves_out_what_is_signalled(system: System) -> None:
    one, other = system.fence(), system.fence()
    one.signal()
    merged = system.merge(one.sync_file, other.sync_file, b"")
    assert system.info(merged).name == system.info(other.sync_file).name
    other.signal()
    both = system.info(system.merge(one.sync_file, other.sync_file, b""))
    assert (both.name, both.status, both.num_fences) == (system.stub, 1, 1)
    assert both.fences[0][4] == system.info(other.sync_file).fences[0][4]


def test_merging_merged_files_is_flat(system: System) -> None:
    fences = [system.fence() for _ in range(3)]
    first = system.merge(fences[2].sync_file, fences[0].sync_file)
    second = system.merge(fences[1].sync_file, fences[0].sync_file)
    assert system.info(system.merge(first, second)).num_fences == 3


def test_a_deadline_on_a_pending_fence_is_taken(system: System) -> None:
    one, other = system.fence(), system.fence()
    for fd in (one.sync_file, system.merge(one.sync_file, other.sync_file)):
        argument = uapi.sync_set_deadline.pack(1, 0)
        if system.since("6.7"):
            assert system.backend.ioctl(fd, uapi.SYNC_IOC_SET_DEADLINE, argument) == 0
        else:
            with refused(errno.ENOTTY):
                system.backend.ioctl(fd, uapi.SYNC_IOC_SET_DEADLINE, argument)


def test_closing_everything_with_a_poll_pending_leaves_nothing(system: System, provider: str) -> None:
    buffer, fence = system.buffer(provider), system.fence()
    system.import_(buffer, fence.sync_file, WRITE)
    system.backend.poll(buffer, IN | OUT, 0)
    system.backend.poll(fence.sync_file, IN, 0)
    system.close(buffer)
    fence.signal()
