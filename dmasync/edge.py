"""What one START or END of one descriptor is made of: the call, and its arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dmasync import uapi
from dmasync.backend import Backend


class Untried(OSError):  # noqa: N818 - never raised to a caller
    """In place of a refusal: the edge has not been tried yet."""


def take_the_time() -> None:
    """In place of a first try whose time matters: the short way, which never looks at the clock, must not succeed."""
    raise Untried


def ioctl_of(backend: Backend) -> Callable[[int, int, Any], Any]:
    """The backend's ``ioctl``; TypeError for what is no backend."""
    ioctl = getattr(backend, "ioctl", None)
    if not callable(ioctl):
        raise TypeError(f"backend must have the methods of dmasync.Backend, {backend!r} has no ioctl")
    return ioctl  # type: ignore[no-any-return]  # callable() says no more than that


def sync_arguments(fd: int, argument: bytearray) -> tuple[int, int, bytearray]:
    """What ``ioctl`` takes for one edge."""
    return fd, uapi.DMA_BUF_IOCTL_SYNC, argument
