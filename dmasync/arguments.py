"""What the library's functions take, and the sentences that refuse anything else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, TypeVar

from dmasync.access import SyncType
from dmasync.retry import RetryPolicy

Item = TypeVar("Item")


def check_sync_type(sync_type: object, argument: str = "sync_type") -> None:
    """Refuse what is not READ, WRITE or both."""
    if not isinstance(sync_type, SyncType):
        raise TypeError(f"{argument} must be a SyncType, not {sync_type!r}")
    if not sync_type.value:
        raise ValueError(f"{argument} must be SyncType.READ, WRITE or READ_WRITE, not an empty SyncType")


def check_policy(retry: object, on_error: object) -> None:
    """Refuse what no window can work with."""
    if not isinstance(retry, RetryPolicy):
        raise TypeError(f"retry must be a RetryPolicy, not {retry!r}")
    if on_error not in ("raise", "log"):
        raise ValueError(f"on_error must be 'raise' or 'log', not {on_error!r}")


def check_backend(backend: object) -> None:
    """Refuse what is no backend."""
    if not callable(getattr(backend, "ioctl", None)):
        raise TypeError(f"backend must have the methods of dmasync.Backend, {backend!r} has no ioctl")


def file_number(source: Any, argument: str) -> int:
    """*source* as the number of an open file: an int, or what its ``fileno()`` says."""
    number = source
    if not isinstance(source, int):
        with contextlib.suppress(AttributeError):
            number = source.fileno()
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"{argument} must be a DmaBuf, a file descriptor or an object with fileno(), not {source!r}")
    if number < 0:
        raise ValueError(f"{argument} must be an open file descriptor, not {number}")
    if number > 0x7FFFFFFF:
        raise ValueError(f"{argument} must be a file descriptor, a C int, not {number}")
    return number


def listed(values: Iterable[Item], argument: str, what: str) -> tuple[Item, ...]:
    """*values* as a tuple; TypeError that names *argument* for what cannot be iterated over."""
    try:
        return tuple(values)
    except TypeError:
        raise TypeError(f"{argument} must be {what}, not {values!r}") from None
