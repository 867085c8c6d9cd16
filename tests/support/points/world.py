"""What one run of an operation happens in: its files, its kernel, and what must hold when the run is over."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from dmasync import DmaBuf, LinuxBackend, compiled, uapi

Call = tuple[int, int, int, int]
"""A SYNC: descriptor, flags, inode, errno or 0."""

_AGAIN = (errno.EINTR, errno.EAGAIN)


class Kernel(LinuxBackend):
    """The kernel, but its dma-bufs are memfds; an ioctl is one C call that holds no look for signals."""

    def __init__(self, points: ModuleType) -> None:
        self.ioctl = points.ioctl  # type: ignore[assignment]


@dataclass(eq=False)
class _Window:
    """*given_up*: an END was refused for good. That may have ended the window for the library, or END comes again."""

    fd: int
    file: int
    given_up: bool = False


class World:
    """*direct*: no backend is passed, and the process's own ioctl(2) is the small kernel (see preload.c)."""

    def __init__(self, points: ModuleType, *, direct: bool) -> None:
        self._points = points
        self.backend: Any = None if direct else Kernel(points)
        self._before = self.descriptors()
        self._maps_before: int | None = None
        self._kept: list[Callable[[], object]] = []
        self._watched: list[tuple[Any, tuple[int, ...]]] = []
        points.reset()

    def calls(self) -> list[Call]:
        """The SYNCs so far, in order."""
        return self._points.calls()  # type: ignore[no-any-return]

    def strays(self) -> int:
        """How many SYNCs came for a descriptor that was not open."""
        return self._points.strays()  # type: ignore[no-any-return]

    def descriptors(self) -> int:
        return len(os.listdir("/proc/self/fd"))

    _counted = (b"", 0)
    """The size of this process's address space, and how many memfds were mapped in it when it had that."""

    def mappings(self) -> int:
        # With numpy and the like loaded, the list of mappings takes milliseconds; one more or less shows in the size.
        with open("/proc/self/statm", "rb", 0) as sizes:
            size = sizes.read().split()[0]
        if size != self._counted[0]:
            with open("/proc/self/maps", "rb") as lines:
                World._counted = (size, sum(b"/memfd:" in line for line in lines))
        return self._counted[1]

    def forgive(self) -> None:
        """Refuse nothing any more."""
        for step in ("START", "END"):
            self.refuse(step, 0, 0)

    def memfd(self, *, kept: bool = True) -> int:
        """A file of one page; *kept*: closed when the run is over."""
        number = os.memfd_create("points", os.MFD_CLOEXEC)
        os.ftruncate(number, mmap.PAGESIZE)
        if kept:
            self._kept.append(lambda: os.close(number))
        return number

    def buffer(self) -> DmaBuf:
        """A buffer that is closed when the run is over."""
        buffer = DmaBuf.from_fd(self.memfd(kept=False), backend=self.backend)
        self._kept.append(buffer.close)
        return buffer

    def afterwards(self, call: Callable[[], object]) -> None:
        """*call* when the run is over, to tidy up."""
        self._kept.append(call)

    def refuse(self, step: str, code: int, times: int, *, after: int = 0) -> None:
        self._points.refuse(step == "END", code, times, after)

    def count_mappings(self) -> None:
        """The run must leave as many mappings of memfds as there are now."""
        self._maps_before = self.mappings()

    def watch(self, window: Any, *files: int) -> None:
        """*window* must tell the truth about itself, and be good for another use once the run is over.

        In plain Python it need not: an exception may leave it between two states until it is dropped.
        """
        self._watched.append((window, files))

    def untruths(self) -> list[str]:
        """Each watched window whose ``active`` is not what the kernel saw."""
        windows, _ = self._windows()
        problems: list[str] = []
        if not compiled:
            return problems
        for watched, files in self._watched:
            of_it = [window for window in windows if window.fd in files]
            sure = all(not window.given_up for window in of_it)
            if sure and watched.active != bool(of_it):
                problems.append(f"untrue: active is {watched.active}, the kernel has {len(of_it)} open")
        return problems

    def left_open(self) -> int:
        return len([window for window in self._windows()[0] if not window.given_up])

    def tidy(self) -> list[str]:
        """End and use again what is watched, close what was kept; the problems that show."""
        problems = []
        self.forgive()
        for window, _ in self._watched if compiled else ():
            window.end()
            before = len(self.calls())
            with window:
                pass
            if len(self.calls()) == before:
                problems.append("unusable: no START when used again")
        window = None
        self._watched.clear()
        for call in reversed(self._kept):
            call()
        self._kept.clear()
        return problems

    def problems(self) -> list[str]:
        """What does not balance."""
        windows, problems = self._windows()
        problems += [f"lost: no END of {window.fd}" for window in windows if not window.given_up]
        if self.strays():
            problems.append("stray: an ioctl on a number that was closed")
        if (now := self.descriptors()) != self._before:
            problems.append(f"descriptors: {now - self._before:+d}")
        if self._maps_before is not None and (now := self.mappings()) != self._maps_before:
            problems.append(f"mappings: {now - self._maps_before:+d}")
        return problems

    def _windows(self) -> tuple[list[_Window], list[str]]:
        """The windows without an END that succeeded, and each END that was none of the window opened last."""
        windows: list[_Window] = []
        problems = []
        for fd, flags, file, code in self.calls():
            if not flags & uapi.DMA_BUF_SYNC_END:
                if not code:
                    windows.append(_Window(fd, file))
                continue
            same = sorted((w for w in windows if (w.fd, w.file) == (fd, file)), key=lambda w: not w.given_up)
            if not same:
                problems.append(f"doubled: END of {fd} without its START")
            elif not code:
                if not all(w.given_up for w in windows[windows.index(same[-1]) + 1 :]):
                    problems.append(f"order: END of {fd} before one opened later")
                windows.remove(same[-1])
            elif code not in _AGAIN:
                same[-1].given_up = True
        return windows, problems
