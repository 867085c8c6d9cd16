"""The two kernels that may stand behind other processes' calls, the fake one and the real one, behind one protocol."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from dmasync import Backend
from dmasync.fakes.backend import FakeBackend
from dmasync.fakes.foreign import caller
from dmasync.fakes.foreign.memfds import ForeignKernel, ForeignLinux, adopt, ours
from dmasync.fakes.foreign.pages import ForeignTouched, Pages
from dmasync.fakes.journal import Journal
from dmasync.fakes.kernel.dma_buf.dma_buf import DmaBuf
from dmasync.fakes.kernel.dma_buf.sync_file import SyncFile
from dmasync.fakes.kernel.dma_buf.udmabuf import UdmabufBuffer
from dmasync.fakes.kernel.files.file import Directory, File, PathFile
from dmasync.fakes.layers.faults import Fault
from dmasync.fakes.layers.injector import FaultInjector
from dmasync.fakes.layers.recorder import Recorder
from dmasync.fakes.memory.coherent import BufferMemory
from dmasync.fakes.memory.pages import Run
from dmasync.fakes.memory.watched import WatchedMemory

DEVICE: Final = "device"
DMA_BUF: Final = "dmabuf"
SYNC_FILE: Final = "sync_file"
DIRECTORY: Final = "directory"
PLACE: Final = "place"
_KEPT: Final = os.O_ACCMODE | os.O_NONBLOCK | os.O_APPEND | os.O_NOATIME
"""Flags of an open file that the file that stands for it has itself."""
_MODE: Final = 0o600
"""Of a dma-buf's inode, until somebody changes it."""
_OTHER_PROCESSES: Final = -1
"""No mapping of this process has that address."""


@dataclass
class HostFile:
    """A file of this host that a program gets for a file of the backend; whoever asked for it owns the descriptors."""

    fd: int
    """An open file of its own, to be handed over."""
    kind: str
    """DEVICE, DMA_BUF, SYNC_FILE, DIRECTORY, or PLACE of what was opened with O_PATH."""
    witness: int | None = None
    """Another descriptor of the same file, that stays here and tells when the program's is gone; of a sync file the
    end of the pipe that signals."""
    is_plain: bool = True
    """Its pages from 0 on are the buffer's: the host maps them as they are."""
    is_shared: bool = False
    """The program may have other open files of the same inode: the memfd that a udmabuf was made of."""
    before_close: Callable[[], object] = lambda: None
    """To be called before the witness is closed."""


class System(Protocol):
    """A kernel behind other processes' calls."""

    backend: Any
    """The recorder on top; also a ``dmasync.Backend``."""
    is_fake: bool

    @property
    def journal(self) -> Journal: ...

    @property
    def list_limit(self) -> int:
        """How many items UDMABUF_CREATE_LIST takes."""

    def keys_of(self, file: Any) -> set[tuple[int, int]]:
        """Device and inode of each host file that the dma-buf *file* has pages of, where those can be told."""

    def adopt(self, fd: int) -> int:
        """See :func:`dmasync.fakes.foreign.memfds.adopt`."""

    def host_file(self, fd: int) -> HostFile:
        """What the program gets for the backend's descriptor *fd*."""

    def file(self, fd: int) -> Any:
        """What is behind *fd*, kept until :meth:`let_go`."""

    def let_go(self, file: Any) -> None:
        """The program has it no more."""

    def descriptor(self, file: Any, take: Callable[[], int | None]) -> int:
        """One more descriptor of the backend for *file*; *take* gives one of the program's own. EBADF."""

    def drop(self, fd: int) -> None:
        """Close *fd* unseen: no call of the program's did it."""


class _ForeignCalls:
    """A recorder's part: whose thread it is, and where that is."""

    journal: Journal
    _thread = staticmethod(caller.thread)

    def _take_stack(self) -> int:
        frames = caller.stack()
        return self.journal.keep_stack(frames) if frames else 0


class _ForeignFake(_ForeignCalls, FakeBackend):
    _kernel_class = ForeignKernel
    pages: Pages | None = None
    """The programs' page tables; without them only what was changed is seen."""

    def _make_memory(self, runs: Sequence[Run]) -> BufferMemory:
        memory = super()._make_memory(runs)
        if self.pages is not None and isinstance(memory, WatchedMemory):
            memory._watched[_OTHER_PROCESSES] = (ForeignTouched(self.pages, memory), 0)
        return memory


class _ForeignRecorder(_ForeignCalls, Recorder):
    pass


class FakeSystem:
    """The fake kernel; *options* are those of FakeBackend."""

    is_fake = True

    def __init__(self, **options: Any) -> None:
        self.backend = _ForeignFake(**options)
        kernel = self.backend.kernel
        assert isinstance(kernel, ForeignKernel)  # noqa: S101 - _kernel_class says so
        self.kernel = kernel

    @property
    def journal(self) -> Journal:
        return self.backend.journal

    @property
    def list_limit(self) -> int:
        return self.kernel.list_limit & 0xFFFF_FFFF

    def adopt(self, fd: int) -> int:
        return adopt(self.backend, fd)

    def file(self, fd: int) -> File:
        file = self.kernel.descriptors.any_file(fd)
        file.get()
        return file

    def let_go(self, file: File) -> None:
        file.put()

    def descriptor(self, file: File, take: Callable[[], int | None]) -> int:
        # No call of a program: what made it happened unseen, in another process or over a socket. So no program's limit
        # is looked up either, which takes the lock of the open files: callers may hold one that comes after it.
        with ours():
            return self.kernel.descriptors.add(file, close_on_exec=True)

    def drop(self, fd: int) -> None:
        with contextlib.suppress(OSError):
            self.kernel.close(fd)

    def host_file(self, fd: int) -> HostFile:
        file = self.kernel.descriptors.any_file(fd)
        if isinstance(file, SyncFile):
            return _signal(file)
        if isinstance(file, DmaBuf):
            return _pages(file)
        if isinstance(file, Directory):
            return _folder(file)
        witness = os.memfd_create(f"dmasync:{file.kind}", os.MFD_CLOEXEC)
        if isinstance(file, PathFile):
            # The kernel hands no descriptor of a place to a program: one of an empty file does, all are asked here.
            return HostFile(_opened(witness, os.O_RDONLY), PLACE, witness)
        return HostFile(_opened(witness, file.flags), DEVICE, witness)

    def runs(self, fd: int) -> tuple[Run, ...]:
        """The pages of the buffer *fd*, one range of a host file after the other."""
        return self.kernel.buffer_of(fd).memory.runs

    def keys_of(self, file: File) -> set[tuple[int, int]]:
        """Device and inode of each host file that the dma-buf *file* has pages of."""
        assert isinstance(file, DmaBuf)  # noqa: S101 - whoever asks has looked
        states = [os.fstat(run.store.fd) for run in file.memory.runs]
        return {(state.st_dev, state.st_ino) for state in states}

    def is_pinned(self, key: tuple[int, int]) -> bool:
        """Whether a udmabuf holds pages of the host's memfd with that device and inode."""
        inode = self.kernel.adopted.get(key)
        return inode is not None and bool(inode.pinned_by)


def _opened(witness: int, flags: int) -> int:
    return os.open(f"/proc/self/fd/{witness}", flags & _KEPT | os.O_CLOEXEC)


def _folder(file: Directory) -> HostFile:
    """A folder that nobody finds by a name; what it lists is never asked of it."""
    try:
        path = tempfile.mkdtemp(prefix="dmasync-")
    except OSError:  # no file can be made anywhere: one that is sure to be there, for all that open it
        witness = os.open("/proc/self/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    else:
        try:
            witness = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            os.rmdir(path)
    return HostFile(_opened(witness, file.flags | os.O_DIRECTORY), DIRECTORY, witness)


def _pages(buffer: DmaBuf) -> HostFile:
    runs = buffer.memory.runs
    store = runs[0].store.fd
    if (
        len(runs) == 1
        and not runs[0].offset
        and (not isinstance(buffer, UdmabufBuffer) or os.fstat(store).st_size == buffer.size)
    ):
        shared = isinstance(buffer, UdmabufBuffer)
        if not shared:
            os.fchmod(store, _MODE)
        return HostFile(_opened(store, buffer.flags), DMA_BUF, os.dup(store), is_shared=shared)
    witness = os.memfd_create("dmasync:udmabuf", os.MFD_CLOEXEC)
    os.ftruncate(witness, buffer.size)
    os.fchmod(witness, _MODE)
    return HostFile(_opened(witness, buffer.flags), DMA_BUF, witness, is_plain=False)


def _signal(file: SyncFile) -> HostFile:
    """A pipe that becomes readable when the fence signals: every way of polling sees it."""
    reader, writer = os.pipe()

    def signalled() -> None:
        with contextlib.suppress(OSError):  # nobody has it any more
            os.write(writer, b"!")

    if not file.fence.add_callback(signalled):
        signalled()
    return HostFile(reader, SYNC_FILE, writer, before_close=lambda: file.fence.remove_callback(signalled))


class RealSystem:
    """The kernel that this process runs on, behind the same layers."""

    is_fake = False
    list_limit = 1024  # the module parameter's default; what it is here, the kernel says itself

    def __init__(self, faults: Iterable[Fault] = (), *, stacks: bool = False) -> None:
        kernel: Backend = ForeignLinux()
        self.backend = _ForeignRecorder(FaultInjector(kernel, faults), stacks=stacks)

    @property
    def journal(self) -> Journal:
        return self.backend.journal

    def adopt(self, fd: int) -> int:
        return adopt(self.backend, fd)

    def host_file(self, fd: int) -> HostFile:
        return HostFile(os.dup(fd), kind_of(os.readlink(f"/proc/self/fd/{fd}")) or DEVICE)

    def keys_of(self, file: Any) -> set[tuple[int, int]]:
        return set()

    def file(self, fd: int) -> Any:
        """The kernel keeps its files itself."""

    def let_go(self, file: Any) -> None:
        """The kernel keeps its files itself."""

    def descriptor(self, file: Any, take: Callable[[], int | None]) -> int:
        fd = take()
        if fd is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return fd

    def drop(self, fd: int) -> None:
        with contextlib.suppress(OSError):
            os.close(fd)


def kind_of(name: str) -> str | None:
    """What the kernel's name for a file, as /proc/PID/fd shows it, says that it is; None for what is none of ours."""
    if name.startswith("/dmabuf:"):
        return DMA_BUF
    if name.startswith(("anon_inode:sync_file", "anon_inode:[sync_file")):
        return SYNC_FILE
    return None


def is_gone(witness: int) -> bool:
    """Whether nobody holds the other end of a sync file's pipe."""
    poller = select.poll()
    poller.register(witness, 0)
    ready = poller.poll(0)
    return bool(ready and ready[0][1] & select.POLLERR)
