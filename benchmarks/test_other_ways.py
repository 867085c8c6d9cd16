"""What does the same pair cost the way Python programs do it today?"""

from __future__ import annotations

from collections.abc import Callable


def test_other_way(row: Callable[[], None]) -> None:
    row()
