"""Every row of the suites, described once: its name, the operation that is timed, what is known of it beforehand.

pytest makes its tests of :data:`SUITES` (:mod:`dmasync.harness.bench.plugin`), and the measuring process finds the
operation there (:mod:`dmasync.harness.bench.worker`). Names of rows stay as they are: histories hang on them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from dmasync.harness.bench.measure import Operation
from dmasync.harness.sizes import KIB, MIB, size_name

SIZES = {
    "4KiB": 4 * KIB,
    "64KiB": 64 * KIB,
    "1MiB": MIB,
    "4MiB": 4 * MIB,
    "16MiB": 16 * MIB,
    "64MiB": 64 * MIB,
}
"""64 MiB is udmabuf's limit unless its parameter size_limit_mb says otherwise."""
ACCESSES = ("READ", "WRITE", "READ_WRITE")
PROVIDERS = ("udmabuf", "system", "cma")
BUFFERS = {
    "udmabuf": {"provider": "udmabuf", "attached": False},
    "system": {"provider": "system", "attached": False},
    "system_attached": {"provider": "system", "attached": True},
    "cma": {"provider": "cma", "attached": False},
    "cma_attached": {"provider": "cma", "attached": True},
}
"""A heap syncs for the devices that have mapped a buffer, and for nobody where none has."""
APIS = ("fcntl", "DmaSyncer-fresh", "DmaSyncer-reused", "cpu_access", "group-of-4")
OTHER_WAYS = ("ctypes-struct", "ctypes-struct-IntFlag", "bytes")
STORMS = (0, 1, 10, 100)
THREADS = (1, 2, 3, 4)
RECORDED_BEFORE = {"first": 0, "behind-a-million": 1_000_000}


@dataclass(frozen=True)
class Cell:
    """One row of a suite: what stands between the brackets of its name, and what its operation is made of."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    is_quick: bool = False
    """Whether the short suite has it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Facts that this row has beside its suite's and its arguments."""


@dataclass(frozen=True)
class Suite:
    """The rows of one test function: what they have in common, and what varies.

    ``operation`` is ``module:function`` in :mod:`dmasync.harness.bench.timed`. ``cells(sizes)`` yields the rows;
    *sizes*, by name in bytes, are those that were asked for instead of the suite's own, where it varies them.
    """

    operation: str
    facts: Mapping[str, Any]
    cells: Callable[[Mapping[str, int]], Iterable[Cell]]

    def make(self, bench: object, **arguments: Any) -> Operation:
        """The operation that is timed, made in the process that measures."""
        return cast(Operation, function(self.operation)(bench, **arguments))


def function(name: str) -> Callable[..., Any]:
    """The function ``module:name`` of the package of operations."""
    module, _, attribute = name.partition(":")
    return cast(
        Callable[..., Any], getattr(importlib.import_module(f"dmasync.harness.bench.timed.{module}"), attribute)
    )


def named_sizes(sizes: Sequence[int]) -> dict[str, int]:
    """*sizes* in bytes under the names that rows give them."""
    return {size_name(size): size for size in sizes}


def _single(sizes: Mapping[str, int]) -> Iterator[Cell]:
    yield Cell("", is_quick=True)


def _step_cells(sizes: Mapping[str, int]) -> Iterator[Cell]:
    for buffer, where in BUFFERS.items():
        yield from _of_every_size(buffer, where, sizes)


def _first_start_cells(sizes: Mapping[str, int]) -> Iterator[Cell]:
    for provider in PROVIDERS:
        for cell in _of_every_size(provider, BUFFERS[provider], sizes):
            # A row that needs a new buffer for each operation must be worth its minutes under emulation.
            size, access = cell.arguments["size"], cell.arguments["access"]
            if size <= 4 * MIB or (size <= 16 * MIB and access == "READ"):
                yield cell


def _of_every_size(buffer: str, where: Mapping[str, Any], sizes: Mapping[str, int]) -> Iterator[Cell]:
    for size, length in (sizes or SIZES).items():
        for access in ACCESSES:
            is_quick = bool(sizes) or size == "1MiB" or (buffer == "udmabuf" and size in ("64KiB", "1MiB", "4MiB"))
            yield Cell(f"{buffer}-{size}-{access}", {"size": length, "access": access, **where}, is_quick)


def _pair_cells(sizes: Mapping[str, int]) -> Iterator[Cell]:
    for buffer, where in BUFFERS.items():
        for size, length in SIZES.items():
            for access in ACCESSES:
                for api in APIS:
                    if api != "fcntl" and (size not in ("4KiB", "1MiB", "64MiB") or where["attached"]):
                        continue  # what the library adds does not depend on the buffer
                    if size == "64MiB" and api != "fcntl" and (buffer != "udmabuf" or access != "READ_WRITE"):
                        continue  # under emulation it takes seconds to make such a buffer
                    if size == "64MiB" and api == "group-of-4":
                        continue  # 256 MiB at once
                    is_quick = size == "1MiB" and (api == "fcntl" or (buffer == "udmabuf" and access == "READ_WRITE"))
                    arguments = {"api": api, "size": length, "access": access, **where}
                    yield Cell(f"{buffer}-{size}-{access}-{api}", arguments, is_quick)


def _other_ways_cells(sizes: Mapping[str, int]) -> Iterator[Cell]:
    for buffer, where in BUFFERS.items():
        for way in OTHER_WAYS:
            if not where["attached"]:
                arguments = {"api": way, "size": MIB, "access": "READ_WRITE", **where}
                yield Cell(f"{buffer}-1MiB-READ_WRITE-{way}", arguments)


def _storm_cells(sizes: Mapping[str, int]) -> Iterator[Cell]:
    for times in STORMS:
        arguments = {"provider": "udmabuf", "size": MIB, "access": "READ_WRITE", "times": times}
        facts = {"step": f"pair-after-{times}-EINTR"}
        yield Cell(f"udmabuf-1MiB-READ_WRITE-{times}_EINTR", arguments, times == 10, facts)


def _thread_cells(sizes: Mapping[str, int]) -> Iterator[Cell]:
    for threads in THREADS:
        arguments = {"provider": "udmabuf", "size": MIB, "access": "READ_WRITE", "threads": threads}
        facts = {"step": f"pair-in-{threads}-threads"}
        yield Cell(f"udmabuf-1MiB-READ_WRITE-{threads}_threads", arguments, threads == 4, facts)


def _recorded_cells(sizes: Mapping[str, int]) -> Iterator[Cell]:
    for place, before in RECORDED_BEFORE.items():
        yield Cell(place, {"before": before}, True, {"step": f"recorded-pair-{place}"})


def _allocation_cells(*names: str, quick: str = "") -> Callable[[Mapping[str, int]], Iterator[Cell]]:
    def cells(sizes: Mapping[str, int]) -> Iterator[Cell]:
        for provider in PROVIDERS:
            for name in names:
                yield Cell(f"{provider}-{name}", {"provider": provider, "size": SIZES[name]}, name == quick)

    return cells


_FEW = ("4KiB", "1MiB", "4MiB")
SUITES: Mapping[str, Suite] = {
    "null_ioctl": Suite("floor:null_ioctl", {"api": "fcntl", "step": "null", "calls": 1}, _single),
    "empty_loop": Suite("floor:empty_loop", {"api": "none", "step": "loop", "calls": 0}, _single),
    "start": Suite("sync:start", {"api": "fcntl", "step": "start"}, _step_cells),
    "end": Suite("sync:end", {"api": "fcntl", "step": "end"}, _step_cells),
    # A udmabuf's scatter list takes a page for each 128 of the buffer's; now and then the page allocator has to fetch
    # more first. A small one comes from a slab, which is at hand or is not. A heap's first START takes nothing, but it
    # goes from buffer to buffer: in one boot of five it cost three instructions more.
    "first_start": Suite(
        "sync:first_start", {"api": "fcntl", "step": "first-start", "resolution": 2}, _first_start_cells
    ),
    "sync_pair": Suite("sync:pair", {"step": "pair", "calls": 2}, _pair_cells),
    "other_way": Suite("sync:pair", {"step": "pair", "calls": 2}, _other_ways_cells),
    # The STARTs that are interrupted never reach the kernel: the injector answers them.
    "interrupted_pair": Suite(
        "retries:interrupted_pair", {"api": "DmaSyncer-reused", "calls": 2, "resolution": 3}, _storm_cells
    ),
    "pair_in_threads": Suite("threads:pairs", {"api": "DmaSyncer-reused", "resolution": 2}, _thread_cells),
    # No system call in it: the kernel is the fake one everywhere. A journal grows where its memory happens to lie.
    "recorded_pair": Suite(
        "recording:recorded_pair", {"api": "FakeBackend", "calls": 0, "resolution": 3}, _recorded_cells
    ),
    "allocate_and_release": Suite(
        "allocation:allocate_and_release",
        {"api": "DmaBufAllocator", "step": "allocate-release", "resolution": 2},
        _allocation_cells("4KiB", "64KiB", "1MiB", "4MiB", "16MiB", quick="1MiB"),
    ),
    "allocate": Suite(
        "allocation:allocate",
        {"api": "DmaBufAllocator", "step": "allocate", "resolution": 2},
        _allocation_cells(*_FEW),
    ),
    "release": Suite(
        "allocation:release",
        {"api": "DmaBuf", "step": "release", "calls": 1, "resolution": 2},
        _allocation_cells(*_FEW),
    ),
    "map": Suite(
        "allocation:map_buffer",
        {"api": "DmaBuf", "step": "map", "calls": 1, "resolution": 3},
        _allocation_cells(*_FEW),
    ),
    "first_touch": Suite(
        "allocation:first_touch",
        {"api": "memoryview", "step": "first-touch", "calls": 0, "resolution": 2},
        _allocation_cells(*_FEW),
    ),
}
"""The suites by the name of their test function, without ``test_``."""
