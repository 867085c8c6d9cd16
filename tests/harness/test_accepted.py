"""What the nights show together: levels that rose, and regressions that somebody accepted."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from dmasync.cli import main
from dmasync.harness.history.moves import with_moves
from dmasync.harness.history.nightly import nightly
from dmasync.harness.judge.compare import judge
from dmasync.harness.judge.settings import GateSettings
from dmasync.harness.judge.verdict import Verdict
from dmasync.harness.runs.kept import Standing
from dmasync.harness.runs.reading import load_run
from dmasync.harness.runs.storage import Storage
from tests.support.run_files import HEAP, NULL, PAIR, benchmark, document, exact, facts, wall, write

DAY = 24 * 60
WHY = ["--reason", 'a "fix" for CVE-1\n', "--owner", "an é <a@b>"]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "kept")


def measuring(count: int, day: int):
    def measure(output: Path) -> None:
        exact(output, {PAIR: count, HEAP: 3971, NULL: 1800}, minutes=day * DAY)

    return measure


def measuring_wall(factor: float, day: int, noise: float = 0.01, cpu: str = "A"):
    """Five rows that all cost *factor* of what they did, and what a night does to all of them: 3 % or so."""

    def measure(output: Path) -> None:
        machine = 1 + 0.03 * ((day * 7919) % 13 - 6) / 6
        medians = {"a": 1e-3, "b": 2e-3, "c": 3e-3, "d": 1e-3, "e": 2e-3}
        wall(
            output,
            {name: one * factor * machine for name, one in medians.items()},
            noise=noise,
            seed=day,
            minutes=day * DAY,
            machine={"cpu": {"brand_raw": cpu, "count": 4}},
        )

    return measure


def accept(storage: Storage, *more: str) -> int:
    return main(["history", "--storage", str(storage.folder), "accept", *more])


def test_a_rise_that_no_night_shows_is_found_over_the_nights(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    for day in range(20):
        nightly(storage, measure=measuring_wall(1.0, day))
    capsys.readouterr()
    statuses = [int(nightly(storage, measure=measuring_wall(1.08, day))) for day in range(20, 32)]
    assert statuses[-1] == 1
    assert "rose on 2026-03-2" in capsys.readouterr().out
    assert storage.kept()[-1].standing is Standing.REGRESSED


def test_a_board_with_another_cpu_begins_anew_and_blames_no_night(
    storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for day in range(15):
        nightly(storage, measure=measuring_wall(1.0, day))
    assert nightly(storage, measure=measuring_wall(1.26, 15, cpu="B")) == 3
    measuring_wall(1.26, 16, cpu="B")(tmp_path / "new.json")
    assert main(["history", "--storage", str(storage.folder), "keep", "--good", str(tmp_path / "new.json")]) == 0
    statuses = [int(nightly(storage, measure=measuring_wall(1.26, day, cpu="B"))) for day in range(17, 29)]
    assert 1 not in statuses
    assert "rose on" not in capsys.readouterr().out
    statuses = [int(nightly(storage, measure=measuring_wall(1.36, day, cpu="B"))) for day in range(29, 41)]
    assert statuses[-1] == 1


def test_quiet_nights_stay_quiet(storage: Storage) -> None:
    statuses = [int(nightly(storage, measure=measuring_wall(1.0, day))) for day in range(30)]
    assert 1 not in statuses


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ([1.0] * 60 + [1.1] * 20, "rose on 2026-04-30 and stayed"),
        ([1.0] * 30 + [0.8] * 30 + [0.88] * 20, "rose on 2026-04-30 and stayed"),
        ([1.0] * 40 + [1.04] * 40 + [1.08] * 20, "rose since 2026-03-01 in steps too small to tell"),
        ([1.0] * 40 + [1.01**night for night in range(20)] + [1.01**20] * 20, "crept from 2026-04-"),
        ([1.0] * 40 + [1.2] * 20 + [1.0] * 20, ""),
        ([1.0] * 40 + [1.04] * 40, ""),
        ([1.0] * 40 + [0.8] * 40, ""),
        ([1.0] * 79 + [3.0], ""),
    ],
)
def test_a_level_counts_as_risen_whichever_way_it_got_there(tmp_path: Path, levels: list[float], said: str) -> None:
    nights = [
        load_run(wall(tmp_path / "r.json", {"a": 1e-3 * level}, noise=0.005, rounds=9, seed=day, minutes=day * DAY))
        for day, level in enumerate(levels)
    ]
    plain = judge(nights[-2:-1], nights[-1:], GateSettings())
    same = replace(plain, rows=[replace(row, verdict=Verdict.SAME) for row in plain.rows])
    (row,) = with_moves(same, nights, GateSettings()).rows
    assert row.verdict is (Verdict.REGRESSED if said else Verdict.SAME)
    assert said in row.reason


def test_a_row_that_is_too_noisy_to_show_a_rise_is_told(storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    def measure(day: int):
        def measured(output: Path) -> None:
            medians = {name: 1e-3 * (1 + 0.4 * ((day * 7919 + at * 31) % 13) / 13) for at, name in enumerate("abcde")}
            wall(output, medians, seed=day, minutes=day * DAY)

        return measured

    for day in range(20):
        nightly(storage, measure=measure(day))
    assert "rows are noisy from night to night" in capsys.readouterr().out


def test_an_accepted_regression_does_not_alarm_until_it_gets_worse(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    nightly(storage, measure=measuring(5649, 0))
    assert nightly(storage, measure=measuring(5900, 1)) == 1
    assert accept(storage, PAIR, *WHY, "--commit", "c0ffee") == 0
    capsys.readouterr()
    assert nightly(storage, measure=measuring(5900, 2)) == 0
    told = capsys.readouterr().out
    assert "1 regressions are known and accepted" in told
    assert storage.kept()[-1].standing is Standing.GOOD
    assert nightly(storage, measure=measuring(6000, 3)) == 1
    assert "worse than was accepted" in capsys.readouterr().out


def test_an_acceptance_is_for_its_rows_and_its_board_alone(tmp_path: Path, storage: Storage) -> None:
    nightly(storage, measure=measuring(5649, 0))
    nightly(storage, measure=measuring(5900, 1))
    storage.keep(load_run(exact(tmp_path / "r.json", {PAIR: 1}, machine={"node": "other"})), Standing.FIRST)
    assert accept(storage, HEAP, *WHY) == 0
    assert nightly(storage, measure=measuring(5900, 2)) == 1
    assert accept(storage, PAIR, *WHY, "--board", "other") == 0
    assert nightly(storage, measure=measuring(5900, 3)) == 1
    assert accept(storage, "*test_pair*", *WHY, "--board", "board") == 0
    assert nightly(storage, measure=measuring(5900, 4)) == 0


def test_an_acceptance_that_is_over_alarms_again(storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    nightly(storage, measure=measuring(5649, 0))
    nightly(storage, measure=measuring(5900, 1))
    today = datetime.now(timezone.utc).date()
    assert accept(storage, PAIR, *WHY, "--until", today.isoformat()) == 0
    (path,) = (storage.folder / "accepted").glob("*.toml")
    path.write_text(path.read_text().replace(today.isoformat(), (today - timedelta(days=1)).isoformat()))
    capsys.readouterr()
    assert nightly(storage, measure=measuring(5900, 2)) == 1
    assert "was accepted until" in capsys.readouterr().out
    assert main(["history", "--storage", str(storage.folder), "accepted"]) == 0
    assert "(over)" in capsys.readouterr().out


def test_an_accepted_rise_over_nights_is_the_level_from_then_on(storage: Storage) -> None:
    for day in range(20):
        nightly(storage, measure=measuring_wall(1.0, day))
    for day in range(20, 32):
        nightly(storage, measure=measuring_wall(1.08, day))
    assert accept(storage, "*", *WHY) == 0
    assert {int(nightly(storage, measure=measuring_wall(1.08, day))) for day in range(32, 36)} <= {0, 3}


def test_pruning_spares_a_run_whose_level_was_accepted(storage: Storage) -> None:
    nightly(storage, measure=measuring(5649, 0))
    nightly(storage, measure=measuring(5900, 1))
    accept(storage, PAIR, *WHY)
    accepted = storage.kept()[-1].path
    nightly(storage, measure=measuring(6900, 2))
    assert main(["history", "--storage", str(storage.folder), "prune", "--keep", "0"]) == 0
    assert accepted in {one.path for one in storage.kept()}
    assert len(storage.kept()) == 2


def test_an_acceptance_holds_when_the_run_gets_another_standing(storage: Storage) -> None:
    nightly(storage, measure=measuring(5649, 0))
    nightly(storage, measure=measuring(5900, 1))
    accept(storage, PAIR, *WHY)
    path = storage.kept()[-1].path
    path.rename(path.with_name(path.name.replace("_regressed", "_unjudged")))
    assert nightly(storage, measure=measuring(5900, 2)) == 0


def test_what_was_accepted_is_listed_with_reason_and_owner(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", "--storage", str(storage.folder), "accepted"]) == 0
    assert capsys.readouterr().out == "nothing was accepted\n"
    nightly(storage, measure=measuring(5649, 0))
    accept(storage, PAIR, *WHY, "--commit", "c0ffee", "--until", "2999-01-01")
    capsys.readouterr()
    assert main(["history", "--storage", str(storage.folder), "accepted", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["accepted"]
    assert (told["row"], told["board"], told["commit"], told["until"]) == (PAIR, "board", "c0ffee", "2999-01-01")
    assert (told["reason"], told["owner"], told["in_force"]) == (WHY[1], WHY[3], True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no such row", *WHY], "no newest run in"),
        ([PAIR, *WHY, "--board", "nobody"], "no newest run of nobody"),
        ([PAIR, *WHY, "--until", "2020-01-01"], "is over already"),
    ],
)
def test_what_would_accept_nothing_is_refused(
    storage: Storage, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    nightly(storage, measure=measuring(5649, 0))
    capsys.readouterr()
    assert accept(storage, *arguments) == 2
    told = capsys.readouterr().err
    assert said in told
    assert len(told.splitlines()) == 1
    assert not (storage.folder / "accepted").exists()


@pytest.mark.parametrize("given", ["--until tomorrow", "--until 2026-13-01"])
def test_a_day_that_is_none_is_refused(storage: Storage, given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        accept(storage, PAIR, *WHY, *given.split())
    assert stop.value.code == 2
    assert "expected YYYY-MM-DD" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("row = ", "Invalid value"),
        ('row = "x"\nboard = "b"\nrun = "r"\nreason = "y"\n', "'owner' is missing"),
        ('row = "x"\nboard = "b"\nrun = "r"\nreason = "y"\nowner = "z"\nutil = "2026-01-01"\n', "'util' is not known"),
        ('row = "x"\nboard = "b"\nrun = "r"\nreason = "y"\nowner = "z"\nuntil = "soon"\n', "soon"),
    ],
)
def test_an_acceptance_that_cannot_be_read_stops_the_night_before_it_measures(
    storage: Storage, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    (storage.folder / "accepted").mkdir(parents=True)
    path = storage.folder / "accepted" / "x.toml"
    path.write_text(text)
    assert main(["history", "--storage", str(storage.folder), "nightly", "--bench=--on=fake"]) == 2
    told = capsys.readouterr().err
    assert f"{path}: " in told
    assert said in told
    assert "measuring" not in told


def test_a_row_whose_facts_changed_starts_a_new_series(tmp_path: Path, storage: Storage) -> None:
    def measure(day: int, size: int, seconds: float):
        def measured(output: Path) -> None:
            row = facts(unit="ns", exact=False, target="hardware", size=size)
            rounds = [seconds * (1 + 0.001 * (at % 5)) for at in range(20)]
            write(output, document([benchmark(PAIR, rounds, row)], minutes=day * DAY, not_measured={}))

        return measured

    for day in range(20):
        nightly(storage, measure=measure(day, 4096, 1e-6))
    assert nightly(storage, measure=measure(20, 8192, 2e-6)) == 3
    assert [int(nightly(storage, measure=measure(day, 8192, 2e-6))) for day in range(21, 23)] == [3, 3]
