"""What the udmabuf driver says about itself when asked the right way."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from dmasync import uapi

_NO_MEMFD = 0xFFFFFFFF
_MIB = 1 << 20


def size_limit(ioctl: Callable[[int, int, Any], Any], device: int, refused: int) -> int | None:
    """The module's ``size_limit_mb`` in bytes, if that is why *refused* bytes were refused; else None.

    udmabuf_create() looks at the size (EINVAL) before it looks for the memfd (EBADFD), so that asking for a udmabuf
    of a memfd that cannot be there tells which sizes it would take, and allocates nothing.
    """

    def too_large(size: int) -> bool:
        try:
            ioctl(device, uapi.UDMABUF_CREATE, uapi.udmabuf_create.pack(_NO_MEMFD, 0, 0, size))
        except OSError as error:
            return error.errno == errno.EINVAL
        return False

    if not too_large(refused):
        return None
    least, most = 0, -(-refused // _MIB)
    while most - least > 1:
        middle = (least + most) // 2
        if too_large(middle * _MIB):
            most = middle
        else:
            least = middle
    return least * _MIB
