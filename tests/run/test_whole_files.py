"""Calls about all of a file, made by a program: locks, advice, holes, owner and mode."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

SUITE = Path(__file__).parents[1] / "conformance"
PRELUDE = """
import ctypes, errno, fcntl, os, select, stat, struct, time
libc = ctypes.CDLL(None, use_errno=True)
def said(result):
    return errno.errorcode[ctypes.get_errno()] if result < 0 else result
def udmabuf():
    memfd = os.memfd_create("frames", os.MFD_ALLOW_SEALING)
    os.ftruncate(memfd, 8192)
    fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    argument = bytearray(struct.pack("IIQQ", memfd, 1, 0, 8192))
    return fcntl.ioctl(os.open("/dev/udmabuf", os.O_RDWR), 0x40187542, argument)
def heap_buffer():
    argument = bytearray(struct.pack("QIIQ", 8192, 0, os.O_RDWR | os.O_CLOEXEC, 0))
    fcntl.ioctl(os.open("/dev/dma_heap/system", os.O_RDWR), 0xC0184800, argument)
    return struct.unpack_from("I", argument, 8)[0]
def sync_file():
    argument = bytearray(struct.pack("Ii", 3, -1))
    fcntl.ioctl(udmabuf(), 0xC0086202, argument)
    return struct.unpack("Ii", argument)[1]
"""

LOCKS = """
for make in (udmabuf, heap_buffer):
    fd = make()
    other = make()
    for command in (fcntl.F_OFD_SETLK, fcntl.F_SETLK):
        for kind in (fcntl.F_WRLCK, fcntl.F_RDLCK, fcntl.F_UNLCK):
            for whence in (0, 1, 2):
                fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, whence, 0, 0, 0))
                name = os.readlink(f"/proc/self/fd/{fd}")
                fcntl.ioctl(fd, 0x40086200, struct.pack("Q", 3))
                fcntl.ioctl(fd, 0x40086200, struct.pack("Q", 7))
                assert name.startswith("/dmabuf"), name
    answer = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
    print(struct.unpack_from("h", answer)[0] == fcntl.F_UNLCK, os.fstat(other).st_size)
"""


def test_a_lock_on_all_of_a_buffer_leaves_it_a_buffer(dmasync_run):
    assert dmasync_run(sys.executable, "-c", PRELUDE + LOCKS).output == "True 8192\n" * 2


OTHERS = """
reader, writer = os.pipe()
vector = struct.pack("QQ", ctypes.addressof(ctypes.create_string_buffer(8)), 4)
libc.posix_fadvise.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_int)
libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
fd = sync_file()
print(said(libc.tee(fd, writer, 4, 2)), said(libc.vmsplice(fd, vector, 1, 0)), said(libc.vmsplice(fd, vector, 1, 99)))
print([libc.posix_fadvise(fd, 0, 4096, advice) for advice in (0, 3, 5)], libc.posix_fadvise(fd, 0, 4096, 6))
poll = select.poll()
poll.register(fd, select.POLLIN)
print(poll.poll(0) == [(fd, select.POLLIN)])
fd = heap_buffer()
print(*(said(libc.fallocate(fd, mode, 0, 4096)) for mode in (0, 3, 8, 2, 4, 256)))
print(os.sendfile(fd, os.open("/proc/self/exe", os.O_RDONLY), None, 0), said(libc.vmsplice(fd, vector, 1, 0)))
"""


def test_calls_on_bytes_are_refused_as_by_files_without_any(dmasync_run):
    assert dmasync_run(sys.executable, "-c", PRELUDE + OTHERS).output.splitlines() == [
        "EINVAL EBADF EINVAL",
        "[0, 0, 0] 22",
        "True",
        "ENODEV ENODEV ENODEV ENOTSUP ENOTSUP ENOTSUP",
        "0 EBADF",
    ]


RANGES = """
libc.posix_fadvise.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_int)
libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
for fd in (heap_buffer(), udmabuf(), sync_file(), os.open("/dev/udmabuf", os.O_RDONLY)):
    print(*(said(libc.fallocate(fd, mode, 0, 4096)) for mode in (0x80, 0x81, 9, 0x43, 0x40)),
          *(libc.posix_fadvise(fd, *about) for about in ((-1, 0, 0), (-4096, 8192, 4), (0, -1, 0), (0, 0, 9))))
"""


@pytest.mark.parametrize(
    ("profile", "modes", "advice"),
    [
        ("6.1", "ENOTSUP ENOTSUP EINVAL EINVAL {}", "0 0 22 22"),
        ("6.12", "ENOTSUP ENOTSUP ENOTSUP ENOTSUP {}", "0 0 22 22"),
        ("6.18", "{} ENOTSUP ENOTSUP ENOTSUP {}", "0 0 22 22"),
        ("7.3", "{} ENOTSUP ENOTSUP ENOTSUP {}", "22 22 22 22"),
    ],
)
def test_which_ranges_there_are_the_release_decides(dmasync_run, profile, modes, advice):
    lines = dmasync_run(sys.executable, "-c", PRELUDE + RANGES, options=[f"--profile={profile}"]).output.splitlines()
    codes = ("ENODEV", "ENODEV", "EBADF", "EBADF")
    assert lines == [f"{modes.replace('{}', code)} {advice}" for code in codes]


OWNERS = """
for fd in (udmabuf(), heap_buffer(), sync_file()):
    state = os.fstat(fd)
    print(oct(state.st_mode), state.st_uid == os.getuid(), abs(state.st_mtime - time.time()) < 3600, end=" ")
    os.utime(fd, ns=(5, 10**9 + 7))
    os.fchmod(fd, 0o640)
    state = os.fstat(fd)
    print(oct(state.st_mode), state.st_atime_ns, state.st_mtime_ns)
"""


def test_mode_owner_and_times_of_a_buffer_are_its_own(dmasync_run):
    lines = dmasync_run(sys.executable, "-c", PRELUDE + OWNERS).output.splitlines()
    changed = "True True 0o640 5 1000000007"
    assert lines == [f"0o600 {changed.replace('0o640', '0o600')}", f"0o600 {changed}", f"0o600 {changed}"]


UNCHANGED = """
fd = sync_file()
for change in (lambda: os.fchmod(fd, 0o640), lambda: os.fchown(fd, -1, -1), lambda: os.utime(fd)):
    try:
        print(change())
    except OSError as failure:
        print(errno.errorcode[failure.errno])
os.fchmod(heap_buffer(), 0o640)
"""


@pytest.mark.parametrize(("profile", "answer"), [("6.12", "None"), ("6.18", "ENOTSUP"), ("7.3", "ENOTSUP")])
def test_newer_kernels_keep_the_mode_of_a_sync_file(dmasync_run, profile, answer):
    done = dmasync_run(sys.executable, "-c", PRELUDE + UNCHANGED, options=[f"--profile={profile}"])
    assert done.output.split() == [answer] * 3


OPENED = """
for fd in (heap_buffer(), sync_file(), os.open("/dev/udmabuf", os.O_RDWR), os.open("/dev/dma_heap/system", os.O_RDWR)):
    for flags in (os.O_NOFOLLOW, os.O_PATH, os.O_PATH | os.O_NOFOLLOW):
        try:
            os.close(os.open(f"/proc/self/fd/{fd}", flags))
            print("opened", end=" ")
        except OSError as failure:
            print(errno.errorcode[failure.errno], end=" ")
    shown = dict(line.split(":", 1) for line in open(f"/proc/self/fdinfo/{fd}"))
    print(shown.get("count", "").strip(), int(shown["ino"]) == os.fstat(fd).st_ino)
"""


def test_what_is_opened_by_its_number_may_be_a_place_only(dmasync_run):
    lines = dmasync_run(sys.executable, "-c", PRELUDE + OPENED).output.splitlines()
    assert lines == ["ELOOP opened opened 1 True", *["ELOOP opened opened  True"] * 3]


def test_thousands_of_calls_about_files_are_answered_as_by_linux_6_12(dmasync_run):
    recorded = SUITE / "recorded" / "linux-6.12.117-calls.json.xz"
    done = dmasync_run(sys.executable, SUITE / "calls.py", "--against", recorded, check=False)
    lines = done.output.splitlines()
    assert lines[:-1] == []
    assert lines[-1].startswith("4164 asked, ")
