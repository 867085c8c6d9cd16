"""A process between this one and the program, so that whoever of the three is killed takes the program along.

It waits for all that the program starts, and tells the program's status over a pipe. When this process is gone it ends
them; when it is gone itself, the program dies with it and this process ends the rest.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable
from typing import Final, NoReturn

from dmasync.harness.run.program.processes import kill_descendants
from dmasync.harness.run.seccomp import numbers

_STATUS: Final = 4
"""Bytes of a wait status on the pipe."""


def start(become: Callable[[int], NoReturn]) -> tuple[int, int]:
    """Fork the guard, which forks the program: *become* is called there with the guard's pid. Returns the guard's pid
    and the pipe's end for :func:`status`.
    """
    reader, writer = os.pipe()
    parent = numbers.call("pidfd_open", os.getpid(), 0)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            _guard(parent, writer, become)
        finally:
            os._exit(0)
    os.close(writer)
    os.close(parent)
    return pid, reader


def status(reader: int) -> int | None:
    """Wait until the program and all that it started have ended: its wait status, None where the guard was killed."""
    data = os.read(reader, _STATUS)
    os.close(reader)
    return int.from_bytes(data, "little") if len(data) == _STATUS else None


def _guard(parent: int, writer: int, become: Callable[[int], NoReturn]) -> None:
    numbers.prctl(numbers.PR_SET_CHILD_SUBREAPER, 1)
    woken, waker = os.pipe()
    for fd in (woken, waker):
        os.set_blocking(fd, False)
    me = os.getpid()
    program = os.fork()
    if program == 0:
        try:
            become(me)
        finally:
            os._exit(126)
    # What the terminal sends to everybody is for the program to answer.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    poller = select.poll()
    poller.register(parent, select.POLLIN)
    poller.register(woken, select.POLLIN)
    state = 0
    while True:
        with contextlib.suppress(BlockingIOError):
            os.read(woken, 4096)
        try:
            while True:
                ended, its = os.waitpid(-1, os.WNOHANG)
                if not ended:
                    break
                if ended == program:
                    state = its
        except ChildProcessError:
            break
        if any(fd == parent for fd, _ in poller.poll()):
            kill_descendants()
            poller.unregister(parent)
    with contextlib.suppress(BrokenPipeError):
        os.write(writer, state.to_bytes(_STATUS, "little"))
