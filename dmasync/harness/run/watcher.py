"""Hears when files and processes are gone, so that nothing of them is kept."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
import threading
from collections.abc import Callable
from typing import Final

from dmasync.harness.run.open_files import Key, OpenFile, OpenFiles
from dmasync.harness.run.program.processes import Processes

_CLOSED: Final = 0x08 | 0x10  # IN_CLOSE_WRITE, IN_CLOSE_NOWRITE
_BYTES: Final = 0x01 | 0x02
"""IN_ACCESS, IN_MODIFY: read() and write() and their like; what is done by a mapping is not seen."""
_EVENT: Final = struct.Struct("=iIII")
_LOOK_AGAIN_S: Final = 0.005
_LOOKS: Final = 8
_libc = ctypes.CDLL(None, use_errno=True)


class Watcher:
    """A thread that sleeps until something ends."""

    def __init__(self, files: OpenFiles, processes: Processes) -> None:
        self._files = files
        self._processes = processes
        self._inotify = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._epoll = select.epoll()
        self._stop, self._stopper = os.pipe()
        self._watches: dict[int, Key] = {}
        self._wanted: dict[Key, int] = {}
        self._writers: dict[int, OpenFile] = {}
        self._ends: dict[int, int] = {}
        self._followed: set[int] = set()
        self._again: dict[Key, int] = {}
        self._lock = threading.RLock()
        self._epoll.register(self._inotify, select.EPOLLIN)
        self._epoll.register(self._stop, select.EPOLLIN)
        files.on_new = self._new
        files.on_gone.append(self._gone)
        self._thread = threading.Thread(target=self._run, name="dmasync-run-watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """End the thread; what is gone by now is seen to first. False where it has not ended after *seconds*: a kernel
        that does not come back from a close must not keep the verdict, too.
        """
        os.write(self._stopper, b"!")
        self._thread.join(seconds)
        if self._thread.is_alive():
            return False
        for fd in (self._inotify, self._stop, self._stopper):
            os.close(fd)
        self._epoll.close()
        return True

    def process(self, leader: int) -> None:
        """Hear of the end of *leader*."""
        if leader in self._followed:
            return
        with self._lock:
            self._followed.add(leader)
            handle = self._processes.handles().get(leader)
            if handle is not None and handle not in self._ends:
                self._ends[handle] = leader
                self._epoll.register(handle, select.EPOLLIN)

    def _new(self, file: OpenFile) -> None:
        if file.witness is None:
            return
        with self._lock:
            if file.kind == "sync_file":
                self._writers[file.witness] = file
                self._epoll.register(file.witness, 0)  # EPOLLERR: nobody has the other end
                return
            self._wanted[file.key] = self._wanted.get(file.key, 0) + 1
            path = f"/proc/self/fd/{file.witness}".encode()
            wanted = _CLOSED if file.is_shared else _CLOSED | _BYTES
            watch = _libc.inotify_add_watch(self._inotify, path, wanted)
            if watch >= 0:
                self._watches[watch] = file.key

    def _gone(self, file: OpenFile) -> None:
        with self._lock:
            for writer in [writer for writer, its in self._writers.items() if its is file]:
                del self._writers[writer]
                with contextlib.suppress(OSError):
                    self._epoll.unregister(writer)
            left = self._wanted.get(file.key, 0) - 1
            if left > 0:
                self._wanted[file.key] = left
            elif left == 0:
                del self._wanted[file.key]
                for watch in [watch for watch, key in self._watches.items() if key == file.key]:
                    del self._watches[watch]
                    _libc.inotify_rm_watch(self._inotify, watch)

    def _run(self) -> None:
        while True:
            events = self._epoll.poll(_LOOK_AGAIN_S if self._again else None)
            stopping = False
            for fd, _ in events:
                if fd == self._inotify:
                    self._closings()
                elif fd == self._stop:
                    stopping = True
                elif fd in self._ends:
                    self._ended(fd)
                elif fd in self._writers:
                    self._files.remove(self._writers[fd])
            self._look()
            if stopping:
                return

    def _closings(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._inotify, 4096):
                place = 0
                while place < len(data):
                    watch, mask, _, length = _EVENT.unpack_from(data, place)
                    place += _EVENT.size + length
                    with self._lock:
                        key = self._watches.get(watch)
                    if key is None:
                        continue
                    if mask & _BYTES:
                        self._bytes(key)
                    if mask & _CLOSED:
                        self._again[key] = _LOOKS
                        self.on_closed(key)

    def _bytes(self, key: Key) -> None:
        file = self._files.of_key(key)
        if file is not None:
            self.on_bytes(file)

    on_bytes: Callable[[OpenFile], object] = staticmethod(lambda file: None)
    """Hears of files whose bytes somebody has read or written where nobody stopped the call; the supervisor sets it."""

    on_closed: Callable[[Key], object] = staticmethod(lambda key: None)
    """Hears of files of which somebody has closed one; what checks the run sets it."""

    def _look(self) -> None:
        """The kernel says that a file is closed a moment before its locks are gone: look more than once."""
        for key in list(self._again):
            self._again[key] -= 1
            if not self._again[key]:
                del self._again[key]
            self._files.sweep(key)

    def _ended(self, handle: int) -> None:
        with self._lock:
            leader = self._ends.pop(handle)
            self._followed.discard(leader)
            with contextlib.suppress(OSError):
                self._epoll.unregister(handle)
        self._files.end(leader)
        self._processes.forget(leader)
