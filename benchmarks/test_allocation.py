"""What do a buffer's birth and end cost, and the first touch of its bytes?"""

from __future__ import annotations

from collections.abc import Callable


def test_allocate_and_release(row: Callable[[], None]) -> None:
    row()


def test_allocate(row: Callable[[], None]) -> None:
    row()


def test_release(row: Callable[[], None]) -> None:
    row()


def test_map(row: Callable[[], None]) -> None:
    row()


def test_first_touch(row: Callable[[], None]) -> None:
    row()
