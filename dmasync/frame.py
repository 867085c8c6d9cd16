"""Frames: planes at offsets in dma-bufs, as libcamera's ``FrameBuffer`` has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from dmasync.access import SyncType
from dmasync.arguments import listed
from dmasync.core import File
from dmasync.retry import DEFAULT_RETRY, OnError, RetryPolicy
from dmasync.syncer import DmaSyncerGroup

if TYPE_CHECKING:
    from dmasync.buffer import DmaBuf


@dataclass(frozen=True, eq=False)
class Plane:
    """*length* bytes at *offset* in *buffer*. Raises ValueError where they do not lie inside it."""

    buffer: DmaBuf
    offset: int
    length: int

    def __post_init__(self) -> None:
        if not isinstance(getattr(self.buffer, "_file", None), File) or not hasattr(self.buffer, "cpu_access"):
            raise TypeError(f"buffer must be a DmaBuf, not {self.buffer!r}")
        for name in ("offset", "length"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be a number of bytes, not {value!r}")
            if value < 0:
                raise ValueError(f"{name} must not be negative, it is {value}")
        if self.offset + self.length > self.buffer.size:
            raise ValueError(
                f"length must end inside the buffer's {self.buffer.size} bytes, "
                f"{self.length} bytes at offset {self.offset} do not"
            )

    def view(self, bytes_: memoryview) -> memoryview:
        """The plane's part of *bytes_*, a view of its whole buffer such as ``cpu_access`` gives.

        A slice: END does not take it back, and what it shows after END may be stale. Keep a copy instead.
        """
        return bytes_[self.offset : self.offset + self.length]


class FrameBuffer:
    """The planes of one frame. Closing it closes their buffers; a context manager that does."""

    def __init__(self, planes: Iterable[Plane]) -> None:
        self.planes = listed(planes, "planes", "an iterable of Plane objects")
        if not self.planes:
            raise ValueError("planes must not be empty")
        for plane in self.planes:
            if not isinstance(plane, Plane):
                raise TypeError(f"planes must hold Plane objects, not {plane!r}")

    @property
    def buffers(self) -> tuple[DmaBuf, ...]:
        """The buffers of the planes, each once, in the planes' order."""
        return tuple({id(plane.buffer): plane.buffer for plane in self.planes}.values())

    def syncer(
        self,
        sync_type: SyncType = SyncType.READ_WRITE,
        *,
        retry: RetryPolicy = DEFAULT_RETRY,
        on_error: OnError = "raise",
    ) -> DmaSyncerGroup:
        """One window over all planes: one START for each dma-buf, however many planes share it."""
        return DmaSyncerGroup([(plane, sync_type) for plane in self.planes], retry=retry, on_error=on_error)

    def close(self) -> None:
        """Close the buffers; every one of them, even if closing another raises."""
        close_all(self.buffers)

    def __enter__(self) -> FrameBuffer:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FrameBuffer {len(self.planes)} planes in {len(self.buffers)} buffers>"


def close_all(buffers: Sequence[DmaBuf]) -> None:
    """Close every one of *buffers*, also after an exception; the first of those is raised."""
    try:
        for buffer in buffers:
            buffer.close()
    except BaseException:
        if not all(buffer.closed for buffer in buffers):
            close_all(buffers)
        raise
