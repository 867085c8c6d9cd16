"""The differential search's own parts: what finds, shrinks, keeps and counts differences must not be wrong itself."""

from __future__ import annotations

import ast
import json
import lzma
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.kernel import FakeKernel
from tests.conformance.mutants import ROOT
from tests.conformance.mutants_list import MUTANTS, Mutant
from tests.conformance.search_generator import Generator
from tests.conformance.search_program import CHECKPOINT, as_python, digest, from_json, observe, outcome_of, to_json
from tests.conformance.search_record import first_difference
from tests.conformance.search_shrink import shrunk
from tests.conformance.search_table import TABLE, joined, table_rows
from tests.conformance.search_world import FakeWorld, Op

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


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_each_mutant_still_fits_the_source(mutant: Mutant) -> None:
    assert (ROOT / "fakes" / "kernel" / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.old != mutant.new


def test_each_row_of_the_fidelity_table_is_joined_with_the_search() -> None:
    rows = table_rows(TABLE.read_text())
    walked, unknown = joined([], rows)
    assert unknown == []
    assert len(walked) == len(rows) > 90


def test_a_row_counts_what_was_walked_most_rarely_of_what_it_promises() -> None:
    rows = [("`path_openat`", "no such node; a node as a directory; a directory to write")]
    places = {"ENOENT nodes.py open: if not path": 7, "ENOTDIR nodes.py _find: if x": 5, "EISDIR nodes.py y: if z": 3}
    (row,), _ = joined([{"refusals": places, "operations": {}}], rows)
    assert row.count == 3
