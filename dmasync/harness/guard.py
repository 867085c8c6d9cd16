"""Runs a program that must not outlive the one that started it. Started by file name, not imported.

Its own session and process group hold everything that the program starts. Standard input is a pipe whose other end the
starter keeps: when that end closes, because the starter says so or because it died, even of SIGKILL, the whole group is
killed. Otherwise the exit status is the program's.
"""

import os
import select
import signal
import subprocess
import sys


def main() -> int:
    if os.getpgrp() != os.getpid():
        os.setsid()
    program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    ended = os.pidfd_open(program.pid)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(sys.stdin.fileno(), select.POLLIN | select.POLLHUP)
    ready = {descriptor for descriptor, _ in poll.poll()}
    if ended not in ready:
        os.killpg(0, signal.SIGKILL)
    status = program.wait()
    # What the program left behind in the group (an emulator whose starter was killed) ends with it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
