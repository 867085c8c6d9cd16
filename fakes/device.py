"""FakeDevice: does DMA into and out of fake buffers, whenever it is told to, whatever the CPU is doing."""

from __future__ import annotations

import contextlib
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

from dmasync.fakes.arguments import number_of
from dmasync.fakes.kernel import FakeFence
from dmasync.fakes.layers.beneath import find
from dmasync.fakes.memory.watched import WatchedMemory

T = TypeVar("T")


class Job:
    """Work handed to a device's thread; ``fence`` signals when it has been done."""

    def __init__(self, work: Callable[[], Any], fence: FakeFence) -> None:
        self.fence = fence
        self._work = work
        self._done = threading.Event()
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Do the work, then signal the fence."""
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error
        finally:
            self.fence.signal()
            self._done.set()

    def result(self, timeout: float | None = None) -> Any:
        """Wait for at most *timeout* seconds; what the work returned, or raises what it raised, or
        TimeoutError.
        """
        if not self._done.wait(timeout):
            raise TimeoutError("the device has not got to this job yet")
        if self._error is not None:
            raise self._error
        return self._result


class FakeDevice:
    """A DMA engine on the fake *backend*. It refuses nothing, as hardware refuses nothing.

    A buffer is named by a DmaBuf, or anything with ``fileno()``, or a descriptor. It is attached at its first
    use, or by :meth:`attach`, and then stays reachable for the device after the descriptor was closed, as an
    importer's attachment keeps it. :meth:`write` and :meth:`read` act at once, in the caller's thread.
    :meth:`write_async` and :meth:`read_async` act later, in order, on a thread of the device, and put a fence
    on the buffer that START waits for; *delay* seconds, and up to *jitter* more as *seed* draws, pass before
    each.
    """

    def __init__(
        self, backend: Any, *, name: str = "device", delay: float = 0.0, jitter: float = 0.0, seed: int = 0
    ) -> None:
        buffer_of = find(backend, "buffer_of")
        if buffer_of is None:
            raise TypeError(f"backend must have a fake kernel beneath, {backend!r} has none")
        self.name = name
        self._buffer_of = buffer_of
        self._observe = find(backend, "observe")
        self._delay, self._jitter = delay, jitter
        self._random = random.Random(seed)  # noqa: S311 - repeatable, not unpredictable
        self._attached: dict[int, Any] = {}
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def attach(self, buffer: Any) -> Any:
        """Hold on to *buffer*; returns something that the other methods take for it, also once it is
        closed.
        """
        found = self._buffer(buffer)
        if found.ino not in self._attached:
            found.get()
            self._attached[found.ino] = found
        return found

    def detach(self, buffer: Any) -> None:
        """Let go of *buffer*."""
        found = self._attached.pop(self._buffer(buffer).ino, None)
        if found is not None:
            found.put()

    def _buffer(self, buffer: Any) -> Any:
        if hasattr(buffer, "memory") and hasattr(buffer, "ino"):
            return buffer
        return self._buffer_of(number_of(buffer, "buffer"))

    # -- at once
    # --------------------------------------------------------------------------------------------------

    def write(
        self, buffer: Any, data: Any, offset: int = 0, *, width: int | None = None, stride: int | None = None
    ) -> None:
        """DMA *data*, anything with the buffer protocol, to *offset* bytes into *buffer*.

        With *width* and *stride* (bytes), rows of *width* bytes of *data* go to places *stride* apart.
        """
        target = self.attach(buffer)
        source = memoryview(data).cast("B") if memoryview(data).contiguous else memoryview(bytes(data))
        ranges = _rows(len(source), offset, width, stride)
        _check(ranges, target.size)
        with self._dma(target, ranges, write=True) as memory:
            taken = 0
            for begin, length in ranges:
                memory[begin : begin + length] = source[taken : taken + length]
                taken += length

    def read(
        self,
        buffer: Any,
        length: int | None = None,
        offset: int = 0,
        *,
        width: int | None = None,
        stride: int | None = None,
    ) -> bytes:
        """DMA *length* bytes (default: the rest) from *offset* of *buffer*; rows as in :meth:`write`."""
        target = self.attach(buffer)
        if length is None:
            rest = target.size - offset
            length = rest if width is None or stride is None else (rest + stride - width) // stride * width
        ranges = _rows(length, offset, width, stride)
        _check(ranges, target.size)
        with self._dma(target, ranges, write=False) as memory:
            return b"".join([bytes(memory[begin : begin + part]) for begin, part in ranges])

    @contextlib.contextmanager
    def dma(self, buffer: Any, *, write: bool, ranges: Sequence[tuple[int, int]] | None = None) -> Iterator[Any]:
        """The bytes as the device sees them, for a program of one's own that stands for the device's work.

        *ranges* are the (offset, length) pairs that it touches, the whole buffer by default; *write* says
        how.
        """
        target = self.attach(buffer)
        where = [(0, target.size)] if ranges is None else list(ranges)
        _check(where, target.size)
        with self._dma(target, where, write=write) as memory:
            yield memory

    @contextlib.contextmanager
    def _dma(self, target: Any, ranges: Sequence[tuple[int, int]], *, write: bool) -> Iterator[Any]:
        memory = target.memory
        if isinstance(memory, WatchedMemory):
            with memory.dma(ranges, write=write) as view:
                yield view
            return
        if self._observe is not None:
            self._observe("device-write" if write else "device-read", target.ino, tuple(ranges), "")
        yield memory.device_view()

    # -- later
    # ----------------------------------------------------------------------------------------------------

    def write_async(
        self, buffer: Any, data: Any, offset: int = 0, *, width: int | None = None, stride: int | None = None
    ) -> Job:
        """As :meth:`write`, on the device's thread; START on *buffer* waits until it is done."""
        target = self.attach(buffer)
        return self.submit(lambda: self.write(target, data, offset, width=width, stride=stride), writes=(target,))

    def read_async(
        self,
        buffer: Any,
        length: int | None = None,
        offset: int = 0,
        *,
        width: int | None = None,
        stride: int | None = None,
    ) -> Job:
        """As :meth:`read`, on the device's thread; a START that writes waits until it is done."""
        target = self.attach(buffer)
        return self.submit(lambda: self.read(target, length, offset, width=width, stride=stride), reads=(target,))

    def submit(self, work: Callable[[], Any], *, reads: Sequence[Any] = (), writes: Sequence[Any] = ()) -> Job:
        """Have the device's thread call *work*, after what was submitted before.

        Its fence is put on the buffers that it *reads* and *writes*: START on those waits for it.
        """
        job = Job(work, FakeFence(self.name, "dma"))
        from dmasync.fakes.kernel.dma_buf.dma_resv import Usage

        for buffers, usage in ((reads, Usage.READ), (writes, Usage.WRITE)):
            for buffer in buffers:
                target = self.attach(buffer)
                with target.kernel.lock:
                    target.reservation.add(job.fence, usage)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
            self._thread.start()
        self._jobs.put(job)
        return job

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._delay or self._jitter:
                time.sleep(self._delay + self._jitter * self._random.random())
            job.run()

    def close(self) -> None:
        """Finish what was submitted, end the thread, let go of every buffer."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None
        for target in list(self._attached.values()):
            target.put()
        self._attached.clear()

    def __enter__(self) -> FakeDevice:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _rows(length: int, offset: int, width: int | None, stride: int | None) -> list[tuple[int, int]]:
    if width is None and stride is None:
        return [(offset, length)] if length else []
    if width is None or stride is None or width < 1 or stride < width:
        raise ValueError(f"rows need a width from 1 byte and a stride that is not less: {width!r} and {stride!r}")
    if length % width:
        raise ValueError(f"{length} bytes are no whole number of rows of {width} bytes")
    return [(offset + row * stride, width) for row in range(length // width)]


def _check(ranges: Sequence[tuple[int, int]], size: int) -> None:
    for offset, length in ranges:
        if offset < 0 or length < 0 or offset + length > size:
            raise ValueError(f"bytes {offset} to {offset + length} are not all in a buffer of {size} bytes")
