"""mmap of what the backend has."""

from __future__ import annotations

from typing import Final

from dmasync.harness.run.answers import Answer, Said
from dmasync.harness.run.program import processes
from dmasync.harness.run.program.inside import TracedError
from dmasync.harness.run.seccomp.listener import Notification
from dmasync.harness.run.supervisor import Supervisor

_WHERE: Final = 0x10 | 0x100000  # MAP_FIXED, MAP_FIXED_NOREPLACE
_MAP_LOCKED: Final = 0x2000
_LONGEST: Final = 1 << 47
"""No program has room for more."""


def _mmap(run: Supervisor, call: Notification) -> Answer:
    _, length, prot, flags, fd, offset = call.arguments
    if length > _LONGEST or offset > _LONGEST:
        return Said.CARRY_ON  # ENOMEM or EOVERFLOW, whatever the file is
    known = run.find(call, fd)
    if known is None:
        return Said.CARRY_ON
    # The backend says whether it may be: where it is mapped in the program is the kernel's own business.
    asked = flags & 0xFFFF_FFFF & ~_WHERE & ~_MAP_LOCKED
    run.system.backend.mmap(known.fd, length, prot & 0xFFFF_FFFF, asked, offset).close()
    if known.file.is_plain:
        return Said.CARRY_ON
    from dmasync.harness.run.calls.piecewise_mmap import map_pieces

    try:
        if processes.is_traced(call.thread):
            raise TracedError
        return map_pieces(run, call, known)
    except TracedError:
        from dmasync.fakes.kernel import UnmodelledCallError

        raise UnmodelledCallError(
            "a buffer out of several ranges, while a debugger or strace has the program"
        ) from None


HANDLERS: Final = {"mmap": _mmap}
