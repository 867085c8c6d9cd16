"""What do a buffer's birth and end cost, and the first touch of its bytes?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from grid import PROVIDERS, SIZES, rows

QUICK_SIZE = "1MiB"


def _cells(*sizes: str, quick: bool = False) -> Iterator[tuple[str, bool, tuple[Any, ...]]]:
    for provider in PROVIDERS:
        for size in sizes:
            yield f"{provider}-{size}", quick and size == QUICK_SIZE, ({"provider": provider, "size": SIZES[size]},)


@pytest.mark.parametrize("arguments", rows(*_cells("4KiB", "64KiB", "1MiB", "4MiB", "16MiB", quick=True)))
def test_allocate_and_release(row: Callable[..., None], arguments: dict[str, Any]) -> None:
    row("allocation:allocate_and_release", arguments, api="DmaBufAllocator", step="allocate-release", resolution=2)


@pytest.mark.parametrize("arguments", rows(*_cells("4KiB", "1MiB", "4MiB")))
def test_allocate(row: Callable[..., None], arguments: dict[str, Any]) -> None:
    row("allocation:allocate", arguments, api="DmaBufAllocator", step="allocate", resolution=2)


@pytest.mark.parametrize("arguments", rows(*_cells("4KiB", "1MiB", "4MiB")))
def test_release(row: Callable[..., None], arguments: dict[str, Any]) -> None:
    row("allocation:release", arguments, api="DmaBuf", step="release", calls=1, resolution=2)


@pytest.mark.parametrize("arguments", rows(*_cells("4KiB", "1MiB", "4MiB")))
def test_map(row: Callable[..., None], arguments: dict[str, Any]) -> None:
    row("allocation:map_buffer", arguments, api="DmaBuf", step="map", calls=1, resolution=3)


@pytest.mark.parametrize("arguments", rows(*_cells("4KiB", "1MiB", "4MiB")))
def test_first_touch(row: Callable[..., None], arguments: dict[str, Any]) -> None:
    row("allocation:first_touch", arguments, api="memoryview", step="first-touch", calls=0, resolution=2)
