"""What was opened and mapped, and is there still at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from dmasync.fakes.journal import Call, Journal
from dmasync.fakes.journal.words import request_name
from dmasync.fakes.sanitizer.finding import KEPT_VIEW, Finding, Kind, Trace
from dmasync.fakes.sanitizer.frames import is_machinery

Tracer = Callable[[str, Call], Trace]
"""Makes the trace of a call, behind words for it."""


def of_descriptors(journal: Journal, opened: Mapping[int, Call], trace: Tracer) -> list[Finding]:
    """A finding for each descriptor in *opened*, with the call that made it."""
    found = []
    for fd, call in opened.items():
        number = journal.numbers.of_new(fd, call.end_ns)
        found.append(
            Finding(
                "leaked-fd",
                call.buffer if call.method == "dup" else _buffer_behind(journal, fd),
                None,
                f"fd {number} from {_source(call)} was never closed",
                (trace(f"{_source(call)} gave fd {number}", call),),
            )
        )
    return found


def of_mappings(journal: Journal, opened: Iterable[int], calls: Iterable[Call], trace: Tracer) -> list[Finding]:
    """A finding for each mmap in *calls* of a dma-buf; *opened* are the descriptors that are open still."""
    open_buffers = {_buffer_behind(journal, fd) for fd in opened}
    found = []
    for call in calls:
        if call.buffer is None:
            continue
        why, told = _why_mapped(journal.stack(call.stack), call.buffer in open_buffers)
        length, offset = call.arguments[1], call.arguments[4]
        what = f"a mapping of {length} bytes {why}"
        found.append(
            Finding("leaked-mapping", call.buffer, None, what, (trace("mmap", call),), ((offset, length),), told=told)
        )
    return found


def _why_mapped(stack: tuple[tuple[str, int, str], ...], is_open: bool) -> tuple[str, Kind | None]:
    if is_open:
        return "was never closed", None
    if any(function == "_map_once" and is_machinery(file) for file, _, function in stack):
        return "outlives its buffer: an array, a slice or a cast of a window's view is still alive", KEPT_VIEW
    if stack:
        return "was never closed, although its buffer was", None
    return (
        "was never closed, although its buffer was: it is what DmaBuf.map() gave, or an array, a slice or a cast of a"
        " window's view is still alive",
        None,
    )


def _buffer_behind(journal: Journal, fd: int) -> int | None:
    for call in reversed(journal.calls):
        if call.buffer is not None and call.arguments[0] == fd:
            return call.buffer
    return next((entry.buffer for entry in journal.attempts[-1000:] if entry.fd == fd), None)


def _source(call: Call) -> str:
    if call.method == "open":
        return f"open({call.arguments[0]!r})"
    if call.method == "memfd_create":
        return f"memfd_create({call.arguments[0]!r})"
    return request_name(call.arguments[1]) if call.method == "ioctl" else call.method
