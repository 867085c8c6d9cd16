"""Starts the program under the filter, as a child that dies with this process."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.run.seccomp import bpf, guard_process, numbers
from dmasync.harness.run.seccomp.listener import Listener

_ELF_32 = b"\x7fELF\x01"
_REFUSED = {
    errno.EPERM: "seccomp is forbidden here, by a container's profile for one: allow the system call seccomp in it",
    errno.EBUSY: "the process has a notification listener already: dmasync run cannot run under another one",
    errno.EINVAL: "the kernel has no seccomp notifications: Linux 5.14 or newer is needed",
    errno.ENOSYS: "the kernel has no seccomp: Linux 5.14 or newer with CONFIG_SECCOMP_FILTER is needed",
}


class _FilterProgram(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(bpf.Instruction)))


class Launched:
    """A program that has been started, or waits to be: :meth:`go` lets it run."""

    def __init__(self, guard: guard_process.Guard, program: int, listener: Listener, talk: socket.socket) -> None:
        self.guard = guard
        self._pid = program
        self._program = None
        with contextlib.suppress(ProcessLookupError):  # somebody ended it already
            self._program = os.pidfd_open(program)
        self.listener = listener
        self._talk = talk

    def go(self) -> None:
        """Let it run; somebody answers its calls by now."""
        self._talk.send(b"G")

    def refusal(self) -> int:
        """Wait until the program has been loaded: 0, or the errno of execve()."""
        with self._talk:
            answer = self._talk.recv(8)
        return int(answer.decode()) if answer else 0

    def status(self) -> int | None:
        """Wait until it and all that it started have ended: its wait status, None where somebody killed the guard."""
        return self.guard.status()

    def close(self) -> None:
        """Afterwards nothing can be sent any more."""
        self.guard.close()
        if self._program is not None:
            os.close(self._program)

    def pass_on(self, number: int) -> None:
        """Send the program a signal that this process got, unless all of the process group did."""
        had = self.guard.had(number)
        with contextlib.suppress(ProcessLookupError):
            had = had and os.getpgid(self._pid) == os.getpgrp()
        if not had:
            self.send(number)

    def send(self, number: int) -> None:
        """Send the program a signal, if it is still there."""
        if self._program is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._program, number)


def launch(
    command: Sequence[str],
    instructions: ctypes.Array[bpf.Instruction],
    environment: Mapping[str, str],
    restore: Callable[[], None],
) -> Launched:
    """Fork, call *restore* and install the filter in the child; CommandError with one line where that is refused."""
    path = shutil.which(command[0])
    if path is None:
        raise CommandError(f"PROGRAM {command[0]!r} is {_why_not(command[0])}")
    if _is_32_bit(path):
        raise CommandError(
            f"PROGRAM {command[0]!r} is a 32-bit program: dmasync run can stop the calls of 64-bit ones alone",
            ExitStatus.SKIPPED,
        )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    guard = guard_process.start(
        lambda parent: _become((path, list(command), environment), instructions, restore, parent, theirs)
    )
    theirs.close()
    message, fds, _, _ = socket.recv_fds(ours, 64, 1)
    if fds:
        return Launched(guard, int(message), Listener(fds[0]), ours)
    ours.close()
    guard.status()
    guard.close()
    code = int(message.decode() or errno.EIO)
    raise CommandError(_REFUSED.get(code, f"the filter was refused: {os.strerror(code)}"), ExitStatus.SKIPPED)


def _is_32_bit(path: str) -> bool:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(len(_ELF_32)) == _ELF_32
    return False


def _why_not(name: str) -> str:
    """What PROGRAM is that cannot be started, and what to write instead."""
    try:
        os.stat(name)
    except (FileNotFoundError, NotADirectoryError):
        return "no executable file and not on the PATH"
    except OSError as problem:
        return f"a file that cannot be reached: {problem.strerror}"
    if os.path.isdir(name):
        return "a folder"
    if not os.access(name, os.X_OK):
        start = f"python3 {name}" if name.endswith(".py") else f"INTERPRETER {name}"
        return f"no executable file: make it one with chmod +x, or write -- {start}"
    return f"not on the PATH, but in this folder: write -- ./{name}"


def _become(
    program: tuple[str, list[str], Mapping[str, str]],
    instructions: ctypes.Array[bpf.Instruction],
    restore: Callable[[], None],
    parent: int,
    talk: socket.socket,
) -> NoReturn:
    """The child."""
    try:
        # Whoever kills the guard kills the program.
        numbers.prctl(numbers.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(ExitStatus.SKIPPED)
        # What Python ignores, the program must not inherit as ignored.
        for name in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(name, signal.SIG_DFL)
        restore()
        numbers.prctl(numbers.PR_SET_NO_NEW_PRIVS, 1)
        listener = _install(instructions)
        socket.send_fds(talk, [str(os.getpid()).encode()], [listener])
        os.close(listener)
        if not talk.recv(1):
            os._exit(ExitStatus.SKIPPED)
        os.execve(*program)  # noqa: S606 - that is the job
    except OSError as problem:
        talk.send(str(problem.errno).encode())
    finally:
        os._exit(126)


def _install(instructions: ctypes.Array[bpf.Instruction]) -> int:
    program = _FilterProgram(len(instructions), instructions)
    address = ctypes.addressof(program)
    flags = numbers.FLAG_NEW_LISTENER
    try:
        return numbers.call("seccomp", numbers.SET_MODE_FILTER, flags | numbers.FLAG_WAIT_KILLABLE_RECV, address)
    except OSError as problem:
        if problem.errno != errno.EINVAL:
            raise
    # Before Linux 5.19: a signal may take a caller out of a call that has been answered already.
    return numbers.call("seccomp", numbers.SET_MODE_FILTER, flags, address)
