"""The folder of a process's descriptors, ``/proc/self/fd``, opened itself."""

from __future__ import annotations

import errno
import os
import select

import pytest

from dmasync import uapi
from tests.conformance.kernels import O_LARGEFILE, PAGE, RO, SHARED, UDMABUF, System, refused

FOLDERS = pytest.mark.parametrize(
    "path", ["/proc/self/fd", "/proc/self/fd/", "/proc/thread-self/fd", "/dev/fd", "//dev/fd//", "/proc/self/fdinfo"]
)
O_PATH = 0o10000000
LAST = (1 << 31) - 1
FIOQSIZE, FIONREAD, FIGETBSZ, GETFLAGS, SETFLAGS, FIEMAP, DEDUPE, UUID = (
    0x5460, 0x541B, 2, 0x80086601, 0x40086602, 0xC020660B, 0xC0189436, 0x80111500,
)  # fmt: skip


@FOLDERS
@pytest.mark.parametrize("more", [0, os.O_DIRECTORY, os.O_APPEND, os.O_NONBLOCK, os.O_DIRECTORY | os.O_NOATIME])
def test_it_opens_to_read_only(system: System, path: str, more: int) -> None:
    assert system.fdinfo(system.open(path, more)) == {"pos": "0", "flags": f"0{more | os.O_CLOEXEC | O_LARGEFILE:o}"}
    for wrong in (os.O_WRONLY, os.O_RDWR, 3, os.O_TRUNC):
        with refused(errno.EISDIR):
            system.open(path, wrong | more)
    with refused(errno.EINVAL):
        system.open(path, os.O_DIRECT | more)


@FOLDERS
def test_nothing_can_be_made_of_it(system: System, path: str) -> None:
    slash = path.endswith("/")
    for flags, code in (
        (os.O_CREAT, errno.EISDIR),
        (os.O_CREAT | os.O_EXCL, errno.EISDIR if slash else errno.EEXIST),
        (os.O_CREAT | os.O_DIRECTORY, errno.EINVAL),
        (os.O_TMPFILE | os.O_RDWR, errno.EOPNOTSUPP),
    ):
        with refused(code):
            system.open(path, flags)


def test_dev_fd_is_a_link_to_it(system: System) -> None:
    for flags, code in ((os.O_NOFOLLOW, errno.ELOOP), (os.O_NOFOLLOW | os.O_DIRECTORY, errno.ENOTDIR)):
        with refused(code):
            system.open("/dev/fd", flags)
        system.open("/dev/fd/", flags)
        system.open("/proc/self/fd", flags)
    link = system.open("/dev/fd", O_PATH | os.O_NOFOLLOW)
    with refused(errno.EBADF):
        system.backend.lseek(link, 0, 0)


def test_it_is_sought_as_a_file_of_no_bytes(system: System) -> None:
    fd = system.open("/proc/self/fd", os.O_RDONLY)
    asked = ((5, 0), (1, 1), (-2, 1), (0, 1), (0, 2), (3, 2), (LAST, 0))
    assert [system.backend.lseek(fd, offset, whence) for offset, whence in asked] == [5, 6, 4, 4, 0, 3, LAST]
    for offset, whence, code in (
        (-1, 0, errno.EINVAL),
        (1, 1, errno.EINVAL),
        (-1, 2, errno.EINVAL),
        (LAST + 1, 0, errno.EINVAL),
        (0, 3, errno.ENXIO),
        (0, 4, errno.ENXIO),
        (-1, 3, errno.ENXIO),
        (0, 5, errno.EINVAL),
    ):
        with refused(code):
            system.backend.lseek(fd, offset, whence)
    assert system.fdinfo(fd)["pos"] == str(LAST)


def test_what_it_is_not_there_for(system: System) -> None:
    fd = system.open("/proc/self/fd", os.O_RDONLY)
    assert system.backend.poll(fd, select.POLLIN | select.POLLOUT, 0) == select.POLLIN | select.POLLOUT
    for call, code in (
        (lambda: system.backend.ftruncate(fd, 0), errno.EINVAL),
        (lambda: system.backend.add_seals(fd, 2), errno.EPERM),
        (lambda: system.backend.get_seals(fd), errno.EINVAL),
        (lambda: system.mmap(fd, PAGE, RO, SHARED), errno.ENODEV),
        (lambda: system.backend.ioctl(fd, FIONREAD, bytearray(8)), errno.ENOTTY),
        (lambda: system.backend.ioctl(fd, GETFLAGS, bytearray(8)), errno.ENOTTY),
        (lambda: system.backend.ioctl(fd, SETFLAGS, bytearray(8)), errno.ENOTTY),
        (lambda: system.backend.ioctl(fd, SETFLAGS, 0), errno.EFAULT),
        (lambda: system.backend.ioctl(fd, UUID, bytearray(64)), errno.ENOTTY),
        (lambda: system.backend.ioctl(fd, FIEMAP, bytearray(64)), errno.EOPNOTSUPP),
        (lambda: system.backend.ioctl(fd, DEDUPE, bytearray(64)), errno.EISDIR),
        (lambda: system.backend.ioctl(fd, uapi.DMA_BUF_IOCTL_SYNC, bytearray(8)), errno.ENOTTY),
    ):
        with refused(code):
            call()
    told = bytearray(8)
    assert system.backend.ioctl(fd, FIOQSIZE, told) == 0
    assert told == bytes(8)
    assert system.backend.ioctl(fd, FIGETBSZ, told) == 0
    assert int.from_bytes(told[:4], "little") == 1024
    with refused(errno.EBADFD):
        system.create(system.open(UDMABUF), fd)


def test_it_can_be_opened_again_by_its_own_number(system: System) -> None:
    fd = system.open("/proc/self/fd", os.O_RDONLY)
    again = system.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    assert system.backend.lseek(again, 3, 2) == 3
    assert system.backend.lseek(fd, 0, 1) == 0
    with refused(errno.EISDIR):
        system.open(f"/proc/self/fd/{fd}", os.O_RDWR)
