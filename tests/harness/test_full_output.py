"""A standard output that cannot be written: one rule for all commands, whatever was found and however it buffers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dmasync import cli
from dmasync.harness.exit_status import CommandError
from dmasync.harness.gate.outputs.destinations import Outputs
from dmasync.harness.history.nightly import nightly
from dmasync.harness.runs.storage import Storage
from tests.support import warm
from tests.support.run_files import HEAP, PAIR, exact

TRACE = '{"format":"dmasync-trace","version":1,"started_ns":1,"facts":{"kernel":"6.12"}}\n'
OPENED = (
    '{"call":{"method":"open","arguments":["/dev/udmabuf",524290],"time_ns":1,"thread":1,"position":0,"buffer":null,'
    '"stack":0,"result":5,"after":null,"errno":0,"end_ns":2}}\n'
)
NEVER_ENDED = '{"sync":[3,1,3,1,6,0,4,0]}\n'
END = '{"end":{"open_mappings":[]}}\n'
SAID = "cannot write to standard output: No space left on device\n"


def dmasync(folder: Path, *words: str, unbuffered: bool = False, output: str = "/dev/full") -> tuple[int, str]:
    """The exit status and standard error of a command whose standard output is full."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    if unbuffered:
        environment["PYTHONUNBUFFERED"] = "1"
    with open(output, "w") as full:
        done = warm.python("-m", "dmasync", *words, stdout=full, cwd=folder, env=environment)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    exact(folder / "base.json", {PAIR: 5649})
    exact(folder / "slower.json", {PAIR: 9000})
    rows = range(300)  # more than a buffer holds
    exact(folder / "many.json", {f"t.py::row[{row}]": 5 for row in rows})
    exact(folder / "many_slower.json", {f"t.py::row[{row}]": 9 for row in rows})
    (folder / "good.jsonl").write_text(TRACE + OPENED + END)
    (folder / "bad.jsonl").write_text(TRACE + OPENED + NEVER_ENDED + END)
    return folder


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["--print-completion", "bash"],
        ["gate", "--help"],
        ["gate", "-V"],
        ["gate", "base.json", "base.json"],
        ["gate", "base.json", "slower.json"],
        ["gate", "many.json", "many_slower.json"],
        ["probe"],
        ["probe", "--json"],
        ["replay", "good.jsonl"],
        ["replay", "bad.jsonl"],
        ["replay", "--json", "bad.jsonl"],
        ["history", "--storage", ".", "list"],
        ["bench", "--on", "fake", "--quick", "--quiet", "--only", "*test_null*", "-o", "out.json"],
    ],
    ids=" ".join,
)
def test_a_full_standard_output_is_named_once_and_is_2(inputs: Path, words: list[str], unbuffered: bool) -> None:
    if words == ["--print-completion", "bash"]:
        pytest.importorskip("shtab", reason="completion comes with dmabuf-sync[harness]")
    name = " ".join(["dmasync", *(word for word in words[:1] if word in cli.COMMANDS)])
    assert dmasync(inputs, *words, unbuffered=unbuffered) == (2, f"{name}: {SAID}")


@pytest.mark.parametrize("words", [["--bisect", "base.json", "base.json"], ["--bisect", "base.json", "slower.json"]])
def test_git_is_stopped_by_a_full_standard_output(inputs: Path, words: list[str]) -> None:
    assert dmasync(inputs, "gate", *words) == (128, f"dmasync gate: {SAID}")


@pytest.mark.parametrize("option", ["--svg", "--perfetto", "--sarif"])
def test_a_replay_whose_file_is_lost_tells_the_findings_and_is_2(
    inputs: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["replay", str(inputs / "bad.jsonl"), option, "/dev/full"]) == 2
    captured = capsys.readouterr()
    assert "findings: 2" in captured.out  # the window, and the descriptor of the node
    assert captured.err == f"dmasync replay: {option} '/dev/full' cannot be written: No space left on device\n"


def test_a_mistake_in_the_call_is_told_as_that(inputs: Path) -> None:
    assert dmasync(inputs, "gate", "nothing", "nothing") == (
        2,
        "dmasync gate: nothing: cannot be read: No such file or directory\n",
    )


def test_what_cannot_be_written_does_not_cost_the_night(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = Storage(tmp_path / "runs")

    def measured(value: int, minutes: int) -> Callable[[Path], None]:
        def measure(output: Path) -> None:
            exact(output, {PAIR: value, HEAP: 7}, minutes=minutes)

        return measure

    full = Outputs({"json": Path("/dev/full")})
    assert nightly(storage, measure=measured(5, 0)) == 0
    assert nightly(storage, measure=measured(9, 1), outputs=full) == 1
    captured = capsys.readouterr()
    assert "regressed" in captured.out
    assert "'/dev/full' cannot be written" in captured.err
    with pytest.raises(CommandError, match="'/dev/full' cannot be written"):
        nightly(storage, measure=measured(5, 2), outputs=full)
    assert [kept.standing.value for kept in storage.kept()] == ["first", "regressed", "good"]


@pytest.mark.parametrize(
    ("trace", "status", "out", "err"),
    [
        ("", 2, "", "is unusable: the header is missing: the file is empty, or cut off in its first line"),
        (TRACE + END, 3, "0 calls recorded on 6.12\n", "the trace holds no call: nothing was judged"),
        (TRACE + NEVER_ENDED + END, 1, "findings: 1\n", "no call of the trace could be played: nothing was compared"),
    ],
    ids=["empty", "no call", "from elsewhere"],
)
def test_a_replay_that_played_nothing_counts_only_what_it_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trace: str, status: int, out: str, err: str
) -> None:
    (tmp_path / "t.jsonl").write_text(trace)
    assert cli.main(["replay", str(tmp_path / "t.jsonl")]) == status
    captured = capsys.readouterr()
    assert captured.out.endswith(out)
    assert err in captured.err
    assert "differences" not in captured.out
