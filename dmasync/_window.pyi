"""The compiled core; _window_py.py has the same two types in plain Python."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar, final

from dmasync.backend import Backend
from dmasync.retry import RetryPolicy

_Class = TypeVar("_Class")

SYNC_REQUEST: int
"""DMA_BUF_IOCTL_SYNC, as the C compiler sees it."""

@final
class File:
    """A descriptor with its backend. Its number is closed when its owner and its last window have let go of it."""

    def __new__(cls, fd: int, backend: Backend, owned: bool = False, keeps: object = None, /) -> File:
        """*owned* numbers are closed some day, others are borrowed; *keeps* lives as long as the File."""

    @staticmethod
    def opened(backend: Backend, offset: int | None, call: Callable[..., Any], /, *arguments: Any) -> File:
        """The File that owns the descriptor that ``call(*arguments)`` makes, in one step.

        That is what the call returns or, with an *offset*, the C int that it writes at that many bytes in its last
        argument, a bytearray. Raises what the call raises.
        """

    @property
    def fd(self) -> int: ...
    @property
    def backend(self) -> Backend: ...
    @property
    def ioctl(self) -> Callable[[int, int, Any], Any]: ...
    @property
    def closed(self) -> bool:
        """Whether the owner has let go: windows that are open go on to their END, no new one opens."""

    @property
    def windows(self) -> int:
        """How many windows are open, or being opened or closed."""

    def close(self) -> None:
        """The owner lets go. Closes the number, or leaves that to the END of the last window; harmless again."""

    def release(self) -> int:
        """As close(), but the number stays open and is the caller's to close."""

def quicken(subclass: type[_Class], /) -> type[_Class]:
    """Make *subclass*, of Window, as fast to make and drop as Window: it adds neither members nor a finalizer."""

class Window:
    """START of one dma-buf or several in turn, and END in reverse, exactly once for every START that succeeded.

    A subclass has ``_set_up(...)``, which takes the arguments of its constructor, checks them and calls
    :meth:`_prepare`, and ``_refuse(reason)``, which raises: "open", "busy", "closed" or "unset"; or, for "moved",
    may return to let a window that was moved away do nothing.
    """

    _bytes: memoryview | None
    """If it is set, the ``with`` block gets a view of it, released after END."""

    def __init__(self, *arguments: Any, **options: Any) -> None: ...
    def _prepare(
        self,
        targets: tuple[tuple[File, int], ...],
        ioctl: Callable[[int, int, Any], Any] | None,
        retry: RetryPolicy | tuple[RetryPolicy, Backend] | None,
        timed: bool,
        log_only: bool,
        /,
    ) -> None:
        """What the window is opened on, and how. Each target is a File and the value of a SyncType.

        *ioctl* None: each file's own. *retry* None: the default. *timed*: the policy has something to say
        before the first try. *log_only*: errors of the kernel are logged and not raised.
        """

    def _move(self, heir: Window, /) -> None:
        """Hand everything but the bytes over to *heir*, a new Window that was not initialised, in one step."""

    @property
    def active(self) -> bool: ...
    @property
    def _targets(self) -> tuple[tuple[File, int], ...]: ...
    @property
    def _entered(self) -> Any:
        """Opens the window, as ``__enter__`` does, and is what that returns: see dmasync.core."""

    def start(self) -> None: ...
    def end(self) -> None: ...
    def __enter__(self) -> Any: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
