"""The gate on real kernels, unattended: minutes under software emulation."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dmasync.cli import main
from dmasync.harness.vm.host_packages import missing_parts
from tests.harness.gate.test_gate_bisect import commits

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(bool(missing_parts("x86_64")), reason="needs qemu and virtme-ng: dmasync vm --setup"),
]

NO_INIT = "rdinit=/no-such-file init=/no-such-file"
"""Nothing to start: the kernel panics."""


def is_plain(row: dict) -> bool:
    """Whether the row is a plain system call, and no more Python than that."""
    return row["facts"]["api"] == "fcntl"


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("baseline") / "good.json"
    assert main(["bench", "--on", "vm", "--exact", "--quick", "-o", str(output)]) == 0
    return output


def test_a_driver_that_copies_is_regressed_and_the_way_back_is_improved(tmp_path: Path, baseline: Path) -> None:
    """``swiotlb=force`` makes every sync of a udmabuf copy; a heap that no device is attached to syncs nothing."""
    copying, output = tmp_path / "copying.json", tmp_path / "v.json"
    bench = ["bench", "--on", "vm", "--exact", "--quick", "--append", "swiotlb=force"]
    assert main([*bench, "-o", str(copying)]) == 0
    assert main(["gate", str(baseline), str(copying), "--json", str(output)]) == 1
    found = json.loads(output.read_text())
    pairs = [row for row in found["rows"] if row["facts"]["step"] == "pair" and row["facts"]["api"] == "fcntl"]
    udmabuf = [row for row in pairs if row["facts"]["provider"] == "udmabuf"]
    heap = [row for row in pairs if row["facts"]["provider"] == "system" and not row["facts"]["attached"]]
    assert udmabuf
    assert heap
    assert {row["verdict"] for row in udmabuf} == {"regressed"}
    assert min(row["ratio"] for row in udmabuf) > 5
    assert {row["verdict"] for row in heap} == {"same"}
    assert main(["gate", str(copying), str(baseline), "--json", str(output)]) == 0
    back = json.loads(output.read_text())["rows"]
    assert {row["verdict"] for row in back if row["fullname"] in {one["fullname"] for one in udmabuf}} == {"improved"}


def test_a_second_boot_of_the_same_kernel_is_the_same(tmp_path: Path, baseline: Path) -> None:
    again = tmp_path / "again.json"
    assert main(["bench", "--on", "vm", "--exact", "--quick", "-o", str(again)]) == 0
    assert main(["gate", str(baseline), str(again)]) == 0


def test_work_added_to_the_sync_path_alone_is_counted(tmp_path: Path, baseline: Path) -> None:
    """A probe on the function that every START enters: END, and the null call, stay as they are."""
    output = tmp_path / "v.json"
    probe = "kprobe_event=p:probe,dma_buf_begin_cpu_access"
    assert main(["gate", "--bisect", str(baseline), "--quick", "--append-candidate", probe, "--json", str(output)]) == 1
    rows = json.loads(output.read_text())["rows"]
    steps = {
        step: {row["verdict"] for row in rows if row["facts"]["step"] == step} for step in ("start", "end", "null")
    }
    assert steps == {"start": {"regressed"}, "end": {"same"}, "null": {"same"}}
    added = {
        step: {row["candidate"] - row["base"] for row in rows if row["facts"]["step"] == step and is_plain(row)}
        for step in ("start", "pair", "end", "null")
    }
    assert len(added["start"]) == 1, "the same work in every START"
    assert added["pair"] == added["start"]
    assert added["end"] == added["null"] == {0}


@pytest.mark.parametrize(("option", "status"), [([], 125), (["--panic-is-bad"], 1)])
def test_a_kernel_that_panics_is_skipped_or_bad(baseline: Path, option: list[str], status: int) -> None:
    call = ["gate", "--bisect", str(baseline), "--quick", "--append-candidate", NO_INIT, *option]
    assert main(call) == status


def test_two_kernels_of_which_one_panics_cannot_be_judged(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", "--append-base", NO_INIT, "--quick"]) == 3
    assert "panic" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git: apt-get install git")
def test_git_bisect_run_finds_the_commit_that_changed_the_kernel(tmp_path: Path, baseline: Path) -> None:
    lines = [f"note={number}" + (" swiotlb=force" if number >= 11 else "") for number in range(16)]
    names = commits(tmp_path, lines)
    subprocess.run(["git", "bisect", "start", names[15], names[0]], cwd=tmp_path, check=True, capture_output=True)
    few = "--only '*test_start[udmabuf-1MiB-*' --only '*test_null*'"
    gate = f'{sys.executable} -m dmasync gate --bisect {baseline} {few} --append-candidate "$(cat cmdline)"'
    run = subprocess.run(
        ["git", "bisect", "run", "sh", "-c", gate], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    told = [
        line for line in run.stdout.splitlines() if line.startswith(("regressed", "good", "cannot judge", "running"))
    ]
    told += [line for line in run.stdout.splitlines() if "│ regressed" in line]
    assert f"{names[11]} is the first bad commit" in run.stdout, "\n".join(told)
