"""Call stacks by index, each kept once, as code objects until somebody asks for file and line."""

from __future__ import annotations

from typing import Any

Frame = tuple[str, int, str]
"""File, line, function: innermost first in a stack."""


class Stacks:
    """Index 0 is no stack."""

    def __init__(self) -> None:
        self._taken: list[Any] = [()]
        self._index: dict[Any, int] = {}

    def __len__(self) -> int:
        return len(self._taken)

    def keep(self, stack: Any) -> int:
        """The index of *stack*: a tuple of (code, instruction offset), or of frames (file, line, function)."""
        known = self._index.get(stack)
        if known is None:
            self._taken.append(stack)
            known = self._index[stack] = len(self._taken) - 1
        return known

    def add(self, frames: tuple[Frame, ...]) -> None:
        """Take *frames* as the next index, also when they are known."""
        self._taken.append(frames)

    def frames(self, index: int) -> tuple[Frame, ...]:
        """The call stack of that index, innermost frame first; empty for 0."""
        return tuple(
            frame if len(frame) == 3 else (frame[0].co_filename, _line(*frame), frame[0].co_name)
            for frame in self._taken[index]
        )


def _line(code: Any, offset: int) -> int:
    line = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= offset < end and number is not None:
            return int(number)
    return int(line)
