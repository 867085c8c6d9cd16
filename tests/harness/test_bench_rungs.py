"""Which rung is chosen, and what happens when it cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dmasync.cli import main
from dmasync.harness.bench import command, targets
from dmasync.harness.bench.runner import Request, suites_folder
from dmasync.harness.bench.targets import Chosen, choose
from dmasync.harness.exit_status import CommandError, ExitStatus
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
    chosen = choose("auto", exact=False, names_kernel=False)
    assert (chosen.rung, chosen.reason) == ("hardware", "/dev/udmabuf can be opened")


def test_auto_takes_a_virtual_machine_where_no_node_opens(node: Any) -> None:
    node(None)
    assert choose("auto", exact=False, names_kernel=False).rung == "vm"


@pytest.mark.parametrize(("exact", "names_kernel"), [(True, False), (False, True)])
def test_auto_takes_a_virtual_machine_for_what_only_it_has(node: Any, exact: bool, names_kernel: bool) -> None:
    node("/dev/udmabuf")
    chosen = choose("auto", exact=exact, names_kernel=names_kernel)
    assert chosen.rung == "vm"
    assert chosen.asked_for


@pytest.mark.parametrize("rung", ["hardware", "fake"])
def test_a_kernel_contradicts_every_rung_but_the_virtual_machine(rung: str) -> None:
    with pytest.raises(CommandError, match="--kernel") as refused:
        choose(rung, exact=False, names_kernel=True)
    assert refused.value.status == ExitStatus.UNUSABLE


@pytest.mark.parametrize("rung", ["hardware", "fake"])
def test_the_exact_clock_contradicts_every_rung_but_the_virtual_machine(rung: str) -> None:
    with pytest.raises(CommandError, match="--exact"):
        choose(rung, exact=True, names_kernel=False)


def test_a_missing_virtual_machine_gives_way_to_the_fake_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Request] = []

    def suites(request: Request, output: Path, progress: object) -> ExitStatus:
        asked.append(request)
        if request.rung == "vm":
            raise CommandError("missing on this host: qemu-system-x86_64", ExitStatus.SKIPPED)
        return ExitStatus.GOOD

    monkeypatch.setattr(command, "run_suites", suites)
    notes = Notes()
    status = command._measure(Request("vm"), Chosen("vm", "no node opens"), tmp_path / "run.json", notes)
    assert status == ExitStatus.GOOD
    assert [request.rung for request in asked] == ["vm", "fake"]
    assert asked[0].exact, "wall time of an emulator says nothing"
    assert any("qemu-system-x86_64" in note and "fake" in note for note in notes.notes)


def test_a_virtual_machine_that_was_asked_for_gives_way_to_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def suites(request: Request, output: Path, progress: object) -> ExitStatus:
        raise CommandError("missing on this host: qemu-system-x86_64", ExitStatus.SKIPPED)

    monkeypatch.setattr(command, "run_suites", suites)
    with pytest.raises(CommandError, match="qemu"):
        command._measure(
            Request("vm"), Chosen("vm", "it was asked for", asked_for=True), tmp_path / "run.json", Notes()
        )


def test_a_machine_that_breaks_down_is_no_reason_to_measure_the_fake(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def suites(request: Request, output: Path, progress: object) -> ExitStatus:
        raise CommandError("kernel 6.12 did not boot", ExitStatus.CANNOT_JUDGE)

    monkeypatch.setattr(command, "run_suites", suites)
    with pytest.raises(CommandError, match="did not boot"):
        command._measure(Request("vm"), Chosen("vm", "no node opens"), tmp_path / "run.json", Notes())


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_a_timeout_that_is_over_before_it_begins_is_refused(
    seconds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run.json"
    assert main(["bench", "--rung", "fake", "--timeout", seconds, "-o", str(output)]) == ExitStatus.UNUSABLE
    assert f"--timeout is {seconds}" in capsys.readouterr().err
    assert not output.exists()


def test_an_unknown_architecture_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="arch is 'vax'"):
        command.run_suite(arch="vax", output=tmp_path / "run.json")


def test_without_the_suites_the_error_says_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host_files, "project_folder", lambda: tmp_path)
    with pytest.raises(CommandError, match=r"-m pip install --force-reinstall 'dmabuf-sync\[harness\]'") as caught:
        suites_folder()
    assert caught.value.status is ExitStatus.SKIPPED
