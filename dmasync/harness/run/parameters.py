"""The module's parameters as files: what a program writes to them holds from its next call on."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dmasync.fakes import FakeKernel

_LONGEST: Final = 64


class Parameters:
    """Of udmabuf, in ``/sys/module/udmabuf/parameters``."""

    names: Final = ("list_limit", "size_limit_mb")

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel = kernel
        self._files: dict[str, int] = {}

    def open(self, name: str, flags: int) -> int:
        """A new open file of *name*, which the caller owns."""
        if name not in self._files:
            self._files[name] = os.memfd_create(f"dmasync:{name}", os.MFD_CLOEXEC)
            os.pwrite(self._files[name], f"{getattr(self._kernel, name)}\n".encode(), 0)
        wanted = flags & (os.O_ACCMODE | os.O_TRUNC | os.O_APPEND)
        return os.open(f"/proc/self/fd/{self._files[name]}", wanted | os.O_CLOEXEC)

    def apply(self) -> None:
        """What has been written holds; what is no number is left as it was."""
        for name, fd in self._files.items():
            with contextlib.suppress(ValueError):
                setattr(self._kernel, name, int(os.pread(fd, _LONGEST, 0)))
