"""SyncFile: waiting for what a device has not finished."""

from __future__ import annotations

import errno
import gc
import math
import os
import select
import sys
import threading

import pytest

from dmasync import SyncFile, SyncType
from dmasync.fakes import FakeFence, faults


@pytest.fixture
def fence(backend, buffer):
    fence = FakeFence()
    backend.kernel.attach_fence(buffer.fileno(), fence)
    return fence


@pytest.fixture
def sync_file(buffer, fence):
    with buffer.export_sync_file(SyncType.READ) as sync_file:
        yield sync_file


def test_without_fences_there_is_nothing_to_wait_for(buffer):
    with buffer.export_sync_file(SyncType.WRITE) as sync_file:
        assert sync_file.wait() is True
        assert sync_file.wait(0) is True


@pytest.mark.parametrize("timeout", [0, 0.0, 0.001, 0.02])
def test_a_fence_that_is_pending_when_the_time_is_over_is_false(sync_file, timeout):
    assert sync_file.wait(timeout) is False


@pytest.mark.parametrize(
    "timeout", [0, 5, 10**400, 1e300, sys.float_info.max, math.inf, None], ids=lambda t: f"{t}"[:9]
)
def test_a_fence_that_has_signalled_is_true(sync_file, fence, timeout):
    fence.signal()
    assert sync_file.wait(timeout) is True


@pytest.mark.parametrize(
    "timeout", [60, 2**31, 10**400, 1e300, sys.float_info.max, math.inf, None], ids=lambda t: f"{t}"[:9]
)
def test_waiting_ends_when_the_fence_signals(sync_file, fence, timeout):
    threading.Timer(0.01, fence.signal).start()
    assert sync_file.wait(timeout) is True


def test_a_time_out_is_rounded_up_so_that_it_is_never_short(backend, sync_file):
    sync_file.wait(0.0001)
    assert next(call.arguments[2] for call in backend.journal.calls if call.method == "poll") == 1


def test_waiting_goes_on_after_an_interruption(backend, sync_file, fence):
    backend.inject(faults.storm(errno.EINTR, 3, on="poll"))
    fence.signal()
    assert sync_file.wait(5) is True
    assert [call.method for call in backend.journal.calls].count("poll") == 4


def test_an_early_wakeup_does_not_end_the_wait(backend, buffer):
    class Early:
        polls = 0

        def __getattr__(self, name):
            return getattr(backend, name)

        def poll(self, fd, events, timeout_ms):
            self.polls += 1
            return 0 if self.polls < 3 else backend.poll(fd, events, timeout_ms)

    early = Early()
    with buffer.export_sync_file(SyncType.READ) as exported, SyncFile(exported.release(), backend=early) as sync_file:
        assert sync_file.wait(30) is True
        assert early.polls == 3


def test_other_errors_of_poll_come_as_they_are(backend, sync_file):
    backend.inject(faults.error(errno.ENOMEM, on="poll"))
    with pytest.raises(OSError, match="Cannot allocate memory"):
        sync_file.wait(1)


def test_a_job_that_failed_raises_its_errno(sync_file, fence):
    fence.signal(error=errno.EIO)
    with pytest.raises(OSError, match="a fence of the sync file failed: Input/output error") as caught:
        sync_file.wait()
    assert caught.value.errno == errno.EIO


def test_a_descriptor_closed_by_somebody_else_is_ebadf(backend, sync_file):
    backend.close(sync_file.fileno())
    with pytest.raises(OSError, match="closed by somebody else") as caught:
        sync_file.wait(1)
    assert caught.value.errno == errno.EBADF
    sync_file.release()


@pytest.mark.parametrize(
    ("timeout", "error"),
    [(-1, ValueError), (-0.001, ValueError), (math.nan, ValueError), ("1", TypeError), (True, TypeError)],
)
def test_a_time_out_that_cannot_be_is_named_before_any_system_call(backend, sync_file, timeout, error):
    before = len(backend.journal.calls)
    with pytest.raises(error, match="timeout must"):
        sync_file.wait(timeout)
    assert len(backend.journal.calls) == before


def test_a_number_is_taken_over(backend, buffer):
    fd = buffer.export_sync_file(SyncType.READ).release()
    with SyncFile(fd, backend=backend) as sync_file:
        assert sync_file.fileno() == fd
        assert repr(sync_file) == f"<SyncFile fd={fd}>"
        assert not sync_file.closed
    assert sync_file.closed
    assert repr(sync_file) == "<SyncFile closed>"
    assert fd not in backend.kernel.open_fds()
    sync_file.close()


def test_without_backend_it_is_the_real_kernels():
    reader, writer = os.pipe()
    with SyncFile(reader) as sync_file:
        assert sync_file.wait(0) is False
        os.write(writer, b"x")
        with pytest.raises(OSError, match="Inappropriate ioctl") as caught:
            sync_file.wait(0)
        assert caught.value.errno == errno.ENOTTY
    os.close(writer)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(reader)


@pytest.mark.parametrize(
    ("fd", "error"), [(-1, ValueError), ("3", TypeError), (None, TypeError), (1 << 31, ValueError)]
)
def test_a_number_that_cannot_be_is_named(fd, error):
    with pytest.raises(error, match="fd must"):
        SyncFile(fd)


def test_a_closed_sync_file_refuses_every_use(sync_file):
    sync_file.close()
    for use in (sync_file.fileno, sync_file.wait, sync_file.release, sync_file.__enter__):
        with pytest.raises(ValueError, match="SyncFile was closed"):
            use()


def test_a_dropped_sync_file_is_closed_with_a_warning(backend, buffer):
    sync_file = buffer.export_sync_file(SyncType.READ)
    with pytest.warns(ResourceWarning, match="unclosed <SyncFile fd="):
        del sync_file
        gc.collect()
    assert "sync_file" not in backend.kernel.open_fds().values()


def test_a_sync_file_that_was_never_made_can_be_dropped():
    SyncFile.__new__(SyncFile)
    gc.collect()


def test_poll_is_asked_for_what_a_sync_file_tells(backend, sync_file):
    sync_file.wait(0)
    (call,) = [call for call in backend.journal.calls if call.method == "poll"]
    assert call.arguments == (sync_file.fileno(), select.POLLIN, 0)
