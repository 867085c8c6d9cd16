"""Who answers: one thread, until it has to wait."""

from __future__ import annotations

import os
import queue
import stat
import tempfile
import threading
import time
from types import SimpleNamespace

import pytest

from dmasync.fakes import Journal
from dmasync.fakes.foreign.systems import FakeSystem
from dmasync.harness.run import supervisor as module
from dmasync.harness.run.answers import Said
from dmasync.harness.run.device_paths import Places
from dmasync.harness.run.open_files import NOT_OPEN, Descriptor, OpenFile, OpenFiles
from dmasync.harness.run.program import memory, processes
from dmasync.harness.run.seccomp import numbers
from dmasync.harness.run.supervisor import Supervisor


class Calls:
    """A listener whose calls the test makes; those that were let pass, by name."""

    def __init__(self):
        self.waiting = queue.Queue()
        self.passed = queue.Queue()
        self.names = {number: name for name, number in numbers.machine().calls.items()}

    def make(self, name):
        self.waiting.put(name)

    def receive(self, buffer):
        name = self.waiting.get()
        if name is None:
            self.waiting.put(None)  # for the next one
            return None
        number = numbers.machine().calls[name]
        return SimpleNamespace(
            number=number,
            thread=threading.get_native_id(),
            arguments=[0] * 6,
            process=0,
            ip=0,
            architecture=numbers.machine().audit,
        )

    def carry_on(self, call):
        self.passed.put(self.names[call.number])

    refuse = answer = None


@pytest.fixture
def run():
    """A supervisor whose close() waits until somebody has answered a dup()."""
    answered = threading.Event()
    threads = set()

    def close(run, call):
        if not told.is_set():
            run.pass_on()
        assert answered.wait(30)
        return Said.CARRY_ON

    def dup(run, call):
        answered.set()
        return Said.CARRY_ON

    def lseek(run, call):
        threads.add(threading.get_ident())
        return Said.CARRY_ON

    told = threading.Event()
    system = SimpleNamespace(is_fake=True, backend=None)
    supervisor = Supervisor(system, {"close": close, "dup": dup, "lseek": lseek}, Places([], fake=True), 768)
    calls = Calls()
    supervisor.serve(calls)
    yield SimpleNamespace(calls=calls, silent=told, threads=threads, problems=supervisor.problems)
    calls.make(None)
    supervisor.finish()


@pytest.mark.parametrize("silent", [False, True], ids=["it says so", "nobody knows"])
def test_a_call_that_waits_for_another_holds_nobody_up(run, silent):
    if silent:
        run.silent.set()
    run.calls.make("close")
    run.calls.make("dup")
    assert [run.calls.passed.get(timeout=30) for _ in range(2)] == ["dup", "close"]
    assert run.problems == []


def test_calls_that_need_not_wait_are_answered_by_one_thread(run):
    for _ in range(50):
        run.calls.make("lseek")
    assert [run.calls.passed.get(timeout=30) for _ in range(50)] == ["lseek"] * 50
    assert len(run.threads) == 1


def test_a_close_that_never_returns_does_not_keep_the_verdict(monkeypatch, capsys):
    monkeypatch.setattr(module, "_TO_END_S", 0.1)
    system = SimpleNamespace(is_fake=True, backend=None)
    supervisor = Supervisor(system, {}, Places([], fake=True), 768)
    returned = threading.Event()
    monkeypatch.setattr(supervisor.watcher, "_look", returned.wait)
    calls = Calls()
    supervisor.serve(calls)
    calls.make(None)
    try:
        supervisor.finish()
        assert "dmasync run: the closing of a file has taken 0.1 s" in capsys.readouterr().err
    finally:
        returned.set()


def test_a_descriptor_that_a_real_kernel_gave_out_again_is_left_alone():
    """The program closes its number twice; by then the supervisor has another file open where it had the program's."""
    journal = Journal()
    files = OpenFiles(SimpleNamespace(is_fake=False, journal=journal, drop=os.close), 768)
    fd = os.open(os.devnull, os.O_RDONLY)
    files.put(1, 768, Descriptor(fd, OpenFile("dmabuf", None, None, None)))
    files.close(1, 768)
    assert files.closed(1, 768) == NOT_OPEN  # the number is open still, and somebody else's
    assert journal.numbers.of(NOT_OPEN, time.monotonic_ns()) == 768
    os.close(fd)
    assert files.closed(1, 768) == fd
    assert files.closed(1, 769) is None


def test_a_program_that_lets_nobody_look_into_it_is_told_of(monkeypatch):
    def refuse(*arguments, **how):
        raise PermissionError

    told = []
    monkeypatch.setattr(processes, "ON_HIDDEN", [told.append])
    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    assert processes.file_of(7, 3) is None
    assert memory._through_file(8, 0x1000, 4) == b""
    assert told == [7, 8]


def test_a_process_that_is_none_of_the_run_may_hide(dmasync_run):
    done = dmasync_run("sh", "-c", "stat -L /proc/1/fd/0 /proc/1/fd/1 /proc/1/fd/2 > /dev/null 2>&1; true", check=False)
    assert (done.status, done.errors) == (0, "")


def test_the_folder_of_the_heaps_opens_where_no_file_can_be_made(monkeypatch):
    def refuse(prefix):
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    system = FakeSystem()
    host = system.host_file(system.backend.open("/dev/dma_heap", os.O_RDONLY))
    assert host.kind == "directory"
    assert stat.S_ISDIR(os.fstat(host.fd).st_mode)
    for fd in (host.fd, host.witness):
        os.close(fd)
