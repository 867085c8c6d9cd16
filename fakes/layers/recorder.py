"""Recorder: writes down every call that passes through it, and never changes the answer."""

from __future__ import annotations

import os
import struct
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from threading import get_ident
from types import CodeType
from typing import Any, Final

from dmasync import Backend, Mapping, uapi
from dmasync.fakes.arguments import check_layer
from dmasync.fakes.journal import INTERRUPTED, ROW, Call, Event, Journal
from dmasync.fakes.journal.entries import HEAD, NO_BUFFER, NO_FLAGS, TAIL
from dmasync.fakes.layers.beneath import buffer_of, fake_files
from dmasync.fakes.layers.injector import FaultInjector
from dmasync.fakes.uninterrupted import NOTHING, TICKS, completed, returns_uninterrupted, stamped

_SYNC: Final = uapi.DMA_BUF_IOCTL_SYNC
_FLAGS: Final = struct.Struct("=Q")  # struct dma_buf_sync
_STACK_DEPTH: Final = 24

_ERRNOS: Final = 1200  # EDQUOT on mips is the largest: 1133
_TAILS: Final = [stamped(TAIL.pack, code) for code in range(_ERRNOS)]
_INTERRUPTED: Final = stamped(TAIL.pack, INTERRUPTED)


class Recorder:
    """A layer around *inner* that writes a :class:`Journal`.

    A call that succeeded is recorded as such and its result returned, whatever signal arrives meanwhile; one
    that failed, also by an exception from a signal handler, is recorded as failed. With *stacks* each call's
    stack is taken as well, which a sanitizer's findings quote and which costs some microseconds a call.
    """

    _thread: Callable[[], int] = staticmethod(get_ident)
    """Who calls. Another's where this thread makes calls for other processes."""

    def __init__(self, inner: Backend, *, journal: Journal | None = None, stacks: bool = False) -> None:
        check_layer(inner, "inner")
        self.inner = inner
        self.journal = Journal() if journal is None else journal
        self.mappings: list[tuple[Call, weakref.ref[Any]]] = []
        """Each mmap that succeeded, with a weak reference to its mapping: see :meth:`open_mappings`."""
        self._stacks = stacks
        self._buffer_of = buffer_of(inner)
        self.ioctl = self._make_ioctl()
        _RECORDERS.add(self)

    def open_mappings(self) -> list[Call]:
        """The mmap calls whose mapping is neither closed nor collected."""
        alive = []
        for call, reference in self.mappings:
            mapping = reference()
            if mapping is not None and not getattr(mapping, "closed", False):
                alive.append(call)
        return alive

    def window_dropped(self, fd: int) -> None:
        """A window was open when its last reference went; the END before was made for that. dmasync says so."""
        buffer = self._buffer_of(fd)
        if buffer is not None:
            now = time.monotonic_ns()
            stack = self._take_stack() if self._stacks else 0
            events = self.journal.events
            events.append(Event("window-dropped", buffer, (), now, self._thread(), len(self.journal), stack, "", now))

    def _make_ioctl(self) -> Callable[[int, int, Any], Any]:
        inner_ioctl = self.inner.ioctl
        armed, untouched = self._shortcut()
        rows = self.journal.rows
        name_buffer = self._buffer_of
        files = fake_files(self.inner)
        plain = all(map(returns_uninterrupted, (inner_ioctl, untouched)))
        clock = time.monotonic_ns
        other = self._other_ioctl
        take_stack = self._take_stack if self._stacks else None
        thread = self._thread
        pack_head = HEAD.pack
        unpack_flags = _FLAGS.unpack_from
        success = _TAILS[0]

        def ioctl(fd: int, request: int, arg: Any = 0, /) -> Any:
            nonlocal rows
            if request != _SYNC:
                for result in completed(other, ((fd, request, arg),)):  # pragma: no branch - one call
                    return result
            try:
                (flags,) = unpack_flags(arg)
            except Exception:
                flags = NO_FLAGS
            try:
                if files is None:
                    buffer = name_buffer(fd)
                    if buffer is None:
                        buffer = NO_BUFFER
                else:
                    # As name_buffer does: every attempt asks, and a call more is a good part of its cost.
                    try:
                        buffer = files[fd].ino
                    except (KeyError, AttributeError):
                        buffer = NO_BUFFER
                stack = 0 if take_stack is None else take_stack()
                head = pack_head(clock(), buffer, flags, thread(), fd, stack)
            except Exception:
                if hasattr(fd, "fileno"):
                    for result in completed(ioctl, ((fd.fileno(), request, arg),)):  # pragma: no branch - one call
                        return result
                # No descriptor at all (too large, not an int): for the layer beneath to refuse.
                return inner_ioctl(fd, request, arg)
            try:
                through = inner_ioctl if armed else untouched
                if plain:
                    result = through(fd, request, arg)
                    for tail in success:  # pragma: no branch - endless
                        rows += head + tail
                        return result
                for result in completed(through, ((fd, request, arg),)):  # pragma: no branch - one call
                    for tail in success:  # pragma: no branch - endless
                        rows += head + tail
                        return result
            except OSError as error:
                # Subscripts and jumps forward only, until the row is there.
                try:
                    ending = _TAILS[error.errno]  # type: ignore[index]  # None is for the handler below
                except (LookupError, TypeError):
                    ending = _INTERRUPTED
                for tail in ending:  # pragma: no branch - endless
                    rows += head + tail
                    raise
            except BaseException:
                for tail in _INTERRUPTED:  # pragma: no branch - endless
                    rows += head + tail
                    raise

        return ioctl

    def _shortcut(self) -> tuple[Sequence[object], Callable[[int, int, Any], Any]]:
        """Something that is true while the layer beneath may touch an ioctl, and where those go that it does not.

        An injector without plans passes every call on, and costs as much as recording it.
        """
        if type(self.inner) is FaultInjector:
            return self.inner.armed, self.inner.inner.ioctl
        return (), self.inner.ioctl

    def _forked(self) -> None:
        # Windows and descriptors in the journal so far are the parent's.
        now = time.monotonic_ns()
        position = len(self.journal.rows) // ROW.size
        self.journal.events.append(Event("forked", 0, (), now, get_ident(), position, end_ns=now))

    def _take_stack(self) -> int:
        frame = sys._getframe(2)
        stack: list[tuple[CodeType, int]] = []
        while frame is not None and len(stack) < _STACK_DEPTH:
            stack.append((frame.f_code, frame.f_lasti))
            frame = frame.f_back  # type: ignore[assignment]
        return self.journal.keep_stack(tuple(stack))

    def _begun(self, method: str, arguments: tuple[Any, ...], fd: int | None = None) -> Call:
        return Call(
            method,
            arguments,
            time.monotonic_ns(),
            self._thread(),
            len(self.journal.rows) // ROW.size,
            None if fd is None else self._buffer_of(fd),
            self._take_stack() if self._stacks else 0,
        )

    def _through(
        self, call: Call, function: Callable[..., Any], arguments: tuple[Any, ...], copies: Iterator[Any]
    ) -> Any:
        calls = self.journal.calls
        try:
            for call.result in completed(function, (arguments,)):  # pragma: no branch - one call
                for call.after in copies:  # pragma: no branch - one copy, or endlessly none
                    for call.end_ns in TICKS:  # pragma: no branch - endless
                        call.errno = 0
                        calls += (call,)
                        return call.result
        except OSError as error:
            call.errno = error.errno
            for call.end_ns in TICKS:  # pragma: no branch - endless
                calls += (call,)
                raise
        except BaseException:
            for call.end_ns in TICKS:  # pragma: no branch - endless
                calls += (call,)
                raise

    def _other_ioctl(self, fd: int, request: int, arg: Any) -> Any:
        recorded = _recorded(arg)
        call = self._begun("ioctl", (fd, request, recorded), fd)
        copies = map(bytes, (arg,)) if isinstance(recorded, bytes) else NOTHING
        for result in completed(self._through, ((call, self.inner.ioctl, (fd, request, arg), copies),)):
            return result
        raise AssertionError  # pragma: no cover - map of one call yields it

    def open(self, path: str, flags: int, /) -> int:
        call = self._begun("open", (path, flags))
        for fd in completed(self._through, ((call, self.inner.open, call.arguments, NOTHING),)):
            return fd  # type: ignore[no-any-return]
        raise AssertionError  # pragma: no cover - map of one call yields it

    def close(self, fd: int, /) -> None:
        call = self._begun("close", (fd,), fd)
        for _ in completed(self._through, ((call, self.inner.close, call.arguments, NOTHING),)):
            return

    def dup(self, fd: int, /) -> int:
        call = self._begun("dup", (fd,), fd)
        for duplicate in completed(self._through, ((call, self.inner.dup, call.arguments, NOTHING),)):
            return duplicate  # type: ignore[no-any-return]
        raise AssertionError  # pragma: no cover - map of one call yields it

    def memfd_create(self, name: str, flags: int, /) -> int:
        call = self._begun("memfd_create", (name, flags))
        for fd in completed(self._through, ((call, self.inner.memfd_create, call.arguments, NOTHING),)):
            return fd  # type: ignore[no-any-return]
        raise AssertionError  # pragma: no cover - map of one call yields it

    def ftruncate(self, fd: int, length: int, /) -> None:
        call = self._begun("ftruncate", (fd, length), fd)
        for _ in completed(self._through, ((call, self.inner.ftruncate, call.arguments, NOTHING),)):
            return

    def add_seals(self, fd: int, seals: int, /) -> None:
        call = self._begun("add_seals", (fd, seals), fd)
        for _ in completed(self._through, ((call, self.inner.add_seals, call.arguments, NOTHING),)):
            return

    def get_seals(self, fd: int, /) -> int:
        call = self._begun("get_seals", (fd,), fd)
        for seals in completed(self._through, ((call, self.inner.get_seals, call.arguments, NOTHING),)):
            return seals  # type: ignore[no-any-return]
        raise AssertionError  # pragma: no cover - map of one call yields it

    def mmap(self, fd: int, length: int, prot: int, flags: int, offset: int = 0, /) -> Mapping:
        call = self._begun("mmap", (fd, length, prot, flags, offset), fd)
        calls = self.journal.calls
        mappings = self.mappings
        try:
            for mapping in completed(self.inner.mmap, (call.arguments,)):  # pragma: no branch - one call
                for call.end_ns in TICKS:  # pragma: no branch - endless
                    call.errno = 0
                    calls += (call,)
                    # In a handler's reach again only behind the return: a mapping that cannot be referred to
                    # weakly is not watched.
                    try:
                        for reference in map(weakref.ref, (mapping,)):  # pragma: no branch - one call
                            mappings += ((call, reference),)
                            return mapping
                    except TypeError:
                        return mapping
        except OSError as error:
            call.errno = error.errno
            for call.end_ns in TICKS:  # pragma: no branch - endless
                calls += (call,)
                raise
        except BaseException:
            for call.end_ns in TICKS:  # pragma: no branch - endless
                calls += (call,)
                raise
        raise AssertionError  # pragma: no cover - starmap of one call yields it

    def lseek(self, fd: int, offset: int, whence: int, /) -> int:
        call = self._begun("lseek", (fd, offset, whence), fd)
        for position in completed(self._through, ((call, self.inner.lseek, call.arguments, NOTHING),)):
            return position  # type: ignore[no-any-return]
        raise AssertionError  # pragma: no cover - map of one call yields it

    def poll(self, fd: int, events: int, timeout_ms: int | None, /) -> int:
        call = self._begun("poll", (fd, events, timeout_ms), fd)
        for revents in completed(self._through, ((call, self.inner.poll, call.arguments, NOTHING),)):
            return revents  # type: ignore[no-any-return]
        raise AssertionError  # pragma: no cover - map of one call yields it


def _recorded(arg: Any) -> int | bytes | str:
    if isinstance(arg, int):
        return arg
    try:
        return bytes(memoryview(arg))
    except TypeError:
        return repr(arg)


_RECORDERS: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _mark_fork() -> None:
    for recorder in list(_RECORDERS):
        recorder._forked()


os.register_at_fork(after_in_child=_mark_fork)
