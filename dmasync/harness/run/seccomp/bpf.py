"""Classic BPF with labels, as far as a seccomp filter needs it."""

from __future__ import annotations

import ctypes
from typing import Final

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL: Final = 0x15
_JUMP_AT_LEAST: Final = 0x35
_JUMP_ANY_BIT: Final = 0x45
_SHIFT_RIGHT: Final = 0x74
_AND: Final = 0x54
_RETURN: Final = 0x06
_FARTHEST: Final = 255
_FEW: Final = 2

NUMBER_AT: Final = 0
ARCHITECTURE_AT: Final = 4


class Instruction(ctypes.Structure):
    """struct sock_filter."""

    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


def argument_at(index: int) -> int:
    """Where struct seccomp_data has the low half of an argument; both machines are little-endian."""
    return 16 + 8 * index


class Program:
    """Instructions, and the places that they jump to; a place must come after the jumps to it."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, str | None, str | None]] = []
        self._places: dict[str, int] = {}

    def place(self, name: str) -> None:
        """The next instruction is *name*."""
        self._places[name] = len(self._code)

    def load(self, offset: int) -> None:
        """Take a word of struct seccomp_data."""
        self._code.append((_LOAD, offset, None, None))

    def shift_right(self, bits: int) -> None:
        self._code.append((_SHIFT_RIGHT, bits, None, None))

    def mask(self, bits: int) -> None:
        self._code.append((_AND, bits, None, None))

    def if_equal(self, value: int, then: str | None, otherwise: str | None = None) -> None:
        self._code.append((_JUMP_EQUAL, value, then, otherwise))

    def if_at_least(self, value: int, then: str | None, otherwise: str | None = None) -> None:
        self._code.append((_JUMP_AT_LEAST, value, then, otherwise))

    def if_any_bit(self, bits: int, then: str | None, otherwise: str | None = None) -> None:
        self._code.append((_JUMP_ANY_BIT, bits, then, otherwise))

    def choose(self, places: dict[int, str], otherwise: str) -> None:
        """Go to the place of the word that was loaded: some steps for many values, as half of those that are left go
        with each.
        """
        values = sorted(places)
        if len(values) <= _FEW:
            for value in values[:-1]:
                self.if_equal(value, places[value])
            self.if_equal(values[-1], places[values[-1]], otherwise)
            return
        middle = values[len(values) // 2]
        upper = f"from {middle}, of instruction {len(self._code)}"
        self.if_at_least(middle, upper)
        self.choose({value: places[value] for value in values if value < middle}, otherwise)
        self.place(upper)
        self.choose({value: places[value] for value in values if value >= middle}, otherwise)

    def give(self, verdict: int) -> None:
        """End with *verdict*."""
        self._code.append((_RETURN, verdict, None, None))

    def assemble(self) -> ctypes.Array[Instruction]:
        """The instructions as the kernel takes them."""
        array = (Instruction * len(self._code))()
        for here, (code, k, then, otherwise) in enumerate(self._code):
            array[here] = Instruction(code, self._distance(here, then), self._distance(here, otherwise), k)
        return array

    def _distance(self, here: int, name: str | None) -> int:
        if name is None:
            return 0
        distance = self._places[name] - here - 1
        if not 0 <= distance <= _FARTHEST:
            raise ValueError(f"{name} is {distance} instructions away from its jump")
        return distance
