"""One window over several dma-bufs: a frame whose planes lie in different buffers, a pair of frames, a queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any

from dmasync import uapi
from dmasync.access import Step, SyncType
from dmasync.backend import Backend
from dmasync.descriptor import Descriptor
from dmasync.interrupts import guarded
from dmasync.retry import DEFAULT_RETRY, RetryPolicy
from dmasync.source import descriptor_of
from dmasync.window import OnError, Target, Window, check_sync_type, check_window

_CALL = partial.__call__


class DmaSyncerGroup(Window):
    """One window over several buffers; can be used again and again, one window at a time.

    *items* are ``(buffer, sync_type)`` pairs; a buffer is what DmaSyncer takes, or a Plane. Planes and duplicates of
    one dma-buf are synced once, with all the access that was asked for. START goes in the order given, END in the
    reverse; a START that fails for good ends those before it. Every END is tried, whatever the others said: the first
    error is raised, the others are attached to it. Retries count anew for each buffer; otherwise as DmaSyncer.
    """

    __slots__ = ("_buffers", "_descriptors", "_ends", "_starts", "_window_targets")

    def __init__(
        self,
        items: Iterable[tuple[Any, SyncType]],
        *,
        backend: Backend | None = None,
        retry: RetryPolicy = DEFAULT_RETRY,
        on_error: OnError = "raise",
    ) -> None:
        self._open = 0
        self._reserved = 0
        check_window(SyncType.READ, retry, on_error)
        self._retry = retry
        self._on_error = on_error
        self._buffers, targets = _merged(items, backend)
        self._window_targets = targets
        self._descriptors: Sequence[Descriptor] = [target.descriptor for target in targets]
        # Prepared calls, run in C one after the other: see dmasync.interrupts.
        self._starts = [_call(target, Step.START) for target in targets]
        self._ends = [_call(target, Step.END) for target in reversed(targets)]
        if retry.deadline is not None:
            # The time of each first try matters: leave the short way, which never looks at the clock, nothing to do.
            self._starts = self._ends = []

    def __enter__(self) -> DmaSyncerGroup:
        if self._open or self._reserved:
            raise RuntimeError(
                "the window is already open: end it first, or use a group of its own for each window"
            )
        for descriptor in self._descriptors:
            if descriptor.closed:
                raise ValueError("items hold a buffer that was closed: allocate or import it again")
        try:
            for descriptor in self._descriptors:
                self._reserved += 1
                descriptor.users += 1
            try:
                for _ in map(_CALL, self._starts):
                    self._open += 1
                    self._reserved -= 1
            except OSError as refused:
                self._start_rest(refused)
            else:
                self._start_rest(None)
            return self
        except BaseException as failure:
            self._abandon(failure)
            raise

    @guarded
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            # Short unless a deadline, or an END that was given up in an earlier life of this window, is in the way.
            if self._open == len(self._ends):
                for descriptor, _ in zip(reversed(self._descriptors), map(_CALL, self._ends)):
                    self._open -= 1
                    descriptor.users -= 1
                    if not descriptor.users:
                        descriptor.settle()
            if self._open:
                self._finish(None, exc)
        except BaseException as error:
            self._finish(error, exc)

    def start(self) -> None:
        """Open the window. Raises DmaSyncError where the kernel refuses for good, RuntimeError where it is open."""
        opened = self._open
        try:
            self.__enter__()
        except BaseException as failure:
            if not opened:
                self._abandon(failure)
            raise

    def end(self) -> None:
        """Close the window; does nothing where none is open. Raises what leaving the ``with`` block would raise."""
        self.__exit__(None, None, None)

    def _targets(self) -> Sequence[Target]:
        return self._window_targets

    def __len__(self) -> int:
        """How many dma-bufs the window covers: each counts once."""
        return len(self._window_targets)

    def __repr__(self) -> str:
        return f"<DmaSyncerGroup of {len(self)} {'open' if self._open else 'shut'}>"


def _call(target: Target, step: Step) -> partial[Any]:
    argument = next(target.sync_type._starts if step is Step.START else target.sync_type._ends)
    return partial(target.ioctl, target.descriptor.fd, uapi.DMA_BUF_IOCTL_SYNC, argument)


def _merged(items: Iterable[tuple[Any, SyncType]], backend: Backend | None) -> tuple[list[Any], list[Target]]:
    """One target for each dma-buf, in the order of first mention, with the union of the accesses.

    A dma-buf is known by its DmaBuf (and that one's dups), a borrowed descriptor by its number.
    """
    found: dict[object, tuple[Any, Descriptor, SyncType]] = {}
    for number, item in enumerate(items):
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise TypeError(f"items[{number}] must be a (buffer, sync_type) pair, not {item!r}")
        source, sync_type = item
        check_sync_type(sync_type)
        source = getattr(source, "buffer", source)
        descriptor = descriptor_of(source, backend, f"items[{number}]")
        key = getattr(source, "_key", descriptor.fd)
        if key in found:
            source, descriptor, earlier = found[key]
            sync_type |= earlier
        found[key] = source, descriptor, sync_type
    if not found:
        raise ValueError("items must not be empty")
    targets = [
        Target(descriptor.ioctl if backend is None else backend.ioctl, descriptor, sync_type)
        for _, descriptor, sync_type in found.values()
    ]
    return [source for source, _, _ in found.values()], targets
