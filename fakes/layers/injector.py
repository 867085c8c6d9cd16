"""FaultInjector: refuses or delays calls by a plan, before the layer beneath sees them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from dmasync import Backend, Mapping, Step, uapi
from dmasync.fakes.arguments import check_layer, listed
from dmasync.fakes.ioctls import IOCTLS
from dmasync.fakes.layers.beneath import buffer_of
from dmasync.fakes.layers.faults import Fault, Verdict
from dmasync.fakes.uninterrupted import completed

_SYNC = uapi.DMA_BUF_IOCTL_SYNC
_unpack_flags = uapi.dma_buf_sync.unpack


class _Armed:
    """One plan and how far it has got."""

    def __init__(self, plan: Fault) -> None:
        self.plan = plan
        self._verdicts: Iterator[Verdict] = plan.verdicts()
        self.upcoming: Verdict | None = next(self._verdicts, None)
        """What the next matching call gets; None when the plan is spent."""

    def advance(self) -> None:
        self.upcoming = next(self._verdicts, None)


class FaultInjector:
    """A layer around *inner* that acts out *faults*; a call that no plan matches goes through untouched.

    Plans are asked in order. The first that refuses a call decides it, and later ones do not see it; delays
    add up. A refused call never reaches *inner*, except ``close``: there the descriptor is closed and the
    error raised after, as the kernel does it. *sleep* waits out the delays.
    """

    def __init__(
        self,
        inner: Backend,
        faults: Iterable[Fault] = (),
        *,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        check_layer(inner, "inner")
        self.inner = inner
        self._sleep = sleep
        self._lock = threading.Lock()
        self.armed: list[_Armed] = []
        """The plans that still act, always the same list: while it is empty every call goes through untouched."""
        self._plans: list[Fault] = []
        self._buffer_of = buffer_of(inner)
        self.ioctl = self._make_ioctl()
        self.inject(*listed(faults, "faults", "plans of dmasync.fakes.faults"))

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Every plan that was injected, spent ones too: given to another injector they refuse the same
        calls.
        """
        return tuple(self._plans)

    @property
    def pending(self) -> tuple[Fault, ...]:
        """The plans that still act."""
        return tuple(armed.plan for armed in self.armed)

    def inject(self, *faults: Fault) -> None:
        """Add plans after those that are there."""
        for plan in faults:
            if not isinstance(plan, Fault):
                raise TypeError(f"faults must be plans of dmasync.fakes.faults, not {plan!r}")
        with self._lock:
            self._plans += faults
            self.armed += [armed for armed in map(_Armed, faults) if armed.upcoming is not None]

    def clear(self) -> None:
        """Drop every plan that still acts."""
        with self._lock:
            self.armed.clear()

    def _make_ioctl(self) -> Callable[[int, int, Any], Any]:
        inner_ioctl = self.inner.ioctl
        armed = self.armed
        decide = self._decide_ioctl

        def ioctl(fd: int, request: int, arg: Any = 0, /) -> Any:
            if armed:
                decide(fd, request, arg)
            for result in completed(
                inner_ioctl,
                (
                    (
                        fd,
                        request,
                        arg,
                    ),
                ),
            ):
                return result
            raise AssertionError("map of one call ended without it")  # pragma: no cover - it cannot

        return ioctl

    def _decide_ioctl(self, fd: int, request: int, arg: Any) -> None:
        if request == _SYNC:
            try:
                (flags,) = _unpack_flags(arg)
            except Exception:
                return  # not an argument of this ioctl: whatever it is, the layer beneath answers it
            self._decide(Step.END if int(flags) & uapi.DMA_BUF_SYNC_END else Step.START, fd)
        else:
            self._decide("ioctl", fd, request)

    def _decide(self, place: Step | str, fd: int | None = None, request: int = 0) -> None:
        wait = 0.0
        code = 0
        with self._lock:
            for armed in tuple(self.armed):
                if not self._matches(armed.plan, place, fd, request):
                    continue
                verdict = armed.upcoming
                armed.advance()
                if armed.upcoming is None:
                    self.armed.remove(armed)
                if isinstance(verdict, float):
                    wait += verdict
                elif verdict:
                    code = verdict
                    break
        if wait:
            self._sleep(wait)
        if code:
            raise OSError(code, os.strerror(code))

    def _matches(self, plan: Fault, place: Step | str, fd: int | None, request: int) -> bool:
        on = plan.on
        if isinstance(place, Step):
            if on is not None and on is not place:
                return False
        elif on is None or isinstance(on, Step) or (on != place and (not request or IOCTLS.get(on) != request)):
            return False
        if plan.buffer is None:
            return True
        if fd is None:
            return False
        if plan.buffer == fd:
            return True
        wanted = self._buffer_of(plan.buffer)
        return (plan.buffer if wanted is None else wanted) == self._buffer_of(fd)

    def open(self, path: str, flags: int, /) -> int:
        if self.armed:
            self._decide("open")
        for fd in completed(
            self.inner.open,
            (
                (
                    path,
                    flags,
                ),
            ),
        ):
            return fd
        raise AssertionError  # pragma: no cover - map of one call yields it

    def close(self, fd: int, /) -> None:
        if self.armed:
            try:
                self._decide("close", fd)
            except BaseException:
                # The descriptor is gone whatever close(2) says: an injected error must not keep it open.
                self.inner.close(fd)
                raise
        for _ in completed(self.inner.close, ((fd,),)):
            return

    def dup(self, fd: int, /) -> int:
        if self.armed:
            self._decide("dup", fd)
        for duplicate in completed(self.inner.dup, ((fd,),)):
            return duplicate
        raise AssertionError  # pragma: no cover - map of one call yields it

    def memfd_create(self, name: str, flags: int, /) -> int:
        if self.armed:
            self._decide("memfd_create")
        for fd in completed(
            self.inner.memfd_create,
            (
                (
                    name,
                    flags,
                ),
            ),
        ):
            return fd
        raise AssertionError  # pragma: no cover - map of one call yields it

    def ftruncate(self, fd: int, length: int, /) -> None:
        if self.armed:
            self._decide("ftruncate", fd)
        for _ in completed(
            self.inner.ftruncate,
            (
                (
                    fd,
                    length,
                ),
            ),
        ):
            return

    def add_seals(self, fd: int, seals: int, /) -> None:
        if self.armed:
            self._decide("add_seals", fd)
        for _ in completed(
            self.inner.add_seals,
            (
                (
                    fd,
                    seals,
                ),
            ),
        ):
            return

    def window_dropped(self, fd: int) -> None:
        """What a recorder beneath is told: see there."""
        tell = getattr(self.inner, "window_dropped", None)
        if tell is not None:
            tell(fd)

    def get_seals(self, fd: int, /) -> int:
        if self.armed:
            self._decide("get_seals", fd)
        for seals in completed(self.inner.get_seals, ((fd,),)):
            return seals
        raise AssertionError  # pragma: no cover - map of one call yields it

    def mmap(self, fd: int, length: int, prot: int, flags: int, offset: int = 0, /) -> Mapping:
        if self.armed:
            self._decide("mmap", fd)
        for mapping in completed(
            self.inner.mmap,
            (
                (
                    fd,
                    length,
                    prot,
                    flags,
                    offset,
                ),
            ),
        ):
            return mapping
        raise AssertionError  # pragma: no cover - map of one call yields it

    def lseek(self, fd: int, offset: int, whence: int, /) -> int:
        if self.armed:
            self._decide("lseek", fd)
        for position in completed(
            self.inner.lseek,
            (
                (
                    fd,
                    offset,
                    whence,
                ),
            ),
        ):
            return position
        raise AssertionError  # pragma: no cover - map of one call yields it

    def poll(self, fd: int, events: int, timeout_ms: int | None, /) -> int:
        if self.armed:
            self._decide("poll", fd)
        for revents in completed(
            self.inner.poll,
            (
                (
                    fd,
                    events,
                    timeout_ms,
                ),
            ),
        ):
            return revents
        raise AssertionError  # pragma: no cover - map of one call yields it
