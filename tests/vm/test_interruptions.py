"""Windows under real signals, on a real kernel in a virtual machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dmasync.harness.vm import kernels
from dmasync.harness.vm.machine import VirtualMachine
from tests.vm.interruption_storm import DEADLINES

ROOT = Path(__file__).parents[2]
WANTED = 10_000
ROUNDS = 100

pytestmark = pytest.mark.vm


@pytest.mark.timeout(900)
def test_windows_balance_under_ten_thousand_real_interruptions(capsys: pytest.CaptureFixture[str]) -> None:
    machine = VirtualMachine(kernel=kernels.resolve(None), working_directory=ROOT, timeout=300)
    command = [sys.executable, "-m", "tests.vm.interruption_storm"]
    completed = machine.run([*command, "--interruptions", str(WANTED), "--rounds", str(ROUNDS)])
    assert completed.returncode == 0, completed.stdout + completed.stderr
    seen = json.loads(completed.stdout.splitlines()[-1])
    with capsys.disabled():
        sys.stdout.write(f"\n{json.dumps(seen, indent=1)}\n")
    assert seen["unlimited"]["interruptions"] >= WANTED
    assert seen["unlimited"]["bodies"] == seen["unlimited"]["windows"]
    assert seen["deadline"]["timeouts"] == DEADLINES
    assert seen["deadline"]["attempts"] == seen["deadline"]["interruptions"]
    places = seen["keyboard_interrupt"]
    assert min(places["start"], places["window"], places["end"]) >= ROUNDS
    assert places["swallowed"] == 0
    assert seen["recorded_interruptions"] == seen["interruptions"]
    assert (seen["open_windows"], seen["unmatched_ends"]) == (0, 0)
    assert seen["starts"] == seen["ends"] > 0
