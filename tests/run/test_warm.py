"""The tests' own short cut: a command that is forked off a loaded Python does what one does that starts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import warm


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--", "sh", "-c", 'echo "$DMASYNC_SAID"; pwd; cat; echo two >&2; exit 3'],
        ["run", "--check", "--", "sh", "-c", "kill -SEGV $$"],
        ["run", "--fault", "storm("],
        ["gate", "no-such-file.json", "no-such-file.json"],
    ],
    ids=["streams", "signal", "refused", "gate"],
)
def test_a_forked_command_does_what_a_started_one_does(tmp_path, words):
    how = {"input": "in\n", "cwd": tmp_path, "env": {**os.environ, "DMASYNC_SAID": "seven"}}
    forked = warm.python("-m", "dmasync", *words, **how)
    started = subprocess.run(
        [sys.executable, "-m", "dmasync", *words], capture_output=True, text=True, check=False, timeout=60, **how
    )
    assert (forked.returncode, forked.stdout, forked.stderr) == (started.returncode, started.stdout, started.stderr)


def test_a_command_that_does_not_end_is_killed_in_time():
    with pytest.raises(subprocess.TimeoutExpired):
        warm.python("-m", "dmasync", "run", "--", "sh", "-c", "exec <&- >&- 2>&-; sleep 600", timeout=0.5)
    assert warm.python("-m", "dmasync", "run", "--", "true").returncode == 0
