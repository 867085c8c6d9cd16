"""The search for a kernel of another processor, or with larger pages, than this host's."""

from __future__ import annotations

import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmasync import uapi
from dmasync.fakes.kernel.machine import MACHINES
from dmasync.fakes.kernel.profile import largest_kmalloc
from tests.conformance import search_fast
from tests.conformance.search_calls import RecordingWorld
from tests.conformance.search_executor import ExecutorError, Hello
from tests.conformance.search_fast import FastSearch, Program, parsed
from tests.conformance.search_generator import Generator
from tests.conformance.search_memory import Arena
from tests.conformance.search_world import Op

PAGES = pytest.mark.parametrize("page", [4096, 16384, 65536])


@pytest.fixture(autouse=True)
def ticks() -> Iterator[None]:
    """What waits is interrupted."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def arena(page: int) -> Iterator[Arena]:
    made = Arena(page)
    yield made
    made.close()


def programs(arena: Arena, machine: str) -> list[Program]:
    made = []
    for index in range(6):
        world = RecordingWorld("6.12", arena, keep_memfds=False, machine=machine)
        made.append(Program(f"{index}", 300, world, Generator(f"machines.{index}", world).ops()))
    return made


def asked(made: list[Program]) -> list[Op]:
    ops = [op for program in made for op, _, _ in program.answers]
    return [op[1] if op[0] == "nofd" else op for op in ops]


@PAGES
def test_programs_are_made_of_the_kernels_pages(arena: Arena, page: int) -> None:
    made = programs(arena, "aarch64")
    world = RecordingWorld("6.12", arena, keep_memfds=False, machine="aarch64")
    assert (world.page, world.kernel.page_size) == (page, page)
    world.close()
    sizes = {op[2] for op in asked(made) if op[0] == "ftruncate"}
    assert {page, page - 1, 2 * page} <= sizes
    mapped = [seen[0] for program in made for op, seen, _ in program.answers if op[0] == "mmap"]
    assert mapped.count(page) > 10


@PAGES
def test_an_argument_in_memory_ends_where_a_page_of_the_kernels_does(arena: Arena, page: int) -> None:
    address = arena.put(b"12345678", 3)
    assert (address + 5) % page == arena.end % page == 0
    assert arena.get(address) == b"12345"
    assert arena.get(arena.put_read_only(b"abc")) == b"abc"
    assert (arena.read_only_end - arena.end, arena.edge - arena.end) == (2 * page, 4 * page)


@pytest.mark.parametrize("page", [4096])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_mappings_are_asked_for_that_end_where_the_address_space_does(arena: Arena, machine: str) -> None:
    made = programs(arena, machine)
    end = MACHINES[machine].address_space
    lengths = {op[3] for op in asked(made) if op[0] == "mmap"} | {op[2] for op in asked(made) if op[0] == "ftruncate"}
    assert end in lengths
    others = {other.address_space for other in MACHINES.values()} - {end}
    assert not lengths & others


def test_the_fake_is_the_kernels_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_fast, "Executor", _NoExecutor)
    search = FastSearch(parsed(["--kernel", "none"]))
    search.start()
    world = search._world()
    kernel = world.kernel
    assert (kernel.machine.name, kernel.page_size, kernel.profile.name) == ("aarch64", 16384, "6.12.117")
    world.close()
    assert search.write_log()["page_size"] == 16384
    search.close()


class _NoExecutor:
    said = Hello("6.12.117-16k", "aarch64", 16384, True, False, True)

    def __init__(self, *_: object) -> None:
        pass

    def hello(self, _: float) -> Hello:
        return self.said

    def close(self) -> float:
        return 0


def test_pages_smaller_than_this_hosts_cannot_be_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_fast, "Executor", _NoExecutor)
    monkeypatch.setattr(_NoExecutor, "said", _NoExecutor.said._replace(page_size=1024))
    search = FastSearch(parsed(["--kernel", "none"]))
    with pytest.raises(ExecutorError, match="the kernel's pages have 1024 bytes, fewer than this host's"):
        search.start()
    search.close()


def test_an_arm64_shrinks_with_a_python_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_fast, "Executor", _NoExecutor)
    called: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: called.append(command))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    for arch, python in (("arm64", "python"), ("x86-64", sys.executable)):
        search = FastSearch(parsed(["--kernel", "none", "--arch", arch, "--log", str(tmp_path / "log.json")]))
        search.differing.append(("1.0", [("dup", 1, 0)]))
        search.shrink()
        search.close()
        command = called.pop()
        assert command[command.index("--") + 1] == python


@pytest.mark.parametrize("page", [16384])
def test_a_private_page_that_is_written_is_copied_as_a_whole(arena: Arena, page: int) -> None:
    world = RecordingWorld("6.12", arena, keep_memfds=False, machine="aarch64")
    for op in (("memfd", 1, "a", 3), ("ftruncate", 1, 2 * page)):
        world.step(op)
    world.step(("mmap", 2, 1, 2 * page, 3, 1, 0))
    world.step(("mmap", 3, 1, 2 * page, 3, 2, 0))
    world.step(("write", 3, 0, b"mine"))
    world.step(("write", 2, page - 4, b"late"))
    world.step(("write", 2, page, b"next"))
    copy = world.held[3].mapping
    assert (copy[0:4], copy[page - 4 : page], copy[page : page + 4]) == (b"mine", bytes(4), b"next")
    world.close()


@pytest.mark.parametrize("page", [4096, 16384, 65536])
def test_a_list_that_is_read_to_its_end_was_written_to_its_end(arena: Arena, page: int) -> None:
    """What counts more items than it has is too long for the kernel to copy, whatever its pages are."""
    counts = []
    for op in asked(programs(arena, "aarch64")):
        if op[0] == "ioctl" and op[3] == uapi.UDMABUF_CREATE_LIST and op[4] == "b":
            count = int.from_bytes(op[5][4:8], "little")
            if 8 + 24 * count > len(op[5]):
                counts.append(count)
    assert all(24 * count > largest_kmalloc(page) for count in counts)
    assert counts
