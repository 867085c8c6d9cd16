"""Journal: every attempt, in little memory, with the questions a test asks."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest

from dmasync import DmaSyncer, Step, SyncType, uapi
from dmasync.fakes import FakeBackend, FakeKernel, FaultInjector, Journal, Recorder, faults
from dmasync.fakes.journal import INTERRUPTED
from tests.support.child import holds_in_a_child
from tests.unit.layers.test_injector import SYNC, edge, heap_buffer

READ, WRITE = SyncType.READ, SyncType.WRITE


@pytest.fixture
def backend():
    return FakeBackend()


def test_each_attempt_says_who_what_when_and_how_it_ended(backend):
    fd = heap_buffer(backend)
    backend.inject(faults.storm(errno.EINTR, 1))
    with DmaSyncer(fd, READ, backend=backend):
        pass
    refused, start, end = backend.journal.attempts
    assert [(a.sequence, a.step, a.access, a.errno) for a in (refused, start, end)] == [
        (0, Step.START, READ, errno.EINTR),
        (1, Step.START, READ, 0),
        (2, Step.END, READ, 0),
    ]
    assert {a.fd for a in (refused, start, end)} == {fd}
    assert len({a.buffer for a in (refused, start, end)}) == 1
    assert refused.time_ns <= refused.end_ns <= start.time_ns <= start.end_ns <= end.time_ns
    assert not refused.succeeded
    assert start.succeeded
    assert backend.journal.transitions() == [start, end]


def test_a_buffer_is_the_same_through_each_of_its_descriptors(backend):
    fd, other = heap_buffer(backend), heap_buffer(backend)
    again = backend.dup(fd)
    for number in (fd, again, other):
        backend.ioctl(number, SYNC, edge(Step.START))
    a, b, c = backend.journal.attempts
    assert a.buffer == b.buffer != c.buffer
    assert backend.journal.buffers == (a.buffer, c.buffer)
    assert backend.journal.transitions(c.buffer) == [c]
    assert backend.journal.transitions(SimpleNamespace(fileno=lambda: again)) == [a, b]
    assert backend.journal.transitions(SimpleNamespace(fileno=lambda: 999)) == []


def test_open_windows_and_stray_ends_are_told_apart(backend):
    fd = heap_buffer(backend)
    backend.ioctl(fd, SYNC, edge(Step.END, WRITE))
    backend.ioctl(fd, SYNC, edge(Step.START, READ))
    backend.ioctl(fd, SYNC, edge(Step.START, WRITE))
    backend.ioctl(fd, SYNC, edge(Step.END, READ))
    journal = backend.journal
    assert [(w.sequence, w.access) for w in journal.open_windows] == [(2, WRITE)]
    assert [end.sequence for end in journal.unmatched_ends] == [0]
    with pytest.raises(AssertionError, match=r"(?s)#2 START WRITE of buffer 1 was never ended.*#0 END WRITE.*no open"):
        journal.assert_balanced()
    backend.ioctl(fd, SYNC, edge(Step.END, SyncType.READ_WRITE))
    assert journal.open_windows == ()


def test_balanced_windows_pass(backend):
    fd = heap_buffer(backend)
    with DmaSyncer(fd, backend=backend), DmaSyncer(fd, READ, backend=backend):
        pass
    backend.journal.assert_balanced()


def test_a_refused_edge_opens_and_ends_nothing(backend):
    fd = heap_buffer(backend)
    backend.inject(faults.error(errno.EIO), faults.error(errno.EIO, on=Step.END))
    for step in (Step.START, Step.END):
        with pytest.raises(OSError, match="Input/output"):
            backend.ioctl(fd, SYNC, edge(step))
    backend.journal.assert_balanced()
    assert backend.journal.count(errno=errno.EIO) == 2
    assert backend.journal.count(Step.END) == 1
    assert backend.journal.count() == 2


LONG_STORMS = pytest.mark.parametrize("times", [30_000, pytest.param(1_000_000, marks=pytest.mark.nightly)])


@LONG_STORMS
def test_a_long_storm_is_survived_and_all_recorded_in_little_memory(backend, times):
    fd = heap_buffer(backend)
    backend.inject(faults.storm(errno.EINTR, times))
    with DmaSyncer(fd, backend=backend):
        pass
    journal = backend.journal
    assert journal.count(errno=errno.EINTR) == times
    assert len(journal.attempts) == times + 2
    assert journal.attempts[times - 1].errno == errno.EINTR
    assert journal.attempts[-1].step is Step.END
    journal.assert_balanced()
    assert f"EINTR x {times}" in journal.timeline()
    tracemalloc.start()
    copy = Journal()
    for attempt in range(0, len(journal.rows), 1 << 20):
        copy.rows += journal.rows[attempt : attempt + (1 << 20)]
    grown, _ = tracemalloc.get_traced_memory()
    assert len(copy) == len(journal)
    assert grown < 60 * times
    tracemalloc.reset_peak()
    assert copy.open_windows == copy.unmatched_ends == ()
    assert (copy.count(Step.START), copy.count(errno=0), len(copy.transitions())) == (times + 1, 2, 2)
    copy.timeline(30)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * times


@LONG_STORMS
def test_a_long_storm_takes_little_of_the_machines_memory(times):
    program = """
import errno, re, sys
from pathlib import Path
from dmasync import DmaSyncer
from dmasync.fakes import FakeBackend, faults
from tests.unit.layers.test_injector import heap_buffer

def most_resident():
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

times = int(sys.argv[1])
backend = FakeBackend(faults=[faults.storm(errno.EINTR, times)])
fd = heap_buffer(backend)
before = most_resident()
with DmaSyncer(fd, backend=backend):
    pass
assert len(backend.journal.attempts) == times + 2
assert backend.journal.open_windows == ()
print(most_resident() - before)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", program, str(times)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert 48 * times < int(done.stdout) < 100 * times


def test_attempts_are_a_sequence(backend):
    fd = heap_buffer(backend)
    for _ in range(5):
        backend.ioctl(fd, SYNC, edge(Step.START))
        backend.ioctl(fd, SYNC, edge(Step.END))
    attempts = backend.journal.attempts
    assert attempts[-1] == attempts[9]
    assert [a.sequence for a in attempts[2:8:2]] == [2, 4, 6]
    assert attempts[3] in attempts
    assert len(list(reversed(attempts))) == 10
    assert repr(attempts) == "<10 attempts>"
    with pytest.raises(IndexError, match="attempt 10 of 10"):
        attempts[10]
    assert "10 attempts" in repr(backend.journal)


def test_an_exception_that_is_no_oserror_is_an_interrupted_attempt():
    class Kernel(FakeKernel):
        def ioctl(self, fd, request, arg=0, /):
            if request == SYNC:
                raise KeyboardInterrupt
            return super().ioctl(fd, request, arg)

    recorder = Recorder(Kernel())
    fd = heap_buffer(recorder)
    with pytest.raises(KeyboardInterrupt):
        recorder.ioctl(fd, SYNC, edge(Step.START))
    assert [a.errno for a in recorder.journal.attempts] == [INTERRUPTED]
    assert "interrupted" in recorder.journal.timeline()
    recorder.journal.assert_balanced()


def test_errnos_that_no_table_knows_are_recorded():
    class Kernel(FakeKernel):
        code: int | None = 1133

        def ioctl(self, fd, request, arg=0, /):
            if request == SYNC:
                raise OSError(self.code, "odd")
            return super().ioctl(fd, request, arg)

    kernel = Kernel()
    recorder = Recorder(kernel)
    fd = heap_buffer(recorder)
    for kernel.code in (1133, 5000, None):
        with pytest.raises(OSError, match="odd"):
            recorder.ioctl(fd, SYNC, edge(Step.START))
    assert [a.errno for a in recorder.journal.attempts] == [1133, INTERRUPTED, INTERRUPTED]
    assert "errno 1133" in recorder.journal.timeline()


def test_arguments_that_are_no_sync_are_recorded_as_unread(backend):
    fd = heap_buffer(backend)
    with pytest.raises(OSError, match="Bad address"):
        backend.ioctl(fd, SYNC, 0)
    (attempt,) = backend.journal.attempts
    assert attempt.flags is None
    assert attempt.errno == errno.EFAULT
    assert attempt.access == SyncType(0)
    assert "argument unread" in backend.journal.timeline()


def test_what_has_a_descriptor_is_recorded_by_its_number(backend):
    fd = heap_buffer(backend)
    has_fileno = SimpleNamespace(fileno=lambda: fd)
    backend.ioctl(has_fileno, SYNC, edge(Step.START))
    backend.ioctl(has_fileno, SYNC, edge(Step.END))
    assert [(attempt.fd, attempt.step) for attempt in backend.journal.transitions()] == [
        (fd, Step.START),
        (fd, Step.END),
    ]


def test_an_injector_of_ones_own_is_never_passed_by():
    class Refusing(FaultInjector):
        def __init__(self, inner):
            super().__init__(inner)
            self.ioctl = self._refuse

        def _refuse(self, fd, request, arg=0):
            if request == SYNC:
                raise OSError(errno.EPERM, "refused")
            return self.inner.ioctl(fd, request, arg)

    recorder = Recorder(Refusing(FakeKernel()))
    fd = heap_buffer(recorder)
    with pytest.raises(PermissionError):
        recorder.ioctl(fd, SYNC, edge(Step.START))


def test_what_is_no_descriptor_is_left_to_the_layer_beneath(backend):
    with pytest.raises((OSError, TypeError, ValueError)):
        backend.ioctl("fd", SYNC, edge(Step.START))
    with pytest.raises(OSError, match="Bad file"):
        backend.ioctl(1 << 40, SYNC, edge(Step.START))
    assert len(backend.journal) == 0


def test_a_closed_descriptor_is_an_attempt_on_no_buffer(backend):
    fd = heap_buffer(backend)
    backend.close(fd)
    with pytest.raises(OSError, match="Bad file"):
        backend.ioctl(fd, SYNC, edge(Step.START))
    (attempt,) = backend.journal.attempts
    assert attempt.buffer is None
    assert attempt.errno == errno.EBADF


def test_every_other_call_is_recorded_in_its_place(backend):
    fd = heap_buffer(backend)
    backend.ioctl(fd, SYNC, edge(Step.START))
    assert backend.lseek(fd, 0, os.SEEK_END) == 4096
    backend.ioctl(fd, SYNC, edge(Step.END))
    backend.poll(fd, 1, 0)
    memfd = backend.memfd_create("x", uapi.MFD_ALLOW_SEALING)
    backend.ftruncate(memfd, 4096)
    backend.add_seals(memfd, uapi.F_SEAL_SHRINK)
    assert backend.get_seals(memfd) == uapi.F_SEAL_SHRINK
    with pytest.raises(OSError, match="Invalid"):
        backend.ftruncate(memfd, -1)
    mapping = backend.mmap(fd, 4096, 1, 1)
    calls = backend.journal.calls
    assert [call.method for call in calls] == [
        "open", "ioctl", "close", "lseek", "poll", "memfd_create", "ftruncate", "add_seals", "get_seals",
        "ftruncate", "mmap",
    ]  # fmt: skip
    assert [call.position for call in calls][2:5] == [0, 1, 2]
    assert calls[1].new_fd == fd
    assert calls[3].buffer == backend.journal.attempts[0].buffer
    assert calls[9].errno == errno.EINVAL
    kinds = [type(entry).__name__ for entry in backend.journal.entries()]
    assert kinds[3:6] == ["Transition", "Call", "Transition"]
    assert backend.open_mappings() == [calls[10]]
    mapping.close()
    assert backend.open_mappings() == []


def test_failed_calls_are_recorded_with_what_failed_them(backend):
    backend.inject(faults.error(errno.EMFILE, on="dup"), faults.error(errno.ENOMEM, on="mmap"))
    fd = heap_buffer(backend)
    with pytest.raises(OSError, match="Too many"):
        backend.dup(fd)
    with pytest.raises(OSError, match="memory"):
        backend.mmap(fd, 4096, 1, 1)
    with pytest.raises((TypeError, OverflowError)):
        backend.mmap(fd, -1, 1, 1)
    with pytest.raises(TypeError):
        backend.ftruncate(fd, "x")
    with pytest.raises(OSError, match="Invalid"):
        backend.add_seals(fd, 1)
    *codes, last = [call.errno for call in backend.journal.calls[-5:]]
    assert codes == [errno.EMFILE, errno.ENOMEM, INTERRUPTED, INTERRUPTED]
    assert last == errno.EINVAL
    assert backend.journal.calls[-5].new_fd is None


def test_a_mapping_that_nobody_can_watch_is_returned_all_the_same():
    class Kernel(FakeKernel):
        def mmap(self, *arguments):
            super().mmap(*arguments).close()
            return ()

    recorder = Recorder(Kernel())
    assert recorder.mmap(heap_buffer(recorder), 4096, 1, 1) == ()
    assert recorder.open_mappings() == []


def test_an_object_is_known_by_its_descriptor_also_where_only_windows_used_it(backend):
    fd, other = heap_buffer(backend), heap_buffer(backend)
    with DmaSyncer(other, backend=backend), DmaSyncer(fd, backend=backend):
        pass
    named = SimpleNamespace(fileno=lambda: fd)
    assert len(backend.journal.transitions(named)) == 2
    backend.lseek(fd, 0, os.SEEK_END)
    assert len(backend.journal.transitions(named)) == 2
    backend.journal.calls.clear()
    assert [entry.fd for entry in backend.journal.transitions(named)] == [fd, fd]


def test_a_frame_that_had_not_begun_is_at_its_first_line():
    journal = Journal()
    code = edge.__code__
    assert journal.stack(journal.keep_stack(((code, -1),))) == ((code.co_filename, code.co_firstlineno, "edge"),)


def test_buffers_of_a_backend_that_cannot_name_them_are_named_by_their_descriptors():
    kernel = FakeKernel()
    asked = ("open", "ioctl", "close")
    plain = SimpleNamespace(**{name: getattr(kernel, name) for name in asked})
    recorder = Recorder(FaultInjector(plain))
    fd = heap_buffer(recorder)
    with DmaSyncer(fd, backend=recorder):
        pass
    assert recorder.journal.buffers == (fd,)


def test_a_fork_is_marked_in_the_childs_journal(backend):
    fd = heap_buffer(backend)
    backend.ioctl(fd, SYNC, edge(Step.START))

    def is_marked() -> bool:
        marked = [event.kind for event in backend.journal.events] == ["forked"]
        return marked and "the process forked" in backend.journal.timeline()

    assert holds_in_a_child(is_marked)
    assert backend.journal.events == []
