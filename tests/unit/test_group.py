"""DmaSyncerGroup: one window over several dma-bufs."""

from __future__ import annotations

import copy
import errno
import gc
import logging
import sys
import warnings

import pytest

from dmasync import (
    DmaBufAllocator,
    DmaBufAllocatorFlag,
    DmaSyncerGroup,
    DmaSyncError,
    DmaSyncTimeout,
    FrameBuffer,
    Plane,
    RetryPolicy,
    Step,
    SyncType,
)
from dmasync.fakes import FakeBackend, faults

START, END = Step.START, Step.END
READ, WRITE, READ_WRITE = SyncType.READ, SyncType.WRITE, SyncType.READ_WRITE


@pytest.fixture
def buffers(backend):
    with DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=backend) as allocator:
        buffers = [allocator.alloc(name, 8192) for name in ("first", "second", "third")]
    yield buffers
    for buffer in buffers:
        buffer.close()


@pytest.fixture
def items(buffers):
    return [(buffer, READ) for buffer in buffers]


@pytest.fixture
def name(buffers):
    fds = {buffer.fileno(): buffer.name for buffer in buffers}
    return lambda transition: f"{transition.step.name} {fds[transition.fd]}"


@pytest.fixture
def done(backend, name):
    """What succeeded, in order."""
    return lambda: [name(transition) for transition in backend.journal.transitions()]


@pytest.fixture
def tried(backend, name):
    """What was tried, in order."""
    return lambda: [name(attempt) for attempt in backend.journal.attempts]


STARTS = ["START first", "START second", "START third"]
ENDS = ["END third", "END second", "END first"]


def interrupting(backend, numbers, step=None, exception=KeyboardInterrupt):
    """A backend that raises instead of its n-th attempts at an edge, as a signal handler would."""

    class Interrupting:
        count = 0

        def __getattr__(self, name):
            return getattr(backend, name)

        def ioctl(self, fd, request, argument):
            if step is None or bool(argument[0] & 4) == (step is END):
                self.count += 1
                if self.count in numbers:
                    raise exception
            return backend.ioctl(fd, request, argument)

    return Interrupting()


def chain(exception):
    seen = []
    while exception is not None:
        assert exception not in seen
        seen.append(exception)
        exception = exception.__context__
    return seen


@pytest.mark.parametrize("retry", [RetryPolicy(), RetryPolicy(deadline=9.0)], ids=["default", "deadline"])
def test_start_goes_in_the_order_given_and_end_in_the_reverse(items, done, retry):
    group = DmaSyncerGroup(items, retry=retry)
    for _ in range(2):
        with group as given:
            assert given is group
            assert group.active
        assert not group.active
    assert done() == (STARTS + ENDS) * 2


def test_start_and_end_by_hand(items, done):
    group = DmaSyncerGroup(items)
    assert group.start() is None
    assert done() == STARTS
    group.end()
    group.end()
    assert done() == STARTS + ENDS


def test_making_a_group_calls_no_kernel(items, tried):
    group = DmaSyncerGroup(items)
    assert len(group) == 3
    assert tried() == []


def test_each_buffer_has_its_own_access(backend, buffers):
    with DmaSyncerGroup([(buffers[0], READ), (buffers[1], WRITE)]):
        pass
    assert [t.access for t in backend.journal.transitions()] == [READ, WRITE, WRITE, READ]


def test_planes_that_share_a_dma_buf_are_synced_once_with_all_the_access(backend, buffers):
    planes = [Plane(buffers[0], 0, 4096), Plane(buffers[1], 0, 10), Plane(buffers[0], 4096, 4096)]
    group = DmaSyncerGroup([(planes[0], READ), (planes[1], READ), (planes[2], WRITE)])
    assert len(group) == 2
    with group:
        pass
    assert [(t.step, t.fd, t.access) for t in backend.journal.transitions()] == [
        (START, buffers[0].fileno(), READ_WRITE),
        (START, buffers[1].fileno(), READ),
        (END, buffers[1].fileno(), READ),
        (END, buffers[0].fileno(), READ_WRITE),
    ]


def test_a_duplicate_is_the_same_dma_buf(backend, buffers):
    with buffers[0].dup() as twin, DmaSyncerGroup([(buffers[0], READ), (twin, WRITE)]) as group:
        assert len(group) == 1
    assert [(t.fd, t.access) for t in backend.journal.transitions()] == [(buffers[0].fileno(), READ_WRITE)] * 2


def test_a_borrowed_number_is_known_by_its_value(backend, buffers):
    fd = buffers[0].fileno()
    with DmaSyncerGroup([(fd, READ), (fd, WRITE), (buffers[1].fileno(), READ)], backend=backend) as group:
        assert len(group) == 2
    assert len(backend.journal.transitions()) == 4


def test_a_frames_planes_are_one_window(backend, buffers):
    frame = FrameBuffer([Plane(buffers[0], 0, 4096), Plane(buffers[0], 4096, 100)])
    with frame.syncer(WRITE):
        pass
    assert [(t.step, t.access) for t in backend.journal.transitions()] == [(START, WRITE), (END, WRITE)]


def test_buffers_of_several_backends_go_each_to_its_own(backend, buffers):
    other = FakeBackend()
    with DmaBufAllocator(DmaBufAllocatorFlag.UDMABUF, backend=other) as allocator:
        foreign = allocator.alloc("foreign", 4096)
    group = DmaSyncerGroup([(buffers[0], READ), (foreign, READ), (buffers[1], READ)])
    with group:
        assert len(other.journal.transitions()) == 1
    assert [t.step for t in other.journal.transitions()] == [START, END]
    assert len(backend.journal.transitions()) == 4
    with pytest.raises(ZeroDivisionError), group:
        raise ZeroDivisionError
    assert [t.step for t in other.journal.transitions()] == [START, END, START, END]
    foreign.close()


@pytest.mark.parametrize("code", [errno.EINTR, errno.EAGAIN], ids=["EINTR", "EAGAIN"])
@pytest.mark.parametrize("step", [START, END], ids=["START", "END"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_storm_at_any_buffer_is_survived_in_order(backend, items, buffers, done, code, step, which):
    backend.inject(faults.storm(code, 30, on=step, buffer=buffers[which]))
    with DmaSyncerGroup(items):
        pass
    assert done() == STARTS + ENDS
    assert len(backend.journal.attempts) == 36


def test_retries_count_anew_for_each_buffer(backend, items, buffers, done):
    for step in (START, END):
        for buffer in buffers:
            backend.inject(faults.storm(errno.EINTR, 3, on=step, buffer=buffer))
    with DmaSyncerGroup(items, retry=RetryPolicy(max_attempts=4)):
        pass
    assert done() == STARTS + ENDS


@pytest.mark.parametrize("step", [START, END], ids=["START", "END"])
def test_the_deadline_counts_anew_for_each_buffer(backend, items, buffers, done, step):
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    for buffer in buffers:
        backend.inject(faults.storm(errno.EAGAIN, 2, on=step, buffer=buffer))
    policy = RetryPolicy(deadline=1.0, backoff=lambda code, count: 0.4, clock=lambda: now[0], sleep=sleep)
    with DmaSyncerGroup(items, retry=policy):
        pass
    assert done() == STARTS + ENDS
    assert now[0] == pytest.approx(2.4)


def test_a_start_that_times_out_ends_those_before_it(backend, items, buffers, done):
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    policy = RetryPolicy(deadline=1.0, backoff=lambda code, count: 0.4, clock=lambda: now[0], sleep=sleep)
    backend.inject(faults.storm(errno.EAGAIN, None, buffer=buffers[2]))
    with pytest.raises(DmaSyncTimeout) as caught:
        DmaSyncerGroup(items, retry=policy).start()
    assert caught.value.attempts == 4
    assert done() == ["START first", "START second", "END second", "END first"]


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("retry", [RetryPolicy(), RetryPolicy(deadline=9.0)], ids=["default", "deadline"])
def test_a_start_that_fails_ends_those_before_it_and_leaves_no_window(backend, items, buffers, done, which, retry):
    backend.inject(faults.error(errno.EIO, buffer=buffers[which]))
    group = DmaSyncerGroup(items, retry=retry)
    with pytest.raises(DmaSyncError) as caught, group:
        raise AssertionError
    assert (caught.value.fd, caught.value.step, caught.value.flags) == (buffers[which].fileno(), START, 1)
    assert not group.active
    assert done() == STARTS[:which] + ENDS[3 - which :]
    with group:
        pass
    assert done()[2 * which :] == STARTS + ENDS


@pytest.mark.parametrize("use", ["start", "with"])
def test_a_start_that_fails_while_errors_are_only_logged_leaves_the_window_shut(
    backend, items, buffers, done, caplog, use
):
    backend.inject(faults.error(errno.EIO, buffer=buffers[1]))
    group = DmaSyncerGroup(items, on_error="log")
    if use == "start":
        group.start()
        assert not group.active
        group.end()
    else:
        with group:
            assert not group.active
    assert done() == ["START first", "END first"]
    assert len(caplog.records) == 1


def test_an_end_that_fails_while_a_failed_start_is_undone_is_attached_to_it(backend, items, buffers, tried):
    backend.inject(faults.error(errno.EIO, buffer=buffers[2]), faults.error(errno.ENOMEM, on=END, buffer=buffers[1]))
    with pytest.raises(DmaSyncError) as caught:
        DmaSyncerGroup(items).start()
    assert caught.value.step is START
    assert [e.errno for e in chain(caught.value) if isinstance(e, DmaSyncError)] == [errno.EIO, errno.ENOMEM]
    assert tried() == [*STARTS, "END second", "END first"]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_every_end_is_tried_whatever_the_others_said(backend, items, buffers, tried, which):
    backend.inject(faults.error(errno.EIO, on=END, buffer=buffers[which]))
    group = DmaSyncerGroup(items)
    with pytest.raises(DmaSyncError) as caught, group:
        pass
    assert caught.value.fd == buffers[which].fileno()
    assert not group.active
    assert tried() == STARTS + ENDS
    with group:
        pass
    assert tried() == (STARTS + ENDS) * 2


def test_the_first_error_of_end_is_raised_and_has_the_others(backend, items, buffers, tried, caplog):
    for code, buffer in zip((errno.EIO, errno.ENOMEM, errno.ENODEV), buffers, strict=True):
        backend.inject(faults.error(code, on=END, buffer=buffer))
    with pytest.raises(DmaSyncError) as caught, DmaSyncerGroup(items):
        pass
    assert caught.value.errno == errno.ENODEV
    assert [e.errno for e in chain(caught.value) if isinstance(e, DmaSyncError)] == [
        errno.ENODEV, errno.ENOMEM, errno.EIO,
    ]  # fmt: skip
    assert len(caught.value.__notes__) == 2
    assert tried() == STARTS + ENDS
    assert len(caplog.records) == 3


def test_errors_of_end_never_replace_the_bodys_exception(backend, items, buffers):
    for buffer in buffers:
        backend.inject(faults.error(errno.EIO, on=END, buffer=buffer))
    body = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as caught, DmaSyncerGroup(items):
        raise body
    assert caught.value is body
    assert len(body.__notes__) == 3
    assert [type(e) for e in chain(body)] == [ZeroDivisionError, *[DmaSyncError] * 3]


def test_errors_of_end_are_only_logged_where_that_is_asked(backend, items, buffers, caplog, done):
    backend.inject(faults.error(errno.EIO, on=END, buffer=buffers[1]))
    with caplog.at_level(logging.DEBUG, "dmasync"), DmaSyncerGroup(items, on_error="log"):
        pass
    assert done() == [*STARTS, "END third", "END first"]
    assert [record.name for record in caplog.records] == ["dmasync"]


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("retry", [RetryPolicy(), RetryPolicy(deadline=9.0)], ids=["default", "deadline"])
@pytest.mark.parametrize("use", ["start", "with"])
def test_an_interrupt_at_any_start_ends_those_before_it(backend, items, done, number, retry, use):
    group = DmaSyncerGroup(items, backend=interrupting(backend, {number}), retry=retry)
    with pytest.raises(KeyboardInterrupt):
        if use == "start":
            group.start()
        else:
            group.__enter__()
    assert not group.active
    assert done() == STARTS[: number - 1] + ENDS[4 - number :]


@pytest.mark.parametrize("numbers", [{1}, {2}, {3}, {1, 2, 3}, {2, 4}], ids=str)
@pytest.mark.parametrize("retry", [RetryPolicy(), RetryPolicy(deadline=9.0)], ids=["default", "deadline"])
def test_an_interrupt_at_any_end_comes_after_all_of_them(backend, items, done, numbers, retry):
    group = DmaSyncerGroup(items, backend=interrupting(backend, numbers, END), retry=retry)
    with pytest.raises(KeyboardInterrupt), group:
        pass
    assert not group.active
    assert done() == STARTS + ENDS


def test_an_interrupt_while_sleeping_between_starts_ends_those_before(backend, items, buffers, done):
    def sleep(seconds):
        raise KeyboardInterrupt

    backend.inject(faults.storm(errno.EAGAIN, 30, buffer=buffers[1]))
    with pytest.raises(KeyboardInterrupt):
        DmaSyncerGroup(items, retry=RetryPolicy(sleep=sleep)).start()
    assert done() == ["START first", "END first"]


def test_a_group_that_is_dropped_while_open_gets_its_ends_and_a_warning(items, done):
    group = DmaSyncerGroup(items)
    group.start()
    with pytest.warns(ResourceWarning, match="a DmaSyncerGroup was dropped while its window was open"):
        del group
        gc.collect()
    assert done() == STARTS + ENDS


def test_a_dropped_group_whose_end_is_refused_logs_that(backend, items, buffers, tried, caplog):
    backend.inject(faults.error(errno.EIO, on=END, buffer=buffers[1]))
    group = DmaSyncerGroup(items)
    group.start()
    with pytest.warns(ResourceWarning, match="was dropped"):
        del group
        gc.collect()
    assert tried() == STARTS + ENDS
    assert "Input/output error" in caplog.text


def test_a_group_that_is_dropped_shut_or_never_made_says_nothing(items, tried):
    group = DmaSyncerGroup(items)
    del group
    DmaSyncerGroup.__new__(DmaSyncerGroup)
    gc.collect()
    assert tried() == []


def test_buffers_that_are_closed_under_an_open_group_end_on_their_own_files(backend, buffers, items, done):
    group = DmaSyncerGroup(items)
    with group:
        buffers[0].close()
        buffers[2].close()
        assert len(backend.kernel.open_fds()) == 3
    assert done() == STARTS + ENDS
    assert list(backend.kernel.open_fds()) == [buffers[1].fileno()]
    with pytest.raises(ValueError, match="items hold a buffer that was closed"):
        group.start()


def test_buffers_closed_under_an_open_group_are_closed_though_end_fails(backend, buffers, items):
    backend.inject(faults.error(errno.EIO, on=END, buffer=buffers[1]))
    with pytest.raises(DmaSyncError), DmaSyncerGroup(items):
        for buffer in buffers:
            buffer.close()
    assert backend.kernel.open_fds() == {}


@pytest.mark.parametrize("step", [START, END])
@pytest.mark.parametrize("answered", [0, 1, 2])
@pytest.mark.parametrize("which", [0, 2])
@pytest.mark.parametrize("retry", [RetryPolicy(), RetryPolicy(deadline=60)], ids=["", "deadline"])
def test_a_buffer_that_is_closed_while_an_edge_is_made_stays_open_until_its_end(
    backend, buffers, items, done, step, answered, which, retry
):
    class Closing:
        count = 0

        def __getattr__(self, name):
            return getattr(backend, name)

        def ioctl(self, fd, request, argument):
            if bool(argument[0] & 4) == (step is END):
                if self.count == answered:
                    buffers[which].close()
                self.count += 1
            return backend.ioctl(fd, request, argument)

    group = DmaSyncerGroup(items, backend=Closing(), retry=retry)
    with group:
        pass
    assert done() == STARTS + ENDS
    assert sorted(backend.kernel.open_fds()) == [
        buffer.fileno() for number, buffer in enumerate(buffers) if number != which
    ]


def test_a_buffer_that_is_closed_while_a_start_is_refused_is_closed_then(backend, buffers, items, tried):
    class Closing:
        def __getattr__(self, name):
            return getattr(backend, name)

        def ioctl(self, fd, request, argument):
            buffers[1].close()
            raise OSError(errno.EIO, "refused")

    group = DmaSyncerGroup(items, backend=Closing())
    with pytest.raises(DmaSyncError):
        group.start()
    assert sorted(backend.kernel.open_fds()) == [buffers[0].fileno(), buffers[2].fileno()]


def test_no_window_opens_over_a_buffer_that_was_closed(buffers, items, tried):
    group = DmaSyncerGroup(items)
    buffers[1].close()
    for use in (group.start, group.__enter__):
        with pytest.raises(ValueError, match="items"):
            use()
    with pytest.raises(ValueError, match=r"items\[1\] was closed"):
        DmaSyncerGroup(items)
    assert tried() == []


@pytest.mark.parametrize("use", ["start", "__enter__"])
def test_opening_an_open_group_is_refused_and_leaves_it_open(items, done, use):
    group = DmaSyncerGroup(items)
    with group:
        with pytest.raises(RuntimeError, match="already open"):
            getattr(group, use)()
        assert group.active
        assert done() == STARTS
    assert done() == STARTS + ENDS


@pytest.mark.parametrize(
    ("wrong", "error", "named"),
    [
        ([], ValueError, "items must not be empty"),
        (5, TypeError, "items"),
        (None, TypeError, "items"),
        ([5], TypeError, r"items\[0\]"),
        ([(5,)], TypeError, r"items\[0\]"),
        (["ab"], TypeError, r"items\[0\]"),
        ([(5, READ), (6, READ, 7)], TypeError, r"items\[1\]"),
        ([(5, READ), ("x", READ)], TypeError, r"items\[1\]"),
        ([(5, READ), (-1, READ)], ValueError, r"items\[1\]"),
        ([(5, 1)], TypeError, "sync_type"),
        ([(5, SyncType(0))], ValueError, "sync_type"),
    ],
    ids=str,
)
def test_items_that_cannot_be_are_named_before_any_system_call(backend, wrong, error, named):
    with pytest.raises(error, match=named):
        DmaSyncerGroup(wrong, backend=backend)
    assert len(backend.journal.attempts) == 0


@pytest.mark.parametrize(
    ("keywords", "error"),
    [({"retry": 3}, TypeError), ({"on_error": "no"}, ValueError), ({"backend": 5}, TypeError)],
    ids=str,
)
def test_a_keyword_that_cannot_be_is_named(items, keywords, error, tried):
    with pytest.raises(error, match=next(iter(keywords))):
        DmaSyncerGroup(items, **keywords)
    assert tried() == []


def test_items_may_come_from_any_iterable(items, done):
    with DmaSyncerGroup(list(item) for item in items):
        pass
    assert done() == STARTS + ENDS


def test_a_group_is_never_copied(items, done):
    with DmaSyncerGroup(items) as group, pytest.raises(TypeError, match="make a group of its own"):
        copy.copy(group)
    assert len(done()) == 2 * len(items)


def test_repr_tells_how_many_and_the_state(items):
    group = DmaSyncerGroup(items)
    assert repr(group) == "<DmaSyncerGroup of 3 shut>"
    with group:
        assert repr(group) == "<DmaSyncerGroup of 3 open>"


def test_dropping_an_open_group_where_warnings_are_errors_still_ends_it_once(items, done, monkeypatch):
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lambda problem: lost.append(problem.exc_type))
    group = DmaSyncerGroup(items)
    group.start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del group
        gc.collect()
    assert lost == [ResourceWarning]
    assert done() == STARTS + ENDS


@pytest.mark.parametrize("step", [START, END])
def test_buffers_closed_while_somebody_keeps_a_groups_error_are_closed_at_once(backend, buffers, step):
    group = DmaSyncerGroup([(buffer, SyncType.READ) for buffer in buffers])
    backend.inject(faults.error(errno.EIO, on=step, nth=2))
    with pytest.raises(DmaSyncError) as kept, group:
        pass
    for buffer in buffers:
        buffer.close()
    assert not backend.kernel.open_fds()
    assert kept.value.__traceback__ is not None
    assert not group.active
