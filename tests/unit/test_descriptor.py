"""Descriptor: closed once, by the last who uses it, and never when it is somebody else's."""

from __future__ import annotations

import contextlib
import errno
import gc
import sys
import threading

import pytest

from dmasync import (
    DmaBufAllocator,
    DmaBufAllocatorFlag,
    DmaSyncer,
    DmaSyncerGroup,
    DmaSyncError,
    LinuxBackend,
    RetryPolicy,
    SyncType,
)
from dmasync.descriptor import Descriptor, Share
from dmasync.fakes import FakeBackend


class Closing(LinuxBackend):
    """Counts closes; its ioctls succeed. *error* is raised after a close."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.closed: list[int] = []
        self.error = error
        self.ioctl = lambda *arguments: 0  # type: ignore[assignment]

    def close(self, fd: int, /) -> None:  # type: ignore[override]
        self.closed.append(fd)
        if self.error is not None:
            raise self.error


class Holder:
    """What a DmaBuf is to a syncer."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor


@pytest.fixture
def backend():
    return Closing()


def test_a_borrowed_number_is_never_closed(backend):
    descriptor = Descriptor(backend, 5)
    descriptor.close()
    del descriptor
    gc.collect()
    assert backend.closed == []


def test_an_owned_number_is_closed_once(backend):
    descriptor = Descriptor(backend, 5)
    descriptor.own()
    assert not descriptor.closed
    descriptor.close()
    assert descriptor.closed
    descriptor.close()
    del descriptor
    gc.collect()
    assert backend.closed == [5]


def test_owning_after_closing_closes_nothing(backend):
    descriptor = Descriptor(backend, 5)
    descriptor.close()
    descriptor.own()
    descriptor.close()
    assert backend.closed == []


def test_a_released_number_is_somebody_elses(backend):
    descriptor = Descriptor(backend, 5)
    descriptor.own()
    assert descriptor.release() == 5
    assert descriptor.closed
    descriptor.close()
    del descriptor
    gc.collect()
    assert backend.closed == []
    descriptor = Descriptor(backend, 6)
    descriptor.close()
    assert descriptor.release() == 6


def test_an_error_of_close_reaches_the_caller_and_the_number_is_not_closed_again():
    backend = Closing(OSError(errno.EIO, "no"))
    descriptor = Descriptor(backend, 5)
    descriptor.own()
    with pytest.raises(OSError, match="no"):
        descriptor.close()
    descriptor.close()
    del descriptor
    gc.collect()
    assert backend.closed == [5]


def test_each_kind_of_window_is_told_that_the_descriptor_was_closed(backend):
    descriptor = Descriptor(backend, 5)
    descriptor.own()
    holder = Holder(descriptor)
    usual = DmaSyncer(holder, SyncType.READ)
    unusual = DmaSyncer(holder, SyncType.READ, on_error="log")
    descriptor.close()
    for syncer in (usual, unusual):
        with pytest.raises(ValueError, match="closed"):
            syncer.start()
    assert backend.closed == [5]


def test_policies_may_be_many_and_each_is_the_one_that_is_used(backend):
    descriptor = Descriptor(backend, 5)
    descriptor.own()
    holder = Holder(descriptor)
    policies = [RetryPolicy(max_attempts=number) for number in range(1, 51)]
    refusals: list[int] = []

    def refuse(*arguments):
        refusals.append(1)
        raise InterruptedError(errno.EINTR, "again")

    descriptor.ioctl = refuse
    for _ in range(2):
        for policy in policies:
            refusals.clear()
            with pytest.raises(DmaSyncError):
                DmaSyncer(holder, retry=policy).start()
            assert len(refusals) == policy.max_attempts
    assert 1 < len(descriptor._recent) <= 16
    held = [DmaSyncer(holder, retry=policy) for policy in policies]
    descriptor.close()
    for syncer in held:
        with pytest.raises(ValueError, match="closed"):
            syncer.start()
    assert backend.closed == [5]


def test_windows_of_one_policy_have_their_lane_in_common(backend):
    holder, policy = Holder(Descriptor(backend, 5)), RetryPolicy(max_attempts=3)
    assert DmaSyncer(holder, retry=policy)._lane is DmaSyncer(holder, retry=policy)._lane
    others = [{"on_error": "log"}, {"sync_type": SyncType.READ}, {"retry": RetryPolicy(max_attempts=3)}]
    for other in others:
        assert DmaSyncer(holder, **{"retry": policy, **other})._lane is not DmaSyncer(holder, retry=policy)._lane


@pytest.mark.parametrize("keywords", [{}, {"on_error": "log"}], ids=["usual", "unusual"])
def test_the_last_window_closes_the_number(backend, keywords):
    descriptor = Descriptor(backend, 5)
    descriptor.own()
    windows = [DmaSyncer(Holder(descriptor), SyncType.READ, **keywords) for _ in range(3)]
    for window in windows:
        window.start()
    descriptor.close()
    for window in windows:
        assert backend.closed == []
        window.end()
    assert backend.closed == [5]


def test_an_error_of_the_close_at_the_last_end_is_not_lost(monkeypatch):
    backend = Closing(OSError(errno.EIO, "no"))
    descriptor = Descriptor(backend, 5)
    descriptor.own()
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lambda problem: lost.append(repr(problem.exc_value)))
    with DmaSyncer(Holder(descriptor)):
        descriptor.close()
    gc.collect()
    assert backend.closed == [5]
    assert lost == [repr(OSError(errno.EIO, "no"))]


@pytest.mark.parametrize("wrong", [5, None, object()], ids=["int", "None", "object"])
def test_a_backend_that_cannot_be_is_named(wrong):
    with pytest.raises(TypeError, match="backend must"):
        Descriptor(wrong, 5)


def test_a_share_that_was_never_made_can_be_dropped():
    Share.__new__(Share)
    gc.collect()


@pytest.mark.parametrize("kind", ["policy", "group"])
def test_no_window_opens_on_a_descriptor_that_another_thread_was_closing(kind, switching):
    """Many threads make windows of the kinds that a descriptor has to know, while it is closed."""
    backend = FakeBackend()

    def window(buffer):
        # A policy of its own each time, else they would have a lane in common.
        return DmaSyncer(buffer, retry=RetryPolicy()) if kind == "policy" else DmaSyncerGroup([(buffer, SyncType.READ)])

    for _ in range(20):
        with DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=backend) as allocator:
            buffer = allocator.alloc("frame", 4096)
        made = [window(buffer) for _ in range(100)]
        begun = threading.Barrier(3)

        def make(buffer=buffer, made=made, begun=begun):
            begun.wait()
            with contextlib.suppress(ValueError):
                while True:
                    made.append(window(buffer))

        threads = [threading.Thread(target=make) for _ in range(2)]
        for thread in threads:
            thread.start()
        begun.wait()
        buffer.close()
        for thread in threads:
            thread.join()
        for each in made:
            with pytest.raises(ValueError, match="closed"):
                each.start()
        assert backend.kernel.open_fds() == {}


@pytest.fixture
def switching():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)
