"""Who closes which descriptor: two owners of one number would close it twice, the second time somebody else's file."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Protocol

from dmasync.backend import Backend, kernel_beneath

if TYPE_CHECKING:
    from dmasync.core import File


class Owner(Protocol):
    """A DmaBuf, a SyncFile or an allocator."""

    _file: File
    _process: int
    """Who owes the close: in a child of a fork the same object is a copy, of a descriptor that the parent closes."""


# Weak: an owner that was dropped has closed its number. An allocation takes its number whatever stands here, since the
# kernel has just said that it was free.
_owners: weakref.WeakValueDictionary[tuple[object, int], Owner] = weakref.WeakValueDictionary()


def note_owner(owner: Owner, fd: int, backend: Backend) -> None:
    """*owner* closes *fd* from now on."""
    owner._process = os.getpid()
    _owners[_key(fd, backend)] = owner


def forget_owner(owner: Owner) -> None:
    """The number is the caller's to close: it was released."""
    key = _key(owner._file.fd, owner._file.backend)
    if _owners.get(key) is owner:
        del _owners[key]


def check_free(fd: int, backend: Backend, argument: str = "fd") -> None:
    """Refuse a number that somebody is going to close already: ValueError that names them."""
    owner = _owners.get(_key(fd, backend))
    # A window that is open when its buffer is closed keeps the number until its END.
    if owner is not None and (not owner._file.closed or owner._file.windows):
        raise ValueError(
            f"{argument} must be a descriptor that nobody else closes, {fd} is one that {owner!r} closes: "
            f"use that {type(owner).__name__}, release() it first, or take over a duplicate of the descriptor"
        )


def _key(fd: int, backend: Backend) -> tuple[object, int]:
    return id(kernel_beneath(backend)), fd
