"""Every kind of call, made by a C program: what it answers, and that pages are shared."""

from __future__ import annotations

import errno
import sys

import pytest

KINDS = [
    "heap", "shared_pages", "pieces", "paths", "folder", "duplicates", "refused", "sync_files", "travel", "exec",
    "no_bytes", "low_numbers", "wide", "odd_paths", "full",
]  # fmt: skip

WAYS = ["received", "asynchronous", "epoll_inherited", "by_name"]


@pytest.mark.parametrize("linking", [(), ("-static",)], ids=["dynamic", "static"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_c_program_gets_the_kernels_answers(compiled, dmasync_run, kind, linking):
    done = dmasync_run(compiled("calls", *linking), kind, check=False)
    assert (done.output, done.errors, done.status) == ("", "", 0)


@pytest.mark.parametrize("kind", WAYS)
def test_less_common_ways_to_use_a_buffer_are_answered_as_by_the_kernel(compiled, dmasync_run, kind):
    done = dmasync_run(compiled("ways"), kind, check=False)
    assert (done.output, done.errors, done.status) == ("", "", 0)


IO_URING = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for _ in range(2):
    print(libc.syscall(425, 4, ctypes.create_string_buffer(120)), ctypes.get_errno())
"""


def test_io_uring_is_refused_as_where_it_is_disabled_and_that_is_said_once(dmasync_run):
    done = dmasync_run(sys.executable, "-c", IO_URING, check=False)
    assert done.output == f"-1 {errno.EPERM}\n" * 2
    assert done.errors.count("io_uring_setup()") == 1
    assert (len(done.errors.splitlines()), done.status) == (1, 0)


TRACED = """
import ctypes, fcntl, mmap, os, struct
libc = ctypes.CDLL(None, use_errno=True)
go, begin = os.pipe()
child = os.fork()
if not child:
    os.read(go, 1)
    memfd = os.memfd_create("frames", os.MFD_ALLOW_SEALING)
    os.ftruncate(memfd, 3 * 4096)
    fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    parts = struct.pack("IIIIQQIIQQ", 1, 2, memfd, 0, 0, 4096, memfd, 0, 8192, 4096)
    fd = fcntl.ioctl(os.open("/dev/udmabuf", os.O_RDWR), 0x40087543, bytearray(parts))
    before = os.listdir("/proc/self/fd")
    try:
        mmap.mmap(fd, 2 * 4096)
    except OSError as problem:
        print(problem.errno, os.listdir("/proc/self/fd") == before, flush=True)
    os._exit(0)
assert libc.ptrace(0x4206, child, None, None) == 0
os.write(begin, b"!")
os.waitpid(child, 0x40000000)
"""


def test_a_buffer_of_pieces_in_a_program_that_is_traced_is_told(dmasync_run):
    """To map it takes calls that are made in the program, by the same means as a debugger's."""
    done = dmasync_run(sys.executable, "-c", TRACED, check=False)
    assert done.output == f"{errno.ENOSYS} True\n"
    assert "dmasync run: mmap(): not modelled: a buffer out of several ranges" in done.errors
    assert done.status == 3


UNSEEN = """
import fcntl, os, struct, sys
def allocate():
    heap = os.open("/dev/dma_heap/system", os.O_RDWR)
    asked = bytearray(struct.pack("QIIQ", 4096, 0, os.O_RDWR | os.O_CLOEXEC, 0))
    fcntl.ioctl(heap, 0xC0184800, asked)
    return struct.unpack("QIIQ", asked)[1]
def wrap():
    memfd = os.memfd_create("frames", os.MFD_ALLOW_SEALING)
    os.ftruncate(memfd, 4096)
    fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    os.write(memfd, b"its own bytes")
    os.lseek(memfd, 0, 0)
    asked = bytearray(struct.pack("IIQQ", memfd, 1, 0, 4096))
    return fcntl.ioctl(os.open("/dev/udmabuf", os.O_RDWR), 0x40187542, asked)
os.dup2(allocate() if sys.argv[1] == "heap" else wrap(), 90)
if sys.argv[2] == "read":
    os.read(90, 4)
if sys.argv[2] == "write":
    os.write(90, b"four")
os.fstat(90)
"""


@pytest.mark.parametrize("kind", ["heap", "udmabuf"])
@pytest.mark.parametrize("use", ["read", "write", "neither"])
def test_bytes_that_a_low_number_gives_are_told(dmasync_run, kind, use):
    """Their calls are not stopped: that would cost every read of every file."""
    done = dmasync_run(sys.executable, "-c", UNSEEN, kind, use, check=False)
    if use == "neither":
        assert (done.errors, done.status) == ("", 0)
    else:
        assert (done.errors.count("not modelled for a dma-buf by a low number"), done.status) == (1, 3), done.errors


def test_a_shell_script_finds_what_it_would_find_on_a_kernel(dmasync_run):
    script = """
        ls /dev/dma_heap
        test -c /dev/udmabuf && test -w /dev/udmabuf && echo there
        stat -c %F /dev/dma_heap/system /dev/dma_heap
        readlink -f /dev/dma_heap/../udmabuf
        head -c1 /dev/udmabuf 2>/dev/null || echo unreadable
        exec 9<>/dev/udmabuf && readlink /proc/self/fd/9
        cat /sys/module/udmabuf/parameters/list_limit
    """
    done = dmasync_run("sh", "-c", script, options=["--node=/dev/udmabuf", "--node=/dev/dma_heap/system"], check=False)
    assert done.output.splitlines() == [
        "system", "there", "character special file", "directory", "/dev/udmabuf", "unreadable", "/dev/udmabuf", "1024",
    ]  # fmt: skip
    assert (done.errors, done.status) == ("", 0)
