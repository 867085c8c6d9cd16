"""What a compiled core can get wrong and plain Python cannot: references, cycles, exceptions on their way, memory.

The plain twin passes the same tests. tests/support/c_mutants.py takes one thing at a time out of the C and runs these.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import subprocess
import sys
import tracemalloc
import weakref

import pytest

from dmasync import DmaBuf, DmaSyncer, DmaSyncerGroup, DmaSyncError, LinuxBackend, RetryPolicy, Step, SyncType, compiled
from dmasync.core import File
from dmasync.fakes import faults
from tests.support.c_mutant import SOURCE
from tests.support.c_mutants_list import MUTANTS

START, END = Step.START, Step.END
SEVERAL = 50


@pytest.fixture(autouse=True)
def collecting_when_told():
    """The collections of these tests are their own."""
    gc.collect()
    gc.freeze()  # see tests/conftest.py
    gc.disable()
    yield
    gc.enable()


class Quiet(LinuxBackend):
    """Answers every ioctl with *answer*, or raises what *problems* has next."""

    def __init__(self, answer: object = 0, problems: list[BaseException | None] | None = None) -> None:
        self._answer = answer
        self.problems = problems or []
        self.closed: list[int] = []

    def ioctl(self, fd, request, argument):
        problem = self.problems.pop(0) if self.problems else None
        if problem is not None:
            raise problem
        return self._answer

    def close(self, fd, /):
        self.closed.append(fd)


class ProblemError(Exception):
    """An exception of the body or of a handler."""


class RefusalError(OSError):
    """Raised with errno EIO, EINTR, …: an answer of the kernel that can be watched."""


def of_kernel(backend, number=5):
    return DmaBuf(File(number, backend, True), 4096, "", None, object())


def gone(*watched):
    """Whether nothing holds what the weak references *watched* point at."""
    return [reference() for reference in watched] == [None] * len(watched)


# What is dropped is freed, without a collection


def test_a_file_that_is_dropped_frees_its_backend_and_what_it_keeps():
    backend, kept = Quiet(), ProblemError()
    watched = weakref.ref(backend), weakref.ref(kept)
    File(5, backend, False, kept)
    del backend, kept
    assert gone(*watched)


def test_a_file_holds_its_number_once():
    number = int("70000")
    before = sys.getrefcount(number)
    for _ in range(SEVERAL):
        File(number, LinuxBackend())
        File.opened(Quiet(), None, lambda _: number, 0)
    assert sys.getrefcount(number) == before


def test_a_file_holds_its_backends_ioctl_once():
    backend = Quiet()
    backend.ioctl = ioctl = lambda *_: 0
    before = sys.getrefcount(ioctl)
    for _ in range(SEVERAL):
        File(5, backend)
    assert sys.getrefcount(ioctl) == before


@pytest.mark.parametrize("targets", [1, 3])
def test_a_window_that_is_dropped_frees_files_policy_and_backend(targets):
    backend, policy = Quiet(), RetryPolicy(max_attempts=3)
    buffers = [of_kernel(backend, number) for number in range(5, 5 + targets)]
    ioctl = backend.ioctl
    before = sys.getrefcount(ioctl)
    if targets == 1:
        windows = [DmaSyncer(buffers[0], backend=backend, retry=policy) for _ in range(SEVERAL)]
    else:
        pairs = [(buffer, SyncType.READ) for buffer in buffers]
        windows = [DmaSyncerGroup(pairs, backend=backend, retry=policy) for _ in range(SEVERAL)]
    for window in windows:
        with window:
            pass
    del window, windows
    assert sys.getrefcount(ioctl) == before
    watched = weakref.ref(policy), weakref.ref(backend)
    for buffer in buffers:
        buffer.close()
    del policy, backend, buffers, buffer, ioctl
    if targets > 1:
        del pairs
    assert gone(*watched)


def test_a_window_of_a_buffer_frees_its_file():
    backend = Quiet()
    watched = weakref.ref(backend)
    buffer = of_kernel(backend)
    for _ in range(SEVERAL):
        DmaSyncer(buffer)
        DmaSyncer(buffer, SyncType.READ)
    buffer.close()
    del buffer, backend
    assert gone(watched)


def test_windows_over_several_buffers_free_their_memory():
    buffers = [of_kernel(Quiet(), number) for number in range(5, 105)]
    pairs = [(buffer, SyncType.READ) for buffer in buffers]
    DmaSyncerGroup(pairs)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(SEVERAL):
            DmaSyncerGroup(pairs)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    for buffer in buffers:
        buffer.close()
    assert grown < SEVERAL * len(buffers) * 8  # bytes: less than a pointer for each target of each window


def test_a_window_that_is_set_up_again_frees_what_it_was_set_up_with():
    backend, policy = Quiet(), RetryPolicy(max_attempts=3)
    watched = weakref.ref(backend), weakref.ref(policy)
    first, second = of_kernel(backend), of_kernel(Quiet())
    windows = [DmaSyncer(first, retry=policy), DmaSyncerGroup([(first, SyncType.READ)], retry=policy)]
    windows[0].__init__(second)
    windows[1].__init__([(second, SyncType.READ)])
    first.close()
    del first, backend, policy
    assert gone(*watched)
    second.close()


def test_a_window_whose_set_up_at_once_is_done_again_frees_the_first_buffer():
    backend = Quiet()
    watched = weakref.ref(backend)
    first, second = of_kernel(backend), of_kernel(Quiet())
    window = DmaSyncer(first)
    window.__init__(second)
    window.__init__(second, SyncType.READ)
    first.close()
    del first, backend
    assert gone(watched)
    second.close()


def test_answers_of_the_backend_are_freed():
    answer = ProblemError()
    buffer = of_kernel(Quiet(answer))
    before = sys.getrefcount(answer)
    for _ in range(SEVERAL):
        with DmaSyncer(buffer):
            pass
    assert sys.getrefcount(answer) == before
    buffer.close()


@pytest.mark.parametrize("interrupt", [False, True], ids=["refusal", "interrupt"])
@pytest.mark.parametrize("successes", [0, 1], ids=["START", "END"])
@pytest.mark.parametrize("use", ["enter and exit", "drop", "log only"])
def test_exceptions_that_were_dealt_with_are_freed(use, successes, interrupt, caplog):
    caplog.set_level(logging.CRITICAL, "dmasync")  # the records would hold them
    problem = ProblemError() if interrupt else RefusalError(errno.EIO, "no")
    backend = Quiet(problems=[None] * successes + [problem])
    buffer = of_kernel(backend)
    window = DmaSyncer(buffer, on_error="log" if use == "log only" else "raise")
    watched = weakref.ref(problem)
    del problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", lambda problem: None)
        if use == "drop":
            try:
                window.start()
            except (ProblemError, DmaSyncError):
                pass
            else:
                with pytest.warns(ResourceWarning):
                    del window
        else:
            try:
                with window:
                    pass
            except (ProblemError, DmaSyncError):
                pass
    assert not backend.problems
    gc.collect()  # tracebacks and their frames may form cycles
    assert gone(watched)
    buffer.close()


@pytest.mark.parametrize("step", [START, END], ids=lambda step: step.name)
def test_refusals_and_attempts_of_a_success_are_freed(step):
    refusal = RefusalError(errno.EINTR, "again")
    made = []

    class Counting(RetryPolicy):
        def __eq__(self, other):
            return self is other

        __hash__ = RetryPolicy.__hash__

    policy = Counting(backoff=lambda code, count: made.append(count) or 0.0)
    before = sys.getrefcount(policy)
    backend = Quiet(problems=[refusal] if step is START else [None, refusal])
    watched = weakref.ref(refusal)
    del refusal
    buffer = of_kernel(backend)
    window = DmaSyncer(buffer, retry=policy)
    with window:
        pass
    assert made == [1]
    del window
    gc.collect()
    assert gone(watched)
    assert sys.getrefcount(policy) == before
    buffer.close()


def test_a_weak_reference_to_a_window_that_is_gone_is_dead(buffer):
    window = DmaSyncer(buffer)
    told = []
    watched = weakref.ref(window, told.append)
    assert watched() is window
    del window
    assert watched() is None
    assert told == [watched]


@pytest.mark.parametrize("kind", ["syncer", "group"])
def test_a_window_that_is_dropped_frees_its_bytes(buffer, kind):
    class Bytes(bytearray):
        pass

    content = Bytes(8)
    watched = weakref.ref(content)
    window = DmaSyncer(buffer) if kind == "syncer" else DmaSyncerGroup([(buffer, SyncType.READ)])
    window._bytes = memoryview(content)
    for _ in range(2):
        with window as view:
            assert len(view) == 8
    del content, window, view
    assert gone(watched)


# What is dropped in a cycle is found


class Knot:
    """Something that a cycle goes through."""

    def __call__(self, *_):
        return 0


def test_a_cycle_through_what_a_file_keeps_is_collected(buffer, backend):
    class Owner(Knot):
        def fileno(self):
            return buffer.fileno()

    owner = Owner()
    owner.window = DmaSyncer(owner, backend=backend)
    watched = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone(watched)


def test_a_cycle_through_a_files_backend_is_collected():
    backend = Quiet()
    backend.file = File(5, backend, True)
    watched = weakref.ref(backend)
    closed = backend.closed
    del backend
    gc.collect()
    assert gone(watched)
    assert closed == [5]


def test_a_cycle_through_a_files_ioctl_is_collected():
    class Partial(Knot):
        close = staticmethod(os.close)

    backend, knot = Partial(), Knot()
    backend.ioctl = knot
    knot.file = File(5, backend)
    watched = weakref.ref(knot)
    del backend.ioctl  # the file has it, its backend has it no more
    del backend, knot
    gc.collect()
    assert gone(watched)


@pytest.mark.parametrize("through", ["backend", "retry", "bytes", "view"])
@pytest.mark.parametrize("kind", ["syncer", "group"])
def test_a_cycle_through_a_windows_parts_is_collected(kind, through):
    class Bytes(bytearray):
        pass

    buffer, knot, content = of_kernel(Quiet()), Knot(), Bytes(8)
    options = {}
    if through == "backend":
        backend = options["backend"] = Quiet()
        backend.knot = knot
        del backend
    if through == "retry":
        options["retry"] = RetryPolicy(backoff=lambda *_, knot=knot: id(knot))
    window = DmaSyncer(buffer, **options) if kind == "syncer" else DmaSyncerGroup([(buffer, SyncType.READ)], **options)
    if through in ("bytes", "view"):
        content.knot = knot
        window._bytes = memoryview(content)
    if through == "view":
        window.start()
        window._bytes = None
    knot.window = window
    watched = weakref.ref(knot)
    options.clear()
    if through == "view":
        with pytest.warns(ResourceWarning):
            del window, knot, content
            gc.collect()
    else:
        del window, knot, content
        gc.collect()
    assert gone(watched)
    buffer.close()


@pytest.mark.skipif(not compiled, reason="a finalizer in plain Python runs once: this END is lost there")
@pytest.mark.parametrize("kind", ["syncer", "group", "access"])
def test_a_window_that_is_opened_after_it_was_finalized_gets_its_end(buffer, backend, kind):
    class Opener:
        def __init__(self, window):
            self.window = window
            self.cycle = self

        def __del__(self):
            self.window.start()

    make = {
        "syncer": lambda: DmaSyncer(buffer),
        "group": lambda: DmaSyncerGroup([(buffer, SyncType.READ)]),
        "access": buffer.cpu_access,
    }[kind]
    Opener(make())
    with pytest.warns(ResourceWarning, match="was dropped"):
        gc.collect()
    assert [t.step for t in backend.journal.transitions()] == [START, END]
    assert buffer._file.windows == 0


# Exceptions on their way stay what they are


def test_a_window_that_is_dropped_by_an_exception_does_not_lose_it(buffer, backend):
    window = DmaSyncer(buffer)
    window.start()
    windows = [window]
    del window
    with pytest.warns(ResourceWarning), pytest.raises(TypeError, match="DmaSyncer"):
        int(windows.pop())  # the call drops it when the exception is set already
    assert [t.step for t in backend.journal.transitions()] == [START, END]


@pytest.mark.skipif(not compiled, reason="in plain Python it is a line of the finalizer")
def test_the_warning_of_a_window_that_is_dropped_names_the_line_that_drops_it(buffer):
    window = DmaSyncer(buffer)
    window.start()
    with pytest.warns(ResourceWarning) as caught:
        del window
    assert [warning.filename for warning in caught] == [__file__]


def test_a_file_that_is_dropped_by_an_exception_does_not_lose_it():
    backend = Quiet()
    files = [File(5, backend, True)]
    with pytest.raises(TypeError, match="File"):
        int(files.pop())
    assert backend.closed == [5]


@pytest.mark.parametrize("number", ["5", None, 2.5], ids=repr)
def test_a_call_that_returns_no_number_is_refused(number):
    if compiled:
        with pytest.raises(TypeError):
            File.opened(Quiet(), None, lambda: number)
        with pytest.raises(TypeError):
            File(number, Quiet())


@pytest.mark.parametrize(
    "arguments", [(), (1,), (1, 2), (1, "0", len, bytearray(8)), (1, 5, len, bytearray(8))], ids=repr
)
def test_opened_refuses_what_would_read_outside_its_argument(arguments):
    if compiled:
        with pytest.raises(TypeError, match="opened\\(\\) takes a backend, an offset, a call and its arguments"):
            File.opened(*arguments)


def test_an_exception_that_a_buffer_raises_once_is_not_lost():
    class Once:
        def __init__(self):
            self.problems = [ProblemError()]

        def __getattr__(self, name):
            if self.problems:
                raise self.problems.pop()
            raise AttributeError(name)

        def fileno(self):
            return 5

    once = Once()
    with pytest.raises(ProblemError):
        DmaSyncer(once)
    assert DmaSyncer(once).sync_type is SyncType.READ_WRITE


@pytest.mark.parametrize("file", ["a name", 1.5, (), (None,) * 20, bytes(200), b"\xff" * 200])
def test_an_object_whose_file_is_something_else_is_asked_for_its_number(buffer, backend, file):
    class Other:
        _file = file

        def fileno(self):
            return buffer.fileno()

    with DmaSyncer(Other(), backend=backend), DmaSyncer(Other(), SyncType.READ, backend=backend):
        pass
    with pytest.raises(DmaSyncError), DmaSyncer(Other()):
        raise AssertionError


def test_an_exception_in_place_of_a_start_keeps_its_context(buffer, backend):
    first = ProblemError("first")

    class Raising(Quiet):
        def ioctl(self, fd, request, argument):
            try:
                raise first
            except ProblemError:
                raise ProblemError("second") from None

    window = DmaSyncer(buffer, backend=Raising())
    try:
        raise ValueError
    except ValueError:
        with pytest.raises(ProblemError, match="second") as caught:
            window.start()
    assert caught.value.__context__ is first


def test_an_exception_in_place_of_an_end_keeps_its_context(buffer, backend):
    first, body = ProblemError("first"), ValueError("body")

    class Raising(Quiet):
        def ioctl(self, fd, request, argument):
            if not argument[0] & 4 or first.args == ():
                return 0
            try:
                raise first
            except ProblemError:
                first.args = ()
                raise ProblemError("second") from None

    with pytest.raises(ProblemError, match="second") as caught, DmaSyncer(buffer, backend=Raising()):
        raise body
    assert caught.value.__context__ is first
    assert first.__context__ is body


def test_an_exception_in_place_of_an_end_has_the_given_exception_for_its_context(buffer, backend):
    body, problem = ValueError("body"), ProblemError()
    window = DmaSyncer(buffer, backend=Quiet(problems=[None, problem]))
    window.start()
    with pytest.raises(ProblemError):
        window.__exit__(ValueError, body, None)
    assert problem.__context__ is body


# Attempts, views, moves, closes


def test_attempts_go_on_being_counted_over_an_interrupt_of_end(buffer, backend):
    again = OSError(errno.EINTR, "again")
    asked = Quiet(problems=[None, again, again, ProblemError(), again, again, again])
    window = DmaSyncer(buffer, backend=asked, retry=RetryPolicy(max_attempts=4))
    with pytest.raises(ProblemError) as caught, window:
        pass
    chain = [caught.value]
    while chain[-1].__context__ is not None:
        chain.append(chain[-1].__context__)
    (failure,) = [error for error in chain if isinstance(error, DmaSyncError)]
    assert failure.attempts == 4
    assert len(asked.problems) == 1
    assert not window.active


def test_a_window_whose_bytes_cannot_be_viewed_makes_no_start(buffer, backend):
    window = DmaSyncer(buffer)
    window._bytes = view = memoryview(b"bytes")
    view.release()
    with pytest.raises(ValueError, match="released"):
        window.start()
    assert not window.active
    assert backend.journal.transitions() == []
    window._bytes = None
    with window:
        pass
    assert [t.step for t in backend.journal.transitions()] == [START, END]


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_group_with_a_closed_buffer_leaves_the_others_unused(closed):
    backend = Quiet()
    buffers = [of_kernel(backend, number) for number in (5, 6, 7)]
    group = DmaSyncerGroup([(buffer, SyncType.READ) for buffer in buffers])
    buffers[closed].close()
    with pytest.raises(ValueError, match="closed"):
        group.start()
    assert [buffer._file.windows for buffer in buffers] == [0, 0, 0]
    for buffer in buffers:
        buffer.close()
    assert sorted(backend.closed) == [5, 6, 7]


def test_a_heir_has_the_policy_and_its_deadline(buffer, backend):
    now = [0.0]

    class Slow(Quiet):
        def ioctl(self, fd, request, argument):
            now[0] += 2.0
            return super().ioctl(fd, request, argument)

    asked = Slow(problems=[None, OSError(errno.EINTR, "again"), OSError(errno.EINTR, "again")])
    window = DmaSyncer(buffer, backend=asked, retry=RetryPolicy(deadline=1.0, clock=lambda: now[0]))
    window.start()
    heir = window.move()
    del window
    with pytest.raises(DmaSyncError) as caught:
        heir.end()
    assert (caught.value.errno, caught.value.attempts) == (errno.ETIMEDOUT, 1)


def test_a_policy_is_held_once_though_its_window_was_moved(buffer):
    policy = RetryPolicy(max_attempts=2)
    window = DmaSyncer(buffer, retry=policy)
    before = sys.getrefcount(policy)
    heir = window.move()
    del window
    assert sys.getrefcount(policy) == before
    del heir
    assert sys.getrefcount(policy) == before - 1


def test_a_window_that_was_moved_away_can_be_set_up_again_and_is_as_if_new(buffer, backend):
    window = DmaSyncer(buffer, on_error="log")
    window.start()
    heir = window.move()
    window.__init__(buffer)
    window.end()
    assert buffer._file.windows == 1
    backend.inject(faults.error(errno.EIO))
    with pytest.raises(DmaSyncError), window:
        raise AssertionError
    assert buffer._file.windows == 1
    with window:
        assert buffer._file.windows == 2
    heir.end()
    assert buffer._file.windows == 0


def test_a_window_moves_to_no_window_that_is_set_up(buffer):
    if compiled:
        window, other = DmaSyncer(buffer), DmaSyncer(buffer)
        for heir in (other, window, buffer, None):
            with pytest.raises(TypeError, match="heir must be a Window that is not set up"):
                window._move(heir)


# Processes

FORKED = """
import os, sys, threading, warnings
from dmasync import DmaBufAllocator, DmaBufAllocatorFlag, DmaSyncer
from dmasync.fakes import FakeBackend

warnings.simplefilter("ignore")  # of forks where there are threads
entered, go_on = threading.Event(), threading.Event()

class Waiting:
    waits = False

    def __getattr__(self, name):
        return getattr(backend, name)

    def ioctl(self, fd, request, argument):
        if self.waits:
            self.waits = False
            entered.set()
            assert go_on.wait(60)
        return backend.ioctl(fd, request, argument)

backend, waiting = FakeBackend(), Waiting()
with DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=backend) as allocator:
    buffer = allocator.alloc("frame", 4096)
made = lambda: [transition.step.name for transition in backend.journal.transitions()]
window = DmaSyncer(buffer, backend=waiting)

def in_child(check):
    pid = os.fork()
    if not pid:
        try:
            check()
        except BaseException as problem:
            os.write(2, repr(problem).encode())
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""

MEANWHILE = """
def check():
    with window:
        assert window.active
    assert made() == ["START", "END"], made()

waiting.waits = True
thread = threading.Thread(target=window.start)
thread.start()
assert entered.wait(60)
in_child(check)
go_on.set()
thread.join()
window.end()
assert made() == ["START", "END"], made()
"""

FILES = """
other = DmaSyncer(buffer)
other.start()

def check():
    with window:
        assert buffer._file.windows == 2, buffer._file.windows
    other.end()
    assert buffer._file.windows == 0, buffer._file.windows
    number = buffer.fileno()
    buffer.close()
    assert number not in backend.kernel.open_fds()

window.start()
in_child(check)
assert buffer._file.windows == 2
window.end()
other.end()
"""

MOVED = """
def check():
    window.start()
    heir = window.move()
    assert heir.active
    heir.end()
    assert made() == ["START", "END"], made()

in_child(check)
"""


@pytest.mark.parametrize("program", [MEANWHILE, FILES, MOVED], ids=["busy", "files", "moved"])
def test_a_child_of_a_fork_can_use_what_was_the_parents(program):
    text = FORKED + program + "buffer.close()\n"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr


INTERPRETERS = """
import dmasync
from dmasync import DmaBufAllocator, DmaBufAllocatorFlag, DmaSyncer
from dmasync.fakes import FakeBackend
try:
    import _interpreters as interpreters
    other = interpreters.create("legacy")
except ImportError:
    import _xxsubinterpreters as interpreters
    other = interpreters.create(isolated=False)

backend = FakeBackend()
with DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=backend) as allocator:
    buffer = allocator.alloc("frame", 4096)
interpreters.run_string(other, '''
import warnings
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    import dmasync
assert not dmasync.compiled
assert ["in place of the compiled core" in str(warning.message) for warning in said] == [True], said
dmasync.DmaSyncer(5)
try:
    import dmasync._window
except ImportError as error:
    assert "one interpreter" in str(error), error
else:
    raise AssertionError
''')
with DmaSyncer(buffer):
    pass
buffer.close()
"""


@pytest.mark.skipif(not compiled, reason="the plain twin has no state of the process's own")
def test_a_second_interpreter_does_not_take_the_compiled_core_from_the_first():
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETERS], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not compiled, reason="Python has numbers of any size")
@pytest.mark.parametrize(("number", "error"), [(2**31, OverflowError), (-1, ValueError), ("5", TypeError)])
def test_what_can_be_no_descriptor_makes_no_file(number, error):
    with pytest.raises(error):
        File(number, LinuxBackend())


def test_a_constructor_that_is_called_again_while_it_reads_its_argument_sets_the_window_up_once():
    backend = Quiet()
    buffer, other = of_kernel(backend), of_kernel(backend, 6)
    before = sys.getrefcount(other._file)

    class Sly:
        @property
        def _file(self):
            DmaSyncer.__init__(syncer, other)
            return buffer._file

    syncer = DmaSyncer.__new__(DmaSyncer)
    DmaSyncer.__init__(syncer, Sly())
    assert [file for file, _ in syncer._targets] == [buffer._file]
    after = sys.getrefcount(other._file)
    assert after == before
    with syncer:
        assert syncer.active
    buffer.close()
    other.close()


def test_the_targets_of_a_window_can_be_read_while_a_collection_moves_it_away():
    class Mover:
        def __del__(self):
            group._move(DmaSyncerGroup.__new__(DmaSyncerGroup))

    backend = Quiet()
    buffers = [of_kernel(backend, number) for number in range(5, 8)]
    thresholds = gc.get_threshold()
    for allocations in range(1, 12):
        group = DmaSyncerGroup([(buffer, SyncType.READ) for buffer in buffers])
        mover = Mover()
        mover.cycle = mover
        del mover
        gc.set_threshold(allocations)
        try:
            targets = group._targets
        finally:
            gc.set_threshold(*thresholds)
        assert all(file.fd == number for number, (file, _) in enumerate(targets, 5))
    for buffer in buffers:
        buffer.close()


# The mutants of the C


def test_every_mutant_still_fits_the_text():
    text = SOURCE.read_text()
    for mutant in MUTANTS:
        assert mutant.applied(text) != text
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 30
