"""The storm of interruptions that a virtual machine goes through, on the fake kernel: its fences make EINTRs, too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
WANTED = 200
ROUNDS = 10


def test_windows_balance_under_interruptions_of_the_fake() -> None:
    command = [sys.executable, "-m", "tests.vm.interruption_storm", "--fake"]
    command += ["--interruptions", str(WANTED), "--rounds", str(ROUNDS)]
    # A tracer (coverage of child processes) is a place more where an interrupt surfaces: none in there.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    completed = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    seen = json.loads(completed.stdout)
    assert seen["unlimited"]["interruptions"] >= WANTED
    places = seen["keyboard_interrupt"]
    assert min(places["start"], places["window"], places["end"]) >= ROUNDS
    assert seen["starts"] == seen["ends"] > 0
