"""System calls made inside another process, by ptrace: the caller of a call that waits makes some of ours, and then
finds the answer to its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Final

from dmasync.harness.run.seccomp import numbers
from dmasync.harness.run.seccomp.listener import GoneError

_SEIZE: Final = 0x4206
_INTERRUPT: Final = 0x4207
_TO_NEXT_CALL: Final = 24  # PTRACE_SYSCALL
_DETACH: Final = 17
_GET_REGISTERS: Final = 0x4204
_SET_REGISTERS: Final = 0x4205
_SYSGOOD: Final = 1
_STOP_EVENT: Final = 128
_WALL: Final = 0x40000000
_NT_PRSTATUS: Final = 1
_NT_ARM_SYSTEM_CALL: Final = 0x404
_MINUS_ONE: Final = (1 << 64) - 1
_ERRORS: Final = 4096

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


class _Layout:
    """Where struct user_regs_struct of a machine has what a call needs: word numbers."""

    def __init__(
        self, words: int, program_counter: int, number: int, result: int, arguments: tuple[int, ...], length: int
    ) -> None:
        self.words = words
        self.program_counter = program_counter
        self.number = number
        self.result = result
        self.arguments = arguments
        self.instruction_length = length


_LAYOUTS: Final = {
    # r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds …
    "x86_64": _Layout(27, 16, 10, 10, (14, 13, 12, 7, 9, 8), 2),
    # x0 … x30, sp, pc, pstate
    "aarch64": _Layout(34, 32, 8, 0, (0, 1, 2, 3, 4, 5), 4),
}
_ORIGINAL_NUMBER: Final = 15
"""orig_rax, on x86-64."""


class _Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _ptrace(request: int, thread: int, address: int = 0, data: int = 0) -> None:
    ctypes.set_errno(0)
    if _libc.ptrace(request, thread, address, data) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class TracedError(Exception):
    """Nobody can make calls in the thread: a debugger or strace has it, or this machine lets nobody trace it."""


class Inside:
    """The thread *thread*, taken out of the call in which it waits; a context manager.

    *answer* sends it a first answer, which it never sees: what it sees is set by :meth:`finish`. All in one thread of
    this process, as ptrace wants it.
    """

    def __init__(self, thread: int, answer: Callable[[], None]) -> None:
        self._thread = thread
        self._answer = answer
        self._layout = _LAYOUTS[platform.machine()]
        self._registers = (ctypes.c_uint64 * self._layout.words)()
        self._vector = _Vector(ctypes.addressof(self._registers), ctypes.sizeof(self._registers))
        self._saved = b""
        self._result = -errno.EIO
        self._signals: list[int] = []

    def __enter__(self) -> Inside:
        try:
            _ptrace(_SEIZE, self._thread, 0, _SYSGOOD)
        except PermissionError:
            raise TracedError from None
        try:
            _ptrace(_INTERRUPT, self._thread)
            with contextlib.suppress(GoneError):  # the interruption was first
                self._answer()
            self._wait()
            self._get()
            self._saved = bytes(self._registers)
        except BaseException:
            self._detach()
            raise
        return self

    def call(self, name: str, *arguments: int) -> int:
        """Let it make a system call; its result, a negative errno for an error."""
        machine = numbers.machine()
        assert machine is not None  # noqa: S101 - there is a run
        layout = self._layout
        self._restore()
        self._registers[layout.program_counter] -= layout.instruction_length  # at the instruction once more
        self._registers[layout.number] = machine.calls[name]
        if platform.machine() == "x86_64":
            self._registers[_ORIGINAL_NUMBER] = _MINUS_ONE  # or an interrupted call would be restarted here
        for place, value in zip(layout.arguments, arguments, strict=False):
            self._registers[place] = value & _MINUS_ONE
        self._set()
        for _ in range(2):  # into it, and out of it
            _ptrace(_TO_NEXT_CALL, self._thread)
            self._wait()
        self._get()
        return ctypes.c_long(self._registers[layout.result]).value

    def finish(self, result: int) -> None:
        """What its own call returns; a negative errno for an error."""
        self._result = result

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._restore()
            self._registers[self._layout.result] = self._result & _MINUS_ONE
            if platform.machine() == "x86_64":
                self._registers[_ORIGINAL_NUMBER] = _MINUS_ONE
            self._set()
        self._detach()

    def _restore(self) -> None:
        ctypes.memmove(self._registers, self._saved, len(self._saved))

    def _get(self) -> None:
        self._vector.length = ctypes.sizeof(self._registers)
        _ptrace(_GET_REGISTERS, self._thread, _NT_PRSTATUS, ctypes.addressof(self._vector))

    def _set(self) -> None:
        self._vector.length = ctypes.sizeof(self._registers)
        _ptrace(_SET_REGISTERS, self._thread, _NT_PRSTATUS, ctypes.addressof(self._vector))

    def _detach(self) -> None:
        with contextlib.suppress(OSError):
            _ptrace(_DETACH, self._thread)
        for number in self._signals:
            with contextlib.suppress(OSError):
                os.kill(self._thread, number)

    def _wait(self) -> None:
        """Until it stops for us; a signal on its way to it comes when we have gone."""
        while True:
            _, status = os.waitpid(self._thread, _WALL)
            if not os.WIFSTOPPED(status):
                raise GoneError
            stop = os.WSTOPSIG(status)
            if status >> 16 == _STOP_EVENT or stop in (signal.SIGTRAP | 0x80, signal.SIGTRAP):
                return
            self._signals.append(stop)
            _ptrace(_TO_NEXT_CALL, self._thread)


def is_error(result: int) -> bool:
    """Whether a system call's result is a negative errno."""
    return -_ERRORS < result < 0
