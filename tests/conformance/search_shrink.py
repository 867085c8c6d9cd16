"""Delta debugging: the part of a program that still shows the same difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def shrunk(program: Sequence[T], fails: Callable[[Sequence[T]], bool], budget: int = 1500) -> list[T]:
    """*program* without the parts that *fails* does not need; after *budget* trials, as far as that got."""
    current = list(program)
    size = max(1, len(current) // 2)
    while size and budget > 0:
        at, removed = len(current) - size, False
        while at > -size and budget > 0:
            begin = max(at, 0)
            candidate = current[:begin] + current[begin + size :]
            budget -= 1
            if len(candidate) < len(current) and fails(candidate):
                current, removed = candidate, True
            at -= size
        if not (removed and size == 1):
            size //= 2
    return current
