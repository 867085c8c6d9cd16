"""Runs a program that must not outlive the one that started it: :func:`guarded` starts this very file.

``guard.py [--gently] PROGRAM ARGUMENTS…``

Standard input is a pipe whose other end the starter keeps: when that end closes, because the starter says so or because
it died, even of SIGKILL, the program and all that it started are ended. The exit status is the program's.

Without ``--gently`` the program has a session of its own, and what the terminal sends is not for it; when this process
ends nothing of it is left, not even a zombie. With it, the program stays in the starter's session, where it may ask
for a password; it is asked to end before it is killed, and what it leaves running when it ends by itself runs on.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h: orphans become this process's children, so that it can find them and wait for them."""
GRACE_SECONDS = 3.0
"""For what is asked to end: a shell's trap puts a board's governor back in that time."""
TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def guarded(words: Sequence[str], *, gently: bool = False, **how: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start *words* so that nothing of it is left when the block ends, however it ends; *how* goes to Popen."""
    line = [sys.executable, "-I", "-S", __file__, *(["--gently"] if gently else []), *words]
    process: subprocess.Popen[Any] = subprocess.Popen(
        line,
        stdin=subprocess.PIPE,
        start_new_session=not gently,  # Ctrl-C is the starter's to handle, or everybody's
        **how,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None  # noqa: S101 - asked for above
        process.stdin.close()  # the sign to end everything
        process.wait()


def main() -> int:
    words = sys.argv[1:]
    gently = words[0] == "--gently"
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if gently:
        words = words[1:]
        for number in TERMINAL:
            # A handler, not SIG_IGN, which the program would inherit. The starter's end is what counts here.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda number, frame: None)
    program = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=not gently)
    ended = os.pidfd_open(program.pid)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(sys.stdin.fileno(), select.POLLIN | select.POLLHUP)
    ready = {descriptor for descriptor, _ in poll.poll()}
    if ended not in ready and gently:
        end_all(signal.SIGTERM, GRACE_SECONDS)
    if not gently:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
    if ended not in ready or not gently:
        while descendants():
            end_all(signal.SIGKILL, GRACE_SECONDS)
    status = program.wait()
    if not gently:
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()
    return status if status >= 0 else 128 - status


def end_all(number: int, seconds: float) -> None:
    """Send *number* to all that was started; return when they have ended, or after *seconds*."""
    for process in descendants():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)
    deadline = time.monotonic() + seconds
    while descendants() and time.monotonic() < deadline:
        time.sleep(0.01)


def descendants() -> list[int]:
    """The processes below this one that have not ended."""
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        children = children_of(waiting.pop())
        found += filter(is_alive, children)
        waiting += children
    return found


def children_of(process: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{process}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{process}/task/{thread}/children") as children:
                found += map(int, children.read().split())
    return found


def is_alive(process: int) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{process}/stat", "rb") as state:
        return state.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    return False


if __name__ == "__main__":
    sys.exit(main())
