"""What labs and their services read: each format is accepted by its own validator, and no doubt becomes a pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import kcidb_io
import pytest
from tap.line import Result as TapResult
from tap.parser import Parser as TapParser

from dmasync.cli import main
from dmasync.harness.formats.names import dotted
from dmasync.harness.runs.facts import RunFacts
from tests.support.run_files import benchmark, document, exact, facts, write

FORMATS = ("kcidb", "ktap", "lava", "bencher", "action-benchmark", "mail")
SLOWER, FASTER, SAME, NOISY, GONE, NEW, OTHER = (
    f"benchmarks/test_sync_pair.py::test_sync_pair[{name}]"
    for name in ("slower", "faster", "same", "noisy", "gone", "new", "other")
)
HOSTILE = "t.py::x[<script># SKIP|`|]\x1b[31m\n| a | b |\u2028é"


def run_file(path: Path, counts: dict[str, list[int]], minutes: int, kernel: str, arguments: str) -> Path:
    rows = []
    for name, rounds in counts.items():
        changes: dict[str, Any] = {"exact": len(set(rounds)) == 1}
        if name == OTHER:
            changes["size"] = 4096 * (1 + minutes)  # a fact that must agree
        rows.append(benchmark(name, [count * 1e-9 for count in rounds], facts(**changes)))
    told = RunFacts(kernel=kernel, kernel_command_line=arguments, kernel_config_digest="ab12" * 16, target="vm")
    return write(path, document(rows, minutes=minutes, run=told))


@pytest.fixture
def written(tmp_path: Path) -> dict[str, str]:
    """Each format's file for a pair of runs with every verdict that there is."""
    noisy = [100, 200, 300, 400, 500, 600, 700, 800, 900]
    base = {SLOWER: [5649] * 9, FASTER: [3971] * 9, SAME: [1800] * 9, NOISY: noisy, GONE: [7] * 9, OTHER: [5] * 9}
    candidate = {SLOWER: [5700] * 9, FASTER: [3900] * 9, SAME: [1800] * 9, NOISY: noisy[::-1], NEW: [9] * 9}
    candidate |= {OTHER: [5] * 9, HOSTILE: [400] * 9}
    files = (
        run_file(tmp_path / "base.json", {**base, HOSTILE: [300] * 9}, 0, "6.12.1", "nokaslr"),
        run_file(tmp_path / "candidate.json", candidate, 1, "6.12.2", "nokaslr swiotlb=force"),
    )
    outputs = {name: tmp_path / f"{name}.out" for name in FORMATS}
    options = [part for name, path in outputs.items() for part in (f"--{name}", str(path))]
    assert main(["gate", *map(str, files), *options]) == 1
    return {name: path.read_text(encoding="utf-8") for name, path in outputs.items()}


def statuses(report: dict[str, Any]) -> dict[str, str]:
    return {test["misc"]["fullname"]: test["status"] for test in report["tests"]}


def test_kcidb_accepts_the_report_and_reads_doubt_as_neither_pass_nor_failure(written: dict[str, str]) -> None:
    report = json.loads(written["kcidb"])
    assert kcidb_io.schema.V5_3.is_valid_exactly(report)
    found = statuses(report)
    assert (found[SLOWER], found[FASTER], found[SAME]) == ("FAIL", "PASS", "PASS")
    assert (found[NOISY], found[OTHER], found[NEW], found[GONE]) == ("DONE", "DONE", "DONE", "MISS")
    assert found["the comparison as a whole"] == "FAIL"
    numbers = {test["misc"]["fullname"]: test.get("number") for test in report["tests"]}
    assert numbers[SLOWER] == {"value": 5700, "unit": "instructions"}
    assert numbers[GONE] is None
    assert len({test["id"] for test in report["tests"]}) == len({test["path"] for test in report["tests"]}) == 9


def test_a_report_that_is_sent_twice_adds_nothing_to_kcidb(tmp_path: Path) -> None:
    files = [str(exact(tmp_path / f"{side}.json", {SAME: 1})) for side in "bc"]
    reports = []
    for name in ("one.json", "two.json"):
        main(["gate", *files, "--kcidb", str(tmp_path / name)])
        reports.append((tmp_path / name).read_text())
    assert reports[0] == reports[1]


def test_a_lab_reports_under_its_own_name_to_a_build_that_kcidb_has(tmp_path: Path) -> None:
    files = [str(exact(tmp_path / f"{side}.json", {SAME: 1})) for side in "bc"]
    named = ["--kcidb-origin", "our_lab", "--kcidb-build", "maestro:6512"]
    assert main(["gate", *files, "--kcidb", str(tmp_path / "k.json"), *named]) == 0
    report = json.loads((tmp_path / "k.json").read_text())
    assert kcidb_io.schema.V5_3.is_valid_exactly(report)
    assert {(test["origin"], test["build_id"]) for test in report["tests"]} == {("our_lab", "maestro:6512")}
    assert "builds" not in report


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kcidb", "F", "--kcidb-origin", "Our Lab"], "--kcidb-origin is 'Our Lab'"),
        (["--kcidb", "F", "--kcidb-build", "6512"], "--kcidb-build is '6512'"),
        (["--kcidb-origin", "our_lab"], "add --kcidb F"),
    ],
)
def test_what_kcidb_would_refuse_is_refused_before_judging(
    tmp_path: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(exact(tmp_path / f"{side}.json", {SAME: 1})) for side in "bc"]
    output = tmp_path / "k.json"
    assert main(["gate", *files, *(str(output) if option == "F" else option for option in options)]) == 2
    assert said in capsys.readouterr().err
    assert not output.exists()


def test_a_reader_of_tap_sees_every_row_once_and_no_doubt_as_a_pass(written: dict[str, str]) -> None:
    lines = list(TapParser().parse_text(written["ktap"]))
    found = {line.description.strip(): line for line in lines if isinstance(line, TapResult)}
    assert len(found) == 9
    passed = {name for name, line in found.items() if line.ok and not line.skip}
    assert passed == {dotted(FASTER), dotted(SAME)}
    assert {name for name, line in found.items() if line.skip} == {dotted(NEW)}
    assert found[dotted(NOISY)].ok is found[dotted(GONE)].ok is False
    assert [line.category for line in lines].count("unknown") == 1  # the version line
    assert written["ktap"].startswith("KTAP version 1\n1..9\n")


def test_lava_gets_words_that_it_knows(written: dict[str, str]) -> None:
    found = dict(line.split(" ", 1) for line in written["lava"].splitlines())
    assert len(found) == 9
    assert found[dotted(SLOWER)] == "fail 5700 instructions"
    assert found[dotted(SAME)] == "pass 1800 instructions"
    assert found[dotted(NOISY)].split()[0] == found[dotted(OTHER)].split()[0] == found[dotted(GONE)] == "unknown"
    assert found[dotted(NEW)] == "skip 9 instructions"


BENCHER = {
    "type": "object",
    "propertyNames": {"minLength": 1, "maxLength": 1024, "not": {"pattern": "^[a-z0-9-]+$"}},
    "additionalProperties": {
        "type": "object",
        "propertyNames": {"pattern": "^[a-z0-9-]{1,64}$"},
        "additionalProperties": {
            "type": "object",
            "properties": {key: {"type": "number"} for key in ("value", "lower_value", "upper_value")},
            "required": ["value"],
            "additionalProperties": False,
        },
    },
}
"""The part of Bencher's Metric Format that is written. Bencher's own schema (bencher.dev/bmf.json, in no package
index) asks for less: objects of objects, in each of which ``value`` is a number. A benchmark's name of small letters,
digits and dashes alone would be taken for a slug."""


def test_bencher_gets_what_was_judged_and_a_count_of_the_rest(written: dict[str, str]) -> None:
    found = json.loads(written["bencher"])
    jsonschema.validate(found, BENCHER)
    assert found[dotted(SLOWER)] == {"instructions": {"value": 5700, "lower_value": 5700, "upper_value": 5700}}
    assert dotted(NOISY) not in found
    assert dotted(NEW) in found
    assert found["dmasync.gate"] == {"regressed": {"value": 2}, "not-judged": {"value": 3}}


ACTION = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "unit": {"type": "string"},
            "value": {"type": "number"},
            "range": {"type": "string"},
            "extra": {"type": "string"},
        },
        "required": ["name", "unit", "value"],
        "additionalProperties": False,
    },
}
"""The keys that github-action-benchmark's custom format has. The action is in no package index: as it reads a file it
checks these keys (its release 1.22.0 was seen to take such a one), and keeps a ``range`` as it is unless that begins
with ±."""


def test_the_benchmark_action_gets_what_was_judged_and_a_count_of_the_rest(written: dict[str, str]) -> None:
    found = json.loads(written["action-benchmark"])
    jsonschema.validate(found, ACTION)
    values = {entry["name"]: entry["value"] for entry in found}
    assert values[dotted(SLOWER)] == 5700
    assert dotted(NOISY) not in values
    assert values["dmasync.gate.not-judged"] == 3


@pytest.mark.parametrize("name", ["bencher", "action-benchmark"])
def test_nothing_in_common_is_counted_where_only_numbers_are_kept(tmp_path: Path, name: str) -> None:
    base, candidate = exact(tmp_path / "b.json", {}), exact(tmp_path / "c.json", {})
    assert main(["gate", str(base), str(candidate), f"--{name}", str(tmp_path / "o")]) == 3
    found = json.loads((tmp_path / "o").read_text())
    count = found["dmasync.gate"]["not-judged"]["value"] if name == "bencher" else found[1]["value"]
    assert count == 1


def test_the_mail_says_what_moved_and_how_to_see_it(written: dict[str, str]) -> None:
    text = written["mail"]
    lines = text.splitlines()
    assert lines[0].startswith("Subject: [dmasync] ")
    (moved,) = (line for line in lines if line.endswith(SLOWER) and "%" in line)
    assert moved.split() == ["5649", "+0.90%", "5700", SLOWER]
    for wanted in ("%stddev", "%change", "0123456789abcdef", "sha256 ab12", "6.12.2", "not judged (3 rows):"):
        assert wanted in text
    commands = text[text.index("how to reproduce:") :]
    assert "--kernel KERNEL-6.12.2 --append=swiotlb=force -o candidate.json" in commands
    assert "--append=nokaslr" not in commands
    assert commands.rstrip().endswith("dmasync gate base.json candidate.json")
    assert not {c for c in text if not c.isprintable() and c != "\n"}


def test_the_mail_gives_the_deviation_of_noisy_rows(tmp_path: Path) -> None:
    row = facts(unit="ns", exact=False, target="hardware")
    for name, middle in (("b.json", 1e-6), ("c.json", 3e-6)):
        rounds = [middle * factor for factor in (0.9, 0.95, 1.0, 1.05, 1.1) * 12]
        write(tmp_path / name, document([benchmark(SLOWER, rounds, row)], minutes=len(name)))
    main(["gate", str(tmp_path / "b.json"), str(tmp_path / "c.json"), "--mail", str(tmp_path / "m")])
    (line,) = (line for line in (tmp_path / "m").read_text().splitlines() if line.endswith(SLOWER) and "ns" in line)
    assert line.split()[:5] == ["1000ns", "±7%", "+200.0%", "3000ns", "±7%"]


def test_names_of_other_projects_stay_apart() -> None:
    names = [dotted(name) for name in ("a/b.py::t[x y]", "a/b.py::t[x_y]", "a.b.py::t[x_y]", HOSTILE, "", "é", "è")]
    assert len(set(names)) == len(names)
    assert dotted(SLOWER) == "dmasync.test_sync_pair.test_sync_pair.slower"


def test_the_first_night_is_no_pass_in_any_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(output: Path, **options: Any) -> None:
        exact(output, {SAME: 1800})

    monkeypatch.setattr("dmasync.harness.history.nightly.measure_host", measure)
    call = ["history", "--storage", str(tmp_path / "kept"), "nightly"]
    assert main([*call, "--kcidb", str(tmp_path / "k"), "--ktap", str(tmp_path / "t")]) == 0
    report = json.loads((tmp_path / "k").read_text())
    assert kcidb_io.schema.V5_3.is_valid_exactly(report)
    assert "PASS" not in statuses(report).values()
    assert "# SKIP" in (tmp_path / "t").read_text().splitlines()[-1]
    assert main([*call, "--kcidb", str(tmp_path / "k")]) == 0
    assert statuses(json.loads((tmp_path / "k").read_text()))[SAME] == "PASS"
