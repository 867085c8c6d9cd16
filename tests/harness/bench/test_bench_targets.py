"""Which target is chosen, and what happens where it is not here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dmasync.cli import main
from dmasync.harness.bench import suite, targets
from dmasync.harness.bench.runner import suites_folder
from dmasync.harness.bench.suite import run_suite
from dmasync.harness.bench.targets import Request, choose
from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.probe import command as probe
from dmasync.harness.progress import SilentProgress
from dmasync.harness.vm.guest import host_files


class Notes(SilentProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    return lambda path: monkeypatch.setattr(targets, "openable_node", lambda: path)


def test_auto_takes_hardware_where_a_node_opens(node: Any) -> None:
    node("/dev/udmabuf")
    chosen = choose(Request())
    assert (chosen.target, chosen.reason) == ("hardware", "/dev/udmabuf can be opened")


def test_auto_takes_a_virtual_machine_where_no_node_opens(node: Any) -> None:
    node(None)
    assert choose(Request()).target == "vm"


@pytest.mark.parametrize("request_", [Request(exact=True), Request(append=("quiet",)), Request(arch="arm64")])
def test_auto_takes_a_virtual_machine_for_what_only_it_has(node: Any, request_: Request) -> None:
    node("/dev/udmabuf")
    chosen = choose(request_)
    assert chosen.target == "vm"
    assert chosen.asked_for


def test_hardware_that_is_not_here_is_skipped(node: Any) -> None:
    node(None)
    with pytest.raises(CommandError, match="dmasync probe says why, --on vm needs none") as refused:
        choose(Request("hardware"))
    assert refused.value.status == ExitStatus.SKIPPED


@pytest.mark.parametrize("target", ["hardware", "fake"])
def test_a_kernel_contradicts_every_target_but_the_virtual_machine(target: str) -> None:
    with pytest.raises(CommandError, match="--kernel") as refused:
        choose(Request(target, kernel="debian:6.12"))
    assert refused.value.status == ExitStatus.UNUSABLE


@pytest.mark.parametrize("target", ["hardware", "fake"])
def test_the_exact_clock_contradicts_every_target_but_the_virtual_machine(target: str) -> None:
    with pytest.raises(CommandError, match="--exact"):
        choose(Request(target, exact=True))


def test_the_fake_takes_the_place_of_a_missing_virtual_machine_and_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch, node: Any, tmp_path: Path
) -> None:
    asked: list[tuple[str, Request]] = []

    def run_on(target: str, request: Request, output: Path, progress: object) -> ExitStatus:
        asked.append((target, request))
        if target == "vm":
            raise CommandError("missing on this host: qemu-system-x86_64", ExitStatus.SKIPPED)
        return ExitStatus.GOOD

    node(None)
    monkeypatch.setattr(suite, "run_on", run_on)
    notes = Notes()
    assert run_suite(Request(), tmp_path / "run.json", notes) == ExitStatus.GOOD
    assert [target for target, _ in asked] == ["vm", "fake"]
    assert [request.exact for _, request in asked] == [True, False], "wall time of an emulator says nothing"
    assert any("qemu-system-x86_64" in note and "fake" in note for note in notes.notes)


def test_probe_and_bench_agree_where_the_cache_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, node: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    node(None)
    monkeypatch.setattr(probe.nodes, "survey", lambda configuration: [])  # as on a host without nodes
    with pytest.raises(CommandError, match="XDG_CACHE_HOME") as refused:
        run_suite(Request("vm"), tmp_path / "run.json", Notes())  # it was asked for
    assert refused.value.status == ExitStatus.UNUSABLE
    told = probe.gather()["target"]
    assert told == "fake"
    notes = Notes()
    assert run_suite(Request(only=("*null_ioctl*",)), tmp_path / "run.json", notes) == ExitStatus.GOOD
    assert any("target fake: no virtual machine here: the cache folder" in note for note in notes.notes)


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (Request("vm"), ExitStatus.SKIPPED, "qemu"),  # it was asked for: nothing takes its place
        (Request(), ExitStatus.CANNOT_JUDGE, "did not boot"),  # it broke down: no reason to measure the fake
    ],
)
def test_nothing_takes_the_place_of_a_machine_that_was_asked_for_or_that_breaks_down(
    monkeypatch: pytest.MonkeyPatch, node: Any, tmp_path: Path, request_: Request, status: ExitStatus, words: str
) -> None:
    def run_on(target: str, request: Request, output: Path, progress: object) -> ExitStatus:
        raise CommandError(f"{words}: no such thing", status)

    node(None)
    monkeypatch.setattr(suite, "run_on", run_on)
    with pytest.raises(CommandError, match=words):
        run_suite(request_, tmp_path / "run.json", Notes())


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_a_timeout_that_is_over_before_it_begins_is_refused(
    seconds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run.json"
    assert main(["bench", "--on", "fake", "--timeout", seconds, "-o", str(output)]) == ExitStatus.UNUSABLE
    assert f"--timeout is {seconds}" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("request_", "words"), [(Request(arch="vax"), "arch is 'vax'"), (Request("moon"), "target is 'moon'")]
)
def test_an_unknown_architecture_or_target_is_refused_by_name(tmp_path: Path, request_: Request, words: str) -> None:
    with pytest.raises(CommandError, match=words):
        run_suite(request_, tmp_path / "run.json")


def test_without_the_suites_the_error_says_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host_files, "project_folder", lambda: tmp_path)
    with pytest.raises(CommandError, match=r"-m pip install --force-reinstall 'dmabuf-sync\[harness\]'") as caught:
        suites_folder()
    assert caught.value.status is ExitStatus.SKIPPED


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (Request("vm"), True),
        (Request(kernel="debian:6.12"), True),
        (Request("vm", exact=True), False),
        (Request(), False),  # it chooses the exact clock by itself
        (Request("fake"), False),
    ],
)
def test_wall_time_in_an_emulator_is_told_before_it_is_measured(
    monkeypatch: pytest.MonkeyPatch, node: Any, tmp_path: Path, request_: Request, told: bool
) -> None:
    node(None)
    monkeypatch.setattr(suite, "run_on", lambda *arguments: ExitStatus.GOOD)
    notes = Notes()
    run_suite(request_, tmp_path / "run.json", notes)
    assert len(notes.notes) == 1
    assert ("wall time in an emulator says little: --exact counts instructions" in notes.notes[0]) is told
