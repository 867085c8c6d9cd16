"""What does a pair cost that is recorded, on the fake? Hold it against two null ioctls (test_floor.py)."""

from __future__ import annotations

from collections.abc import Callable


def test_recorded_pair(row: Callable[[], None]) -> None:
    row()
