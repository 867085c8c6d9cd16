"""Runs a program that must not outlive the one that started it. Started by file name, not imported.

The program and what it starts are in one process group. Standard input is a pipe whose other end the starter keeps:
when that end closes, because the starter says so or because it died, even of SIGKILL, the whole group is killed. Either
way nothing of the group is left when this process ends, not even as a zombie. The exit status is the program's.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys

PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h: orphans of the group become this process's children, so that it can wait for them."""


def main() -> int:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
    ended = os.pidfd_open(program.pid)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(sys.stdin.fileno(), select.POLLIN | select.POLLHUP)
    ready = {descriptor for descriptor, _ in poll.poll()}
    if ended in ready:
        program.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    status = program.wait()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
