"""What does a call cost in which nothing happens?"""

from __future__ import annotations

from collections.abc import Callable


def test_null_ioctl(row: Callable[[], None]) -> None:
    row()


def test_empty_loop(row: Callable[[], None]) -> None:
    row()
