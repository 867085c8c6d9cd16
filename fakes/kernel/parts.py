"""What the kernel's parts ask of the kernel: files and drivers know it by this, and no part imports it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from dmasync.fakes.kernel.machine import Machine
from dmasync.fakes.kernel.profile import Profile
from dmasync.fakes.kernel.usermem import Argument
from dmasync.fakes.memory.coherent import BufferMemory
from dmasync.fakes.memory.pages import FakeMapping, Run


class DescriptorTable(Protocol):
    """The numbers of open files: see :class:`dmasync.fakes.kernel.files.descriptors.Descriptors`."""

    close_on_exec: set[int]

    @property
    def files(self) -> Mapping[int, Any]:
        """Open files by their numbers, those opened with O_PATH too."""

    def reserve(self) -> int:
        """A number that nobody else gets; EMFILE at the limit."""

    def install(self, fd: int, file: Any, *, close_on_exec: bool) -> int:
        """Let *fd*, which was reserved, be a descriptor of *file*."""

    def find(self, fd: int) -> Any:
        """The file behind *fd*, None where there is none."""


class Kernel(Protocol):
    """The kernel as its files and drivers see it."""

    profile: Profile
    machine: Machine
    page_size: int
    list_limit: int
    size_limit_mb: int
    huge_pools: Mapping[int, Any]
    """The huge pages by their size in bytes: :class:`dmasync.fakes.kernel.files.hugetlb.HugePool`."""
    memory: Callable[[Sequence[Run]], BufferMemory]
    stub_fence: Any
    """A fence that has been signalled already."""
    lost: list[Any]
    """dma-bufs that nobody can reach and nothing gives back: what some releases leave where no descriptor is free."""

    @property
    def lock(self) -> AbstractContextManager[Any]: ...
    @property
    def descriptors(self) -> DescriptorTable: ...

    def mappings_of(self, file: Any) -> list[FakeMapping]:
        """Those of *file* that have not been closed."""

    def memfd_gone(self, holders: Sequence[Any]) -> None:
        """Nobody has the memfd any more of which the dma-bufs *holders* have pages."""

    def next_inode(self) -> int:
        """A number that no dma-buf of this kernel has had."""

    def take_memory(self, size: int, region: str | None = None) -> None:
        """Count *size* bytes that are allocated (negative: given back); ENOMEM when there are no more."""

    def vfs_ioctl(self, fd: int, file: Any, request: int, arg: Argument) -> int | None:
        """The VFS's own answer to a request, None where it leaves it to the driver."""
