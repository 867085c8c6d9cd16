"""Commands of a program: as the executor reads them, as a file keeps them, as a person reads them."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

EXECUTOR = Path(__file__).with_name("executor")
OPS = tuple(re.findall(r"^OP\((\w+)\)", (EXECUTOR / "ops.h").read_text(encoding="utf-8"), re.MULTILINE))
_NUMBERS = {name: number for number, name in enumerate(OPS)}
_HEAD = struct.Struct("<HHI7q")
_LENGTH = struct.Struct("<I")
_SIGNED = 1 << 63

Program = list["Command"]


class Command(NamedTuple):
    """What one actor is told to do. Descriptors are told by slots, addresses from the start of the arena."""

    op: str
    actor: int
    arguments: tuple[int, ...] = ()
    data: str | tuple[int, ...] = ()
    """A path, a name, or a list of slots and sizes."""

    def __str__(self) -> str:
        shown = ", ".join(f"{value:#x}" if abs(value) >= 1024 else str(value) for value in self.arguments)
        return f"{self.actor}: {self.op}({shown})" + (f" {self.data!r}" if self.data else "")


def encoded(program: Iterable[Command]) -> bytes:
    """*program* as the executor reads it."""
    parts = []
    for op, actor, arguments, data in program:
        raw = data.encode() + b"\0" if isinstance(data, str) else struct.pack(f"<{len(data)}q", *data)
        values = [(value + _SIGNED) % (1 << 64) - _SIGNED for value in arguments]
        parts.append(_HEAD.pack(_NUMBERS[op], actor, len(raw), *values, *[0] * (7 - len(values))))
        parts.append(raw + b"\0" * (-len(raw) % 8))
    return b"".join(parts)


def framed(programs: Sequence[bytes]) -> bytes:
    """A file of programs for the executor."""
    return b"".join(_LENGTH.pack(len(program)) + program for program in programs)


def unframed(data: bytes) -> list[str]:
    """The answers of a file, one text for each program."""
    found, at = [], 0
    while at < len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        found.append(data[at : at + length].decode("ascii", "backslashreplace"))
        at += length
    return found


def to_json(program: Iterable[Command]) -> list[Any]:
    """*program* for a file."""
    return [
        [op, actor, list(arguments), data if isinstance(data, str) else list(data)]
        for op, actor, arguments, data in program
    ]


def from_json(rows: Iterable[Sequence[Any]]) -> Program:
    """What :func:`to_json` made."""
    return [
        Command(op, actor, tuple(arguments), data if isinstance(data, str) else tuple(data))
        for op, actor, arguments, data in rows
    ]
