"""The kernel's names of the ioctls of dma-bufs, heaps and sync files, but for DMA_BUF_IOCTL_SYNC."""

from __future__ import annotations

from typing import Final

from dmasync import uapi

IOCTLS: Final[dict[str, int]] = {
    "DMA_BUF_SET_NAME": uapi.DMA_BUF_SET_NAME,
    "DMA_BUF_SET_NAME_A": uapi.DMA_BUF_SET_NAME_A,
    "DMA_BUF_SET_NAME_B": uapi.DMA_BUF_SET_NAME_B,
    "DMA_BUF_IOCTL_EXPORT_SYNC_FILE": uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE,
    "DMA_BUF_IOCTL_IMPORT_SYNC_FILE": uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE,
    "DMA_HEAP_IOCTL_ALLOC": uapi.DMA_HEAP_IOCTL_ALLOC,
    "UDMABUF_CREATE": uapi.UDMABUF_CREATE,
    "UDMABUF_CREATE_LIST": uapi.UDMABUF_CREATE_LIST,
    "SYNC_IOC_MERGE": uapi.SYNC_IOC_MERGE,
    "SYNC_IOC_FILE_INFO": uapi.SYNC_IOC_FILE_INFO,
    "SYNC_IOC_SET_DEADLINE": uapi.SYNC_IOC_SET_DEADLINE,
}
