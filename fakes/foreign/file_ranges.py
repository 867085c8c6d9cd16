"""What ``fallocate`` and ``posix_fadvise`` ask of a range before they ask whose it is, by release."""

from __future__ import annotations

import errno
from typing import Final

from dmasync.fakes.kernel.releases import Release, Since

_KEEP_SIZE, _PUNCH, _COLLAPSE, _ZERO, _INSERT, _UNSHARE, _WRITE_ZEROES = 1, 2, 8, 0x10, 0x20, 0x40, 0x80
"""FALLOC_FL_… of linux/falloc.h."""
_MODES: Final = frozenset(
    {0, _COLLAPSE, _INSERT, _ZERO, _UNSHARE} | {_KEEP_SIZE | mode for mode in (0, _PUNCH, _ZERO, _UNSHARE)}
)
"""A hole keeps the size, what collapses or inserts does not."""
_MODES_ARE_EXCLUSIVE: Final = Since.of("6.12")  # 6.1.192 and 6.6.87: EINVAL to what collapses, inserts, unshares too
_HAS_WRITE_ZEROES: Final = Since.of("6.17")  # 6.18.15 has it, 6.12.117 has it not
_ADVICE_HAS_OFFSETS: Final = Since.of("7.3")  # 6.18.15 looks at the length alone
_LAST_ADVICE: Final = 5  # POSIX_FADV_NOREUSE


def mode_error(mode: int, release: Release) -> int:
    """The errno of an ``fallocate`` *mode* that there is not, 0 for one that there is."""
    if release in _MODES_ARE_EXCLUSIVE:
        known = _MODES | {_WRITE_ZEROES} if release in _HAS_WRITE_ZEROES else _MODES
        return 0 if mode in known else errno.EOPNOTSUPP
    if mode & ~(_KEEP_SIZE | _PUNCH | _COLLAPSE | _ZERO | _INSERT | _UNSHARE):
        return errno.EOPNOTSUPP
    if mode & _PUNCH and (mode & _ZERO or not mode & _KEEP_SIZE):
        return errno.EOPNOTSUPP
    alone = ((_COLLAPSE, _COLLAPSE), (_INSERT, _INSERT), (_UNSHARE, _UNSHARE | _KEEP_SIZE))
    return errno.EINVAL if any(mode & what and mode & ~with_it for what, with_it in alone) else 0


def advice_error(offset: int, length: int, advice: int, release: Release) -> int:
    """The errno of such a ``posix_fadvise``, 0 for one that is taken."""
    if length < 0 or advice > _LAST_ADVICE or (offset < 0 and release in _ADVICE_HAS_OFFSETS):
        return errno.EINVAL
    return 0
