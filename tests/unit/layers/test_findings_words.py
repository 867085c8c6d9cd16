"""What findings say: by direction, by what is still alive, and with whose frames."""

from __future__ import annotations

import itertools
import sysconfig
import threading

import pytest

from dmasync import DmaBufAllocator, DmaBufAllocatorFlag, DmaSyncer, SyncType, uapi
from dmasync.fakes import FakeBackend, FakeDevice, FaultInjector, Journal, Recorder, Sanitizer
from dmasync.fakes.sanitizer import finding as finding_module
from dmasync.fakes.sanitizer.finding import KINDS, OTHER_ACCESS
from dmasync.fakes.sanitizer.frames import is_machinery

READ, WRITE, READ_WRITE = SyncType.READ, SyncType.WRITE, SyncType.READ_WRITE
NAMES = {READ: "READ", WRITE: "WRITE", READ_WRITE: "READ_WRITE"}
OLD, NEW, CPU = b"\x11", b"\x22", b"\x33"


def frame_of(backend, name="frame"):
    with DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=backend) as allocator:
        return allocator.alloc(name, 4096)


def sync(backend, frame, flags):
    backend.ioctl(frame.fileno(), uapi.DMA_BUF_IOCTL_SYNC, uapi.dma_buf_sync.pack(flags))


@pytest.mark.parametrize(("start", "end"), list(itertools.permutations(NAMES, 2)), ids=lambda access: NAMES[access])
def test_the_consequence_of_another_access_is_that_of_its_direction(start, end):
    """The memory that is not coherent does what Linux 6.12 does under swiotlb=force: the sentences say that."""
    backend = FakeBackend(coherent=False, seed=None)
    with frame_of(backend) as frame, FakeDevice(backend) as device, frame.map() as mapping:
        device.write(frame, OLD * 4096)
        sync(backend, frame, start.value)
        sync(backend, frame, start.value | uapi.DMA_BUF_SYNC_END)
        device.write(frame, NEW * 4096)
        sync(backend, frame, start.value)
        fetched = mapping[:] == NEW * 4096
        mapping[:] = CPU * 4096
        sync(backend, frame, end.value | uapi.DMA_BUF_SYNC_END)
        written = device.read(frame, 1) == CPU
    assert fetched is (READ in start)
    assert written is (WRITE in end)
    (finding,) = [found for found in Sanitizer(backend).findings() if found.kind == "end-with-other-access"]
    assert ("device sees old bytes" in finding.consequence) is (WRITE in start and not written)
    assert ("Nothing" in finding.consequence) is not (WRITE in start and not written)
    assert ("stale" in finding.consequence) is (READ in end and not fetched and WRITE in end)
    assert finding.fix.startswith("Give START and END of one window the same access flags: ")


def test_there_is_a_sentence_for_every_pair_of_accesses_that_differ():
    assert set(OTHER_ACCESS) == set(itertools.permutations(NAMES.values(), 2))


# Mappings


@pytest.mark.parametrize("stacks", [True, False])
def test_a_mapping_that_a_slice_keeps_says_that_something_of_a_view_is_alive(stacks):
    backend = FakeBackend(stacks=stacks)
    with pytest.warns(ResourceWarning, match="stays mapped"), frame_of(backend) as frame, frame.cpu_access() as view:
        kept = view[4:8]
    (finding,) = Sanitizer(backend).findings()
    assert finding.kind == "leaked-mapping"
    assert "an array, a slice or a cast of a window's view is still alive" in finding.message
    assert ("bytes(view)" in finding.fix) is stacks
    del kept
    assert Sanitizer(backend).findings() == []


def test_a_mapping_of_the_programs_own_is_not_said_to_be_a_views():
    backend = FakeBackend(stacks=True)
    with frame_of(backend) as frame:
        mapping = frame.map()
    (finding,) = Sanitizer(backend).findings()
    assert finding.message == "a mapping of 4096 bytes was never closed, although its buffer was"
    mapping.close()


def test_a_buffer_that_is_open_is_to_blame_for_its_mapping():
    backend = FakeBackend(stacks=True)
    frame = frame_of(backend)
    with frame.cpu_access():
        pass
    kinds = {finding.kind: finding for finding in Sanitizer(backend).findings()}
    assert kinds["leaked-mapping"].message == "a mapping of 4096 bytes was never closed"
    frame.close()


# Windows that were dropped


@pytest.mark.parametrize("layers", [lambda inner: Recorder(inner), lambda inner: FaultInjector(Recorder(inner))])
def test_a_dropped_window_is_found_through_any_layers(layers):
    outermost = layers(FakeBackend().kernel)
    recorder = outermost if isinstance(outermost, Recorder) else outermost.inner
    with frame_of(outermost) as frame, pytest.warns(ResourceWarning, match="was dropped"):
        window = DmaSyncer(frame, READ)
        window.start()
        del window
    (finding,) = Sanitizer(recorder).findings()
    assert (finding.kind, finding.traces[0].what[:10]) == ("window-dropped", "#0 START f")


def test_the_window_that_was_dropped_is_named_not_another_of_its_thread(tmp_path):
    backend, other = FakeBackend(), FakeBackend()
    with frame_of(backend) as first, frame_of(backend, "second") as second, frame_of(other) as foreign:
        windows = [DmaSyncer(first, READ), DmaSyncer(second, WRITE), DmaSyncer(foreign)]
        for window in windows:
            window.start()
        windows.pop(0).end()
        with pytest.warns(ResourceWarning, match="was dropped"):
            window = windows.pop()  # of the other backend
            del window
        with pytest.warns(ResourceWarning, match="was dropped"):
            del windows[0]
    (finding,) = Sanitizer(backend).findings()
    assert (finding.kind, finding.traces[0].what[:17]) == ("window-dropped", "#1 START for WRIT")
    assert [found.kind for found in Sanitizer(other).findings()] == ["window-dropped"]
    backend.journal.dump(tmp_path / "trace")
    assert [found.kind for found in Sanitizer(Journal.load(tmp_path / "trace"), leaks=False).findings()] == [
        "window-dropped"
    ]
    assert "window-dropped of buffer 2" in backend.journal.timeline()


@pytest.mark.parametrize("access", [READ, WRITE, READ | WRITE])
def test_a_window_that_is_left_open_has_the_consequence_of_its_access(access):
    backend = FakeBackend()
    with frame_of(backend) as frame:
        window = DmaSyncer(frame, access)
        window.start()
        with pytest.warns(ResourceWarning, match="was dropped"):
            del window
        left = DmaSyncer(frame, access)
        left.start()
        told = {finding.kind: finding for finding in Sanitizer(backend).findings()}
        left.end()
    assert {"window-dropped", "start-never-ended"} <= set(told)
    for kind in ("window-dropped", "start-never-ended"):
        assert ("No byte is lost" in told[kind].consequence) == (access == READ)
        assert ("device" in told[kind].consequence and "old bytes" in told[kind].consequence) == (access != READ)
        assert told[kind].fix == KINDS[kind].fix


def test_windows_that_were_ended_are_not_dropped():
    backend = FakeBackend()
    with frame_of(backend) as frame:
        window = DmaSyncer(frame)
        for step in (window.start, window.end):
            thread = threading.Thread(target=step)
            thread.start()
            thread.join()
        del window, step, thread
        with DmaSyncer(frame), frame.cpu_access():
            pass
    assert Sanitizer(backend).findings() == []


# Frames


@pytest.mark.parametrize(
    "file",
    [
        finding_module.__file__,
        "/opt/other/lib/python3.9/site-packages/dmasync/buffer.py",
        "/opt/other/lib/python3.9/site-packages/dmasync/a_module_of_another_version.py",
        "/home/somebody/checkout/dmasync/fakes/layers/recorder.py",
        "/home/somebody/dmasync/dmasync/buffer.py",
        "/usr/lib/python3/dist-packages/_pytest/python.py",
        "/venv/lib/python3.12/site-packages/pluggy/_callers.py",
        "/usr/lib/python3.13/contextlib.py",
        "/usr/local/lib/python3.14t/asyncio/runners.py",
        f"{sysconfig.get_paths()['stdlib']}/threading.py",
        "<frozen runpy>",
    ],
)
def test_frames_of_dmasync_python_and_test_runners_are_machinery_wherever_they_lie(file):
    assert is_machinery(file)


@pytest.mark.parametrize(
    "file",
    [
        __file__,
        "/home/somebody/dmasync/examples/pipeline.py",
        "/home/somebody/dmasync/main.py",
        "/srv/camera/fakes/backend.py",
        "/srv/camera/buffer.py",
        "/venv/lib/python3.12/site-packages/camera/frames.py",
        "/home/lib/python/app.py",
        "<string>",
        "<stdin>",
    ],
)
def test_frames_of_anybody_else_are_the_users(file):
    assert not is_machinery(file)


def test_a_trace_of_another_installation_shows_the_users_frame(tmp_path):
    backend = FakeBackend(stacks=True)
    frame_of(backend).release()
    backend.journal.dump(tmp_path / "trace")
    here = finding_module.__file__.removesuffix("/fakes/sanitizer/finding.py")
    text = (tmp_path / "trace").read_text().replace(here, "/opt/elsewhere/python3.9/site-packages/dmasync")
    assert "/opt/elsewhere" in text
    (tmp_path / "trace").write_text(text)
    (finding,) = Sanitizer(Journal.load(tmp_path / "trace")).findings()
    first = str(finding.traces[0]).splitlines()[1]
    assert first.strip().startswith(__file__)
    assert "/opt/elsewhere" not in str(finding)


def test_a_line_that_is_not_known_is_left_out():
    trace = finding_module.Trace("#0 START", (("frames.c", 12, "capture"), ("camera", 0, "_start")))
    assert str(trace) == "  #0 START\n    frames.c:12 in capture\n    camera in _start"
