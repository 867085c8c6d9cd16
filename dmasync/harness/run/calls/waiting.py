"""poll and select of dma-bufs: the host's files that stand for them are always ready, a dma-buf with fences is not.

Stopped where a device may put fences on a buffer; sync files need none of it, as theirs are pipes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from dmasync.harness.run.answers import Answer, Said
from dmasync.harness.run.program import memory
from dmasync.harness.run.seccomp.listener import Notification
from dmasync.harness.run.supervisor import Supervisor

if TYPE_CHECKING:
    from dmasync.fakes.foreign.systems import FakeSystem

_POLLFD: Final = struct.Struct("=ihh")
_TIMESPEC: Final = struct.Struct("=qq")
_LOOK_EVERY_MS: Final = 2
_MOST: Final = 4096
_WORD: Final = 8
_ALWAYS: Final = select.POLLERR | select.POLLHUP | select.POLLNVAL
_SETS: Final = (
    (select.POLLIN | select.POLLHUP | select.POLLERR, select.POLLIN | select.POLLRDNORM | select.POLLRDBAND),
    (select.POLLOUT | select.POLLERR, select.POLLOUT | select.POLLWRNORM | select.POLLWRBAND),
    (select.POLLPRI, select.POLLPRI),
)
"""For select()'s read, write and exception sets: the events that count as ready, and those that are asked for."""

Wanted = list[tuple[int, int]]
"""(number, events)."""


def _poll(run: Supervisor, call: Notification) -> Answer:
    timeout = call.arguments[2] & 0xFFFF_FFFF
    return _poll_list(run, call, None if timeout >> 31 else timeout / 1000, mask=0)


def _ppoll(run: Supervisor, call: Notification) -> Answer:
    return _poll_list(run, call, _seconds(call, call.arguments[2], 1_000_000_000), mask=call.arguments[3])


def _seconds(call: Notification, address: int, parts: int) -> float | None:
    """A timespec or timeval of the program; None where there is none: without end."""
    if not address:
        return None
    seconds, rest = _TIMESPEC.unpack(memory.read(call.thread, address, _TIMESPEC.size))
    if seconds < 0 or not 0 <= rest < parts:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return float(seconds + rest / parts)


def _poll_list(run: Supervisor, call: Notification, timeout: float | None, mask: int) -> Answer:
    address, count = call.arguments[0], call.arguments[1] & 0xFFFF_FFFF
    if count > _MOST:
        return Said.CARRY_ON
    data = memory.peek(call.thread, address, count * _POLLFD.size)
    if len(data) < count * _POLLFD.size:
        return Said.CARRY_ON
    wanted = [(number, events) for number, events, _ in _POLLFD.iter_unpack(data)]
    ready = _wait(run, call, wanted, timeout, mask)
    if ready is None:
        return Said.CARRY_ON
    packed = b"".join(
        _POLLFD.pack(number, events, revents) for (number, events), revents in zip(wanted, ready, strict=True)
    )
    memory.write(call.thread, address, packed)
    return sum(1 for revents in ready if revents)


def _select(run: Supervisor, call: Notification) -> Answer:
    return _select_sets(run, call, _seconds(call, call.arguments[4], 1_000_000), mask=0)


def _pselect(run: Supervisor, call: Notification) -> Answer:
    mask = call.arguments[5]
    if mask:
        mask = int.from_bytes(memory.read(call.thread, mask, _WORD), "little")
    return _select_sets(run, call, _seconds(call, call.arguments[4], 1_000_000_000), mask=mask)


def _select_sets(run: Supervisor, call: Notification, timeout: float | None, mask: int) -> Answer:
    count = min(call.arguments[0] & 0xFFFF_FFFF, _MOST)
    length = -(-count // (8 * _WORD)) * _WORD
    sets = [int.from_bytes(memory.read(call.thread, at, length), "little") if at else 0 for at in call.arguments[1:4]]
    wanted: Wanted = []
    for number in range(count):
        events = 0
        for bits, (_, asked) in zip(sets, _SETS, strict=True):
            events |= asked if bits >> number & 1 else 0
        if events:
            wanted.append((number, events))
    ready = _wait(run, call, wanted, timeout, mask)
    if ready is None:
        return Said.CARRY_ON
    if any(revents & select.POLLNVAL for revents in ready):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    total = 0
    for at, bits, (counts, _) in zip(call.arguments[1:4], sets, _SETS, strict=True):
        found = 0
        for (number, _), revents in zip(wanted, ready, strict=True):
            if bits >> number & 1 and revents & counts:
                found |= 1 << number
                total += 1
        if at:
            memory.write(call.thread, at, found.to_bytes(length, "little"))
    return total


def _wait(run: Supervisor, call: Notification, wanted: Wanted, timeout: float | None, mask: int) -> list[int] | None:
    """The events of each, waited for as poll() does; None where no dma-buf is among them."""
    system: FakeSystem = run.system  # type: ignore[assignment]
    asks: list[Callable[[], int]] = []
    has_buffer = False
    with contextlib.ExitStack() as borrowed:
        for number, events in wanted:
            known = run.find(call, number) if number >= 0 else None
            if known is not None and known.file.kind in ("dmabuf", "place"):
                has_buffer = True
                asks.append(lambda fd=known.fd, events=events: system.kernel.poll(fd, events, 0))  # type: ignore[misc]
            else:
                asks.append(_of_host(run, call, number, events, borrowed))
        if not has_buffer:
            return None
        end = None if timeout is None else time.monotonic() + timeout
        who = run.caller()
        while True:
            ready = [ask() for ask in asks]
            left = None if end is None else end - time.monotonic()
            if any(ready) or (left is not None and left <= 0):
                return ready
            if mask:
                from dmasync.fakes.kernel import UnmodelledCallError

                raise UnmodelledCallError("waiting for a dma-buf with a signal mask")
            if who.interrupted():
                who.was_interrupted = False  # never made again: EINTR, whatever the handler's flags say
                raise OSError(errno.EINTR, os.strerror(errno.EINTR))
            time.sleep(_LOOK_EVERY_MS / 1000 if left is None else min(_LOOK_EVERY_MS / 1000, left))


def _of_host(
    run: Supervisor, call: Notification, number: int, events: int, borrowed: contextlib.ExitStack
) -> Callable[[], int]:
    """Asks the host about a file of the program's own."""
    if number < 0:
        return lambda: 0
    try:
        mine = run.processes.take(call.process, number, call.thread)
    except OSError:
        return lambda: select.POLLNVAL
    if mine is None:
        from dmasync.fakes.kernel import UnmodelledCallError

        raise UnmodelledCallError("waiting for a dma-buf and other files, where the host lets nobody look at those")
    borrowed.callback(os.close, mine)
    poller = select.poll()
    poller.register(mine, events)

    def ask() -> int:
        found = poller.poll(0)
        return found[0][1] & (events | _ALWAYS) if found else 0

    return ask


HANDLERS: Final = {"poll": _poll, "ppoll": _ppoll, "select": _select, "pselect6": _pselect}
