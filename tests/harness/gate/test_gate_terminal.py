"""What a person sees of a judgement on a terminal: what changed, in a few lines, with no digit cut off."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import termios
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dmasync.harness.judge.compare import judge
from dmasync.harness.judge.moved_together import causes, headline
from dmasync.harness.judge.settings import GateSettings
from dmasync.harness.runs.facts import NotMeasured, RunFacts
from dmasync.harness.runs.reading import load_run
from tests.support import warm
from tests.support.run_files import benchmark, document, facts, write

STEPS = {"start": 1941, "end": 1850, "first-start": 136_816_123}
ADDED = {"start": 120, "end": -15, "first-start": 13_681_612}


def row(step: str, access: str, size: int, count: int, provider: str = "udmabuf") -> dict:
    told = facts(step=step, access=access, size=size, provider=provider, attached=False, calls=1)
    return benchmark(f"t.py::test_{step}[{provider}-{size}-{access}]", [count * 1e-9] * 9, told)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """START +120, END -15, first START +10 % on each of six udmabuf rows; the system heap as it was; one row gone."""
    files = []
    for name, changed in (("base", False), ("candidate", True)):
        rows = [
            row(step, access, size, count + ADDED[step] * changed)
            for step, count in STEPS.items()
            for access in ("READ", "WRITE", "READ_WRITE")
            for size in (65536, 1 << 20)
        ]
        rows += [row("start", "READ", 1 << 20, 2001, "system")]
        lost = () if not changed else (NotMeasured("gone", "OSError: [Errno 5] Input/output error"),)
        rows += [] if changed else [benchmark("gone", [5e-9] * 9, facts(provider="system", attached=True))]
        line = f"quiet init=/{name}/virtme/guest/bin/virtme-ng-init virtme.exec=x{' swiotlb=force' * changed}"
        told = RunFacts(kernel="6.12", target="vm", kernel_command_line=line, not_measured=lost)
        files.append(write(tmp_path / f"{name}.json", document(rows, run=told)))
    return files[0], files[1]


def on_terminal(columns: int, *arguments: str, **variables: str) -> tuple[int, list[str]]:
    """The lines that ``dmasync`` puts on a terminal so wide, without escape sequences unless they are asked for."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    environment = {**environment, "TERM": "xterm-256color", "LANG": "C.UTF-8", **variables}
    with ThreadPoolExecutor(1) as pool:
        shown = pool.submit(_read, reader)
        with open(writer, "w") as terminal:
            done = warm.python("-m", "dmasync", *arguments, input="", stdout=terminal, env=environment)
    os.close(reader)
    return done.returncode, shown.result().decode().replace("\r", "").splitlines()


def _read(terminal: int) -> bytes:
    shown = b""
    with contextlib.suppress(OSError):  # EIO: nobody writes any more
        while block := os.read(terminal, 1 << 16):
            shown += block
    return shown


def plain(lines: list[str]) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]


@pytest.mark.parametrize("columns", [40, 80, 100, 200])
def test_what_changed_stands_in_three_lines_with_all_its_digits(runs: tuple[Path, Path], columns: int) -> None:
    status, lines = on_terminal(columns, "gate", *map(str, runs))
    shown = "\n".join(plain(lines))
    assert status == 1
    at = [shown.index(f"{name} of udmabuf (all 6 rows)") for name in ("  first START", "  START", "  END")]
    assert at == sorted(at)  # what moved most comes first
    for number in ("136,816,123", "150,497,735", "+13,681,612", "1,941", "2,061", "+120", "1,850", "1,835", "-15"):
        assert number in shown
    assert shown.index("regressed: 12 of 19 rows") < shown.index("improved: 6 of 19 rows")
    assert "same: 1 of 19 rows (--all lists them)" in shown
    assert "system" not in shown.partition("vanished")[0]


@pytest.mark.parametrize("columns", [80, 100])
def test_rows_and_numbers_stay_within_the_terminal(runs: tuple[Path, Path], columns: int) -> None:
    _, lines = on_terminal(columns, "gate", *map(str, runs))
    table = [line for line in plain(lines) if line.startswith("  ") and "START" in line]
    assert table
    assert max(map(len, table)) <= columns


def test_all_lists_each_row_by_itself(runs: tuple[Path, Path]) -> None:
    _, lines = on_terminal(100, "gate", *map(str, runs), "--all")
    shown = "\n".join(plain(lines))
    assert "START READ of 64 KiB udmabuf" in shown
    assert "START READ of 1 MiB system, not attached" in shown
    assert "rows)" not in shown


def test_the_last_line_says_the_causes_with_a_mark(runs: tuple[Path, Path]) -> None:
    _, lines = on_terminal(80, "gate", *map(str, runs))
    assert plain(lines)[-1] == (
        "\N{HEAVY BALLOT X} regressed: first START of udmabuf +13,681,612 (+10.0 %), START +120 (+6.2 %), "
        "END -15 (-0.81 %); 12 regressed, 6 improved, 1 same, 1 more vanished"
    )
    good = on_terminal(80, "gate", str(runs[0]), str(runs[0]))
    assert (good[0], plain(good[1])[-1]) == (0, "\N{HEAVY CHECK MARK} good: 20 same")


def test_no_color_leaves_no_escape_sequence(runs: tuple[Path, Path]) -> None:
    assert any("\x1b[" in line for line in on_terminal(80, "gate", *map(str, runs))[1])
    assert not any("\x1b" in line for line in on_terminal(80, "gate", *map(str, runs), NO_COLOR="1")[1])


def test_a_pipe_gets_every_row_on_a_line_of_its_own(runs: tuple[Path, Path]) -> None:
    done = warm.python("-m", "dmasync", "gate", *runs)
    lines = [line for line in done.stdout.splitlines() if line.startswith("t.py::test_")]
    assert len(lines) == 19
    assert [line.split()[-1] for line in lines] == ["regressed"] * 12 + ["improved"] * 6 + ["same"]
    assert "first-start" in lines[0]
    assert all("\N{BOX DRAWINGS LIGHT VERTICAL}" not in line for line in lines)


def test_only_what_the_user_asked_for_differs_on_the_command_line(runs: tuple[Path, Path]) -> None:
    shown = plain(on_terminal(100, "gate", *map(str, runs))[1])
    assert "candidate's command line: with swiotlb=force" in shown


def test_what_was_asked_for_is_taken_at_its_word(tmp_path: Path) -> None:
    def run(name: str, line: str, append: tuple[str, ...]) -> Path:
        told = RunFacts(kernel="6.12", target="vm", kernel_command_line=line, kernel_append=append)
        return write(tmp_path / name, document([row("start", "READ", 4096, 5)], run=told))

    base, other = run("b.json", "panic=-1 x=1", ()), run("c.json", "panic=-1 x=2 iommu=pt", ("iommu=pt",))
    shown = plain(on_terminal(100, "gate", str(base), str(other))[1])
    assert "candidate's command line: with iommu=pt" in shown


def test_a_row_that_bounce_buffers_took_away_is_explained(runs: tuple[Path, Path]) -> None:
    shown = "\n".join(plain(on_terminal(100, "gate", *map(str, runs))[1]))
    assert "[Errno 5] Input/output error (swiotlb=force: a bounce buffer holds 256 KiB at most" in shown


def test_causes_of_pairs_are_their_steps(tmp_path: Path) -> None:
    def judged(*steps: str) -> list[str]:
        sides = []
        for added in (0, 50):
            rows = [row(step, "READ", 4096, 1000 + added) for step in steps]
            sides.append(load_run(write(tmp_path / f"{added}.json", document(rows))))
        return causes(judge(sides[:1], sides[1:], GateSettings()))

    assert judged("start", "pair") == ["START of udmabuf +50 (+5.0 %)"]
    assert judged("pair") == ["pair of udmabuf +50 (+5.0 %)"]


def test_files_of_other_projects_have_their_names(tmp_path: Path) -> None:
    sides = [
        load_run(write(tmp_path / f"{t}.json", document([benchmark("other.py::t", [t] * 40)]))) for t in (1.0, 9.0)
    ]
    assert headline(judge(sides[:1], sides[1:], GateSettings())) == "regressed: other.py::t x9; 1 regressed"
