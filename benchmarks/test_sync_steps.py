"""What do START and END cost alone, and the first START of a buffer, from 4 KiB to 64 MiB?"""

from __future__ import annotations

from collections.abc import Callable


def test_start(row: Callable[[], None]) -> None:
    row()


def test_end(row: Callable[[], None]) -> None:
    row()


def test_first_start(row: Callable[[], None]) -> None:
    row()
