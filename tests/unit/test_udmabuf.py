"""size_limit: why a udmabuf was refused, asked without allocating anything."""

from __future__ import annotations

import errno

import pytest

from dmasync import uapi
from dmasync.udmabuf import size_limit

MIB = 1 << 20


def driver(limit: int, other: int = errno.EBADFD):
    """udmabuf_create() of a memfd that is not there: the size first, then the memfd."""
    asked = []

    def ioctl(device, request, argument):
        assert (device, request) == (3, uapi.UDMABUF_CREATE)
        memfd, flags, offset, size = uapi.udmabuf_create.unpack(argument)
        assert (memfd, flags, offset) == (0xFFFFFFFF, 0, 0)
        asked.append(size)
        raise OSError(errno.EINVAL if size > limit else other, "no")

    ioctl.asked = asked
    return ioctl


@pytest.mark.parametrize("megabytes", [0, 1, 2, 63, 64, 65, 2047, 100_000])
@pytest.mark.parametrize("over", [1, 4096, MIB, 1 << 40])
def test_the_limit_is_found_exactly(megabytes, over):
    ioctl = driver(megabytes * MIB)
    assert size_limit(ioctl, 3, megabytes * MIB + over) == megabytes * MIB
    assert len(ioctl.asked) < 64


def test_a_size_that_the_limit_allows_was_refused_for_another_reason():
    ioctl = driver(64 * MIB)
    assert size_limit(ioctl, 3, 64 * MIB) is None
    assert ioctl.asked == [64 * MIB]


def test_a_driver_that_takes_it_has_no_limit_that_could_be_told():
    assert size_limit(lambda *arguments: 0, 3, 100) is None
