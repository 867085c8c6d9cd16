"""When a boot counts as hung: not by the clock while the guest gets on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dmasync.harness.vm import boot_watch
from dmasync.harness.vm.boot_watch import BootWatch, processor_seconds


@pytest.fixture
def used(monkeypatch):
    """The processor time that the guest is said to have used, in seconds."""
    seconds = [0.0]
    monkeypatch.setattr(boot_watch, "processor_seconds", lambda pid: seconds[0])
    return seconds


@pytest.fixture
def console(tmp_path):
    file = tmp_path / "console"
    file.touch()
    return file


def test_a_boot_that_stands_still_is_overdue_by_the_clock(used, console):
    watch = BootWatch(1, console, 10.0, 0.0)
    assert not watch.is_overdue(9.0)
    assert watch.is_overdue(11.0)


def test_a_boot_that_gets_little_of_a_processor_is_given_the_time(used, console):
    watch = BootWatch(1, console, 10.0, 0.0)
    for now in range(0, 1000, 5):
        used[0] += 0.04
        assert not watch.is_overdue(float(now))


def test_a_boot_that_uses_its_processor_and_says_nothing_is_overdue(used, console):
    watch = BootWatch(1, console, 10.0, 0.0)
    for now in range(10):
        used[0] += 1.0
        assert not watch.is_overdue(float(now + 1))
    used[0] += 1.0
    assert watch.is_overdue(11.0)


def test_a_boot_that_talks_is_not_overdue(used, console):
    watch = BootWatch(1, console, 10.0, 0.0)
    for now in range(0, 100, 8):
        used[0] += 8.0
        with console.open("a") as stream:
            stream.write("[    0.1] still here\n")
        assert not watch.is_overdue(float(now))


def test_processor_time_is_that_of_a_process_and_of_all_that_it_started():
    busy = "n = 0\nwhile n < 3_000_000: n += 1\n"
    program = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {busy!r}])\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        used = processor_seconds(process.pid)
        process.communicate("\n")
    assert used > 0
    assert processor_seconds(os.getpid()) >= used


def test_a_process_that_has_gone_has_used_nothing():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert processor_seconds(process.pid) == 0
