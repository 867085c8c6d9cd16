"""What cannot be is refused by the name of the argument, in a sentence that says what it takes."""

from __future__ import annotations

import errno

import pytest

from dmasync.fakes import FakeBackend, FakeDevice, FakeKernel, FaultInjector, Journal, Recorder, Sanitizer, faults

PLAN = faults.storm(errno.EINTR, 1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: FakeBackend(nope=1),
            "FakeBackend has no option 'nope': those of the kernel are cma_mb, descriptor_limit, ",
        ),
        (lambda: FakeBackend(faults=PLAN), r"faults must be a list of plans of dmasync.fakes.faults, not storm\("),
        (lambda: FakeBackend(faults=str(PLAN)), "faults must be a list of plans"),
        (lambda: FakeBackend(faults=None), "faults must be a list of plans"),
        (lambda: FakeBackend(faults=[str(PLAN)]), "faults must be plans of dmasync.fakes.faults, not 'storm"),
        (lambda: FakeBackend(providers="/dev/udmabuf"), "providers must be a list of paths or Provider objects"),
        (lambda: FakeBackend(providers=5), "providers must be a list of"),
        (lambda: FaultInjector(FakeKernel(), PLAN), "faults must be a list of plans"),
        (lambda: FaultInjector(None), "inner must have the methods of dmasync.Backend, None has no ioctl"),
        (lambda: Recorder(5), "inner must have the methods of dmasync.Backend, 5 has no ioctl"),
        (lambda: Sanitizer(5), "source must be a Journal or a backend that writes one, not 5"),
        (lambda: Sanitizer(FakeKernel()), "source must be a Journal or a backend"),
        (lambda: Sanitizer(Journal(), allow="leaked-fd"), "allow must be a list of kinds of findings, not 'leaked-fd'"),
        (lambda: Journal().transitions("frame"), "buffer must be a dma-buf's number or an object with fileno"),
        (lambda: FakeDevice(FakeBackend()).write("frame", b"x"), "buffer must be a dma-buf's number or an object with"),
        (lambda: faults.storm(errno.EINTR, 1, buffer="frame"), "buffer must be a dma-buf's number"),
        (lambda: faults.storm(errno.EINTR, 1, buffer=True), "buffer must be a dma-buf's number"),
        (lambda: faults.mix(1, errnos=5), "errnos must be a list of errnos, not 5"),
    ],
)
def test_what_is_of_the_wrong_kind_is_a_type_error_that_names_the_argument(make, words):
    with pytest.raises(TypeError, match=words):
        make()


def test_options_of_the_kernel_pass_through():
    assert FakeBackend(size_limit_mb=1, list_limit=2).kernel.size_limit_mb == 1
