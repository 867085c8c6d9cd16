"""The conformance suite as a client: a Python process that makes real system calls, on the fake kernel.

What it answers otherwise than a kernel is named here, with the reason.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
DEVICE = Path(__file__).with_name("programs") / "busy_device.py"
_HOLES = "a program's memfd and the udmabuf that is made of it have their pages in common"
LIMITS = {
    r"test_a_private_mapping_copies_a_page_when_it_is_written": "a private mapping is one of the host's memfd",
    r"test_a_udmabuf_does_not_hinder_other_seals\[16\]": "what maps a udmabuf maps the memfd, and minds its seals",
    r"test_a_signalled_file_can_be_read_never_written\[\d-64-0\]": "a sync file is a pipe, which knows more events",
    r"test_a_buffer_keeps_its_pages": _HOLES,
    r"test_a_buffer_keeps_them_longer_than_the_file_lives": _HOLES,
    r"test_the_file_gets_a_hole": _HOLES,
    r"test_a_hole_in_what_nobody_had_written_leaves_the_buffer_zeros": _HOLES,
    r"test_a_later_buffer_has_the_pages_that_the_file_has_then": _HOLES,
    r"test_a_list_may_name_a_page_twice": _HOLES,
    r"test_a_private_mapping_sees_the_hole_where_it_has_no_copy": _HOLES,
    r"test_only_pages_that_the_file_still_has_are_held_against_a_seal": _HOLES,
    r"test_pages_that_are_held_anew_count_against_a_seal": _HOLES,
}
MOST_LIMITS = 40
NO_VGEM = ("no vgem card", "modprobe")


@pytest.mark.nightly
def test_the_conformance_suite_is_answered_as_by_a_kernel(tmp_path):
    """As by this machine's: the suite asks for the release, and expects what that release answers."""
    report = tmp_path / "report.xml"
    subprocess.run(
        [sys.executable, "-m", "dmasync", "run", "--timeout=500", "--profile=host", "--node=/dev/udmabuf",
         "--node=/dev/dma_heap/system", f"--device={DEVICE}", "--",
         # Which huge pages there are, this host says: the cases about them would reserve some of it.
         sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/conformance",
         "--ignore=tests/conformance/test_huge_pages.py",
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
        else:
            name = case.get("name", "")
            (named if _is_any_of(name, LIMITS) else others).append(name)
    print(f"{passed} passed, {wanting} want vgem, {len(named)} are limits, {len(others)} are others")  # noqa: T201
    assert others == []
    assert len(named) <= MOST_LIMITS
    assert passed > 1_700
    assert wanting < 130


def _is_any_of(name: str, limits: Iterable[str]) -> bool:
    return any(re.match(limit, name) for limit in limits)
