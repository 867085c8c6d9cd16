"""What is refused before anything is measured, and what a mistake is answered with."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmasync import cli
from dmasync.harness.exit_status import CommandError
from dmasync.harness.help_texts import EXAMPLES, STATUSES
from dmasync.harness.runs import writing
from dmasync.harness.scratch import reclaim, scratch_folder
from tests.support.run_files import HEAP, PAIR, exact


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    try:
        status = cli.main(list(arguments))
    except SystemExit as stop:
        status = int(stop.code or 0)
    return status, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "usage", "told"),
    [
        (["vm", "--kernl", "K", "--", "true"], "usage: dmasync vm", "did you mean '--kernel'?"),
        (["probe", "--jsn"], "usage: dmasync probe", "did you mean '--json'?"),
        (["history", "prune", "--dry-rum"], "usage: dmasync history prune", "did you mean '--dry-run'?"),
        (["bench", "--qiuck=1"], "usage: dmasync bench", "did you mean '--quick'?"),
        (["prob"], "usage: dmasync", "did you mean 'probe'?"),
        (["xyzzy"], "usage: dmasync", "expected one of probe, vm, bench"),
        (["replay", "t", "--what-is-this"], "usage: dmasync replay", "unrecognized arguments: --what-is-this"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_nearest_right_one(
    capsys: pytest.CaptureFixture[str], arguments: list[str], usage: str, told: str
) -> None:
    status, said = refused(capsys, *arguments)
    assert status == 2
    assert said.startswith(usage)
    assert told in said.splitlines()[-1]


NOTHING_IS_NOTHING = {"--append-base", "--append-candidate", "--bench"}
"""An empty one of these asks for nothing: ``--append-base "$(cat more)"``, where the file is empty."""
REFUSED_BY_THE_COMMAND = {
    "--max-regression": ["gate", "RUN", "RUN"],
    "--measure-base": ["gate", "--measure-candidate=true"],
    "--measure-candidate": ["gate", "--measure-base=true"],
    "--build": ["gate", "--bisect", "RUN"],
    "--measure": ["gate", "--bisect", "RUN"],
    "--memory": ["vm"],
    "--env": ["vm"],
    "--frame": ["model", "RUN"],
    **{
        f"--{name}": ["run"]
        for name in [
            "fault",
            "faults",
            "allow",
            "trace",
            "perfetto",
            "svg",
            "node",
            "no-node",
            "deny",
            "profile",
            "sarif",
            "device",
        ]
    },
}


def options_with_a_value(
    parser: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[tuple[argparse.ArgumentParser, tuple[str, ...], argparse.Action]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from options_with_a_value(below, (*words, name))
        elif action.option_strings and action.nargs != 0:
            yield parser, words, action


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_value_is_a_mistake_in_every_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], empty: str
) -> None:
    run = exact(tmp_path / "run.json", {PAIR: 5})
    let_through = set()
    for parser, words, action in options_with_a_value(cli.build_parser()):
        option = action.option_strings[-1]
        try:
            parser._get_values(action, [empty])
        except argparse.ArgumentError:
            continue
        let_through.add(option)
        if option in NOTHING_IS_NOTHING:
            continue
        assert option in REFUSED_BY_THE_COMMAND, (words, option)
        name, *others = [str(run) if word == "RUN" else word for word in REFUSED_BY_THE_COMMAND[option]]
        program = ["--", "true"] if name in ("vm", "run") else []
        status, said = refused(capsys, name, *others, f"{option}={empty}", *program)
        assert status == (128 if "--bisect" in others else 2), (option, said)
        assert option.removeprefix("--") in said.splitlines()[-1]
    assert let_through == NOTHING_IS_NOTHING | set(REFUSED_BY_THE_COMMAND)


@pytest.mark.parametrize("option", ["--bsect", "--biscet", "--isect"])
def test_git_is_stopped_by_a_misspelt_bisect(capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert refused(capsys, "gate", "base", "candidate", option)[0] == 128


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_ends_with_examples_that_parse_and_the_exit_statuses(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    shown = capsys.readouterr().out
    assert "exit status: " + STATUSES[command].split()[0] in shown
    for example in EXAMPLES[command]:
        assert f"\n  {example}\n" in shown
        done = subprocess.run(
            ["sh", "-c", f"set -- {example}; shift; printf '%s\\n' \"$@\""], capture_output=True, text=True, check=True
        )
        cli.build_parser([command]).parse_args(done.stdout.splitlines())


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_each_command_tells_the_version(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "-V"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("dmasync ")


@pytest.mark.parametrize("memory", ["lots", "1T", "-1G", "0", "63M", "", "1 G", "1GiB"])
def test_a_memory_that_no_guest_can_have_is_refused_before_a_kernel_is_fetched(
    capsys: pytest.CaptureFixture[str], memory: str
) -> None:
    status, said = refused(capsys, "vm", f"--memory={memory}", "--kernel", "/nope", "--", "true")
    assert (status, "memory is" in said) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--cpus=0"], "--cpus is 0, expected at least 1"),
        (["--cpus=2", "--exact"], "--cpus is 2: the exact clock counts one CPU's instructions"),
        (["--kvm", "--exact"], "--kvm is on: the exact clock is the emulator's"),
        (["--timeout=0"], "--timeout is 0 s, expected more than 0"),
        (["--boot-timeout=nan"], "--boot-timeout is nan s, expected more than 0"),
        (["--memory=1M"], "--memory is 1M, too little"),
    ],
)
def test_a_machine_that_cannot_be_is_refused_before_a_kernel_is_fetched(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    status, said = refused(capsys, "vm", *arguments, "--kernel", "/nope", "--", "true")
    assert (status, told in said) == (2, True), said


@pytest.mark.parametrize(
    "arguments",
    [
        ["bench", "--on", "fake", "-o", "/proc/run.json"],
        ["vm", "--result", "/proc/r.json", "--", "true"],
        ["vm", "--result", "MISSING/r.json", "--", "true"],
        ["gate", "--append-candidate", "x", "--json", "/proc/v.json"],
        ["gate", "--append-candidate", "x", "--keep", "/proc/runs"],
        ["gate", "--measure-base", "exit 9", "--measure-candidate", "exit 9", "--html", "/proc/p.html"],
        ["history", "--storage", "/proc", "nightly", "--bench=--on=fake"],
        ["replay", "trace.jsonl", "--svg", "/proc/t.svg"],
        ["replay", "trace.jsonl", "--perfetto", "MISSING/t.json"],
        ["history", "--storage", "STORE", "nightly", "--report", "/proc/r.html"],
    ],
    ids=" ".join,
)
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, said = refused(capsys, *arguments)
    assert status == 2
    assert "cannot be written" in said or "cannot be made" in said
    assert "measuring" not in said
    assert "booting" not in said


@pytest.mark.parametrize(("candidate", "expected"), [(9000, 1), (5649, 2)])
def test_one_file_that_cannot_be_written_loses_itself_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], candidate: int, expected: int
) -> None:
    files = [str(exact(tmp_path / "b.json", {PAIR: 5649})), str(exact(tmp_path / "c.json", {PAIR: candidate}))]
    status = cli.main(["gate", *files, "--json", "/dev/full", "--markdown", str(tmp_path / "v.md")])
    captured = capsys.readouterr()
    assert status == expected
    assert "'/dev/full' cannot be written: No space left on device" in captured.err
    assert "test_pair" in captured.out
    assert "test_pair" in (tmp_path / "v.md").read_text()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("[tool.dmasync.gat]\nexact-percent = 1", "[tool.dmasync] has 'gat'"),
        ("[tool.dmasycn.gate]\nexact-percent = 1", "did you mean [tool.dmasync]?"),
        ("[gate]\nexact-percent = 1", "has no table [tool.dmasync.gate]"),
        ("tool = 1", "'tool' is not a table"),
        ("[tool.dmasync.gate]\nexact-procent = 1", "unknown key 'exact-procent'"),
    ],
)
def test_a_misspelt_table_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: str, told: str
) -> None:
    (tmp_path / "s.toml").write_text(settings)
    run = str(exact(tmp_path / "b.json", {PAIR: 1}))
    status, said = refused(capsys, "gate", run, run, "--settings", str(tmp_path / "s.toml"))
    assert (status, told in said) == (2, True)


def test_a_rule_for_no_row_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.toml").write_text('[tool.dmasync.gate.rows]\n"*test_piar*" = 5\n"*test_pair*" = 5\n')
    run = str(exact(tmp_path / "b.json", {PAIR: 1, HEAP: 2}))
    call = ["gate", run, run, "--settings", str(tmp_path / "s.toml")]
    assert cli.main(call) == 0
    shown = capsys.readouterr().out
    assert "no row is named '*test_piar*'" in shown
    assert "'*test_pair*'" not in shown
    # Of a part of the rows a rule may well name none.
    assert cli.main([*call, "--only", "*udmabuf*"]) == 0
    assert "test_piar" not in capsys.readouterr().out


def test_only_of_nothing_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(exact(tmp_path / "b.json", {PAIR: 1}))
    status, said = refused(capsys, "gate", run, run, "--only", "*udmabuf*", "--only", "*nothing*")
    assert (status, "--only '*nothing*': no row has such a name" in said) == (2, True)


def test_a_run_that_is_kept_again_is_one_observation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, store = str(exact(tmp_path / "b.json", {PAIR: 1})), ["--storage", str(tmp_path / "store")]
    for options in ([], [], ["--good"], []):
        assert cli.main(["history", *store, "keep", *options, run]) == 0
    files = [path.name for path in (tmp_path / "store").rglob("*.json")]
    assert len(files) == 1
    assert files[0].endswith("_good.json")
    assert capsys.readouterr().out.splitlines()[-1].endswith(files[0])


@pytest.mark.parametrize("action", [["list"], ["list", "--json"], ["prune", "--keep", "1"]])
def test_a_storage_that_is_not_there_is_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, action: list[str]
) -> None:
    status, said = refused(capsys, "history", "--storage", str(tmp_path / "nope"), *action)
    assert (status, "no such folder" in said) == (2, True)
    monkeypatch.setenv("DMASYNC_STORAGE", str(tmp_path / "nope"))
    assert refused(capsys, "history", *action) == (
        2,
        f"dmasync history: $DMASYNC_STORAGE {tmp_path / 'nope'}: no such folder\n",
    )


def test_a_reader_that_has_seen_enough_is_not_complained_of(tmp_path: Path) -> None:
    run = str(exact(tmp_path / "b.json", {f"t.py::row[{number}]": 5 for number in range(3000)}))
    line = f"{sys.executable} -m dmasync gate {run} {run} | head -n 1"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_scratch_folder_is_reclaimed_when_its_owner_was_killed(tmp_path: Path) -> None:
    program = (
        "import os, sys, time\n"
        "from dmasync.harness.scratch import scratch_folder\n"
        f"with scratch_folder('test', {str(tmp_path)!r}) as folder:\n"
        "    (folder / 'file').touch()\n"
        "    print(folder, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    left = Path(process.stdout.readline().strip())
    assert reclaim(tmp_path) == []  # it is at work
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert left.is_dir()
    with scratch_folder("other", str(tmp_path)) as own:
        assert not left.exists()
        assert own.is_dir()
    assert os.listdir(tmp_path) == []


def test_folders_of_others_with_such_a_name_stay(tmp_path: Path) -> None:
    (tmp_path / "dmasync-their-own").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / ".owner").touch()
    (tmp_path / "dmasync-a-link").symlink_to(tmp_path / "target")
    assert reclaim(tmp_path) == []
    assert len(os.listdir(tmp_path)) == 3


SMALL_FILES = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); "


def with_small_files(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A disk that takes 4 KiB of a file: whatever is larger is cut off with an error, as by a full one."""
    program = f"{SMALL_FILES}from dmasync.cli import main; raise SystemExit(main())"
    return subprocess.run(
        [sys.executable, "-B", "-c", program, *words],  # or Python leaves half of a module's bytecode in its cache
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )


TRACED = (
    "import dmasync as d\n"
    "for _ in range(40):\n"
    "    with d.DmaSyncer(d.DmaBufAllocator(d.DmaBufAllocatorFlag.UDMABUF).alloc('f', 4096)): pass\n"
)


@pytest.mark.parametrize("there_before", [True, False])
def test_a_disk_that_fills_up_leaves_the_old_file_or_none_and_the_findings_are_told(
    tmp_path: Path, there_before: bool
) -> None:
    trace = ["run", "--trace", "t.jsonl", "--", sys.executable, "-c", TRACED]
    assert subprocess.run([sys.executable, "-m", "dmasync", *trace], cwd=tmp_path, check=False).returncode == 0
    if there_before:
        (tmp_path / "chart.svg").write_text("old")
    done = with_small_files(tmp_path, "replay", "t.jsonl", "--svg", "chart.svg")
    assert done.returncode == 2
    assert "--svg 'chart.svg' cannot be written: File too large" in done.stderr
    assert "findings: " in done.stdout
    assert (tmp_path / "chart.svg").exists() is there_before
    assert sorted(os.listdir(tmp_path)) == ["chart.svg", "t.jsonl"][not there_before :]
    assert not there_before or (tmp_path / "chart.svg").read_text() == "old"


@pytest.mark.parametrize("option", ["--trace", "--perfetto", "--svg"])
def test_a_run_whose_file_does_not_fit_leaves_none(tmp_path: Path, option: str) -> None:
    done = with_small_files(tmp_path, "run", option, "out", "--", sys.executable, "-c", TRACED)
    assert (done.returncode, f"{option} 'out' cannot be written: File too large" in done.stderr) == (2, True)
    assert os.listdir(tmp_path) == []


def test_a_file_keeps_its_mode_when_it_is_replaced(tmp_path: Path) -> None:
    files = [str(exact(tmp_path / "b.json", {PAIR: 5})), str(exact(tmp_path / "c.json", {PAIR: 5}))]
    out = tmp_path / "v.json"
    out.touch(0o600)
    assert cli.main(["gate", *files, "--json", str(out)]) == 0
    assert (out.stat().st_size > 0, out.stat().st_mode & 0o777) == (True, 0o600)


def test_a_file_in_a_folder_where_nothing_can_be_made_is_written_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused_there(folder: Path) -> Path:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    monkeypatch.setattr(writing, "_new_file", refused_there)  # root may write anywhere
    (tmp_path / "there").write_text("old")
    writing.refuse_unwritable({"--json": tmp_path / "there"})
    writing.write_atomically(tmp_path / "there", "new")
    assert (tmp_path / "there").read_text() == "new"
    with pytest.raises(CommandError, match=r"--json '.*new' cannot be written: Permission denied"):
        writing.refuse_unwritable({"--json": tmp_path / "new"})


@pytest.mark.parametrize("given", [["gate"], ["replay"], ["run"]])
def test_two_outputs_of_one_name_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, given: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = str(exact(tmp_path / "b.json", {PAIR: 1}))
    words = {
        "gate": ["gate", run, run, "--json", "x", "--html", "./x"],
        "replay": ["replay", run, "--svg", "x", "--perfetto", str(tmp_path / "x")],
        "run": ["run", "--trace", "x", "--svg", "./x", "--", "true"],
    }[given[0]]
    status, said = refused(capsys, *words)
    assert (status, "writes already: give each a file of its own" in said) == (2, True)


def test_a_report_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(exact(tmp_path / f"{value}.json", {PAIR: value})) for value in (5000, 9000)]
    assert cli.main(["report", *files, "-o", str(tmp_path / "r.html")]) == 0
    assert f"dmasync report: wrote {tmp_path / 'r.html'}: regressed: 1 regressed" in capsys.readouterr().err
    assert cli.main(["report", files[0], "-o", "/dev/null"]) == 0
    assert "wrote /dev/null: 1 run, rows: 1" in capsys.readouterr().err


def test_a_run_that_cannot_be_kept_is_told_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(exact(tmp_path / "b.json", {PAIR: 1}))
    (tmp_path / "file").touch()
    status, said = refused(capsys, "history", "--storage", "/proc/runs", "keep", run)
    assert (status, said.startswith("dmasync history: the folder /proc/runs/")) == (2, True)
    (tmp_path / "runs").mkdir()
    below = tmp_path / "runs" / next(iter(_folders_of(tmp_path, run, capsys)))
    below.touch()
    status, said = refused(capsys, "history", "--storage", str(tmp_path / "runs"), "keep", run)
    assert (status, f"the folder {below} cannot be made: File exists" in said) == (2, True)


def _folders_of(tmp_path: Path, run: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert cli.main(["history", "--storage", str(tmp_path / "other"), "keep", run]) == 0
    capsys.readouterr()
    return os.listdir(tmp_path / "other")
