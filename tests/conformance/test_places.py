"""What lies beside the nodes: ``/dev/null``, and the folder of the heaps. Neither has anything to do with dma-bufs."""

from __future__ import annotations

import errno
import os
import select

import pytest

from tests.conformance.kernels import O_LARGEFILE, PAGE, RO, RW, SHARED, UDMABUF, System, refused

NULL, FOLDER = "/dev/null", "/dev/dma_heap"
FIOQSIZE, FIONREAD, FIGETBSZ = 0x5460, 0x541B, 2
LAST = (1 << 63) - 1


@pytest.mark.parametrize("mode", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, 3])
@pytest.mark.parametrize("more", [0, os.O_TRUNC, os.O_CREAT, os.O_APPEND, os.O_NONBLOCK])
def test_dev_null_opens_in_every_mode(system: System, mode: int, more: int) -> None:
    flags = mode | more & (os.O_APPEND | os.O_NONBLOCK) | os.O_CLOEXEC | O_LARGEFILE
    assert system.fdinfo(system.open(NULL, mode | more)) == {"pos": "0", "flags": f"0{flags:o}"}


@pytest.mark.parametrize(
    ("path", "flags", "code"),
    [
        (NULL, os.O_DIRECTORY, errno.ENOTDIR),
        (NULL + "/", os.O_RDONLY, errno.ENOTDIR),
        (NULL + "/x", os.O_RDONLY, errno.ENOTDIR),
        (NULL, os.O_CREAT | os.O_EXCL, errno.EEXIST),
        (NULL, os.O_DIRECT, errno.EINVAL),
    ],
)
def test_dev_null_is_no_folder_and_no_new_file(system: System, path: str, flags: int, code: int) -> None:
    with refused(code):
        system.open(path, flags)


@pytest.mark.parametrize("whence", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("offset", [0, 5, -1, LAST])
def test_dev_null_stays_at_0(system: System, offset: int, whence: int) -> None:
    fd = system.open(NULL)
    assert system.backend.lseek(fd, offset, whence) == 0
    assert system.fdinfo(fd)["pos"] == "0"
    with refused(errno.EINVAL):
        system.backend.lseek(fd, offset, 5)


@pytest.mark.parametrize("path", [FOLDER, FOLDER + "/"])
@pytest.mark.parametrize("more", [0, os.O_DIRECTORY, os.O_APPEND, os.O_NONBLOCK])
def test_a_folder_opens_to_read_only(system: System, path: str, more: int) -> None:
    flags = more | os.O_CLOEXEC | O_LARGEFILE
    assert system.fdinfo(system.open(path, more)) == {"pos": "0", "flags": f"0{flags:o}"}
    for wrong in (os.O_WRONLY, os.O_RDWR, 3, os.O_TRUNC):
        with refused(errno.EISDIR):
            system.open(path, wrong | more)
    with refused(errno.EINVAL):
        system.open(path, os.O_DIRECT | more)


def test_a_folder_is_sought_from_its_start_or_from_where_it_is(system: System) -> None:
    fd = system.open(FOLDER, os.O_RDONLY)
    answers = [system.backend.lseek(fd, offset, whence) for offset, whence in ((5, 0), (1, 1), (-2, 1), (0, 1))]
    assert answers == [5, 6, 4, 4]
    for offset, whence in ((-1, 0), (-5, 1), (0, 2), (-1, 2), (0, 3), (0, 4), (0, 5), (0, -1)):
        with refused(errno.EINVAL):
            system.backend.lseek(fd, offset, whence)
    last = (1 << 32) - 1 if system.since("6.6") and not system.since("6.9") else LAST
    assert system.backend.lseek(fd, last, 0) == last
    with refused(errno.EINVAL):
        system.backend.lseek(fd, 1, 1)
    assert system.fdinfo(fd)["pos"] == str(last)


@pytest.mark.parametrize("path", [NULL, FOLDER])
def test_what_a_folder_and_dev_null_are_not_there_for(system: System, path: str) -> None:
    fd = system.open(path, os.O_RDONLY)
    ready = select.POLLIN | select.POLLOUT
    assert system.backend.poll(fd, ready, 0) == ready
    for call, code in (
        (lambda: system.backend.ftruncate(fd, 0), errno.EINVAL),
        (lambda: system.backend.add_seals(fd, 2), errno.EPERM),
        (lambda: system.backend.get_seals(fd), errno.EINVAL),
        (lambda: system.mmap(fd, PAGE, RO, SHARED), errno.ENODEV),
        (lambda: system.mmap(fd, PAGE, RW, SHARED), errno.EACCES),
        (lambda: system.backend.ioctl(fd, FIONREAD, bytearray(8)), errno.ENOTTY),
        (lambda: system.sync(fd, 1), errno.ENOTTY),
    ):
        with refused(code):
            call()
    told = bytearray(8)
    if path == FOLDER:
        told[0] = 9
        assert system.backend.ioctl(fd, FIOQSIZE, told) == 0
        assert told == bytes(8)
    else:
        with refused(errno.ENOTTY):
            system.backend.ioctl(fd, FIOQSIZE, told)
    assert system.backend.ioctl(fd, FIGETBSZ, told) == 0
    assert int.from_bytes(told[:4], "little") == PAGE
    with refused(errno.EBADFD):
        system.create(system.open(UDMABUF), fd)


def test_both_are_found_by_another_path_and_as_a_place(system: System) -> None:
    assert system.backend.lseek(system.open("/dev/../dev//null"), 7, 0) == 0
    for path in (NULL, FOLDER):
        with refused(errno.EBADF):
            system.backend.lseek(system.open(path, 0o10000000), 0, 0)
