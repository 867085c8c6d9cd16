"""Every bug of the gallery is found, its mended form is clean, and a coherent machine hides what only a cache shows."""

from __future__ import annotations

import os

import pytest

from tests.gallery.bugs import BUGS, Bug
from tests.gallery.lab import run
from tests.gallery.page import PAGE, page

SEEDS = range(8)
"""The default seed, whose adversary hides the least, and some more."""
CLEAN_SEEDS = int(os.environ.get("DMASYNC_GALLERY_SEEDS", "25"))
"""How many adversary seeds a mended program must survive; the full number is 10000."""

every_bug = pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.buggy.__name__)


@every_bug
def test_the_bug_is_found_under_the_default_seed_and_most_others(bug: Bug) -> None:
    found = [bug.finding in {finding.kind for finding in run(bug.buggy, seed=seed)[1]} for seed in SEEDS]
    assert found[0]
    assert sum(found) > len(found) / 2


@every_bug
def test_the_finding_names_buffer_traces_consequence_and_fix(bug: Bug) -> None:
    _, findings = run(bug.buggy)
    finding = next(finding for finding in findings if finding.kind == bug.finding)
    text = str(finding)
    assert any("bugs.py" in frame[0] for trace in finding.traces for frame in trace.stack)
    assert finding.consequence in text
    assert finding.fix in text
    if bug.finding not in ("double-close", "leaked-fd"):
        assert finding.buffer is not None


@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug.cache_only], ids=lambda bug: bug.buggy.__name__)
def test_the_bytes_are_wrong_without_coherence_and_right_with_it(bug: Bug) -> None:
    outcomes = [run(bug.buggy, seed=seed)[0] for seed in SEEDS]
    assert any(seen != wanted for seen, wanted in outcomes)
    seen, wanted = run(bug.buggy, coherent=True)[0]
    assert seen == wanted


@every_bug
def test_the_mended_program_is_clean_under_many_seeds(bug: Bug) -> None:
    for seed in range(CLEAN_SEEDS):
        (seen, wanted), findings = run(bug.mended, seed=seed)
        assert seen == wanted, f"seed {seed}"
        assert not findings, f"seed {seed}: {findings[0]}"


def test_at_least_fifteen_bugs_hang_in_the_gallery() -> None:
    assert len(BUGS) >= 15
    assert len({bug.buggy.__name__ for bug in BUGS}) == len(BUGS)


def test_the_page_shows_the_gallery_as_it_is() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python -m tests.gallery.page"
