"""Words that every format uses: names of errnos, accesses and calls, and runs of equal refusals."""

from __future__ import annotations

import errno as _errno
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from dmasync import SyncType, uapi
from dmasync.fakes.ioctls import IOCTLS
from dmasync.fakes.journal.entries import INTERRUPTED, Call, Entry, Event, Transition
from dmasync.fakes.journal.flags import arguments_text, result_text
from dmasync.fakes.journal.log import Log, Numbers

_SET_NAME: Final = (uapi.DMA_BUF_SET_NAME_A, uapi.DMA_BUF_SET_NAME_B)
_IOCTL_NAMES: Final = {number: name for name, number in reversed(IOCTLS.items())}


def access_name(access: SyncType) -> str:
    """``READ``, ``WRITE``, ``READ_WRITE`` or ``none``: a Flag's own name differs between Python versions."""
    return {1: "READ", 2: "WRITE", 3: "READ_WRITE"}.get(access.value, "none")


def errno_name(code: int | None) -> str:
    """``EINTR`` for its number; what stands for an exception that was no OSError is ``interrupted``."""
    if code is None or code == INTERRUPTED:
        return "interrupted"
    return _errno.errorcode.get(code, f"errno {code}")


def request_name(request: int) -> str:
    """The kernel's name of an ioctl, else its number."""
    return _IOCTL_NAMES.get(request, f"{request:#x}")


def call_text(call: Call, numbers: Numbers) -> str:
    """The call as a person would write it: flags by their names, descriptors by the program's *numbers*."""
    arguments = call.arguments
    if isinstance(arguments[0], int):  # all but open and memfd_create begin with a descriptor
        arguments = (numbers.of(arguments[0], call.time_ns), *arguments[1:])
    if call.method == "ioctl":
        parts = [str(arguments[0]), request_name(arguments[1])]
    else:
        parts = arguments_text(call.method, arguments)
    made = call.new_fd
    answer = "" if call.result is None else f" = {result_text(call.method, call.result)}"
    if not call.succeeded:
        answer = f" = {errno_name(call.errno)}"
    elif made is not None:
        answer = f" = {'fd ' if call.method == 'ioctl' else ''}{numbers.of_new(made, call.end_ns)}"
    return f"{call.method}({', '.join(parts)}){answer}"


def buffer_names(log: Log) -> dict[int, str]:
    """What DMA_BUF_SET_NAME called each buffer last, where it was called."""
    names: dict[int, str] = {}
    for call in log.calls:
        if call.method != "ioctl" or not call.succeeded or call.buffer is None or call.arguments[1] not in _SET_NAME:
            continue
        if isinstance(call.arguments[2], bytes):  # else an address, and the text was there
            text = call.arguments[2].partition(b"\0")[0].decode("utf-8", "replace")
            names[call.buffer] = "".join(letter if letter.isprintable() else "?" for letter in text)
    return names


def buffer_text(buffer: int | None, names: Mapping[int, str]) -> str:
    """``1``, or ``1 'frame'`` for one that has a name."""
    return f"{buffer} {names[buffer]!r}" if buffer is not None and names.get(buffer) else str(buffer)


class Line(NamedTuple):
    """An entry, and how often it came in a row."""

    first: Entry
    times: int


def folded(entries: Iterator[Entry]) -> Iterator[Line]:
    """Runs of equal refusals as one line: a storm of a million must not be a million lines."""
    run: Transition | None = None
    count = 0
    for entry in entries:
        if (
            run is not None
            and isinstance(entry, Transition)
            and entry.errno
            and (entry.errno, entry.flags, entry.fd, entry.thread) == (run.errno, run.flags, run.fd, run.thread)
        ):
            count += 1
            continue
        if run is not None:
            yield Line(run, count)
            run = None
        if isinstance(entry, Transition) and entry.errno:
            run, count = entry, 1
        else:
            yield Line(entry, 1)
    if run is not None:
        yield Line(run, count)


def of_buffers(log: Log) -> list[Event]:
    return [event for event in log.events if event.kind != "forked"]


def moments(log: Log) -> tuple[int, int]:
    times = [moment for entry in log.entries() for moment in (entry.time_ns, entry.end_ns) if moment]
    return (min(times), max(times)) if times else (0, 0)
