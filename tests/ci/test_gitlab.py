"""GitLab's file: each job's script, line by line, in one shell, as GitLab's runner takes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.ci.steps import ROOT, Runner, loaded
from tests.support.run_files import exact

FILE = "docs/ci/gitlab/.gitlab-ci.yml"
JOBS = loaded(FILE)
PAIR = "benchmarks/test_sync_pair.py::test_sync_pair[udmabuf]"


def script(job: str, part: str = "script") -> str:
    return "\n".join(JOBS[job][part])


def taken(runner: Runner, text: str, **variables: str) -> subprocess.CompletedProcess[str]:
    runner.variables |= variables
    return runner.run({"run": text}, {})


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def test_the_fake_kernel_s_job_writes_what_it_says_it_keeps(runner: Runner) -> None:
    (runner.workspace / "test_own.py").write_text(
        "import dmasync\n\n"
        "def test_a_frame(noncoherent_dmabuf):\n"
        "    flag = dmasync.DmaBufAllocatorFlag.SYSTEM_HEAP\n"
        "    with dmasync.DmaBufAllocator(flag, backend=noncoherent_dmabuf) as allocator:\n"
        "        with allocator.alloc('frame', 4096) as frame, frame.cpu_access(dmasync.SyncType.WRITE) as memory:\n"
        "            memory[0] = 1\n"
    )
    done = taken(runner, script("fake-kernel"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 passed" in done.stdout
    artifacts = JOBS["fake-kernel"]["artifacts"]
    assert (runner.workspace / artifacts["reports"]["junit"]).is_file()


@pytest.mark.parametrize(("candidate", "status"), [(100, 0), (150, 1)])
def test_a_merge_request_s_kernel_is_judged_against_the_one_it_came_from(
    runner: Runner, tmp_path: Path, candidate: int, status: int
) -> None:
    made = "git init -q . && git config user.name n && git config user.email n@example.org\n"
    made += "echo base >tree && git add tree && git commit -qm base && echo candidate >tree && git commit -qam new"
    assert taken(runner, made).returncode == 0
    for name, count in (("base", 100), ("candidate", candidate)):
        exact(tmp_path / f"{name}.json", {PAIR: count})
    programs = tmp_path / "programs"
    programs.mkdir()
    # A kernel takes a quarter of an hour to build and as long to measure: each tree's run is there already.
    (programs / "dmasync").write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = vm ]; then echo "{tmp_path}/$(cat "$3/tree").json"; exit; fi\n'
        f'shift 2; base=$1; shift 2; exec "{sys.executable}" -m dmasync gate "$base" "$@"\n'
    )
    (programs / "dmasync").chmod(0o755)
    commit = subprocess.run(
        ["git", "-C", runner.workspace, "rev-parse", "HEAD~"], capture_output=True, text=True, check=True
    ).stdout.strip()
    variables = {"CI_MERGE_REQUEST_DIFF_BASE_SHA": commit, "PATH": f"{programs}:{runner.variables['PATH']}"}
    done = taken(runner, script("exact-clock"), **variables)
    assert done.returncode == status, done.stdout + done.stderr
    artifacts = JOBS["exact-clock"]["artifacts"]
    assert (runner.workspace / artifacts["reports"]["junit"]).is_file()
    assert (runner.workspace / artifacts["paths"][0]).is_file()


def test_a_board_is_measured_by_one_job_at_a_time() -> None:
    board = JOBS["board"]
    assert board["resource_group"] == "place-$PLACE"
    assert board["interruptible"] == "false"
    assert all("PLACE" in entry for entry in board["parallel"]["matrix"])
    assert (ROOT / FILE).is_file()
