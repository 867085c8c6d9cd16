"""The suites on a real kernel, twice: what the exact clock promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmasync.harness.bench.command import run_suite
from dmasync.harness.model.fit import fit
from dmasync.harness.runs.reading import Run, load_run
from dmasync.harness.vm import host_packages

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        bool(host_packages.missing_parts()),
        reason="no virtual machine here: " + ", ".join(part.program for part in host_packages.missing_parts()),
    ),
]
PAIR = "benchmarks/test_sync_pair.py::test_sync_pair[{}]"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two boots of the same kernel."""
    folder = tmp_path_factory.mktemp("boots")
    return [load_run(run_suite(exact=True, quick=True, output=Path(folder / f"{boot}.json"))) for boot in "ab"]


def test_a_row_is_the_same_integer_in_every_boot(runs: list[Run]) -> None:
    first, second = runs
    assert set(first.rows) == set(second.rows)
    differing = {
        name: (row.instructions(row.median), second.rows[name].instructions(second.rows[name].median))
        for name, row in first.rows.items()
        if row.facts.exact
        and second.rows[name].facts.exact
        and row.instructions(row.median) != second.rows[name].instructions(second.rows[name].median)
    }
    assert differing == {}


def test_every_sync_of_a_real_buffer_is_exact(runs: list[Run]) -> None:
    steps = ("pair", "start", "end", "first-start", "null")
    for run in runs:
        asked = [row for row in run.rows.values() if row.facts.step in steps]
        assert {row.facts.api for row in asked} > {"fcntl", "DmaSyncer-fresh", "DmaSyncer-reused", "cpu_access"}
        moving = [row for row in asked if not row.facts.exact]
        # It goes from buffer to buffer, and a udmabuf's allocates: where things lie is in the number.
        assert {row.facts.step for row in moving} <= {"first-start"}


def test_both_providers_are_there_and_say_whose_they_are(runs: list[Run]) -> None:
    for provider in ("udmabuf", "system"):
        row = runs[0].rows[PAIR.format(f"{provider}-1MiB-READ-fcntl")]
        assert (row.facts.target, row.facts.unit, row.facts.provider) == ("vm", "instructions", provider)
        assert row.facts.kernel == runs[0].facts.kernel
    assert runs[0].facts.kernel_config_digest


def test_an_attached_heap_buffer_costs_more_than_an_unattached_one(runs: list[Run]) -> None:
    rows = runs[0].rows
    attached = rows[PAIR.format("system_attached-1MiB-READ-fcntl")]
    assert attached.facts.attached
    assert attached.median > rows[PAIR.format("system-1MiB-READ-fcntl")].median


def test_a_pair_is_its_start_and_its_end(runs: list[Run]) -> None:
    def cost(name: str) -> float:
        return runs[0].rows[f"benchmarks/{name}[udmabuf-1MiB-READ]"].median * 1e9

    pair = runs[0].rows[PAIR.format("udmabuf-1MiB-READ-fcntl")].median * 1e9
    parts = cost("test_sync_steps.py::test_start") + cost("test_sync_steps.py::test_end")
    assert pair == pytest.approx(parts, abs=25)  # two statements in one body, two bodies


def test_the_first_start_grows_with_the_buffer_and_the_later_ones_do_not(runs: list[Run]) -> None:
    lines, _ = fit(runs[0].rows.values())
    by_step = {line.subject.step: line for line in lines if line.subject[:3] == ("udmabuf", False, "READ")}
    assert by_step["first-start"].per_byte * 4096 > 50  # instructions a page
    assert by_step["start"].per_byte * 4096 < 1
