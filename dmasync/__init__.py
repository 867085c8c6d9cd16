"""Brackets CPU access to Linux dma-bufs and allocates them. Users import from here alone."""

from __future__ import annotations

from dmasync.access import Step, SyncType
from dmasync.backend import Backend, LinuxBackend, Mapping
from dmasync.errors import AllocationError, DmaSyncError, DmaSyncTimeout, NoProviderError

__all__ = [
    "AllocationError",
    "Backend",
    "DmaSyncError",
    "DmaSyncTimeout",
    "LinuxBackend",
    "Mapping",
    "NoProviderError",
    "Step",
    "SyncType",
]
