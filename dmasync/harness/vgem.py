"""vgem, a device without hardware: imports dma-bufs, exports its own, and has fences that user space signals.

What is asked of it is in include/uapi/drm/drm.h, drm_mode.h and vgem_drm.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import glob
import os
import platform
import struct
import subprocess
from typing import Final

from dmasync import uapi

_ENCODING: Final = uapi.ioctl_encoding(platform.machine())
_IN: Final = _ENCODING.write
_IN_OUT: Final = _ENCODING.read | _ENCODING.write

_VERSION: Final = struct.Struct("@iiiNPNPNP")  # struct drm_version: three numbers, three lengths with their texts
_GEM_CLOSE: Final = struct.Struct("=II")  # struct drm_gem_close: handle, pad
_PRIME_HANDLE: Final = struct.Struct("=IIi")  # struct drm_prime_handle: handle, flags, fd
_CREATE_DUMB: Final = struct.Struct("=IIIIIIQ")  # struct drm_mode_create_dumb: height, width, bpp, flags, handle, ...
_FENCE_ATTACH: Final = struct.Struct("=IIII")  # struct drm_vgem_fence_attach: handle, flags, out_fence, pad
_FENCE_SIGNAL: Final = struct.Struct("=II")  # struct drm_vgem_fence_signal: fence, flags

_DRM_IOCTL_VERSION: Final = _ENCODING.request(_IN_OUT, "d", 0x00, _VERSION.size)
_DRM_IOCTL_GEM_CLOSE: Final = _ENCODING.request(_IN, "d", 0x09, _GEM_CLOSE.size)
_DRM_IOCTL_PRIME_HANDLE_TO_FD: Final = _ENCODING.request(_IN_OUT, "d", 0x2D, _PRIME_HANDLE.size)
_DRM_IOCTL_PRIME_FD_TO_HANDLE: Final = _ENCODING.request(_IN_OUT, "d", 0x2E, _PRIME_HANDLE.size)
_DRM_IOCTL_VGEM_FENCE_ATTACH: Final = _ENCODING.request(_IN_OUT, "d", 0x41, _FENCE_ATTACH.size)
_DRM_IOCTL_VGEM_FENCE_SIGNAL: Final = _ENCODING.request(_IN, "d", 0x42, _FENCE_SIGNAL.size)
_DRM_IOCTL_MODE_CREATE_DUMB: Final = _ENCODING.request(_IN_OUT, "d", 0xB2, _CREATE_DUMB.size)

_VGEM_FENCE_WRITE: Final = 1


class Vgem:
    """An open vgem card. Handles, of buffers made or imported, are the card's and go with it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def find(cls) -> Vgem:
        """Open the card. FileNotFoundError where there is none."""
        for path in sorted(glob.glob("/dev/dri/card*")):
            with contextlib.suppress(OSError), contextlib.ExitStack() as unless_found:
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                unless_found.callback(os.close, fd)
                if _driver(fd) == b"vgem":
                    unless_found.pop_all()
                    return cls(fd)
        raise FileNotFoundError("no vgem node in /dev/dri: modprobe vgem")

    @classmethod
    def load(cls) -> Vgem:
        """Open the card; load the module where there is none. OSError or CalledProcessError where that cannot be."""
        try:
            return cls.find()
        except FileNotFoundError:
            subprocess.run(["modprobe", "vgem"], check=True, capture_output=True)
            return cls.find()

    def close(self) -> None:
        """Give the card back; its fences are signalled by that."""
        os.close(self.fd)

    def __enter__(self) -> Vgem:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def import_buffer(self, dma_buf: int) -> int:
        """Attach the device to the dma-buf with descriptor *dma_buf* (borrowed) and map it; the card's handle of it.

        OSError where the device cannot map it.
        """
        argument = bytearray(_PRIME_HANDLE.pack(0, 0, dma_buf))
        fcntl.ioctl(self.fd, _DRM_IOCTL_PRIME_FD_TO_HANDLE, argument)
        return int(_PRIME_HANDLE.unpack(argument)[0])

    def new_buffer(self) -> tuple[int, int]:
        """A dma-buf of one page: the card's handle of it, and a descriptor, which the caller owns."""
        dumb = bytearray(_CREATE_DUMB.pack(8, 8, 32, 0, 0, 0, 0))
        fcntl.ioctl(self.fd, _DRM_IOCTL_MODE_CREATE_DUMB, dumb)
        handle = int(_CREATE_DUMB.unpack(dumb)[4])
        argument = bytearray(_PRIME_HANDLE.pack(handle, os.O_CLOEXEC | os.O_RDWR, -1))
        fcntl.ioctl(self.fd, _DRM_IOCTL_PRIME_HANDLE_TO_FD, argument)
        return handle, int(_PRIME_HANDLE.unpack(argument)[2])

    def forget(self, handle: int) -> None:
        """Drop the card's *handle* of a buffer; descriptors of it stay."""
        fcntl.ioctl(self.fd, _DRM_IOCTL_GEM_CLOSE, bytearray(_GEM_CLOSE.pack(handle, 0)))

    def attach_fence(self, handle: int, *, write: bool = True) -> int:
        """A pending fence on a buffer, for :meth:`signal`; the card signals it itself after ten seconds."""
        argument = bytearray(_FENCE_ATTACH.pack(handle, _VGEM_FENCE_WRITE if write else 0, 0, 0))
        fcntl.ioctl(self.fd, _DRM_IOCTL_VGEM_FENCE_ATTACH, argument)
        return int(_FENCE_ATTACH.unpack(argument)[2])

    def signal(self, fence: int) -> None:
        """The work is done; ETIMEDOUT when the card had signalled it already."""
        fcntl.ioctl(self.fd, _DRM_IOCTL_VGEM_FENCE_SIGNAL, bytearray(_FENCE_SIGNAL.pack(fence, 0)))

    def sync_file(self) -> tuple[int, int]:
        """A pending fence and a sync file that holds it, which the caller owns."""
        handle, carrier = self.new_buffer()
        fence = self.attach_fence(handle)
        argument = uapi.dma_buf_export_sync_file.pack(uapi.DMA_BUF_SYNC_RW, -1)
        fcntl.ioctl(carrier, uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE, argument)
        os.close(carrier)
        self.forget(handle)
        return fence, uapi.dma_buf_export_sync_file.get(argument, "fd")


def _driver(fd: int) -> bytes:
    name = ctypes.create_string_buffer(32)
    argument = bytearray(_VERSION.pack(0, 0, 0, len(name) - 1, ctypes.addressof(name), 0, 0, 0, 0))
    fcntl.ioctl(fd, _DRM_IOCTL_VERSION, argument)
    return name.value
