"""Code that an exception from a signal handler cannot tear apart.

CPython runs signal handlers between bytecodes: after a call, at a backward jump, and on entry to a function. An
exception that a handler raises (KeyboardInterrupt) surfaces there, and two of these places would lose a system
call that has succeeded:

* After ``ioctl(…)`` returned 0, before the next bytecode: the caller sees only the exception. Everywhere that it
  matters dmasync therefore writes ``for result in map(ioctl, …)``: the loop fetches from the C iterator and enters
  its body with no check in between, so that the body is reached if and only if the call succeeded, and a plain
  attribute store at its head is as certain as the call.
* On entry to ``__exit__``, before its first statement could be protected by a ``try``. :func:`guarded` closes that
  gap: it lets the ``try`` that opens the function cover the entry as well. (CPython 3.10 makes no check in front of
  such a ``try``; there is nothing to close there.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def guarded(function: Function) -> Function:
    """Extend the ``try`` that is the function's first statement to the function's entry.

    Exceptions that surface on entry are then handled as if the first statement had raised them. Where the
    interpreter's exception table is not of the known form (CPython's Objects/exception_handling_notes.txt: varints
    of six bits, start, length, target, depth) the function stays as it is.
    """
    if isinstance(function, FunctionType):
        table = getattr(function.__code__, "co_exceptiontable", b"")
        if table and _is_of_a_try(table):
            function.__code__ = function.__code__.replace(co_exceptiontable=_from_zero(table))  # type: ignore[call-arg,unused-ignore]  # not in 3.10
    return function


def _is_of_a_try(table: bytes) -> bool:
    """Whether the first entry is that of a try outside of any other, with nothing on the stack.

    It is not where the body of that try cannot raise: then the compiler makes no entry for it, and the first is that
    of its handler.
    """
    values = _varints(table)
    _start, _length, _target, (depth_and_lasti, _) = (next(values) for _ in range(4))
    return depth_and_lasti == 0


def _from_zero(table: bytes) -> bytes:
    values = _varints(table)
    start, _ = next(values)
    length, after_length = next(values)
    head = _varint(0)
    return bytes([head[0] | _ENTRY, *head[1:], *_varint(start + length), *table[after_length:]])


_ENTRY = 0x80
_MORE = 0x40


def _varints(table: bytes) -> Iterator[tuple[int, int]]:
    """Each value with the offset behind it."""
    value = 0
    for offset, byte in enumerate(table, 1):
        value = value << 6 | byte & 0x3F
        if not byte & _MORE:
            yield value, offset
            value = 0


def _varint(value: int) -> list[int]:
    digits = [value & 0x3F]
    while value := value >> 6:
        digits.append(value & 0x3F | _MORE)
    return digits[::-1]
