"""A program that uses the public API, to be run under strace: ``python -m tests.vm.traced_windows``.

Prints one JSON object: the windows whose body ran, the errors of START or END, the descriptors that were left open.
"""

# ruff: noqa: T201 - a command: its results go to standard output
from __future__ import annotations

import json
import os

from dmasync import DmaBufAllocator, DmaBufAllocatorFlag, DmaSyncer, DmaSyncerGroup, DmaSyncError, SyncType

WINDOWS = 20


def main() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    bodies, errors = 0, []
    flags = DmaBufAllocatorFlag.UDMABUF
    try:
        with (
            DmaBufAllocator(flags) as allocator,
            allocator.alloc("one", 65536) as one,
            allocator.alloc("two", 4096) as two,
        ):
            print("allocated", flush=True)
            for _ in range(WINDOWS):
                with DmaSyncer(one, SyncType.WRITE):
                    bodies += 1
                with two.cpu_access(SyncType.READ_WRITE) as view:
                    view[0] = 1
                    bodies += 1
                with DmaSyncerGroup([(one, SyncType.READ), (two, SyncType.READ)]):
                    bodies += 1
    except DmaSyncError as error:
        errors.append([error.errno, error.step.name, error.attempts])
    left = sorted(set(os.listdir("/proc/self/fd")) - set(before))
    print(json.dumps({"bodies": bodies, "errors": errors, "left_open": left}))


if __name__ == "__main__":
    main()
