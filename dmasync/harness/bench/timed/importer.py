"""vgem as an importer: DRM_IOCTL_PRIME_FD_TO_HANDLE attaches the module's device to a dma-buf and maps it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import glob
import os
import platform
import struct

from dmasync import uapi

_ENCODING = uapi.ioctl_encoding(platform.machine())
_READ_WRITE = _ENCODING.read | _ENCODING.write
_DRM_VERSION = struct.Struct("@iiiNPNPNP")  # struct drm_version: three numbers, three lengths with their texts
_DRM_IOCTL_VERSION = _ENCODING.request(_READ_WRITE, "d", 0x00, _DRM_VERSION.size)
_DRM_GEM_CLOSE = struct.Struct("=II")  # struct drm_gem_close: handle, pad
_DRM_IOCTL_GEM_CLOSE = _ENCODING.request(_ENCODING.write, "d", 0x09, _DRM_GEM_CLOSE.size)
_DRM_PRIME_HANDLE = struct.Struct("=IIi")  # struct drm_prime_handle: handle, flags, fd
_DRM_IOCTL_PRIME_FD_TO_HANDLE = _ENCODING.request(_READ_WRITE, "d", 0x2E, _DRM_PRIME_HANDLE.size)


class Importer:
    """A vgem node and the buffers that it holds."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._handles: list[int] = []

    @classmethod
    def find(cls) -> Importer:
        """Open the vgem node. Raises FileNotFoundError where there is none."""
        for path in sorted(glob.glob("/dev/dri/card*")):
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                if _driver(fd) == b"vgem":
                    return cls(fd)
                os.close(fd)
        raise FileNotFoundError("no vgem node in /dev/dri: modprobe vgem")

    def attach(self, dma_buf: int) -> None:
        """Import the dma-buf with descriptor *dma_buf* (borrowed). OSError where the device cannot map it."""
        argument = bytearray(_DRM_PRIME_HANDLE.pack(0, 0, dma_buf))
        fcntl.ioctl(self._fd, _DRM_IOCTL_PRIME_FD_TO_HANDLE, argument)
        self._handles.append(_DRM_PRIME_HANDLE.unpack(argument)[0])

    def close(self) -> None:
        for handle in self._handles:
            fcntl.ioctl(self._fd, _DRM_IOCTL_GEM_CLOSE, bytearray(_DRM_GEM_CLOSE.pack(handle, 0)))
        self._handles.clear()
        os.close(self._fd)

    def __enter__(self) -> Importer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _driver(fd: int) -> bytes:
    name = ctypes.create_string_buffer(32)
    argument = bytearray(_DRM_VERSION.pack(0, 0, 0, len(name) - 1, ctypes.addressof(name), 0, 0, 0, 0))
    fcntl.ioctl(fd, _DRM_IOCTL_VERSION, argument)
    return name.value
