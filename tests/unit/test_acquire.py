"""Acquired: descriptors that nobody owns yet are closed, once each, whatever happens."""

from __future__ import annotations

import errno
import struct

import pytest

from dmasync import LinuxBackend
from dmasync.acquire import Acquired, retried
from dmasync.descriptor import Descriptor


class Closing(LinuxBackend):
    """Remembers what was closed; raises what it is told to, after the close."""

    def __init__(self, *raised: BaseException | None) -> None:
        self.closed: list[int] = []
        self._raised = list(raised)

    def close(self, fd: int, /) -> None:  # type: ignore[override]
        self.closed.append(fd)
        problem = self._raised.pop(0) if self._raised else None
        if problem is not None:
            raise problem


def answers(*values):
    """A call that gives *values* one after the other; exceptions are raised."""
    left = list(values)
    asked = []

    def call(*arguments):
        asked.append(arguments)
        value = left.pop(0)
        if isinstance(value, BaseException):
            raise value
        return value

    call.asked = asked
    return call


def test_what_was_acquired_and_not_given_is_closed_last_first():
    backend = Closing()
    acquired = Acquired(backend)
    call = answers(5, 6, 7)
    assert [acquired.get(call, "a", 1), acquired.get(call, "b"), acquired.get(call, "c")] == [5, 6, 7]
    assert call.asked == [("a", 1), ("b",), ("c",)]
    acquired.close()
    assert backend.closed == [7, 6, 5]
    acquired.close()
    assert backend.closed == [7, 6, 5]


def test_nothing_acquired_is_nothing_to_close():
    backend = Closing()
    Acquired(backend).close()
    assert backend.closed == []


def test_what_was_given_belongs_to_its_descriptor():
    backend = Closing()
    acquired = Acquired(backend)
    descriptor = Descriptor(backend, acquired.get(answers(5), "x"))
    acquired.get(answers(6), "x")
    acquired.give(descriptor)
    acquired.close()
    assert backend.closed == [6]
    descriptor.close()
    assert backend.closed == [6, 5]


def test_a_descriptor_that_was_not_given_closes_nothing():
    backend = Closing()
    acquired = Acquired(backend)
    descriptor = Descriptor(backend, acquired.get(answers(5), "x"))
    acquired.close()
    descriptor.close()
    assert backend.closed == [5]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "no"), KeyboardInterrupt()], ids=["EIO", "interrupt"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_error_while_closing_one_does_not_keep_the_others_open(error, at):
    backend = Closing(*[None] * at, error)
    acquired = Acquired(backend)
    for number in (5, 6, 7):
        acquired.get(answers(number), "x")
    with pytest.raises(type(error)):
        acquired.close()
    assert backend.closed == [7, 6, 5]


def test_interrupted_calls_are_made_again():
    call = answers(InterruptedError(errno.EINTR, "again"), InterruptedError(errno.EINTR, "again"), 5)
    assert Acquired(Closing()).get(call, "x") == 5
    assert call.asked == [("x",)] * 3


def test_other_errors_come_as_they_are():
    acquired = Acquired(Closing())
    with pytest.raises(BlockingIOError):
        acquired.get(answers(BlockingIOError(errno.EAGAIN, "busy")), "x")


def writing(*values):
    """An ioctl that writes *values* one after the other at offset 4 of its argument; exceptions are raised."""
    left = list(values)
    asked = []

    def ioctl(fd, request, argument):
        asked.append((fd, request))
        value = left.pop(0)
        if isinstance(value, BaseException):
            raise value
        struct.pack_into("=i", argument, 4, value)
        return 0

    ioctl.asked = asked
    return ioctl


def test_a_descriptor_that_an_ioctl_writes_is_acquired_too():
    backend = Closing()
    acquired = Acquired(backend)
    argument = bytearray(12)
    assert acquired.get_from(argument, 4, writing(70000), 3, 99) == 70000
    acquired.close()
    assert backend.closed == [70000]
    argument.append(0)  # no view of it is left


def test_an_interrupted_ioctl_is_made_again_and_other_errors_come_as_they_are():
    acquired = Acquired(Closing())
    call = writing(InterruptedError(errno.EINTR, "again"), 8)
    assert acquired.get_from(bytearray(12), 4, call, 3, 99) == 8
    assert call.asked == [(3, 99)] * 2
    argument = bytearray(12)
    with pytest.raises(OSError, match="no memory"):
        acquired.get_from(argument, 4, writing(OSError(errno.ENOMEM, "no memory")), 3, 99)
    argument.append(0)


def test_calls_that_give_no_descriptor_are_made_again_too():
    call = answers(InterruptedError(errno.EINTR, "again"), "done")
    assert retried(call, 1, 2) == "done"
    assert call.asked == [(1, 2)] * 2
    with pytest.raises(OSError, match="no"):
        retried(answers(OSError(errno.EIO, "no")))
