"""One window over several dma-bufs: a frame whose planes lie in different buffers, a pair of frames, a queue."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Iterable
from itertools import islice, starmap
from types import TracebackType
from typing import Any, NoReturn

from dmasync.access import SyncType
from dmasync.backend import Backend
from dmasync.descriptor import Descriptor
from dmasync.edge import ioctl_of, sync_arguments
from dmasync.errors import DmaSyncError
from dmasync.interrupts import guarded
from dmasync.retry import DEFAULT_RETRY, OnError, RetryPolicy
from dmasync.share import ALONE
from dmasync.source import descriptor_of
from dmasync.window import Ledger, Target, check_sync_type, check_window, warn_dropped


class DmaSyncerGroup:
    """One window over several buffers; can be used again and again, one window at a time.

    *items* are ``(buffer, sync_type)`` pairs; a buffer is what DmaSyncer takes, or a Plane. Planes and duplicates of
    one dma-buf are synced once, with all the access that was asked for. START goes in the order given, END in the
    reverse; a START that fails for good ends those before it. Every END is tried, whatever the others said: the first
    error is raised, the others are attached to it. Retries count anew for each buffer; otherwise as DmaSyncer.
    """

    __slots__ = (
        "__weakref__",
        "_buffers",
        "_closed",
        "_ends",
        "_ioctl",
        "_ledger",
        "_opened",
        "_shares",
        "_slow",
        "_starts",
    )

    def __init__(
        self,
        items: Iterable[tuple[Any, SyncType]],
        *,
        backend: Backend | None = None,
        retry: RetryPolicy = DEFAULT_RETRY,
        on_error: OnError = "raise",
    ) -> None:
        check_window(SyncType.READ, retry, on_error)
        found = _merged(items, backend)
        self._buffers = [source for source, _, _ in found]  # kept, so that dups of one dma-buf stay open
        targets = [
            Target(descriptor.ioctl if backend is None else ioctl_of(backend), descriptor.fd, sync_type)
            for _, descriptor, sync_type in found
        ]
        self._ledger = Ledger(targets, retry, on_error)
        self._opened = self._ledger.opened
        # For the short way, which makes all edges of one kind in one C loop: see dmasync.interrupts.
        self._ioctl = targets[0].ioctl
        self._starts = [sync_arguments(target.fd, target.sync_type._start) for target in targets]
        self._ends = [sync_arguments(target.fd, target.sync_type._end) for target in reversed(targets)]
        # A deadline needs the time of each first try; several backends need a loop that knows them.
        self._slow = retry.deadline is not None or any(target.ioctl != self._ioctl for target in targets)
        self._closed = False
        # Held so that every END reaches its own file, also where garbage collection finalizes the buffers first.
        self._shares = [descriptor.share for _, descriptor, _ in found]
        for _, descriptor, _ in found:
            descriptor.join(self)

    @property
    def active(self) -> bool:
        """Whether the window is open: every START has succeeded, END has not run."""
        return bool(self._opened)

    def __enter__(self) -> DmaSyncerGroup:
        opened = self._opened
        if opened or self._closed:
            self._refuse()
        try:
            if self._slow:
                self._ledger.start_rest(None)
            else:
                try:
                    opened += starmap(self._ioctl, self._starts)
                except OSError as refused:
                    self._ledger.start_rest(refused)
            return self
        except BaseException as failure:
            try:
                if opened:
                    self._ledger.finish(None, failure)
            finally:
                self._settle()
            raise

    @guarded
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            opened = self._opened
            if opened:
                if self._slow:
                    self._end_slowly(None, exc)
                else:
                    # Behind the answers to the STARTs: how many of these ENDs were made is never in doubt.
                    opened += starmap(self._ioctl, self._ends)
                    opened.clear()
        except BaseException as error:
            if not self._opened:
                self._settle()
                raise
            self._end_slowly(error, exc)

    def start(self) -> None:
        """Open the window. Raises DmaSyncError where the kernel refuses for good, RuntimeError where it is open."""
        if self._opened:
            self._refuse()
        try:
            self.__enter__()
        except BaseException as failure:
            if self._opened:  # only a signal gets here: tests/unit/test_between_calls.py
                self._end_slowly(None, failure)
            raise

    def end(self) -> None:
        """Close the window; does nothing where none is open. Raises what leaving the ``with`` block would raise."""
        # Not the short way of __exit__, which takes it that every target is open.
        self._end_slowly(None, None)

    @guarded
    def _end_slowly(self, surprise: BaseException | None, body: BaseException | None) -> None:
        """END with all that can go wrong; raises what there is to raise."""
        try:
            made = len(self._opened) - len(self._starts)
            if made > 0:
                # Without the ENDs that were made and the STARTs that they were for.
                owed = len(self._starts) - made
                self._opened = self._ledger.opened = deque(islice(self._opened, owed))
            self._ledger.finish(surprise, body)
        except BaseException as error:
            if self._opened:  # only a signal gets here: tests/unit/test_between_calls.py
                return self._end_slowly(error, body)
            self._settle()
            raise
        if self._closed:
            self._shares = []
        return None

    def _settle(self) -> None:
        """An exception is on its way, and no window is open any more."""
        if not self._opened:  # pragma: no branch - a signal between two ENDs, where one is owed still
            # The traceback has the old one, and to _buffer_closed() a deque that others have is at work.
            self._opened = self._ledger.opened = deque()
            if self._closed:
                self._shares = []  # closed while an edge was being made

    def _buffer_closed(self) -> None:
        """A buffer was closed under the group: no window opens any more, one that is open keeps it until END."""
        self._closed = self._slow = True
        opened = self._opened
        if sys.getrefcount(opened) > _REFERENCES and not opened:
            return  # another thread, or whoever called this, is making the first START
        with contextlib.suppress(IndexError):
            opened[0] = opened[0], self._shares  # lets go with the last END, be it one that is being made now
        self._shares = []

    def _refuse(self) -> None:
        if self._opened:
            raise RuntimeError("the window is already open: end it first, or use a group of its own for each window")
        raise ValueError("items hold a buffer that was closed: allocate or import it again")

    @guarded
    def __del__(self) -> None:
        try:
            if self._opened:
                self._dropped()
        except AttributeError:
            pass  # never got through __init__
        except BaseException:  # only a signal gets here: tests/unit/test_between_calls.py
            self._dropped()
            raise

    @guarded
    def _dropped(self) -> None:
        try:
            if self._opened:  # only a signal gets past
                self._end_slowly(None, None)
                warn_dropped(type(self).__name__, 1)
        except DmaSyncError:
            warn_dropped(type(self).__name__, 1)  # the error was logged, and nobody is there to catch it
        except AttributeError:  # only a signal gets here: tests/unit/test_between_calls.py
            pass  # never got through __init__
        except BaseException:
            self._dropped()
            raise

    def __reduce__(self) -> NoReturn:
        raise TypeError("a window cannot be copied or pickled, its ENDs would run twice: make a group of its own")

    def __len__(self) -> int:
        """How many dma-bufs the window covers: each counts once."""
        return len(self._ledger.targets)

    def __repr__(self) -> str:
        return f"<DmaSyncerGroup of {len(self)} {'open' if self.active else 'shut'}>"


_REFERENCES = ALONE + 2
"""What getrefcount says of the deque of a group that is not at work: the group's, its ledger's and a local one."""


def _merged(items: Iterable[tuple[Any, SyncType]], backend: Backend | None) -> list[tuple[Any, Descriptor, SyncType]]:
    """Buffer, descriptor and access of each dma-buf, in the order of first mention, with the union of the accesses.

    A dma-buf is known by its DmaBuf (and that one's dups), a borrowed descriptor by its number.
    """
    found: dict[object, tuple[Any, Descriptor, SyncType]] = {}
    try:
        pairs = list(items)
    except TypeError:
        raise TypeError(f"items must be (buffer, sync_type) pairs, not {items!r}") from None
    for number, item in enumerate(pairs):
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
    return list(found.values())
