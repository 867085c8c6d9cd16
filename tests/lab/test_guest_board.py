"""Two places whose boards are virtual machines that count instructions, behind labgrid's SSHDriver; one dies half-way.

Needs QEMU, openssh-server, root, and some minutes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dmasync.cli import main
from dmasync.harness.vm import host_packages
from tests.lab.boards import Lab, key
from tests.lab.guest_board import GuestBoard

pytestmark = [pytest.mark.lab, pytest.mark.vm, pytest.mark.timeout(1800)]
ALONE = "== without an importer"
PASSES = {"dmabuf-heap": 11, "udmabuf": 5}
"""What passes where a device imports buffers."""
FLOOR = ("*test_null_ioctl*", "*test_empty_loop*")


@pytest.fixture(scope="module")
def guests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, GuestBoard]]:
    """``one``, and ``two``, which dies once it has told its facts, its host, and a row."""
    if lacking := host_packages.missing_parts():
        pytest.skip(str(host_packages.MissingPartError(lacking)))
    assert os.geteuid() == 0, "the guest's sshd reads this machine's own files: needs root"
    folder = tmp_path_factory.mktemp("guests")
    own = key(folder / "own")
    boards = {"one": GuestBoard(folder / "one", own), "two": GuestBoard(folder / "two", own, dies_after=3)}
    for board in boards.values():
        board.wait_until_it_is_up()
    yield boards
    for board in boards.values():
        board.close()


@pytest.fixture
def lab(guests: dict[str, GuestBoard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    own = tmp_path / "own"
    own.symlink_to(next(iter(guests.values())).folder.parent / "own")
    ports = {name: board.port for name, board in guests.items()}
    made = Lab(tmp_path / "lab", {}, own, ports, seconds_to_connect=120.0)
    for name, value in made.variables.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


def bench(on: str, output: Path, *rows: str) -> int:
    only = [f"--only={glob}" for glob in (*FLOOR, *rows)]
    return main(["bench", "--on", on, "--exact", "--quiet", *only, "-o", str(output)])


def counts(path: Path) -> dict[str, float]:
    run = json.loads(path.read_text())
    return {row["fullname"]: row["stats"]["median"] for row in run["benchmarks"]}


def test_the_exact_clock_tells_the_same_integers_through_labgrid_as_in_a_machine_of_dmasync(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there, here = tmp_path / "there.json", tmp_path / "here.json"
    rows = ("*test_sync_pair[udmabuf-1MiB-READ-*", "*test_end[*-1MiB-*")
    assert bench("labgrid:one", there, *rows) == 0
    assert bench("vm", here, *rows) == 0
    assert counts(there) == counts(here)
    assert len(counts(there)) >= 6
    facts: list[dict[str, Any]] = [row["extra_info"] for row in json.loads(there.read_text())["benchmarks"]]
    assert {(one["unit"], one["target"], one["exact"]) for one in facts} == {("instructions", "vm", True)}
    assert json.loads(there.read_text())["dmasync"]["board"]["address"] == "labgrid:one"
    assert lab.locked == []
    capsys.readouterr()
    assert main(["gate", str(here), str(there), "--json", str(tmp_path / "v.json")]) == 0
    verdicts = {row["verdict"] for row in json.loads((tmp_path / "v.json").read_text())["rows"]}
    assert verdicts == {"same"}


def test_a_board_is_probed_through_its_place(lab: Lab) -> None:
    lab.client("-p", "one", "acquire")
    told = lab.client("-p", "one", "ssh", "python3 -m dmasync probe --json", drivers=True)
    lab.client("-p", "one", "release")
    found = json.loads(told[told.index("{") :])  # behind what labgrid says
    assert found["kernel"]["release"] != os.uname().release
    assert {node["path"] for node in found["nodes"] if node["opens"]} >= {"/dev/udmabuf", "/dev/dma_heap/system"}
    assert lab.locked == []


@pytest.mark.parametrize("name", ["dmabuf-heap", "udmabuf"])
def test_the_kernel_s_selftests_print_on_a_board_what_they_print_on_the_fake(
    lab: Lab, selftest: Callable[..., Path], name: str
) -> None:
    program = selftest(name, "-static")
    lab.client("-p", "one", "acquire")
    carried = f"cat >/tmp/{name} && chmod +x /tmp/{name} && echo there"
    assert "there" in lab.client("-p", "one", "ssh", carried, drivers=True, given=program.read_bytes())
    # The board has a device that imports buffers, the fake has none.
    command = f"/tmp/{name} 2>&1; echo {ALONE}; modprobe -r vgem; /tmp/{name} 2>&1; modprobe vgem; rm /tmp/{name}"
    told = lab.client("-p", "one", "ssh", command, drivers=True)
    lab.client("-p", "one", "release")
    importing, alone = (part.strip().splitlines() for part in told[told.index("TAP version") :].split(ALONE))
    nodes = ["--node=/dev/udmabuf", "--node=/dev/dma_heap/system"]
    line = [sys.executable, "-m", "dmasync", "run", "--timeout=60", *nodes, "--", str(program)]
    fake = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert alone == fake.stdout.splitlines()
    assert [result for result in importing if result.startswith("not ok")] == []
    assert len([result for result in importing if result.startswith("ok ") and "SKIP" not in result]) == PASSES[name]
    assert lab.locked == []


def test_a_machine_that_dies_half_way_costs_its_own_run(
    lab: Lab, guests: dict[str, GuestBoard], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("labgrid:two", tmp_path / "run.json") == 3
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.match(r"dmasync bench: labgrid:two was lost after [01] of \d+ rows: ", line)
    assert not (tmp_path / "run.json").exists()
    assert lab.locked == []
    assert guests["one"].is_there
    assert bench("labgrid:one", tmp_path / "run.json") == 0
