"""The kernel's side of the conversation: calls that wait, and the ways to answer one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import struct

from dmasync.harness.run.seccomp import numbers


class GoneError(Exception):
    """The caller is gone: killed, or a signal took it out of its call. Nobody waits for the answer."""


class Notification:
    """One call that waits: who makes it, which, and with what."""

    __slots__ = ("architecture", "arguments", "id", "ip", "number", "process", "thread")

    def __init__(self, data: bytearray) -> None:
        self.id, self.thread, _, self.number, self.architecture, self.ip, *arguments = numbers.NOTIFICATION.unpack(data)
        self.arguments: list[int] = arguments
        self.process = 0
        """The thread group; filled in by who looks it up."""


class Listener:
    """The descriptor of a filter's notifications; owns it. Every method may be called by any thread."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        with contextlib.suppress(OSError):  # before Linux 6.6
            fcntl.ioctl(fd, numbers.NOTIF_SET_FLAGS, numbers.FD_SYNC_WAKE_UP)

    def receive(self, buffer: bytearray) -> Notification | None:
        """The next call that waits; None when nobody is left who could make one. *buffer* is scratch, 80 bytes."""
        while True:
            buffer[:] = bytes(numbers.NOTIFICATION.size)
            try:
                fcntl.ioctl(self.fd, numbers.NOTIF_RECV, buffer)
                return Notification(buffer)
            except OSError as problem:
                if problem.errno == errno.EINTR:
                    continue
                if problem.errno != errno.ENOENT or self.is_over():
                    return None

    def is_over(self) -> bool:
        """Whether the last process under the filter has ended."""
        poller = select.poll()
        poller.register(self.fd, select.POLLIN)
        ready = poller.poll(0)
        return bool(ready and ready[0][1] & (select.POLLHUP | select.POLLERR | select.POLLNVAL))

    def answer(self, call: Notification, value: int) -> None:
        """The call returns *value*. GoneError."""
        self._send(call, value, 0, 0)

    def refuse(self, call: Notification, code: int) -> None:
        """The call fails with errno *code*. GoneError."""
        self._send(call, 0, -code, 0)

    def carry_on(self, call: Notification) -> None:
        """The kernel does the call itself, as if there were no filter. GoneError."""
        self._send(call, 0, 0, numbers.USER_NOTIF_FLAG_CONTINUE)

    def _send(self, call: Notification, value: int, error: int, flags: int) -> None:
        try:
            fcntl.ioctl(self.fd, numbers.NOTIF_SEND, bytearray(numbers.RESPONSE.pack(call.id, value, error, flags)))
        except OSError as problem:
            if problem.errno == errno.ENOENT:
                raise GoneError from None
            raise

    def is_waiting(self, call: Notification) -> bool:
        """Whether the caller still waits for its answer."""
        try:
            fcntl.ioctl(self.fd, numbers.NOTIF_ID_VALID, bytearray(struct.pack("=Q", call.id)))
        except OSError:
            return False
        return True

    def give(self, call: Notification, fd: int, number: int | None, *, close_on_exec: bool, answer: bool) -> int:
        """Give the program a descriptor of our open file *fd*: *number*, or the lowest free one where that is None.

        With *answer* the number is also what the call returns, in one step. Returns the number. EMFILE beyond the
        program's RLIMIT_NOFILE; GoneError.
        """
        flags = (numbers.ADDFD_FLAG_SEND if answer else 0) | (0 if number is None else numbers.ADDFD_FLAG_SETFD)
        request = numbers.ADDFD.pack(call.id, flags, fd, number or 0, os.O_CLOEXEC if close_on_exec else 0)
        try:
            return int(fcntl.ioctl(self.fd, numbers.NOTIF_ADDFD, bytearray(request)))
        except OSError as problem:
            if problem.errno in (errno.ENOENT, errno.ESRCH, errno.EINPROGRESS):
                raise GoneError from None
            if problem.errno == errno.EBADF:  # the kernel's word for a number beyond the limit
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from None
            raise
