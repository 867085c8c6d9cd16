"""START, poll and epoll of buffers that a device is busy with; signals that come meanwhile."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from dmasync.fakes.foreign import caller
from dmasync.fakes.foreign.memfds import ours
from dmasync.fakes.foreign.systems import FakeSystem
from dmasync.harness.run.epoll_sockets import Twins
from dmasync.harness.run.open_files import OpenFile, OpenFiles

DEVICE = Path(__file__).with_name("programs") / "busy_device.py"


@pytest.mark.parametrize("kind", ["interrupted", "restarted", "stopped", "threads", "storm", "polled", "epolled"])
def test_a_wait_is_the_kernels(compiled, dmasync_run, kind):
    done = dmasync_run(compiled("waits"), kind, options=[f"--device={DEVICE}"], check=False, timeout=30)
    assert (done.output, done.errors, done.status) == ("", "", 0)


def test_a_device_that_cannot_be_loaded_is_one_line(compiled, dmasync_run, tmp_path):
    (tmp_path / "device.py").write_text("nothing = 1\n")
    done = dmasync_run(compiled("waits"), "storm", options=[f"--device={tmp_path / 'device.py'}"])
    assert done.status == 2
    assert "defines none of setup, before_sync and after_sync" in done.errors


@pytest.fixture
def served():
    """A fake kernel and the files of a run, in a thread that answers a program whose limit is looked up as usual."""
    system = FakeSystem()
    files = OpenFiles(system, 768)
    who = SimpleNamespace(
        thread=1, need_number=lambda: files.reserve(os.getpid(), os.getpid(), keep=False), interrupted=lambda: False
    )
    caller.serve(who)
    yield system, files, who
    caller.serve(None)


def test_a_buffer_comes_into_an_epoll_file_while_another_file_goes(served):
    system, files, who = served
    buffer = system.backend.memfd_create("stands for a buffer", 0)
    file = OpenFile("dmabuf", None, None, system.file(buffer))
    twins = Twins(system)

    def add():
        caller.serve(who)
        twins.of(file, buffer)

    adding = threading.Thread(target=add, daemon=True)
    with files.lock:  # as while a file goes, of which the twins are told
        adding.start()
        adding.join(30)
        assert not adding.is_alive()
        twins.gone(file)


def test_descriptors_that_are_not_the_programs_do_not_count_when_such_calls_are_nested(served):
    system, _, who = served
    number = system.backend.memfd_create("one", 0)

    def refuse():
        raise AssertionError("its limit was looked up")

    who.need_number = refuse
    with ours():
        system.descriptor(system.file(number), lambda: None)
        system.backend.dup(number)
    with pytest.raises(AssertionError):
        system.backend.dup(number)
