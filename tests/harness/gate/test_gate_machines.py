"""Wall rows of two machines are not compared: a faster CPU hides slower code, a slower one blames it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dmasync.cli import main
from dmasync.harness.bench.suite import Request, run_suite
from dmasync.harness.runs.measuring_machine import difference, machine_facts
from dmasync.harness.runs.reading import load_run
from tests.support.run_files import PAIR, exact, wall

ROWS = {"t.py::a": 1e-3, "t.py::b": 2e-3, "t.py::c": 3e-3, "t.py::d": 4e-3, "t.py::e": 5e-3}
FAST, SLOW = {"cpu": {"brand_raw": "Xeon 8480", "count": 8}}, {"cpu": {"brand_raw": "Xeon 2650", "count": 8}}


def judged(tmp_path: Path, base: dict[str, Any], candidate: dict[str, Any], factor: float, *options: str) -> tuple:
    document = tmp_path / "v.json"
    files = [
        wall(tmp_path / "b.json", ROWS, seed=1, machine=base),
        wall(tmp_path / "c.json", {name: factor * time for name, time in ROWS.items()}, seed=2, machine=candidate),
    ]
    status = main(["gate", *map(str, files), "--json", str(document), *options])
    return status, json.loads(document.read_text())


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_whatever_the_times_say_two_cpus_are_not_compared(tmp_path: Path, factor: float) -> None:
    status, document = judged(tmp_path, SLOW, FAST, factor)
    assert status == 3
    assert document["rows"] == []
    assert len(document["not_comparable"]) == len(ROWS)
    assert "different machines: CPU Xeon 2650 and Xeon 8480" in document["not_comparable"][0]["reason"]


@pytest.mark.parametrize(("factor", "expected"), [(0.5, 0), (2.0, 1)])
def test_the_caller_may_say_that_the_difference_is_meant(tmp_path: Path, factor: float, expected: int) -> None:
    status, document = judged(tmp_path, SLOW, FAST, factor, "--same-machine")
    assert status == expected
    assert document["not_comparable"] == []


@pytest.mark.parametrize(
    ("base", "candidate", "named"),
    [
        ({"cpu": {"brand_raw": "A", "count": 4}}, {"cpu": {"brand_raw": "A", "count": 8}}, "count of CPUs 4 and 8"),
        ({"cpu_governor": "performance"}, {"cpu_governor": "powersave"}, "governor performance and powersave"),
        ({"virtual": True}, {"virtual": False}, "machine virtual and not virtual"),
        ({"cpu": {"flags": ["fpu"]}}, {"cpu": {"flags": ["fpu", "hypervisor"]}}, "machine not virtual and virtual"),
        ({"node": "a"}, {"node": "b"}, "host a and b"),
        ({"node": "a", "cpu": {"brand_raw": "A"}}, {"node": "b"}, "CPU A and unknown"),
        ({"host": FAST}, {"host": SLOW}, "CPU Xeon 8480 and Xeon 2650"),
    ],
)
def test_what_moves_a_time_is_named(
    tmp_path: Path, base: dict[str, Any], candidate: dict[str, Any], named: str
) -> None:
    status, document = judged(tmp_path, base, candidate, 1.0)
    assert status == 3
    assert named in document["not_comparable"][0]["reason"]


@pytest.mark.parametrize(
    ("base", "candidate"),
    [
        ({"node": "runner-1", **FAST}, {"node": "runner-2", **FAST}),  # CI: another host of the same kind
        ({}, FAST),  # one host; an older version did not write its CPU down
        ({"cpu": {"count": 8}}, FAST),
    ],
)
def test_machines_that_are_alike_are_compared(tmp_path: Path, base: dict[str, Any], candidate: dict[str, Any]) -> None:
    assert judged(tmp_path, base, candidate, 1.0)[0] == 0


def test_a_bisection_skips_a_run_of_another_machine(tmp_path: Path) -> None:
    base = wall(tmp_path / "b.json", ROWS, seed=1, machine=SLOW)
    other = wall(tmp_path / "c.json", {name: 2 * time for name, time in ROWS.items()}, seed=2, machine=FAST)
    assert main(["gate", "--bisect", str(base), str(other)]) == 125
    assert main(["gate", "--bisect", str(base), str(other), "--same-machine"]) == 1


def test_one_run_of_another_machine_among_several_is_told(tmp_path: Path) -> None:
    runs = [
        wall(tmp_path / f"{side}{number}.json", ROWS, seed=number, minutes=number, machine=machine)
        for number, (side, machine) in enumerate([("b", FAST), ("c", FAST), ("c", SLOW), ("b", FAST)])
    ]
    call = ["gate", str(runs[0]), str(runs[1]), "--candidate", str(runs[2]), "--base", str(runs[3])]
    assert main(call) == 3


def test_the_exact_clock_asks_for_no_machine(tmp_path: Path) -> None:
    base = exact(tmp_path / "b.json", {PAIR: 5649}, machine=SLOW)
    assert main(["gate", str(base), str(exact(tmp_path / "c.json", {PAIR: 5649}, machine=FAST))]) == 0


def test_a_run_says_which_machine_measured_it(tmp_path: Path) -> None:
    output = tmp_path / "run.json"
    run_suite(Request(on="fake", quick=True, only=("*null*",)), output)
    machine = load_run(output).machine
    assert machine["virtual"] in (True, False)
    assert machine["cpu"] == machine_facts()["cpu"]
    assert difference([load_run(output)] * 2) == ""


ARM = """\
processor	: 0
CPU implementer	: 0x41
CPU part	: 0xd08
CPU revision	: 3

processor	: 1
CPU part	: 0xd03
"""


def test_an_arm_board_is_known_by_its_name_and_its_cores(tmp_path: Path) -> None:
    files = {
        "proc/cpuinfo": ARM,
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    facts = machine_facts(tmp_path)
    assert facts["cpu"]["brand_raw"] == (
        "Raspberry Pi 4 Model B Rev 1.4, implementer 0x41 part 0xd08 part 0xd03 revision 3"
    )
    assert (facts["cpu_governor"], facts["virtual"]) == ("ondemand", False)
    (tmp_path / "proc/device-tree/hypervisor").mkdir()
    assert machine_facts(tmp_path)["virtual"] is True
