"""How the fake kernel says no: an OSError with the kernel's errno, or, for its own gaps, something that is
none.
"""

from __future__ import annotations

import errno
import os


class UnmodelledCallError(Exception):
    """The kernel has an answer to this call, but the fake does not know it.

    Not an ``OSError``, so that code under test, which may well handle kernel errors, cannot swallow it: it
    means that the test has left what the fake can vouch for, not that the program is wrong.
    """


class BadDescriptorError(OSError, ValueError):
    """EBADF for a negative descriptor.

    The kernel's answer is EBADF. Python's ``fcntl``, ``select`` and ``mmap`` modules refuse such a number
    with
    ``ValueError`` before they ask it; whoever handles either handles this.
    """


def os_error(code: int, because: str = "") -> OSError:
    """The OSError (of the subclass that Python picks for *code*) that a system call with errno *code* raises.

    *because*: which limit of this kernel it is, as nothing on this machine would tell.
    """
    return OSError(code, f"{os.strerror(code)} ({because})" if because else os.strerror(code))


def bad_descriptor(fd: int) -> OSError:
    """The error for a descriptor that is not open in the fake."""
    if fd < 0:
        return BadDescriptorError(errno.EBADF, f"file descriptor cannot be a negative integer ({fd})")
    return os_error(errno.EBADF)
