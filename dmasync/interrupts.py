"""Code that an exception from a signal handler cannot tear apart.

CPython runs signal handlers between bytecodes: after a call, at a backward jump, and on entry to a function. An
exception that a handler raises (KeyboardInterrupt) surfaces there, and three of these places would lose a system
call that has succeeded:

* After ``ioctl(…)`` returned 0, before the next bytecode: the caller sees only the exception. Everywhere that it
  matters dmasync therefore writes ``for result in map(ioctl, …)``: the loop fetches from the C iterator and enters
  its body with no check in between, so that the body is reached if and only if the call succeeded, and a plain
  attribute store at its head is as certain as the call.
* On entry to ``__exit__``, before its first statement could be protected by a ``try``. :func:`guarded` closes that
  gap: it lets the ``try`` that opens the function cover the entry as well. (CPython 3.10 makes no check in front of
  such a ``try``; there is nothing to close there.)
* At the end of a ``while`` inside a ``try``: CPython 3.12 and 3.13 turn its condition into a forward jump and a
  backward one, and forget that the latter is inside the ``try``. :func:`guarded` puts it back.

CPython 3.10 has a fourth place, which stays open: the entry to an ``except`` clause. A signal that arrives at the very
moment when the kernel refuses an END (or when another signal's exception has just been raised) escapes from there, and
that END is only made when the window is dropped.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import CodeType, FunctionType
from typing import Any, NamedTuple, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def guarded(function: Function) -> Function:
    """Extend the ``try`` that is the function's first statement to the function's entry, and mend its loops.

    Exceptions that surface on entry, or at a backward jump, are then handled as if the first statement had raised
    them. Reads and writes the interpreter's exception table (CPython's Objects/exception_handling_notes.txt).
    """
    if isinstance(function, FunctionType) and sys.version_info >= (3, 11):
        code = function.__code__
        found = list(_read(code.co_exceptiontable))
        covering = _with_jumps(code, _with_entry(found)) if found else found
        if covering != found:
            function.__code__ = code.replace(co_exceptiontable=_written(covering))
    return function


class _Entry(NamedTuple):
    """Exceptions between *start* and *end*, in bytes of code, go to *target*; *stack* is depth and a flag."""

    start: int
    end: int
    target: int
    stack: int


def _with_entry(entries: list[_Entry]) -> list[_Entry]:
    # Nothing on the stack: else it is no try that opens the function. Where the body of that try cannot raise, the
    # compiler makes no entry for it, and the first one is that of its handler.
    first, *others = entries
    return [first._replace(start=0), *others] if first.stack == 0 else entries


def _with_jumps(code: CodeType, entries: list[_Entry]) -> list[_Entry]:
    """Let each entry cover a backward jump that follows it, alone or behind the condition that it was split from."""
    jumps = {
        jump.offset: (following.offset, jump.opname == "JUMP_BACKWARD")
        for jump, following in pairwise(dis.get_instructions(code))
        if "JUMP" in jump.opname and not any(entry.start <= jump.offset < entry.end for entry in entries)
    }
    return [entry._replace(end=_behind_jumps(jumps, entry.end)) for entry in entries]


def _behind_jumps(jumps: dict[int, tuple[int, bool]], end: int) -> int:
    covered = end
    while end in jumps:
        end, backward = jumps[end]
        if backward:
            covered = end  # pragma: no cover - CPython 3.12 and 3.13
    return covered


_UNIT = 2
"""Bytes of an instruction, in which the table counts."""
_FIRST = 0x80
_MORE = 0x40


def _read(table: bytes) -> Iterator[_Entry]:
    values = _varints(table)
    for start in values:
        length, target, stack = next(values), next(values), next(values)
        yield _Entry(start * _UNIT, (start + length) * _UNIT, target * _UNIT, stack)


def _written(entries: list[_Entry]) -> bytes:
    table = bytearray()
    for start, end, target, stack in entries:
        head = len(table)
        for value in (start // _UNIT, (end - start) // _UNIT, target // _UNIT, stack):
            table += _varint(value)
        table[head] |= _FIRST
    return bytes(table)


def _varints(table: bytes) -> Iterator[int]:
    value = 0
    for byte in table:
        value = value << 6 | byte & 0x3F
        if not byte & _MORE:
            yield value
            value = 0


def _varint(value: int) -> bytes:
    digits = [value & 0x3F]
    while value := value >> 6:
        digits.append(value & 0x3F | _MORE)
    return bytes(reversed(digits))
