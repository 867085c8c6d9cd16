"""``dmasync record`` and ``dmasync replay``, as their user calls them."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dmasync import DmaBufAllocator, DmaBufAllocatorFlag, DmaSyncerGroup, Step, SyncType, uapi
from dmasync.fakes import FakeBackend, FakeDevice, Journal, Recorder, faults
from dmasync.fakes.replay import Replay
from tests.support import warm
from tests.unit.layers.test_injector import SYNC, edge, heap_buffer


def dmasync(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    return warm.python("-m", "dmasync", *arguments, cwd=cwd, env=environment, timeout=120)


def in_process(trace: Path, program: Path) -> subprocess.CompletedProcess[str]:
    """Recorded beneath its default backend, as where system calls cannot be seen."""
    command = [sys.executable, "-m", "dmasync.fakes.recording", str(trace), str(program)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)


def everything(backend: FakeBackend) -> None:
    """A program that does of everything some."""
    with DmaBufAllocator(DmaBufAllocatorFlag.UDMABUF, backend=backend) as allocator:
        frames = allocator.export_buffers(2, [4096, 2048])
        with allocator.alloc("frame", 5000) as frame, frame.dup() as again:
            with frame.cpu_access(SyncType.WRITE) as view:
                view[:4] = b"abcd"
            with DmaSyncerGroup([(frame, SyncType.READ), (again, SyncType.READ)]):
                pass
            with frame.export_sync_file(SyncType.READ) as fence:
                fence.wait(1)
                frame.import_sync_file(fence, SyncType.WRITE)
            backend.poll(frame.fileno(), 1, None)
            with pytest.raises(OSError, match="Invalid"):
                backend.ioctl(frame.fileno(), SYNC, uapi.dma_buf_sync.pack(0))
            with pytest.raises(OSError, match="ioctl"):
                backend.ioctl(frame.fileno(), 0x1234, bytearray(8))
            with pytest.raises(OSError, match="Bad address"):
                backend.ioctl(frame.fileno(), uapi.DMA_BUF_SET_NAME, 0)
        for made in frames:
            made.close()
    memfd = backend.memfd_create("x", uapi.MFD_ALLOW_SEALING)
    backend.ftruncate(memfd, 8192)
    backend.add_seals(memfd, uapi.F_SEAL_SHRINK)
    assert backend.get_seals(memfd) == uapi.F_SEAL_SHRINK
    node = backend.open("/dev/udmabuf", os.O_RDWR)
    item = bytes(uapi.udmabuf_create_item.pack(memfd, 0, 0, 4096))
    listed = backend.ioctl(node, uapi.UDMABUF_CREATE_LIST, uapi.udmabuf_create_list.pack(1, 2) + item + item)
    for fd in (listed, node, memfd):
        backend.close(fd)
    backend.close(heap_buffer(backend))


@pytest.fixture
def trace(tmp_path) -> Path:
    backend = FakeBackend(faults=[faults.mix(3, rate=0.3)])
    everything(backend)
    path = tmp_path / "trace.jsonl"
    backend.journal.dump(path)
    return path


def test_a_good_trace_replays_without_difference_or_finding(trace, tmp_path):
    result = dmasync("replay", "--timeline", 5, "--svg", tmp_path / "a.svg", "--perfetto", tmp_path / "a.json", trace)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "differences: 0" in result.stdout
    assert "findings: 0" in result.stdout
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    assert json.loads((tmp_path / "a.json").read_text())["traceEvents"]


def test_the_replay_makes_the_same_calls(trace):
    journal = Journal.load(trace)
    replay = Replay(journal)
    assert replay.run() == []
    played = replay.backend.journal
    assert [(a.flags, a.errno) for a in played.attempts] == [(a.flags, a.errno) for a in journal.attempts]
    assert [call.method for call in played.calls] == [call.method for call in journal.calls]
    assert replay.backend.kernel.open_fds() == {}


def test_an_answer_that_the_fake_would_not_give_is_a_difference(trace):
    lines = trace.read_text().splitlines(keepends=True)
    place = next(i for i, line in enumerate(lines) if line.startswith('{"sync"') and line.endswith(",0]}\n"))
    lines[place] = lines[place].replace(",0]}", f",{errno.EIO}]}}")
    place = next(i for i, line in enumerate(lines) if '"method":"lseek"' in line)
    lines[place] = lines[place].replace('"result":', '"result":1')
    trace.write_text("".join(lines))
    result = dmasync("replay", "--json", trace)
    assert result.returncode == 1
    told = json.loads(result.stdout)
    assert [(d["recorded"], d["fake"]) for d in told["differences"]][-1] == ("EIO", "success")
    assert "lseek" in told["differences"][0]["what"]


def test_findings_are_told_with_both_stacks(tmp_path):
    backend = FakeBackend(stacks=True)
    fd = heap_buffer(backend)
    backend.ioctl(fd, SYNC, edge(Step.START))
    backend.ioctl(fd, SYNC, edge(Step.END, SyncType.READ))
    backend.close(fd)
    backend.journal.dump(tmp_path / "trace")
    result = dmasync("replay", tmp_path / "trace")
    assert result.returncode == 1
    assert "end-with-other-access" in result.stdout
    assert result.stdout.count("test_record_replay.py") == 2
    told = json.loads(dmasync("replay", "--json", tmp_path / "trace").stdout)
    assert told["findings"][0]["kind"] == "end-with-other-access"
    assert dmasync("replay", "--allow", "end-with-other-access", tmp_path / "trace").returncode == 0
    assert dmasync("replay", "--allow", "nonsense", tmp_path / "trace").returncode == 2


def test_a_truncated_trace_replays_up_to_its_last_whole_line(trace):
    text = trace.read_text()
    trace.write_text(text[: len(text) // 2])
    result = dmasync("replay", trace)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "cut off" in result.stdout


@pytest.mark.parametrize("content", [b"", b"\x7fELF\0\0", b"{}\n", b'{"format":"dmasync-trace","version":9}\n'])
def test_what_is_no_trace_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "trace"
    path.write_bytes(content)
    result = dmasync("replay", path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "unusable" in result.stderr


def test_what_is_not_there_is_refused(tmp_path):
    assert dmasync("replay", tmp_path / "nothing").returncode == 2
    assert dmasync("replay", tmp_path).returncode == 2


def test_an_empty_trace_judges_nothing(tmp_path):
    Journal().dump(tmp_path / "trace")
    assert dmasync("replay", tmp_path / "trace").returncode == 3


def test_a_picture_that_cannot_be_written_is_said(trace, tmp_path):
    result = dmasync("replay", "--svg", tmp_path / "no" / "where.svg", trace)
    assert result.returncode == 2
    assert "cannot be written" in result.stderr


def test_a_hostile_trace_touches_no_file_and_waits_for_nothing(tmp_path):
    backend = FakeBackend()
    heap = backend.open("/dev/dma_heap/system", os.O_RDWR)
    backend.close(heap)
    journal = backend.journal
    target = tmp_path / "victim"
    journal.calls[0].arguments = (str(target), os.O_RDWR | os.O_CREAT)
    fd = heap_buffer(backend)
    backend.poll(fd, 1, 0)
    journal.calls[-1].arguments = (fd, 1, 10**9)
    backend.ftruncate(backend.memfd_create("x", 0), 4096)
    journal.calls[-1].arguments = (journal.calls[-2].result, 1 << 62)
    journal.dump(tmp_path / "trace")
    result = dmasync("replay", tmp_path / "trace")
    assert result.returncode == 1
    assert not target.exists()


def test_what_depends_on_the_machine_is_not_compared():
    backend = FakeBackend(providers=["/dev/dma_heap/system"])
    with pytest.raises(FileNotFoundError):
        backend.open("/dev/udmabuf", os.O_RDWR)
    fd = heap_buffer(backend)
    backend.poll(fd, 1, 0)
    backend.journal.calls[-1].result = 0  # a device was busy there
    name = backend.ioctl(fd, uapi.DMA_BUF_SET_NAME, bytearray(b"name\0"))
    assert name == 0
    backend.journal.calls[-1].arguments = (fd, uapi.DMA_BUF_SET_NAME, 0x7F0012345678)  # a pointer of that process
    backend.close(fd)
    assert Replay(backend.journal).run() == []


def test_what_the_fake_does_not_know_is_a_difference():
    backend = FakeBackend()
    fd = heap_buffer(backend)
    mapping = backend.mmap(fd, 4096, 1, 1)
    mapping.close()
    backend.journal.calls[-1].arguments = (fd, 4096, 1, 0x11, 0)  # MAP_FIXED
    (difference,) = Replay(backend.journal).run()
    assert "the fake answers nothing" in str(difference)
    backend.journal.calls[-1].arguments = (fd, -1, 1, 1, 0)
    (difference,) = Replay(backend.journal).run()
    assert "OverflowError" in str(difference)


def test_a_recorded_program_keeps_its_output_arguments_and_exit_status(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import sys\nprint(__name__, sys.argv[1:])\nsys.exit(7)\n")
    result = dmasync("record", "-o", tmp_path / "t", "--", program, "a", "-b", cwd=tmp_path)
    assert result.returncode == 7
    assert result.stdout == "__main__ ['a', '-b']\n"


def test_code_and_modules_can_be_recorded(tmp_path):
    (tmp_path / "mod.py").write_text("import sys\nprint('module', sys.argv[1:], __name__)\n")
    result = dmasync("record", "--", sys.executable, "-m", "mod", "x", cwd=tmp_path)
    assert result.stdout == "module ['x'] __main__\n"
    result = dmasync("record", "--", sys.executable, "-c", "import sys; print(sys.argv)", "y", cwd=tmp_path)
    assert result.stdout == "['-c', 'y']\n"
    assert (tmp_path / "dmasync-trace.jsonl").exists()


def test_what_a_program_asks_of_the_default_backend_is_in_the_trace(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        """
import os
from dmasync import DmaBuf, DmaSyncer, LinuxBackend
from dmasync.backend import LINUX
fd = LINUX.memfd_create("frame", 0)
LINUX.ftruncate(fd, 4096)
syncer = DmaSyncer(fd)
for _ in range(2000):
    try:
        syncer.start()
    except OSError:
        pass
if not os.fork():
    LINUX.close(fd)
    LINUX.memfd_create("other", 0)
    os._exit(0)  # writes nothing more
os.wait()
mapping = LINUX.mmap(fd, 4096, 1, 1)
LINUX.close(fd)
"""
    )
    path = tmp_path / "t.jsonl"
    result = in_process(path, program)
    assert result.returncode == 0, result.stderr
    journal = Journal.load(path)
    assert journal.count(errno=errno.ENOTTY) == 2000
    assert [call.method for call in journal.calls] == ["memfd_create", "ftruncate", "mmap", "close"]
    assert journal.facts["complete"]
    assert journal.facts["open_mappings"] == [2]
    assert journal.facts["program"] == [str(program)]
    assert any("program.py" in frame[0] for frame in journal.stack(journal.attempts[0].stack))
    (child,) = tmp_path.glob("t.jsonl.*")
    assert [event.kind for event in Journal.load(child).events] == ["forked"]
    assert [call.method for call in Journal.load(child).calls] == ["memfd_create", "ftruncate", "close"]


def test_a_program_that_is_killed_leaves_a_trace_that_replays(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        """
import os, signal
from dmasync import DmaSyncer
from dmasync.backend import LINUX
fd = LINUX.memfd_create("frame", 0)
for _ in range(1500):
    try:
        DmaSyncer(fd).start()
    except OSError:
        pass
os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    path = tmp_path / "t.jsonl"
    assert in_process(path, program).returncode == -9
    assert len(Journal.load(path)) >= 1024
    replayed = dmasync("replay", path)
    assert "cut off" in replayed.stdout
    assert "differences: 0" in replayed.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "PROGRAM is missing"),
        (["--", "no-such-program-anywhere"], "not on the PATH"),
        (["--", "/etc/passwd"], "no executable file"),
        (["--", "/"], "no executable file"),
        (["--", "python9.9", "x"], "not on the PATH"),
        (["-o", "/no/where/t", "--", sys.executable, "-c", "1"], "TRACE '/no/where/t' cannot be written"),
        (["-o", "/", "--", sys.executable, "-c", "1"], "TRACE '/' cannot be written"),
    ],
)
def test_an_unusable_call_is_refused_in_one_line(arguments, words):
    result = dmasync("record", *arguments)
    assert result.returncode == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_program_that_uses_no_backend_records_nothing(tmp_path):
    result = dmasync("record", "-o", tmp_path / "t", "--", sys.executable, "-c", "pass")
    assert result.returncode == 0
    assert "nothing was recorded" in result.stderr
    assert "wrote" not in result.stderr
    assert (tmp_path / "t").exists()
    assert dmasync("replay", tmp_path / "t").returncode == 3


def without(journal: Journal, method: str) -> Journal:
    """As if the program had got elsewhere what *method* gave it."""
    journal.calls[:] = [call for call in journal.calls if call.method != method]
    return journal


def test_a_descriptor_from_elsewhere_is_not_judged():
    backend = FakeBackend()
    memfd = backend.memfd_create("inherited", 0)  # as standard input is, or what came over a socket
    backend.ftruncate(memfd, 8192)
    again = backend.dup(memfd)
    backend.lseek(again, 0, os.SEEK_END)
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        backend.ioctl(again, SYNC, edge(Step.START))
    backend.close(again)
    with pytest.raises(OSError, match="Bad file descriptor"):
        backend.close(again)
    with pytest.raises(OSError, match="Bad file descriptor"):
        backend.ioctl(again, SYNC, edge(Step.START))
    backend.close(memfd)
    replay = Replay(without(backend.journal, "memfd_create"))
    assert replay.run() == []
    # ftruncate, dup, lseek, START, and both that were closed; what was closed is known to be so.
    assert (replay.skipped, replay.played) == (6, 2)


def test_a_buffer_of_a_memfd_from_elsewhere_is_not_judged():
    backend = FakeBackend()
    memfd = backend.memfd_create("inherited", uapi.MFD_ALLOW_SEALING)
    backend.ftruncate(memfd, 4096)
    backend.add_seals(memfd, uapi.F_SEAL_SHRINK)
    node = backend.open("/dev/udmabuf", os.O_RDWR)
    buffer = backend.ioctl(node, uapi.UDMABUF_CREATE, uapi.udmabuf_create.pack(memfd, 0, 0, 4096))
    backend.lseek(buffer, 0, os.SEEK_END)
    backend.close(buffer)
    backend.close(node)
    replay = Replay(without(backend.journal, "memfd_create"))
    assert replay.run() == []
    assert replay.played == 2  # the node's open and close


def test_a_number_that_the_program_opened_itself_meanwhile_is_from_elsewhere():
    backend = FakeBackend()
    mine = backend.memfd_create("mine", 0)
    backend.close(mine)
    other = backend.memfd_create("not through the backend", 0)
    backend.ftruncate(other, 4096)
    backend.close(other)
    del backend.journal.calls[2]
    for call in backend.journal.calls[2:]:
        call.arguments = (mine, *call.arguments[1:])  # a real kernel gives the number again
    replay = Replay(backend.journal)
    assert replay.run() == []
    assert (replay.played, replay.skipped) == (2, 2)


def test_a_call_that_the_fake_would_refuse_otherwise_is_a_difference():
    backend = FakeBackend()
    fd = heap_buffer(backend)
    backend.lseek(fd, 0, os.SEEK_END)
    backend.journal.calls[-1].errno, backend.journal.calls[-1].result = errno.ESPIPE, None
    (difference,) = Replay(backend.journal).run()
    assert (difference.recorded, difference.fake) == ("ESPIPE", "success")


def test_what_is_skipped_is_said(tmp_path):
    backend = FakeBackend()
    memfd = backend.memfd_create("inherited", 0)
    backend.close(heap_buffer(backend))
    backend.ftruncate(memfd, 4096)
    without(backend.journal, "memfd_create").dump(tmp_path / "trace")
    told = dmasync("replay", "--allow", "leaked-fd", tmp_path / "trace")
    assert told.returncode == 0, told.stdout
    assert told.stdout.startswith("5 calls recorded on an unnamed kernel; not played: 1 on descriptors from elsewhere")
    assert json.loads(dmasync("replay", "--json", tmp_path / "trace").stdout)["skipped"] == 1


def test_descriptor_zero_is_a_descriptor_like_others(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        """
import os
from dmasync import DmaSyncer
from dmasync.backend import LINUX
os.close(0)
for _ in range(2):
    assert LINUX.memfd_create("zero", 0) == 0  # the trace's file is out of the way
    LINUX.ftruncate(0, 4096)
    try:
        DmaSyncer(0).start()
    except OSError as error:
        print(error.errno)
    LINUX.mmap(0, 4096, 1, 1).close()
    LINUX.ioctl(0, 0x5451, 0)  # FIOCLEX
    LINUX.close(0)
"""
    )
    result = in_process(tmp_path / "t", program)
    assert result.stdout == f"{errno.ENOTTY}\n" * 2, result.stderr
    replay = Replay(Journal.load(tmp_path / "t"))
    assert replay.run() == []
    assert (replay.played, replay.skipped) == (12, 0)


def test_fences_are_merged_again():
    backend = FakeBackend()
    fd = heap_buffer(backend)
    fences = []
    for _ in range(2):
        argument = uapi.dma_buf_export_sync_file.pack(SyncType.READ.value, -1)
        backend.ioctl(fd, uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE, argument)
        fences.append(uapi.dma_buf_export_sync_file.get(argument, "fd"))
    merge = uapi.sync_merge_data.pack(b"both", fences[1], -1, 0, 0)
    backend.ioctl(fences[0], uapi.SYNC_IOC_MERGE, merge)
    for made in (*fences, uapi.sync_merge_data.get(merge, "fence"), fd):
        backend.close(made)
    replay = Replay(backend.journal)
    assert replay.run() == []
    assert replay.skipped == 0
    assert replay.backend.kernel.open_fds() == {}


def test_what_was_no_answer_of_the_kernels_is_not_played():
    backend = FakeBackend(coherent=False)
    fd = heap_buffer(backend)
    opened = len(backend.journal.calls)
    with pytest.raises(OSError, match="Invalid argument"):
        backend.ioctl(fd, SYNC, "no flags are known of it")
    for request in (SYNC, uapi.DMA_BUF_SET_NAME):
        with pytest.raises(TypeError):
            backend.ioctl(fd, request, object())
    FakeDevice(backend).write(fd, b"device")  # an event, no call
    replay = Replay(backend.journal)
    assert replay.run() == []
    assert (replay.played, replay.skipped) == (opened, 0)


def test_an_argument_that_was_no_buffer_is_played_as_a_number():
    class Taking:
        """A backend that takes any argument, and whose answer is the fake's to a null pointer."""

        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def ioctl(self, fd, request, arg):
            return self.inner.ioctl(fd, request, arg if isinstance(arg, (int, bytearray)) else 0)

    fake = FakeBackend()
    recorder = Recorder(Taking(fake))
    fd = heap_buffer(recorder)
    with pytest.raises(OSError, match="Bad address"):
        recorder.ioctl(fd, uapi.DMA_BUF_SET_NAME, object())
    recorder.close(fd)
    assert Replay(recorder.journal).run() == []
