"""Programs of several processes and threads: ``dmasync run`` still answers as a real kernel did, and a fake that is
wrong shows. ``python -m tests.run.search`` asks further ones, side by side with a kernel in a virtual machine.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.run.search.compare import first_difference, told
from tests.run.search.generating.generator import Generator
from tests.run.search.ops import Command, encoded, from_json, to_json
from tests.run.search.programs import PRODUCTIONS, random_program
from tests.run.search.recordings import read
from tests.run.search.sides import Door, Side

FOLDER = Path(__file__).parent / "search"
FOUND = sorted((FOLDER / "found").glob("*.json"))
RECORDED = FOLDER / "recorded" / "linux-6.12.117.jsonl.xz"
AT_ONCE = 20


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("there is no C compiler")
    side = Door("--profile", "6.12")
    try:
        side.hello(60)
        yield side
    finally:
        side.close()


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_what_once_differed_is_answered_as_by_the_kernel(door, path):
    kept = json.loads(path.read_text(encoding="utf-8"))
    program = from_json(kept["program"])
    difference = first_difference(program, door.ask(encoded(program)), "\n".join(kept["answers"]) + "\n")
    assert difference is None, told(program, difference)


@pytest.mark.timeout(300)
def test_recorded_programs_are_answered_as_by_the_kernel(door):
    _, recorded = read(RECORDED)
    rows = list(recorded)
    assert len(rows) > AT_ONCE
    for begin in range(0, len(rows), AT_ONCE):
        batch = rows[begin : begin + AT_ONCE]
        door.send([encoded(row.program) for row in batch])
        for row, answers in zip(batch, door.receive(120), strict=True):
            difference = first_difference(row.program, answers, row.answers)
            assert difference is None, f"{row.name}:\n{told(row.program, difference)}"
    assert door.said() == ""


def test_programs_without_a_buffer_are_answered_as_without_dmasync_run(door):
    """Where there is no node, all is memfds, sockets, pipes, processes and threads of the host's own."""
    programs = [random_program(11, number) for number in range(40)]
    nodes = ("--no-node", "/dev/udmabuf", "--no-node", "/dev/dma_heap/system")
    sides = Door(*nodes, program=door.program), Side(program=door.program)
    try:
        for side in sides:
            side.send([named.encoded for named in programs])
        for named, mine, theirs in zip(programs, *(side.receive(120) for side in sides), strict=True):
            difference = first_difference(named.program, mine, theirs)
            assert difference is None, f"{named.name}:\n{told(named.program, difference)}"
    finally:
        for side in sides:
            side.close()


def test_a_fake_that_is_wrong_shows():
    _, recorded = read(RECORDED)
    rows = list(itertools.islice(recorded, AT_ONCE))
    door = Door("--profile", "6.12", "--fault", "error(EIO, on=Step.START)")
    try:
        door.send([encoded(row.program) for row in rows])
        answers = door.receive(120)
    finally:
        door.close()
    found = [first_difference(row.program, mine, row.answers) for row, mine in zip(rows, answers, strict=True)]
    differences = [difference for difference in found if difference is not None]
    assert [(one.command and one.command.op, one.on_fake) for one in differences] == [("sync", "-5")]


def test_a_seed_makes_the_same_program_again():
    assert random_program(3, 14).program == random_program(3, 14).program != random_program(3, 15).program


def test_programs_reach_every_production_and_survive_a_file():
    programs = [random_program(1, number).program for number in range(60)]
    assert {command.op for program in programs for command in program} >= {
        "fork", "spawn", "thread", "exec", "unshare", "send", "receive", "take", "mremap", "mprotect", "fallocate",
        "splice", "kill",
    }  # fmt: skip
    assert [from_json(json.loads(json.dumps(to_json(program)))) for program in programs] == programs
    assert len(Generator("1", PRODUCTIONS).make(200)) > 200


def test_the_first_line_that_differs_is_told_with_its_command():
    program = [Command("fork", 0, (1, 0)), Command("look", 1, (0,)), Command("sync", 1, (3, 1))]
    mine, theirs = "0\nslot 1 0\nmode=600\nstrays 0\n-9\n", "0\nslot 1 0\nmode=600\nstrays 1\n-9\n"
    difference = first_difference(program, mine, theirs)
    assert difference is not None
    assert (difference.command, difference.on_fake, difference.on_kernel) == (program[1], "strays 0", "strays 1")
    assert first_difference(program, mine, mine) is None
