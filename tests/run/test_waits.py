"""START, poll and epoll of buffers that a device is busy with; signals that come meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

DEVICE = Path(__file__).with_name("programs") / "busy_device.py"


@pytest.mark.parametrize("kind", ["interrupted", "restarted", "threads", "storm", "polled", "epolled"])
def test_a_wait_is_the_kernels(compiled, dmasync_run, kind):
    done = dmasync_run(compiled("waits"), kind, options=[f"--device={DEVICE}"], check=False, timeout=30)
    assert (done.output, done.errors, done.status) == ("", "", 0)


def test_a_device_that_cannot_be_loaded_is_one_line(compiled, dmasync_run, tmp_path):
    (tmp_path / "device.py").write_text("nothing = 1\n")
    done = dmasync_run(compiled("waits"), "storm", options=[f"--device={tmp_path / 'device.py'}"])
    assert done.status == 2
    assert "defines none of setup, before_sync and after_sync" in done.errors
