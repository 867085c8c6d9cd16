"""Delta debugging: the part of a program that still shows the same difference."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def shrunk(program: Sequence[T], fails: Callable[[Sequence[T]], bool], seconds: float = 8) -> list[T]:
    """*program* without the parts that *fails* does not need; after *seconds*, as far as that got."""
    until = time.monotonic() + seconds
    current = list(program)
    size = max(1, len(current) // 2)
    while size and time.monotonic() < until:
        at, removed = len(current) - size, False
        while at > -size and time.monotonic() < until:
            begin = max(at, 0)
            candidate = current[:begin] + current[begin + size :]
            if len(candidate) < len(current) and fails(candidate):
                current, removed = candidate, True
            at -= size
        if not (removed and size == 1):
            size //= 2
    return current
