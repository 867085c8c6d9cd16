"""Kept runs: found by kind, never overwritten, damaged ones named and left alone; and one night's work."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from dmasync.cli import main
from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.history.nightly import measure_host, nightly
from dmasync.harness.history.prune import prunable
from dmasync.harness.runs.facts import RunFacts
from dmasync.harness.runs.kept import Kind, Standing
from dmasync.harness.runs.reading import load_run
from dmasync.harness.runs.storage import Storage
from tests.support.run_files import HEAP, NULL, PAIR, benchmark, document, exact, facts, wall, write


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "kept")


def keep(storage: Storage, source: Path, standing: Standing = Standing.GOOD) -> Path:
    return storage.keep(load_run(source), standing)


def test_runs_are_kept_by_host_kernel_and_date(tmp_path: Path, storage: Storage) -> None:
    kept = keep(storage, exact(tmp_path / "r.json", {PAIR: 1}))
    assert kept.parent.name == "board_x86-64_vm_exact_py3.11.7_6.12.117"
    assert kept.name == "0001_20260301_120000_good.json"
    assert keep(storage, exact(tmp_path / "r.json", {PAIR: 1})).name.startswith("0002_")


def test_pytest_benchmark_itself_reads_the_storage(tmp_path: Path, storage: Storage) -> None:
    run = document([benchmark(PAIR, [5649e-9] * 9, facts())])
    for name in ("ops", "total", "stddev", "ld15iqr", "hd15iqr", "outliers", "iqr_outliers", "stddev_outliers"):
        run["benchmarks"][0]["stats"][name] = 0
    keep(storage, write(tmp_path / "r.json", run))
    call = [sys.executable, "-m", "pytest_benchmark", "--storage", f"file://{storage.folder}", "compare"]
    listed = subprocess.run(call, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "benchmark: 1 tests" in listed.stdout
    assert "test_pair[udmabuf-READ-1MiB]" in listed.stdout


def test_the_baseline_is_the_newest_good_run_of_the_same_kind(tmp_path: Path, storage: Storage) -> None:
    keep(storage, exact(tmp_path / "1.json", {PAIR: 1}, minutes=1))
    wanted = keep(storage, exact(tmp_path / "2.json", {PAIR: 2}, minutes=2))
    keep(storage, exact(tmp_path / "3.json", {PAIR: 3}, minutes=3), Standing.REGRESSED)
    keep(storage, exact(tmp_path / "4.json", {PAIR: 4}, minutes=4), Standing.UNJUDGED)
    keep(storage, exact(tmp_path / "5.json", {PAIR: 5}, minutes=5, machine={"node": "other"}))
    row = benchmark(PAIR, [1e-6] * 5, facts(target="hardware", unit="ns", exact=False))
    keep(storage, write(tmp_path / "6.json", document([row], minutes=6)))
    baseline = storage.baseline(Kind.of(load_run(tmp_path / "1.json")))
    assert baseline is not None
    assert baseline.path == wanted


def test_another_kernel_is_the_same_kind(tmp_path: Path, storage: Storage) -> None:
    older = exact(tmp_path / "1.json", {PAIR: 1}, run=RunFacts(kernel="6.12.90", target="vm"))
    keep(storage, older)
    assert storage.baseline(Kind.of(load_run(exact(tmp_path / "2.json", {PAIR: 1})))) is not None


def test_damaged_files_are_named_and_left_alone(
    tmp_path: Path, storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = keep(storage, exact(tmp_path / "r.json", {PAIR: 1}))
    cut = kept.with_name("0002_20260302_120000_good.json")
    cut.write_text(kept.read_text()[:100])
    (kept.parent / ".20260303_120000_good.abc.partial").write_text("{")
    assert main(["history", "--storage", str(storage.folder)]) == 0
    out = capsys.readouterr().out
    assert f"damaged, left alone: {cut}: is not JSON" in out
    assert "left half-written by a run that was killed" in out
    assert main(["history", "--storage", str(storage.folder), "prune", "--keep", "0"]) == 0
    assert cut.exists()
    assert storage.baseline(Kind.of(load_run(kept))) is not None
    assert keep(storage, tmp_path / "r.json").name.startswith("0003_")


def test_list_for_a_program(tmp_path: Path, storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    keep(storage, exact(tmp_path / "r.json", {PAIR: 1, HEAP: 2}))
    assert main(["history", "--storage", str(storage.folder), "list", "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["kernel"], run["clock"], run["rows"], run["standing"]) == ("6.12.117", "exact", 2, "good")


def test_the_storage_may_be_named_before_or_behind_the_action(
    tmp_path: Path, storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = keep(storage, exact(tmp_path / "r.json", {PAIR: 1}))
    place = ["--storage", str(storage.folder)]
    for call in (["list", "--json", *place], [*place, "list", "--json"]):
        assert main(["history", *call]) == 0
        assert [one["file"] for one in json.loads(capsys.readouterr().out)["runs"]] == [str(kept)]


def test_a_run_without_rows_is_not_kept(tmp_path: Path, storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    empty = write(tmp_path / "empty.json", document([]))
    assert main(["history", "keep", str(empty), "--storage", str(storage.folder)]) == 2
    assert "holds no rows" in capsys.readouterr().err
    assert not storage.folder.exists()


def test_listing_a_storage_that_is_not_there_makes_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "--storage", str(tmp_path / "none")]) == 0
    assert "no runs are kept" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_prune_spares_the_newest_the_young_and_the_baseline(tmp_path: Path, storage: Storage) -> None:
    keep(storage, exact(tmp_path / "r.json", {PAIR: 1}, minutes=0))
    baseline = keep(storage, exact(tmp_path / "r.json", {PAIR: 1}, minutes=1))
    for minutes in (2, 3, 4):
        keep(storage, exact(tmp_path / "r.json", {PAIR: 1}, minutes=minutes), Standing.REGRESSED)
    kept = storage.kept()
    now = kept[-1].moment + timedelta(minutes=1)

    def gone(keep: int | None, older_than: float | None) -> list[int]:
        age = None if older_than is None else timedelta(minutes=older_than)
        return [kept.index(one) for one in prunable(kept, keep=keep, older_than=age, now=now)]

    assert kept[1].path == baseline
    assert gone(1, None) == [0, 2, 3]
    assert gone(0, None) == [0, 2, 3, 4]
    assert gone(None, 2.5) == [0, 2]
    assert gone(2, 2.5) == [0, 2]


@pytest.mark.parametrize(
    "arguments",
    [["prune"], ["prune", "--keep", "-1"], ["prune", "--older-than", "-3"], ["prune", "--older-than", "nan"]],
)
def test_prune_without_a_rule_removes_nothing(tmp_path: Path, storage: Storage, arguments: list[str]) -> None:
    kept = keep(storage, exact(tmp_path / "r.json", {PAIR: 1}))
    assert main(["history", "--storage", str(storage.folder), *arguments]) == 2
    assert kept.exists()


def test_dry_run_only_says_what_would_go(tmp_path: Path, storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    first = keep(storage, exact(tmp_path / "r.json", {PAIR: 1}))
    keep(storage, exact(tmp_path / "r.json", {PAIR: 1}, minutes=1))
    prune = ["history", "--storage", str(storage.folder), "prune", "--keep", "1"]
    assert main([*prune, "--dry-run"]) == 0
    assert capsys.readouterr().out == f"would remove {first}\n"
    assert first.exists()
    assert main(prune) == 0
    assert not first.exists()


def test_a_prune_that_removes_nothing_says_so(
    tmp_path: Path, storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = keep(storage, exact(tmp_path / "r.json", {PAIR: 1}))
    for more in ([], ["--dry-run"]):
        assert main(["history", "--storage", str(storage.folder), "prune", "--keep", "1", *more]) == 0
        assert capsys.readouterr().out == "nothing to remove: each run is spared\n"
    assert kept.exists()


def test_a_full_disk_leaves_no_empty_folder_of_a_kind(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run = load_run(exact(tmp_path / "r.json", {PAIR: 1}))
    monkeypatch.setattr("dmasync.harness.runs.storage._link_new", full)
    with pytest.raises(CommandError, match="No space left on device"):
        storage.keep(run, Standing.GOOD)
    assert not storage.folder.exists()


def test_a_folder_in_the_place_of_the_run_to_keep_is_told(
    tmp_path: Path, storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir()
    assert main(["history", "--storage", str(storage.folder), "keep", str(tmp_path / "runs")]) == 2
    assert "runs: is a folder: name a run file in it" in capsys.readouterr().err
    assert not storage.folder.exists()


def test_the_table_of_a_night_names_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def suite(_: object, output: Path, __: object) -> ExitStatus:
        exact(output, {PAIR: 1})
        return ExitStatus.GOOD

    monkeypatch.setattr("dmasync.harness.history.nightly.run_suite", suite)
    measure_host(tmp_path / "run.json", quiet=True)
    told = capsys.readouterr().err
    assert "1 row measured\n" in told
    assert "run.json" not in told


def test_a_run_that_cannot_be_kept_leaves_nothing_behind(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = exact(tmp_path / "r.json", {PAIR: 1})
    first = keep(storage, source)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dmasync.harness.runs.storage.os.fsync", full)
    with pytest.raises(CommandError, match="No space left on device"):
        keep(storage, source)
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def test_a_storage_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert main(["history", "--storage", str(file)]) == 2
    assert main(["history", "--storage", str(file), "keep", str(exact(tmp_path / "r.json", {PAIR: 1}))]) == 2
    assert file.read_text() == "mine"


def _keep_many(folder: Path, source: Path, count: int) -> None:
    for _ in range(count):
        keep(Storage(folder), source)


def test_runs_kept_at_the_same_time_never_meet(tmp_path: Path, storage: Storage) -> None:
    source = exact(tmp_path / "r.json", {PAIR: 1})
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_keep_many, args=(storage.folder, source, 12)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    kept = storage.kept()
    assert len(kept) == 24
    assert all(one.run is not None for one in kept)


def measuring(count: int, minutes: float):
    def measure(output: Path) -> None:
        exact(output, {PAIR: count, HEAP: 3971, NULL: 1800}, minutes=minutes)

    return measure


def test_nights_are_judged_against_the_last_good_one(
    tmp_path: Path, storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.html"
    nights = [(5649, 0, "first"), (5649, 0, "good"), (5700, 1, "regressed"), (5700, 1, "regressed"), (5649, 0, "good")]
    for night, (count, status, standing) in enumerate(nights):
        assert nightly(storage, report, measure=measuring(count, night)) == status
        assert storage.kept()[-1].standing.value == standing
    assert "+51 instructions" in capsys.readouterr().out
    assert "change at run 3" in report.read_text()


def test_a_night_that_cannot_be_judged_is_no_baseline(storage: Storage) -> None:
    assert nightly(storage, measure=measuring(5649, 0)) == 0

    def lost_a_row(output: Path) -> None:
        exact(output, {PAIR: 5649}, minutes=1)

    assert nightly(storage, measure=lost_a_row) == 3
    assert [kept.standing.value for kept in storage.kept()] == ["first", "unjudged"]


def test_a_night_that_measures_nothing_keeps_nothing(storage: Storage) -> None:
    def nothing(output: Path) -> None:
        exact(output, {})

    with pytest.raises(CommandError) as caught:
        nightly(storage, measure=nothing)
    assert caught.value.status == 3
    assert storage.kept() == []


def test_a_night_that_fails_loses_only_itself(storage: Storage) -> None:
    assert nightly(storage, measure=measuring(5649, 0)) == 0

    def killed(output: Path) -> None:
        output.write_text('{"benchmarks": [')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nightly(storage, measure=killed)
    assert [kept.standing.value for kept in storage.kept()] == ["first"]


def test_a_report_that_cannot_be_written_is_refused_before_measuring(tmp_path: Path, storage: Storage) -> None:
    def never(output: Path) -> None:
        raise AssertionError("measured")

    with pytest.raises(CommandError, match=r"--report .* cannot be written: No such file or directory"):
        nightly(storage, tmp_path / "missing" / "report.html", measure=never)


def test_runs_that_tell_no_date_count_as_the_oldest(tmp_path: Path, storage: Storage) -> None:
    content = document([benchmark(PAIR, [5e-6] * 5, facts())])
    del content["datetime"]
    keep(storage, write(tmp_path / "undated.json", content))
    keep(storage, exact(tmp_path / "r.json", {PAIR: 1}))
    assert [kept.moment == datetime.min.replace(tzinfo=timezone.utc) for kept in storage.kept()] == [True, False]


def test_one_instruction_a_night_is_found_within_a_week(
    tmp_path: Path, storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    statuses = [int(nightly(storage, measure=measuring(5649 + night, night))) for night in range(9)]
    assert statuses[:3] == [0, 0, 0]
    assert statuses[-1] == 1
    found = capsys.readouterr().out
    assert "crept since 2026-03-01" in found
    assert [kept.standing.value for kept in storage.kept()][:2] == ["first", "good"]


@pytest.mark.parametrize(("step", "last"), [(0.0, 0), (0.01, 1)])
def test_a_percent_a_night_in_wall_time_is_found_and_quiet_nights_are_not(
    storage: Storage, step: float, last: int
) -> None:
    def measuring_wall(night: int):
        def measure(output: Path) -> None:
            medians = {"a": 1e-3 * (1 + step) ** night, "b": 2e-3, "c": 3e-3, "d": 1e-3, "e": 2e-3}
            wall(output, medians, seed=night, minutes=night)

        return measure

    statuses = [int(nightly(storage, measure=measuring_wall(night))) for night in range(11)]
    assert statuses[:3] == [0, 0, 0]
    assert statuses[-1] == last


def test_a_change_that_is_meant_becomes_the_measure(tmp_path: Path, storage: Storage) -> None:
    for night in range(9):
        nightly(storage, measure=measuring(5649 + night, night))
    meant = exact(tmp_path / "meant.json", {PAIR: 5657, HEAP: 3971, NULL: 1800}, minutes=20)
    assert main(["history", "--storage", str(storage.folder), "keep", "--anchor", str(meant)]) == 0
    assert nightly(storage, measure=measuring(5658, 21)) == 0
    assert nightly(storage, measure=measuring(5649, 22)) == 0


def test_a_step_is_told_as_a_step_and_not_as_creep(storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    for night, count in enumerate((5649, 5649, 5900)):
        status = nightly(storage, measure=measuring(count, night))
    assert status == 1
    assert "crept" not in capsys.readouterr().out


def test_pruning_spares_the_anchor(tmp_path: Path, storage: Storage) -> None:
    anchor = keep(storage, exact(tmp_path / "r.json", {PAIR: 1}, minutes=0), Standing.FIRST)
    for minutes in (1, 2, 3):
        keep(storage, exact(tmp_path / "r.json", {PAIR: 1}, minutes=minutes))
    kept = storage.kept()
    gone = prunable(kept, keep=0, older_than=None, now=kept[-1].moment)
    assert [one.path for one in kept if one not in gone] == [anchor, kept[-1].path]
