"""The conformance suite on the fake with each profile: its cases say themselves since which release they hold."""

from __future__ import annotations

import re

import pytest

from dmasync.fakes.kernel.profile import DEFAULT_PROFILE, PROFILES
from tests.support.nested import pytest_of_its_own

AT_LEAST = 1690
NO_DESCRIPTOR = "a mapping of the real backend holds no descriptor"
"""From Python 3.13 on: two of its methods then ask no kernel."""
SPOILED = "older releases of Linux miscount pages"
"""Neither a kernel nor the fake is asked what would spoil the kernel's memory."""


@pytest.mark.parametrize(
    "profile",
    [
        name if name == "7.3" else pytest.param(name, marks=pytest.mark.nightly)
        for name in (*PROFILES, "6.12.90", "6.17")
        if name != DEFAULT_PROFILE
    ],
)
def test_the_fake_answers_as_the_release_does(profile: str) -> None:
    recorded = "--ignore=tests/conformance/test_recorded.py"
    run = pytest_of_its_own(f"--dmasync-profile={profile}", "-rs", recorded, "tests/conformance")
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    *lines, last = run.stdout.splitlines()
    passed = re.match(r"(\d+) passed(, \d+ skipped)? in ", last)
    assert passed, last
    # Nothing else may be left out.
    assert all(NO_DESCRIPTOR in line or SPOILED in line for line in lines if line.startswith("SKIPPED"))
    assert int(passed[1]) >= AT_LEAST
