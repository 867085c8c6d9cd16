"""A log as Trace Event Format, for Perfetto or chrome://tracing."""

from __future__ import annotations

from typing import Any

from dmasync.fakes.journal.log import Log
from dmasync.fakes.journal.words import (
    access_name,
    buffer_names,
    buffer_text,
    call_text,
    errno_name,
    moments,
    of_buffers,
)


def trace(log: Log) -> dict[str, Any]:
    """Trace Event Format: open it in Perfetto or chrome://tracing. Times are in microseconds, as the format
    wants.

    One process a buffer, in it one track a thread: windows are complete events (``ph`` X), failed attempts
    instants (``ph`` i), device DMA a track of its own.
    """
    begin, end = moments(log)
    events: list[dict[str, Any]] = []
    names: dict[tuple[int, int], str] = {}

    def track(buffer: int | None, thread: int, name: str) -> dict[str, int]:
        process = 0 if buffer is None else buffer
        names.setdefault((process, thread), name)
        return {"pid": process, "tid": thread}

    def at(moment: int) -> float:
        return (moment - begin) / 1000

    found, stray = log.pairs
    for start, ended in found:
        last = end if ended is None else ended.time_ns
        events.append(
            {
                "name": access_name(start.access) if ended else f"{access_name(start.access)}, never ended",
                "cat": "window",
                "ph": "X",
                "ts": at(start.end_ns),
                "dur": max(0.0, at(last) - at(start.end_ns)),
                "args": {
                    "start": start.sequence,
                    "end": ended.sequence if ended else None,
                    "fd": log.numbers.of(start.fd, start.time_ns),
                },
                **track(start.buffer, start.thread, f"CPU, thread {start.thread}"),
            }
        )
    for entry in log.attempts:
        where = track(entry.buffer, entry.thread, f"CPU, thread {entry.thread}")
        label = f"{entry.step.name} {errno_name(entry.errno)}" if entry.errno else entry.step.name
        args = {"sequence": entry.sequence, "errno": errno_name(entry.errno) if entry.errno else None}
        shape: dict[str, Any] = {"ph": "i", "s": "t", "ts": at(entry.time_ns)}
        if not entry.errno:
            shape = {"ph": "X", "ts": at(entry.time_ns), "dur": at(entry.end_ns) - at(entry.time_ns)}
        events.append({"name": label, "cat": "attempt", "args": args, **shape, **where})
    for entry in stray:
        where = track(entry.buffer, entry.thread, f"CPU, thread {entry.thread}")
        events.append(
            {
                "name": "END without START",
                "cat": "finding",
                "ph": "i",
                "s": "p",
                "ts": at(entry.time_ns),
                **where,
            }
        )
    for event in of_buffers(log):
        device = event.kind.startswith("device")
        where = track(event.buffer, -1 if device else event.thread, "device" if device else "CPU")
        events.append(
            {
                "name": event.kind,
                "cat": "device" if device else "memory",
                "ph": "X",
                "ts": at(event.time_ns),
                "dur": max(0.0, at(event.end_ns or event.time_ns) - at(event.time_ns)),
                "args": {"bytes": [list(span) for span in event.ranges[:64]], "note": event.note},
                **where,
            }
        )
    for call in log.calls:
        where = track(call.buffer, call.thread, f"CPU, thread {call.thread}")
        events.append(
            {
                "name": call_text(call, log.numbers),
                "cat": "call",
                "ph": "X",
                "ts": at(call.time_ns),
                "dur": max(0.0, at(call.end_ns) - at(call.time_ns)),
                **where,
            }
        )
    events.sort(key=lambda event: float(event["ts"]))
    for (process, thread), name in sorted(names.items()):
        events.append({"name": "thread_name", "ph": "M", "pid": process, "tid": thread, "args": {"name": name}})
    named = buffer_names(log)
    for process in sorted({process for process, _ in names}):
        label = f"buffer {buffer_text(process, named)}" if process else "no buffer"
        events.append({"name": "process_name", "ph": "M", "pid": process, "tid": 0, "args": {"name": label}})
    return {"traceEvents": events, "displayTimeUnit": "ns"}
