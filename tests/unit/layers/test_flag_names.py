"""The timeline names flags, as strace does."""

from __future__ import annotations

import mmap
import os
import select

import pytest

from dmasync import uapi
from dmasync.fakes.journal.entries import Call
from dmasync.fakes.journal.log import Numbers
from dmasync.fakes.journal.words import call_text


def written(method, *arguments, result=None):
    return call_text(Call(method, arguments, 0, 0, 0, result=result, errno=0), Numbers())


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("open('/dev/udmabuf', O_RDWR|O_CLOEXEC) = 5", ("open", "/dev/udmabuf", os.O_RDWR | os.O_CLOEXEC, 5)),
        ("open('x', O_RDONLY) = 5", ("open", "x", 0, 5)),
        ("open('x', O_WRONLY|O_CREAT|O_EXCL) = 5", ("open", "x", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 5)),
        ("open('x', 0x3|0x8000000) = 5", ("open", "x", 0o3 | 1 << 27, 5)),
        ("memfd_create('m', MFD_CLOEXEC|MFD_ALLOW_SEALING) = 5", ("memfd_create", "m", 3, 5)),
        ("memfd_create('m', 0) = 5", ("memfd_create", "m", 0, 5)),
        ("memfd_create('m', MFD_HUGETLB|0x54000000) = 5", ("memfd_create", "m", uapi.MFD_HUGETLB | 21 << 26, 5)),
        ("add_seals(5, F_SEAL_SHRINK|F_SEAL_GROW)", ("add_seals", 5, uapi.F_SEAL_SHRINK | uapi.F_SEAL_GROW, None)),
        ("get_seals(5) = F_SEAL_SEAL", ("get_seals", 5, uapi.F_SEAL_SEAL)),
        ("get_seals(5) = 0", ("get_seals", 5, 0)),
        (
            "mmap(5, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 0)",
            ("mmap", 5, 4096, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, 0, None),
        ),
        ("mmap(5, 1, PROT_NONE, MAP_PRIVATE|MAP_POPULATE, 0)", ("mmap", 5, 1, 0, mmap.MAP_PRIVATE | 0x8000, 0, None)),
        ("lseek(5, 0, SEEK_END) = 4096", ("lseek", 5, 0, os.SEEK_END, 4096)),
        ("lseek(5, 0, 77) = 0", ("lseek", 5, 0, 77, 0)),
        (
            "poll(5, POLLIN|POLLOUT, None) = POLLIN",
            ("poll", 5, select.POLLIN | select.POLLOUT, None, select.POLLIN),
        ),
        ("open('x', None) = 5", ("open", "x", None, 5)),
        ("ftruncate(5, 8192)", ("ftruncate", 5, 8192, None)),
        ("ioctl(5, DMA_BUF_SET_NAME) = 0", ("ioctl", 5, uapi.DMA_BUF_SET_NAME, 0, 0)),
        ("ioctl(5, 0x1234) = 0", ("ioctl", 5, 0x1234, 0, 0)),
        ("mmap(5, 'no number', x, y, 0)", ("mmap", 5, "no number", "x", "y", 0, None)),
    ],
)
def test_flags_are_written_by_their_names(text, call):
    method, *arguments, result = call
    assert written(method, *arguments, result=result) == text
