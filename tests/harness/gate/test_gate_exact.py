"""The gate on the exact clock: integers are compared, and what cannot be compared is never a pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dmasync.cli import main
from tests.support.run_files import HEAP, NULL, PAIR, benchmark, document, exact, facts, write


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return exact(tmp_path / "base.json", {PAIR: 5649, HEAP: 3971, NULL: 1800})


def verdicts(tmp_path: Path, base: Path, candidate: Path, *options: str) -> tuple[int, dict[str, str], dict]:
    output = tmp_path / "verdicts.json"
    status = main(["gate", str(base), str(candidate), "--json", str(output), *options])
    document = json.loads(output.read_text())
    return status, {row["fullname"]: row["verdict"] for row in document["rows"]}, document


def test_equal_integers_are_the_same(tmp_path: Path, base: Path) -> None:
    candidate = exact(tmp_path / "c.json", {PAIR: 5649, HEAP: 3971, NULL: 1800})
    status, found, _ = verdicts(tmp_path, base, candidate)
    assert (status, set(found.values())) == (0, {"same"})


@pytest.mark.parametrize(
    ("base_count", "count", "verdict", "expected"),
    [
        (5649, 5654, "same", 0),  # 0.1 % is 5.649 instructions
        (5649, 5655, "regressed", 1),
        (5649, 5644, "same", 0),
        (5649, 5643, "improved", 0),
        (1000, 1002, "same", 0),  # 0.1 % is one instruction, two are always allowed
        (1000, 1003, "regressed", 1),
        (12130, 854747, "regressed", 1),
        (854747, 12130, "improved", 0),
    ],
)
def test_allowance_is_a_tenth_of_a_percent_and_two_instructions(
    tmp_path: Path, base_count: int, count: int, verdict: str, expected: int
) -> None:
    base = exact(tmp_path / "b.json", {PAIR: base_count})
    candidate = exact(tmp_path / "c.json", {PAIR: count})
    status, found, _ = verdicts(tmp_path, base, candidate)
    assert (status, found[PAIR]) == (expected, verdict)


def test_the_number_of_instructions_added_is_told(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    candidate = exact(tmp_path / "c.json", {PAIR: 5687, HEAP: 3971, NULL: 1800})
    status, _, document = verdicts(tmp_path, base, candidate)
    assert status == 1
    assert "+38 instructions" in capsys.readouterr().out
    assert next(row["difference"] for row in document["rows"] if row["fullname"] == PAIR) == 38


def test_kernel_part_is_what_the_null_row_leaves(tmp_path: Path, base: Path) -> None:
    candidate = exact(tmp_path / "c.json", {PAIR: 5687, HEAP: 3971, NULL: 1800})
    _, _, document = verdicts(tmp_path, base, candidate)
    parts = {row["fullname"]: (row["kernel_base"], row["kernel_candidate"]) for row in document["rows"]}
    assert parts == {PAIR: (5649 - 3600, 5687 - 3600), HEAP: (371, 371), NULL: (None, None)}


def test_kernel_part_of_another_interface_is_that_of_the_plain_call(tmp_path: Path) -> None:
    rows = [
        benchmark(PAIR, [5000e-9] * 9, facts()),
        benchmark("syncer", [7000e-9] * 9, facts(api="DmaSyncer")),
        benchmark(NULL, [2000e-9] * 9, facts(step="null", calls=1, size=None, access=None)),
    ]
    base = write(tmp_path / "b.json", document(rows))
    _, _, judged = verdicts(tmp_path, base, write(tmp_path / "c.json", document(rows)))
    parts = {row["fullname"]: row["kernel_base"] for row in judged["rows"]}
    assert parts == {PAIR: 1000, "syncer": 1000, NULL: None}


def test_a_vanished_row_is_never_a_pass_and_its_reason_is_told(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    candidate = exact(tmp_path / "c.json", {PAIR: 5649, NULL: 1800}, not_measured={HEAP: "EIO: bounce slot"})
    status, _, document = verdicts(tmp_path, base, candidate)
    assert status == 3
    assert document["vanished"] == [{"fullname": HEAP, "reason": "EIO: bounce slot"}]
    assert "EIO: bounce slot" in capsys.readouterr().out


def test_a_regression_outweighs_a_vanished_row(tmp_path: Path, base: Path) -> None:
    candidate = exact(tmp_path / "c.json", {PAIR: 9000, NULL: 1800})
    assert verdicts(tmp_path, base, candidate)[0] == 1


def test_a_row_that_appears_is_listed_and_passes(tmp_path: Path, base: Path) -> None:
    candidate = exact(tmp_path / "c.json", {PAIR: 5649, HEAP: 3971, NULL: 1800, "new": 7})
    status, _, document = verdicts(tmp_path, base, candidate)
    assert (status, [row["fullname"] for row in document["appeared"]]) == (0, ["new"])


def test_only_the_rows_that_are_named_are_judged(tmp_path: Path, base: Path) -> None:
    candidate = exact(tmp_path / "c.json", {PAIR: 9000})  # and NULL, HEAP have vanished
    assert verdicts(tmp_path, base, candidate, "--only", "*[udmabuf-READ-*]")[:2] == (1, {PAIR: "regressed"})
    assert verdicts(tmp_path, candidate, candidate, "--only", "*[udmabuf-*", "--only", "*READ*")[0] == 0
    assert verdicts(tmp_path, base, candidate, "--only", "*[udmabuf-*", "--only", "*nothing*")[0] == 2
    assert verdicts(tmp_path, base, candidate, "--only", "*nothing*")[0] == 2


def test_nothing_in_common_cannot_be_judged(tmp_path: Path, base: Path) -> None:
    status, found, _ = verdicts(tmp_path, base, exact(tmp_path / "c.json", {"other": 5649}))
    assert (status, found) == (3, {})


def test_nothing_measured_cannot_be_judged(tmp_path: Path) -> None:
    empty = exact(tmp_path / "b.json", {})
    assert verdicts(tmp_path, empty, exact(tmp_path / "c.json", {}))[0] == 3


@pytest.mark.parametrize(
    "changed",
    [
        {"unit": "ns", "exact": False},
        {"target": "hardware"},
        {"target": "fake"},
        {"arch": "aarch64"},
        {"python": "3.12.1"},
        {"size": 4096},
        {"provider": "system"},
        {"access": "WRITE"},
        {"attached": True},
        {"calls": 1},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_rows_of_different_facts_are_never_compared(tmp_path: Path, changed: dict) -> None:
    base = write(tmp_path / "b.json", document([benchmark(PAIR, [5649e-9] * 9, facts())]))
    candidate = write(tmp_path / "c.json", document([benchmark(PAIR, [9000e-9] * 9, facts(**changed))]))
    status, found, judged = verdicts(tmp_path, base, candidate)
    assert (status, found) == (3, {})
    assert next(iter(changed)) in judged["not_comparable"][0]["reason"]


def test_different_kernels_are_compared(tmp_path: Path) -> None:
    base = write(tmp_path / "b.json", document([benchmark(PAIR, [5649e-9] * 9, facts())]))
    other = facts(kernel="6.12.90")
    candidate = write(tmp_path / "c.json", document([benchmark(PAIR, [5649e-9] * 9, other)]))
    assert verdicts(tmp_path, base, candidate)[0] == 0


def test_differing_machines_and_pythons_are_warned_of(tmp_path: Path, base: Path) -> None:
    machine = {"node": "elsewhere", "python_compiler": "Clang"}
    candidate = exact(tmp_path / "c.json", {PAIR: 5649, HEAP: 3971, NULL: 1800}, machine=machine)
    _, _, judged = verdicts(tmp_path, base, candidate)
    assert [warning.split(":")[0] for warning in judged["warnings"]] == [
        "the machines differ",
        "the Pythons differ",
    ]


def test_suites_of_different_commits_are_warned_of(tmp_path: Path, base: Path) -> None:
    content = json.loads(exact(tmp_path / "c.json", {PAIR: 5649, HEAP: 3971, NULL: 1800}).read_text())
    content["commit_info"]["id"] = "fedcba9876543210"
    _, _, judged = verdicts(tmp_path, base, write(tmp_path / "c.json", content))
    assert "commits 0123456789ab and fedcba987654" in judged["warnings"][0]


def test_rows_that_neither_side_could_measure_are_told_by_reason(tmp_path: Path) -> None:
    lost = {f"cma-{number}": "cma: no node" for number in range(40)} | {HEAP: "EIO"}
    base = exact(tmp_path / "b.json", {PAIR: 5649}, not_measured=lost)
    candidate = exact(tmp_path / "c.json", {PAIR: 5649}, not_measured=lost)
    status, _, judged = verdicts(tmp_path, base, candidate)
    assert status == 0
    assert judged["warnings"] == [
        "not measured on either side: cma: no node: cma-0, cma-1 and 38 more rows",
        f"not measured on either side: EIO: {HEAP}",
    ]


def test_counts_of_several_iterations_are_compared_an_operation(tmp_path: Path) -> None:
    base = write(tmp_path / "b.json", document([benchmark(PAIR, [5649.5e-9] * 9, facts(), iterations=2)]))
    same = write(tmp_path / "s.json", document([benchmark(PAIR, [5649.5e-9] * 9, facts(), iterations=4)]))
    more = write(tmp_path / "m.json", document([benchmark(PAIR, [5656e-9] * 9, facts())]))
    assert verdicts(tmp_path, base, same)[0] == 0
    assert verdicts(tmp_path, base, more)[2]["rows"][0]["difference"] == 6.5


def spreading(path: Path, *counts: int) -> Path:
    row = benchmark(PAIR, [count * 1e-9 for count in counts], facts(exact=False))
    return write(path, document([row]))


def test_a_row_that_is_not_exact_is_judged_within_its_own_spread(tmp_path: Path) -> None:
    base = spreading(tmp_path / "b.json", 5600, 5620, 5649, 5680, 5700)
    near, far = exact(tmp_path / "n.json", {PAIR: 5660}), exact(tmp_path / "f.json", {PAIR: 5900})
    status, found, judged = verdicts(tmp_path, base, near)
    assert (status, found) == (0, {PAIR: "same"})
    assert "not exact, spread 60 and 0 instructions: less than that stays unseen" in judged["rows"][0]["reason"]
    assert verdicts(tmp_path, base, far)[:2] == (1, {PAIR: "regressed"})
    assert verdicts(tmp_path, far, base)[:2] == (0, {PAIR: "improved"})


def test_a_candidate_that_spreads_where_the_base_did_not_is_no_pass(tmp_path: Path) -> None:
    base = exact(tmp_path / "b.json", {PAIR: 5649})
    candidate = spreading(tmp_path / "c.json", 5600, 5620, 5649, 7000, 9000)
    assert verdicts(tmp_path, base, candidate)[:2] == (3, {PAIR: "cannot tell"})


def test_a_base_that_spreads_widely_cannot_tell(tmp_path: Path) -> None:
    base = spreading(tmp_path / "b.json", 4000, 5000, 5649, 6000, 7000)
    assert verdicts(tmp_path, base, base)[:2] == (3, {PAIR: "cannot tell"})


def test_a_row_may_grow_by_what_the_suite_knows_it_to_move(tmp_path: Path) -> None:
    def run(name: str, count: int, resolution: float) -> Path:
        row = benchmark(PAIR, [count * 1e-9] * 9, facts(resolution=resolution))
        return write(tmp_path / name, document([row]))

    base = run("b.json", 10_000, 3)
    assert verdicts(tmp_path, base, run("c.json", 10_299, 3))[0] == 0
    assert verdicts(tmp_path, base, run("c.json", 10_301, 3))[0] == 1
    # The candidate's word does not count: it would excuse itself.
    assert verdicts(tmp_path, run("strict.json", 10_000, 0), run("c.json", 10_299, 30))[0] == 1


def test_one_instruction_more_or_less_in_some_rounds_is_the_same(tmp_path: Path) -> None:
    base = spreading(tmp_path / "b.json", 106, 106, 107, 107, 107)
    candidate = spreading(tmp_path / "c.json", 106, 106, 106, 107, 107)
    status, _, judged = verdicts(tmp_path, base, candidate)
    assert (status, judged["rows"][0]["reason"]) == (0, "")


def test_self_check_lets_an_exact_base_pass(tmp_path: Path, base: Path) -> None:
    candidate = exact(tmp_path / "c.json", {PAIR: 9000, HEAP: 3971, NULL: 1800})
    status, _, judged = verdicts(tmp_path, base, candidate, "--self-check")
    assert (status, judged["self_check"]) == (1, "same")


def test_self_check_judges_nothing_when_the_base_does_not_equal_itself(tmp_path: Path) -> None:
    wandering = [5649e-9] * 10 + [5900e-9] * 10
    base = write(tmp_path / "b.json", document([benchmark(PAIR, wandering, facts(exact=False))]))
    candidate = exact(tmp_path / "c.json", {PAIR: 99999})
    status, found, judged = verdicts(tmp_path, base, candidate, "--self-check")
    assert (status, found) == (3, {})
    assert PAIR in judged["self_check"]


def test_self_check_lets_a_row_pass_that_spreads_evenly(tmp_path: Path) -> None:
    base = spreading(tmp_path / "b.json", 5649, 5649, 5649, 5649, 5649, 5649, 5700, 5649, 5700)
    candidate = exact(tmp_path / "c.json", {PAIR: 5649})
    assert verdicts(tmp_path, base, candidate, "--self-check")[0] == 0


def test_several_runs_of_a_side_must_agree_to_be_exact(tmp_path: Path, base: Path) -> None:
    for folder, counts in (("base", (5649, 5649)), ("drifting", (5000, 6000))):
        (tmp_path / folder).mkdir()
        for index, count in enumerate(counts):
            exact(tmp_path / folder / f"{index}.json", {PAIR: count}, minutes=index)
    candidate = exact(tmp_path / "c.json", {PAIR: 5660})
    assert verdicts(tmp_path, tmp_path / "base", candidate)[0] == 1
    assert verdicts(tmp_path, tmp_path / "drifting", candidate)[0] == 3


def test_a_row_that_only_some_of_the_candidate_s_runs_have_has_vanished(tmp_path: Path, base: Path) -> None:
    (tmp_path / "candidate").mkdir()
    exact(tmp_path / "candidate" / "1.json", {PAIR: 5649, HEAP: 3971, NULL: 1800})
    exact(tmp_path / "candidate" / "2.json", {PAIR: 5649, NULL: 1800})
    status, _, judged = verdicts(tmp_path, base, tmp_path / "candidate")
    assert (status, judged["vanished"][0]["fullname"]) == (3, HEAP)
