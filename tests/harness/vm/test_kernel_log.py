"""What a guest's kernel complained of while the command ran: one line, the rest in the result, a status if asked."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from dmasync.cli import main
from dmasync.harness.runs.facts import RunFacts
from dmasync.harness.vm.guest import scripts
from dmasync.harness.vm.kernel_log import MARK, kernel_log
from tests.support.run_files import PAIR, exact

WARNING = """\
[    9.100000] ------------[ cut here ]------------
[    9.100001] WARNING: CPU: 0 PID: 120 at drivers/dma-buf/udmabuf.c:150 begin_cpu_udmabuf+0x1f/0x80
[    9.100002] Modules linked in: vgem
[    9.100003] Call Trace:
[    9.100004]  <TASK>
[    9.100005]  dma_buf_begin_cpu_access+0x1b/0x60
[    9.100006] ---[ end trace 0000000000000000 ]---
"""
LOCKDEP = """\
[   10.000000] ======================================================
[   10.000001] WARNING: possible circular locking dependency detected
[   10.000002] 6.12.0 #1 Not tainted
[   10.000003] ------------------------------------------------------
[   10.000004] python3/120 is trying to acquire lock:
[   10.000005]  (reservation_ww_class_mutex){+.+.}-{3:3}, at: dma_resv_lock+0x1b/0x60
"""
KILLED = "[   11.000000] Out of memory: Killed process 121 (python3) total-vm:4000000kB, anon-rss:400000kB\n"


def log(*parts: str) -> str:
    return f"[    0.000000] Linux version 6.12\n[    8.000000] {MARK}\n{''.join(parts)}[   12.000000] the end\n"


def test_a_warning_is_told_with_its_stack() -> None:
    found = kernel_log(log(WARNING), "0", "512")
    assert found.warning == "WARNING: CPU: 0 PID: 120 at drivers/dma-buf/udmabuf.c:150 begin_cpu_udmabuf+0x1f/0x80"
    assert found.tainted == "W"
    assert found.splats[0].splitlines()[-1] == "---[ end trace 0000000000000000 ]---"
    assert "dma_buf_begin_cpu_access" in found.splats[0]


def test_several_are_counted_and_lockdep_needs_no_taint() -> None:
    found = kernel_log(log(LOCKDEP, WARNING), "0", "0")
    assert found.warning == "WARNING: possible circular locking dependency detected and 1 more"
    assert "trying to acquire lock" in found.splats[0]


@pytest.mark.parametrize(
    "line",
    [
        "BUG: kernel NULL pointer dereference, address: 0000000000000010",
        "kernel BUG at mm/slub.c:100!",
        "BUG: KASAN: slab-use-after-free in dma_buf_release+0x1/0x2",
        "UBSAN: array-index-out-of-bounds in drivers/dma-buf/udmabuf.c:1:2",
        "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [python3:1]",
        "INFO: task python3:120 blocked for more than 120 seconds.",
        "refcount_t: underflow; use-after-free.",
        "Internal error: synchronous external abort: 96000210 [#1] SMP",
        "Unable to handle kernel paging request at virtual address ffff",
    ],
)
def test_every_kind_of_complaint_is_known(line: str) -> None:
    assert kernel_log(log(f"[    9.0] {line}\n"), "0", "0").warning == line


def test_what_the_boot_said_is_not_the_commands() -> None:
    assert kernel_log(WARNING + log(), "512", "512").warning == ""


def test_a_kernel_that_has_nothing_to_say() -> None:
    found = kernel_log(log("[    9.0] vgem: loaded, warnings off\n"), "0", "0")
    assert (found.warning, found.tainted, found.splats, found.killed) == ("", "", (), ())
    assert kernel_log("", "", "").warning == ""


def test_a_taint_alone_is_told_where_something_went_wrong() -> None:
    assert kernel_log(log(), "0", str(1 << 5)).warning == "tainted B"
    module = kernel_log(log(), "0", str(1 << 12 | 1 << 13))  # out of tree, unsigned: nothing went wrong
    assert (module.tainted, module.warning) == ("OE", "")


def test_the_processes_that_died_for_want_of_memory_are_named() -> None:
    assert kernel_log(log(KILLED, KILLED), "0", "0").killed == ("python3",)


def test_the_guest_reads_its_taint_flags_as_the_kernel_writes_them(tmp_path: Path) -> None:
    script = scripts.inside_script(working_directory=tmp_path, environment={}, links={}, programs={})
    for name in (scripts.TAINTED_BEFORE, scripts.TAINTED_AFTER):
        (line,) = [line for line in script.splitlines() if line.endswith(f"/{name}")]
        subprocess.run(["sh", "-c", line.replace(scripts.CONTROL, str(tmp_path))], check=True)
        assert (tmp_path / name).read_text() == Path("/proc/sys/kernel/tainted").read_text()


def judged(tmp_path: Path, base: tuple[str, ...], candidate: tuple[str, ...], *options: str) -> tuple[int, dict]:
    files = [
        exact(tmp_path / name, {PAIR: 5649}, run=RunFacts(kernel="6.12", target="vm", kernel_warnings=warned))
        for name, warned in (("b.json", base), ("c.json", candidate))
    ]
    status = main(["gate", *map(str, files), "--json", str(tmp_path / "v.json"), *options])
    return status, json.loads((tmp_path / "v.json").read_text())


OTHER_PROCESS = "WARNING: CPU: 0 PID: 4711 at drivers/dma-buf/udmabuf.c:150 begin"
FIRST = "WARNING: CPU: 0 PID: 120 at drivers/dma-buf/udmabuf.c:150 begin"
ANOTHER = "WARNING: CPU: 0 PID: 120 at drivers/dma-buf/heaps/system_heap.c:9 end"


@pytest.mark.parametrize(
    ("base", "candidate", "options", "expected"),
    [
        ((), (FIRST,), ("--fail-on-warning",), 1),
        ((), (FIRST,), (), 0),
        ((FIRST,), (OTHER_PROCESS,), ("--fail-on-warning",), 0),
        ((FIRST,), (OTHER_PROCESS, ANOTHER), ("--fail-on-warning",), 1),
        ((FIRST,), (), ("--fail-on-warning",), 0),
    ],
)
def test_a_candidate_whose_kernel_warned_anew_is_not_good(
    tmp_path: Path, base: tuple[str, ...], candidate: tuple[str, ...], options: tuple[str, ...], expected: int
) -> None:
    status, document = judged(tmp_path, base, candidate, *options)
    assert status == expected
    assert document["exit_status"] == expected
    if expected:
        assert "the candidate's kernel warned (WARNING: CPU: 0" in document["summary"]


def test_a_warning_that_fails_is_a_failure_on_a_ci_s_page(tmp_path: Path) -> None:
    judged(tmp_path, (), (FIRST,), "--fail-on-warning", "--junit", str(tmp_path / "v.xml"))
    assert 'failures="1"' in (tmp_path / "v.xml").read_text()
    judged(tmp_path, (), (FIRST,), "--junit", str(tmp_path / "v.xml"))
    assert 'failures="0"' in (tmp_path / "v.xml").read_text()


def test_a_warning_is_told_even_where_it_does_not_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judged(tmp_path, (), (FIRST,))
    assert f"warning: the candidate's kernel warned while it was measured: {FIRST}" in capsys.readouterr().out
