"""The page of a fleet: what moved on top, every cell leads to its nights, one file that needs nothing else."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from dmasync.cli import main
from dmasync.harness.report.fleet_page import _some, fleet_page
from dmasync.harness.store.fleet import fleet
from dmasync.harness.store.parquet_files import connected, write_rows
from dmasync.harness.store.parquet_store import ParquetStore
from dmasync.harness.store.queries import StoreReader
from dmasync.harness.store.schema import SUMMARIES
from tests.support.run_files import PAIR, START, benchmark, document, write

NIGHTS = 60
HOSTILE = "t.py::x[<script>alert(1)</script>'\"]"
NOW = START.replace(tzinfo=None)
FIXED = {
    "board": "b", "kernel": "6.12.1", "arch": "x86_64", "target": "vm", "python": "3.11.7", "compiled": True,
    "row": "t.py::a",
}  # fmt: skip
ROWS = {"t.py::a": 1e-6, "t.py::b": 2e-6, "t.py::c": 3e-6, HOSTILE: 4e-6}


def costs(board: str, kernel: str, day: int) -> dict[str, float]:
    """Board *slow* has a row that is slower in the last week, *crept* all rows, *fast* a faster one."""
    rows = dict(ROWS)
    if board == "slow" and day >= NIGHTS - 7:
        rows[HOSTILE] *= 1.3
    if board == "fast" and day >= NIGHTS - 7:
        rows["t.py::b"] *= 0.7
    if board == "crept" and kernel == "6.9.1":
        rows = {name: cost * 1.005 ** min(max(day - 15, 0), 30) for name, cost in rows.items()}
    return rows


def fill(store: Path, board: str, kernel: str, nights: int) -> None:
    """Put *nights* of a board into one file, by the columns of a run."""
    source = random.Random(f"{board}{kernel}")  # noqa: S311  # noise, no secret
    rows = [
        {
            **dict.fromkeys(SUMMARIES),
            "moment": START.replace(tzinfo=None) + timedelta(days=day),
            "board": board,
            "kernel": kernel,
            "arch": "x86_64",
            "target": "unknown",
            "clock": "wall",
            "python": "3.11.7",
            "compiled": False,
            "row": name,
            "unit": "ns",
            "value": cost * (1 + 0.01 * source.gauss(0, 1)) * 1e9,
        }
        for day in range(nights)
        for name, cost in costs(board, kernel, day).items()
    ]
    path = store / "summaries/2026-03" / f"{board}{kernel}.parquet"
    write_rows(path, SUMMARIES, (tuple(row.values()) for row in rows), connected())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six boards, of which *gone* stops to measure and *calm2* never ran one kernel."""
    store = tmp_path_factory.mktemp("fleet") / "store"
    for board in ("slow", "crept", "fast", "gone", "calm1", "calm2"):
        for kernel in ("6.12.1", "6.9.1") if board != "calm2" else ("6.12.1",):
            fill(store, board, kernel, NIGHTS if board != "gone" else NIGHTS - 10)
    return store


@pytest.fixture(scope="module")
def page(store: Path) -> str:
    output = store.parent / "fleet.html"
    assert main(["report", "--fleet", str(store), "-o", str(output)]) == 0
    return output.read_text(encoding="utf-8")


class Links(HTMLParser):
    """The targets of all links, all ids, and everything that would be loaded from elsewhere."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag == "a":
            self.targets.append(str(told["href"]))
        if "id" in told:
            self.ids.append(str(told["id"]))
        self.loaded += [tag for name in ("src", "srcset") if name in told]
        if tag in ("script", "link", "iframe", "object", "embed", "img"):
            self.loaded.append(tag)


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page.partition("<body>")[2]))


def test_the_first_sentence_says_where_something_moved(page: str) -> None:
    told = text_of(page)[:700]
    assert "2 of 6 boards got slower: slow, crept." in told or "2 of 6 boards got slower: crept, slow." in told
    assert "1 board only got faster: fast." in told
    assert "1 board did not measure everything: gone." in told


def test_each_cell_leads_to_its_nights_and_back(page: str) -> None:
    links = Links(page)
    assert len(set(links.ids)) == len(links.ids)
    assert {target.removeprefix("#") for target in links.targets} <= set(links.ids)
    cells = re.findall(r'<td class="cell"><a class="(\w+)" href="#(c\d+)"', page)
    assert len(cells) == 11
    assert len({anchor for _, anchor in cells}) == 11
    for _, anchor in cells:
        section = page.partition(f'<section id="{anchor}">')[2].partition("</section>")[0]
        assert "<polyline" in section


def test_cells_say_what_happened_there(page: str) -> None:
    def cell(board: str, kernel: str) -> str:
        line = page.partition(f"<th>{board}</th>")[2].partition("</tr>")[0]
        shown = re.findall(r"<td class=\"(?:cell|none)\">(?:<a[^>]*>)?([^<]*)", line)
        return shown[["6.9.1", "6.12.1"].index(kernel)]  # 6.9 is older than 6.12

    assert re.fullmatch(r"▲1 \+\d\d %", cell("slow", "6.12.1"))
    assert re.fullmatch(r"▲all \+1\d %", cell("crept", "6.9.1"))
    assert cell("crept", "6.12.1") == "="
    assert re.fullmatch(r"▼1 -\d\d %", cell("fast", "6.9.1"))
    assert cell("gone", "6.9.1").startswith("\N{EN DASH} 04-")
    assert cell("calm1", "6.12.1") == "="
    assert cell("calm2", "6.9.1") == "·"


def test_boards_that_moved_come_first_and_calm_ones_are_folded_in(page: str) -> None:
    moved, _, calm = page.partition("Boards on which nothing moved")
    assert "<th>slow</th>" in moved
    assert "<th>gone</th>" in moved
    assert "<th>calm1</th>" not in moved
    assert "<th>calm1</th>" in calm


def test_the_page_needs_nothing_else_and_takes_names_as_text(page: str) -> None:
    assert Links(page).loaded == []
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    assert "&lt;script&gt;" in page.replace("<wbr>", "")


def test_a_damaged_file_is_told_on_the_page(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(store, copy)
    (copy / "summaries/2026-03/cut.parquet").write_bytes(b"PAR1")
    assert main(["report", "--fleet", str(copy), "-o", str(tmp_path / "p.html")]) == 0
    assert "cut.parquet: is not a Parquet file, or was cut off" in (tmp_path / "p.html").read_text()


def test_a_calm_fleet_says_so(tmp_path: Path) -> None:
    fill(tmp_path / "store", "calm", "6.12.1", 20)
    assert main(["report", "--fleet", str(tmp_path / "store"), "-o", str(tmp_path / "p.html")]) == 0
    assert "✔ Nothing moved on the fleet." in text_of((tmp_path / "p.html").read_text())
    found = fleet(StoreReader(tmp_path / "store"), 7, 5)
    assert found is not None
    assert [age for age, _ in found.cells["calm", "6.12.1"].nights] == list(range(19, -1, -1))


def test_runs_that_tell_neither_kernel_nor_target_are_on_the_page(tmp_path: Path) -> None:
    content = document([benchmark(PAIR, [1e-6] * 5)])
    del content["machine_info"]["release"]
    ParquetStore(tmp_path / "store").add([write(tmp_path / "r.json", content)], START.replace(tzinfo=None))
    assert main(["report", "--fleet", str(tmp_path / "store"), "-o", str(tmp_path / "p.html")]) == 0
    assert "<th>unknown</th>" in (tmp_path / "p.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "name run files, or a store with --fleet STORE"),
        (["run.json", "--fleet", "STORE"], 2, "not both"),
        (["run.json", "--days", "3"], 2, "--days is for a fleet"),
        (["--fleet", "STORE", "--days", "0"], 2, "--days is 0.0"),
        (["--fleet", "NONE"], 2, "no store is there"),
        (["--fleet", "EMPTY"], 3, "the store is empty"),
        (["--fleet", "STORE", "-o", "MISSING/p.html"], 2, "cannot be written"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(
    store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    said: str,
) -> None:
    (tmp_path / "EMPTY/summaries").mkdir(parents=True)
    places = {"STORE": str(store), "NONE": str(tmp_path / "none"), "EMPTY": str(tmp_path / "EMPTY")}
    output = [] if "-o" in arguments else ["-o", str(tmp_path / "p.html")]
    assert main(["report", *(places.get(word, word) for word in arguments), *output]) == status
    told = capsys.readouterr().err
    assert said in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "p.html").exists()


def test_on_a_telephone_a_row_s_nights_stand_below_its_numbers(page: str) -> None:
    assert '<td class="nights"><svg' in page
    rules = page.partition("@media (max-width: 40rem)")[2].partition("</style>")[0]
    assert "table.rows td.nights { flex: 0 0 100%;" in rules


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
@pytest.mark.parametrize("width", [400, 1400])
def test_what_got_slower_is_seen_without_scrolling(page: str, store: Path, tmp_path: Path, width: int) -> None:
    shot = tmp_path / "page.png"
    call = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--user-data-dir={tmp_path}",
        f"--window-size={width},1000", f"--screenshot={shot}", (store.parent / "fleet.html").as_uri(),
    ]  # fmt: skip
    subprocess.run(call, check=True, capture_output=True, timeout=120)
    image = Image.open(shot).convert("RGB")
    assert image.width == width
    red = (0xB0, 0x00, 0x20)
    columns = [x for x in range(width) for y in range(0, 1000, 3) if image.getpixel((x, y)) == red]
    assert len(set(columns)) > 40
    assert max(columns) < width - 4


def test_a_row_of_two_clocks_is_two_rows_with_units_and_nights_of_their_own(tmp_path: Path) -> None:
    for clock, unit, before, after in (("exact", "instructions", 2037.0, 2444.0), ("wall", "ns", 2000.0, 2600.0)):
        changed = {"clock": clock, "unit": unit}
        rows = [
            {**one, **changed, "value": (after if day >= 25 else before) + (0 if clock == "exact" else day % 3)}
            for day in range(30)
            for one in [{**dict.fromkeys(SUMMARIES), **FIXED, "moment": NOW + timedelta(days=day)}]
        ]
        path = tmp_path / "summaries/2026-03" / f"{clock}.parquet"
        write_rows(path, SUMMARIES, (tuple(row.values()) for row in rows), connected())
    found = fleet(StoreReader(tmp_path), 7, 5.0)
    assert found is not None
    moved = {row.apart: row for row in found.cells["b", "6.12.1"].moved}
    assert moved.keys() == {"exact clock", "wall clock"}
    assert {value for _, value in moved["exact clock"].nights} == {2037, 2444}
    text = fleet_page(found, 5.0)
    assert "2,037</td>" in text
    assert "2,444 instructions</td>" in text


def test_no_list_of_boards_ends_in_one_more() -> None:
    names = [f"b{number}" for number in range(7)]
    assert _some(names[:6]) == "b0, b1, b2, b3, b4, b5"
    assert _some(names) == "b0, b1, b2, b3, b4 and 2 more"
