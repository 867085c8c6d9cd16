"""DeviceTree: the nodes and module parameters of a fake kernel, on pyfakefs."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from dmasync.fakes.kernel.nodes import DEFAULT_NODES

if TYPE_CHECKING:
    from dmasync.fakes.backend import FakeBackend

PARAMETERS: Final = "/sys/module/udmabuf/parameters"


class DeviceTree:
    """Provider nodes under ``/dev`` and udmabuf's parameters under ``/sys``; a context manager.

    All nodes that the allocator knows are there at first, open to everybody. The process is an ordinary user's (uid
    1000), so that permissions hold also where the tests run as root.
    """

    def __init__(self, fs: Any, backend: FakeBackend) -> None:
        self._fs = fs
        self._backend = backend
        self._present: set[str] = set()
        for node in DEFAULT_NODES:
            self.add(node)
        kernel = backend.kernel
        for name, value in (("list_limit", kernel.list_limit), ("size_limit_mb", kernel.size_limit_mb)):
            fs.create_file(f"{PARAMETERS}/{name}", contents=f"{value}\n")

    def __enter__(self) -> DeviceTree:
        self._become(1000)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        from pyfakefs import helpers

        helpers.reset_ids()

    @staticmethod
    def _become(user: int) -> None:
        from pyfakefs import helpers

        helpers.set_uid(user)
        helpers.set_gid(user)

    @contextlib.contextmanager
    def _as_root(self) -> Iterator[None]:
        self._become(0)
        try:
            yield
        finally:
            self._become(1000)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The paths of the provider nodes that are there."""
        return tuple(sorted(self._present))

    def add(self, path: str, mode: int = 0o666) -> None:
        """A node more, with permission bits *mode*; its driver follows from its name."""
        with self._as_root():
            self._fs.create_file(path, st_mode=stat.S_IFCHR | mode, create_missing_dirs=True)
        self._present.add(path)

    def remove(self, path: str) -> None:
        """A node less: opening it is ENOENT. FileNotFoundError when it is not there."""
        with self._as_root():
            self._fs.remove_object(path)
        self._present.discard(path)

    def remove_all(self) -> None:
        """No node at all."""
        for path in self.nodes:
            self.remove(path)

    def chmod(self, path: str, mode: int) -> None:
        """Give a node the permission bits *mode*; without any, opening it is EACCES."""
        with self._as_root():
            self._fs.chmod(path, stat.S_IFCHR | mode)

    def set_parameter(self, name: str, value: int) -> None:
        """Set udmabuf's ``list_limit`` or ``size_limit_mb`` (MiB), in ``/sys`` and in the kernel."""
        if name not in ("list_limit", "size_limit_mb"):
            raise ValueError(f"name must be list_limit or size_limit_mb, not {name!r}")
        self._fs.get_object(f"{PARAMETERS}/{name}").set_contents(f"{value}\n")
        setattr(self._backend.kernel, name, value)
