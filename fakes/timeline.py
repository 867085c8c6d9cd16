"""Pictures of a journal: text, Chrome/Perfetto trace JSON, an SVG lane chart. Standard library only."""

from __future__ import annotations

import errno as _errno
from collections.abc import Iterator
from html import escape
from typing import Any, NamedTuple

from dmasync import Step
from dmasync.fakes.faults import IOCTLS
from dmasync.fakes.journal import INTERRUPTED, Call, Entry, Event, Journal, Transition, access_name

_IOCTL_NAMES = {number: name for name, number in reversed(IOCTLS.items())}


def errno_name(code: int | None) -> str:
    """``EINTR`` for its number; what stands for an exception that was no OSError is ``interrupted``."""
    if code is None or code == INTERRUPTED:
        return "interrupted"
    return _errno.errorcode.get(code, f"errno {code}")


def call_text(call: Call) -> str:
    """The call as a person would write it."""
    arguments = list(call.arguments)
    if call.method == "ioctl":
        request = arguments[1]
        parts = [str(arguments[0]), _IOCTL_NAMES.get(request, f"{request:#x}")]
    else:
        parts = [repr(argument) if isinstance(argument, str) else str(argument) for argument in arguments]
    answer = "" if call.result is None else f" = {call.result}"
    if not call.succeeded:
        answer = f" = {errno_name(call.errno)}"
    elif call.method == "ioctl" and call.new_fd is not None:
        answer = f" = fd {call.new_fd}"
    return f"{call.method}({', '.join(parts)}){answer}"


class _Line(NamedTuple):
    first: Entry
    times: int


def _folded(entries: Iterator[Entry]) -> Iterator[_Line]:
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
            yield _Line(run, count)
            run = None
        if isinstance(entry, Transition) and entry.errno:
            run, count = entry, 1
        else:
            yield _Line(entry, 1)
    if run is not None:
        yield _Line(run, count)


def text(journal: Journal, last: int | None = None) -> str:
    """One line an entry: time since the first in microseconds, what was called, what came back."""
    lines = list(_folded(journal.entries()))
    if not lines:
        return "(nothing was recorded)"
    begin = min(line.first.time_ns for line in lines)
    threads: dict[int, int] = {}
    for line in lines:
        threads.setdefault(line.first.thread, len(threads) + 1)
    dropped = 0 if last is None else max(0, len(lines) - last)
    out = [f"... {dropped} earlier lines"] if dropped else []
    depth: dict[int | None, int] = {}
    for number, line in enumerate(lines):
        entry = line.first
        who = f" [thread {threads[entry.thread]}]" if len(threads) > 1 else ""
        words = _words(entry, line.times, depth)
        if number >= dropped:
            out.append(f"{(entry.time_ns - begin) / 1000:12.1f} us{who}  {words}")
    return "\n".join(out)


def _words(entry: Entry, count: int, depth: dict[int | None, int]) -> str:
    if isinstance(entry, Call):
        named = "" if entry.buffer is None else f"  (buffer {entry.buffer})"
        return f"        {call_text(entry)}{named}"
    if isinstance(entry, Event) and entry.kind == "forked":
        return "        the process forked: what follows is the child's"
    if isinstance(entry, Event):
        spans = ", ".join(f"[{start}, {start + length})" for start, length in entry.ranges[:4])
        more = f" and {len(entry.ranges) - 4} more" if len(entry.ranges) > 4 else ""
        return f"        {entry.kind} of buffer {entry.buffer}: bytes {spans}{more} {entry.note}".rstrip()
    what = f"{entry.step.name:5} {access_name(entry.access):10} buffer {entry.buffer} fd {entry.fd}"
    if entry.flags is None:
        what = f"SYNC  (argument unread)  buffer {entry.buffer} fd {entry.fd}"
    if entry.errno:
        times = "" if count == 1 else f" x {count}"
        return f"#{entry.sequence:<6} {what}: {errno_name(entry.errno)}{times}"
    open_ = depth.get(entry.buffer, 0)
    if entry.step is Step.END:
        open_ -= 1
    mark = "|" * max(0, open_)
    depth[entry.buffer] = open_ + 1 if entry.step is Step.START else open_
    return f"#{entry.sequence:<6} {mark}{what}"


class Window(NamedTuple):
    """From a START to its END, or to the journal's last moment when it was never ended."""

    start: Transition
    end: Transition | None


def windows(journal: Journal) -> tuple[list[Window], list[Transition]]:
    """The windows in the order of their STARTs, and the ENDs that had none: paired as ``open_windows``
    pairs.
    """
    open_: dict[int | None, list[int]] = {}
    found: list[Window] = []
    stray: list[Transition] = []
    for entry in journal.attempts:
        if entry.errno:
            continue
        mine = open_.setdefault(entry.buffer, [])
        if entry.step is Step.START:
            mine.append(len(found))
            found.append(Window(entry, None))
            continue
        match = next((place for place in reversed(mine) if found[place].start.access == entry.access), None)
        if match is None:
            match = mine[-1] if mine else None
        if match is None:
            stray.append(entry)
        else:
            mine.remove(match)
            found[match] = Window(found[match].start, entry)
    return found, stray


def _of_buffers(journal: Journal) -> list[Event]:
    return [event for event in journal.events if event.kind != "forked"]


def _moments(journal: Journal) -> tuple[int, int]:
    times = [moment for entry in journal.entries() for moment in (entry.time_ns, entry.end_ns) if moment]
    return (min(times), max(times)) if times else (0, 0)


def trace(journal: Journal) -> dict[str, Any]:
    """Trace Event Format: open it in Perfetto or chrome://tracing. Times are in microseconds, as the format
    wants.

    One process a buffer, in it one lane a thread: windows are complete events (``ph`` X), failed attempts
    instants (``ph`` i), device DMA a lane of its own.
    """
    begin, end = _moments(journal)
    events: list[dict[str, Any]] = []
    names: dict[tuple[int, int], str] = {}

    def lane(buffer: int | None, thread: int, name: str) -> dict[str, int]:
        process = 0 if buffer is None else buffer
        names.setdefault((process, thread), name)
        return {"pid": process, "tid": thread}

    def at(moment: int) -> float:
        return (moment - begin) / 1000

    found, stray = windows(journal)
    for start, ended in found:
        last = end if ended is None else ended.time_ns
        events.append(
            {
                "name": access_name(start.access) if ended else f"{access_name(start.access)}, never ended",
                "cat": "window",
                "ph": "X",
                "ts": at(start.end_ns),
                "dur": max(0.0, at(last) - at(start.end_ns)),
                "args": {"start": start.sequence, "end": ended.sequence if ended else None, "fd": start.fd},
                **lane(start.buffer, start.thread, f"CPU, thread {start.thread}"),
            }
        )
    for entry in journal.attempts:
        lanes = lane(entry.buffer, entry.thread, f"CPU, thread {entry.thread}")
        label = f"{entry.step.name} {errno_name(entry.errno)}" if entry.errno else entry.step.name
        args = {"sequence": entry.sequence, "errno": errno_name(entry.errno) if entry.errno else None}
        shape: dict[str, Any] = {"ph": "i", "s": "t", "ts": at(entry.time_ns)}
        if not entry.errno:
            shape = {"ph": "X", "ts": at(entry.time_ns), "dur": at(entry.end_ns) - at(entry.time_ns)}
        events.append({"name": label, "cat": "attempt", "args": args, **shape, **lanes})
    for entry in stray:
        lanes = lane(entry.buffer, entry.thread, f"CPU, thread {entry.thread}")
        events.append(
            {
                "name": "END without START",
                "cat": "finding",
                "ph": "i",
                "s": "p",
                "ts": at(entry.time_ns),
                **lanes,
            }
        )
    for event in _of_buffers(journal):
        device = event.kind.startswith("device")
        lanes = lane(event.buffer, -1 if device else event.thread, "device" if device else "CPU")
        events.append(
            {
                "name": event.kind,
                "cat": "device" if device else "memory",
                "ph": "X",
                "ts": at(event.time_ns),
                "dur": max(0.0, at(event.end_ns or event.time_ns) - at(event.time_ns)),
                "args": {"bytes": [list(span) for span in event.ranges[:64]], "note": event.note},
                **lanes,
            }
        )
    for call in journal.calls:
        lanes = lane(call.buffer, call.thread, f"CPU, thread {call.thread}")
        events.append(
            {
                "name": call_text(call),
                "cat": "call",
                "ph": "X",
                "ts": at(call.time_ns),
                "dur": max(0.0, at(call.end_ns) - at(call.time_ns)),
                **lanes,
            }
        )
    events.sort(key=lambda event: float(event["ts"]))
    for (process, thread), name in sorted(names.items()):
        events.append({"name": "thread_name", "ph": "M", "pid": process, "tid": thread, "args": {"name": name}})
    for process in sorted({process for process, _ in names}):
        label = f"buffer {process}" if process else "no buffer"
        events.append({"name": "process_name", "ph": "M", "pid": process, "tid": 0, "args": {"name": label}})
    return {"traceEvents": events, "displayTimeUnit": "ns"}


_COLOURS = {"READ": "#3b76af", "WRITE": "#c8603a", "READ_WRITE": "#7a5195", "none": "#888888"}
_MARKS_DRAWN = 2000  # a chart of a million marks opens nowhere: runs of refusals are one mark


def svg(journal: Journal, width: int = 1000) -> str:
    """A lane chart as an SVG document: windows as bars, failed attempts as ticks, device DMA below each
    lane.
    """
    begin, end = _moments(journal)
    span = max(1, end - begin)
    left, lane_height = 110, 46
    buffers = sorted(
        {entry.buffer for entry in journal.attempts if entry.buffer is not None}
        | {event.buffer for event in _of_buffers(journal)}
    )
    tops = {buffer: 40 + lane_height * place for place, buffer in enumerate(buffers)}
    height = 40 + lane_height * len(buffers) + 30

    def x(moment: int) -> float:
        return left + (width - left - 20) * (moment - begin) / span

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    place = left
    for name, colour in _COLOURS.items():
        if name != "none":
            parts.append(f'<rect x="{place}" y="10" width="14" height="12" fill="{colour}"/>')
            parts.append(f'<text x="{place + 18}" y="20">{name} window</text>')
            place += 150
    parts.append(f'<rect x="{place}" y="10" width="2" height="12" fill="#d00000"/>')
    parts.append(f'<text x="{place + 8}" y="20">refused attempt</text>')
    parts.append(f'<rect x="{place + 120}" y="13" width="14" height="6" fill="#2f8f4e"/>')
    parts.append(f'<text x="{place + 138}" y="20">device DMA</text>')
    for buffer, top in tops.items():
        parts.append(f'<text x="8" y="{top + 18}">buffer {buffer}</text>')
        parts.append(f'<line x1="{left}" x2="{width - 20}" y1="{top + 36}" y2="{top + 36}" stroke="#dddddd"/>')
    for start, ended in windows(journal)[0]:
        if start.buffer is None:
            continue
        right = x(ended.time_ns if ended else end)
        top = tops[start.buffer]
        colour = _COLOURS[access_name(start.access)]
        dash = "" if ended else ' stroke="#d00000" stroke-width="2" stroke-dasharray="4"'
        words = f"{access_name(start.access)} #{start.sequence}" + (
            f" to #{ended.sequence}" if ended else ", never ended"
        )
        parts.append(
            f'<rect x="{x(start.end_ns):.2f}" y="{top + 4}" width="{max(1.0, right - x(start.end_ns)):.2f}" '
            f'height="18" fill="{colour}" fill-opacity="0.8"{dash}><title>{escape(words)}</title></rect>'
        )
    drawn = 0
    for line in _folded(iter(journal.attempts)):
        entry = line.first
        if isinstance(entry, Transition) and entry.errno and entry.buffer is not None and drawn < _MARKS_DRAWN:
            drawn += 1
            words = f"{entry.step.name} {errno_name(entry.errno)} x {line.times}"
            parts.append(
                f'<rect x="{x(entry.time_ns):.2f}" y="{tops[entry.buffer] + 1}" width="1.5" height="24" '
                f'fill="#d00000"><title>{escape(words)}</title></rect>'
            )
    for event in _of_buffers(journal):
        words = f"{event.kind} {event.note}"
        colour = "#2f8f4e" if event.kind.startswith("device") else "#b8860b"
        parts.append(
            f'<rect x="{x(event.time_ns):.2f}" y="{tops[event.buffer] + 27}" '
            f'width="{max(1.5, x(event.end_ns or event.time_ns) - x(event.time_ns)):.2f}" height="7" '
            f'fill="{colour}"><title>{escape(words)}</title></rect>'
        )
    parts.append(f'<text x="{left}" y="{height - 10}">0 us</text>')
    parts.append(f'<text x="{width - 20}" y="{height - 10}" text-anchor="end">{span / 1000:.1f} us</text></svg>')
    return "\n".join(parts) + "\n"


__all__ = ["Window", "call_text", "errno_name", "svg", "text", "trace", "windows"]
