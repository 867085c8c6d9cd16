"""Names of the flags that calls take and give, as strace writes them."""

from __future__ import annotations

import mmap
import os
import select
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from dmasync import uapi

_OPEN: Final = {
    getattr(os, name): name
    for name in ("O_CREAT", "O_EXCL", "O_NOCTTY", "O_TRUNC", "O_APPEND", "O_NONBLOCK", "O_DIRECT", "O_DIRECTORY",
                 "O_NOFOLLOW", "O_NOATIME", "O_CLOEXEC", "O_PATH")
}  # fmt: skip
_ACCESS_MODES: Final = {os.O_RDONLY: "O_RDONLY", os.O_WRONLY: "O_WRONLY", os.O_RDWR: "O_RDWR"}
_SHARING: Final = {mmap.MAP_SHARED: "MAP_SHARED", mmap.MAP_PRIVATE: "MAP_PRIVATE", 3: "MAP_SHARED_VALIDATE"}
_MAP: Final = {0x10: "MAP_FIXED", mmap.MAP_ANONYMOUS: "MAP_ANONYMOUS", 0x8000: "MAP_POPULATE", 0x10000: "MAP_NONBLOCK"}
_PROTECTION: Final = {1: "PROT_READ", 2: "PROT_WRITE", 4: "PROT_EXEC"}
_WHENCE: Final = {0: "SEEK_SET", 1: "SEEK_CUR", 2: "SEEK_END", 3: "SEEK_DATA", 4: "SEEK_HOLE"}
_EVENTS: Final = {
    getattr(select, name): name
    for name in ("POLLIN", "POLLPRI", "POLLOUT", "POLLERR", "POLLHUP", "POLLNVAL", "POLLRDNORM", "POLLWRNORM")
}
_MEMFD: Final = {
    getattr(uapi, name): name
    for name in ("MFD_CLOEXEC", "MFD_ALLOW_SEALING", "MFD_HUGETLB", "MFD_NOEXEC_SEAL", "MFD_EXEC")
}
_SEALS: Final = {
    getattr(uapi, name): name
    for name in ("F_SEAL_SEAL", "F_SEAL_SHRINK", "F_SEAL_GROW", "F_SEAL_WRITE", "F_SEAL_FUTURE_WRITE", "F_SEAL_EXEC")
}


def named(value: Any, names: Mapping[int, str], first: Sequence[str] = ()) -> str:
    """The names of the bits in *value*, behind *first*; what has none as a number."""
    if not isinstance(value, int):
        return str(value)
    parts = list(first)
    for bit, name in names.items():
        if bit and value & bit == bit:
            parts.append(name)
            value &= ~bit
    if value or not parts:
        parts.append(f"{value:#x}" if value else "0")
    return "|".join(parts)


def _open_flags(value: Any) -> str:
    if not isinstance(value, int):
        return str(value)
    mode, rest = value & os.O_ACCMODE, value & ~os.O_ACCMODE
    access = _ACCESS_MODES.get(mode, f"{mode:#x}")
    return named(rest, _OPEN, [access])


def _map_flags(value: Any) -> str:
    if not isinstance(value, int):
        return str(value)
    kind = value & 0x0F
    return named(value & ~0x0F, _MAP, [_SHARING[kind]] if kind in _SHARING else [])


_ARGUMENTS: Final[dict[tuple[str, int], Callable[[Any], str]]] = {
    ("open", 1): _open_flags,
    ("memfd_create", 1): lambda value: named(value, _MEMFD),
    ("add_seals", 1): lambda value: named(value, _SEALS),
    ("mmap", 2): lambda value: named(value, _PROTECTION) if value else "PROT_NONE",
    ("mmap", 3): _map_flags,
    ("lseek", 2): lambda value: _WHENCE.get(value, str(value)),
    ("poll", 1): lambda value: named(value, _EVENTS),
}
_RESULTS: Final = {"poll": _EVENTS, "get_seals": _SEALS}


def arguments_text(method: str, arguments: Sequence[Any]) -> list[str]:
    """Each of a backend call's arguments as text."""
    return [
        _ARGUMENTS[method, place](value)
        if (method, place) in _ARGUMENTS
        else repr(value)
        if isinstance(value, str)
        else str(value)
        for place, value in enumerate(arguments)
    ]


def result_text(method: str, result: Any) -> str:
    """What the call returned."""
    return named(result, _RESULTS[method]) if method in _RESULTS else str(result)
