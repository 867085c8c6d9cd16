"""Brackets CPU access to Linux dma-bufs and allocates them. Users import from here alone."""

from __future__ import annotations

from dmasync.access import Step, SyncType
from dmasync.allocator import DmaBufAllocator
from dmasync.backend import Backend, LinuxBackend, Mapping
from dmasync.buffer import CpuAccess, DmaBuf
from dmasync.core import compiled
from dmasync.errors import AllocationError, DmaSyncError, DmaSyncTimeout, NoProviderError
from dmasync.frame import FrameBuffer, Plane
from dmasync.providers import DEFAULT_PROVIDERS, DmaBufAllocatorFlag, Provider
from dmasync.retry import RetryPolicy
from dmasync.sync_file import SyncFile
from dmasync.syncer import DmaSyncer, DmaSyncerGroup

__all__ = [
    "DEFAULT_PROVIDERS",
    "AllocationError",
    "Backend",
    "CpuAccess",
    "DmaBuf",
    "DmaBufAllocator",
    "DmaBufAllocatorFlag",
    "DmaSyncError",
    "DmaSyncTimeout",
    "DmaSyncer",
    "DmaSyncerGroup",
    "FrameBuffer",
    "LinuxBackend",
    "Mapping",
    "NoProviderError",
    "Plane",
    "Provider",
    "RetryPolicy",
    "Step",
    "SyncFile",
    "SyncType",
    "compiled",
]
