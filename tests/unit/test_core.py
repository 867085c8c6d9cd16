"""File and Window, compiled or in plain Python: who owns a descriptor, who may use a window, what a fork leaves."""

from __future__ import annotations

import enum
import errno
import gc
import inspect
import os
import subprocess
import sys
import threading
import weakref

import pytest

import dmasync
from dmasync import DmaBuf, DmaSyncer, DmaSyncerGroup, LinuxBackend, RetryPolicy, Step, SyncType
from dmasync.core import File
from dmasync.fakes import FakeBackend

START, END = Step.START, Step.END


class Closing(LinuxBackend):
    """Writes down what is closed; raises *problem* after each close."""

    def __init__(self, problem: BaseException | None = None) -> None:
        self.closed: list[int] = []
        self._problem = problem
        self.ioctl = lambda *_: 0  # type: ignore[assignment]

    def close(self, fd: int, /) -> None:  # type: ignore[override]
        self.closed.append(fd)
        if self._problem is not None:
            raise self._problem


def steps(backend: FakeBackend) -> list[Step]:
    return [transition.step for transition in backend.journal.transitions()]


# Descriptors and their owners


def test_a_borrowed_number_is_never_closed():
    backend = Closing()
    file = File(5, backend)
    file.close()
    del file
    assert backend.closed == []


def test_an_owned_number_is_closed_once():
    backend = Closing()
    file = File(5, backend, True)
    assert (file.fd, file.closed) == (5, False)
    file.close()
    file.close()
    assert file.closed
    del file
    assert backend.closed == [5]


def test_an_owned_number_that_is_dropped_is_closed():
    backend = Closing()
    File(5, backend, True)
    gc.collect()
    assert backend.closed == [5]


def test_a_released_number_is_somebody_elses():
    backend = Closing()
    file = File(5, backend, True)
    assert file.release() == 5
    assert file.closed
    file.close()
    del file
    assert backend.closed == []


def test_an_error_of_close_reaches_the_caller_and_the_number_is_not_closed_again():
    backend = Closing(OSError(errno.EIO, "no"))
    file = File(5, backend, True)
    with pytest.raises(OSError, match="no"):
        file.close()
    file.close()
    del file
    assert backend.closed == [5]


@pytest.mark.parametrize("window", [DmaSyncer, lambda buffer: DmaSyncerGroup([(buffer, SyncType.READ)])])
def test_the_last_window_closes_the_number(window):
    backend = Closing()
    buffer = DmaBuf(File(5, backend, True), 4096, "", None, object())
    first, second = window(buffer), window(buffer)
    first.start()
    second.start()
    assert buffer._file.windows == 2
    buffer.close()
    first.end()
    assert (backend.closed, buffer._file.windows) == ([], 1)
    second.end()
    assert (backend.closed, buffer._file.windows) == ([5], 0)
    with pytest.raises(ValueError, match="closed: allocate or import it again"):
        first.start()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_error_of_the_close_at_the_last_end_is_not_lost(monkeypatch):
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lambda problem: lost.append(problem.exc_value))
    problem = OSError(errno.EIO, "no")
    backend = Closing(problem)
    buffer = DmaBuf(File(5, backend, True), 4096, "", None, object())
    window = DmaSyncer(buffer)
    window.start()
    buffer.close()
    if dmasync.compiled:
        window.end()
        assert lost == [problem]
    else:
        with pytest.raises(OSError, match="no"):
            window.end()
    assert backend.closed == [5]


def test_a_file_that_is_collected_with_its_open_window_is_closed_behind_the_end():
    calls = []

    class Ordered(Closing):
        def __init__(self) -> None:
            super().__init__()
            self.ioctl = lambda fd, request, argument: calls.append(("END" if argument[0] & 4 else "START", fd))

        def close(self, fd: int, /) -> None:
            calls.append(("close", fd))

    buffer = DmaBuf(File(5, Ordered(), True), 4096, "", None, object())
    window = DmaSyncer(buffer)
    window.start()
    cycle = [buffer, window]
    cycle.append(cycle)
    del buffer, window
    with pytest.warns(ResourceWarning):
        del cycle
        gc.collect()
    assert calls == [("START", 5), ("END", 5), ("close", 5)]


def test_a_descriptor_that_a_call_returns_has_an_owner_at_once():
    backend = Closing()
    asked = []
    file = File.opened(backend, None, lambda *arguments: asked.append(arguments) or 7, "a", 1)
    assert (asked, file.fd, file.backend is backend) == ([("a", 1)], 7, True)
    del file
    assert backend.closed == [7]


def test_a_descriptor_that_a_call_writes_has_an_owner_at_once():
    backend = Closing()

    def call(fd, argument):
        argument[4:8] = (9).to_bytes(4, sys.byteorder)
        return 0

    file = File.opened(backend, 4, call, 3, bytearray(12))
    assert file.fd == 9
    file.close()
    assert backend.closed == [9]


@pytest.mark.parametrize("problem", [OSError(errno.EMFILE, "no"), KeyboardInterrupt()], ids=repr)
def test_a_call_that_fails_opens_nothing(problem):
    backend = Closing()

    def call(*_):
        raise problem

    with pytest.raises(type(problem)):
        File.opened(backend, None, call, 1)
    gc.collect()
    assert backend.closed == []


def test_a_window_keeps_the_object_that_its_descriptor_came_from(backend, buffer):
    class Owner:
        def fileno(self):
            return buffer.fileno()

    owner = Owner()
    alive = weakref.ref(owner)
    window = DmaSyncer(owner, backend=backend)
    del owner
    gc.collect()
    assert alive() is not None
    del window
    gc.collect()
    assert alive() is None


# Who may use a window


def windows_of(buffer):
    return {
        "syncer": lambda: DmaSyncer(buffer, SyncType.READ),
        "group": lambda: DmaSyncerGroup([(buffer, SyncType.READ)]),
        "access": lambda: buffer.cpu_access(SyncType.READ),
    }


KINDS = pytest.mark.parametrize("kind", ["syncer", "group", "access"])


def again(window, buffer):
    if isinstance(window, DmaSyncerGroup):
        window.__init__([(buffer, SyncType.WRITE)])
    else:
        window.__init__(buffer, SyncType.WRITE)


@KINDS
def test_a_window_that_is_open_cannot_be_set_up_again(backend, buffer, kind):
    window = windows_of(buffer)[kind]()
    with window:
        with pytest.raises(RuntimeError, match="the window is already open"):
            again(window, buffer)
        assert window.active
    assert [(t.step, t.access) for t in backend.journal.transitions()] == [
        (START, SyncType.READ),
        (END, SyncType.READ),
    ]


def test_a_window_that_is_shut_can_be_set_up_again(backend, buffers):
    window = DmaSyncer(buffers[0], SyncType.READ)
    window.__init__(buffers[1], SyncType.WRITE)
    with window:
        assert f"fd={buffers[1].fileno()} WRITE open" in repr(window)
    group = DmaSyncerGroup([(buffer, SyncType.READ) for buffer in buffers])
    group.__init__([(buffers[0], SyncType.READ)])
    assert len(group) == 1


def test_a_subclass_that_never_set_the_window_up_is_told(buffer):
    class Forgetful(DmaSyncer):
        def __init__(self, buffer):
            pass

    with pytest.raises(RuntimeError, match=r"never set up: a subclass must call super\(\).__init__\(\)"):
        Forgetful(buffer).start()


def test_a_subclass_may_have_a_constructor_of_its_own(backend, buffer):
    class Reader(DmaSyncer):
        def __init__(self, buffer):
            super().__init__(buffer, SyncType.READ, retry=RetryPolicy(max_attempts=2))

    with Reader(buffer) as window:
        assert window.sync_type is SyncType.READ
    assert steps(backend) == [START, END]


def test_a_constructor_that_was_put_in_later_is_called(buffer, monkeypatch):
    called = []
    monkeypatch.setattr(DmaSyncer, "__init__", lambda self, *arguments: called.append(arguments))
    DmaSyncer(buffer, SyncType.READ)
    assert called == [(buffer, SyncType.READ)]


@pytest.mark.parametrize("members", [(), ("member",), None], ids=["no members", "slots", "dict"])
def test_a_window_of_a_subclass_is_freed_with_all_that_it_has(buffer, members):
    class Member:
        pass

    namespace = {} if members is None else {"__slots__": members}
    kind = type("Special", (DmaSyncer,), namespace)
    window, finalized = kind(buffer), []
    dropped = weakref.ref(window)
    if members != ():
        window.member = Member()
        dropped = weakref.ref(window.member)
    del window
    assert dropped() is None

    def finalize(self):
        finalized.append(self.active)
        self.end()

    kind.__del__ = finalize  # put in later than the class was made
    for opened in (False, True):
        window = kind(buffer)
        if opened:
            window.start()
        del window
    assert finalized == [False, True]

    kind = weakref.ref(kind)
    gc.collect()
    assert kind() is None


class Waiting:
    """A backend whose next START or END waits until it is told to go on."""

    def __init__(self, inner: FakeBackend, step: Step) -> None:
        self._inner, self._step = inner, step
        self.entered, self.go_on = threading.Event(), threading.Event()

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def ioctl(self, fd, request, argument):
        if isinstance(argument, bytearray) and len(argument) == 8 and bool(argument[0] & 4) == (self._step is END):
            self.entered.set()
            assert self.go_on.wait(60)
        return self._inner.ioctl(fd, request, argument)


@pytest.mark.parametrize("step", [START, END], ids=lambda step: step.name)
@KINDS
def test_a_second_thread_that_uses_the_window_meanwhile_is_refused(backend, buffer, kind, step):
    waiting = Waiting(backend, step)
    with DmaBuf.from_fd(backend.dup(buffer.fileno()), backend=waiting) as same:
        window = windows_of(same)[kind]()
        if step is END:
            window.start()
        thread = threading.Thread(target=window.start if step is START else window.end)
        thread.start()
        assert waiting.entered.wait(60)
        for use in (window.start, window.end, window.__enter__):
            with pytest.raises(RuntimeError, match="being opened or closed by another thread"):
                use()
        if kind != "group":
            with pytest.raises(RuntimeError, match="being opened or closed by another thread"):
                window.move()
        waiting.go_on.set()
        thread.join()
        window.end()
    assert steps(backend) == [START, END]


def test_a_window_may_be_closed_by_another_thread_than_opened_it(backend, buffer):
    window = DmaSyncer(buffer)
    window.start()
    thread = threading.Thread(target=window.end)
    thread.start()
    thread.join()
    assert not window.active
    assert steps(backend) == [START, END]


def test_a_handler_that_uses_the_window_that_it_interrupted_is_refused(backend, buffer):
    class Interrupted:
        def __getattr__(self, name):
            return getattr(backend, name)

        def ioctl(self, fd, request, argument):
            if isinstance(argument, bytearray) and len(argument) == 8:
                with pytest.raises(RuntimeError, match="what this signal handler interrupted"):
                    window.end()
            return backend.ioctl(fd, request, argument)

    with DmaBuf.from_fd(backend.dup(buffer.fileno()), backend=Interrupted()) as same:
        window = DmaSyncer(same)
        with window:
            pass
    assert steps(backend) == [START, END]


@pytest.mark.parametrize("kind", ["syncer", "group"])
def test_who_reaches_a_dropped_window_while_its_end_is_made_is_refused(backend, buffer, kind):
    found = []

    class Reaching:
        def __getattr__(self, name):
            return getattr(backend, name)

        def ioctl(self, fd, request, argument):
            if isinstance(argument, bytearray) and len(argument) == 8 and argument[0] & 4 and not found:
                found.append(reference())
                with pytest.raises(RuntimeError, match="being opened or closed by another thread"):
                    found[0].end()
            return backend.ioctl(fd, request, argument)

    with DmaBuf.from_fd(backend.dup(buffer.fileno()), backend=Reaching()) as same:
        window = windows_of(same)[kind]()
        reference = weakref.ref(window)
        window.start()
        with pytest.warns(ResourceWarning, match="was dropped"):
            del window
            gc.collect()
        (revived,) = found
        assert revived is not None
        assert not revived.active
    assert steps(backend) == [START, END]


def test_a_stop_iteration_of_the_backend_comes_through_and_opens_nothing(backend, buffer):
    class Stopping:
        def __getattr__(self, name):
            return getattr(backend, name)

        def ioctl(self, fd, request, argument):
            if isinstance(argument, bytearray) and len(argument) == 8:
                raise StopIteration
            return backend.ioctl(fd, request, argument)

    with DmaBuf.from_fd(backend.dup(buffer.fileno()), backend=Stopping()) as same:
        for window in (DmaSyncer(same), DmaSyncerGroup([(same, SyncType.READ)])):
            with pytest.raises(StopIteration):
                window.start()
            assert not window.active
    assert steps(backend) == []


class OtherSyncType(enum.Flag):
    READ = 1


@pytest.mark.parametrize("wrong", [OtherSyncType.READ, 1, "READ", None], ids=repr)
def test_a_sync_type_of_another_kind_is_refused_by_name(backend, buffer, wrong):
    for make in (DmaSyncer, DmaBuf.cpu_access):
        with pytest.raises(TypeError, match="sync_type must be a SyncType, not "):
            make(buffer, wrong)
    with pytest.raises(TypeError, match=r"items\[0\]'s sync_type must be a SyncType, not "):
        DmaSyncerGroup([(buffer, wrong)])
    assert steps(backend) == []


# Signatures


def test_the_signature_that_help_shows_is_the_one_that_there_is(buffer):
    parameters = inspect.signature(DmaSyncer).parameters
    assert list(parameters) == ["buffer_or_fd", "sync_type", "backend", "retry", "on_error"]
    for name, default in {"backend": None, "retry": RetryPolicy(), "on_error": "raise"}.items():
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[name].default == default
    assert parameters["sync_type"].default is SyncType.READ_WRITE
    with pytest.raises(TypeError, match=r"DmaSyncer\(\) takes from 2 to 3 positional arguments but 4 were given"):
        DmaSyncer(buffer, SyncType.READ, None)
    with pytest.raises(TypeError, match=r"DmaSyncer\(\) missing 1 required positional argument: 'buffer_or_fd'"):
        DmaSyncer()
    with pytest.raises(TypeError, match=r"DmaSyncer\(\) got an unexpected keyword argument 'retries'"):
        DmaSyncer(buffer, retries=3)
    assert DmaSyncer(buffer_or_fd=buffer, sync_type=SyncType.READ).sync_type is SyncType.READ


def test_the_signature_that_type_checkers_see_is_the_one_that_there_is():
    tree = inspect.getsource(DmaSyncer)
    for_checkers = tree[tree.index("def __init__(") :].partition(")")[0].partition("(")[2]
    at_run_time = tree[tree.index("def _set_up(") :].partition(")")[0].partition("(")[2]
    assert "".join(for_checkers.split()) == "".join(at_run_time.split())


# Processes

FORKED = """
import logging, os, sys, warnings
from dmasync import DmaBufAllocator, DmaBufAllocatorFlag, DmaSyncer, DmaSyncerGroup, SyncType
from dmasync.fakes import FakeBackend

logging.basicConfig(format="%(message)s")
warnings.simplefilter("error")
backend = FakeBackend()
with DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=backend) as allocator:
    buffer = allocator.alloc("frame", 4096)
made = lambda: [transition.step.name for transition in backend.journal.transitions()]
windows = {
    "syncer": lambda: DmaSyncer(buffer),
    "group": lambda: DmaSyncerGroup([(buffer, SyncType.READ)]),
    "access": lambda: buffer.cpu_access(),
}
window = windows[sys.argv[1]]()

def in_child():
    what = sys.argv[2]
    if what == "ends":
        window.end()
        window.end()
    if what == "drops":
        del globals()["window"]
    if what == "goes on":
        assert not window.active
        window.start()
        assert window.active
        window.end()
    if what == "raises":
        raise ZeroDivisionError

def fork():
    pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
        return
    in_child()
    expected = ["START", "END"] if sys.argv[2] == "goes on" else []
    assert made()[1:] == expected, made()
    os._exit(0)

window.start()
try:
    fork()
except ZeroDivisionError:  # only the child raises, out of what the parent would end
    window.end()
    assert made() == ["START"]
    os._exit(0)
assert made() == ["START"]
window.end()
assert made() == ["START", "END"], made()
buffer.close()
"""


@pytest.mark.parametrize("what", ["ends", "drops", "goes on", "raises", "leaves it alone"])
@KINDS
def test_a_fork_inside_a_window_leaves_the_end_to_the_parent(kind, what):
    done = subprocess.run([sys.executable, "-c", FORKED, kind, what], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("belongs to the parent") == (what != "leaves it alone")


FORKED_MEANWHILE = """
import errno, os, sys
from dmasync import DmaSyncer, DmaSyncerGroup, LinuxBackend, RetryPolicy, SyncType

END = 4
kind, step, answer = sys.argv[1:]
parent = os.getpid()

class Forks(LinuxBackend):
    made, child, forked = 0, None, False

    def ioctl(self, fd, request, argument, /):
        self.made += 1
        if (argument[0] & END == END) == (step == "END") and not self.forked:
            self.forked = True
            self.child = os.fork()
            self.made = 0 if not self.child else self.made
            if answer == "EINTR":
                raise InterruptedError(errno.EINTR, "interrupted")
        return 0

backend = Forks()
windows = {
    "syncer": lambda: DmaSyncer(5, backend=backend),
    "deadline": lambda: DmaSyncer(5, backend=backend, retry=RetryPolicy(deadline=60)),
    "group": lambda: DmaSyncerGroup([(5, SyncType.READ), (6, SyncType.READ)], backend=backend),
}
window = windows[kind]()
with window:
    if os.getpid() != parent and step == "START":
        assert not window.active
if os.getpid() != parent:
    assert (backend.made, window.active) == (0, False), backend.made
    os._exit(0)
assert os.waitpid(backend.child, 0)[1] == 0
targets = 2 if kind == "group" else 1
assert backend.made == 2 * targets + (answer == "EINTR"), backend.made
"""


@pytest.mark.parametrize("answer", ["success", "EINTR"])
@pytest.mark.parametrize("step", [START, END], ids=lambda step: step.name)
@pytest.mark.parametrize("kind", ["syncer", "deadline", "group"])
def test_a_fork_within_a_start_or_end_leaves_what_is_left_of_it_to_the_parent(kind, step, answer):
    command = [sys.executable, "-c", FORKED_MEANWHILE, kind, step.name, answer]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_group_is_active_when_every_start_has_succeeded(backend):
    seen: list[bool] = []

    class Watching(LinuxBackend):
        def ioctl(self, *_):  # type: ignore[override]
            seen.append(group.active)
            return 0

        def close(self, *_):  # type: ignore[override]
            pass

    group = DmaSyncerGroup([(5, SyncType.READ), (6, SyncType.READ)], backend=Watching())
    with group:
        assert group.active
    assert seen == [False, False, True, False]
    assert not group.active


class Listing(LinuxBackend):
    """Answers every START and END, and writes down what it was given; spoils its argument, as a backend may."""

    def __init__(self) -> None:
        self.made: list[tuple[int, int]] = []

    def ioctl(self, fd, request, argument):  # type: ignore[override]
        self.made.append((fd, argument[0]))
        argument[0] = 0
        return 0


def test_a_backend_that_changes_its_argument_changes_nobody_elses():
    first, second = Listing(), Listing()
    for backend in (first, second, first):
        with DmaSyncer(5, SyncType.READ, backend=backend):
            pass
    assert first.made == [(5, 1), (5, 5)] * 2
    assert second.made == [(5, 1), (5, 5)]


def test_reading_every_attribute_of_a_window_opens_it_not():
    backend = Listing()
    window = DmaSyncer(5, backend=backend)
    inspect.getmembers(window)
    assert not window.active
    assert backend.made == []
    with window:
        assert window.active


def test_each_end_of_a_group_bears_as_many_interruptions():
    class Interrupted(Listing):
        def ioctl(self, fd, request, argument):  # type: ignore[override]
            self.made.append((fd, argument[0]))
            tries = sum(call == (fd, argument[0]) for call in self.made)
            if argument[0] & 4 and tries <= 60:
                raise KeyboardInterrupt
            return 0

    backend = Interrupted()
    group = DmaSyncerGroup([(5, SyncType.READ), (6, SyncType.READ)], backend=backend)
    group.start()
    with pytest.raises(KeyboardInterrupt):
        group.end()
    assert backend.made.count((5, 5)) == backend.made.count((6, 5)) == 61


def test_a_window_that_is_dropped_takes_its_view_along(buffer):
    window = buffer.cpu_access(SyncType.READ)
    view = window.__enter__()
    with pytest.warns(ResourceWarning, match="dropped while its window was open"):
        del window
        gc.collect()
    with pytest.raises(ValueError, match="released"):
        view[0]


def test_a_file_that_is_closed_while_a_window_is_being_opened_stays_open_until_its_end():
    """The owner lets go in the middle of the first START: the second number is in use by then."""

    class Closing(Listing):
        def ioctl(self, fd, request, argument):  # type: ignore[override]
            for file in files:
                file.close()
            return super().ioctl(fd, request, argument)

        def close(self, fd):  # type: ignore[override]
            self.made.append((fd, -1))

    backend = Closing()
    files = [File(number, backend, True) for number in (5, 6)]
    group = DmaSyncerGroup.__new__(DmaSyncerGroup)
    group._prepare(tuple((file, 1) for file in files), None, None, False, False)
    with group:
        pass
    assert sorted(backend.made[:4]) == [(5, 1), (5, 5), (6, 1), (6, 5)]
    assert sorted(backend.made[4:]) == [(5, -1), (6, -1)]


def test_a_subclass_that_registers_its_own_subclasses_is_told_of_them():
    told = []

    class Registered:
        def __init_subclass__(cls, *, kind: str, **options: object) -> None:
            super().__init_subclass__(**options)
            told.append((cls.__name__, kind))

    class Traced(DmaSyncer, Registered, kind="traced"):
        pass

    assert told == [("Traced", "traced")]
    assert not Traced(5).active


def test_a_file_takes_its_arguments_by_position():
    with pytest.raises(TypeError):
        File(5, LinuxBackend(), owned=True)  # type: ignore[call-arg]


def test_the_plain_twin_serves_where_it_is_asked_for():
    program = "import dmasync; from dmasync.core import Window; print(dmasync.compiled, Window.__module__)"
    environment = {**os.environ, "DMASYNC_COMPILED": "0"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["False", "dmasync._window_py"]
