"""One walk through a journal, with the state that the findings need."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from dmasync import Step, SyncType
from dmasync.fakes.journal import Call, Event, Journal, Transition
from dmasync.fakes.journal.windows import ended_by
from dmasync.fakes.journal.words import access_name, buffer_names, buffer_text
from dmasync.fakes.sanitizer import leaks
from dmasync.fakes.sanitizer.finding import OTHER_ACCESS, READ_ONLY, Finding, Kind, Trace

_READ, _WRITE = SyncType.READ, SyncType.WRITE
_THREAD_FIELDS = 3


@dataclass
class _Buffer:
    """What is known of one dma-buf at one point of the walk."""

    windows: list[Transition] = field(default_factory=list)
    last: Transition | None = None
    """The START or END that was seen last."""
    mapped: Call | None = None
    """The mmap that was seen last."""
    ended: Transition | None = None
    """The START of the window that was ended last."""
    inherited: int = 0
    """How many of the windows another process opened."""


@dataclass
class _Descriptors:
    open: dict[int, Call] = field(default_factory=dict)
    closed: dict[int, Call] = field(default_factory=dict)


class Analysis:
    """See :class:`dmasync.fakes.sanitizer.Sanitizer`."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._numbers = journal.numbers
        self._names = buffer_names(journal)
        self._buffers: dict[int | None, _Buffer] = {}
        self._descriptors = _Descriptors()
        self._found: list[Finding] = []
        threads = journal.facts.get("threads")
        self._threads: dict[str, object] = threads if isinstance(threads, dict) else {}

    def run(self) -> list[Finding]:
        """Everything but leaks."""
        for entry in self._journal.entries():
            if isinstance(entry, Transition):
                self._attempt(entry)
            elif isinstance(entry, Call):
                self._call(entry)
            else:
                self._event(entry)
        if self._complete:
            for buffer in self._buffers.values():
                for start in buffer.windows[buffer.inherited :]:
                    self._never_ended(start, buffer.last)
        return self._found

    @property
    def _complete(self) -> bool:
        """A trace that was cut off says nothing about what came later."""
        return bool(self._journal.facts.get("complete", True))

    def _of(self, buffer: int | None) -> _Buffer:
        return self._buffers.setdefault(buffer, _Buffer())

    def _trace(self, what: str, entry: Transition | Call | Event) -> Trace:
        return Trace(what + self._whose(entry.thread), self._journal.stack(entry.stack))

    def _whose(self, thread: int) -> str:
        """Who did it, where other processes' calls are written down: ``, by cam[1203], thread 1207 (capture)``."""
        known = self._threads.get(str(thread))
        if not isinstance(known, list) or len(known) != _THREAD_FIELDS:
            return ""
        process, program, name = known
        words = f", by {program or 'process'}[{process}]"
        if thread != process:
            words += f", thread {thread}" + (f" ({name})" if name and name != program else "")
        return words

    def _step(self, entry: Transition) -> Trace:
        what = f"#{entry.sequence} {entry.step.name} for {access_name(entry.access)}"
        fd = self._numbers.of(entry.fd, entry.time_ns)
        where = (
            f"on fd {fd}" if entry.buffer is None else f"of buffer {buffer_text(entry.buffer, self._names)}, fd {fd}"
        )
        return self._trace(f"{what} {where}", entry)

    # -- START and END --------------------------------------------------------------------------------------------

    def _attempt(self, entry: Transition) -> None:
        if entry.errno:
            if entry.errno == errno.EBADF:
                self._closed_descriptor(entry)
            return
        buffer = self._of(entry.buffer)
        if entry.step is Step.START:
            self._overlap(entry, buffer)
            buffer.windows.append(entry)
        else:
            self._end(entry, buffer)
        buffer.last = entry

    def _overlap(self, entry: Transition, buffer: _Buffer) -> None:
        for other in buffer.windows:
            both = entry.access | other.access
            if other.thread != entry.thread and both & _READ and both & _WRITE:
                self._found.append(
                    Finding(
                        "racing-windows",
                        entry.buffer,
                        Step.START,
                        f"two threads have windows for {access_name(other.access)} and for"
                        f" {access_name(entry.access)} open over the same buffer at the same time",
                        (self._step(other), self._step(entry)),
                    )
                )
                return

    def _end(self, entry: Transition, buffer: _Buffer) -> None:
        windows = buffer.windows
        place = ended_by(entry.access, entry.thread, windows)
        if place is None:
            before = () if buffer.last is None else (self._step(buffer.last),)
            self._found.append(
                Finding(
                    "end-without-start",
                    entry.buffer,
                    Step.END,
                    f"END for {access_name(entry.access)} without a window that it could end",
                    (self._step(entry), *before),
                )
            )
            return
        start = windows.pop(place)
        if place < buffer.inherited:
            buffer.inherited -= 1
            self._found.append(
                Finding(
                    "foreign-window",
                    entry.buffer,
                    Step.END,
                    "a process that was forked ended a window of its parent",
                    (self._step(start), self._step(entry)),
                )
            )
        if start.access != entry.access:
            self._found.append(
                Finding(
                    "end-with-other-access",
                    entry.buffer,
                    Step.END,
                    f"a window was started for {access_name(start.access)} and ended for {access_name(entry.access)}",
                    (self._step(start), self._step(entry)),
                    told=OTHER_ACCESS.get((access_name(start.access), access_name(entry.access))),
                )
            )
        buffer.ended = start

    def _never_ended(self, start: Transition, last: Transition | None) -> None:
        after = self._step(last) if last is not None and last != start else None
        self._found.append(
            Finding(
                "start-never-ended",
                start.buffer,
                Step.END,
                f"a window for {access_name(start.access)} was started and never ended",
                (self._step(start), after or Trace("and no END came up to the end of the journal", ())),
                told=_if_only_read("start-never-ended", start),
            )
        )

    def _closed_descriptor(self, entry: Transition) -> None:
        closed = self._descriptors.closed.get(entry.fd)
        fd = self._numbers.of(entry.fd, entry.time_ns)
        where = () if closed is None else (self._trace(f"close of fd {fd}", closed),)
        never = "" if closed else ", which this process has not opened"
        self._found.append(
            Finding(
                "sync-on-closed-fd",
                None if closed is None else closed.buffer,
                entry.step,
                f"{entry.step.name} on fd {fd}, which is not open{never}",
                (self._step(entry), *where),
            )
        )

    # -- descriptors ----------------------------------------------------------------------------------------------

    def _call(self, call: Call) -> None:
        descriptors = self._descriptors
        if call.method == "close":
            fd = call.arguments[0]
            if call.errno == errno.EBADF:
                before = descriptors.closed.get(fd)
                number = self._numbers.of(fd, call.time_ns)
                where = () if before is None else (self._trace(f"the close before of fd {number}", before),)
                self._found.append(
                    Finding(
                        "double-close",
                        None if before is None else before.buffer,
                        None,
                        f"fd {number} was closed although it was not open",
                        (self._trace(f"close of fd {number}", call), *where),
                    )
                )
            else:
                descriptors.open.pop(fd, None)
                descriptors.closed[fd] = call
            return
        if call.method == "mmap" and call.buffer is not None and call.succeeded:
            self._of(call.buffer).mapped = call
        fd = call.new_fd
        if fd is not None:
            descriptors.open[fd] = call
            descriptors.closed.pop(fd, None)

    def leaked_descriptors(self) -> list[Finding]:
        """The descriptors that were opened and not closed; call it after :meth:`run`."""
        return leaks.of_descriptors(self._journal, self._descriptors.open, self._trace) if self._complete else []

    def leaked_mappings(self, calls: list[Call]) -> list[Finding]:
        """The mappings that are there although they should not be; call it after :meth:`run`."""
        return leaks.of_mappings(self._journal, self._descriptors.open, calls, self._trace)

    # -- bytes ----------------------------------------------------------------------------------------------------

    def _event(self, event: Event) -> None:
        handler = {
            "device-read": self._device,
            "device-write": self._device,
            "cpu-wrote-outside": self._outside,
            "cpu-touched-outside": self._outside,
            "cpu-wrote-in-read": self._wrote_in_read,
            "cpu-read-stale": self._read_stale,
            "device-read-clobbered": self._clobbered,
            "start-discarded": self._discarded,
            "forked": self._forked,
            "window-dropped": self._dropped,
            "memory-spoiled": self._spoiled,
        }.get(event.kind)
        if handler is not None:
            handler(event)

    def _device(self, event: Event) -> None:
        writes = event.kind == "device-write"
        for window in self._of(event.buffer).windows:
            if writes or window.access & _WRITE:
                doing = "wrote to" if writes else "read"
                self._found.append(
                    Finding(
                        "device-access-in-window",
                        event.buffer,
                        Step.END,
                        f"a device {doing} the buffer while a window for {access_name(window.access)} was open",
                        (self._step(window), self._trace(f"the device {doing} it", event)),
                        event.ranges,
                    )
                )
                return

    def _outside(self, event: Event) -> None:
        buffer = self._of(event.buffer)
        wrote = event.kind == "cpu-wrote-outside"
        message = (
            "the CPU wrote to the buffer" if wrote else "the CPU read pages of the buffer, or wrote what was there"
        )
        stale = "; a device had written to them since the CPU fetched them" if event.note == "stale" else ""
        if buffer.last is not None:
            last = self._step(buffer.last)
        elif buffer.mapped is not None:
            last = self._trace("mapped, and no window was opened", buffer.mapped)
        else:
            last = Trace("and no window had been opened before", ())
        self._found.append(
            Finding(
                "access-outside-window",
                event.buffer,
                Step.START if buffer.last is None or buffer.last.step is Step.END else Step.END,
                f"while no window was open, {message}{stale}",
                (last, self._trace("noticed at the next call or device access", event)),
                event.ranges,
            )
        )

    def _wrote_in_read(self, event: Event) -> None:
        self._in_window(event, "write-in-read-window", "bytes were changed in a window for READ")

    def _read_stale(self, event: Event) -> None:
        self._in_window(
            event,
            "stale-read",
            "pages that a device had written were read, and not written, in a window for WRITE",
        )

    def _in_window(self, event: Event, kind: str, message: str) -> None:
        windows = self._of(event.buffer).windows
        wanted = _READ if kind == "write-in-read-window" else _WRITE
        start = next((window for window in reversed(windows) if window.access == wanted), None)
        traces: tuple[Trace, ...] = (self._trace("at its END", event),)
        if start is not None:
            traces = (self._step(start), *traces)
        self._found.append(Finding(kind, event.buffer, Step.START, message, traces, event.ranges))

    def _clobbered(self, event: Event) -> None:
        last = self._of(event.buffer).last
        traces: tuple[Trace, ...] = (self._trace("the device read them", event),)
        if last is not None:
            traces = (self._step(last), *traces)
        self._found.append(
            Finding(
                "partial-write",
                event.buffer,
                Step.START,
                "a window for WRITE wrote parts of cache lines whose other bytes a device had written",
                traces,
                event.ranges,
            )
        )

    def _discarded(self, event: Event) -> None:
        window = next((w for w in reversed(self._of(event.buffer).windows) if w.access & _WRITE), None)
        traces: tuple[Trace, ...] = (self._trace("START for READ", event),)
        if window is not None:
            traces = (self._step(window), *traces)
        self._found.append(
            Finding(
                "racing-windows",
                event.buffer,
                Step.START,
                "a START for READ came while another window over the buffer had written bytes and not ended",
                traces,
                event.ranges,
            )
        )

    def _dropped(self, event: Event) -> None:
        start = self._of(event.buffer).ended
        self._found.append(
            Finding(
                "window-dropped",
                event.buffer,
                Step.END,
                "a syncer was dropped while its window was open, and END ran only then",
                (*(() if start is None else (self._step(start),)), self._trace("dropped", event)),
                told=None if start is None else _if_only_read("window-dropped", start),
            )
        )

    def _spoiled(self, event: Event) -> None:
        mapped = self._of(event.buffer).mapped
        self._found.append(
            Finding(
                "memfd-closed-while-mapped",
                event.buffer,
                None,
                "the last descriptor of a udmabuf's memfd was closed while pages of the udmabuf were mapped",
                (*(() if mapped is None else (self._trace("mmap", mapped),)), self._trace("the close", event)),
            )
        )

    def _forked(self, event: Event) -> None:
        for buffer in self._buffers.values():
            buffer.inherited = len(buffer.windows)
        self._descriptors.open.clear()  # the parent's to close


def _if_only_read(kind: str, start: Transition) -> Kind | None:
    return None if start.access & _WRITE else READ_ONLY.get(kind)
