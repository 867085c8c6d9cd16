"""Takes the calls that wait, has each answered, and says what could not be."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from dmasync.harness.run.answers import Answer, Said
from dmasync.harness.run.device_paths import HEAPS, Places
from dmasync.harness.run.open_files import Descriptor, OpenFile, OpenFiles
from dmasync.harness.run.parameters import Parameters
from dmasync.harness.run.program import processes
from dmasync.harness.run.program.inside import Inside
from dmasync.harness.run.program.mappings import Mappings
from dmasync.harness.run.program.processes import Processes
from dmasync.harness.run.program.python_stacks import PythonStacks
from dmasync.harness.run.seccomp import numbers
from dmasync.harness.run.seccomp.listener import GoneError, Listener, Notification
from dmasync.harness.run.watcher import Watcher

if TYPE_CHECKING:
    from dmasync.fakes.foreign.systems import System
    from dmasync.harness.run.epoll_sockets import Twins

Handler = Callable[["Supervisor", Notification], Answer]
_MOST_THREADS: Final = 1024
_LONG_S: Final = 0.05
_TO_END_S = 5.0
"""How long what looks after files may take once the last process has ended."""


class Caller:
    """The thread behind a call, as the fake asks about it."""

    def __init__(self, run: Supervisor, call: Notification) -> None:
        self._run = run
        self.call = call
        self.thread = call.thread
        self.was_interrupted = False
        self.may_be_stopped = False
        """Whether its answer is a number, so that it may be given by other means."""
        self.inside: Inside | None = None
        """Set once it has been taken out of its call, for calls of ours: it gets its answer there."""

    def stack(self) -> tuple[tuple[str, int, str], ...]:
        """Where it is; empty where nobody takes stacks."""
        return self._run.take_stack(self.call)

    def interrupted(self) -> bool:
        """Whether it must get its answer now; asked while something keeps it waiting."""
        self._run.pass_on()
        if processes.signal_is_pending(self.thread) or not self._run.listener.is_waiting(self.call):
            self.was_interrupted = True
        return self.was_interrupted

    def need_number(self) -> None:
        """EMFILE where its process can have no descriptor more."""
        self._run.need_number(self.call)

    def make(self, name: str, *arguments: int) -> int:
        """Let it make a system call of ours, and wait for its answer again."""
        self._run.pass_on()  # what it calls may be for us to answer
        if self.inside is None:
            self.inside = Inside(self.thread, lambda: self._run.listener.answer(self.call, 0)).__enter__()
        self._run.made_by_us.add(self.thread)
        try:
            return self.inside.call(name, *arguments)
        finally:
            self._run.made_by_us.discard(self.thread)

    def let_go(self, result: int) -> None:
        """Its call returns *result*, a negative errno for an error; only after :meth:`make`."""
        assert self.inside is not None  # noqa: S101 - see above
        self.inside.finish(result)
        self.inside.__exit__(None, None, None)


class _Worker:
    """A thread that takes calls, or waits for its turn."""

    busy_since: float | None = None


class Supervisor:
    """One run: what its calls are answered from."""

    def __init__(self, system: System, handlers: dict[str, Handler], places: Places, base: int) -> None:
        self.system = system
        self.places = places
        self.files = OpenFiles(system, base)
        self.processes = Processes()
        self.files.take = self.processes.take
        self.files.is_node = places.is_node
        places.shares_root = self.processes.shares_root
        places.stands_for_heaps = self._stands_for_heaps
        processes.ON_HIDDEN[:] = [self._hidden]
        self.watcher = Watcher(self.files, self.processes)
        self.mappings = Mappings(self.files, lambda file: system.keys_of(file.held))
        self.files.on_gone.append(self.mappings.gone)
        self.mappings.top = lambda: self.processes.top
        self.files.is_mapped = lambda file: self.mappings.count(file, self.processes.everybody()) > 0
        self.processes.on_end.append(self.mappings.forget)
        if system.is_fake:
            _as_linux_keeps_them(self.mappings)
            self.files.on_position = self.watcher.on_bytes = self._touched_unseen
        self.take_stack: Callable[[Notification], tuple[tuple[str, int, str], ...]] = lambda call: ()
        self.python_stacks = PythonStacks()
        self.before_sync: Callable[[int, int], object] | None = None
        self.after_sync: Callable[[int, int], object] | None = None
        """Called with the backend's descriptor and the flags before a START or END is made, and when it has been."""
        self.parameters: Parameters | None = None
        self.twins: Twins | None = None
        """Stand for dma-bufs in epoll files."""
        self.made_by_us: set[int] = set()
        """Threads that make a call of ours at the moment, which is none of the program's."""
        self._notes: set[str] = set()
        self.problems: list[str] = []
        """What the program asked for and did not get: calls that are not modelled."""
        self.listener: Listener
        machine = numbers.machine()
        assert machine is not None  # noqa: S101 - the command has asked
        self._audit = machine.audit
        self._names = {number: name for name, number in machine.calls.items()}
        self._handlers = {machine.calls[name]: handler for name, handler in handlers.items() if name in machine.calls}
        self._lock = threading.Lock()
        self._local = threading.local()
        self._turn = threading.Lock()
        """Whoever has it takes calls."""
        self._receiver: _Worker | None = None
        self.answers_at_once = system.is_fake
        """Nobody hears of it when the real kernel keeps a call waiting."""
        self._threads = 0
        self._idle = 0
        self._over = threading.Event()

    # -- threads

    def serve(self, listener: Listener) -> None:
        """Answer, in threads of its own, until the last process under the filter has ended."""
        self.listener = listener
        self.watcher.start()
        self._spawn()
        threading.Thread(target=self._look_after, name="dmasync-run-look-after", daemon=True).start()

    def finish(self) -> None:
        """Every process has ended: let go of what they had."""
        self._over.wait(_TO_END_S)
        if self.watcher.stop(_TO_END_S):
            for file in self.files.all():
                self.files.remove(file)
        else:
            said = f"the closing of a file has taken {_TO_END_S:g} s: what came after it is not in the trace"
            sys.stderr.write(f"dmasync run: {said}\n")

    def _spawn(self) -> None:
        self._threads += 1
        threading.Thread(target=self._work, name=f"dmasync-run-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        """One thread takes calls and answers them, so that none waits for another; when it has to wait itself, the next
        one goes on.
        """
        worker = self._local.worker = _Worker()
        buffer = bytearray(numbers.NOTIFICATION.size)
        while True:
            with self._lock:
                self._idle += 1
            self._turn.acquire()
            with self._lock:
                self._idle -= 1
                self._receiver = worker
            while self._receiver is worker:
                call = self.listener.receive(buffer)
                if call is None:
                    self._over.set()
                    self.pass_on()
                    return
                worker.busy_since = time.monotonic()
                if not self.answers_at_once:
                    self.pass_on()
                self._answer(call)
                worker.busy_since = None

    def pass_on(self, worker: _Worker | None = None) -> None:
        """Let another thread take calls: *worker*, this one, is going to wait."""
        worker = worker or self._local.worker
        with self._lock:
            if self._receiver is not worker:
                return
            self._receiver = None
            if not self._idle and self._threads < _MOST_THREADS and not self._over.is_set():
                self._spawn()
        self._turn.release()

    def _look_after(self) -> None:
        """Whoever has not answered for so long waits for something: it may be another call's answer."""
        while not self._over.wait(_LONG_S):
            worker = self._receiver
            since = None if worker is None else worker.busy_since
            if since is not None and time.monotonic() - since > _LONG_S:
                self.pass_on(worker)

    # -- one call

    def _answer(self, call: Notification) -> None:
        from dmasync.fakes.foreign import caller
        from dmasync.fakes.kernel import UnmodelledCallError

        who = Caller(self, call)
        name = self.name_of(call)
        try:
            if call.architecture != self._audit:
                self._told_of_32_bits(call)
                return
            call.process = self.processes.leader(call.thread)
            self.watcher.process(call.process)
            caller.serve(who)
            said = self._handlers[call.number](self, call)
            if who.inside is not None:
                assert isinstance(said, int)  # noqa: S101 - only START and END are answered like this
                who.let_go(said)
            elif said is Said.CARRY_ON:
                self.listener.carry_on(call)
            elif said is not Said.SENT:
                self.listener.answer(call, said)
        except GoneError:
            pass
        except UnmodelledCallError as gap:
            self.complain(f"{name}(): not modelled: {gap}; the program got ENOSYS")
            self._refuse(call, errno.ENOSYS)
        except OSError as problem:
            restart = who.was_interrupted and problem.errno == errno.EINTR
            if who.inside is not None:
                who.let_go(-(problem.errno or errno.EIO))
            else:
                self._refuse(call, numbers.ERESTARTSYS if restart else problem.errno or errno.EIO)
        except Exception:
            self.complain(f"{name}(): an error of dmasync run itself; the program got EIO\n{traceback.format_exc()}")
            self._refuse(call, errno.EIO)
        finally:
            caller.serve(None)
            self.files.give_back()

    def _told_of_32_bits(self, call: Notification) -> None:
        name = processes.name_of(call.thread)
        text = f"{name} is a 32-bit program: its calls go past dmasync run, it finds what this machine has"
        if text not in self.problems:
            self.complain(text)
        self.listener.carry_on(call)

    def name_of(self, call: Notification) -> str:
        return self._names.get(call.number, f"call {call.number}")

    def _refuse(self, call: Notification, code: int) -> None:
        with contextlib.suppress(GoneError):
            self.listener.refuse(call, code)

    def complain(self, text: str) -> None:
        """Say it, and remember that it had to be said."""
        self.problems.append(text)
        sys.stderr.write(f"dmasync run: {text}\n")

    def note(self, text: str) -> None:
        """Say it, once: the program was answered truly, and yet there is something to know."""
        if text not in self._notes:
            self._notes.add(text)
            sys.stderr.write(f"dmasync run: {text}\n")

    def _stands_for_heaps(self, key: tuple[int, int]) -> bool:
        file = self.files.of_key(key)
        return file is not None and file.path == HEAPS

    def _hidden(self, thread: int) -> None:
        if not self.processes.has(thread):
            return  # another's, which the program looks at
        name = processes.name_of(thread)
        text = (
            f"{name} lets nobody look into it (PR_SET_DUMPABLE), and only root may all the same: its calls go past"
            " dmasync run, it finds what this machine has"
        )
        if text not in self.problems:
            self.complain(text)

    def _touched_unseen(self, file: OpenFile) -> None:
        text = (
            f"read(), write() or lseek(): not modelled for {file.path or 'a dma-buf'} by a low number, as descriptors"
            " have after dup2() or from a socket; the program got the answer of the memfd that stands for it"
        )
        if text not in self.problems:
            self.complain(text)

    # -- for the handlers

    def caller(self) -> Caller:
        """Whose call this thread answers."""
        from dmasync.fakes.foreign import caller

        who = caller.current()
        assert isinstance(who, Caller)  # noqa: S101 - _answer() says who
        return who

    def find(self, call: Notification, number: int) -> Descriptor | None:
        """What the caller's descriptor *number* is; None for a file of its own."""
        return self.files.find(call.thread, call.process, number & 0xFFFF_FFFF)

    def hand_over(
        self, call: Notification, fd: int, *, close_on_exec: bool, answer: bool, path: str | None = None
    ) -> int:
        """Give the program what the backend's new descriptor *fd* stands for; the number. The descriptor is closed
        where that fails.
        """
        host = None
        try:
            host = self.system.host_file(fd)
            file = OpenFile(host.kind, path, host, self.system.file(fd))
        except BaseException:
            if host is not None:
                os.close(host.fd)
            self.system.drop(fd)
            raise
        try:
            self.files.add(file, host.fd)
            number = self.give(call, host.fd, Descriptor(fd, file), close_on_exec=close_on_exec)
        except BaseException:
            self.files.remove(file)
            self.system.drop(fd)
            raise
        finally:
            os.close(host.fd)
        # Not before: from its answer on the file is the program's alone, and gone when that closes it.
        if answer:
            self.listener.answer(call, number)
        return number

    def give(self, call: Notification, host: int, descriptor: Descriptor, *, close_on_exec: bool) -> int:
        """Give the program the open file *host* under a number of its own, which is *descriptor* from then on."""
        number = self.files.reserve(call.process, call.thread)
        try:
            return self._give(call, host, descriptor, number, close_on_exec=close_on_exec)
        finally:
            self.files.given(call.process, number)

    def _give(self, call: Notification, host: int, descriptor: Descriptor, number: int, *, close_on_exec: bool) -> int:
        if number >= limit_of(call.process):
            # The lowest free one then. Its next use may come before it is put down: it is met, as any that was sent.
            number = self.listener.give(call, host, None, close_on_exec=close_on_exec, answer=False)
            self.files.put(call.process, number, descriptor)
            return number
        self.files.put(call.process, number, descriptor)
        try:
            self.listener.give(call, host, number, close_on_exec=close_on_exec, answer=False)
        except BaseException:
            self.files.close(call.process, number)
            raise
        return number

    def need_number(self, call: Notification) -> None:
        """EMFILE where the program can have no descriptor more: that is found before anything about a path."""
        limit = limit_of(call.process)
        if self.files.reserve(call.process, call.thread, keep=False) < limit:
            return
        with contextlib.suppress(OSError):
            if sum(int(number) < limit for number in os.listdir(f"/proc/{call.thread}/fd")) < limit:
                return
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def _as_linux_keeps_them(mappings: Mappings) -> None:
    from dmasync.fakes.kernel.files.mapped import first_flags
    from dmasync.fakes.kernel.files.vmas import VmFlags, changed

    mappings.joins = lambda file: not file.held.mapped_pages()
    mappings.flags_of = lambda file, asked: first_flags(file.held, asked)
    mappings.change = lambda flags, advice: changed(VmFlags(flags), advice)


def limit_of(process: int) -> int:
    """The first number that no descriptor of *process* can have."""
    try:
        return resource.prlimit(process, resource.RLIMIT_NOFILE)[0]
    except OSError:  # another user's: a program that gave its own up
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
