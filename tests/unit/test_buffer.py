"""DmaBuf and cpu_access: one descriptor, its bytes and its windows."""

from __future__ import annotations

import copy
import errno
import gc
import mmap
import os
import pickle
import warnings

import pytest

from dmasync import (
    CpuAccess,
    DmaBuf,
    DmaBufAllocator,
    DmaBufAllocatorFlag,
    DmaSyncer,
    DmaSyncError,
    RetryPolicy,
    Step,
    SyncFile,
    SyncType,
    uapi,
)
from dmasync.fakes import FakeBackend, faults

START, END = Step.START, Step.END
READ, WRITE, READ_WRITE = SyncType.READ, SyncType.WRITE, SyncType.READ_WRITE


@pytest.fixture
def backend():
    return FakeBackend()


@pytest.fixture
def allocator(backend):
    with DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=backend) as allocator:
        yield allocator


@pytest.fixture
def buffer(allocator):
    with allocator.alloc("frame", 8192) as buffer:
        yield buffer


def steps(backend):
    return [transition.step for transition in backend.journal.transitions()]


# The descriptor


def test_a_buffer_knows_what_it_is(buffer, allocator, backend):
    assert (buffer.size, buffer.name, buffer.provider, buffer.closed) == (8192, "frame", allocator.provider, False)
    assert backend.kernel.open_fds()[buffer.fileno()] == "dmabuf"
    assert repr(buffer) == f"<DmaBuf 'frame' 8192 bytes fd={buffer.fileno()}>"


def test_closing_closes_the_descriptor_once(buffer, backend):
    fd = buffer.fileno()
    buffer.close()
    buffer.close()
    assert buffer.closed
    assert fd not in backend.kernel.open_fds()
    assert [call.arguments for call in backend.journal.calls if call.method == "close"].count((fd,)) == 1
    assert repr(buffer) == "<DmaBuf 'frame' 8192 bytes closed>"


def test_the_with_block_closes_also_when_it_raises(allocator, backend):
    with pytest.raises(ZeroDivisionError), allocator.alloc("frame", 4096) as buffer:
        raise ZeroDivisionError
    assert buffer.closed
    assert "dmabuf" not in backend.kernel.open_fds().values()


def test_a_buffer_that_is_dropped_is_closed_with_a_warning(allocator, backend):
    buffer = allocator.alloc("dropped", 4096)
    with pytest.warns(ResourceWarning, match="unclosed <DmaBuf 'dropped' 4096 bytes fd="):
        del buffer
        gc.collect()
    assert "dmabuf" not in backend.kernel.open_fds().values()


def test_a_closed_buffer_refuses_every_use_before_any_system_call(buffer, backend):
    with buffer.dup() as twin:
        sync_file = twin.export_sync_file(READ)
    buffer.close()
    before = len(backend.journal.calls)
    for use in (
        buffer.fileno,
        buffer.dup,
        buffer.map,
        buffer.release,
        buffer.__enter__,
        buffer.cpu_access,
        lambda: buffer.export_sync_file(READ),
        lambda: buffer.import_sync_file(sync_file, READ),
    ):
        with pytest.raises(ValueError, match="the DmaBuf was closed"):
            use()
    assert len(backend.journal.calls) == before
    sync_file.close()


def test_closing_raises_what_close_says_and_the_descriptor_is_gone(buffer, backend):
    backend.inject(faults.error(errno.EIO, on="close"))
    with pytest.raises(OSError, match="Input/output error"):
        buffer.close()
    assert buffer.closed
    assert "dmabuf" not in backend.kernel.open_fds().values()
    buffer.close()


def test_release_gives_the_number_away(buffer, backend):
    fd = buffer.fileno()
    with buffer.cpu_access():
        pass
    assert buffer.release() == fd
    assert buffer.closed
    assert backend.kernel.mappings() == []
    buffer.close()
    assert backend.kernel.open_fds()[fd] == "dmabuf"
    backend.close(fd)


@pytest.mark.parametrize("owner", ["buffer", "sync file"])
def test_what_was_released_can_be_dropped_without_a_warning(allocator, backend, owner):
    buffer = allocator.alloc("frame", 4096)
    what = buffer if owner == "buffer" else buffer.export_sync_file(READ)
    fd = what.release()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if owner == "buffer":
            del buffer
        del what
        gc.collect()
    assert caught == []
    assert fd in backend.kernel.open_fds()
    backend.close(fd)
    if owner == "sync file":
        buffer.close()


def test_releasing_inside_a_window_leaves_the_number_open_after_its_end(buffer, backend):
    with DmaSyncer(buffer):
        fd = buffer.release()
    assert steps(backend) == [START, END]
    assert fd in backend.kernel.open_fds()
    backend.close(fd)


def test_a_duplicate_has_a_descriptor_of_its_own_of_the_same_buffer(buffer, backend):
    twin = buffer.dup()
    assert twin.fileno() != buffer.fileno()
    assert (twin.size, twin.name, twin.provider) == (buffer.size, buffer.name, buffer.provider)
    assert backend.kernel.buffer_of(twin.fileno()) is backend.kernel.buffer_of(buffer.fileno())
    buffer.close()
    with twin.cpu_access() as view:
        view[0] = 7
    twin.close()


def test_a_duplicate_that_cannot_be_made_leaves_nothing(buffer, backend):
    before = backend.kernel.open_fds()
    backend.inject(faults.error(errno.EMFILE, on="dup"))
    with pytest.raises(OSError, match="Too many open files"):
        buffer.dup()
    assert backend.kernel.open_fds() == before


def test_a_duplicate_interrupted_by_a_signal_is_made_again(buffer, backend):
    backend.inject(faults.storm(errno.EINTR, 3, on="dup"))
    buffer.dup().close()


# From elsewhere


def test_a_descriptor_from_elsewhere_becomes_a_buffer_that_owns_it(buffer, backend):
    fd = backend.dup(buffer.fileno())
    with DmaBuf.from_fd(fd, backend=backend) as same:
        assert (same.fileno(), same.size, same.name, same.provider) == (fd, 8192, "", None)
        asked = next(call for call in reversed(backend.journal.calls) if call.method == "ioctl")
        assert asked.arguments == (fd, uapi.DMA_BUF_SET_NAME, 0)  # a null name: refused, so nothing changes
        with same.cpu_access(WRITE) as view:
            view[:3] = b"abc"
    assert fd not in backend.kernel.open_fds()
    with buffer.cpu_access(READ) as view:
        assert bytes(view[:3]) == b"abc"
    assert backend.kernel.fdinfo(buffer.fileno())["name"] == "frame"


@pytest.mark.parametrize(
    ("fd", "error"), [("5", TypeError), (None, TypeError), (2.0, TypeError), (True, TypeError), (-1, ValueError),
                      (1 << 31, ValueError)],
)  # fmt: skip
def test_what_cannot_be_a_descriptor_is_refused_before_any_system_call(backend, fd, error):
    with pytest.raises(error, match="fd must"):
        DmaBuf.from_fd(fd, backend=backend)
    assert backend.journal.calls == []


def test_another_files_descriptor_is_refused_and_left_to_its_owner(backend):
    device = backend.open("/dev/udmabuf", os.O_RDWR)
    memfd = backend.memfd_create("no-dma-buf", 0)
    for fd in (device, memfd):
        with pytest.raises(ValueError, match=f"fd must be a dma-buf's descriptor, {fd} is another file's"):
            DmaBuf.from_fd(fd, backend=backend)
        assert fd in backend.kernel.open_fds()


def test_files_of_the_real_kernel_are_refused_too(tmp_path):
    reader, writer = os.pipe()
    with (tmp_path / "file").open("wb") as file, open("/dev/null", "rb") as null:
        for fd in (reader, writer, file.fileno(), null.fileno()):
            with pytest.raises(ValueError, match="another file's"):
                DmaBuf.from_fd(fd)
            os.fstat(fd)
    os.close(reader)
    os.close(writer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        DmaBuf.from_fd(reader)


def test_an_error_of_the_kernel_comes_as_it_is(buffer, backend):
    backend.inject(faults.error(errno.ENOMEM, on="DMA_BUF_SET_NAME"))
    fd = buffer.fileno()
    with pytest.raises(OSError, match="Cannot allocate memory"):
        DmaBuf.from_fd(fd, backend=backend)
    assert fd in backend.kernel.open_fds()


# Bytes


def test_a_mapping_shows_the_buffers_bytes_and_outlives_it(buffer, backend):
    mapping = buffer.map()
    view = memoryview(mapping)
    assert (len(view), view.readonly) == (8192, False)
    view[0] = 9
    view.release()
    buffer.close()
    assert memoryview(mapping)[0] == 9
    gc.collect()
    mapping.close()
    assert backend.kernel.mappings() == []


def test_a_mapping_for_reading_is_read_only(buffer):
    mapping = buffer.map(READ)
    view = memoryview(mapping)
    assert view.readonly
    view.release()
    mapping.close()


def test_a_mapping_for_writing_can_be_read_too(buffer, backend):
    mapping = buffer.map(WRITE)
    (call,) = [call for call in backend.journal.calls if call.method == "mmap"]
    assert call.arguments == (buffer.fileno(), 8192, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, 0)
    mapping.close()


def test_mapping_is_tried_again_when_interrupted_and_refused_as_the_kernel_says(buffer, backend):
    backend.inject(faults.storm(errno.EINTR, 2, on="mmap"))
    buffer.map().close()
    backend.inject(faults.error(errno.ENOMEM, on="mmap"))
    with pytest.raises(OSError, match="Cannot allocate memory"):
        buffer.map()


@pytest.mark.parametrize("use", ["map", "cpu_access", "export_sync_file"])
@pytest.mark.parametrize("wrong", [3, None, SyncType(0)], ids=str)
def test_a_sync_type_that_cannot_be_is_named_before_any_system_call(buffer, backend, use, wrong):
    before = len(backend.journal.calls)
    with pytest.raises((TypeError, ValueError), match="sync_type"):
        getattr(buffer, use)(wrong)
    assert len(backend.journal.calls) == before


@pytest.mark.parametrize("keywords", [{"retry": 1}, {"on_error": "no"}], ids=str)
def test_a_keyword_of_cpu_access_that_cannot_be_is_named(buffer, keywords):
    with pytest.raises((TypeError, ValueError), match=next(iter(keywords))):
        buffer.cpu_access(READ, **keywords)


# Windows with bytes


@pytest.mark.parametrize("access", [READ, WRITE, READ_WRITE], ids=lambda a: a.name)
def test_cpu_access_is_a_window_that_gives_the_bytes(buffer, backend, access):
    with buffer.cpu_access(access) as view:
        assert isinstance(view, memoryview)
        assert (view.nbytes, view.format, view.readonly) == (8192, "B", access is READ)
        assert steps(backend) == [START]
    assert [(t.step, t.access) for t in backend.journal.transitions()] == [(START, access), (END, access)]


def test_cpu_access_reads_and_writes_unless_said(buffer):
    with buffer.cpu_access() as view:
        view[:5] = b"hello"
    with buffer.cpu_access(READ) as view:
        assert bytes(view[:5]) == b"hello"


def test_the_view_of_a_read_cannot_be_written(buffer):
    with buffer.cpu_access(READ) as view, pytest.raises(TypeError, match="read-only"):
        view[0] = 1


def test_the_view_is_dead_after_the_window(buffer):
    with buffer.cpu_access(READ) as view:
        pass
    with pytest.raises(ValueError, match="released"):
        view[0]


def test_the_view_is_dead_after_a_window_that_raised(buffer, backend):
    with pytest.raises(ZeroDivisionError), buffer.cpu_access(WRITE) as view:
        raise ZeroDivisionError
    with pytest.raises(ValueError, match="released"):
        view[0]
    assert steps(backend) == [START, END]


def test_slices_of_the_view_keep_looking_and_stop_nothing(buffer, backend):
    with buffer.cpu_access(WRITE) as view:
        part = view[:16]
    assert steps(backend) == [START, END]
    with pytest.warns(ResourceWarning, match="stays mapped"):
        buffer.close()
    part.release()


def test_numpy_arrays_on_the_view_copy_nothing(buffer):
    numpy = pytest.importorskip("numpy")
    with buffer.cpu_access(WRITE) as view:
        array = numpy.frombuffer(view, dtype=numpy.uint16)
        array[:] = 513
        assert (view[0], view[8191]) == (1, 2)
        del array
    with buffer.cpu_access(READ) as view:
        array = numpy.frombuffer(view, dtype=numpy.uint8)
        assert not array.flags.writeable
        assert array[4096] == 1


def test_all_windows_share_one_mapping(buffer, backend):
    for access in (READ, WRITE, READ_WRITE, READ):
        with buffer.cpu_access(access):
            assert len(backend.kernel.mappings()) == 1
    assert [call.method for call in backend.journal.calls].count("mmap") == 1


class Keeping:
    """The backend, but it keeps every mapping: only close() ends one."""

    def __init__(self, backend):
        self._backend = backend
        self.mappings = []

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def mmap(self, *arguments):
        self.mappings.append(self._backend.mmap(*arguments))
        return self.mappings[-1]


@pytest.mark.parametrize("end", [DmaBuf.close, DmaBuf.release], ids=["close", "release"])
def test_a_buffer_that_is_closed_or_released_closes_its_mapping(buffer, backend, end):
    keeping = Keeping(backend)
    with DmaBuf.from_fd(backend.dup(buffer.fileno()), backend=keeping) as same:
        fd = same.fileno()
        with same.cpu_access():
            pass
        assert [mapping.closed for mapping in keeping.mappings] == [False]
        end(same)
        assert [mapping.closed for mapping in keeping.mappings] == [True]
    if end is DmaBuf.release:
        backend.close(fd)


def test_a_buffer_closed_inside_the_window_stays_readable_until_its_end(buffer, backend):
    with buffer.cpu_access(WRITE) as view:
        buffer.close()
        view[0] = 1
        assert "dmabuf" in backend.kernel.open_fds().values()
    assert steps(backend) == [START, END]
    gc.collect()
    assert "dmabuf" not in backend.kernel.open_fds().values()
    assert backend.kernel.mappings() == []


def test_a_buffer_that_may_only_be_read_can_be_read(backend, allocator):
    device = allocator.fileno()
    argument = uapi.dma_heap_allocation_data.pack(4096, 0, os.O_RDONLY | os.O_CLOEXEC, 0)
    backend.ioctl(device, uapi.DMA_HEAP_IOCTL_ALLOC, argument)
    with DmaBuf.from_fd(uapi.dma_heap_allocation_data.get(argument, "fd"), backend=backend) as buffer:
        with buffer.cpu_access(READ) as view:
            assert (view.readonly, view[0]) == (True, 0)
        with buffer.cpu_access(READ) as view:
            assert view[0] == 0
        with pytest.raises(PermissionError), buffer.cpu_access(WRITE):
            raise AssertionError
        assert len(backend.kernel.mappings()) == 1


def test_a_mapping_that_fails_sends_no_start(buffer, backend):
    backend.inject(faults.error(errno.ENOMEM, on="mmap"))
    with pytest.raises(OSError, match="Cannot allocate memory"), buffer.cpu_access(READ):
        raise AssertionError
    assert steps(backend) == []
    with buffer.cpu_access(READ) as view:
        assert len(view) == 8192


def test_a_refused_start_gives_no_view_and_sends_no_end(buffer, backend):
    backend.inject(faults.error(errno.EIO))
    access = buffer.cpu_access(READ)
    with pytest.raises(DmaSyncError), access:
        raise AssertionError
    assert not access.active
    assert len(backend.journal.attempts) == 1


def test_a_refused_end_leaves_the_view_dead(buffer, backend):
    backend.inject(faults.error(errno.EIO, on=END))
    with pytest.raises(DmaSyncError), buffer.cpu_access(READ) as view:
        pass
    with pytest.raises(ValueError, match="released"):
        view[0]


def test_an_error_of_end_does_not_replace_what_the_body_raised(buffer, backend):
    backend.inject(faults.error(errno.EIO, on=END))
    with pytest.raises(ZeroDivisionError) as caught, buffer.cpu_access(READ):
        raise ZeroDivisionError
    assert isinstance(caught.value.__context__, DmaSyncError)


@pytest.mark.parametrize("code", [errno.EINTR, errno.EAGAIN], ids=["EINTR", "EAGAIN"])
def test_storms_are_survived_and_policies_hold(buffer, backend, code):
    backend.inject(faults.storm(code, 20, on=None))
    with buffer.cpu_access(READ):
        pass
    backend.inject(faults.storm(code, 3))
    with pytest.raises(DmaSyncError) as caught, buffer.cpu_access(READ, retry=RetryPolicy(max_attempts=3)):
        pass
    assert caught.value.attempts == 3


def test_with_errors_only_logged_the_bytes_are_given_all_the_same(buffer, backend, caplog):
    backend.inject(faults.error(errno.EIO))
    with buffer.cpu_access(READ, on_error="log") as view:
        assert len(view) == 8192
    assert len(backend.journal.attempts) == 1
    assert len(caplog.records) == 1


def test_cpu_access_started_by_hand_is_used_again(buffer, backend):
    access = buffer.cpu_access(WRITE)
    assert isinstance(access, CpuAccess)
    for _ in range(2):
        with access as view:
            view[0] = 1
            with pytest.raises(RuntimeError, match="already open"), access:
                raise AssertionError
            assert access.active
    assert steps(backend) == [START, END] * 2


def test_cpu_access_to_a_buffer_that_was_closed_meanwhile_is_refused(buffer, backend):
    access = buffer.cpu_access(WRITE)
    buffer.close()
    with pytest.raises(ValueError, match="closed"), access:
        raise AssertionError
    assert steps(backend) == []


def test_bytes_that_something_still_looks_at_do_not_hinder_end(buffer, backend):
    access = buffer.cpu_access(SyncType.READ_WRITE)
    with access as view:
        kept = pickle.PickleBuffer(view)
    assert steps(backend) == [START, END]
    kept.raw()[:1] = b"x"
    with access as view:
        assert view[:1] == b"x"
    assert steps(backend) == [START, END] * 2


class Interrupting:
    """A backend that raises in place of its first attempt at an edge, as a signal handler would."""

    def __init__(self, inner, step):
        self._inner = inner
        self._step = step

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def ioctl(self, fd, request, argument):
        if not isinstance(argument, int) and self._step and bool(argument[0] & 4) == (self._step is END):
            self._step = None
            raise KeyboardInterrupt
        return self._inner.ioctl(fd, request, argument)


def test_interrupts_at_either_edge_leave_no_window_and_no_view(buffer, backend):
    for step in (START, END):
        with DmaBuf.from_fd(backend.dup(buffer.fileno()), backend=Interrupting(backend, step)) as same:
            access = same.cpu_access(READ)
            with pytest.raises(KeyboardInterrupt), access as view:
                assert step is END
            assert not access.active
            if step is END:
                with pytest.raises(ValueError, match="released"):
                    view[0]
    assert steps(backend) == [START, END]


def test_an_interrupt_in_place_of_the_end_of_a_body_that_raised_has_that_as_context(buffer, backend):
    with DmaBuf.from_fd(backend.dup(buffer.fileno()), backend=Interrupting(backend, END)) as same:
        access = same.cpu_access(READ)
        with pytest.raises(KeyboardInterrupt) as caught, access as view:
            raise ZeroDivisionError
        assert isinstance(caught.value.__context__, ZeroDivisionError)
        assert not access.active
        with pytest.raises(ValueError, match="released"):
            view[0]
    assert steps(backend) == [START, END]


def test_a_cpu_access_dropped_while_open_gets_its_end(buffer, backend):
    access = buffer.cpu_access(READ)
    view = access.__enter__()
    with pytest.warns(ResourceWarning, match="a CpuAccess was dropped"):
        del access
        gc.collect()
    assert steps(backend) == [START, END]
    view.release()


# Fences


def test_fences_are_exported_and_imported(allocator, buffer, backend):
    with allocator.alloc("other", 4096) as other, buffer.export_sync_file(READ) as sync_file:
        assert backend.kernel.open_fds()[sync_file.fileno()] == "sync_file"
        other.import_sync_file(sync_file, WRITE)
        other.import_sync_file(sync_file.fileno(), READ)
    assert "sync_file" not in backend.kernel.open_fds().values()
    imports = [c.arguments[2] for c in backend.journal.calls if c.method == "ioctl" and c.errno == 0]
    assert len(imports) >= 3


@pytest.mark.parametrize("make", [DmaBuf.dup, lambda buffer: buffer.export_sync_file(READ)], ids=["dup", "export"])
def test_a_descriptor_that_finds_no_owner_is_closed(buffer, backend, monkeypatch, make):
    def no_memory(*_):
        raise MemoryError

    before = backend.kernel.open_fds()
    monkeypatch.setattr("dmasync.buffer.DmaBuf", no_memory)
    monkeypatch.setattr("dmasync.buffer.SyncFile._of", no_memory)
    with pytest.raises(MemoryError):
        make(buffer)
    assert backend.kernel.open_fds() == before


def test_an_export_that_fails_leaves_nothing(buffer, backend):
    before = backend.kernel.open_fds()
    backend.inject(faults.error(errno.ENOMEM, on="DMA_BUF_IOCTL_EXPORT_SYNC_FILE"))
    with pytest.raises(OSError, match="Cannot allocate memory"):
        buffer.export_sync_file(READ)
    assert backend.kernel.open_fds() == before


def test_exports_and_imports_interrupted_by_a_signal_are_made_again(buffer, backend):
    backend.inject(
        faults.storm(errno.EINTR, 2, on="DMA_BUF_IOCTL_EXPORT_SYNC_FILE"),
        faults.storm(errno.EINTR, 2, on="DMA_BUF_IOCTL_IMPORT_SYNC_FILE"),
    )
    with buffer.export_sync_file(WRITE) as sync_file:
        buffer.import_sync_file(sync_file, READ)


def test_what_is_no_sync_file_is_refused(buffer, backend):
    before = len(backend.journal.calls)
    for wrong, error in (("x", TypeError), (None, TypeError), (-1, ValueError)):
        with pytest.raises(error, match="sync_file"):
            buffer.import_sync_file(wrong, READ)
    with pytest.raises(TypeError, match="sync_type"):
        buffer.import_sync_file(5, 1)
    assert len(backend.journal.calls) == before
    with pytest.raises(OSError, match="Invalid argument"):
        buffer.import_sync_file(buffer.fileno(), READ)


def test_an_access_that_was_moved_from_keeps_nothing_open(backend, allocator):
    buffer = allocator.alloc("moved", 4096)
    fd = buffer.fileno()
    access = buffer.cpu_access()
    access.start()
    heir = access.move()
    with pytest.warns(ResourceWarning, match="unclosed"):
        del buffer
        gc.collect()
    assert fd in backend.kernel.open_fds()
    heir.end()
    del heir
    assert fd not in backend.kernel.open_fds()
    assert not access.active


def test_the_with_block_of_an_access_that_was_moved_from_has_no_bytes(backend, buffer):
    access = buffer.cpu_access()
    heir = access.move()
    with pytest.raises(ValueError, match="the window was moved away"), access:
        pass
    assert steps(backend) == []
    with heir:
        pass
    assert steps(backend) == [START, END]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize("owner", ["buffer", "allocator", "sync file"])
def test_what_owns_a_descriptor_is_never_copied(buffer, allocator, owner, copied):
    with buffer.export_sync_file(READ) as sync_file:
        what = {"buffer": buffer, "allocator": allocator, "sync file": sync_file}[owner]
        with pytest.raises(TypeError, match="cannot be copied or pickled, both would close its descriptor"):
            copied(what)


def test_a_sync_files_backend_may_be_an_empty_container(backend):
    class Empty:
        def __getattr__(self, name):
            return getattr(backend, name)

        def __len__(self):
            return 0

    fd = backend.memfd_create("file", 0)
    SyncFile(fd, backend=Empty()).close()
    assert backend.kernel.open_fds() == {}
