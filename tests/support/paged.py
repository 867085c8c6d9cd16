"""The fakes and the allocator with the page size under test."""

from __future__ import annotations

from typing import Any

from dmasync import DmaBufAllocator, DmaBufAllocatorFlag
from dmasync.fakes import FakeBackend
from dmasync.fakes.kernel import FakeKernel
from tests.support.page_size import PAGE


def fake_kernel(**options: Any) -> FakeKernel:
    return FakeKernel(**{"page_size": PAGE, **options})


def fake_backend(**options: Any) -> FakeBackend:
    return FakeBackend(**{"page_size": PAGE, **options})


def dma_buf_allocator(flags: DmaBufAllocatorFlag = DmaBufAllocatorFlag.CMA_HEAP, **options: Any) -> DmaBufAllocator:
    return DmaBufAllocator(flags, **{"page_size": PAGE, **options})
