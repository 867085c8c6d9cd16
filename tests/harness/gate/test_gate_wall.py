"""The gate by the wall clock: medians with an interval, blocks as the unit, silence where drift may be."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy
import pytest
from numpy.typing import NDArray

from dmasync.cli import main
from dmasync.harness.judge.blocks import Timed, interleaved
from dmasync.harness.judge.settings import GateSettings
from dmasync.harness.judge.verdict import Verdict
from dmasync.harness.judge.wall import WallRow, holm, judge_wall
from dmasync.harness.runs.facts import RowFacts
from dmasync.harness.runs.reading import Row
from tests.support.run_files import wall

ROWS = {"t.py::a": 1e-3, "t.py::b": 2e-3, "t.py::c": 3e-3, "t.py::d": 4e-3, "t.py::e": 5e-3}


def verdicts(tmp_path: Path, base: Path, candidate: Path, *options: str) -> tuple[int, dict[str, str], dict]:
    output = tmp_path / "verdicts.json"
    status = main(["gate", str(base), str(candidate), "--json", str(output), *options])
    document = json.loads(output.read_text())
    return status, {row["fullname"]: row["verdict"] for row in document["rows"]}, document


def test_two_quiet_runs_of_the_same_code_are_the_same(tmp_path: Path) -> None:
    base, candidate = wall(tmp_path / "b.json", ROWS, seed=1), wall(tmp_path / "c.json", ROWS, seed=2)
    status, found, _ = verdicts(tmp_path, base, candidate)
    assert (status, set(found.values())) == (0, {"same"})


@pytest.mark.parametrize(("factor", "verdict", "expected"), [(2.0, "regressed", 1), (0.5, "improved", 0)])
def test_one_row_that_doubled_or_halved_is_told(tmp_path: Path, factor: float, verdict: str, expected: int) -> None:
    base = wall(tmp_path / "b.json", ROWS, seed=1)
    candidate = wall(tmp_path / "c.json", {**ROWS, "t.py::a": factor * 1e-3}, seed=2)
    status, found, document = verdicts(tmp_path, base, candidate)
    assert status == expected
    assert found == {**dict.fromkeys(ROWS, "same"), "t.py::a": verdict}
    row = document["rows"][0]
    assert row["ratio_low"] < factor < row["ratio_high"]


def test_a_tenth_more_shows_when_the_other_rows_prove_the_machine_steady(tmp_path: Path) -> None:
    base = wall(tmp_path / "b.json", ROWS, seed=1, noise=0.005)
    candidate = wall(tmp_path / "c.json", {**ROWS, "t.py::a": 1.1e-3}, seed=2, noise=0.005)
    assert verdicts(tmp_path, base, candidate)[:2] == (
        1,
        {**dict.fromkeys(ROWS, "same"), "t.py::a": "regressed"},
    )


def test_a_tenth_more_on_every_row_may_be_drift(tmp_path: Path) -> None:
    base = wall(tmp_path / "b.json", ROWS, seed=1)
    candidate = wall(tmp_path / "c.json", {name: 1.1 * time for name, time in ROWS.items()}, seed=2)
    status, found, document = verdicts(tmp_path, base, candidate)
    assert (status, set(found.values())) == (3, {"cannot tell"})
    assert "drift" in document["rows"][0]["reason"]


def test_twice_as_slow_on_every_row_is_no_drift(tmp_path: Path) -> None:
    base = wall(tmp_path / "b.json", ROWS, seed=1)
    candidate = wall(tmp_path / "c.json", {name: 2 * time for name, time in ROWS.items()}, seed=2)
    assert verdicts(tmp_path, base, candidate)[0] == 1


def test_an_interval_wider_than_the_allowance_cannot_tell(tmp_path: Path) -> None:
    base = wall(tmp_path / "b.json", {"t": 1e-3}, seed=1, noise=0.3, rounds=12)
    candidate = wall(tmp_path / "c.json", {"t": 1e-3}, seed=2, noise=0.3, rounds=12)
    status, found, document = verdicts(tmp_path, base, candidate)
    assert (status, found) == (3, {"t": "cannot tell"})
    assert "wider than the allowance" in document["rows"][0]["reason"]


def test_one_round_is_no_measurement(tmp_path: Path) -> None:
    base = wall(tmp_path / "b.json", ROWS, rounds=1)
    status, found, _ = verdicts(tmp_path, base, wall(tmp_path / "c.json", ROWS, rounds=1))
    assert (status, set(found.values())) == (3, {"cannot tell"})


def test_max_regression_sets_what_passes(tmp_path: Path) -> None:
    base = wall(tmp_path / "b.json", ROWS, seed=1)
    candidate = wall(tmp_path / "c.json", {**ROWS, "t.py::a": 1.6e-3}, seed=2)
    assert verdicts(tmp_path, base, candidate, "--max-regression", "10")[0] == 1
    assert verdicts(tmp_path, base, candidate, "--max-regression", "80%")[:2] == (
        0,
        dict.fromkeys(ROWS, "same"),
    )


def test_files_saved_without_rounds_are_judged_by_their_quartiles(tmp_path: Path) -> None:
    paths = []
    for name, factor in (("b", 1.0), ("s", 1.0), ("r", 2.0)):
        path = wall(tmp_path / f"{name}.json", {row: factor * time for row, time in ROWS.items()})
        content = json.loads(path.read_text())
        for benchmark in content["benchmarks"]:
            del benchmark["stats"]["data"]
        path.write_text(json.dumps(content))
        paths.append(path)
    assert verdicts(tmp_path, paths[0], paths[1])[0] == 0
    assert verdicts(tmp_path, paths[0], paths[2])[0] == 1


def test_self_check_sees_a_base_that_drifts_while_it_is_measured(tmp_path: Path) -> None:
    path = wall(tmp_path / "b.json", {"t": 1e-3})
    content = json.loads(path.read_text())
    rising = [1e-3 * (1 + 0.01 * index) for index in range(60)]
    content["benchmarks"][0]["stats"] = {"data": rising, "iterations": 1}
    path.write_text(json.dumps(content))
    assert main(["gate", str(path), "--self-check"]) == 3
    assert main(["gate", str(wall(tmp_path / "q.json", ROWS, noise=0.003)), "--self-check"]) == 0


def test_interleaved_runs_show_a_tenth_under_a_trend_that_hides_it(tmp_path: Path) -> None:
    """The machine slows down by 2 % a run; taken A A A A B B B B the same data would tell nothing."""
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
    for place, side in enumerate("abbaabbaabbaabba"):
        slower = 1.1 if side == "b" else 1.0
        medians = {name: time * slower * 1.02**place for name, time in ROWS.items()}
        wall(tmp_path / side / f"{place}.json", medians, seed=place, minutes=place)
    status, found, document = verdicts(tmp_path, tmp_path / "a", tmp_path / "b")
    assert (status, set(found.values())) == (1, {"regressed"})
    assert all(1.08 < row["ratio"] < 1.12 for row in document["rows"])


def timed(places: str, side: str) -> list[Timed]:
    row = Row("t", RowFacts(), (), 1.0, 1.0, 1.0, 10, 1)
    return [Timed(place, row) for place, letter in enumerate(places) if letter == side]


@pytest.mark.parametrize(
    ("sequence", "pairs"),
    [
        ("ABBAABBA", 4),
        ("BAABBAAB", 4),
        ("ABBAABBAAB", 5),
        ("ABABABAB", None),
        ("AAAABBBB", None),
        ("ABBA", None),
    ],
)
def test_only_a_balanced_sequence_counts_as_interleaved(sequence: str, pairs: int | None) -> None:
    found = interleaved(timed(sequence, "A"), timed(sequence, "B"))
    assert (None if found is None else found.size) == pairs


def test_levels_are_holm_s() -> None:
    """Four hypotheses at 0.05: the third smallest chance fails its 0.05 / 2, so the last is not asked."""
    levels = holm([0.01, 0.04, 0.03, 0.005], 0.05)
    assert levels == pytest.approx([0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4])


# What a shared machine does to a suite of six rows that is run over and over: its speed wanders by 20 %, each
# process is a little faster or slower than the last, and rounds have heavy tails with outliers on top.
RUNS_A_SIDE = 12
SUITE = 6
ROUNDS = 40


def session(source: numpy.random.Generator, kind: str, runs: int) -> NDArray[numpy.float64]:
    """Seconds by run, row and round, in the order of measurement."""
    time = numpy.linspace(0, 1, runs * SUITE * ROUNDS).reshape(runs, SUITE, ROUNDS)
    if kind == "waves":
        drift = 0.1 * numpy.sin(2 * math.pi * (time * source.uniform(0.5, 3) + source.random()))
    elif kind == "wandering":
        walk = numpy.cumsum(source.normal(size=runs * SUITE))
        walk -= (walk.max() + walk.min()) / 2
        drift = (0.1 * walk / walk.max()).reshape(runs, SUITE, 1)
    else:
        drift = 0.2 * (time - 0.5) * source.choice([-1, 1])
    process = numpy.exp(source.normal(0, 0.015, size=(runs, SUITE, 1)))
    tails = numpy.exp(0.03 * numpy.clip(source.standard_t(2.5, size=time.shape), -15, 30))
    outliers = 1 + (source.random(time.shape) < 0.03) * source.pareto(1.5, size=time.shape)
    return 1e-5 * (1 + drift) * process * tails * outliers


def simulated(source: numpy.random.Generator, kind: str, effect: float) -> list[WallRow]:
    """Runs taken A B B A; the first row of B costs *effect* times as much."""
    sides = "ABBA" * (RUNS_A_SIDE // 2)
    seconds = session(source, kind, len(sides))
    seconds[[side == "B" for side in sides], 0] *= effect
    return [
        WallRow(
            *(
                [Timed(place, _row(str(row), seconds[place, row])) for place, at in enumerate(sides) if at == side]
                for side in "AB"
            )
        )
        for row in range(SUITE)
    ]


def _row(name: str, data: NDArray[numpy.float64]) -> Row:
    q1, middle, q3 = numpy.quantile(data, (0.25, 0.5, 0.75))
    return Row(name, RowFacts(), tuple(data), float(middle), float(q1), float(q3), len(data), 1)


def fixed_threshold_alarms(rows: list[WallRow]) -> list[bool]:
    """What a fixed 10 % on the mean says of each row, all runs of a side together."""
    means = [[numpy.mean([one.row.data for one in side]) for side in (row.base, row.candidate)] for row in rows]
    return [bool(after > 1.1 * before) for before, after in means]


@pytest.mark.parametrize("trials_of_a_kind", [25, pytest.param(333, marks=pytest.mark.nightly)])
def test_false_alarms_and_power_under_the_noise_of_a_shared_machine(
    trials_of_a_kind: int, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = GateSettings()
    kinds = ("waves", "wandering", "trend")
    source = numpy.random.default_rng(20)
    moved = {Verdict.REGRESSED, Verdict.IMPROVED}
    false = found = fixed_false = fixed_found = same = 0
    for kind in kinds:
        for _ in range(trials_of_a_kind):
            nothing = simulated(source, kind, 1.0)
            verdicts_of_nothing = [row.verdict for row in judge_wall(nothing, settings)]
            false += bool(moved.intersection(verdicts_of_nothing))
            same += verdicts_of_nothing.count(Verdict.SAME)
            fixed_false += any(fixed_threshold_alarms(nothing))
            slower = simulated(source, kind, 1.1)
            found += judge_wall(slower, settings)[0].verdict is Verdict.REGRESSED
            fixed_found += fixed_threshold_alarms(slower)[0]
    total = trials_of_a_kind * len(kinds)
    with capsys.disabled():
        print(  # noqa: T201  # the figures are the point
            f"\n{total} A/A pairs of {SUITE} rows, {RUNS_A_SIDE} runs a side taken A B B A, drift of 20 %:\n"
            f"  this gate:             false alarm in {false / total:6.1%} of the pairs, "
            f"+10 % found in {found / total:6.1%}, A/A rows called same {same / total / SUITE:.0%}\n"
            f"  fixed 10 % on the mean: false alarm in {fixed_false / total:6.1%} of the pairs, "
            f"+10 % found in {fixed_found / total:6.1%}"
        )
    assert false <= 0.01 * total
    assert found >= 0.95 * total


@pytest.mark.parametrize("trials", [60, pytest.param(300, marks=pytest.mark.nightly)])
def test_single_pairs_on_a_drifting_machine_raise_no_false_alarm(
    trials: int, capsys: pytest.CaptureFixture[str]
) -> None:
    source = numpy.random.default_rng(21)
    false = 0
    for trial in range(trials):
        seconds = session(source, ("waves", "wandering", "trend")[trial % 3], 2)
        rows = [
            WallRow([Timed(0, _row(str(row), seconds[0, row]))], [Timed(1, _row(str(row), seconds[1, row]))])
            for row in range(SUITE)
        ]
        found = {row.verdict for row in judge_wall(rows, GateSettings())}
        false += bool(found & {Verdict.REGRESSED, Verdict.IMPROVED})
    with capsys.disabled():
        print(f"\nsingle A/A pairs, drift of 20 %: false alarm in {false / trials:.1%}")  # noqa: T201
    assert false <= 0.01 * trials
