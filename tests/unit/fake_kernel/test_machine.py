"""A kernel of another processor than this host's: ``FakeKernel(machine=…)``."""

from __future__ import annotations

import errno
import mmap
import os
import platform

import pytest

from dmasync import uapi
from dmasync.fakes import FakeBackend, FakeKernel
from dmasync.fakes.kernel import UnmodelledCallError
from dmasync.fakes.kernel.machine import MACHINES, machine_named

RW = mmap.PROT_READ | mmap.PROT_WRITE
VALIDATE = 3
X86, ARM64 = MACHINES["x86_64"], MACHINES["aarch64"]


def heap_buffer(kernel: FakeKernel) -> int:
    argument = uapi.dma_heap_allocation_data.pack(1, 0, os.O_RDWR, 0)
    kernel.ioctl(kernel.open("/dev/dma_heap/system", os.O_RDWR), uapi.DMA_HEAP_IOCTL_ALLOC, argument)
    return uapi.dma_heap_allocation_data.get(argument, "fd")


def mapped(kernel: FakeKernel, fd: int, length: int, flags: int = mmap.MAP_SHARED) -> int:
    """The errno of a mapping, 0 for none."""
    try:
        kernel.mmap(fd, length, RW, flags).close()
    except OSError as refusal:
        return refusal.errno or -1
    return 0


def huge(kernel: FakeKernel, log: int) -> int:
    """The errno of a memfd with such huge pages, 0 for none."""
    try:
        kernel.close(kernel.memfd_create("huge", uapi.MFD_HUGETLB | log << 26))
    except OSError as refusal:
        return refusal.errno or -1
    return 0


@pytest.mark.parametrize(
    ("machine", "page_size", "logs"),
    [
        ("x86_64", 4096, {21}),
        ("aarch64", 4096, {16, 21, 25, 30}),
        ("aarch64", 16384, {21, 25, 30}),
        ("aarch64", 65536, {21, 29, 34}),
    ],
)
def test_each_processor_has_huge_pages_of_its_own(machine: str, page_size: int, logs: set[int]) -> None:
    kernel = FakeKernel(machine=machine, page_size=page_size)
    asked = [log for log in range(1, 64) if (machine, log) != ("x86_64", 30)]
    assert {log for log in asked if huge(kernel, log) == 0} == logs
    assert {huge(kernel, log) for log in asked if log not in logs} == {errno.ENODEV}


def test_whether_an_x86_has_huge_pages_of_a_gigabyte_its_kernel_does_not_say() -> None:
    with pytest.raises(UnmodelledCallError, match="MFD_HUGE_1GB"):
        FakeKernel(machine="x86_64").memfd_create("huge", uapi.MFD_HUGETLB | 30 << 26)


@pytest.mark.parametrize("name", ["x86_64", "aarch64"])
def test_a_mapping_that_no_process_has_room_for_is_enomem(name: str) -> None:
    kernel = FakeKernel(machine=name)
    buffer = heap_buffer(kernel)
    for length in (MACHINES[name].address_space - 4096, MACHINES[name].address_space, 1 << 62):
        assert mapped(kernel, buffer, length) == errno.ENOMEM
    assert mapped(kernel, buffer, MACHINES[name].address_space // 2) == errno.EINVAL


def test_an_arm64_has_twice_the_room() -> None:
    assert ARM64.longest_mapping > X86.address_space > X86.longest_mapping


@pytest.mark.parametrize(("machine", "errnos"), [("x86_64", (0, 0)), ("aarch64", (errno.EOPNOTSUPP,) * 2)])
def test_only_an_x86_knows_the_flags_of_its_low_memory(machine: str, errnos: tuple[int, int]) -> None:
    kernel = FakeKernel(machine=machine)
    buffer = heap_buffer(kernel)
    assert tuple(mapped(kernel, buffer, mmap.PAGESIZE, VALIDATE | flag) for flag in (0x40, 0x80)) == errnos


def test_the_hosts_is_the_default() -> None:
    assert FakeKernel().machine == machine_named("host")
    assert machine_named("host").name == platform.machine()
    assert FakeBackend(machine="aarch64").kernel.machine == ARM64


def test_a_processor_that_the_fake_does_not_know_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="machine='arm64' is none that the fake knows: use one of 'x86_64', 'aarch64'"):
        FakeKernel(machine="arm64")
