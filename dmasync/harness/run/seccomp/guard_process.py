"""A process between this one and the program, so that whoever of the three is killed takes the program along.

It waits for all that the program starts, and tells the program's status over a pipe. When this process is gone it ends
them; when it is gone itself, the program dies with it and this process ends the rest.

It also shows who was sent a SIGINT or SIGQUIT: it holds them back, so one that is pending in it went to the whole
process group, and the program, which is in that group, has it already.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn

from dmasync.harness.run.program import keyboard
from dmasync.harness.run.program.processes import kill_descendants
from dmasync.harness.run.seccomp import numbers

_STATUS: Final = 4
"""Bytes of a wait status on the pipe."""
_A_MOMENT_S: Final = 0.005
"""The kernel goes through a process group without a pause: more than it needs for that."""


class Guard(NamedTuple):
    """The guard, as this process knows it."""

    pid: int
    reader: int
    """The pipe that its status comes from."""
    forgetter: int
    """The pipe that tells it to forget the signals that it holds back."""

    def status(self) -> int | None:
        """Wait until the program and all that it started have ended: its wait status, None where this was killed."""
        data = os.read(self.reader, _STATUS)
        os.waitpid(self.pid, 0)
        return int.from_bytes(data, "little") if len(data) == _STATUS else None

    def close(self) -> None:
        """Close the pipes."""
        os.close(self.reader)
        os.close(self.forgetter)

    def had(self, number: int) -> bool:
        """Whether the signal that this process has just got was sent to its whole process group."""
        had = self._is_pending(number)
        if not had:
            time.sleep(_A_MOMENT_S)
            had = self._is_pending(number)
        with contextlib.suppress(BrokenPipeError):
            os.write(self.forgetter, b"!")
        return had

    def _is_pending(self, number: int) -> bool:
        with (
            contextlib.suppress(OSError),
            open(f"/proc/{self.pid}/status", encoding="ascii", errors="replace") as lines,
        ):
            for line in lines:
                if line.startswith("ShdPnd:"):
                    return bool(int(line.split()[1], 16) >> (number - 1) & 1)
        return False


def start(become: Callable[[int], NoReturn]) -> Guard:
    """Fork the guard, which forks the program: *become* is called there with the guard's pid."""
    reader, writer = os.pipe()
    forget, forgetter = os.pipe()
    parent = numbers.call("pidfd_open", os.getpid(), 0)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            os.close(forgetter)
            _guard(parent, writer, forget, become)
        finally:
            os._exit(0)
    for fd in (writer, forget, parent):
        os.close(fd)
    return Guard(pid, reader, forgetter)


def _guard(parent: int, writer: int, forget: int, become: Callable[[int], NoReturn]) -> None:
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
    signal.pthread_sigmask(signal.SIG_BLOCK, keyboard.NUMBERS)
    for number in (*keyboard.NUMBERS, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    poller = select.poll()
    poller.register(parent, select.POLLIN)
    poller.register(woken, select.POLLIN)
    poller.register(forget, select.POLLIN)
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
        ready = {fd for fd, _ in poller.poll()}
        if parent in ready:
            kill_descendants()
            poller.unregister(parent)
        if forget in ready:
            if not os.read(forget, 4096):  # there is nobody left who asks
                poller.unregister(forget)
            while signal.sigtimedwait(keyboard.NUMBERS, 0):
                pass
    with contextlib.suppress(BrokenPipeError):
        os.write(writer, state.to_bytes(_STATUS, "little"))
