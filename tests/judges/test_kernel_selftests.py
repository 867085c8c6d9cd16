"""The kernel's selftests on the fake, as a program run by ``dmasync run``, and on a real kernel: the same lines."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.judges

LINKING = pytest.mark.parametrize("linking", [(), ("-static",)], ids=["dynamic", "static"])
ROOT = Path(__file__).parents[2]
NOBODY = 65534
AS_NOBODY: dict[str, Any] = {
    "user": NOBODY,
    "group": NOBODY,
    "extra_groups": [],
    "cwd": "/",
    "env": {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
}


def run(program: Path, *options: str, python: str = sys.executable, **how) -> subprocess.CompletedProcess[str]:
    """On a fake kernel that has the nodes of a packaged kernel for this machine."""
    nodes = ["--node=/dev/udmabuf", "--node=/dev/dma_heap/system"]
    return subprocess.run(
        [python, "-m", "dmasync", "run", "--timeout=60", *nodes, *options, "--", program],
        capture_output=True, text=True, check=False, **how,
    )  # fmt: skip


@LINKING
def test_dmabuf_heap_passes(selftest, linking):
    done = run(selftest("dmabuf-heap", *linking))
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "# Totals: pass:10 fail:0 xfail:0 xpass:0 skip:1 error:0"


@LINKING
def test_udmabuf_passes_up_to_the_huge_pages(selftest, linking):
    lines = run(selftest("udmabuf", *linking)).stdout.splitlines()
    assert [line for line in lines if line.startswith("ok")] == [
        f"ok {number} drivers/dma-buf/udmabuf: [PASS,test-{number}]" for number in range(1, 6)
    ]
    assert not [line for line in lines if line.startswith("not ok")]


def test_a_storm_breaks_what_does_not_try_again_and_says_where(selftest):
    done = run(selftest("dmabuf-heap"), "--check", "--fault", "storm(EINTR,3)")
    assert "not ok 2 test_alloc_and_import dmabuf sync failed" in done.stdout
    assert "end-without-start" in done.stderr
    assert "dmabuf-heap.c:" in done.stderr


@pytest.fixture
def python_of_nobody() -> str:
    """An interpreter that a user without any rights may start, and that finds dmasync."""
    if os.geteuid() != 0:
        pytest.skip("only root can become nobody")
    for python in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):  # lies in a folder that is root's alone
            found = subprocess.run(
                [python, "-c", "import dmasync.harness.run, dmasync.fakes.foreign.systems"], check=False, **AS_NOBODY
            )
            if found.returncode == 0:
                return python
    pytest.skip("nobody may run no Python here that finds dmasync")


def test_nobody_gets_the_same_answers_as_root(selftest, python_of_nobody):
    # Not in a folder of pytest's: those above it are the user's alone, and there are more of them with several workers.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        program = Path(shutil.copy(selftest("dmabuf-heap", "-static"), folder))
        done = run(program, python=python_of_nobody, **AS_NOBODY)
        as_root = run(program)
    assert (done.stdout, done.stderr, done.returncode) == (as_root.stdout, as_root.stderr, as_root.returncode)
    assert done.returncode == 0


@pytest.mark.vm
@pytest.mark.parametrize("name", ["dmabuf-heap", "udmabuf"])
def test_a_real_kernel_prints_the_same_lines(selftest, tmp_path, name):
    program = selftest(name)
    result = tmp_path / "real"
    command = f"{program} > {result} 2>&1; true"
    subprocess.run(
        [sys.executable, "-m", "dmasync", "vm", "--quiet", "--output", tmp_path, "--mount", program.parent,
         "--", command],
        check=True, timeout=600,
    )  # fmt: skip
    assert run(program).stdout.splitlines() == result.read_text().splitlines()
