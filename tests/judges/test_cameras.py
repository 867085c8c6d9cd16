"""libcamera's virtual cameras, whose frames are dma-bufs, with libcamera's own program and with GStreamer's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dmasync.fakes import Journal
from dmasync.harness.vm.host import host_machine
from tests.judges import next_debian

pytestmark = [pytest.mark.judges, pytest.mark.timeout(900)]
PROGRAM = Path(__file__).with_name("gstreamer_buffer.c")
WIDTH, HEIGHT = 320, 240
FRAME = WIDTH * HEIGHT * 3 // 2
"""Bytes of a frame in NV12: a plane of bytes, and one of half its size."""
CAMERAS = f"""\
%YAML 1.1
---
"Virtual0":
  supported_formats:
  - width: {WIDTH}
    height: {HEIGHT}
    frame_rates:
    - 30
    - 60
  test_pattern: "bars"
"""


@pytest.fixture(scope="module")
def root() -> Path:
    root = next_debian.unpacked(
        ["libcamera-tools", "libcamera-ipa", "gstreamer1.0-libcamera", "gstreamer1.0-tools",
         "gstreamer1.0-plugins-base", "libgstreamer-plugins-base1.0-dev"]
    )  # fmt: skip
    (root / "usr/share/libcamera/pipeline/virtual/virtual.yaml").write_text(CAMERAS)
    return root


@pytest.fixture
def folder(root) -> Iterator[Path]:
    """For files that programs of *root* read or write."""
    with next_debian.folder_of(root) as folder:
        yield folder


def buffers(trace: Path) -> set[int]:
    """Those that were mapped."""
    return {call.buffer for call in Journal.load(trace).calls if call.method == "mmap" and call.buffer is not None}


@pytest.mark.parametrize("nodes", [("/dev/udmabuf",), ("/dev/dma_heap/system",)], ids=["udmabuf", "heap"])
def test_cam_writes_the_frames_that_the_camera_makes(root, folder, tmp_path, nodes):
    trace = tmp_path / "trace.jsonl"
    options = [*(f"--node={node}" for node in nodes), "--trace", trace]
    done = next_debian.run(
        root,
        "/usr/bin/cam",
        "--camera=1",
        "--capture=5",
        f"--file={next_debian.inside(root, folder)}/frame-#",
        options=options,
    )
    assert done.returncode == 0, done.stderr
    assert "dmasync run" not in done.stderr  # nothing of it is not modelled
    frames = sorted(folder.glob("frame-*"))
    assert [frame.stat().st_size for frame in frames] == [FRAME] * 5
    assert all(len(set(frame.read_bytes())) > 2 for frame in frames)  # bars
    assert buffers(trace)


def test_without_a_node_that_gives_buffers_there_is_no_camera(root):
    # Of all the nodes one that libcamera does not know is there.
    done = next_debian.run(root, "/usr/bin/cam", "--camera=1", "--capture=1", options=["--node=/dev/dma_heap/other"])
    assert done.returncode != 0
    assert "seq:" not in done.stdout


def test_the_report_names_the_library_that_writes_frames_without_a_window(root, tmp_path):
    trace = tmp_path / "trace.jsonl"
    done = next_debian.run(root, "/usr/bin/cam", "--camera=1", "--capture=5", options=["--check", "--trace", trace])
    assert done.stdout.count("seq:") == 5
    journal = Journal.load(trace)
    if journal.attempts:  # as newer ones make START and END
        journal.assert_balanced()
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 1
    assert "access-outside-window" in done.stderr
    assert "libcamera::VirtualCameraData::processRequest" in done.stderr


def test_gstreamer_takes_frames_from_the_camera_and_converts_them(root, folder, tmp_path):
    trace = tmp_path / "trace.jsonl"
    pipeline = (
        f"libcamerasrc ! video/x-raw,format=NV12,width={WIDTH},height={HEIGHT} ! identity eos-after=5 ! videoconvert"
        f" ! video/x-raw,format=RGB ! filesink location={next_debian.inside(root, folder)}/frames"
    )
    done = next_debian.run(root, "/usr/bin/gst-launch-1.0", *pipeline.split(), options=["--trace", trace])
    assert done.returncode == 0, done.stderr
    assert "Got EOS" in done.stdout
    frames = (folder / "frames").read_bytes()
    count, rest = divmod(len(frames), WIDTH * HEIGHT * 3)
    assert (rest, count in (4, 5)) == (0, True)
    assert len(set(frames)) > 2
    journal = Journal.load(trace)
    journal.assert_balanced()
    assert journal.attempts  # its own: it maps a dma-buf between START and END
    assert "dmasync run" not in done.stderr


def test_gstreamers_own_udmabufs_are_mapped_between_start_and_end(root, folder, tmp_path):
    libraries = root / f"usr/lib/{host_machine()}-linux-gnu"
    headers = [root / "usr/include/gstreamer-1.0", root / "usr/include/glib-2.0", libraries / "glib-2.0/include"]
    names = ["gstallocators-1.0", "gstreamer-1.0", "gobject-2.0", "glib-2.0"]
    program = next_debian.compiled(
        root, PROGRAM, folder, *(f"-I{path}" for path in headers), *(f"-l{name}" for name in names)
    )
    trace = tmp_path / "trace.jsonl"
    done = next_debian.run(root, next_debian.inside(root, program), options=["--check", "--trace", trace])
    assert done.stdout.splitlines() == ["allocated, a dma-buf: 1", "4096 bytes, the last is 7"], done.stderr
    assert done.returncode == 0, done.stderr
    journal = Journal.load(trace)
    journal.assert_balanced()
    assert len(journal.attempts) == 4
