"""Two kernels or two command lines: which sides are measured, and what is made of them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest

from dmasync.harness.exit_status import CommandError
from dmasync.harness.gate import command, two_kernels
from dmasync.harness.gate.outputs.destinations import Outputs
from dmasync.harness.gate.two_kernels import Subject
from dmasync.harness.judge.settings import GateSettings
from tests.support.run_files import PAIR, exact


def options(*arguments: str) -> Namespace:
    parser = ArgumentParser()
    command.configure(parser)
    return parser.parse_args(arguments)


class Boots:
    """Stands for the virtual machine: writes a run per measurement, and remembers what was asked."""

    def __init__(self, *counts: int) -> None:
        self.counts = list(counts)
        self.subjects: list[Subject] = []

    def __call__(self, subject: Subject, output: Path) -> None:
        self.subjects.append(subject)
        exact(output, {PAIR: self.counts.pop(0)})


def gate(boots: Boots, *arguments: str) -> int:
    return int(two_kernels.run(options(*arguments), GateSettings(), Outputs(), boots))


def test_two_kernels_are_measured_and_compared() -> None:
    boots = Boots(5649, 5700)
    assert gate(boots, "--kernel", "a", "--kernel", "b", "--arch", "arm64", "--quick") == 1
    assert boots.subjects == [Subject("a", (), "arm64", True), Subject("b", (), "arm64", True)]


def test_only_the_rows_that_are_named_are_measured() -> None:
    boots = Boots(5649, 5700)
    assert gate(boots, "--kernel", "a", "--kernel", "b", "--only", "*udmabuf*", "--only", "*null*") == 1
    assert [subject.only for subject in boots.subjects] == [("*udmabuf*", "*null*")] * 2


def test_two_command_lines_are_measured_on_one_kernel() -> None:
    boots = Boots(5649, 5649)
    assert gate(boots, "--kernel", "a", "--append-candidate", "swiotlb=force quiet") == 0
    assert boots.subjects == [Subject("a"), Subject("a", ("swiotlb=force", "quiet"))]


def test_without_a_kernel_both_command_lines_run_on_the_newest_packaged_one() -> None:
    boots = Boots(5649, 5649)
    assert gate(boots, "--append-base", "x=1") == 0
    assert boots.subjects == [Subject(None, ("x=1",)), Subject(None)]


@pytest.mark.parametrize(("again", "status"), [(5649, 1), (5700, 3)])
def test_self_check_boots_the_base_a_second_time(again: int, status: int) -> None:
    boots = Boots(5649, again, 9000)
    assert gate(boots, "--kernel", "a", "--kernel", "b", "--self-check") == status
    assert [subject.kernel for subject in boots.subjects] == ["a", "a", "b"]


def test_the_same_kernel_twice_is_refused_before_anything_boots() -> None:
    boots = Boots()
    with pytest.raises(CommandError, match="both sides are the same"):
        gate(boots, "--kernel", "a", "--kernel", "a")
    assert boots.subjects == []


def test_measured_runs_are_kept_on_request(tmp_path: Path) -> None:
    gate(Boots(5649, 5649), "--kernel", "a", "--kernel", "b", "--keep", str(tmp_path / "runs"))
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["base.json", "candidate.json"]
