"""The conformance suite as a client: a Python process that makes real system calls, on the fake kernel.

What it answers otherwise than a kernel is named here, with the reason.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
DEVICE = Path(__file__).with_name("programs") / "busy_device.py"
LIMITS = {
    r"test_a_node_opens_with_the_flags_asked_for\[20971\d\d-": "the kernel hands no O_PATH descriptor to a program",
    r"test_a_path_descriptor_can_only_be_duplicated_and_closed": "the same",
    r"test_import_of_what_is_not_a_sync_file_is_einval\[\w+-path only\]": "the same",
    r"test_what_is_not_a_memfd_is_ebadfd\[path only-": "the same",
    r"test_a_private_mapping_copies_a_page_when_it_is_written": "a private mapping is one of the host's memfd",
    r"test_a_udmabuf_does_not_hinder_other_seals\[16\]": "what maps a udmabuf maps the memfd, and minds its seals",
    r"test_what_needs_a_huge_page_is_enomem": "the memfd is the host's, which may have huge pages",
    r"test_a_signalled_file_can_be_read_never_written\[\d-64-0\]": "a sync file is a pipe, which knows more events",
}
MOST_LIMITS = 40
OF_THE_HOST = {
    "test_parts": "a program's mappings are the host's, which splits and joins them as those of a memfd",
    "test_holes": "a program's memfd and the udmabuf that is made of it have their pages in common",
}
"""Files of cases that may be answered otherwise, and why."""
NO_VGEM = ("no vgem card", "modprobe")


@pytest.mark.nightly
def test_the_conformance_suite_is_answered_as_by_a_kernel(tmp_path):
    report = tmp_path / "report.xml"
    subprocess.run(
        [sys.executable, "-m", "dmasync", "run", "--timeout=500", "--node=/dev/udmabuf",
         "--node=/dev/dma_heap/system", f"--device={DEVICE}", "--",
         sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/conformance",
         "--dmasync-backend=real", f"--junit-xml={report}"],
        cwd=ROOT, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    passed, wanting, named, others = 0, 0, [], []
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - our own file
        problems = [*case.iter("failure"), *case.iter("error")]
        if not problems:
            passed += 1
        elif any(word in (problem.text or "") for problem in problems for word in NO_VGEM):
            wanting += 1  # another driver than those that the fake has
        elif case.get("classname", "").rpartition(".")[2] not in OF_THE_HOST:
            name = case.get("name", "")
            (named if any(re.match(limit, name) for limit in LIMITS) else others).append(name)
    assert others == []
    assert len(named) <= MOST_LIMITS
    assert passed > 1_200
    assert wanting < 130
