"""A small backend for the layers' own tests: real file descriptors, and ioctls that succeed on any of them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import termios
from collections.abc import Iterator
from typing import Any

import pytest

from dmasync import LinuxBackend


class PipeBackend(LinuxBackend):
    """The kernel, but each ioctl is FIONREAD on the pipe end it is asked of; counts those that succeeded.

    It keeps the contract of a backend: what it does after the inner call cannot be interrupted.
    """

    def __init__(self) -> None:
        self.succeeded = 0
        self.ioctl = self._ioctl  # type: ignore[assignment]

    def _ioctl(self, fd: int, request: int, arg: Any = 0) -> int:
        for _ in map(fcntl.ioctl, (fd,), (termios.FIONREAD,), (bytearray(4),)):
            self.succeeded += 1
            return 0
        raise AssertionError


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(fd)


@pytest.fixture
def backend() -> PipeBackend:
    return PipeBackend()
