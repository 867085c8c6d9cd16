"""A log as a picture: an SVG document that stands by itself."""

from __future__ import annotations

from html import escape

from dmasync.fakes.journal.entries import Transition
from dmasync.fakes.journal.log import Log
from dmasync.fakes.journal.words import access_name, buffer_names, errno_name, folded, moments, of_buffers

_COLOURS = {"READ": "#3b76af", "WRITE": "#c8603a", "READ_WRITE": "#7a5195", "none": "#888888"}
_NEVER_ENDED = ' stroke="#d00000" stroke-width="2" stroke-dasharray="4"'
_TICKS = 6
_MARKS_DRAWN = 2000  # a chart of a million marks opens nowhere: runs of refusals are one mark


def svg(log: Log, width: int = 1000) -> str:
    """A chart as an SVG document: a row for each buffer, windows are bars, refusals ticks, device DMA below."""
    begin, end = moments(log)
    span = max(1, end - begin)
    names = buffer_names(log)
    left, row_height = 110 + 6 * max(0, *(len(name) - 14 for name in names.values()), 0), 46
    buffers = sorted(
        {entry.buffer for entry in log.attempts if entry.buffer is not None}
        | {event.buffer for event in of_buffers(log)}
    )
    tops = {buffer: 40 + row_height * place for place, buffer in enumerate(buffers)}
    height = 40 + row_height * len(buffers) + 30

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
    parts.append(f'<rect x="{place + 220}" y="13" width="14" height="6" fill="#b8860b"/>')
    parts.append(f'<text x="{place + 238}" y="20">other event</text>')
    parts.append(f'<rect x="{place + 320}" y="10" width="14" height="12" fill="none"{_NEVER_ENDED}/>')
    parts.append(f'<text x="{place + 338}" y="20">never ended</text>')
    for buffer, top in tops.items():
        parts.append(f'<text x="8" y="{top + 18}">buffer {buffer}</text>')
        if buffer in names:
            parts.append(f'<text x="8" y="{top + 33}" font-style="italic">{escape(names[buffer])}</text>')
        parts.append(f'<line x1="{left}" x2="{width - 20}" y1="{top + 36}" y2="{top + 36}" stroke="#dddddd"/>')
    for start, ended in log.pairs.windows:
        if start.buffer is None:
            continue
        right = x(ended.time_ns if ended else end)
        top = tops[start.buffer]
        colour = _COLOURS[access_name(start.access)]
        dash = "" if ended else _NEVER_ENDED
        words = f"{access_name(start.access)} #{start.sequence}" + (
            f" to #{ended.sequence}" if ended else ", never ended"
        )
        parts.append(
            f'<rect x="{x(start.end_ns):.2f}" y="{top + 4}" width="{max(1.0, right - x(start.end_ns)):.2f}" '
            f'height="18" fill="{colour}" fill-opacity="0.8"{dash}><title>{escape(words)}</title></rect>'
        )
    drawn = 0
    for line in folded(iter(log.attempts)):
        entry = line.first
        if isinstance(entry, Transition) and entry.errno and entry.buffer is not None and drawn < _MARKS_DRAWN:
            drawn += 1
            words = f"{entry.step.name} {errno_name(entry.errno)} x {line.times}"
            parts.append(
                f'<rect x="{x(entry.time_ns):.2f}" y="{tops[entry.buffer] + 1}" width="1.5" height="24" '
                f'fill="#d00000"><title>{escape(words)}</title></rect>'
            )
    for event in of_buffers(log):
        words = f"{event.kind} {event.note}"
        colour = "#2f8f4e" if event.kind.startswith("device") else "#b8860b"
        parts.append(
            f'<rect x="{x(event.time_ns):.2f}" y="{tops[event.buffer] + 27}" '
            f'width="{max(1.5, x(event.end_ns or event.time_ns) - x(event.time_ns)):.2f}" height="7" '
            f'fill="{colour}"><title>{escape(words)}</title></rect>'
        )
    bottom = height - 26
    for moment in ticks(span):
        at = x(begin + moment)
        parts.append(f'<line x1="{at:.2f}" x2="{at:.2f}" y1="34" y2="{bottom}" stroke="#eeeeee"/>')
        parts.append(f'<line x1="{at:.2f}" x2="{at:.2f}" y1="{bottom}" y2="{bottom + 5}" stroke="#555555"/>')
        parts.append(f'<text x="{at:.2f}" y="{height - 8}" text-anchor="middle">{in_time(moment)}</text>')
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def ticks(span: int) -> list[int]:
    """Round moments from 0 to *span* nanoseconds, about six of them."""
    step = next(
        factor * 10**power for power in range(20) for factor in (1, 2, 5) if factor * 10**power * _TICKS >= span
    )
    return list(range(0, span + 1, step))


def in_time(nanoseconds: int) -> str:
    """With the unit that leaves few digits: ``0``, ``250 ns``, ``1.5 ms``."""
    for size, unit in ((10**9, "s"), (10**6, "ms"), (10**3, "us")):
        if nanoseconds >= size:
            return f"{nanoseconds / size:g} {unit}"
    return f"{nanoseconds} ns" if nanoseconds else "0"
