"""What do START and END cost alone, and the first START of a buffer, from 4 KiB to 64 MiB?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from grid import ACCESSES, BUFFERS, MIB, PROVIDERS, SIZES, rows

QUICK_SIZES = ("64KiB", "1MiB", "4MiB")


def _cells(*buffers: str) -> Iterator[tuple[str, bool, tuple[Any, ...]]]:
    for buffer in buffers:
        for size, length in SIZES.items():
            for access in ACCESSES:
                quick = size == "1MiB" or (buffer == "udmabuf" and size in QUICK_SIZES)
                yield f"{buffer}-{size}-{access}", quick, ({"size": length, "access": access, **BUFFERS[buffer]},)


def _is_cheap(name: str, quick: bool, values: tuple[Any, ...]) -> bool:
    """Tell whether a row that needs a new buffer for each operation is worth its minutes under emulation."""
    (arguments,) = values
    return arguments["size"] <= 4 * MIB or (arguments["size"] == 16 * MIB and arguments["access"] == "READ")


@pytest.mark.parametrize("arguments", rows(*_cells(*BUFFERS)))
def test_start(row: Callable[..., None], arguments: dict[str, Any]) -> None:
    row("sync:start", arguments, api="fcntl", step="start")


@pytest.mark.parametrize("arguments", rows(*_cells(*BUFFERS)))
def test_end(row: Callable[..., None], arguments: dict[str, Any]) -> None:
    row("sync:end", arguments, api="fcntl", step="end")


@pytest.mark.parametrize("arguments", rows(*(cell for cell in _cells(*PROVIDERS) if _is_cheap(*cell))))
def test_first_start(row: Callable[..., None], arguments: dict[str, Any]) -> None:
    row("sync:first_start", arguments, api="fcntl", step="first-start")
