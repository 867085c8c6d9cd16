"""The suites on the fake: rows that say what they are, and files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dmasync import DmaSyncer, DmaSyncError, Step, cli
from dmasync.fakes import faults
from dmasync.harness.bench import runner
from dmasync.harness.bench.suite import Request, run_suite
from dmasync.harness.bench.timed import retries, threads
from dmasync.harness.bench.timed.surroundings import Bench
from dmasync.harness.bench.worker import this_host
from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.runs.facts import COMPARED_FACTS
from dmasync.harness.runs.reading import Run, load_run
from dmasync.harness.scratch import reclaim

SUITES = runner.suites_folder()
NAMES = Path(__file__).parent / "bench_row_names.txt"
SOME = "null_ioctl or 1MiB-READ_WRITE or (allocate_and_release and 4KiB)"


def pytest_in_suites(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Other plugins take two seconds to load.
    plugins = ["-p", "benchmark", "-p", "timeout", "-p", "dmasync", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", str(SUITES), *plugins, *arguments],
        cwd=SUITES.parent,
        capture_output=True,
        text=True,
        check=False,
        env={**runner.own_environment(), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Some rows of the suites, measured on the fake."""
    path = tmp_path_factory.mktemp("suites") / "run.json"
    done = pytest_in_suites("-q", "-k", SOME, "--dmasync-on=fake", f"--benchmark-json={path}")
    assert done.returncode == 0, done.stdout + done.stderr
    return load_run(path)


def row(run: Run, name: str) -> Any:
    return run.rows[f"benchmarks/{name}"]


def test_every_row_says_where_it_is_from_and_in_which_unit(run: Run) -> None:
    for found in run.rows.values():
        assert (found.facts.target, found.facts.unit, found.facts.exact) == ("fake", "ns", False)
        assert found.facts.python == run.machine["python_version"]
        assert found.facts.arch == run.machine["machine"]
        assert found.facts.kernel


def test_a_sync_row_says_what_it_syncs(run: Run) -> None:
    facts = row(run, "test_sync_pair.py::test_sync_pair[udmabuf-1MiB-READ_WRITE-DmaSyncer-reused]").facts
    assert (facts.provider, facts.size, facts.access, facts.api) == (
        "udmabuf",
        1 << 20,
        "READ_WRITE",
        "DmaSyncer-reused",
    )
    assert (facts.step, facts.calls, facts.attached) == ("pair", 2, False)


def test_a_group_of_four_makes_eight_calls(run: Run) -> None:
    assert row(run, "test_sync_pair.py::test_sync_pair[system-1MiB-READ_WRITE-group-of-4]").facts.calls == 8


def test_an_allocation_counts_the_calls_that_the_library_makes(run: Run) -> None:
    udmabuf = row(run, "test_allocation.py::test_allocate_and_release[udmabuf-4KiB]").facts
    heap = row(run, "test_allocation.py::test_allocate_and_release[system-4KiB]").facts
    assert udmabuf.calls > heap.calls > 1


def test_no_two_rows_of_a_run_have_the_same_facts(run: Run) -> None:
    facts = [tuple(getattr(found.facts, name) for name in COMPARED_FACTS) for found in run.rows.values()]
    assert len(set(facts)) == len(facts)


def test_rows_cost_what_they_should_relative_to_each_other(run: Run) -> None:
    def cost(name: str) -> float:
        return float(row(run, name).median)

    pair = "test_sync_pair.py::test_sync_pair[udmabuf-1MiB-READ_WRITE-{}]"
    storm = "test_interruptions.py::test_interrupted_pair[udmabuf-1MiB-READ_WRITE-{}_EINTR]"
    assert cost(pair.format("group-of-4")) > 2 * cost(pair.format("DmaSyncer-reused"))
    assert cost(storm.format(100)) > 3 * cost(storm.format(10)) > 3 * cost(storm.format(0))
    assert cost("test_floor.py::test_null_ioctl") < cost(pair.format("fcntl"))


def test_what_could_not_be_measured_is_in_the_file_with_its_reason(run: Run) -> None:
    lost = {found.fullname: found.reason for found in run.facts.not_measured}
    attached = "benchmarks/test_sync_steps.py::test_start[system_attached-1MiB-READ_WRITE]"
    assert "no importer" in lost[attached]
    assert attached not in run.rows


def test_row_names_are_kept_for_ever() -> None:
    listed = pytest_in_suites("-q", "--collect-only").stdout.splitlines()
    names = [line for line in listed if "::" in line]
    kept = NAMES.read_text(encoding="utf-8").splitlines()
    assert [name for name in kept if name not in names] == [], "a history has rows of these names"
    assert [name for name in names if name not in kept] == [], f"add new names to {NAMES.name}"


def test_other_sizes_have_rows_of_the_same_kind(tmp_path: Path) -> None:
    output = tmp_path / "sizes.json"
    chosen = ["--sizes", "12KiB, 3m,12288", "--only", "*-READ]"]
    status = cli.main(["bench", "--on", "fake", *chosen, "--quiet", "-o", str(output)])
    assert status == ExitStatus.GOOD
    found = load_run(output)
    steps = [
        f"benchmarks/test_sync_steps.py::test_{step}[udmabuf-{size}-READ]"
        for step in ("start", "end", "first_start")
        for size in ("12KiB", "3MiB")
    ]
    assert set(steps) <= set(found.rows)
    assert {row.facts.size for row in found.rows.values()} == {12 << 10, 3 << 20}
    assert {row.facts.step for row in found.rows.values()} == {"start", "end", "first-start"}


@pytest.mark.parametrize(("sizes", "meant"), [("3MB", "3MiB"), ("4KiB,64kb", "64KiB"), ("1 GB", "1GiB")])
def test_a_size_in_thousands_is_refused_with_the_one_in_powers_of_two(
    sizes: str, meant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["bench", "--on", "fake", f"--sizes={sizes}", "-o", str(tmp_path / "run.json")])
    assert stop.value.code == 2
    assert f"did you mean {meant}?" in capsys.readouterr().err


@pytest.mark.parametrize("sizes", ["", "3", "1MiB,", "-4096", "4097", "3TiB", "0", "1e6"])
def test_a_size_that_is_none_is_refused(sizes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "--on", "fake", f"--sizes={sizes}", "-o", str(tmp_path / "run.json")])
    assert ended.value.code == ExitStatus.UNUSABLE
    assert "is no size: expected multiples of 4 KiB" in capsys.readouterr().err


def test_the_short_suite_is_part_of_the_long_one() -> None:
    listed = pytest_in_suites("-q", "--collect-only", "--dmasync-quick").stdout.splitlines()
    names = [line for line in listed if "::" in line]
    assert 40 < len(names) < 150
    assert set(names) < set(NAMES.read_text(encoding="utf-8").splitlines())


@pytest.mark.timeout(60)
def test_a_storm_is_met_by_its_own_row_alone() -> None:
    with Bench(fake=True) as bench:
        retries.interrupted_pair(bench, provider="udmabuf", size=4096, access="READ", times=100)
        with DmaSyncer(bench.buffer("udmabuf", 4096), backend=bench.backend):
            pass
        assert bench.backend.journal.count(errno=errno.EINTR) == 0


def test_threads_that_the_kernel_refuses_end_their_row_instead_of_waiting_for_each_other() -> None:
    interval = sys.getswitchinterval()
    try:
        with Bench(fake=True) as bench:
            operation = threads.pairs(bench, provider="udmabuf", size=4096, access="READ", threads=3)
            bench.backend.inject(faults.error(errno.EIO, on=Step.START, nth=5))
            with pytest.raises(DmaSyncError, match="Input/output error"):
                operation.run(6)
    finally:
        sys.setswitchinterval(interval)


def test_only_the_rows_that_are_named_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "run.json"
    call = ["bench", "--on", "fake", "--quiet", "-o", str(output)]
    assert cli.main([*call, "--only", "*null*", "--only", "*[udmabuf-4KiB-READ-fcntl]"]) == 0
    assert sorted(load_run(output).rows) == [
        "benchmarks/test_floor.py::test_null_ioctl",
        "benchmarks/test_sync_pair.py::test_sync_pair[udmabuf-4KiB-READ-fcntl]",
    ]
    before = output.read_bytes()
    assert cli.main([*call, "--only", "*nothing of that name*"]) == ExitStatus.UNUSABLE
    assert "--only *nothing of that name*: no row" in capsys.readouterr().err
    assert output.read_bytes() == before


def test_a_defect_in_a_row_fails_it_with_the_traceback(tmp_path: Path) -> None:
    plan, answers = tmp_path / "plan", tmp_path / "answers"
    chosen = ("-k", "null_ioctl", "--dmasync-on=fake")
    assert pytest_in_suites(*chosen, f"--dmasync-plan={plan}").returncode == 0
    host = json.dumps({"result": this_host()})
    answers.write_text(f"{host}\n{json.dumps({'failed': 'TypeError: pair() missing'})}\n", encoding="utf-8")
    done = pytest_in_suites(*chosen, "--dmasync-answers", str(plan), str(answers))
    assert done.returncode == 1
    assert "TypeError: pair() missing" in done.stdout


def test_a_run_in_which_nothing_was_measured_leaves_the_old_file_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    output = tmp_path / "run.json"
    output.write_text("the run of yesterday", encoding="utf-8")
    monkeypatch.setattr(runner, "_here", lambda target, request, file, progress: (5, "no tests ran", {}))
    with pytest.raises(CommandError, match="nothing was measured: no tests ran") as failed:
        run_suite(Request("fake"), output)
    assert failed.value.status == ExitStatus.CANNOT_JUDGE
    assert output.read_text(encoding="utf-8") == "the run of yesterday"


def test_a_run_with_failed_rows_is_kept_and_its_status_says_so(
    monkeypatch: pytest.MonkeyPatch, run: Run, tmp_path: Path
) -> None:
    def suites(target: str, request: Request, file: Path, progress: object) -> tuple[int, str, dict[str, Any]]:
        file.write_bytes(run.path.read_bytes())
        return 1, "E   TypeError: pair() missing", {"kernel_source": "debian:6.12"}

    monkeypatch.setattr(runner, "_here", suites)
    output = tmp_path / "run.json"
    assert run_suite(Request("fake"), output) == ExitStatus.REGRESSION
    document = json.loads(output.read_text(encoding="utf-8"))
    assert document["dmasync"]["kernel_source"] == "debian:6.12"
    assert document["commit_info"]["project"]


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "_here", lambda *arguments: pytest.fail("it was measured"))
    status = cli.main(["bench", "--on", "fake", "-o", str(tmp_path / "no" / "such" / "run.json")])
    assert status == ExitStatus.UNUSABLE
    missing = f"No such file or directory: {tmp_path / 'no' / 'such'}\n"
    assert capsys.readouterr().err.endswith(missing)


def test_the_command_prints_the_overhead_and_where_the_file_is(
    monkeypatch: pytest.MonkeyPatch, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def suites(target: str, request: Request, file: Path, progress: object) -> tuple[int, str, dict[str, Any]]:
        file.write_bytes(run.path.read_bytes())
        return 0, "", {}

    monkeypatch.setattr(runner, "_here", suites)
    output = tmp_path / "run.json"
    assert cli.main(["bench", "--on", "fake", "-o", str(output)]) == 0
    out, err = capsys.readouterr()
    assert "target fake: it was asked for" in err
    assert "the fake kernel" in out
    assert "in ns per call" in out
    assert str(output) in out
    start = row(run, "test_sync_steps.py::test_start[udmabuf-1MiB-READ_WRITE]").median
    line = next(line for line in out.splitlines() if "udmabuf" in line)
    assert f"{start * 1e9:,.0f}" in line
    assert "not measured" in out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_bench_that_is_ended_leaves_no_process_and_no_file(tmp_path: Path, number: signal.Signals) -> None:
    output = tmp_path / "run.json"
    bench = subprocess.Popen(
        [sys.executable, "-m", "dmasync", "bench", "--on", "fake", "-o", str(output)],
        cwd=SUITES.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert bench.stderr is not None
    with bench, bench.stderr as progress:
        assert any("measuring row" in line for line in progress)
        bench.send_signal(number)
    if number == signal.SIGKILL:
        assert bench.returncode == -number
        while any(str(tmp_path) in line for line in _command_lines()):
            subprocess.run(["true"], check=True)  # the guard is still at it
        reclaim(tmp_path)  # as the next call does
    else:
        assert bench.returncode == 128 + number
    assert list(tmp_path.iterdir()) == []
    assert [line for line in _command_lines() if str(tmp_path) in line] == []


def _command_lines() -> list[str]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes().decode(errors="replace"))
    return lines


def test_a_pytest_around_the_command_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--collect-only")
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    output = tmp_path / "run.json"
    assert cli.main(["bench", "--on", "fake", "--only", "*null_ioctl", "--quiet", "-o", str(output)]) == ExitStatus.GOOD
    assert len(load_run(output).rows) == 1


@pytest.mark.parametrize("target", ["fake", "vm", "ssh://board"])
def test_a_disk_that_is_full_in_the_end_does_not_take_the_table_with_it(
    monkeypatch: pytest.MonkeyPatch, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    board = {"board": {"address": "ssh://board", "before": {}, "after": {}}} if "ssh" in target else {}

    def suites(*given: Any) -> tuple[int, str, dict[str, Any]]:
        given[-2].write_bytes(run.path.read_bytes())
        return 0, "", board

    for where in ("_here", "_in_machine", "_on_board"):
        monkeypatch.setattr(runner, where, suites)
    output = tmp_path / "run.json"

    def full(path: Path, content: str) -> None:
        raise CommandError(f"{str(path)!r} cannot be written: No space left on device")

    monkeypatch.setattr(runner, "write_atomically", full)
    assert cli.main(["bench", "--on", target, "--quiet", "-o", str(output)]) == ExitStatus.UNUSABLE
    told = capsys.readouterr()
    assert "START" in told.out
    assert told.out.splitlines()[-1] == f"{len(run.rows)} rows measured, and in no file"
    assert told.err == f"dmasync bench: {str(output)!r} cannot be written: No space left on device\n"
    assert not output.exists()
