"""What do START and END cost alone, and the first START of a buffer, from 4 KiB to 64 MiB?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from grid import ACCESSES, BUFFERS, MIB, PROVIDERS, SIZES, rows

from dmasync.harness.bench_sizes import size_name

QUICK_SIZES = ("64KiB", "1MiB", "4MiB")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    others = {size_name(size): size for size in metafunc.config.getoption("--dmasync-sizes")}
    is_first = metafunc.function is test_first_start
    cells = _cells(PROVIDERS if is_first else tuple(BUFFERS), others or SIZES)
    metafunc.parametrize("arguments", rows(*(cell for cell in cells if not is_first or _is_cheap(*cell))))


def _cells(buffers: Sequence[str], sizes: Mapping[str, int]) -> Iterator[tuple[str, bool, tuple[Any, ...]]]:
    for buffer in buffers:
        for size, length in sizes.items():
            for access in ACCESSES:
                quick = sizes is not SIZES or size == "1MiB" or (buffer == "udmabuf" and size in QUICK_SIZES)
                yield f"{buffer}-{size}-{access}", quick, ({"size": length, "access": access, **BUFFERS[buffer]},)


def _is_cheap(name: str, quick: bool, values: tuple[Any, ...]) -> bool:
    """Tell whether a row that needs a new buffer for each operation is worth its minutes under emulation."""
    (arguments,) = values
    return arguments["size"] <= 4 * MIB or (arguments["size"] <= 16 * MIB and arguments["access"] == "READ")


def test_start(row: Callable[..., None], arguments: dict[str, Any]) -> None:
    row("sync:start", arguments, api="fcntl", step="start")


def test_end(row: Callable[..., None], arguments: dict[str, Any]) -> None:
    row("sync:end", arguments, api="fcntl", step="end")


def test_first_start(row: Callable[..., None], arguments: dict[str, Any]) -> None:
    # A udmabuf's scatter list takes a page for each 128 of the buffer's; now and then the page allocator has to fetch
    # more first. A small one comes from a slab, which is at hand or is not. A heap's first START takes nothing, but it
    # goes from buffer to buffer: in one boot of five it was three instructions dearer.
    row("sync:first_start", arguments, api="fcntl", step="first-start", resolution=2)
