"""The differential search's own parts: what finds, shrinks, keeps and counts differences must not be wrong itself."""

from __future__ import annotations

import ast
import json
import lzma
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dmasync import uapi
from dmasync.fakes.kernel import FakeKernel
from dmasync.fakes.kernel.profile import PROFILES, nearest_profile
from tests.conformance import search
from tests.conformance.mutants import ROOT, copy_project, plant
from tests.conformance.mutants_list import MUTANTS, Mutant
from tests.conformance.mutants_profiles import SWAPS, differences
from tests.conformance.search_generator import Generator
from tests.conformance.search_program import CHECKPOINT, as_python, digest, from_json, observe, outcome_of, to_json
from tests.conformance.search_record import first_difference
from tests.conformance.search_shrink import shrunk
from tests.conformance.search_table import TABLE, joined, merged, table_rows
from tests.conformance.search_table_rows import ROWS, Row
from tests.conformance.search_world import PLUMBING, FakeWorld, Op, RealMachine, RealWorld

STEPS = 300


@pytest.fixture(autouse=True)
def ticks() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    yield
    signal.signal(signal.SIGALRM, before)


def program(seed: str, steps: int = STEPS) -> list[tuple[Op, str, int]]:
    world = FakeWorld()
    run = []
    for op, _ in zip(Generator(seed, world).ops(), range(steps), strict=False):
        seen = observe(world, op)
        run.append((op, outcome_of(seen), digest(seen)))
    seen = observe(world, CHECKPOINT)
    run.append((CHECKPOINT, outcome_of(seen), digest(seen)))
    world.close()
    return run


def recording(file: Path, *seeds: str) -> Path:
    with lzma.open(file, "wt") as lines:
        for seed in seeds:
            lines.write(json.dumps([[to_json(op), outcome, number] for op, outcome, number in program(seed)]) + "\n")
    return file


def test_a_seed_makes_the_same_program_and_the_same_answers_again() -> None:
    assert program("one") == program("one")
    assert program("one") != program("two")


def test_whether_a_processor_has_protection_keys_is_not_asked() -> None:
    """Linux cannot populate what may only be executed where there are such keys, and does so where there are none."""
    world = FakeWorld()
    maps = [
        (op[4], op[5])
        for op, _ in zip(Generator("keys", world, {"mmap": 400}).ops(), range(4000), strict=False)
        if observe(world, op) and op[0] == "mmap"
    ]
    world.close()
    assert (3, 0x8001) in maps
    assert (4, 1) in maps
    assert not [prot for prot, flags in maps if prot == 4 and flags & 0x8000]


def test_a_program_leaves_nothing_open() -> None:
    world = FakeWorld()
    for op, _ in zip(Generator("left", world).ops(), range(STEPS), strict=False):
        observe(world, op)
    world.close()
    assert world.kernel.open_fds() == {}
    assert world.kernel.mappings() == []


def test_a_program_survives_its_file() -> None:
    ops = [op for op, _, _ in program("file")]
    kept = [from_json(json.loads(json.dumps(to_json(op)))) for op in ops]
    assert json.dumps(to_json(kept)) == json.dumps(to_json(ops))
    world, answers = FakeWorld(), []
    for op in kept:
        answers.append(digest(observe(world, op)))
    world.close()
    assert answers == [number for _, _, number in program("file")]


def test_a_program_can_be_shown_as_python() -> None:
    ast.parse(as_python(op for op, _, _ in program("python")))


def test_shrinking_keeps_what_the_difference_needs_and_nothing_else() -> None:
    assert shrunk(range(400), lambda part: {7, 300, 399} <= set(part)) == [7, 300, 399]
    assert shrunk([1], lambda _: True) == []


def test_a_recording_of_the_fake_itself_has_no_difference(tmp_path: Path) -> None:
    steps, difference = first_difference(recording(tmp_path / "own.jsonl.xz", "a", "b"))
    assert (steps, difference) == (2 * (STEPS + 1), None)


def test_a_kernel_that_answers_differently_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = recording(tmp_path / "own.jsonl.xz", "a", "b")
    monkeypatch.setattr(FakeKernel, "get_seals", lambda self, fd: 99)
    steps, difference = first_difference(file)
    assert difference is not None
    assert difference.steps == steps <= STEPS


def test_bytes_that_differ_in_a_mapping_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = recording(tmp_path / "own.jsonl.xz", "a", "b", "c")
    monkeypatch.setattr(FakeWorld, "do_write", lambda self, var, at, data: None)
    assert first_difference(file)[1] is not None


def test_a_memfd_stays_open_where_linux_miscounts_pages_that_outlive_it() -> None:
    """Before 6.11 a udmabuf's mapping must not outlive the memfd: the guest's memory is spoiled then."""

    class KeepsMemfds(RealMachine):
        def __init__(self) -> None:
            self._fdinfo = {}
            self.mapped_pages_outlive_their_file = False

    def memfds() -> int:
        names = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        return sum("memfd:stays open" in os.readlink(name) for name in names if os.path.lexists(name))

    world = RealWorld(KeepsMemfds())
    world.step(("memfd", 1, "stays open", 3))
    assert memfds() == 2
    world.step(("close", 1))
    assert memfds() == 1
    world.close()
    assert memfds() == 0


@pytest.mark.parametrize(
    ("profile", "told"), [("6.12", "EFAULT"), ("6.18", "EFAULT, and a descriptor that nobody was told")]
)
def test_a_descriptor_that_a_heap_leaks_is_told_and_closed(profile: str, told: str) -> None:
    """It would be taken for the next buffer whose number is not told, and make programs differ that are alike."""
    world = FakeWorld(profile)
    world.step(("open", 1, "/dev/dma_heap/system", os.O_RDWR))
    argument = struct.pack("=QIIQ", 4096, 0, os.O_RDWR, 0)
    seen = world.step(("ioctl", 2, 1, uapi.DMA_HEAP_IOCTL_ALLOC, "r", argument, 0, []))
    assert seen[0] == told
    assert len(world.kernel.open_fds()) == 1
    # With no descriptor left none can leak, nor could the process look for it.
    assert world.step(("nofd", ("ioctl", 3, 1, uapi.DMA_HEAP_IOCTL_ALLOC, "r", argument, 0, [])))[0] in (
        "EMFILE",
        "EFAULT",
    )
    world.close()


@pytest.mark.parametrize("mutant", [*MUTANTS, *SWAPS], ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_each_mutant_still_fits_the_source(mutant: Mutant) -> None:
    assert (ROOT / "fakes" / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.old != mutant.new


@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_has_five_answers_to_swap_with_a_neighbours(profile: str) -> None:
    assert sum(mutant.profile == profile for mutant in SWAPS) >= 5


def test_a_swapped_profile_has_the_one_answer_of_its_neighbour(tmp_path: Path) -> None:
    swap = next(mutant for mutant in SWAPS if mutant.name == "profile 6.1 has the maps above 4g of 6.6")
    copy_project(tmp_path)
    plant(swap, tmp_path)
    code = """
from dataclasses import asdict
from dmasync.fakes.kernel.profile import PROFILES, profile_named
from tests.conformance.mutants_profiles import differences
print(*differences("6.1", "6.6"), len(PROFILES))
"""
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert told.stdout.split() == [
        *(name for name in differences("6.1", "6.6") if name != "maps_above_4g"),
        str(len(PROFILES)),
    ]


def test_each_row_of_the_fidelity_table_is_joined_with_the_search() -> None:
    rows = table_rows(TABLE.read_text())
    walked, unknown = joined([], rows)
    assert unknown == []
    assert len(walked) == len(rows) > 90


_PLACE = re.compile(r"E[A-Z]+ (?P<file>\w+\.py)(?: (?P<function>\w+)(?:: (?P<question>.+))?)?")


@pytest.mark.parametrize(
    "pattern",
    sorted({p for entry in ROWS.values() if isinstance(entry, Row) for p in entry.patterns if _PLACE.match(p)}),
)
def test_a_row_names_a_place_that_the_fake_has(pattern: str) -> None:
    place = _PLACE.fullmatch(pattern)
    assert place is not None
    (file,) = (ROOT / "fakes" / "kernel").rglob(place["file"])
    source = file.read_text(encoding="utf-8")
    if place["function"] is not None:
        functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
        source = "\n".join(
            ast.get_source_segment(source, node) or "" for node in functions if node.name == place["function"]
        )
        assert source
    if place["question"] is not None:
        assert any(re.match(place["question"], line.strip().rstrip(":")) for line in source.splitlines())


def test_modules_that_many_ask_are_there() -> None:
    assert [name for name in PLUMBING if not (ROOT / name).is_file()] == []


def test_a_row_counts_what_was_walked_most_rarely_of_what_it_promises() -> None:
    rows = [("`path_openat`", "no such node; a node as a directory; a directory to write")]
    places = {"ENOENT nodes.py open: if not path": 7, "ENOTDIR nodes.py _find: if x": 5, "EISDIR nodes.py y: if z": 3}
    (row,), _ = joined([{"refusals": places, "operations": {}}], rows)
    assert row.count == 3


def test_logs_of_one_kernel_make_one_log() -> None:
    def log(kernel: str, seed: int) -> dict[str, Any]:
        return {
            "kernel": kernel,
            "steps": 400,
            "checkpoints": 17,
            "programs": 1,
            "unmodelled": 0,
            "seconds": 0.5,
            "divergences": [f"{seed}.0: x"],
            "seeds": [seed],
            "operations": {"dup": {"ok": 2, "EBADF": seed}},
            "refusals": {"EBADF kernel.py dup: x": seed},
        }

    whole = merged([log("6.12", 1), log("6.12", 2)])
    assert (whole["steps"], whole["seconds"], whole["seeds"]) == (800, 1.0, [1, 2])
    assert whole["divergences"] == ["1.0: x", "2.0: x"]
    assert whole["operations"] == {"dup": {"EBADF": 3, "ok": 4}}
    assert whole["refusals"] == {"EBADF kernel.py dup: x": 3}
    with pytest.raises(ValueError, match=r"6\.1, 6\.12"):
        merged([log("6.12", 1), log("6.1", 1)])


def test_programs_that_differed_are_run_again_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Machine:
        def close(self) -> None:
            pass

    class Other(FakeWorld):
        def do_lseek(self, var: int, offset: int, whence: int) -> int:
            return super().do_lseek(var, offset, whence) + 1

    ops = [("memfd", 1, "a", 3), ("get_seals", 1), ("lseek", 1, 0, 0)]
    (tmp_path / "7.0.json").write_text(json.dumps({"program": to_json(ops)}))
    (tmp_path / "8.0.json").write_text(json.dumps({"program": to_json(ops[:2])}))
    monkeypatch.setattr(search, "RealMachine", Machine)
    monkeypatch.setattr(search, "RealWorld", lambda machine: Other(nearest_profile(os.uname().release).name))
    arguments = ["--again", str(tmp_path), "--log", str(tmp_path / "log" / "log.json")]
    assert search.main(arguments) == 1
    shown = capsys.readouterr().out
    assert "8.0.json: no difference side by side" in shown
    assert "backend.lseek(v1, 0x0, 0x0)" in shown
    assert "get_seals" not in shown, "it is shrunk to what the difference needs"
