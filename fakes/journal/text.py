"""A log as text: a line for each entry."""

from __future__ import annotations

from dmasync import Step
from dmasync.fakes.journal.entries import Call, Entry, Event
from dmasync.fakes.journal.log import Log
from dmasync.fakes.journal.words import access_name, buffer_names, buffer_text, call_text, errno_name, folded


def text(log: Log, last: int | None = None) -> str:
    """One line an entry: time since the first in microseconds, what was called, what came back."""
    lines = list(folded(log.entries()))
    if not lines:
        return "(nothing was recorded)"
    begin = min(line.first.time_ns for line in lines)
    threads: dict[int, int] = {}
    for line in lines:
        threads.setdefault(line.first.thread, len(threads) + 1)
    dropped = 0 if last is None else max(0, len(lines) - last)
    out = [f"... {dropped} earlier lines"] if dropped else []
    depth: dict[int | None, int] = {}
    names = buffer_names(log)
    for number, line in enumerate(lines):
        entry = line.first
        who = f" [thread {threads[entry.thread]}]" if len(threads) > 1 else ""
        words = _words(entry, line.times, depth, log, names)
        if number >= dropped:
            out.append(f"{(entry.time_ns - begin) / 1000:12.1f} us{who}  {words}")
    return "\n".join(out)


def _words(entry: Entry, count: int, depth: dict[int | None, int], log: Log, names: dict[int, str]) -> str:
    buffer = "" if isinstance(entry, Event) and entry.kind == "forked" else buffer_text(entry.buffer, names)
    if isinstance(entry, Call):
        named = "" if entry.buffer is None else f"  (buffer {buffer})"
        return f"        {call_text(entry, log.numbers)}{named}"
    if isinstance(entry, Event) and entry.kind == "forked":
        return "        the process forked: what follows is the child's"
    if isinstance(entry, Event) and not entry.ranges:
        return f"        {entry.kind} of buffer {buffer} {entry.note}".rstrip()
    if isinstance(entry, Event):
        spans = ", ".join(f"[{start}, {start + length})" for start, length in entry.ranges[:4])
        more = f" and {len(entry.ranges) - 4} more" if len(entry.ranges) > 4 else ""
        return f"        {entry.kind} of buffer {buffer}: bytes {spans}{more} {entry.note}".rstrip()
    fd = log.numbers.of(entry.fd, entry.time_ns)
    what = f"{entry.step.name:5} {access_name(entry.access):10} buffer {buffer} fd {fd}"
    if entry.flags is None:
        what = f"SYNC  (argument unread)  buffer {buffer} fd {fd}"
    if entry.errno:
        times = "" if count == 1 else f" x {count}"
        return f"#{entry.sequence:<6} {what}: {errno_name(entry.errno)}{times}"
    open_ = depth.get(entry.buffer, 0)
    if entry.step is Step.END:
        open_ -= 1
    mark = "|" * max(0, open_)
    depth[entry.buffer] = open_ + 1 if entry.step is Step.START else open_
    return f"#{entry.sequence:<6} {mark}{what}"
