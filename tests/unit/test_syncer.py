"""DmaSyncer: the five promises of a window."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import errno
import gc
import logging
import pickle
import sys
import threading
import warnings

import pytest

from dmasync import (
    DmaBuf,
    DmaBufAllocator,
    DmaBufAllocatorFlag,
    DmaSyncer,
    DmaSyncError,
    DmaSyncTimeout,
    RetryPolicy,
    Step,
    SyncType,
    uapi,
)
from dmasync.fakes import faults

START, END = Step.START, Step.END


def steps(backend):
    """What succeeded, in order."""
    return [transition.step for transition in backend.journal.transitions()]


def attempts(backend):
    """What was tried, with the answers."""
    return [(attempt.step, attempt.errno) for attempt in backend.journal.attempts]


class Interrupting:
    """A backend that raises instead of its n-th attempts at an edge, as a signal handler would."""

    def __init__(self, inner, numbers, step=None, exception=KeyboardInterrupt):
        self._inner = inner
        self._numbers = set(numbers)
        self._step = step
        self._exception = exception
        self.count = 0

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def ioctl(self, fd, request, argument):
        edge = argument[0] & 4 if request == uapi.DMA_BUF_IOCTL_SYNC else None
        if edge is not None and (self._step is None or bool(edge) == (self._step is END)):
            self.count += 1
            if self.count in self._numbers:
                raise self._exception
        return self._inner.ioctl(fd, request, argument)


# What succeeds


@pytest.mark.parametrize("access", [SyncType.READ, SyncType.WRITE, SyncType.READ_WRITE], ids=lambda a: a.name)
def test_a_window_is_one_start_and_one_end_of_its_access(backend, buffer, access):
    with DmaSyncer(buffer, access) as syncer:
        assert syncer.active
        assert steps(backend) == [START]
    assert not syncer.active
    assert [(t.step, t.access, t.fd) for t in backend.journal.transitions()] == [
        (START, access, buffer.fileno()),
        (END, access, buffer.fileno()),
    ]
    assert syncer.sync_type is access


def test_the_access_is_read_and_write_unless_said(buffer):
    assert DmaSyncer(buffer).sync_type is SyncType.READ_WRITE


def test_a_syncer_is_used_again_and_again(backend, buffer):
    syncer = DmaSyncer(buffer)
    for _ in range(3):
        with syncer:
            pass
    assert steps(backend) == [START, END] * 3


def test_start_and_end_do_what_the_with_block_does(backend, buffer):
    syncer = DmaSyncer(buffer)
    assert not syncer.active
    assert syncer.start() is None
    assert syncer.active
    syncer.end()
    assert not syncer.active
    assert steps(backend) == [START, END]


def test_end_without_start_does_nothing(backend, buffer):
    DmaSyncer(buffer).end()
    assert attempts(backend) == []


def test_making_a_syncer_calls_no_kernel(backend, buffer):
    DmaSyncer(buffer)
    assert attempts(backend) == []


def test_the_with_block_gives_the_syncer(buffer):
    syncer = DmaSyncer(buffer)
    with syncer as given:
        assert given is syncer


def test_a_bare_descriptor_is_borrowed_and_stays_open(backend, buffer):
    fd = buffer.fileno()
    with DmaSyncer(fd, backend=backend):
        pass
    assert steps(backend) == [START, END]
    assert fd in backend.kernel.open_fds()


def test_an_object_with_fileno_will_do(backend, buffer):
    class Holder:
        def fileno(self):
            return buffer.fileno()

    with DmaSyncer(Holder(), backend=backend):
        pass
    assert steps(backend) == [START, END]


def test_the_backend_that_is_passed_is_the_one_that_is_used(backend, buffer):
    other = Interrupting(backend, ())
    with DmaSyncer(buffer, backend=other):
        pass
    assert other.count == 2


def test_what_is_out_of_the_ordinary_holds_also_where_there_were_ordinary_windows(backend, buffer, caplog):
    with DmaSyncer(buffer):
        pass
    asked = Interrupting(backend, ())
    with DmaSyncer(buffer, backend=asked):
        pass
    assert asked.count == 2
    backend.inject(faults.error(errno.EIO))
    with DmaSyncer(buffer, on_error="log") as syncer:
        assert not syncer.active
    assert "START" in caplog.text
    backend.inject(faults.error(errno.EINTR))
    with pytest.raises(DmaSyncError), DmaSyncer(buffer, retry=RetryPolicy(errnos=())):
        raise AssertionError


def test_an_object_that_cannot_be_hashed_has_a_descriptor_all_the_same(backend, buffer):
    class Unhashable:
        __hash__ = None

        def fileno(self):
            return buffer.fileno()

    with DmaSyncer(Unhashable(), backend=backend):
        pass
    assert steps(backend) == [START, END]


def test_an_object_with_a_descriptor_in_it_lives_as_long_as_its_window(backend, buffer):
    class Owner:
        def __init__(self, fd):
            self._descriptor = fd

        def fileno(self):
            return self._descriptor

        def __del__(self):
            backend.close(self._descriptor)

    fd = backend.dup(buffer.fileno())
    with DmaSyncer(Owner(fd), backend=backend):
        gc.collect()
    gc.collect()
    assert attempts(backend) == [(START, 0), (END, 0)]
    assert fd not in backend.kernel.open_fds()


@pytest.mark.parametrize("window", [DmaSyncer, lambda buffer: buffer.cpu_access()], ids=["syncer", "access"])
def test_a_stop_iteration_does_not_pass_for_an_end(backend, buffer, window):
    stopping = Interrupting(backend, [1], END, StopIteration)
    with DmaBuf.from_fd(backend.dup(buffer.fileno()), backend=stopping) as same:
        syncer = window(same)
        with pytest.raises(StopIteration), syncer:
            pass
        assert not syncer.active
    assert stopping.count == 2
    assert steps(backend) == [START, END]


def test_without_backend_a_bare_descriptor_is_the_real_kernels():
    with open("/dev/null") as file, pytest.raises(DmaSyncError) as caught:
        DmaSyncer(file.fileno()).start()
    assert caught.value.errno == errno.ENOTTY


def test_true_is_no_descriptor():
    with pytest.raises(TypeError, match="buffer_or_fd must be"):
        DmaSyncer(True)


def test_none_is_neither_a_policy_nor_a_way_to_handle_errors(buffer):
    with pytest.raises(TypeError, match="retry must be a RetryPolicy, not None"):
        DmaSyncer(buffer, retry=None)
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'log', not None"):
        DmaSyncer(buffer, on_error=None)


def test_two_windows_on_one_buffer_may_overlap(backend, buffer):
    with DmaSyncer(buffer, SyncType.READ), DmaSyncer(buffer, SyncType.WRITE):
        pass
    assert [(t.step, t.access) for t in backend.journal.transitions()] == [
        (START, SyncType.READ), (START, SyncType.WRITE), (END, SyncType.WRITE), (END, SyncType.READ),
    ]  # fmt: skip


def test_threads_may_have_their_own_windows_on_one_buffer(backend, buffer):
    barrier = threading.Barrier(4)

    def work():
        barrier.wait()
        for _ in range(200):
            with DmaSyncer(buffer):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert steps(backend).count(START) == steps(backend).count(END) == 800
    assert not buffer.closed
    buffer.close()
    assert backend.kernel.open_fds() == {}


# Retries


@pytest.mark.parametrize("code", [errno.EINTR, errno.EAGAIN], ids=["EINTR", "EAGAIN"])
@pytest.mark.parametrize("step", [START, END], ids=["START", "END"])
def test_a_storm_is_survived_at_either_edge(backend, buffer, code, step):
    backend.inject(faults.storm(code, 30, on=step))
    with DmaSyncer(buffer):
        pass
    assert steps(backend) == [START, END]
    assert attempts(backend).count((step, code)) == 30


def test_mixed_refusals_at_both_edges_are_survived(backend, buffer):
    backend.inject(faults.mix(3, rate=0.8))
    syncer = DmaSyncer(buffer)
    for _ in range(50):
        with syncer:
            pass
    assert steps(backend) == [START, END] * 50


def test_eagain_leaves_the_core_to_others_after_a_few_spins(backend, buffer):
    naps: list[float] = []
    backend.inject(faults.storm(errno.EAGAIN, 20, on=START), faults.storm(errno.EAGAIN, 18, on=END))
    with DmaSyncer(buffer, retry=RetryPolicy(sleep=naps.append)):
        assert len(naps) == 4
    assert len(naps) == 6


@pytest.mark.parametrize("step", [START, END], ids=["START", "END"])
def test_max_attempts_ends_a_storm_with_the_last_refusal(backend, buffer, step):
    backend.inject(faults.storm(errno.EINTR, 5, on=step))
    syncer = DmaSyncer(buffer, retry=RetryPolicy(max_attempts=5))
    with pytest.raises(DmaSyncError) as caught:
        with syncer:
            assert step is END
    error = caught.value
    assert (error.errno, error.step, error.attempts, error.fd) == (errno.EINTR, step, 5, buffer.fileno())
    assert error.flags == SyncType.READ_WRITE.value | step.value
    assert not syncer.active
    assert steps(backend) == ([] if step is START else [START])


def test_attempts_are_counted_anew_at_each_edge_and_in_each_window(backend, buffer):
    for step in (START, END, START, END):
        backend.inject(faults.storm(errno.EINTR, 4, on=step))
    syncer = DmaSyncer(buffer, retry=RetryPolicy(max_attempts=9))
    for _ in range(2):
        with syncer:
            pass
    assert steps(backend) == [START, END] * 2


@pytest.mark.parametrize("step", [START, END], ids=["START", "END"])
def test_the_deadline_counts_from_the_first_try_of_each_edge(backend, buffer, step):
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    policy = RetryPolicy(deadline=1.0, backoff=lambda code, count: 0.3, clock=lambda: now[0], sleep=sleep)
    backend.inject(faults.storm(errno.EAGAIN, None, on=step))
    syncer = DmaSyncer(buffer, retry=policy)
    now[0] += 100.0
    with pytest.raises(DmaSyncTimeout) as caught:
        with syncer:
            assert step is END
            now[0] += 100.0
    assert caught.value.attempts == 5
    assert caught.value.step is step
    assert isinstance(caught.value.__cause__, BlockingIOError)
    assert not syncer.active


@pytest.mark.parametrize("step", [START, END], ids=["START", "END"])
def test_a_first_try_that_takes_longer_than_the_deadline_is_the_only_one(backend, buffer, step):
    now = [0.0]

    class Slow(Interrupting):
        def ioctl(self, fd, request, argument):
            now[0] += 2.0
            return super().ioctl(fd, request, argument)

    slow = Slow(backend, range(100), step, InterruptedError(errno.EINTR, "interrupted"))
    syncer = DmaSyncer(buffer, backend=slow, retry=RetryPolicy(deadline=1.0, clock=lambda: now[0]))
    with pytest.raises(DmaSyncTimeout) as caught:
        with syncer:
            assert step is END
    assert (caught.value.step, caught.value.attempts) == (step, 1)


def test_a_deadline_does_no_harm_where_nothing_is_refused(backend, buffer):
    now = [0.0]
    syncer = DmaSyncer(buffer, retry=RetryPolicy(deadline=0.0, clock=lambda: now[0]))
    for _ in range(2):
        with syncer:
            now[0] += 5
    assert steps(backend) == [START, END] * 2


# Hard errors


def test_a_refused_start_raises_and_no_end_is_sent(backend, buffer):
    backend.inject(faults.error(errno.EIO))
    syncer = DmaSyncer(buffer, SyncType.WRITE)
    with pytest.raises(DmaSyncError) as caught:
        with syncer:
            raise AssertionError
    error = caught.value
    assert (error.errno, error.fd, error.flags, error.step, error.attempts) == (
        errno.EIO, buffer.fileno(), 2, START, 1,
    )  # fmt: skip
    assert isinstance(error.__cause__, OSError)
    assert attempts(backend) == [(START, errno.EIO)]
    assert not syncer.active


def test_after_a_refused_start_the_syncer_can_be_used(backend, buffer):
    backend.inject(faults.error(errno.EIO))
    syncer = DmaSyncer(buffer)
    with pytest.raises(DmaSyncError):
        syncer.start()
    with syncer:
        pass
    assert steps(backend) == [START, END]


def test_a_refused_end_raises_and_the_window_is_over(backend, buffer):
    backend.inject(faults.error(errno.EIO, on=END))
    syncer = DmaSyncer(buffer)
    with pytest.raises(DmaSyncError) as caught, syncer:
        pass
    assert (caught.value.errno, caught.value.step, caught.value.flags) == (errno.EIO, END, 7)
    assert not syncer.active
    syncer.end()
    assert attempts(backend) == [(START, 0), (END, errno.EIO)]
    with syncer:
        pass
    assert steps(backend) == [START, START, END]


def test_a_storm_that_turns_into_a_hard_error_counts_all_attempts(backend, buffer):
    backend.inject(faults.storm(errno.EINTR, 3, on=END), faults.error(errno.EIO, on=END))
    with pytest.raises(DmaSyncError) as caught, DmaSyncer(buffer):
        pass
    assert caught.value.attempts == 4


@pytest.mark.parametrize("step", [START, END], ids=["START", "END"])
def test_a_hard_error_is_logged_with_descriptor_errno_and_flags(backend, buffer, step, caplog):
    backend.inject(faults.error(errno.EIO, on=step))
    with caplog.at_level(logging.DEBUG, "dmasync"), pytest.raises(DmaSyncError), DmaSyncer(buffer, SyncType.READ):
        pass
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("dmasync", "ERROR")
    for part in (f"fd {buffer.fileno()}", "Input/output error", f"flags {1 | step.value:#x}", step.name):
        assert part in record.getMessage()


def test_what_is_repeated_is_not_logged(backend, buffer, caplog):
    backend.inject(faults.storm(errno.EINTR, 3, on=None))
    with caplog.at_level(logging.DEBUG, "dmasync"), DmaSyncer(buffer):
        pass
    assert caplog.records == []


def test_with_errors_only_logged_a_refused_start_lets_the_body_run_without_end(backend, buffer, caplog):
    backend.inject(faults.error(errno.EIO))
    ran = []
    with DmaSyncer(buffer, on_error="log") as syncer:
        ran.append(syncer.active)
    assert ran == [False]
    assert attempts(backend) == [(START, errno.EIO)]
    assert len(caplog.records) == 1


def test_with_errors_only_logged_a_refused_end_is_passed_over(backend, buffer, caplog):
    backend.inject(faults.error(errno.EIO, on=END))
    with DmaSyncer(buffer, on_error="log") as syncer:
        pass
    assert not syncer.active
    assert attempts(backend) == [(START, 0), (END, errno.EIO)]
    assert len(caplog.records) == 1


def test_with_errors_only_logged_storms_are_repeated_all_the_same(backend, buffer):
    backend.inject(faults.storm(errno.EAGAIN, 3, on=None))
    with DmaSyncer(buffer, on_error="log"):
        pass
    assert steps(backend) == [START, END]


def test_with_errors_only_logged_a_time_out_at_start_is_passed_over(backend, buffer, caplog):
    backend.inject(faults.storm(errno.EAGAIN, 1))
    with DmaSyncer(buffer, on_error="log", retry=RetryPolicy(deadline=0.0)) as syncer:
        assert not syncer.active
    assert "deadline" in caplog.text


# What the body raises


def test_end_runs_when_the_body_raises(backend, buffer):
    with pytest.raises(ZeroDivisionError), DmaSyncer(buffer):
        raise ZeroDivisionError
    assert steps(backend) == [START, END]


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_end_runs_when_the_body_is_interrupted(backend, buffer, exception):
    with pytest.raises(exception), DmaSyncer(buffer):
        raise exception
    assert steps(backend) == [START, END]


def test_end_runs_at_an_early_return(backend, buffer):
    def early():
        with DmaSyncer(buffer):
            return 5

    assert early() == 5
    assert steps(backend) == [START, END]


def chain(exception):
    """The exception and its contexts; endless chains are an error."""
    seen = []
    while exception is not None:
        assert exception not in seen
        seen.append(exception)
        exception = exception.__context__
    return seen


@pytest.mark.parametrize("on_error", ["raise", "log"])
def test_an_error_of_end_never_replaces_the_bodys_exception(backend, buffer, on_error):
    backend.inject(faults.error(errno.EIO, on=END))
    body = ZeroDivisionError("the body's")
    with pytest.raises(ZeroDivisionError) as caught, DmaSyncer(buffer, on_error=on_error):
        raise body
    assert caught.value is body
    if on_error == "log":
        assert body.__context__ is None
        assert not hasattr(body, "__notes__")
    else:
        failure = body.__context__
        assert isinstance(failure, DmaSyncError)
        assert (failure.errno, failure.step) == (errno.EIO, END)
        assert body.__notes__ == [f"and {failure}"]
    chain(body)


def test_an_error_of_end_goes_behind_the_contexts_that_the_bodys_exception_has(backend, buffer):
    backend.inject(faults.error(errno.EIO, on=END))
    with pytest.raises(ZeroDivisionError) as caught, DmaSyncer(buffer):
        try:
            raise ValueError("first")
        except ValueError:
            raise ZeroDivisionError("second") from None
    kinds = [type(e) for e in chain(caught.value)]
    assert kinds == [ZeroDivisionError, ValueError, DmaSyncError]


def test_an_error_of_end_attached_to_the_body_has_the_refusal_as_its_cause_and_makes_no_cycle(backend, buffer):
    backend.inject(faults.error(errno.EIO, on=END))
    with pytest.raises(ZeroDivisionError) as caught, DmaSyncer(buffer):
        raise ZeroDivisionError
    failure = caught.value.__context__
    assert failure is not None
    cause = failure.__cause__
    assert isinstance(cause, OSError)
    assert cause.errno == errno.EIO
    chain(caught.value)
    chain(cause)


# Interrupts


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_interrupt_at_any_attempt_at_start_leaves_no_window(backend, buffer, number):
    backend.inject(faults.storm(errno.EINTR, 2))
    interrupting = Interrupting(backend, [number])
    syncer = DmaSyncer(buffer, backend=interrupting)
    with pytest.raises(KeyboardInterrupt), syncer:
        raise AssertionError
    assert not syncer.active
    assert steps(backend) == []


@pytest.mark.parametrize("numbers", [[1], [2], [3], [4], [1, 2, 3, 4], [4, 5, 6]], ids=str)
@pytest.mark.parametrize("policy", [RetryPolicy(), RetryPolicy(deadline=99.0)], ids=["default", "deadline"])
def test_an_interrupt_at_any_attempt_at_end_comes_after_end(backend, buffer, numbers, policy):
    backend.inject(faults.storm(errno.EINTR, 3, on=END))
    interrupting = Interrupting(backend, numbers, END)
    syncer = DmaSyncer(buffer, backend=interrupting, retry=policy)
    with pytest.raises(KeyboardInterrupt), syncer:
        pass
    assert not syncer.active
    assert steps(backend) == [START, END]


@pytest.mark.parametrize("step", [START, END], ids=["START", "END"])
def test_an_interrupt_while_sleeping_comes_after_end_and_leaves_no_window(backend, buffer, step):
    def sleep(seconds):
        raise KeyboardInterrupt

    backend.inject(faults.storm(errno.EAGAIN, 20, on=step))
    syncer = DmaSyncer(buffer, retry=RetryPolicy(sleep=sleep))
    with pytest.raises(KeyboardInterrupt), syncer:
        assert step is END
    assert not syncer.active
    assert steps(backend) == ([START, END] if step is END else [])


@pytest.mark.parametrize("step", [START, END], ids=["START", "END"])
@pytest.mark.parametrize("name", ["clock", "backoff"])
def test_what_the_callers_clock_or_backoff_raises_comes_after_end(backend, buffer, step, name):
    calls = [0]

    def broken(*arguments):
        calls[0] += 1
        if calls[0] == 2:
            raise ZeroDivisionError
        return 0.0

    backend.inject(faults.storm(errno.EAGAIN, 3, on=step))
    policy = RetryPolicy(deadline=5.0, **{name: broken}, **({} if name == "clock" else {"clock": lambda: 0.0}))
    syncer = DmaSyncer(buffer, retry=policy)
    with contextlib.suppress(ZeroDivisionError), syncer:
        pass
    assert not syncer.active
    assert steps(backend).count(START) == steps(backend).count(END)


def test_the_first_of_many_interrupts_is_the_one_that_is_raised(backend, buffer):
    class SecondError(Exception):
        pass

    class Both(Interrupting):
        def ioctl(self, fd, request, argument):
            self._exception = KeyboardInterrupt if self.count == 1 else SecondError
            return super().ioctl(fd, request, argument)

    with pytest.raises(KeyboardInterrupt), DmaSyncer(buffer, backend=Both(backend, [2, 3, 4])):
        pass
    assert steps(backend) == [START, END]


def test_an_interrupt_at_end_carries_the_error_of_end(backend, buffer):
    backend.inject(faults.error(errno.EIO, on=END))
    interrupting = Interrupting(backend, [1], END)
    with pytest.raises(KeyboardInterrupt) as caught, DmaSyncer(buffer, backend=interrupting):
        pass
    assert any(isinstance(e, DmaSyncError) for e in chain(caught.value))
    assert "Input/output error" in caught.value.__notes__[0]


def test_an_interrupt_at_end_of_a_body_that_raised_has_that_as_context(backend, buffer):
    interrupting = Interrupting(backend, [1], END)
    body = ZeroDivisionError()
    with pytest.raises(KeyboardInterrupt) as caught, DmaSyncer(buffer, backend=interrupting):
        raise body
    assert body in chain(caught.value)
    assert steps(backend) == [START, END]


@pytest.mark.parametrize("keywords", [{}, {"on_error": "log"}], ids=["usual", "unusual"])
def test_a_syncer_and_its_heir_keep_their_buffer_open(backend, keywords):
    with DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=backend) as allocator:
        buffer = allocator.alloc("kept by the syncer alone", 4096)
    syncer = DmaSyncer(buffer, **keywords)
    with pytest.warns(ResourceWarning, match="unclosed <DmaBuf"):
        del buffer
        gc.collect()
    with syncer:
        pass
    heir = syncer.move()
    gc.collect()
    with heir:
        pass
    assert steps(backend) == [START, END] * 2
    assert len(backend.kernel.open_fds()) == 1
    del heir
    assert backend.kernel.open_fds() == {}


def test_a_backend_that_always_raises_at_end_is_given_up_some_time(backend, buffer):
    interrupting = Interrupting(backend, range(1, 10**6), END, ZeroDivisionError)
    syncer = DmaSyncer(buffer, backend=interrupting)
    with pytest.raises(ZeroDivisionError) as caught, syncer:
        pass
    assert not syncer.active
    assert interrupting.count == 101
    (failure,) = [e for e in chain(caught.value) if isinstance(e, DmaSyncError)]
    assert "never got through" in str(failure)
    assert (failure.step, failure.attempts) == (END, 101)
    assert isinstance(failure.__cause__, ZeroDivisionError)


def test_an_oserror_without_errno_at_end_does_not_stop_end(backend, buffer):
    interrupting = Interrupting(backend, [1], END, OSError("no number"))
    with pytest.raises(OSError, match="no number"), DmaSyncer(buffer, backend=interrupting):
        pass
    assert steps(backend) == [START, END]


@pytest.mark.parametrize("on_error", ["raise", "log"])
def test_a_signal_handlers_oserror_at_start_is_raised_as_it_is(backend, buffer, on_error):
    interrupting = Interrupting(backend, [1], START, TimeoutError("too slow"))
    with pytest.raises(TimeoutError, match="too slow"), DmaSyncer(buffer, backend=interrupting, on_error=on_error):
        pass
    assert steps(backend) == []


def test_an_oserror_of_the_callers_backoff_is_no_answer_to_end(backend, buffer):
    def backoff(code, attempts):
        raise BrokenPipeError(errno.EPIPE, "no reader")

    backend.inject(faults.storm(errno.EINTR, 1, on=END))
    with pytest.raises(BrokenPipeError, match="no reader"), DmaSyncer(buffer, retry=RetryPolicy(backoff=backoff)):
        pass
    assert steps(backend) == [START, END]


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    code: int


def test_an_error_of_end_never_replaces_an_exception_that_refuses_assignments(backend, buffer):
    backend.inject(faults.error(errno.EIO, on=END))
    with pytest.raises(FrozenError) as raised, DmaSyncer(buffer):
        raise FrozenError(1)
    assert isinstance(raised.value.__context__, DmaSyncError)
    assert "END of dma-buf" in raised.value.__notes__[0]


def test_an_error_of_end_never_replaces_an_exception_whose_notes_are_none(backend, buffer):
    backend.inject(faults.error(errno.EIO, on=END))
    error = ValueError("body")
    error.__notes__ = "no list"
    with pytest.raises(ValueError, match="body") as raised, DmaSyncer(buffer):
        raise error
    assert isinstance(raised.value.__context__, DmaSyncError)
    assert error.__notes__ == "no list"


# Dropped and moved


def test_a_window_that_is_dropped_gets_its_end_and_a_warning(backend, buffer):
    syncer = DmaSyncer(buffer)
    syncer.start()
    with pytest.warns(ResourceWarning, match="a DmaSyncer was dropped while its window was open"):
        del syncer
        gc.collect()
    assert steps(backend) == [START, END]


def test_dropping_a_window_that_is_shut_says_nothing(backend, buffer):
    syncer = DmaSyncer(buffer)
    with syncer:
        pass
    del syncer
    assert steps(backend) == [START, END]


def test_a_dropped_window_whose_end_is_refused_logs_that_and_warns(backend, buffer, caplog):
    backend.inject(faults.error(errno.EIO, on=END))
    syncer = DmaSyncer(buffer)
    syncer.start()
    with pytest.warns(ResourceWarning, match="was dropped"):
        del syncer
        gc.collect()
    assert "Input/output error" in caplog.text
    assert attempts(backend) == [(START, 0), (END, errno.EIO)]


def test_a_syncer_that_was_never_made_can_be_dropped():
    syncer = DmaSyncer.__new__(DmaSyncer)
    del syncer
    gc.collect()


def test_a_moved_syncers_window_is_its_heirs(backend, buffer):
    syncer = DmaSyncer(buffer, SyncType.READ)
    syncer.start()
    heir = syncer.move()
    assert (syncer.active, heir.active) == (False, True)
    assert heir.sync_type is SyncType.READ
    syncer.end()
    assert steps(backend) == [START]
    heir.end()
    assert steps(backend) == [START, END]


def test_a_syncer_that_was_moved_from_does_nothing(backend, buffer):
    syncer = DmaSyncer(buffer)
    heir = syncer.move()
    with syncer:
        assert not syncer.active
    syncer.start()
    syncer.end()
    with syncer.move():
        pass
    assert attempts(backend) == []
    with heir:
        pass
    assert steps(backend) == [START, END]


def test_moving_inside_the_with_block_takes_the_window_out_of_it(backend, buffer):
    with DmaSyncer(buffer) as syncer:
        heir = syncer.move()
    assert steps(backend) == [START]
    heir.end()
    assert steps(backend) == [START, END]


def test_the_with_block_of_a_syncer_that_was_moved_from_gives_that_syncer(buffer):
    syncer = DmaSyncer(buffer)
    syncer.move()
    with syncer as given:
        assert given is syncer


def test_assigning_over_an_active_syncer_loses_no_end(backend, buffer):
    syncer = DmaSyncer(buffer, SyncType.READ)
    syncer.start()
    with pytest.warns(ResourceWarning, match="was dropped"):
        syncer = DmaSyncer(buffer, SyncType.WRITE).move()
        gc.collect()
    syncer.start()
    syncer.end()
    assert [(t.step, t.access) for t in backend.journal.transitions()] == [
        (START, SyncType.READ), (END, SyncType.READ), (START, SyncType.WRITE), (END, SyncType.WRITE),
    ]  # fmt: skip


def test_an_heir_keeps_retries_and_logging(backend, buffer, caplog):
    heir = DmaSyncer(buffer, retry=RetryPolicy(max_attempts=2), on_error="log").move()
    backend.inject(faults.storm(errno.EINTR, 2))
    with heir:
        assert not heir.active
    assert "after 2 attempts" in caplog.text


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_window_is_never_copied(backend, buffer, copied):
    with DmaSyncer(buffer) as syncer, pytest.raises(TypeError, match=r"use move\(\)"):
        copied(syncer)
    assert steps(backend) == [START, END]


# Closed buffers


def test_a_window_that_is_open_when_its_buffer_is_closed_ends_on_its_own_file(backend, buffer):
    fd = buffer.fileno()
    syncer = DmaSyncer(buffer)
    with syncer:
        buffer.close()
        assert buffer.closed
        assert fd in backend.kernel.open_fds()
    assert [(t.step, t.fd) for t in backend.journal.transitions()] == [(START, fd), (END, fd)]
    assert backend.kernel.open_fds() == {}


def test_the_last_of_several_windows_closes_the_descriptor(backend, buffer):
    first, second = DmaSyncer(buffer, SyncType.READ), DmaSyncer(buffer, SyncType.READ)
    first.start()
    second.start()
    buffer.close()
    first.end()
    assert len(backend.kernel.open_fds()) == 1
    second.end()
    assert steps(backend) == [START, START, END, END]
    assert backend.kernel.open_fds() == {}


def test_a_window_whose_end_is_refused_closes_the_descriptor_all_the_same(backend, buffer):
    backend.inject(faults.error(errno.EIO, on=END))
    with pytest.raises(DmaSyncError), DmaSyncer(buffer):
        buffer.close()
    gc.collect()
    assert backend.kernel.open_fds() == {}


def test_no_window_opens_on_a_buffer_that_was_closed(backend, buffer):
    syncer = DmaSyncer(buffer)
    buffer.close()
    for use in (syncer.start, syncer.__enter__, lambda: DmaSyncer(buffer)):
        with pytest.raises(ValueError, match="buffer_or_fd was closed"):
            use()
    assert attempts(backend) == []


def test_a_number_that_was_closed_is_ebadf(backend, buffer):
    fd = buffer.fileno()
    buffer.close()
    with pytest.raises(DmaSyncError) as caught:
        DmaSyncer(fd, backend=backend).start()
    assert caught.value.errno == errno.EBADF


# Misuse


@pytest.mark.parametrize("use", ["start", "__enter__"])
def test_opening_an_open_window_is_refused_and_leaves_it_open(backend, buffer, use):
    syncer = DmaSyncer(buffer)
    with syncer:
        with pytest.raises(RuntimeError, match="already open"):
            getattr(syncer, use)()
        assert syncer.active
        assert steps(backend) == [START]
    assert steps(backend) == [START, END]


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        (("nonsense",), TypeError, "buffer_or_fd"),
        ((None,), TypeError, "buffer_or_fd"),
        ((True,), TypeError, "buffer_or_fd"),
        ((1.5,), TypeError, "buffer_or_fd"),
        ((-1,), ValueError, "buffer_or_fd"),
        ((1 << 31,), ValueError, "buffer_or_fd"),
        ((5, 3), TypeError, "sync_type"),
        ((5, None), TypeError, "sync_type"),
        ((5, "READ"), TypeError, "sync_type"),
        ((5, SyncType(0)), ValueError, "sync_type"),
        ((5, Step.START), TypeError, "sync_type"),
    ],
    ids=str,
)
def test_an_argument_that_cannot_be_is_named_before_any_system_call(backend, arguments, error, named):
    with pytest.raises(error, match=named):
        DmaSyncer(*arguments, backend=backend)
    assert attempts(backend) == []


@pytest.mark.parametrize(
    ("keywords", "error"),
    [
        ({"retry": None}, TypeError),
        ({"retry": 3}, TypeError),
        ({"on_error": "ignore"}, ValueError),
        ({"on_error": None}, ValueError),
        ({"backend": 5}, TypeError),
        ({"backend": object}, TypeError),
    ],
    ids=str,
)
@pytest.mark.parametrize("source", ["buffer", "descriptor"])
def test_a_keyword_that_cannot_be_is_named(backend, buffer, keywords, error, source):
    (name,) = keywords
    with pytest.raises(error, match=name):
        DmaSyncer(buffer if source == "buffer" else 5, **keywords)
    assert attempts(backend) == []


@pytest.mark.parametrize("number", [0, 0x7FFFFFFF])
def test_the_least_and_the_largest_number_are_descriptors(backend, number):
    assert f"fd={number} " in repr(DmaSyncer(number, backend=backend))


def test_an_errno_of_nought_is_told_as_it_is(backend, buffer):
    refusing = Interrupting(backend, [1], exception=OSError(0, "nothing"))
    with pytest.raises(DmaSyncError) as caught:
        DmaSyncer(buffer, backend=refusing).start()
    assert (caught.value.errno, caught.value.attempts) == (0, 1)


def test_a_buffer_is_checked_as_strictly_as_a_number(buffer, backend):
    for wrong in (3, None, SyncType(0), Step.END):
        with pytest.raises((TypeError, ValueError), match="sync_type"):
            DmaSyncer(buffer, wrong)
    assert attempts(backend) == []


def test_fileno_that_gives_no_number_is_refused():
    class Liar:
        def fileno(self):
            return "5"

    with pytest.raises(TypeError, match="buffer_or_fd"):
        DmaSyncer(Liar())


def test_repr_tells_the_state(backend, buffer):
    syncer = DmaSyncer(buffer, SyncType.READ)
    fd = buffer.fileno()
    assert repr(syncer) == f"<DmaSyncer fd={fd} READ shut>"
    with syncer:
        assert repr(syncer) == f"<DmaSyncer fd={fd} READ open>"
    syncer.move()
    assert repr(syncer) == "<DmaSyncer moved>"


# Interrupts where only Python code of the caller runs


class Interrupted(logging.Handler):
    """A log handler in which the user presses Ctrl-C."""

    def emit(self, record):
        raise KeyboardInterrupt


@pytest.fixture
def interrupted_log():
    handler = Interrupted()
    logging.getLogger("dmasync").addHandler(handler)
    yield
    logging.getLogger("dmasync").removeHandler(handler)


@pytest.mark.parametrize("step", [START, END], ids=["START", "END"])
def test_an_interrupt_while_an_error_is_logged_leaves_no_window(backend, buffer, step, interrupted_log):
    backend.inject(faults.error(errno.EIO, on=step))
    syncer = DmaSyncer(buffer)
    with pytest.raises(KeyboardInterrupt), syncer:
        assert step is END
    assert not syncer.active
    assert attempts(backend) == ([(START, errno.EIO)] if step is START else [(START, 0), (END, errno.EIO)])
    buffer.close()
    gc.collect()
    assert backend.kernel.open_fds() == {}


def test_an_interrupt_while_a_dropped_windows_error_is_logged_is_not_lost(
    backend, buffer, interrupted_log, monkeypatch
):
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lambda problem: lost.append(problem.exc_type))
    backend.inject(faults.error(errno.EIO, on=END))
    syncer = DmaSyncer(buffer)
    syncer.start()
    del syncer
    gc.collect()
    assert lost == [KeyboardInterrupt]
    assert attempts(backend) == [(START, 0), (END, errno.EIO)]


def test_an_interrupt_of_a_dropped_windows_end_is_not_lost(backend, buffer, monkeypatch):
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lambda problem: lost.append(problem.exc_type))
    syncer = DmaSyncer(buffer, backend=Interrupting(backend, [1], END))
    syncer.start()
    with pytest.warns(ResourceWarning, match="was dropped while its window was open"):
        del syncer
        gc.collect()
    assert lost == [KeyboardInterrupt]
    assert steps(backend) == [START, END]


def test_dropping_an_open_window_where_warnings_are_errors_still_ends_it_once(backend, buffer, monkeypatch):
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lambda problem: lost.append(problem.exc_type))
    syncer = DmaSyncer(buffer)
    syncer.start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del syncer
        gc.collect()
    assert lost == [ResourceWarning]
    assert steps(backend) == [START, END]
