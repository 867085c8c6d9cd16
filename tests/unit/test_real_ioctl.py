"""The compiled core's own ioctl(2), which no backend stands for: other threads run meanwhile, and signals are heard.

The call is interposed in a process of its own: see tests/support/slow_ioctl.c.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dmasync import compiled
from tests.support.points.build import CannotBuildError, compiler

pytestmark = pytest.mark.skipif(not compiled, reason="in plain Python every backend's ioctl is called the same way")

SOURCE = Path(__file__).parents[1] / "support" / "slow_ioctl.c"
PRELUDE = """
import ctypes, errno, os, signal, threading
from dmasync import DmaSyncer, DmaSyncError, RetryPolicy
library = ctypes.CDLL(os.environ["LD_PRELOAD"])
interruptions, gate = (ctypes.c_int.in_dll(library, name) for name in ("interruptions", "gate"))
null = open("/dev/null")
window = DmaSyncer(null.fileno())
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    target = tmp_path_factory.mktemp("slow_ioctl") / "slow_ioctl.so"
    try:
        command = [*compiler(), "-O1", "-fPIC", "-shared", "-Wall", "-o", str(target), str(SOURCE)]
    except CannotBuildError as error:
        pytest.skip(str(error))
    subprocess.run(command, check=True, timeout=120)
    return target


def run(library, program):
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    line = [sys.executable, "-c", PRELUDE + program]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=30, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("step", ["start", "end"])
def test_other_threads_run_while_the_kernel_lets_one_wait(library, step):
    run(
        library,
        f"""
reader, writer = os.pipe()
if {step!r} == "end":
    window.start()
gate.value = reader
thread = threading.Thread(target=window.{step})
thread.start()
os.write(writer, b"x")
thread.join()
assert window.active == ({step!r} == "start")
gate.value = -1
window.end()
""",
    )


def test_an_interrupted_call_is_made_again(library):
    run(
        library,
        """
heard = []
signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
interruptions.value = 3
with window:
    assert interruptions.value == 0
    interruptions.value = 2
assert interruptions.value == 0
assert len(heard) == 5
""",
    )


@pytest.mark.parametrize("step", ["START", "END"])
def test_what_a_handler_raises_is_no_answer_of_the_kernel_though_it_has_an_errno(library, step):
    run(
        library,
        f"""
problem = OSError(errno.EIO, "the handler's")

def handler(number, frame):
    raise problem

signal.signal(signal.SIGUSR1, handler)
try:
    interruptions.value = {step!r} == "START"
    with window:
        interruptions.value = 1
except OSError as error:
    assert error is problem
else:
    raise AssertionError
assert interruptions.value == 0
assert not window.active
with window:
    pass
""",
    )


def test_an_interruption_that_may_not_be_repeated_is_told_with_what_it_means(library):
    run(
        library,
        """
signal.signal(signal.SIGUSR1, lambda *_: None)
interruptions.value = 1
try:
    DmaSyncer(null.fileno(), retry=RetryPolicy(errnos=())).start()
except DmaSyncError as error:
    assert error.errno == errno.EINTR
    assert isinstance(error.__cause__, InterruptedError)
    assert os.strerror(errno.EINTR) in str(error.__cause__)
else:
    raise AssertionError
""",
    )
