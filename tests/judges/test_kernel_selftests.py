"""The kernel's selftests on the fake, as a program run by ``dmasync run``, and on a real kernel: the same lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.judges

LINKING = pytest.mark.parametrize("linking", [(), ("-static",)], ids=["dynamic", "static"])
NOBODY = 65534


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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_nobody_gets_the_same_answers_as_root(selftest, tmp_path):
    program = selftest("dmabuf-heap", "-static")
    for folder in (program, *program.parents[:3]):
        folder.chmod(0o755)
    nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "cwd": "/"}
    root = Path(__file__).parents[2]
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            subprocess.run([python, "-c", ""], check=True, **nobody)
        except OSError:
            continue  # lies in a folder that is root's alone
        done = run(program, python=python, env={"PYTHONPATH": str(root), "PATH": os.environ["PATH"]}, **nobody)
        assert done.stdout == run(program).stdout
        return
    pytest.skip("nobody may run no Python here")


@pytest.mark.vm
@pytest.mark.parametrize("name", ["dmabuf-heap", "udmabuf"])
def test_a_real_kernel_prints_the_same_lines(selftest, tmp_path, name):
    program = selftest(name)
    result = tmp_path / "real"
    command = f"{program} > {result} 2>&1; true"
    subprocess.run(
        [sys.executable, "-m", "dmasync", "vm", "--quiet", "--output", tmp_path, "--mount", program.parent,
         "--", "sh", "-c", f"'{command}'"],
        check=True, timeout=600,
    )  # fmt: skip
    assert run(program).stdout.splitlines() == result.read_text().splitlines()
