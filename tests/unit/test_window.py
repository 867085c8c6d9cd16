"""What the windows of both kinds share: whose error is raised, what hangs on it, and whom a warning points at."""

from __future__ import annotations

import errno
import gc

import pytest

from dmasync import (
    DmaSyncer,
    DmaSyncerGroup,
    DmaSyncError,
    DmaSyncTimeout,
    RetryPolicy,
    Step,
    SyncType,
)
from dmasync.fakes import faults
from dmasync.retry import attach

END = Step.END


@pytest.fixture(params=["syncer", "group"])
def window(request, buffers):
    return DmaSyncer(buffers[0]) if request.param == "syncer" else DmaSyncerGroup([(b, SyncType.READ) for b in buffers])


def failure() -> DmaSyncError:
    return DmaSyncError(errno.EIO, 5, 7, END, 1)


def test_the_refusal_of_an_end_has_the_bodys_exception_for_no_context(backend, window):
    backend.inject(faults.error(errno.EIO, on=END))
    with pytest.raises(ZeroDivisionError) as caught, window:
        raise ZeroDivisionError
    refused = caught.value.__context__
    assert isinstance(refused, DmaSyncError)
    assert isinstance(refused.__cause__, OSError)
    assert refused.__cause__.__context__ is None
    assert refused.__context__ is None


def test_attempts_count_anew_behind_an_end_that_was_given_up(backend, buffers):
    first, last, _ = buffers
    group = DmaSyncerGroup([(first, SyncType.READ), (last, SyncType.READ)])
    backend.inject(
        faults.storm(errno.EINTR, 4, on=END, buffer=last),
        faults.error(errno.EIO, on=END, buffer=last),
        faults.error(errno.EIO, on=END, buffer=first),
    )
    with pytest.raises(DmaSyncError) as caught, group:
        pass
    assert (caught.value.fd, caught.value.attempts) == (last.fileno(), 5)
    second = caught.value
    while second.__context__ is not None:
        second = second.__context__
    assert isinstance(second, DmaSyncError)
    assert (second.fd, second.attempts) == (first.fileno(), 1)


@pytest.mark.parametrize("step", [Step.START, END], ids=["START", "END"])
def test_the_deadline_of_a_group_counts_from_the_first_try(buffers, backend, step):
    now = [0.0]

    class Slow:
        def __getattr__(self, name):
            return getattr(backend, name)

        def ioctl(self, fd, request, argument):
            now[0] += 2.0
            if bool(argument[0] & 4) == (step is END):
                raise InterruptedError(errno.EINTR, "interrupted")
            return backend.ioctl(fd, request, argument)

    policy = RetryPolicy(deadline=1.0, clock=lambda: now[0])
    group = DmaSyncerGroup([(buffers[0], SyncType.READ)], backend=Slow(), retry=policy)
    with pytest.raises(DmaSyncTimeout) as caught, group:
        assert step is END
    assert (caught.value.step, caught.value.attempts) == (step, 1)


def test_a_group_keeps_its_descriptors_open(buffers, backend):
    before = backend.kernel.open_fds()
    with pytest.warns(ResourceWarning, match="unclosed <DmaBuf"):
        group = DmaSyncerGroup([(buffers[0].dup(), SyncType.READ), (buffers[1].dup(), SyncType.READ)])
        gc.collect()
    assert len(backend.kernel.open_fds()) == len(before) + 2
    with group:
        pass
    assert len(backend.journal.transitions()) == 4
    del group
    gc.collect()
    assert backend.kernel.open_fds() == before


def test_an_end_that_never_got_through_names_what_kept_it_from_that(buffers, backend):
    class Broken:
        def __getattr__(self, name):
            return getattr(backend, name)

        def ioctl(self, fd, request, argument):
            if argument[0] & 4:
                raise RuntimeError("broken")
            return backend.ioctl(fd, request, argument)

    with pytest.raises(RuntimeError) as caught, DmaSyncer(buffers[0], backend=Broken()):
        pass
    given_up = caught.value.__context__
    assert isinstance(given_up, DmaSyncError)
    assert isinstance(given_up.__cause__, RuntimeError)


def test_an_error_goes_behind_contexts_that_run_in_a_circle():
    body, one, other, refused = ZeroDivisionError(), ValueError(), KeyError(), failure()
    body.__context__, one.__context__, other.__context__ = one, other, one
    attach(body, [refused])
    assert other.__context__ is refused
    assert refused.__context__ is None


def test_an_error_that_was_attached_points_back_at_nothing():
    body, refused = ZeroDivisionError(), failure()
    refused.__context__ = body
    attach(body, [refused])
    assert body.__context__ is refused
    assert refused.__context__ is None
    assert body.__notes__ == [f"and {refused}"]


@pytest.mark.parametrize("kind", ["syncer", "group"])
def test_the_warning_of_a_dropped_window_points_at_who_dropped_it(buffers, kind):
    window = DmaSyncer(buffers[0]) if kind == "syncer" else DmaSyncerGroup([(b, SyncType.READ) for b in buffers])
    window.start()
    with pytest.warns(ResourceWarning, match="was dropped") as caught:
        del window
        gc.collect()
    (warning,) = caught
    assert warning.filename == __file__
