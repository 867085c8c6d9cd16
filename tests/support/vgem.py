"""vgem's fences from user space (include/uapi/drm/vgem_drm.h): work of a device that ends when it is told to."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import subprocess
from pathlib import Path

from dmasync import uapi

_DRM_VERSION, _GEM_CLOSE = 0xC0406400, 0x40086409
_CREATE_DUMB, _PRIME_HANDLE_TO_FD = 0xC02064B2, 0xC00C642D
_FENCE_ATTACH, _FENCE_SIGNAL = 0xC0106441, 0x40086442


class Vgem:
    """An open vgem card; loads the module when there is none. OSError where that cannot be."""

    def __init__(self) -> None:
        self.fd = _find_card()
        if self.fd is None:
            subprocess.run(["modprobe", "vgem"], check=True, capture_output=True)
            self.fd = _find_card()
        if self.fd is None:
            raise FileNotFoundError("no vgem card in /dev/dri, and 'modprobe vgem' brought none")

    def close(self) -> None:
        """Give the card back; its fences are signalled by that."""
        os.close(self.fd)

    def buffer(self) -> tuple[int, int]:
        """A dma-buf of one page: its handle on the card and a descriptor, which the caller owns."""
        dumb = bytearray(struct.pack("=IIIIIIQ", 8, 8, 32, 0, 0, 0, 0))
        fcntl.ioctl(self.fd, _CREATE_DUMB, dumb)
        handle = struct.unpack("=IIIIIIQ", dumb)[4]
        prime = bytearray(struct.pack("=IIi", handle, os.O_CLOEXEC | os.O_RDWR, -1))
        fcntl.ioctl(self.fd, _PRIME_HANDLE_TO_FD, prime)
        return handle, struct.unpack("=IIi", prime)[2]

    def attach(self, handle: int, *, write: bool = True) -> int:
        """A pending fence on the buffer *handle*, for :meth:`signal`; the card signals it itself after ten seconds."""
        argument = bytearray(struct.pack("=IIII", handle, int(write), 0, 0))
        fcntl.ioctl(self.fd, _FENCE_ATTACH, argument)
        return int(struct.unpack("=IIII", argument)[2])

    def signal(self, fence: int) -> None:
        """The work is done; ETIMEDOUT when the card had signalled it already."""
        fcntl.ioctl(self.fd, _FENCE_SIGNAL, bytearray(struct.pack("=II", fence, 0)))

    def release(self, handle: int) -> None:
        """Forget the buffer *handle*; descriptors of it stay."""
        fcntl.ioctl(self.fd, _GEM_CLOSE, bytearray(struct.pack("=II", handle, 0)))

    def sync_file(self) -> tuple[int, int]:
        """A pending fence and a sync file that holds it, which the caller owns."""
        handle, carrier = self.buffer()
        fence = self.attach(handle)
        argument = uapi.dma_buf_export_sync_file.pack(uapi.DMA_BUF_SYNC_RW, -1)
        fcntl.ioctl(carrier, uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE, argument)
        os.close(carrier)
        self.release(handle)
        return fence, uapi.dma_buf_export_sync_file.get(argument, "fd")


def _find_card() -> int | None:
    name = ctypes.create_string_buffer(16)
    for card in sorted(Path("/dev/dri").glob("card*")):
        fd = os.open(card, os.O_RDWR | os.O_CLOEXEC)
        version = struct.pack("=iiixxxxQQQQQQ", 0, 0, 0, len(name), ctypes.addressof(name), 0, 0, 0, 0)
        fcntl.ioctl(fd, _DRM_VERSION, bytearray(version))
        if name.value == b"vgem":
            return fd
        os.close(fd)
    return None
