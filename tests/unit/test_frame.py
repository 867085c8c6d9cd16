"""Plane and FrameBuffer: places in dma-bufs, and the frame that they make."""

from __future__ import annotations

import dataclasses
import errno

import pytest

from dmasync import (
    DmaBufAllocator,
    DmaBufAllocatorFlag,
    DmaSyncerGroup,
    DmaSyncError,
    FrameBuffer,
    Plane,
    RetryPolicy,
    SyncType,
)
from dmasync.fakes import faults


@pytest.fixture
def buffers(backend):
    with DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=backend) as allocator:
        buffers = [allocator.alloc(name, 4096) for name in ("luma", "chroma")]
    yield buffers
    for buffer in buffers:
        buffer.close()


def test_a_plane_is_a_part_of_its_buffers_bytes(buffers):
    plane = Plane(buffers[0], 100, 50)
    with buffers[0].cpu_access(SyncType.WRITE) as view:
        plane.view(view)[:] = bytes(range(50))
    with buffers[0].cpu_access(SyncType.READ) as view:
        assert bytes(view[99:151]) == b"\0" + bytes(range(50)) + b"\0"


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (0, 4096), (4096, 0), (4095, 1)])
def test_planes_inside_the_buffer_are_taken(buffers, offset, length):
    plane = Plane(buffers[0], offset, length)
    assert (plane.offset, plane.length) == (offset, length)


@pytest.mark.parametrize(
    ("offset", "length", "error", "named"),
    [
        (0, 4097, ValueError, "length must end inside the buffer's 4096 bytes"),
        (4096, 1, ValueError, "length must end inside"),
        (-1, 1, ValueError, "offset must not be negative"),
        (0, -1, ValueError, "length must not be negative"),
        ("0", 1, TypeError, "offset must be a number of bytes"),
        (0, 1.0, TypeError, "length must be a number of bytes"),
        (True, 1, TypeError, "offset must be a number of bytes"),
    ],
    ids=str,
)
def test_a_plane_that_cannot_be_is_named(buffers, offset, length, error, named):
    with pytest.raises(error, match=named):
        Plane(buffers[0], offset, length)


def test_a_plane_lies_in_a_dma_buf(buffers):
    with pytest.raises(TypeError, match="buffer must be a DmaBuf"):
        Plane(buffers[0].fileno(), 0, 1)


def test_a_plane_cannot_be_changed(buffers):
    with pytest.raises(dataclasses.FrozenInstanceError):
        Plane(buffers[0], 0, 1).offset = 2


def test_a_frame_knows_each_buffer_once_in_the_planes_order(buffers):
    frame = FrameBuffer(iter([Plane(buffers[1], 0, 1), Plane(buffers[0], 0, 1), Plane(buffers[1], 1, 1)]))
    assert frame.buffers == (buffers[1], buffers[0])
    assert len(frame.planes) == 3
    assert repr(frame) == "<FrameBuffer 3 planes in 2 buffers>"


@pytest.mark.parametrize("planes", [[], 5, None, ["plane"]], ids=str)
def test_planes_that_cannot_be_are_named(planes):
    with pytest.raises((TypeError, ValueError), match="planes must"):
        FrameBuffer(planes)


def test_a_frames_window_covers_its_buffers_with_the_access_policy_and_logging_asked_for(backend, buffers, caplog):
    frame = FrameBuffer([Plane(buffers[0], 0, 1), Plane(buffers[1], 0, 1)])
    with frame.syncer() as group:
        assert isinstance(group, DmaSyncerGroup)
        assert len(group) == 2
    assert [t.access for t in backend.journal.transitions()] == [SyncType.READ_WRITE] * 4
    backend.inject(faults.storm(errno.EINTR, 2))
    with pytest.raises(DmaSyncError):
        frame.syncer(SyncType.READ, retry=RetryPolicy(max_attempts=1)).start()
    with frame.syncer(SyncType.READ, retry=RetryPolicy(max_attempts=1), on_error="log") as group:
        assert not group.active
    assert len(caplog.records) == 2


def test_closing_a_frame_closes_its_buffers(backend, buffers):
    with FrameBuffer([Plane(buffers[0], 0, 1), Plane(buffers[1], 0, 1), Plane(buffers[0], 1, 1)]) as frame:
        assert frame.planes[0].buffer is buffers[0]
    assert all(buffer.closed for buffer in buffers)
    assert backend.kernel.open_fds() == {}
    frame.close()


def test_closing_a_frame_closes_every_buffer_though_one_fails(backend, buffers):
    frame = FrameBuffer([Plane(buffers[0], 0, 1), Plane(buffers[1], 0, 1)])
    backend.inject(faults.error(errno.EIO, on="close"))
    with pytest.raises(OSError, match="Input/output error"):
        frame.close()
    assert all(buffer.closed for buffer in buffers)
    assert backend.kernel.open_fds() == {}


def test_a_failure_at_the_last_buffer_is_raised_too(backend, buffers):
    frame = FrameBuffer([Plane(buffers[0], 0, 1), Plane(buffers[1], 0, 1)])
    backend.inject(faults.error(errno.EIO, on="close", nth=2))
    with pytest.raises(OSError, match="Input/output error"):
        frame.close()
    assert backend.kernel.open_fds() == {}


def test_a_plane_lies_in_no_sync_file(buffer):
    with buffer.export_sync_file(SyncType.READ) as sync_file, pytest.raises(TypeError, match="must be a DmaBuf"):
        Plane(sync_file, 0, 1)
