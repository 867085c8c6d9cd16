"""The report: one page that needs nothing else, says what got slower in words, and draws every picture."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dmasync.cli import main
from dmasync.harness.judge.settings import GateSettings
from dmasync.harness.report import drawing, history_figure
from dmasync.harness.report.changes import change_points
from dmasync.harness.runs.facts import NotMeasured, RunFacts
from dmasync.harness.runs.reading import Row, load_run
from tests.support.run_files import HEAP, NULL, PAIR, benchmark, document, exact, facts, wall, write

PICTURES = (
    "Verdicts",
    "Cost against buffer size",
    "Python&#39;s part and the kernel&#39;s part",
    "Distribution per row",
    "Timeline of the rounds",
    "History",
)


def suite(path: Path, *, copying: bool = False, added: int = 0, minutes: float = 0, seed: int = 1) -> Path:
    """A run as the suites write it; *copying* is what ``swiotlb=force`` does to udmabuf."""
    nothing = {"step": "null", "calls": 1, "size": None, "access": None, "provider": "none"}
    rows = [benchmark("benchmarks/test_sync.py::test_null", [1730e-9] * 20, facts(**nothing))]
    for provider in ("udmabuf", "system"):
        for access in ("READ", "WRITE"):
            for size in (4096, 65536, 1 << 20, 4 << 20):
                count = 3946 + added + (size if copying and provider == "udmabuf" else 0)
                name = f"benchmarks/test_sync.py::test_pair[{provider}-{access}-{size}]"
                row = facts(provider=provider, access=access, size=size)
                rows.append(benchmark(name, [count * 1e-9] * 20, row))
    lost = (NotMeasured("benchmarks/test_sync.py::test_attached", "EIO: a bounce slot ends at 256 KiB"),)
    run = RunFacts(
        kernel="6.12.117+deb12-amd64",
        kernel_config_digest="c0ffee" * 8,
        kernel_command_line="nokaslr swiotlb=force" if copying else "nokaslr",
        target="vm",
        not_measured=lost if copying else (),
    )
    content = document(rows, minutes=minutes, run=run)
    other = wall(path, {"t.py::wall": 1e-3}, seed=seed, noise=0.02)
    content["benchmarks"].append(json.loads(other.read_text())["benchmarks"][0])
    return write(path, content)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    tmp_path = tmp_path_factory.mktemp("history")
    return [
        suite(tmp_path / "1.json"),
        suite(tmp_path / "2.json", minutes=60, seed=2),
        suite(tmp_path / "3.json", minutes=120, added=38, seed=3),
        suite(tmp_path / "4.json", minutes=180, copying=True, added=38, seed=4),
    ]


def report(runs: list[Path], output: Path) -> str:
    assert main(["report", *map(str, runs), "-o", str(output)]) == 0
    return output.read_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, history: list[Path]) -> str:
    """The page of :func:`history`: seconds of drawing, so once for all that only read it."""
    return report(history, tmp_path_factory.mktemp("report") / "r.html")


def text_of(page: str) -> str:
    """What a reader sees of *page*, pictures' text included, on one line."""
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_data(self, data: str) -> None:
            found.append(data)

    Reader().feed(page)
    return " ".join(" ".join(found).split())


def test_the_page_says_what_got_slower_and_by_how_much(page: str) -> None:
    text = text_of(page)
    assert "16 of 18 rows got slower" in text
    assert "pair of 4 MiB udmabuf (2 rows), the most from 3,946 to 4,198,288 instructions (x1,064)" in text
    assert "with swiotlb=force" in text


def test_the_page_says_what_was_compared_and_tells_rows_that_moved_alike_once(page: str) -> None:
    text = text_of(page)
    kernel = "6.12.117+deb12-amd64"
    assert f"The base ran on {kernel}, the candidate on {kernel}, with swiotlb=force." in text
    told = text[: text.index("Verdict: regressed")]
    assert "pair of 4 MiB udmabuf (2 rows)" in told
    assert "pair of 1 MiB udmabuf (2 rows)" in told


def test_every_picture_is_drawn(page: str) -> None:
    titles = re.findall(
        r'(?s)<h2>([^<]*)</h2>\s*<figure>(?:<div class="narrow">.*?</div>)?<div class="scroll"><svg', page
    )
    assert tuple(titles) == PICTURES
    assert "Not drawn" not in page


def test_change_points_are_marked_and_told(page: str) -> None:
    text = text_of(page)
    assert "change at run 3" in text
    assert re.search(r"Run 3 \(2026-03-01 14:00, [^)]*\): 16 rows changed.*3,946 to 3,984 instructions", text)
    assert re.search(r"Run 4 \([^)]*, with swiotlb=force\): 8 rows changed.*pair READ of 4 MiB udmabuf", text)


def test_provenance_names_kernel_config_command_line_python_and_commit(page: str) -> None:
    text = text_of(page)
    for told in ("6.12.117+deb12-amd64", "c0ffee" * 8, "nokaslr swiotlb=force", "CPython 3.11.7", "0123456789abcdef"):
        assert told in text
    assert "EIO: a bounce slot ends at 256 KiB" in text


def test_the_page_needs_no_network_and_runs_nothing(page: str) -> None:
    assert "<script" not in page
    assert "<link" not in page
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert not re.search(r"url\((?!#|&)", page)


def test_ids_of_two_pictures_never_meet(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


def test_the_same_runs_give_the_same_page(tmp_path: Path, history: list[Path], page: str) -> None:
    assert report(history, tmp_path / "r.html") == page


def test_verdicts_can_be_told_apart_without_colour(page: str) -> None:
    grey = re.sub(r"#[0-9a-fA-F]{6}\b", "#808080", page)
    assert 'class="regressed"' in grey
    verdicts = grey[grey.index("<h2>Verdicts") : grey.index("<h2>Cost")]
    shapes = {re.sub(r"[\d.\s-]+", "", path) for path in re.findall(r'<path id="[^"]*" d="([^"]+)"', verdicts)}
    assert len(shapes) >= 3


def test_one_run_makes_a_page_too(tmp_path: Path) -> None:
    page = report([suite(tmp_path / "1.json")], tmp_path / "r.html")
    assert "One run, nothing to compare it with." in page
    assert "Not drawn: two runs are needed to compare" in page


def test_runs_of_other_projects_make_a_page_too(tmp_path: Path) -> None:
    runs = [wall(tmp_path / f"{seed}.json", {"a": 1e-3, "b": 2e-3}, seed=seed, minutes=seed) for seed in (1, 2)]
    page = report(runs, tmp_path / "r.html")
    assert "Not drawn: no row tells the size of its buffer" in page


def test_a_hostile_name_is_text(tmp_path: Path) -> None:
    name = "t.py::x[<script>alert(1)</script>$\\frac{1}{0}$&\x1b\x00]"
    runs = [exact(tmp_path / "1.json", {name: 10}), exact(tmp_path / "2.json", {name: 99}, minutes=1)]
    page = report(runs, tmp_path / "r.html")
    assert "<script" not in page
    assert "alert(1)" in page
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", page)


def test_nothing_measured_draws_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "r.html"
    assert main(["report", str(exact(tmp_path / "1.json", {})), "-o", str(output)]) == 3
    assert capsys.readouterr().err.count("\n") == 1
    assert not output.exists()


def test_bad_input_leaves_the_old_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "r.html"
    output.write_text("old")
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    assert main(["report", str(bad), "-o", str(output)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert output.read_text() == "old"
    assert main(["report", str(suite(tmp_path / "1.json")), "-o", "/dev/full"]) == 2
    assert main(["report", str(tmp_path / "1.json"), "-o", str(tmp_path / "1.json")]) == 2


def wall_rows(medians: list[float]) -> list[Row]:
    return [load_run_row(median) for median in medians]


def load_run_row(median: float) -> Row:
    from dmasync.harness.runs.facts import RowFacts

    return Row("t", RowFacts(), (), median, median, median, 10, 1)


@pytest.mark.parametrize(
    ("medians", "expected"),
    [
        ([1.00, 1.01, 0.99, 1.02, 1.00, 0.98, 1.01, 1.00, 1.02, 0.99], []),
        ([1.00, 1.01, 0.99, 1.02, 1.00, 0.98, 1.31, 1.30, 1.32, 1.29, 1.33, 1.30], [6]),
        ([1.00, 1.01, 0.99, 1.02, 1.00, 9.00, 1.01, 1.00, 1.02, 0.99], []),  # one bad night is no change
        ([1.0, 1.3], []),  # two runs by the wall prove nothing
    ],
)
def test_change_points_by_the_wall_are_lasting_shifts(medians: list[float], expected: list[int]) -> None:
    assert change_points(wall_rows(medians), GateSettings()) == expected


def test_change_points_of_exact_rows_are_single_steps(tmp_path: Path) -> None:
    counts = [5649, 5649, 5650, 5687, 5687, 5649]
    runs = [load_run(exact(tmp_path / f"{i}.json", {PAIR: count, HEAP: 1, NULL: 1})) for i, count in enumerate(counts)]
    assert change_points([run.rows[PAIR] for run in runs], GateSettings()) == [3, 5]


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_a_real_browser_shows_all_the_pictures(tmp_path: Path, page: str) -> None:
    """In the screenshot, every picture's place holds ink: an SVG that a browser refuses leaves it white."""
    (tmp_path / "r.html").write_text(page)
    only_pictures = re.sub(r"(?s)<figcaption>.*?</figcaption>|<div class=\"narrow\">.*?</div>", "", page)
    # Each picture on a slice of its own height, so that the screenshot can be cut without measuring anything.
    slices = re.findall(r'<figure><div class="scroll">(<svg.*?</svg>)\s*</div>\s*</figure>', only_pictures, re.S)
    assert len(slices) == len(PICTURES)
    style = "<style>body{margin:0}div{height:600px;overflow:hidden}svg{width:auto;height:600px}</style>"
    test_page = tmp_path / "pictures.html"
    test_page.write_text(f"<meta charset=utf-8>{style}{''.join(f'<div>{one}</div>' for one in slices)}")
    shots = {}
    for name, html, height in (("page", tmp_path / "r.html", 4000), ("pictures", test_page, 600 * len(slices))):
        shots[name] = tmp_path / f"{name}.png"
        subprocess.run(
            [
                str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}",
                f"--window-size=1100,{height}", f"--screenshot={shots[name]}", html.as_uri(),
            ],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    with Image.open(shots["pictures"]) as shot:
        grey = shot.convert("L")
    for index, title in enumerate(PICTURES):
        part = grey.crop((0, 600 * index, grey.width, 600 * (index + 1)))
        dark = sum(part.histogram()[:128]) / (part.width * part.height)
        assert dark > 0.002, f"{title} is blank"
    with Image.open(shots["page"]) as shot:
        assert shot.size == (1100, 4000)


def test_lines_that_lie_on_each_other_are_one_and_each_change_has_its_line(history: list[Path], page: str) -> None:
    runs = [load_run(path) for path in history]
    bundles = history_figure._chosen(history_figure.series(runs, GateSettings()))
    drawn = [tuple(round(row.median / bundle[0].rows[0].median, 2) for row in bundle[0].rows) for bundle in bundles]
    assert len(drawn) == len(set(drawn))
    heap = next(bundle for bundle in bundles if bundle[0].rows[0].facts.provider == "system")
    assert len(heap) == 8
    assert "pair of system (1 of 8 alike)" in text_of(page)
    shown = {change for bundle in bundles for change in bundle[0].changes}
    assert shown == {2, 3}
    assert any(history_figure._largest(bundle[0]) == 2 for bundle in bundles)


def test_rows_that_do_not_spread_are_no_picture(tmp_path: Path) -> None:
    page = report([exact(tmp_path / "b.json", {PAIR: 5, HEAP: 6})], tmp_path / "r.html")
    assert "every round took the same" in page[page.index("<h2>Distribution per row") :].partition("<h2>Timeline")[0]


def test_the_page_leads_with_a_mark_and_what_changed_by_how_much(tmp_path: Path) -> None:
    base, candidate = exact(tmp_path / "b.json", {PAIR: 1000}), exact(tmp_path / "c.json", {PAIR: 1120})
    told = text_of(report([base, candidate], tmp_path / "r.html"))
    assert "\N{HEAVY BALLOT X} Slower: pair of udmabuf +120 (+12.0 %)" in told
    told = text_of(report([candidate, base], tmp_path / "r.html"))
    assert "\N{HEAVY CHECK MARK} Not slower: pair of udmabuf -120 (-10.7 %)" in told


def test_the_page_is_for_phones_the_dark_and_paper(tmp_path: Path) -> None:
    base = exact(tmp_path / "b.json", {PAIR: 1000})
    page = report([base, exact(tmp_path / "c.json", {PAIR: 1120})], tmp_path / "r.html")
    for rule in ("prefers-color-scheme: dark", "@media print", "min-width: 46rem", "overflow-x: auto"):
        assert rule in page
    # A name may break behind what parts its words, and nowhere else.
    assert "test_<wbr>pair[<wbr>udmabuf-<wbr>READ-<wbr>1MiB]" in page


def test_matplotlib_s_complaints_reach_nobody(tmp_path: Path) -> None:
    run = exact(tmp_path / "b.json", {"t.py::\N{HANGUL SYLLABLE GA}[\N{PILE OF POO}]": 5, PAIR: 5})
    other = exact(tmp_path / "c.json", {"t.py::\N{HANGUL SYLLABLE GA}[\N{PILE OF POO}]": 7, PAIR: 5})
    done = subprocess.run(
        [sys.executable, "-m", "dmasync", "report", str(run), str(other), "-o", str(tmp_path / "r.html")],
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": "/proc/none", "MPLCONFIGDIR": "/proc/none", "XDG_CACHE_HOME": "/proc/none"},
    )
    wrote = f"dmasync report: wrote {tmp_path / 'r.html'}: good: 2 same\n"
    assert (done.returncode, done.stderr) == (0, wrote)


def test_the_picture_of_the_verdicts_has_a_line_for_rows_that_moved_alike(page: str) -> None:
    picture = page[page.index("<h2>Verdicts</h2>") :].partition("<h2>Cost against buffer size")[0]
    picture = picture.partition('<div class="scroll">')[2]
    labels = re.findall(r"<text[^>]*>([^<]* of [^<]*)</text>", picture)
    assert [text for text in labels if "4 MiB udmabuf" in text] == ["pair of 4 MiB udmabuf (2 rows)"]
    assert any("pair of system (all 8 rows)" in text for text in labels)


def test_what_moved_most_is_seen_on_a_telephone(page: str) -> None:
    narrow = page.partition('<div class="narrow">')[2].partition("</div>")[0]
    width = float(re.findall(r'<svg[^>]* width="([\d.]+)pt"', narrow)[0])
    assert width <= 310  # 400 pixels less the page's margins, and words no smaller than those around it
    assert "x1,064" in narrow
    rules = page.partition("@media screen and (max-width: 50rem)")[2].partition("@media")[0]
    assert ".narrow { display: block; }" in rules
    assert ".narrow + .scroll { display: none; }" in rules


def test_the_history_of_two_runs_counts_the_changes_that_the_verdict_counts(tmp_path: Path) -> None:
    """Also of rows that are known to move by themselves, and of rows that are not exact."""

    def rows(added: int) -> list[dict[str, Any]]:
        moving = [1000 + added // 20 + spread for spread in (-8, -4, 0, 4, 8)]
        return [
            benchmark("t.py::moved", [(5000 + 10 * added) * 1e-9] * 5, facts()),
            benchmark("t.py::known", [(5000 + added) * 1e-9] * 5, facts(exact=False, resolution=5.0)),
            benchmark("t.py::inexact", [one * 1e-9 for one in moving], facts(exact=False)),
        ]

    runs = [write(tmp_path / f"{added}.json", document(rows(added), minutes=added)) for added in (0, 100)]
    text = text_of(report(runs, tmp_path / "r.html"))
    assert "1 regressed, 2 same" in text
    assert re.findall(r"Run 2 \([^)]*\): (\d+) row", text) == ["1"]


def test_a_name_that_is_too_long_for_an_axis_is_broken_and_not_cut() -> None:
    name = "first START READ_WRITE of 1 MiB vidbuf_cached, not attached, DmaSyncer-reused"
    lines = drawing.label(name).split("\n")
    assert (" ".join(lines), len(lines)) == (name, 2)
    assert drawing.label("START of udmabuf") == "START of udmabuf"
