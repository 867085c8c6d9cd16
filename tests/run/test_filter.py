"""Which calls stop, on each architecture: the filter's instructions, executed as the kernel executes them."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct

import pytest

from dmasync import uapi
from dmasync.harness.run.seccomp import bpf, filter, numbers

BASE = 768
ANONYMOUS, EMPTY_PATH = 0x20, 0x1000
LOAD = 0x20
NEVER_STOPPED = {
    numbers.ARCHITECTURES["x86_64"].audit: {"getppid": 110, "futex": 202, "munmap": 11, "brk": 12},
    numbers.ARCHITECTURES["aarch64"].audit: {"getppid": 173, "futex": 98, "munmap": 215, "brk": 214},
}


def verdict(machine, name, *arguments, audit=None, steps=None, **how):
    """What the filter says to a call; *how* goes to the filter. *steps* gets the instructions that were executed."""
    call = machine.calls[name] if isinstance(name, str) else name
    padded = [argument & (1 << 64) - 1 for argument in (*arguments, *[0] * 6)][:6]
    data = struct.pack("=iIQ6Q", call, audit or machine.audit, 0, *padded)
    program = filter.build(machine, BASE, **how)
    here, word = 0, 0
    while True:
        step = program[here]
        here += 1
        if steps is not None:
            steps.append(step)
        if step.code == LOAD:
            (word,) = struct.unpack_from("=I", data, step.k)
        elif step.code == 0x74:
            word >>= step.k
        elif step.code == 0x54:
            word &= step.k
        elif step.code == 0x06:
            return step.k
        else:
            holds = {0x15: word == step.k, 0x35: word >= step.k, 0x45: bool(word & step.k)}[step.code]
            here += step.jt if holds else step.jf


def stops(*what, **how):
    found = verdict(*what, **how)
    assert found in (numbers.RET_ALLOW, numbers.RET_USER_NOTIF)
    return found == numbers.RET_USER_NOTIF


@pytest.fixture(params=numbers.ARCHITECTURES)
def machine(request):
    return numbers.ARCHITECTURES[request.param]


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("openat", ()),
        ("openat2", ()),
        ("newfstatat", (-100, 1, 2, 0)),
        ("statx", (-100, 1, 0)),
        ("faccessat", ()),
        ("readlinkat", ()),
        ("ioctl", (3, uapi.DMA_BUF_IOCTL_SYNC)),
        ("ioctl", (3, uapi.DMA_HEAP_IOCTL_ALLOC)),
        ("ioctl", (3, uapi.UDMABUF_CREATE)),
        ("ioctl", (3, uapi.SYNC_IOC_MERGE)),
        ("ioctl", (BASE, 0x5421)),
        ("mmap", (0, 4096, 1, mmap.MAP_SHARED, 3)),
        ("mmap", (0, 4096, 1, mmap.MAP_PRIVATE, BASE)),
        ("close", (BASE,)),
        ("close_range", (3, 0xFFFF_FFFF, 0)),
        ("dup", (BASE + 5,)),
        ("dup3", (3, BASE)),
        ("dup3", (BASE, 3)),
        ("fcntl", (BASE, fcntl.F_DUPFD_CLOEXEC)),
        ("fcntl", (3, fcntl.F_ADD_SEALS)),
        ("lseek", (BASE,)),
        ("fstat", (BASE,)),
        ("newfstatat", (BASE, 1, 2, EMPTY_PATH)),
        ("ftruncate", (BASE,)),
        ("getdents64", (BASE,)),
        ("epoll_ctl", (3, 1, BASE)),
        ("epoll_ctl", (3, 1, 4)),
        ("read", (BASE,)),
        ("pwritev2", (BASE,)),
        ("fstatfs", (BASE,)),
        ("ftruncate", (3,)),
        ("fallocate", (3,)),
        ("sendfile", (1, BASE)),
        ("sendfile", (BASE, 3)),
        ("splice", (3, 0, BASE)),
        ("copy_file_range", (BASE, 0, 3)),
        ("fcntl", (3, fcntl.F_GET_SEALS)),
        ("fcntl", (BASE, fcntl.F_SETFL)),
        # Of low numbers, too: descriptors have them after dup2() or from a socket.
        ("fcntl", (3, fcntl.F_GETFL)),
        ("fcntl", (3, fcntl.F_DUPFD_CLOEXEC)),
        ("dup", (3,)),
        ("fstat", (3,)),
        ("newfstatat", (3, 1, 2, EMPTY_PATH)),
        ("statx", (3, 1, EMPTY_PATH)),
        ("fstatfs", (3,)),
        ("fsync", (3,)),
        ("lseek", (3, 0, os.SEEK_END)),
        ("lseek", (3, 0, os.SEEK_CUR)),
        ("sendfile", (3, 4)),
        ("splice", (3, 0, 4)),
        ("copy_file_range", (3, 0, 4)),
        ("io_submit", (1,)),
        ("io_uring_setup", (8,)),
        ("madvise", (0, 4096, 4)),
        ("madvise", (0, 4096, 22)),
        ("madvise", (0, 4096, 14)),
        ("msync", (0, 4096, 4)),
        ("mremap", (0, 4096, 8192)),
        ("mincore", (0, 4096)),
        ("seccomp", (1, 8)),
        ("execve", ()),
        ("execveat", (3, 1, 2, 3, EMPTY_PATH)),
        ("name_to_handle_at", (3,)),
        ("mlock", (4096, 4096)),
        ("mlock2", (4096, 4096, 0)),
        ("process_madvise", (3, 1, 1, 20)),
        ("statfs", ()),
        ("setxattr", ()),
        ("removexattr", ()),
        ("flock", (BASE,)),
        ("ioctl", (3, 0x40049409)),
        ("fcntl", (BASE, 16)),
    ],
)
def test_what_may_be_the_backends_stops(machine, call, arguments):
    assert stops(machine, call, *arguments)


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (112, (3,)),
        ("read", (3,)),
        ("write", (BASE - 1,)),
        ("ftruncate", (-1,)),
        ("fstat", (-1,)),
        ("fcntl", (-1, fcntl.F_SETFL)),
        ("ioctl", (3, 0x5401)),
        ("mmap", (0, 4096, 3, mmap.MAP_PRIVATE, 3)),
        ("mmap", (0, 4096, 3, mmap.MAP_SHARED | ANONYMOUS, -1)),
        ("mmap", (0, 4096, 3, mmap.MAP_SHARED, -1)),
        ("close", (3,)),
        ("close", (-1,)),
        ("close_range", (3, 100, 0)),
        ("dup", (-1,)),
        ("dup3", (3, 4)),
        ("fcntl", (BASE, fcntl.F_GETFD)),
        ("lseek", (3, 5, os.SEEK_SET)),
        ("lseek", (-1, 0, os.SEEK_END)),
        ("madvise", (0, 4096, 3)),
        ("madvise", (0, 4096, 8)),
        ("msync", (0, 4096, 1)),
        ("seccomp", (1, 0)),
        ("ppoll", ()),
        ("exit_group", ()),
        ("flock", (3,)),
        ("fcntl", (3, 16)),
    ],
)
def test_what_cannot_be_goes_by(machine, call, arguments):
    assert not stops(machine, call, *arguments)


def test_waits_and_ends_stop_when_they_are_asked_for(machine):
    assert stops(machine, "ppoll", waiting=True)
    assert stops(machine, "pselect6", waiting=True)
    assert stops(machine, "exit_group", ends=True)


def test_on_a_real_kernel_its_own_files_answer_for_their_bytes(machine):
    assert not stops(machine, "read", BASE, fake=False)
    assert not stops(machine, "fallocate", BASE, fake=False)
    assert not stops(machine, "epoll_ctl", 3, 1, 4, fake=False)
    assert not stops(machine, "fcntl", BASE, fcntl.F_GETFL, fake=False)
    assert not stops(machine, "newfstatat", 3, 1, 2, EMPTY_PATH, fake=False)
    assert not stops(machine, "madvise", 0, 4096, 4, fake=False)
    assert not stops(machine, "mremap", 0, 4096, 8192, fake=False)
    for call in ("execve", "execveat", "mlock", "process_madvise", "statfs", "setxattr", "name_to_handle_at"):
        assert not stops(machine, call, BASE, fake=False)
    for call in ("dup", "fstat", "lseek"):
        assert not stops(machine, call, 3, 0, os.SEEK_END, fake=False)
        assert stops(machine, call, BASE, 0, os.SEEK_END, fake=False)
    assert not stops(machine, "fcntl", 3, fcntl.F_DUPFD, fake=False)
    assert stops(machine, "ftruncate", BASE, fake=False)


@pytest.mark.parametrize("name", ["getppid", "futex", "munmap", "brk"])
def test_a_call_that_never_stops_is_passed_by_its_number_alone(machine, name):
    """The kernel remembers such calls when it takes a filter, and does not run it for them."""
    steps = []
    number = NEVER_STOPPED[machine.audit][name]
    assert verdict(machine, number, steps=steps) == numbers.RET_ALLOW
    assert {step.k for step in steps if step.code == LOAD} <= {bpf.NUMBER_AT, bpf.ARCHITECTURE_AT}


def test_no_call_takes_many_steps(machine):
    for number in range(460):
        steps = []
        verdict(machine, number, steps=steps)
        assert len(steps) < 25


def test_calls_of_another_architecture_go_by(machine):
    assert not stops(machine, "openat", audit=0x40000003)


def test_a_32_bit_program_is_told_of_by_the_files_that_it_opens(machine):
    for number in machine.opens_of_32_bits:
        assert stops(machine, number, audit=machine.audit_of_32_bits)
    assert not stops(machine, 1, audit=machine.audit_of_32_bits)
    assert not stops(machine, machine.opens_of_32_bits[0], audit=0xC0000015)


def test_x32_calls_go_by():
    machine = numbers.ARCHITECTURES["x86_64"]
    assert not stops(machine, 0x40000000 | machine.calls["openat"])


def test_a_jump_that_is_too_far_is_refused():
    program = bpf.Program()
    program.if_equal(1, "far")
    for _ in range(256):
        program.load(0)
    program.place("far")
    program.give(numbers.RET_ALLOW)
    with pytest.raises(ValueError, match="far is 256 instructions away"):
        program.assemble()
