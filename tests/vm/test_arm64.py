"""arm64: Debian's kernel answers the conformance suite, the library's and the fake's tests pass beside it, and what a
sync costs there is the same in every boot and predicted by the cost model.

That kernel has no dma-heaps, so nothing else may be left out of the suite. Minutes under emulation.
"""

from __future__ import annotations

import shlex
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from dmasync.harness.bench.suite import Request, run_suite
from dmasync.harness.exit_status import ExitStatus
from dmasync.harness.model.check import predictions
from dmasync.harness.model.fit import fit
from dmasync.harness.runs.reading import load_run
from dmasync.harness.vm import host_packages, kernels
from dmasync.harness.vm.machine import VirtualMachine

ROOT = Path(__file__).parents[2]
MACHINE = "aarch64"
REAL = ("tests/conformance", "--dmasync-backend=real", "--dmasync-no-heap")
FAKE = (
    "tests/conformance",
    "tests/unit/test_uapi.py",
    "tests/unit/test_allocator.py",
    "tests/unit/test_buffer.py",
    "tests/unit/test_frame.py",
    "tests/unit/test_group.py",
    "tests/unit/test_syncer.py",
    "tests/unit/test_sync_file.py",
    "tests/unit/fake_kernel/test_fence.py",
    "tests/unit/fake_kernel/test_kernel.py",
    "tests/unit/fake_kernel/test_nodes.py",
    "tests/unit/fake_kernel/test_profiles.py",
)
AT_LEAST = {"real": 890, "fake": 2050}
REASONS = {
    "real": ("needs a dma-heap", "recorded on x86_64"),
    # What the guest's root has not: it is Debian's Python and pure Python only.
    "fake": ("recorded on x86_64", "needs a C compiler", "could not import 'numpy'"),
}

BOOTS = 3
KIB, MIB = 1 << 10, 1 << 20
NOT_FITTED = (768 * KIB, 3 * MIB, 24 * MIB)

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        bool(host_packages.missing_parts(MACHINE)), reason="no arm64 machine here: dmasync vm --arch arm64 --setup"
    ),
]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What pytest reported in the guest, of both suites, from one boot."""
    output = tmp_path_factory.mktemp("arm64")
    machine = VirtualMachine(
        kernel=kernels.resolve(machine=MACHINE), output=output, working_directory=ROOT, timeout=1700
    )
    found = {name: output / f"{name}.xml" for name in AT_LEAST}
    lines = [
        shlex.join([machine.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={path}", *suites])
        for path, suites in zip(found.values(), (REAL, FAKE), strict=True)
    ]
    completed = machine.run("; ".join(["uname -m", "modprobe vgem", *lines]))
    assert completed.stdout.startswith(MACHINE), completed.stdout[-6000:] + completed.stderr[-2000:]
    for name, path in found.items():
        assert path.exists(), name + completed.stdout[-6000:] + completed.stderr[-2000:]
    return found


@pytest.mark.parametrize("name", AT_LEAST)
def test_what_needs_no_heap_passes_on_arm64(reports: dict[str, Path], name: str) -> None:
    suite = ElementTree.parse(reports[name]).getroot().find("testsuite")  # noqa: S314 - written by our own run
    assert suite is not None
    cases = suite.findall("testcase")
    bad = [f"{case.get('classname')}::{case.get('name')}" for case in cases if case.find("failure") is not None]
    bad += [f"{case.get('classname')}::{case.get('name')}" for case in cases if case.find("error") is not None]
    assert bad == []
    skipped = [case.find("skipped") for case in cases]
    reasons = {str(one.get("message")) for one in skipped if one is not None}
    assert [reason for reason in reasons if not any(known in reason for known in REASONS[name])] == []
    assert len(cases) - sum(one is not None for one in skipped) >= AT_LEAST[name]


def test_single_calls_cost_the_same_in_every_boot() -> None:
    machine = VirtualMachine(kernel=kernels.resolve(machine=MACHINE), exact=True, working_directory=ROOT)
    boots = [machine.run([machine.python, "benchmarks/single_calls.py"]) for _ in range(BOOTS)]
    assert [boot.returncode for boot in boots] == [0] * BOOTS, boots[0].stderr
    steady = [[line for line in boot.stdout.splitlines() if line.startswith(("START", "END"))] for boot in boots]
    assert len(steady[0]) == 6
    assert steady == [steady[0]] * BOOTS


def test_the_model_predicts_what_was_not_measured(tmp_path: Path) -> None:
    assert run_suite(Request(exact=True, arch="arm64"), tmp_path / "run.json") == ExitStatus.GOOD
    run = load_run(tmp_path / "run.json")
    lines, too_few = fit(run.rows.values())
    assert not too_few
    ends = [line for line in lines if line.subject.step == "end"]
    assert len(ends) == 3
    for line in ends:
        assert {64 * KIB, 64 * MIB} <= set(line.residuals)
        assert line.largest_residual < 0.01
        assert line.per_byte > 0
    assert run_suite(Request(exact=True, arch="arm64", sizes=NOT_FITTED), tmp_path / "other.json") == ExitStatus.GOOD
    other = load_run(tmp_path / "other.json")
    predicted = predictions(lines, other.rows.values())
    assert {one.size for one in predicted if one.subject.step == "end"} == set(NOT_FITTED)
    assert [one for one in predicted if abs(one.error) > 0.01] == []
