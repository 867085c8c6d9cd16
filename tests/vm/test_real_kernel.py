"""The library on a real kernel: boots a virtual machine once and runs real_kernel_suite.py in it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from dmasync.harness.vm import host_packages, kernels
from dmasync.harness.vm.host import host_machine
from dmasync.harness.vm.machine import VirtualMachine

ROOT = Path(__file__).parents[2]
AT_LEAST = 55

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]


def test_what_the_library_promises_holds_on_a_real_kernel(tmp_path):
    if lacking := host_packages.missing_parts(host_machine()):
        pytest.skip(str(host_packages.MissingPartError(lacking)))
    output = tmp_path / "output"
    machine = VirtualMachine(kernel=kernels.resolve(), output=output, working_directory=ROOT, timeout=800)
    report = output / "report.xml"
    suite = ROOT / "tests" / "vm" / "real_kernel_suite.py"
    line = [machine.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", str(suite)]
    completed = machine.run(line)
    assert completed.returncode == 0, completed.stdout[-6000:] + completed.stderr[-2000:]
    totals = ElementTree.parse(report).getroot().find("testsuite")  # noqa: S314 - written by our own run
    assert totals is not None
    assert int(totals.get("tests", "0")) >= AT_LEAST
    assert [totals.get(kind) for kind in ("skipped", "failures", "errors")] == ["0", "0", "0"]
