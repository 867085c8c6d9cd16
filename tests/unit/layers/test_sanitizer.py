"""The sanitizer finds what is wrong and is silent about what is right; the gallery has a picture of each finding."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from dmasync import (
    DmaBufAllocator,
    DmaBufAllocatorFlag,
    DmaSyncer,
    DmaSyncerGroup,
    DmaSyncError,
    RetryPolicy,
    Step,
    SyncType,
)
from dmasync.fakes import FakeBackend, FakeDevice, FakeKernel, FaultInjector, Journal, Recorder, Sanitizer, faults
from dmasync.fakes.journal import Event
from dmasync.fakes.sanitizer import KINDS
from tests.support.child import holds_in_a_child
from tests.unit.layers.test_injector import SYNC, edge, heap_buffer

READ, WRITE, RW = SyncType.READ, SyncType.WRITE, SyncType.READ_WRITE
SIZE = 16384


@pytest.fixture(params=["coherent", "watched", "noncoherent", "other seed"])
def backend(request):
    seed = 17 if request.param == "other seed" else 0
    return FakeBackend(coherent=request.param in ("coherent", "watched"), watch=request.param != "coherent", seed=seed)


@pytest.fixture(params=[DmaBufAllocatorFlag.UDMABUF, DmaBufAllocatorFlag.SYSTEM_HEAP], ids=["udmabuf", "heap"])
def frames(request, backend):
    with DmaBufAllocator(request.param, backend=backend) as allocator:
        made = [allocator.alloc(f"frame{n}", SIZE) for n in range(3)]
    yield made
    for frame in made:
        frame.close()
    assert Sanitizer(backend).findings() == []


def test_reading_and_writing_in_windows(backend, frames):
    with FakeDevice(backend) as device:
        for number in range(1, 6):
            for frame in frames:
                device.write(frame, bytes([number]) * SIZE)
                with frame.cpu_access(READ) as view:
                    assert view[number] == number
                with frame.cpu_access(WRITE) as view:
                    view[:] = bytes([number + 100]) * SIZE
                assert device.read(frame) == bytes([number + 100]) * SIZE


def test_a_mapping_kept_for_ever_and_used_in_windows_only(backend, frames):
    mapping = frames[0].map()
    view = memoryview(mapping)
    for number in range(5):
        with DmaSyncer(frames[0], RW):
            view[number] = number
    with DmaSyncer(frames[0], READ):
        assert bytes(view[:5]) == bytes(range(5))
    view.release()
    mapping.close()


def test_windows_under_storms(backend, frames):
    backend.inject(faults.mix(3, rate=0.5))
    for number in range(30):
        with DmaSyncerGroup([(frame, WRITE) for frame in frames]):
            pass
        with frames[number % 3].cpu_access(RW) as view:
            view[number] = number


def test_a_start_that_fails_for_good(backend, frames):
    backend.inject(faults.error(errno.EIO, nth=2))
    with pytest.raises(DmaSyncError), DmaSyncerGroup([(frame, WRITE) for frame in frames]):
        pass


def test_an_end_that_fails_for_good_is_a_window_never_ended(backend):
    with DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=backend) as allocator:
        frame = allocator.alloc("frame", SIZE)
    backend.inject(faults.error(errno.EIO, on=Step.END))
    with pytest.raises(DmaSyncError), DmaSyncer(frame):
        pass
    frame.close()
    (finding,) = Sanitizer(backend).findings()
    assert finding.kind == "start-never-ended"
    assert finding.step is Step.END


def test_nested_windows_for_reading(backend, frames):
    with frames[0].cpu_access(READ) as outer, frames[0].cpu_access(READ) as inner:
        assert bytes(outer) == bytes(inner)


def test_a_reader_inside_a_writer_that_has_not_written_yet(backend, frames):
    with DmaSyncer(frames[0], RW), DmaSyncer(frames[0], READ):
        pass


def test_threads_that_take_turns(backend, frames):
    turn = threading.Lock()

    def work(number: int) -> None:
        for _ in range(20):
            with turn, frames[0].cpu_access(RW) as view:
                view[number] = (view[number] + 1) % 256

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with frames[0].cpu_access(READ) as view:
        assert bytes(view[:4]) == bytes([20] * 4)


def test_threads_that_read_at_once(backend, frames):
    with FakeDevice(backend) as device:
        device.write(frames[0], b"\x07" * SIZE)
    barrier = threading.Barrier(3)

    def work() -> None:
        for _ in range(5):
            with frames[0].cpu_access(READ) as view:
                barrier.wait()
                assert view[SIZE - 1] == 7

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_that_write_their_own_parts_at_once(backend, frames):
    barrier = threading.Barrier(2)
    mapping = frames[0].map()
    view = memoryview(mapping)

    def work(part: slice) -> None:
        with DmaSyncer(frames[0], WRITE):
            barrier.wait()
            view[part] = b"\x05" * (SIZE // 2)

    threads = [threading.Thread(target=work, args=(slice(at, at + SIZE // 2),)) for at in (0, SIZE // 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with FakeDevice(backend) as device:
        assert device.read(frames[0]) == b"\x05" * SIZE
    view.release()
    mapping.close()


def test_a_device_that_reads_while_the_cpu_reads(backend, frames):
    with FakeDevice(backend) as device, frames[0].cpu_access(READ):
        device.read(frames[0])


def test_a_device_that_works_on_another_buffer(backend, frames):
    with FakeDevice(backend) as device, frames[0].cpu_access(RW):
        device.write(frames[1], b"x" * SIZE)


def test_duplicates_of_a_buffer(backend, frames):
    with frames[0].dup() as again:
        with again.cpu_access(WRITE) as view:
            view[:4] = b"abcd"
        with frames[0].cpu_access(READ) as view:
            assert bytes(view[:4]) == b"abcd"


def test_an_interrupted_program_ends_its_windows(backend, frames):
    def program() -> None:
        with frames[0].cpu_access(WRITE) as view:
            view[0] = 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        program()


def test_a_deadline_that_passes(backend, frames):
    backend.inject(faults.storm(errno.EAGAIN, 50))
    with pytest.raises(TimeoutError), DmaSyncer(frames[0], retry=RetryPolicy(deadline=0)):
        pass
    backend.injector.clear()


def kinds(source, **options) -> list[str]:
    return [finding.kind for finding in Sanitizer(source, **options).findings()]


def test_findings_come_from_any_recorded_backend():
    recorder = Recorder(FaultInjector(FakeKernel()))
    fd = heap_buffer(recorder)
    recorder.ioctl(fd, SYNC, edge(Step.END))
    recorder.ioctl(fd, SYNC, edge(Step.START))
    assert kinds(recorder) == ["end-without-start", "start-never-ended", "leaked-fd"]
    assert kinds(recorder.journal, leaks=False) == ["end-without-start", "start-never-ended"]
    assert kinds(recorder, allow=["leaked-fd", "end-without-start"]) == ["start-never-ended"]
    with pytest.raises(AssertionError, match=r"(?s)3 findings:.*fix: .*the last entries"):
        Sanitizer(recorder).check()


def test_a_clean_journal_passes_the_check():
    recorder = Recorder(FakeKernel())
    recorder.close(heap_buffer(recorder))
    Sanitizer(recorder).check()


def test_equal_findings_at_one_place_are_one():
    backend = FakeBackend(stacks=True)
    fd = heap_buffer(backend)
    for _ in range(5):
        backend.ioctl(fd, SYNC, edge(Step.END))
    backend.close(fd)
    found = Sanitizer(backend).findings()
    assert sum(finding.times for finding in found) == 5
    assert len(found) == 2  # the first has no END before it to point at
    assert "(4 times)" in str(found[1])


def test_unknown_kinds_cannot_be_allowed():
    with pytest.raises(ValueError, match="'typo', which is no finding"):
        Sanitizer(FakeBackend(), allow=["typo"])


def test_a_trace_that_was_cut_off_is_not_blamed_for_what_came_later(tmp_path):
    from dmasync.fakes import Journal

    backend = FakeBackend()
    fd = heap_buffer(backend)
    backend.ioctl(fd, SYNC, edge(Step.START))
    backend.journal.dump(tmp_path / "whole")
    text = (tmp_path / "whole").read_text()
    (tmp_path / "cut").write_text(text[: text.rindex('{"end"')])
    assert kinds(Journal.load(tmp_path / "cut")) == []
    assert kinds(Journal.load(tmp_path / "whole")) == ["start-never-ended", "leaked-fd"]


def test_a_child_that_ends_its_parents_window_is_found(tmp_path):
    backend = FakeBackend(stacks=True)
    fd = heap_buffer(backend)
    backend.ioctl(fd, SYNC, edge(Step.START))

    def ends_it() -> bool:
        backend.ioctl(fd, SYNC, edge(Step.END))
        return kinds(backend) == ["foreign-window"]

    assert holds_in_a_child(ends_it)
    backend.ioctl(fd, SYNC, edge(Step.END))
    backend.close(fd)
    assert kinds(backend) == []


def test_a_descriptor_of_another_process_is_named_as_such():
    backend = FakeBackend()
    with pytest.raises(OSError, match="Bad file"):
        backend.ioctl(77, SYNC, edge(Step.START))
    (finding,) = Sanitizer(backend).findings()
    assert finding.kind == "sync-on-closed-fd"
    assert "which this process has not opened" in str(finding)
    with pytest.raises(OSError, match="Bad file"):
        backend.close(77)
    assert kinds(backend)[-1] == "double-close"


def test_every_kind_has_its_sentences():
    for kind in KINDS.values():
        for sentence in kind:
            assert sentence.endswith(".")
            assert ". " not in sentence


def test_a_node_left_open_is_named():
    backend = FakeBackend()
    backend.open("/dev/udmabuf", os.O_RDWR)
    (finding,) = Sanitizer(backend).findings()
    assert "from open('/dev/udmabuf') was never closed" in finding.message


def test_an_access_through_a_mapping_that_nobody_recorded_is_found():
    backend = FakeBackend(watch=True)
    fd = heap_buffer(backend)
    view = memoryview(backend.kernel.mmap(fd, 4096, 3, 1))
    view[5] = 1
    (finding,) = Sanitizer(backend, leaks=False).findings()
    assert finding.kind == "access-outside-window"
    assert finding.traces[0].what == "and no window had been opened before"


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ("cpu-wrote-in-read", "write-in-read-window"),
        ("cpu-read-stale", "stale-read"),
        ("device-read-clobbered", "partial-write"),
        ("start-discarded", "racing-windows"),
    ],
)
def test_a_finding_about_bytes_needs_no_window_that_was_recorded(event, kind):
    journal = Journal()  # of a program that was recorded from its middle on
    journal.events.append(Event(event, 7, ((0, 64),), 1, 1, 0))
    (finding,) = Sanitizer(journal).findings()
    assert (finding.kind, finding.buffer, len(finding.traces)) == (kind, 7, 1)


def test_an_event_that_is_nothing_wrong_is_no_finding():
    journal = Journal()
    journal.events.append(Event("something of a later version", 7, (), 1, 1, 0))
    assert kinds(journal) == []


def test_a_mapping_that_was_dropped_is_not_leaked(backend, frames):
    view = memoryview(frames[0].map())
    with DmaSyncer(frames[0], READ):
        assert view[0] == 0
    del view


def test_an_access_through_a_mapping_that_was_dropped_is_found():
    backend = FakeBackend(coherent=False)
    with (
        DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=backend) as allocator,
        allocator.alloc("frame", SIZE) as frame,
    ):
        view = memoryview(frame.map())
        assert view[5000] == 0
        del view
    (finding,) = Sanitizer(backend).findings()
    assert finding.kind == "access-outside-window"
    assert finding.ranges[0][0] <= 5000 < sum(finding.ranges[0])
