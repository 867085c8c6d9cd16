"""One number, one owner: who else would close it is refused, and told who does."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from unittest import mock

import pytest

from dmasync import DmaBuf, DmaBufAllocator, DmaSyncer, LinuxBackend, SyncFile, SyncType
from dmasync.backend import LINUX, kernel_beneath
from dmasync.fakes import FakeBackend, FakeKernel, FaultInjector, Recorder


def test_a_number_that_a_buffer_owns_cannot_be_taken_over(backend, buffer):
    fd = buffer.fileno()
    for same in (backend, backend.injector, backend.kernel):
        with pytest.raises(ValueError, match=rf"{fd} is one that <DmaBuf 'frame' 4096 bytes fd={fd}> closes"):
            DmaBuf.from_fd(fd, backend=same)
    assert fd in backend.kernel.open_fds()


def test_a_number_that_was_taken_over_cannot_be_taken_over_again(backend, buffer):
    fd = backend.dup(buffer.fileno())
    with DmaBuf.from_fd(fd, backend=backend):
        with pytest.raises(ValueError, match=r"use that DmaBuf, release\(\) it first"):
            DmaBuf.from_fd(fd, backend=backend)
        assert fd in backend.kernel.open_fds()
    assert fd not in backend.kernel.open_fds()


def test_a_number_that_was_released_can_be_taken_over(backend, buffer):
    fd = buffer.dup().release()
    with DmaBuf.from_fd(fd, backend=backend) as taken:
        again = taken.release()
    with DmaBuf.from_fd(again, backend=backend):
        pass
    assert fd not in backend.kernel.open_fds()


def test_a_number_is_free_when_its_owner_was_dropped(backend, buffer):
    first = DmaBuf.from_fd(backend.dup(buffer.fileno()), backend=backend)
    fd = first.fileno()
    with pytest.warns(ResourceWarning, match="unclosed"):
        del first
        gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        DmaBuf.from_fd(fd, backend=backend)


def test_a_window_that_outlives_its_buffer_keeps_the_number_until_its_end(backend, buffer):
    twin = buffer.dup()
    fd = twin.fileno()
    with DmaSyncer(twin):
        twin.close()
        with pytest.raises(ValueError, match="closes"):
            DmaBuf.from_fd(fd, backend=backend)
    assert fd not in backend.kernel.open_fds()


def test_a_released_number_is_the_callers_also_while_a_window_uses_it(backend, buffer):
    twin = buffer.dup()
    with DmaSyncer(twin):
        taken = DmaBuf.from_fd(twin.release(), backend=backend)
    taken.close()


def test_the_same_number_of_another_kernel_is_another_file(backend, buffer):
    other = FakeBackend()
    with DmaBufAllocator(backend=other) as allocator, allocator.alloc("other", 4096) as foreign:
        assert foreign.fileno() == buffer.fileno()
        fd = foreign.release()
        with DmaBuf.from_fd(fd, backend=other):
            pass


def test_a_sync_file_owns_its_number_too(backend, buffer):
    with buffer.export_sync_file(SyncType.READ) as exported:
        with pytest.raises(ValueError, match=r"is one that <SyncFile fd=\d+> closes"):
            SyncFile(exported.fileno(), backend=backend)
        number = backend.dup(exported.fileno())
    with SyncFile(number, backend=backend), pytest.raises(ValueError, match="use that SyncFile"):
        SyncFile(number, backend=backend)


def test_a_sync_file_cannot_take_an_allocators_or_a_buffers_number(backend, buffer):
    with DmaBufAllocator(backend=backend) as allocator:
        for owner in (allocator, buffer):
            with pytest.raises(ValueError, match=f"is one that <{type(owner).__name__} "):
                SyncFile(owner.fileno(), backend=backend)


def test_an_allocation_takes_its_number_whoever_thinks_that_he_has_it(backend, buffer):
    """The kernel has just said that it was free: somebody closed it behind its owner's back."""
    stale = buffer.dup()
    fd = stale.fileno()
    backend.close(fd)
    backend.kernel.descriptors._next = fd  # the number that comes next, as the real kernel takes the lowest
    with buffer.dup() as fresh:
        assert fresh.fileno() == fd
        assert stale.release() == fd  # which takes nothing from its new owner
        with pytest.raises(ValueError, match="is one that"):
            DmaBuf.from_fd(fd, backend=backend)


def test_all_layers_over_the_real_kernel_speak_of_the_same_descriptors():
    for backend in (LinuxBackend(), Recorder(LinuxBackend()), Recorder(FaultInjector(LINUX))):
        assert kernel_beneath(backend) is LINUX
    fake = FakeKernel()
    assert kernel_beneath(Recorder(FaultInjector(fake))) is fake
    kernel_beneath(mock.MagicMock())  # comes back, although there is always one more beneath it


def test_two_sync_files_of_one_real_number_are_refused():
    reader, writer = os.pipe()
    with SyncFile(reader), pytest.raises(ValueError, match="SyncFile"):
        SyncFile(reader, backend=Recorder(LinuxBackend()))
    os.close(writer)


def test_a_number_that_an_exported_sync_file_owns_is_refused(backend, buffer):
    with buffer.export_sync_file(SyncType.READ) as sync_file:
        with pytest.raises(ValueError, match=r"is one that <SyncFile .* closes"):
            SyncFile(sync_file.fileno(), backend=backend)
        assert sync_file.wait(0)


def test_a_release_that_is_interrupted_leaves_the_number_to_its_owner(backend, monkeypatch):
    with DmaBufAllocator(backend=backend) as allocator:
        buffer = allocator.alloc("frame", 4096)

    def interrupted(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DmaBuf, "_unmap", interrupted)
        with pytest.raises(KeyboardInterrupt):
            buffer.release()
    with pytest.raises(ValueError, match="closes"):
        DmaBuf.from_fd(buffer.fileno(), backend=backend)
    buffer.close()


IN_A_CHILD = """
import gc, os, sys, warnings
from dmasync import DmaBufAllocator, DmaBufAllocatorFlag, SyncType
from dmasync.fakes import FakeBackend

backend = FakeBackend()
allocator = DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=backend)
owned = {"allocator": allocator, "buffer": allocator.alloc("frame", 4096)}
owned["sync file"] = owned["buffer"].export_sync_file(SyncType.READ)
frame = allocator.export_buffers(1, [4096])[0]
del allocator
child = os.fork()
if not child:
    own = owned["buffer"].dup() if sys.argv[1] == "its own" else None
    fds = list(backend.kernel.open_fds())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        del own
        owned.clear()
        del frame
        gc.collect()
    told = [str(each.message) for each in told if each.category is ResourceWarning]
    assert len(told) == (sys.argv[1] == "its own"), told
    assert fds and not backend.kernel.open_fds()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert len(backend.kernel.open_fds()) == 4
frame.close()
for each in owned.values():
    each.close()
"""


@pytest.mark.parametrize("drops", ["its parent's", "its own"])
def test_a_child_of_a_fork_is_told_of_what_it_opened_itself_alone(drops):
    command = [sys.executable, "-W", "error", "-c", IN_A_CHILD, drops]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
