"""Whether a device node can be opened, asked in the one way that tells: by opening it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

NO_DEVICE = "ENOTTY"
"""What the first ioctl would say: the path is a regular file, as a shell's ``>`` makes where no driver has a node."""


def refusal(path: str | Path) -> str | None:
    """None where *path* opens and is no regular file, else the symbol of an errno (``ENOENT``, ``EACCES``)."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    try:
        return NO_DEVICE if stat.S_ISREG(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)
