"""A journal as JSON lines.

The first line is the header: ``{"format": "dmasync-trace", "version": 1, "started_ns": …, "facts": {…}}``.
Each other line is an object with one key that says what it is:

``{"stack": [[file, line, function], …]}``
    call stack 1, 2, … in the order of the lines; entries refer to them
``{"sync": [time_ns, buffer, flags, thread, fd, stack, end_ns, errno]}``
    an attempt at START or END; buffer and flags may be null
``{"call": {…}}``
    any other call: the fields of dmasync.fakes.journal.Call, bytes as {"hex": …}
``{"event": {…}}``
    the fields of dmasync.fakes.journal.Event
``{"number": [time_ns, fd, number]}``
    from then on the program called the backend's descriptor fd number; only where a program's numbers are not the
    backend's, for what people read
``{"end": {"open_mappings": [index, …]}}``
    the last line of a trace that was written to its end: which calls, counted from 0, made mappings that were still
    there

A trace without its last line, or with a last line that was cut off, is read up to its last whole line. A line
that is not of this form, a number out of range or a stack that is not there is a ValueError that names the
line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, Final, TypeVar

from dmasync.fakes.journal.entries import NO_BUFFER, NO_FLAGS, ROW, Call, Event, Transition
from dmasync.fakes.journal.log import Log

FORMAT: Final = "dmasync-trace"
VERSION: Final = 1
MAX_LINE: Final = 1 << 20
"""A longer line is no trace's: what is read is bounded."""

_METHODS: Final = {
    # method: types of its arguments
    "open": (str, int),
    "close": (int,),
    "dup": (int,),
    "ioctl": (int, int, (int, bytes, str)),
    "memfd_create": (str, int),
    "ftruncate": (int, int),
    "add_seals": (int, int),
    "get_seals": (int,),
    "mmap": (int, int, int, int, int),
    "lseek": (int, int, int),
    "poll": (int, int, (int, type(None))),
}


_Log = TypeVar("_Log", bound=Log)


class Writer:
    """Turns a log into lines, a part at a time: each call of :meth:`news` gives what came since the one before."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._stacks = 1
        self._attempts = self._calls = self._events = self._numbers = 0

    def header(self) -> str:
        """The first line."""
        log = self._log
        facts = {name: value for name, value in log.facts.items() if name not in ("complete", "open_mappings")}
        return _line({"format": FORMAT, "version": VERSION, "started_ns": log.started_ns, "facts": facts})

    def news(self) -> Iterator[str]:
        """Lines for what came since the last time; each call and event behind the attempts before it."""
        log = self._log
        attempts = log.attempts
        until = len(attempts)
        noted, self._numbers = self._numbers, len(log.numbers.notes)
        for note in log.numbers.notes[noted : self._numbers]:
            yield _line({"number": note})
        others: list[Call | Event] = [*log.calls[self._calls :], *log.events[self._events :]]
        others.sort(key=lambda entry: (entry.position, entry.time_ns))
        self._calls, self._events = len(log.calls), len(log.events)
        first, self._attempts = self._attempts, until
        place = 0
        for index in range(first, until):
            while place < len(others) and others[place].position <= index:
                yield from self._entry(others[place])
                place += 1
            yield from self._entry(attempts[index])
        for entry in others[place:]:
            yield from self._entry(entry)

    def end(self) -> str:
        """The last line."""
        return _line({"end": {"open_mappings": self._log.facts.get("open_mappings", [])}})

    def _entry(self, entry: Transition | Call | Event) -> Iterator[str]:
        while self._stacks <= entry.stack:
            yield _line({"stack": [list(frame) for frame in self._log.stack(self._stacks)]})
            self._stacks += 1
        yield entry_line(entry)


def lines(log: Log) -> Iterator[str]:
    """The trace, line by line, each with its newline."""
    writer = Writer(log)
    yield writer.header()
    yield from writer.news()
    yield writer.end()


def entry_line(entry: Transition | Call | Event) -> str:
    """One entry's line; the stack it refers to must have been written before."""
    if isinstance(entry, Transition):
        return _line(
            {
                "sync": [
                    entry.time_ns,
                    entry.buffer,
                    entry.flags,
                    entry.thread,
                    entry.fd,
                    entry.stack,
                    entry.end_ns,
                    entry.errno,
                ]
            }
        )
    fields = {name: _plain(getattr(entry, name)) for name in entry.__slots__}
    return _line({"call" if isinstance(entry, Call) else "event": fields})


def _plain(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return {"hex": value.hex()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _line(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")) + "\n"


def dump(log: Log, file: IO[str] | str | os.PathLike[str]) -> None:
    """Write *log* to *file*, a path or an open text file."""
    if isinstance(file, (str, os.PathLike)):
        with open(file, "w", encoding="utf-8") as opened:
            opened.writelines(lines(log))
    else:
        file.writelines(lines(log))


def load(file: IO[str] | str | os.PathLike[str] | Iterable[str], log: _Log) -> _Log:
    """Read a trace into *log*, a fresh one. ValueError, naming the line, when it is none; what a cut-off last line held
    is dropped.

    ``log.facts["complete"]`` says whether the trace had its last line.
    """
    if isinstance(file, (str, os.PathLike)):
        with open(file, encoding="utf-8", errors="strict") as opened:
            _load(_bounded(opened), log)
    else:
        readline = getattr(file, "readline", None)
        _load(_bounded(file) if readline else iter(file), log)  # type: ignore[arg-type]
    return log


def _bounded(file: IO[str]) -> Iterator[str]:
    while True:
        line = file.readline(MAX_LINE + 1)
        if not line:
            return
        if len(line) > MAX_LINE:
            raise ValueError(f"it is longer than {MAX_LINE} characters")
        yield line


def _load(source: Iterator[str], log: Log) -> None:
    reader = _Reader(log)
    number = 0
    try:
        while True:
            number += 1
            line = next(source, None)
            if line is None or not line.endswith("\n"):
                break  # the end, or cut off while it was written: everything before is whole
            if reader.ended:
                raise ValueError("it comes after the end")
            reader.read(line, number == 1)
    except UnicodeDecodeError as problem:
        raise ValueError(f"line {number}: not UTF-8: {problem.reason}") from None
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"line {number}: {problem}") from None
    if not reader.header:
        raise ValueError("the header is missing: the file is empty, or cut off in its first line")
    log.facts["complete"] = reader.ended


class _Reader:
    def __init__(self, log: Log) -> None:
        self._log = log
        self.header = False
        self.ended = False
        self._kinds: dict[str, Callable[[Any], None]] = {
            "sync": self._sync,
            "call": self._call,
            "event": self._event,
            "stack": self._stack,
            "number": self._number,
            "end": self._end,
        }

    def read(self, line: str, first: bool) -> None:
        value = json.loads(line, parse_constant=_refuse, parse_float=_refuse)
        if not isinstance(value, dict):
            raise ValueError("not an object")
        if first:
            self._head(value)
            return
        if len(value) != 1:
            raise ValueError(f"an entry has one key, this has {len(value)}")
        ((kind, content),) = value.items()
        if kind not in self._kinds:
            raise ValueError(f"{kind[:40]!r} is no kind of entry")
        self._kinds[kind](content)

    def _head(self, value: dict[str, Any]) -> None:
        if value.get("format") != FORMAT:
            raise ValueError(f"not a {FORMAT}: the first line names another format")
        if value.get("version") != VERSION:
            raise ValueError(f"version {str(value.get('version'))[:20]} of the format; this reads version {VERSION}")
        self._log.started_ns = _integer(value.get("started_ns"), "started_ns")
        facts = value.get("facts")
        if not isinstance(facts, dict):
            raise ValueError("facts is no object")
        self._log.facts = facts
        self.header = True

    def _stack(self, content: Any) -> None:
        if not isinstance(content, list) or len(content) > 200:
            raise ValueError("a stack is a list of at most 200 frames")
        frames = []
        for frame in content:
            if not isinstance(frame, list) or [type(part) for part in frame] != [str, int, str]:
                raise ValueError("a frame is [file, line, function]")
            frames.append((frame[0], frame[1], frame[2]))
        self._log.add_stack(tuple(frames))

    def _sync(self, content: Any) -> None:
        if not isinstance(content, list) or len(content) != 8:
            raise ValueError("sync has eight values")
        time_ns, buffer, flags, thread, fd, stack, end_ns, code = content
        self._log.rows += ROW.pack(
            _integer(time_ns, "time_ns"),
            NO_BUFFER if buffer is None else _integer(buffer, "buffer"),
            NO_FLAGS if flags is None else _integer(flags, "flags", 0, NO_FLAGS - 1),
            _integer(thread, "thread", 0, (1 << 64) - 1),
            _integer(fd, "fd", -(1 << 31), (1 << 31) - 1),
            self._stack_index(stack),
            _integer(end_ns, "end_ns"),
            _integer(code, "errno", -1, 4095),
        )

    def _call(self, content: Any) -> None:
        fields = _fields(content, Call.__slots__)
        method = fields["method"]
        if not isinstance(method, str) or method not in _METHODS:
            raise ValueError(f"{str(method)[:40]!r} is no method of a backend")
        arguments = fields["arguments"]
        types = _METHODS[method]
        if not isinstance(arguments, list) or len(arguments) != len(types):
            raise ValueError(f"{method} takes {len(types)} arguments")
        values = tuple(_bytes(argument) for argument in arguments)
        for value, wanted in zip(values, types, strict=False):
            if isinstance(value, bool) or not isinstance(value, wanted):
                raise ValueError(f"{method} does not take a {type(value).__name__} there")
            if isinstance(value, int):
                _integer(value, f"an argument of {method}", -(1 << 63), (1 << 64) - 1)
        code = fields["errno"]
        result = fields["result"]
        after = _bytes(fields["after"])
        if after is not None and not isinstance(after, bytes):
            raise ValueError("after holds bytes")
        self._log.calls.append(
            Call(
                method,
                values,
                _integer(fields["time_ns"], "time_ns"),
                _integer(fields["thread"], "thread", 0, (1 << 64) - 1),
                self._position(fields["position"]),
                None if fields["buffer"] is None else _integer(fields["buffer"], "buffer"),
                self._stack_index(fields["stack"]),
                None if result is None else _integer(result, "result"),
                after,
                None if code is None else _integer(code, "errno", -1, 4095),
                _integer(fields["end_ns"], "end_ns"),
            )
        )

    def _event(self, content: Any) -> None:
        fields = _fields(content, Event.__slots__)
        if not isinstance(fields["kind"], str) or not isinstance(fields["note"], str):
            raise ValueError("kind and note are text")
        ranges = fields["ranges"]
        if not isinstance(ranges, list) or any(not isinstance(r, list) or len(r) != 2 for r in ranges):
            raise ValueError("ranges are [offset, length] pairs")
        self._log.events.append(
            Event(
                fields["kind"],
                _integer(fields["buffer"], "buffer"),
                tuple((_integer(a, "offset", 0), _integer(b, "length", 0)) for a, b in ranges),
                _integer(fields["time_ns"], "time_ns"),
                _integer(fields["thread"], "thread", 0, (1 << 64) - 1),
                self._position(fields["position"]),
                self._stack_index(fields["stack"]),
                fields["note"],
                _integer(fields["end_ns"], "end_ns"),
            )
        )

    def _number(self, content: Any) -> None:
        if not isinstance(content, list) or len(content) != 3:
            raise ValueError("number has three values")
        time_ns, fd, number = content
        last = (1 << 31) - 1
        moment = _integer(time_ns, "time_ns")
        self._log.numbers.note(_integer(fd, "fd", 0, last), _integer(number, "number", 0, last), moment)

    def _end(self, content: Any) -> None:
        listed = _fields(content, ["open_mappings"])["open_mappings"]
        if not isinstance(listed, list):
            raise ValueError("open_mappings is a list")
        last = len(self._log.calls) - 1
        self._log.facts["open_mappings"] = [_integer(index, "open_mappings", 0, last) for index in listed]
        self.ended = True

    def _position(self, value: Any) -> int:
        return _integer(value, "position", 0, len(self._log))

    def _stack_index(self, value: Any) -> int:
        return _integer(value, "stack", 0, self._log.stacks - 1)


def _integer(value: Any, name: str, low: int = -(1 << 63) + 1, high: int = (1 << 63) - 1) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} is not an integer from {low} to {high}")
    return value


def _fields(content: Any, names: Iterable[str]) -> dict[str, Any]:
    if not isinstance(content, dict) or sorted(content) != sorted(names):
        raise ValueError(f"its fields are {', '.join(names)}")
    return content


def _bytes(value: Any) -> Any:
    if isinstance(value, dict):
        if list(value) != ["hex"] or not isinstance(value["hex"], str):
            raise ValueError('bytes are written as {"hex": …}')
        return bytes.fromhex(value["hex"])
    return value


def _refuse(text: str) -> None:
    raise ValueError(f"{text[:20]} is no integer")
