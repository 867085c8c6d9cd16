"""What does a storm of interrupted STARTs cost?"""

from __future__ import annotations

from collections.abc import Callable


def test_interrupted_pair(row: Callable[[], None]) -> None:
    row()
