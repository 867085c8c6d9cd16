"""The index of a storage: files are read once, and whatever becomes of it, a list tells what the files hold."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dmasync.harness.exit_status import CommandError
from dmasync.harness.history.listing import print_kept
from dmasync.harness.runs import index, kept
from dmasync.harness.runs.index import INDEX_NAME
from dmasync.harness.runs.kept import KeptRun, Kind, Standing
from dmasync.harness.runs.reading import Run, load_run
from dmasync.harness.runs.storage import Storage
from tests.support.run_files import HEAP, PAIR, benchmark, document, exact, facts, write


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Three runs, one of which tells no date, and a damaged file."""
    storage = Storage(tmp_path / "kept")
    for minutes, counts in enumerate(({PAIR: 5}, {PAIR: 6, HEAP: 7})):
        storage.keep(load_run(exact(tmp_path / "r.json", counts, minutes=minutes)), Standing.GOOD)
    undated = document([benchmark(PAIR, [5e-6] * 5, facts())])
    del undated["datetime"]
    place = storage.keep(load_run(write(tmp_path / "undated.json", undated)), Standing.UNJUDGED).parent
    (place / "0009_20260301_120000_good.json").write_text("{")
    return storage


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read from now on, by name."""
    names: list[str] = []

    def counting(path: Path) -> Run:
        names.append(path.name)
        return load_run(path)

    monkeypatch.setattr(kept, "load_run", counting)
    return names


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as old from the moment on at which they are written."""
    monkeypatch.setattr(index, "_TICK", -(10**12))


def told(storage: Storage) -> list[tuple[Path, object, str]]:
    return [(one.path, one.summary, one.damage) for one in storage.kept()]


def without_index(storage: Storage) -> list[tuple[Path, object, str]]:
    (storage.folder / INDEX_NAME).unlink(missing_ok=True)
    return told(storage)


@pytest.mark.usefixtures("settled")
def test_a_file_is_read_once_and_a_damaged_one_every_time(storage: Storage, read: list[str]) -> None:
    first = told(storage)
    assert len(read) == 4
    read.clear()
    assert told(storage) == first
    assert read == ["0009_20260301_120000_good.json"]


@pytest.mark.usefixtures("settled")
def test_what_was_kept_since_is_read_and_what_was_removed_is_gone(
    tmp_path: Path, storage: Storage, read: list[str]
) -> None:
    gone = storage.kept()[-1].path
    gone.unlink()
    new = storage.keep(load_run(exact(tmp_path / "r.json", {PAIR: 8}, minutes=9)), Standing.GOOD)
    read.clear()
    paths = [path for path, _, _ in told(storage)]
    assert gone not in paths
    assert new in paths
    assert sorted(read) == sorted([new.name, "0009_20260301_120000_good.json"])
    assert told(storage) == without_index(storage)


@pytest.mark.usefixtures("settled")
def test_a_file_that_was_replaced_is_read_again(tmp_path: Path, storage: Storage) -> None:
    path = storage.kept()[-1].path
    before = path.stat()
    other = exact(tmp_path / "other.json", {PAIR: 6, HEAP: 9}, minutes=1, machine={"node": "BOARD"})
    assert other.stat().st_size == before.st_size
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, path)
    summary = storage.kept()[-1].summary
    assert summary is not None
    assert summary.kind.host == "BOARD"


def test_a_file_that_changed_within_the_clock_tick_in_which_it_was_read_is_read_again(storage: Storage) -> None:
    path = storage.kept()[-1].path
    before = path.stat()
    path.write_text(path.read_text().replace('"node": "board"', '"node": "BOARD"'))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    entries = json.loads((storage.folder / INDEX_NAME).read_bytes().partition(b"\n")[2])
    (stamp,) = (stamp for name, stamp, _ in entries if name.endswith(path.name))
    assert stamp[:2] == [before.st_size, before.st_mtime_ns]
    summary = storage.kept()[-1].summary
    assert summary is not None
    assert summary.kind.host == "BOARD"


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    assert b'"board"' in content
    return content.replace(b'"board"', b'"bobrd"', 1)


def of_another_version(content: bytes) -> bytes:
    assert b'"version": 1' in content
    return content.replace(b'"version": 1', b'"version": 0', 1)


def of_another_reader(content: bytes) -> bytes:
    head, _, body = content.partition(b"\n")
    told = json.loads(head)
    told["reader"] = "0" * 64
    return json.dumps(told).encode() + b"\n" + body


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(
    "damaged", [cut, flipped, of_another_version, of_another_reader, lambda _: b"", lambda _: b"[" * 9999 + b"\n[]"]
)
def test_a_damaged_index_is_made_again(storage: Storage, read: list[str], damaged: Callable[[bytes], bytes]) -> None:
    right = told(storage)
    path = storage.folder / INDEX_NAME
    path.write_bytes(damaged(path.read_bytes()))
    read.clear()
    assert told(storage) == right
    assert len(read) == 4
    read.clear()
    assert told(storage) == right
    assert len(read) == 1


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_link(path: Path) -> None:
    target = path.parent.parent / "mine"
    target.write_text("mine")
    path.symlink_to(target)


@pytest.mark.parametrize("other", [a_folder, a_pipe, a_link])
def test_where_the_index_cannot_be_every_list_reads_the_files(
    tmp_path: Path, storage: Storage, read: list[str], other: Callable[[Path], None]
) -> None:
    right = without_index(storage)
    (storage.folder / INDEX_NAME).unlink()
    other(storage.folder / INDEX_NAME)
    read.clear()
    assert told(storage) == told(storage) == right
    assert len(read) == 8
    assert not (tmp_path / "mine").exists() or (tmp_path / "mine").read_text() == "mine"
    assert [path.name for path in storage.folder.iterdir() if path.name.startswith(".")] == [INDEX_NAME]


def test_a_folder_that_cannot_be_written_to_is_listed(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    right = without_index(storage)
    (storage.folder / INDEX_NAME).unlink()

    def read_only(path: Path, content: bytes) -> None:
        raise CommandError(f"cannot write {path}: Read-only file system")

    monkeypatch.setattr(index, "write_atomically", read_only)
    assert told(storage) == right
    assert not (storage.folder / INDEX_NAME).exists()


@pytest.mark.usefixtures("settled")
def test_who_is_interrupted_does_not_start_again(
    storage: Storage, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path) -> Run:
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(path.name)
        return load_run(path)

    names = {one.path.name for one in storage.kept() if one.summary}
    (storage.folder / INDEX_NAME).unlink()
    read.clear()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(kept, "load_run", interrupted)
        storage.kept()
    done = set(read) & names
    read.clear()
    storage.kept()
    assert not set(read) & done
    assert names <= set(read) | done


def test_an_index_that_another_process_is_writing_is_no_damaged_run(storage: Storage) -> None:
    right = told(storage)
    (storage.folder / ".dmasync-0123456789abcdef.partial").write_text("{")
    assert told(storage) == right


def _keep_and_list(folder: Path, source: Path, count: int) -> None:
    storage = Storage(folder)
    for _ in range(count):
        path = storage.keep(load_run(source), Standing.GOOD)
        assert path in {one.path for one in storage.kept() if one.summary}


def test_processes_that_keep_and_list_at_once_see_every_run(tmp_path: Path, storage: Storage) -> None:
    source = exact(tmp_path / "r.json", {PAIR: 1})
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_keep_and_list, args=(storage.folder, source, 9)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    listed = told(storage)
    assert len(listed) == 4 + 18
    assert listed == without_index(storage)


@pytest.mark.usefixtures("settled")
def test_a_name_that_is_no_text_is_listed_like_any_other(tmp_path: Path, storage: Storage) -> None:
    strange = storage.kept()[-1].path.with_name(os.fsdecode(b"0042_\xff\n_good.json"))
    strange.write_bytes(exact(tmp_path / "r.json", {PAIR: 1}, minutes=50).read_bytes())
    assert told(storage) == told(storage)
    assert told(storage)[-1][0] == strange


def test_the_baseline_is_the_newest_that_can_still_be_read(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    older, newer = (one for one in storage.kept() if one.standing is Standing.GOOD and one.summary)
    gone = KeptRun(newer.path.with_name("gone_good.json"), newer.summary)
    monkeypatch.setattr(Storage, "kept", lambda self: [older, gone])
    baseline = storage.baseline(Kind.of(load_run(older.path)))
    assert baseline is not None
    assert baseline.path == older.path


def test_the_list_shows_what_the_files_hold(storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    print_kept(storage, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["date", "host", "kernel", "target", "clock", "rows", "standing", "file"]
    assert [line.split()[-3] for line in lines[1:4]] == ["1", "1", "2"]
    assert [line.split()[-2] for line in lines[1:4]] == ["unjudged", "good", "good"]
    assert lines[4].startswith("damaged, left alone: ")
