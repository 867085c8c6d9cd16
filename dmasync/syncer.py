"""Windows of CPU access: START before, END after, whatever happens between. After libcamera's ``DmaSyncer``."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from dmasync.access import SyncType
from dmasync.arguments import check_backend, check_policy, check_sync_type, file_number, listed
from dmasync.backend import LINUX, Backend
from dmasync.core import File, Window, quicken
from dmasync.retry import DEFAULT_RETRY, OnError, RetryPolicy

Self = TypeVar("Self", bound=Window)


@quicken
class DmaSyncer(Window):
    """One window over one dma-buf, as a context manager; can be used again and again, one window at a time.

    *buffer_or_fd* is a DmaBuf, or the number of a dma-buf's file descriptor (or an object with ``fileno()``), which
    is borrowed: keep it open as long as the syncer is used. *backend* defaults to the buffer's own, and to the real
    kernel for a bare descriptor.

    START and END are repeated as *retry* says. A hard error raises :class:`dmasync.DmaSyncError` and is logged under
    ``dmasync``; with ``on_error="log"`` it is only logged, as in libcamera, and work goes on. END runs exactly once
    for every START that succeeded, and never for one that failed. An exception in the body is never replaced by an
    error of END: that one becomes a note of it, and the end of its ``__context__`` chain.

    A window is one thread's at a time: RuntimeError for another that uses it meanwhile. It belongs to the process that
    opened it: in a child of a fork it is shut, and its END is left to the parent.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        def __init__(
            self,
            buffer_or_fd: Any,
            sync_type: SyncType = SyncType.READ_WRITE,
            *,
            backend: Backend | None = None,
            retry: RetryPolicy = DEFAULT_RETRY,
            on_error: OnError = "raise",
        ) -> None: ...

        def __enter__(self: Self) -> Self: ...

    def _set_up(
        self,
        buffer_or_fd: Any,
        sync_type: SyncType = SyncType.READ_WRITE,
        *,
        backend: Backend | None = None,
        retry: RetryPolicy = DEFAULT_RETRY,
        on_error: OnError = "raise",
    ) -> None:
        """``__init__``, for what the compiled core does not set up by itself."""
        check_sync_type(sync_type)
        check_policy(retry, on_error)
        _prepare(self, ((_file_of(buffer_or_fd, backend, "buffer_or_fd"), sync_type),), backend, retry, on_error)

    @property
    def sync_type(self) -> SyncType:
        """The access that the window brackets; READ_WRITE where the window was moved away."""
        targets = self._targets
        return SyncType(targets[0][1]) if targets else SyncType.READ_WRITE

    def move(self) -> DmaSyncer:
        """A new syncer that has taken over everything, the open window too. This one does nothing from now on."""
        heir = DmaSyncer.__new__(DmaSyncer)
        self._move(heir)
        return heir

    def _refuse(self, reason: str) -> None:
        _refuse(reason, "a syncer", "buffer_or_fd was closed")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a window cannot be copied or pickled, its END would run twice: use move()")

    def __repr__(self) -> str:
        name = type(self).__name__
        if not self._targets:
            return f"<{name} moved>"
        return f"<{name} fd={self._targets[0][0].fd} {self.sync_type.name} {'open' if self.active else 'shut'}>"


# What calls the compiled core's constructor is told by the one that it stands for.
DmaSyncer._set_up.__qualname__ = "DmaSyncer"
DmaSyncer.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # inspect and help() look there
    list(inspect.signature(DmaSyncer._set_up).parameters.values())[1:]
)


@quicken
class DmaSyncerGroup(Window):
    """One window over several buffers; can be used again and again, one window at a time.

    *items* are ``(buffer, sync_type)`` pairs; a buffer is what DmaSyncer takes, or a Plane. Planes and duplicates of
    one dma-buf are synced once, with all the access that was asked for. START goes in the order given, END in the
    reverse; a START that fails for good ends those before it. Every END is tried, whatever the others said: the first
    error is raised, the others are attached to it. Retries count anew for each buffer; otherwise as DmaSyncer.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        def __enter__(self: Self) -> Self: ...

    def __init__(
        self,
        items: Iterable[tuple[Any, SyncType]],
        *,
        backend: Backend | None = None,
        retry: RetryPolicy = DEFAULT_RETRY,
        on_error: OnError = "raise",
    ) -> None:
        check_policy(retry, on_error)
        _prepare(self, _merged(items, backend), backend, retry, on_error)

    def _refuse(self, reason: str) -> None:
        _refuse(reason, "a group", "items hold a buffer that was closed")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a window cannot be copied or pickled, its ENDs would run twice: make a group of its own")

    def __len__(self) -> int:
        """How many dma-bufs the window covers: each counts once."""
        return len(self._targets)

    def __repr__(self) -> str:
        return f"<DmaSyncerGroup of {len(self)} {'open' if self.active else 'shut'}>"


def _prepare(
    window: Window,
    targets: Iterable[tuple[File, SyncType]],
    backend: Backend | None,
    retry: RetryPolicy,
    on_error: OnError,
) -> None:
    pairs = tuple((file, sync_type.value) for file, sync_type in targets)
    ioctl = None if backend is None else backend.ioctl
    if retry is DEFAULT_RETRY:
        window._prepare(pairs, ioctl, None, False, on_error == "log")
        return
    timed = retry.deadline is not None or retry.wait is not None
    window._prepare(pairs, ioctl, retry if backend is None else (retry, backend), timed, on_error == "log")


def _refuse(reason: str, what: str, closed: str) -> None:
    if reason == "open":
        raise RuntimeError(f"the window is already open: end it first, or use {what} of its own for each window")
    if reason == "busy":
        raise RuntimeError(
            "the window is being opened or closed by another thread, or by what this signal handler interrupted: "
            f"use {what} of its own there"
        )
    if reason == "closed":
        raise ValueError(f"{closed}: allocate or import it again")
    if reason == "unset":
        raise RuntimeError("the window was never set up: a subclass must call super().__init__()")


def _file_of(source: Any, backend: Backend | None, argument: str) -> File:
    """The File of *source*, named *argument* in errors: a buffer's own, or a new one for a borrowed descriptor.

    Raises TypeError for anything else and ValueError for a closed buffer or a negative number; makes no system call.
    """
    if backend is not None:
        check_backend(backend)
    file = getattr(source, "_file", None)
    if isinstance(file, File):
        if file.closed:
            raise ValueError(f"{argument} was closed: allocate or import it again")
        return file
    number = file_number(source, argument)
    return File(number, LINUX if backend is None else backend, False, source)


def _merged(items: Iterable[tuple[Any, SyncType]], backend: Backend | None) -> list[tuple[File, SyncType]]:
    """File and access of each dma-buf, in the order of first mention, with the union of the accesses.

    A dma-buf is known by its DmaBuf (and that one's dups), a borrowed descriptor by its number.
    """
    found: dict[object, tuple[File, SyncType]] = {}
    for number, item in enumerate(listed(items, "items", "(buffer, sync_type) pairs")):
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise TypeError(f"items[{number}] must be a (buffer, sync_type) pair, not {item!r}")
        source, sync_type = item
        check_sync_type(sync_type, f"items[{number}]'s sync_type")
        source = getattr(source, "buffer", source)
        file = _file_of(source, backend, f"items[{number}]")
        key = getattr(source, "_key", file.fd)
        if key in found:
            file, earlier = found[key]
            sync_type |= earlier
        found[key] = file, sync_type
    if not found:
        raise ValueError("items must not be empty")
    return list(found.values())
