"""Bugs as they are written in real programs, each with its mended form.

A program gets a Lab and returns what came out and what should have. ``docs/explanation/gallery.md`` shows these
functions as they stand here, so they read as the real thing does: short, plain, a little careless.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass

from dmasync import DmaSyncer, DmaSyncerGroup, Step, SyncType, uapi
from dmasync.fakes import faults
from tests.gallery.lab import DONE, END, RAW, READ, RW, SIZE, START, WRITE, Lab, Outcome


@dataclass(frozen=True)
class Bug:
    """One picture of the gallery."""

    title: str
    story: str
    finding: str
    buggy: Callable[[Lab], Outcome]
    mended: Callable[[Lab], Outcome]
    cache_only: bool
    """Bytes come out wrong, but never on a coherent machine."""


# 1 ------------------------------------------------------------------------------------------------------------------


def exception_skips_end(lab: Lab) -> Outcome:
    frame = lab.buffer()
    view = lab.view(frame)
    try:
        lab.sync(frame, START | WRITE)
        view[:] = DONE
        int("no number")  # whatever may fail between the two
        lab.sync(frame, END | WRITE)
    except ValueError:
        pass  # logged, in the real program
    return lab.device.read(frame), DONE


def exception_runs_end(lab: Lab) -> Outcome:
    frame = lab.buffer()
    view = lab.view(frame)
    try:
        with DmaSyncer(frame, SyncType.WRITE):
            view[:] = DONE
            int("no number")
    except ValueError:
        pass
    return lab.device.read(frame), DONE


# 2 ------------------------------------------------------------------------------------------------------------------


def end_with_other_flags(lab: Lab) -> Outcome:
    frame = lab.buffer()
    view = lab.view(frame)
    lab.sync(frame, START | RW)
    view[:] = DONE
    lab.sync(frame, END | READ)
    return lab.device.read(frame), DONE


def end_with_the_same_flags(lab: Lab) -> Outcome:
    frame = lab.buffer()
    view = lab.view(frame)
    lab.sync(frame, START | RW)
    view[:] = DONE
    lab.sync(frame, END | RW)
    return lab.device.read(frame), DONE


# 3 ------------------------------------------------------------------------------------------------------------------


def read_window_for_an_update(lab: Lab) -> Outcome:
    frame = lab.buffer()
    view = lab.view(frame)
    lab.device.write(frame, RAW)
    with DmaSyncer(frame, SyncType.READ):
        view[0] = view[0] + 100  # a gain, say
    return lab.device.read(frame, 1), bytes([RAW[0] + 100])


def read_write_window_for_an_update(lab: Lab) -> Outcome:
    frame = lab.buffer()
    view = lab.view(frame)
    lab.device.write(frame, RAW)
    with DmaSyncer(frame, SyncType.READ_WRITE):
        view[0] = view[0] + 100
    return lab.device.read(frame, 1), bytes([RAW[0] + 100])


# 4 ------------------------------------------------------------------------------------------------------------------


def write_window_that_reads(lab: Lab) -> Outcome:
    frame = lab.buffer()
    lab.device.write(frame, RAW)
    with frame.cpu_access(SyncType.WRITE) as view:
        seen = bytes(view)  # to find the faulty pixels that it will overwrite
    return seen, RAW


def read_write_window_that_reads(lab: Lab) -> Outcome:
    frame = lab.buffer()
    lab.device.write(frame, RAW)
    with frame.cpu_access(SyncType.READ_WRITE) as view:
        seen = bytes(view)
    return seen, RAW


# 5 ------------------------------------------------------------------------------------------------------------------


def header_written_in_a_write_window(lab: Lab) -> Outcome:
    frame = lab.buffer()
    lab.device.write(frame, RAW)
    with frame.cpu_access(SyncType.WRITE) as view:
        view[:20] = DONE[:20]  # the rest of the frame is the device's
    return lab.device.read(frame), DONE[:20] + RAW[20:]


def header_written_in_a_read_write_window(lab: Lab) -> Outcome:
    frame = lab.buffer()
    lab.device.write(frame, RAW)
    with frame.cpu_access(SyncType.READ_WRITE) as view:
        view[:20] = DONE[:20]
    return lab.device.read(frame), DONE[:20] + RAW[20:]


# 6 ------------------------------------------------------------------------------------------------------------------


def mapping_read_after_end(lab: Lab) -> Outcome:
    frame = lab.buffer()
    view = lab.view(frame)
    with DmaSyncer(frame, SyncType.READ):
        pass  # the header is parsed here
    lab.device.write(frame, RAW)
    return bytes(view), RAW


def mapping_read_in_a_window(lab: Lab) -> Outcome:
    frame = lab.buffer()
    view = lab.view(frame)
    with DmaSyncer(frame, SyncType.READ):
        pass
    lab.device.write(frame, RAW)
    with DmaSyncer(frame, SyncType.READ):
        return bytes(view), RAW


# 7 ------------------------------------------------------------------------------------------------------------------


def late_write_after_end(lab: Lab) -> Outcome:
    frame = lab.buffer()
    view = lab.view(frame)
    with DmaSyncer(frame, SyncType.WRITE):
        view[: SIZE // 2] = DONE[: SIZE // 2]
    view[SIZE // 2 :] = DONE[SIZE // 2 :]  # one indent too few
    return lab.device.read(frame), DONE


def all_writes_before_end(lab: Lab) -> Outcome:
    frame = lab.buffer()
    view = lab.view(frame)
    with DmaSyncer(frame, SyncType.WRITE):
        view[: SIZE // 2] = DONE[: SIZE // 2]
        view[SIZE // 2 :] = DONE[SIZE // 2 :]
    return lab.device.read(frame), DONE


# 8 ------------------------------------------------------------------------------------------------------------------


def one_start_for_two_frames(lab: Lab) -> Outcome:
    first, second = lab.buffer(), lab.buffer()
    views = lab.view(first), lab.view(second)
    lab.device.write(first, RAW)
    lab.device.write(second, RAW)
    with DmaSyncer(first, SyncType.READ):
        seen = [bytes(view) for view in views]
    return b"".join(seen), RAW + RAW


def a_start_for_each_frame(lab: Lab) -> Outcome:
    first, second = lab.buffer(), lab.buffer()
    views = lab.view(first), lab.view(second)
    lab.device.write(first, RAW)
    lab.device.write(second, RAW)
    seen = []
    for frame, view in zip((first, second), views, strict=True):
        with DmaSyncer(frame, SyncType.READ):
            seen.append(bytes(view))
    return b"".join(seen), RAW + RAW


# 9 ------------------------------------------------------------------------------------------------------------------


def first_plane_synced_only(lab: Lab) -> Outcome:
    luma, chroma = lab.buffer(), lab.buffer()
    planes = [(luma, lab.view(luma)), (chroma, lab.view(chroma))]
    with DmaSyncer(luma, SyncType.WRITE):
        for _, view in planes:
            view[:] = DONE
    return lab.device.read(luma) + lab.device.read(chroma), DONE + DONE


def every_plane_synced(lab: Lab) -> Outcome:
    luma, chroma = lab.buffer(), lab.buffer()
    planes = [(luma, lab.view(luma)), (chroma, lab.view(chroma))]
    with DmaSyncerGroup([(plane, SyncType.WRITE) for plane, _ in planes]):
        for _, view in planes:
            view[:] = DONE
    return lab.device.read(luma) + lab.device.read(chroma), DONE + DONE


# 10 -----------------------------------------------------------------------------------------------------------------


def interrupted_end_given_up(lab: Lab) -> Outcome:
    frame = lab.buffer()
    view = lab.view(frame)
    lab.backend.inject(faults.storm(errno.EINTR, 1, on=Step.END))
    lab.sync(frame, START | WRITE)
    view[:] = DONE
    try:
        lab.sync(frame, END | WRITE)
    except OSError as error:
        lab.log.append(f"sync failed: {error}")
    return lab.device.read(frame), DONE


def interrupted_end_repeated(lab: Lab) -> Outcome:
    frame = lab.buffer()
    view = lab.view(frame)
    lab.backend.inject(faults.storm(errno.EINTR, 1, on=Step.END))
    with DmaSyncer(frame, SyncType.WRITE):
        view[:] = DONE
    return lab.device.read(frame), DONE


# 11 -----------------------------------------------------------------------------------------------------------------


def interrupted_start_ignored(lab: Lab) -> Outcome:
    frame = lab.buffer()
    view = lab.view(frame)
    lab.device.write(frame, RAW)
    lab.backend.inject(faults.storm(errno.EINTR, 1, on=Step.START))
    try:
        lab.sync(frame, START | READ)
    except InterruptedError:
        return bytes(view), RAW  # it was only a signal
    seen = bytes(view)
    lab.sync(frame, END | READ)
    return seen, RAW


def interrupted_start_repeated(lab: Lab) -> Outcome:
    frame = lab.buffer()
    view = lab.view(frame)
    lab.device.write(frame, RAW)
    lab.backend.inject(faults.storm(errno.EINTR, 1, on=Step.START))
    with DmaSyncer(frame, SyncType.READ):
        return bytes(view), RAW


# 12 -----------------------------------------------------------------------------------------------------------------


def end_after_a_failed_start(lab: Lab) -> Outcome:
    frame = lab.buffer()
    lab.backend.inject(faults.error(errno.EIO, on=Step.START))
    try:
        lab.sync(frame, START | READ)
    except OSError:
        pass  # logged, as libcamera does
    finally:
        lab.sync(frame, END | READ)
    return b"", b""


def no_end_after_a_failed_start(lab: Lab) -> Outcome:
    frame = lab.buffer()
    lab.backend.inject(faults.error(errno.EIO, on=Step.START))
    try:
        lab.sync(frame, START | READ)
    except OSError:
        return b"", b""
    lab.sync(frame, END | READ)
    return b"", b""


# 13 -----------------------------------------------------------------------------------------------------------------


class NaiveSyncer:
    """Ends when it is told to, and knows nothing of copies."""

    def __init__(self, lab: Lab, fd: int) -> None:
        self.lab, self.fd = lab, fd
        lab.sync(fd, START | WRITE)

    def moved(self) -> NaiveSyncer:
        other = NaiveSyncer.__new__(NaiveSyncer)
        other.lab, other.fd = self.lab, self.fd
        return other

    def end(self) -> None:
        self.lab.sync(self.fd, END | WRITE)


def moved_syncer_ended_twice(lab: Lab) -> Outcome:
    frame = lab.buffer()
    syncer = NaiveSyncer(lab, frame.fileno())
    heir = syncer.moved()
    heir.end()
    syncer.end()
    return b"", b""


def moved_syncer_does_nothing(lab: Lab) -> Outcome:
    frame = lab.buffer()
    syncer = DmaSyncer(frame, SyncType.WRITE)
    syncer.start()
    heir = syncer.move()
    heir.end()
    syncer.end()
    return b"", b""


# 14 -----------------------------------------------------------------------------------------------------------------


def window_held_while_the_device_writes(lab: Lab) -> Outcome:
    frame = lab.buffer()
    with frame.cpu_access(SyncType.READ) as view:
        lab.device.write(frame, RAW)  # the queue is fed in the loop that reads
        return bytes(view), RAW


def window_opened_when_the_device_is_done(lab: Lab) -> Outcome:
    frame = lab.buffer()
    lab.device.write(frame, RAW)
    with frame.cpu_access(SyncType.READ) as view:
        return bytes(view), RAW


# 15 -----------------------------------------------------------------------------------------------------------------


def queued_before_end(lab: Lab) -> Outcome:
    frame = lab.buffer()
    with frame.cpu_access(SyncType.WRITE) as view:
        view[:] = DONE
        return lab.device.read(frame), DONE  # QBUF inside the block


def queued_after_end(lab: Lab) -> Outcome:
    frame = lab.buffer()
    with frame.cpu_access(SyncType.WRITE) as view:
        view[:] = DONE
    return lab.device.read(frame), DONE


# 16 -----------------------------------------------------------------------------------------------------------------


def peek_before_start(lab: Lab) -> Outcome:
    frame = lab.buffer()
    view = lab.view(frame)
    lab.device.write(frame, RAW)
    seen = bytes(view[:4])  # is there a frame at all?
    with DmaSyncer(frame, SyncType.READ):
        return seen + bytes(view[4:]), RAW


def peek_after_start(lab: Lab) -> Outcome:
    frame = lab.buffer()
    view = lab.view(frame)
    lab.device.write(frame, RAW)
    with DmaSyncer(frame, SyncType.READ):
        return bytes(view[:4]) + bytes(view[4:]), RAW


# 17 -----------------------------------------------------------------------------------------------------------------


def two_threads_two_windows(lab: Lab) -> Outcome:
    frame = lab.buffer()
    view = lab.view(frame)
    half_way = threading.Barrier(2)

    def draw(part: slice, first: bool) -> None:
        if not first:
            half_way.wait()
        with DmaSyncer(frame):
            view[part] = DONE[part]
            if first:
                half_way.wait()
                half_way.wait()
        if not first:
            half_way.wait()

    threads = [
        threading.Thread(target=draw, args=(slice(0, SIZE // 2), True)),
        threading.Thread(target=draw, args=(slice(SIZE // 2, SIZE), False)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return lab.device.read(frame), DONE


def two_threads_one_window(lab: Lab) -> Outcome:
    frame = lab.buffer()
    view = lab.view(frame)

    def draw(part: slice) -> None:
        view[part] = DONE[part]

    threads = [threading.Thread(target=draw, args=(slice(start, start + SIZE // 2),)) for start in (0, SIZE // 2)]
    with DmaSyncer(frame):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return lab.device.read(frame), DONE


# 18 -----------------------------------------------------------------------------------------------------------------


def closed_before_end(lab: Lab) -> Outcome:
    frame = lab.buffer()
    fd = lab.backend.dup(frame.fileno())
    lab.sync(fd, START | WRITE)
    lab.backend.close(fd)
    with contextlib.suppress(OSError):
        lab.sync(fd, END | WRITE)
    return b"", b""


def closed_after_end(lab: Lab) -> Outcome:
    frame = lab.buffer()
    fd = lab.backend.dup(frame.fileno())
    lab.sync(fd, START | WRITE)
    lab.sync(fd, END | WRITE)
    lab.backend.close(fd)
    return b"", b""


# 19 -----------------------------------------------------------------------------------------------------------------


def closed_by_two_owners(lab: Lab) -> Outcome:
    frame = lab.buffer()
    fd = lab.backend.dup(frame.fileno())
    lab.backend.close(fd)  # the request that used it
    with contextlib.suppress(OSError):
        lab.backend.close(fd)  # the queue that owned it
    return b"", b""


def closed_by_one_owner(lab: Lab) -> Outcome:
    frame = lab.buffer()
    fd = lab.backend.dup(frame.fileno())
    lab.backend.close(fd)
    return b"", b""


# 20 -----------------------------------------------------------------------------------------------------------------


def memfd_never_closed(lab: Lab) -> Outcome:
    backend = lab.backend
    memfd = backend.memfd_create("frame", uapi.MFD_CLOEXEC | uapi.MFD_ALLOW_SEALING)
    backend.ftruncate(memfd, SIZE)
    backend.add_seals(memfd, uapi.F_SEAL_SHRINK)
    device = backend.open("/dev/udmabuf", 2)
    fd = backend.ioctl(device, uapi.UDMABUF_CREATE, uapi.udmabuf_create.pack(memfd, 1, 0, SIZE))
    backend.close(device)
    backend.close(fd)
    return b"", b""


def memfd_closed(lab: Lab) -> Outcome:
    backend = lab.backend
    memfd = backend.memfd_create("frame", uapi.MFD_CLOEXEC | uapi.MFD_ALLOW_SEALING)
    try:
        backend.ftruncate(memfd, SIZE)
        backend.add_seals(memfd, uapi.F_SEAL_SHRINK)
        device = backend.open("/dev/udmabuf", 2)
        fd = backend.ioctl(device, uapi.UDMABUF_CREATE, uapi.udmabuf_create.pack(memfd, 1, 0, SIZE))
        backend.close(device)
    finally:
        backend.close(memfd)
    backend.close(fd)
    return b"", b""


# 21 -----------------------------------------------------------------------------------------------------------------

_cache: list[object] = []


def mapping_left_in_a_cache(lab: Lab) -> Outcome:
    frame = lab.buffer()
    _cache[:] = [frame.map()]  # for the next time
    return b"", b""


def mapping_closed(lab: Lab) -> Outcome:
    frame = lab.buffer()
    mapping = frame.map()
    _cache[:] = [mapping]
    mapping.close()
    return b"", b""


BUGS = (
    Bug(
        "END forgotten where an exception leaves the block",
        "The END stands behind the work, in the same try block.",
        "start-never-ended",
        exception_skips_end,
        exception_runs_end,
        cache_only=True,
    ),
    Bug(
        "END with other flags than START",
        "Two constants, two places, one edit.",
        "end-with-other-access",
        end_with_other_flags,
        end_with_the_same_flags,
        cache_only=True,
    ),
    Bug(
        "A READ window for a read-modify-write",
        "It reads first, so it was opened for READ.",
        "write-in-read-window",
        read_window_for_an_update,
        read_write_window_for_an_update,
        cache_only=True,
    ),
    Bug(
        "A WRITE window that reads",
        "It will overwrite the frame, but looks at it before.",
        "stale-read",
        write_window_that_reads,
        read_write_window_that_reads,
        cache_only=True,
    ),
    Bug(
        "A WRITE window that replaces a part of the device's data",
        "Nothing is read, so it was opened for WRITE; but caches write whole lines.",
        "partial-write",
        header_written_in_a_write_window,
        header_written_in_a_read_write_window,
        cache_only=True,
    ),
    Bug(
        "A mapping kept and read after END",
        "The mapping is still there, so are its bytes: the old ones.",
        "access-outside-window",
        mapping_read_after_end,
        mapping_read_in_a_window,
        cache_only=True,
    ),
    Bug(
        "A late write after END",
        "The last lines of the frame are written below the block.",
        "access-outside-window",
        late_write_after_end,
        all_writes_before_end,
        cache_only=True,
    ),
    Bug(
        "START once for two frames",
        "Both frames came in one request, one of them is synced.",
        "access-outside-window",
        one_start_for_two_frames,
        a_start_for_each_frame,
        cache_only=True,
    ),
    Bug(
        "Plane 0 synced of a frame whose planes are in different buffers",
        "Right as long as all planes share a dma-buf.",
        "access-outside-window",
        first_plane_synced_only,
        every_plane_synced,
        cache_only=True,
    ),
    Bug(
        "EINTR at END taken as a failure",
        "A signal came; the program reports it and goes on.",
        "start-never-ended",
        interrupted_end_given_up,
        interrupted_end_repeated,
        cache_only=True,
    ),
    Bug(
        "EINTR at START taken as success",
        "A signal came; the program goes on without a window.",
        "access-outside-window",
        interrupted_start_ignored,
        interrupted_start_repeated,
        cache_only=True,
    ),
    Bug(
        "END after a START that failed",
        "A finally block ends what never began.",
        "end-without-start",
        end_after_a_failed_start,
        no_end_after_a_failed_start,
        cache_only=False,
    ),
    Bug(
        "A moved syncer ended twice",
        "Both the old and the new object think that the window is theirs.",
        "end-without-start",
        moved_syncer_ended_twice,
        moved_syncer_does_nothing,
        cache_only=False,
    ),
    Bug(
        "A window held while the device writes",
        "The window is opened before the frame has arrived.",
        "device-access-in-window",
        window_held_while_the_device_writes,
        window_opened_when_the_device_is_done,
        cache_only=True,
    ),
    Bug(
        "The buffer given to the device inside the window",
        "It is queued by the last line of the block instead of behind it.",
        "device-access-in-window",
        queued_before_end,
        queued_after_end,
        cache_only=True,
    ),
    Bug(
        "A look before START",
        "The first bytes tell whether there is a frame; they are read before the window is opened.",
        "access-outside-window",
        peek_before_start,
        peek_after_start,
        cache_only=True,
    ),
    Bug(
        "Two threads, each with a window of its own",
        "They draw different halves, but each START for READ invalidates the whole buffer.",
        "racing-windows",
        two_threads_two_windows,
        two_threads_one_window,
        cache_only=False,
    ),
    Bug(
        "The descriptor closed before END",
        "The window outlives its descriptor.",
        "sync-on-closed-fd",
        closed_before_end,
        closed_after_end,
        cache_only=False,
    ),
    Bug(
        "A descriptor closed by two owners",
        "By then the number may be another file's.",
        "double-close",
        closed_by_two_owners,
        closed_by_one_owner,
        cache_only=False,
    ),
    Bug(
        "The memfd behind a udmabuf never closed",
        "The udmabuf holds the pages; the descriptor of the memfd was forgotten.",
        "leaked-fd",
        memfd_never_closed,
        memfd_closed,
        cache_only=False,
    ),
    Bug(
        "A mapping left in a cache",
        "Kept for the next frame, which will have another buffer.",
        "leaked-mapping",
        mapping_left_in_a_cache,
        mapping_closed,
        cache_only=False,
    ),
)
