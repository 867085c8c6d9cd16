"""A program's memfd of huge pages, which is the host's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

RESERVED = int(Path("/proc/sys/vm/nr_hugepages").read_text())
HUGE = """
import errno, fcntl, os, struct
memfd = os.memfd_create("huge", os.MFD_HUGETLB | os.MFD_ALLOW_SEALING)
huge = os.fstat(memfd).st_blksize
os.ftruncate(memfd, huge << 20)  # more than any machine has
device = os.open("/dev/udmabuf", os.O_RDWR)
def create(offset, size):
    try:
        fcntl.ioctl(device, 0x40187542, bytearray(struct.pack("IIQQ", memfd, 1, offset, size)))
    except OSError as failure:
        return errno.errorcode[failure.errno]
print(create(0, huge), end=" ")
fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
print(create(4096, 64 << 20), create((huge << 20) - 4096, 8192))
"""


@pytest.mark.skipif(bool(RESERVED), reason="this machine has reserved huge pages, which are the program's to use")
@pytest.mark.parametrize(
    ("profile", "answers"),
    [
        ("6.1", "EINVAL EINVAL EINVAL"),
        ("6.6", "EBADFD EBADFD EBADFD"),
        ("6.12", "EINVAL ENOMEM EINVAL"),
        ("6.18", "EINVAL EPERM EINVAL"),
        ("7.3", "EINVAL ENOMEM EINVAL"),
    ],
)
def test_a_udmabuf_of_huge_pages_that_the_host_has_not_is_refused_as_by_the_release(dmasync_run, profile, answers):
    assert dmasync_run(sys.executable, "-c", HUGE, options=[f"--profile={profile}"]).output.strip() == answers
