"""LinuxBackend: the real system calls, as the protocol promises them, on files that every Linux has."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import select
import subprocess
import sys
import types

import pytest

from dmasync import Backend, LinuxBackend, uapi
from dmasync.backend import LINUX


@pytest.fixture
def backend():
    return LinuxBackend()


@pytest.fixture
def memfd(backend):
    fd = backend.memfd_create("backend-test", uapi.MFD_CLOEXEC | uapi.MFD_ALLOW_SEALING)
    backend.ftruncate(fd, 2 * mmap.PAGESIZE)
    yield fd
    with contextlib.suppress(OSError):
        os.close(fd)


def test_descriptor_0_is_one_as_any_other(memfd):
    program = (
        "import mmap; from dmasync.backend import LINUX; LINUX.mmap(0, mmap.PAGESIZE, mmap.PROT_READ, mmap.MAP_SHARED)"
    )
    assert subprocess.run([sys.executable, "-c", program], stdin=memfd, check=False).returncode == 0


def test_it_has_every_method_of_the_protocol(backend):
    protocol = {name for name in vars(Backend) if not name.startswith("_")}
    assert protocol == {
        "add_seals", "close", "dup", "ftruncate", "get_seals", "ioctl", "lseek", "memfd_create", "mmap", "open", "poll",
    }  # fmt: skip
    assert all(callable(getattr(backend, name)) for name in protocol)
    assert all(callable(getattr(LINUX, name)) for name in protocol)


def test_ioctl_is_fcntls_own_without_a_frame_of_ours(backend):
    assert backend.ioctl is fcntl.ioctl


@pytest.mark.parametrize("name", ["open", "close", "dup", "ioctl", "memfd_create", "ftruncate", "lseek"])
def test_what_opens_closes_or_syncs_is_one_call_into_c(backend, name):
    """A Python frame around it would be a place where a signal handler's exception hides that it succeeded."""
    assert isinstance(getattr(backend, name), types.BuiltinFunctionType)


def test_refusals_are_oserrors_with_the_kernels_errno(backend, memfd):
    for call, code in (
        (lambda: backend.open("/nowhere/at/all", os.O_RDWR), errno.ENOENT),
        (lambda: backend.close(-1), errno.EBADF),
        (lambda: backend.dup(-1), errno.EBADF),
        (lambda: backend.ioctl(memfd, uapi.DMA_BUF_IOCTL_SYNC, bytearray(8)), errno.ENOTTY),
        (lambda: backend.ftruncate(memfd, -1), errno.EINVAL),
        (lambda: backend.lseek(memfd, 0, 99), errno.EINVAL),
        (lambda: backend.add_seals(memfd, 1 << 30), errno.EINVAL),
        (lambda: backend.get_seals(1 << 20), errno.EBADF),
    ):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what is looked at
            call()
        assert caught.value.errno == code


def test_open_close_and_dup_give_close_on_exec_descriptors(backend, memfd):
    device = backend.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    twin = backend.dup(memfd)
    try:
        assert not os.get_inheritable(device)
        assert not os.get_inheritable(twin)
        assert twin not in (memfd, device)
        assert os.fstat(twin).st_ino == os.fstat(memfd).st_ino
    finally:
        backend.close(device)
        backend.close(twin)
    for fd in (device, twin):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_a_memfd_is_named_sized_and_sealed(backend, memfd):
    assert os.readlink(f"/proc/self/fd/{memfd}") == "/memfd:backend-test (deleted)"
    assert backend.lseek(memfd, 0, os.SEEK_END) == 2 * mmap.PAGESIZE
    assert backend.get_seals(memfd) == 0
    assert backend.add_seals(memfd, uapi.F_SEAL_SHRINK) is None
    assert backend.get_seals(memfd) == uapi.F_SEAL_SHRINK
    with pytest.raises(PermissionError):
        backend.ftruncate(memfd, mmap.PAGESIZE)


def test_the_largest_memfd_name_is_what_uapi_says(backend):
    fd = backend.memfd_create("x" * uapi.MFD_NAME_MAX_LEN, uapi.MFD_CLOEXEC)
    backend.close(fd)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        backend.memfd_create("x" * (uapi.MFD_NAME_MAX_LEN + 1), uapi.MFD_CLOEXEC)
    assert caught.value.errno == errno.EINVAL


def test_a_shared_mapping_shows_the_files_bytes_at_the_offset(backend, memfd):
    mapping = backend.mmap(memfd, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, mmap.PAGESIZE)
    memoryview(mapping)[:3] = b"abc"
    mapping.close()
    assert os.pread(memfd, 3, mmap.PAGESIZE) == b"abc"


def test_a_mapping_without_prot_write_is_read_only(backend, memfd):
    os.pwrite(memfd, b"seen", 0)
    mapping = backend.mmap(memfd, 2 * mmap.PAGESIZE, mmap.PROT_READ, mmap.MAP_SHARED)
    view = memoryview(mapping)
    assert (len(mapping), view.readonly, bytes(view[:4])) == (2 * mmap.PAGESIZE, True, b"seen")
    view.release()
    mapping.close()


def test_a_private_mapping_keeps_its_writes_to_itself(backend, memfd):
    mapping = backend.mmap(memfd, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE)
    memoryview(mapping)[:3] = b"abc"
    mapping.close()
    assert os.pread(memfd, 3, 0) == b"\0\0\0"


def test_a_mapping_outlives_its_descriptor_and_holds_none_where_python_can_do_without(backend, memfd):
    open_before = len(os.listdir("/proc/self/fd"))
    mapping = backend.mmap(memfd, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED)
    assert len(os.listdir("/proc/self/fd")) == open_before + (not _has_trackfd())
    backend.close(memfd)
    memoryview(mapping)[0] = 7
    mapping.close()


def _has_trackfd() -> bool:
    try:
        mmap.mmap(-1, 1, trackfd=True).close()  # type: ignore[call-arg,unused-ignore]
    except TypeError:
        return False
    return True


def test_poll_tells_what_is_ready_and_zero_at_the_time_out(backend):
    reader, writer = os.pipe()
    try:
        assert backend.poll(reader, select.POLLIN, 0) == 0
        assert backend.poll(reader, select.POLLIN, 1) == 0
        os.write(writer, b"x")
        assert backend.poll(reader, select.POLLIN, 0) == select.POLLIN
        assert backend.poll(reader, select.POLLIN, None) == select.POLLIN
    finally:
        os.close(reader)
        os.close(writer)
    assert backend.poll(reader, select.POLLIN, None) == select.POLLNVAL


def test_what_python_would_map_and_the_kernel_would_not_is_refused():
    memfd = os.memfd_create("x")
    try:
        os.ftruncate(memfd, mmap.PAGESIZE)
        for fd, length, code in [(-1, mmap.PAGESIZE, errno.EBADF), (memfd, 0, errno.EINVAL), (1 << 20, 0, errno.EBADF)]:
            with pytest.raises(OSError) as refused:  # noqa: PT011 - the errno is what counts
                LinuxBackend().mmap(fd, length, mmap.PROT_READ, mmap.MAP_SHARED, 0)
            assert refused.value.errno == code
    finally:
        os.close(memfd)
