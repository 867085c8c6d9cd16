"""The cost model on rows whose line is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dmasync import cli
from dmasync.harness.model.fit import fit
from dmasync.harness.runs.reading import load_run
from tests.support import run_files

KIB, MIB = 1 << 10, 1 << 20
SIZES = (4 * KIB, 64 * KIB, MIB, 4 * MIB, 64 * MIB)
START = {"READ": (3_000, 5.0), "WRITE": (3_100, 0.5), "READ_WRITE": (3_000, 5.5)}
END = (2_900, 5.0)
FRAME = 3_112_960  # 1920 x 1080 x 3/2 bytes in whole pages of 4 KiB


def rows(sizes: tuple[int, ...] = SIZES, off: float = 1.0, **changes: Any) -> list[dict[str, Any]]:
    """A run of a machine whose costs are lines: fixed instructions, and instructions a byte; END's times *off*."""
    made = []
    for access, line in START.items():
        first = (line[0] + 2_000, line[1] + 1.0)
        for step, (fixed, per_byte) in {"start": line, "end": END, "first-start": first}.items():
            for size in sizes:
                name = f"benchmarks/test_sync_steps.py::test_{step}[udmabuf-{size}-{access}]"
                facts = {"step": step, "size": size, "access": access, "calls": 1, "attached": False, **changes}
                cost = round((fixed + per_byte * size) * (off if step == "end" else 1))
                made.append(run_files.benchmark(name, [cost * 1e-9] * 9, run_files.facts(**facts)))
    return made


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_files.write(tmp_path / "run.json", run_files.document(rows(), not_measured={}))


@pytest.fixture
def model(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def called(*arguments: object) -> tuple[int, str, str]:
        status = cli.main(["model", *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out, err

    return called


def answer(model: Any, *arguments: object) -> dict[str, Any]:
    status, out, _ = model(*arguments, "--json")
    assert status == 0
    frame: dict[str, Any] = json.loads(out)["frames"][0]
    return frame


def test_the_fit_finds_the_line(run: Path) -> None:
    lines, too_few = fit(load_run(run).rows.values())
    assert not too_few
    by_name = {(line.subject.step, line.subject.access): line for line in lines}
    line = by_name["start", "READ"]
    assert line.fixed == pytest.approx(3_000, rel=1e-6)
    assert line.per_byte == pytest.approx(5.0, rel=1e-6)
    assert line.largest_residual < 1e-6
    assert line.at(12_345_678) == pytest.approx(3_000 + 5.0 * 12_345_678, rel=1e-6)


def test_a_residual_tells_where_the_line_is_off(tmp_path: Path) -> None:
    bent = rows()
    bent[2]["stats"].update(dict.fromkeys(("min", "max", "mean", "median", "q1", "q3"), 0.006), data=[0.006] * 9)
    run = run_files.write(tmp_path / "run.json", run_files.document(bent, not_measured={}))
    line = fit(load_run(run).rows.values())[0][0]
    assert max(line.residuals, key=lambda size: abs(line.residuals[size])) == MIB
    assert line.largest_residual > 0.05


def test_a_frame_costs_its_start_and_its_end(model: Any, run: Path) -> None:
    frame = answer(model, run)
    assert frame["frame"] == pytest.approx(3_000 + 2_900 + 10.0 * FRAME, rel=1e-6)
    assert frame["per_second"] == pytest.approx(30 * frame["frame"])
    assert frame["seconds_per_frame"] is None


def test_the_first_start_is_paid_once_for_each_buffer_in_flight(model: Any, run: Path) -> None:
    frames = json.loads(model(run, "--json")[1])["frames"]
    assert frames[0]["once"] == pytest.approx(4 * (2_000 + 1.0 * FRAME), rel=1e-6)


def test_the_narrow_access_is_compared_with_read_write(model: Any, run: Path) -> None:
    assert answer(model, run)["saved"] == pytest.approx(0.5 * FRAME, rel=1e-6)
    assert answer(model, run, "--access", "WRITE")["saved"] == pytest.approx(5.0 * FRAME - 100, rel=1e-6)
    assert answer(model, run, "--access", "READ_WRITE")["saved"] == pytest.approx(0.0, abs=1e-3)


def test_instructions_become_time_with_the_boards_own_figure(model: Any, run: Path) -> None:
    frame = answer(model, run, "--instructions-per-second", 1e9)
    assert frame["seconds_per_frame"] == pytest.approx(frame["frame"] / 1e9)


def test_the_text_answers_in_words(model: Any, run: Path) -> None:
    status, out, _ = model(run, "--instructions-per-second", "1e9")
    assert status == 0
    assert f"a frame of {FRAME:,} bytes in one buffer, READ, 30 frames a second, 4 in flight" in out
    assert "udmabuf: 31,135,500 instructions a frame" in out
    assert "31,135.5 us a frame, 93.41% of one CPU" in out
    assert "READ instead of READ_WRITE saves 1,556,480 instructions a frame (4.8% of 32,691,980)" in out
    assert "neither cache misses nor memory bandwidth" in out


def test_an_access_that_saves_nothing_is_said_to_cost_the_same(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(START, "READ_WRITE", (START["READ"][0] + 3, START["READ"][1]))
    run = run_files.write(tmp_path / "run.json", run_files.document(rows(), not_measured={}))
    out = model(run)[1]
    assert "  READ costs what READ_WRITE costs" in out.splitlines()
    assert "saves" not in out


def test_a_frame_beyond_every_size_is_called_an_extrapolation(model: Any, run: Path) -> None:
    assert "extrapolation" in model(run, "--bytes", 100 * MIB)[1]
    assert "extrapolation" not in model(run)[1]


@pytest.mark.parametrize(("option", "value"), [("--format", "nv12"), ("--format", "NV12"), ("--access", "read")])
def test_formats_and_accesses_are_known_in_small_letters_too(model: Any, run: Path, option: str, value: str) -> None:
    assert answer(model, run, option, value) == answer(model, run)


def test_a_format_that_is_not_known_is_refused_with_those_that_are(
    model: Any, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        model(run, "--format", "nv99")
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "NV99" in told
    assert "NV16" in told


OTHER_SIZES = (3 * MIB, 24 * MIB, MIB)
"""The last is one that the model was fitted to."""


def other(path: Path, **changes: Any) -> Path:
    return run_files.write(path, run_files.document(rows(OTHER_SIZES, **changes), not_measured={}))


def test_predictions_are_held_against_sizes_that_were_not_fitted(model: Any, run: Path, tmp_path: Path) -> None:
    status, out, err = model(run, "--check", other(tmp_path / "other.json"), "--json")
    assert (status, err) == (0, "")
    predictions = json.loads(out)["predictions"]
    assert len(predictions) == 2 * 3 * 3
    assert {one["size"] for one in predictions} == {3 * MIB, 24 * MIB}
    assert max(abs(one["error"]) for one in predictions) < 1e-4
    (end,) = (one for one in predictions if (one["step"], one["access"], one["size"]) == ("end", "READ", 3 * MIB))
    assert end["predicted"] == end["foretold"] == pytest.approx(2_900 + 5.0 * 3 * MIB, rel=1e-6)
    assert end["measured"] == pytest.approx(2_900 + 5.0 * 3 * MIB, rel=1e-6)


def test_a_prediction_that_is_off_is_a_failure_and_named(model: Any, run: Path, tmp_path: Path) -> None:
    wrong = other(tmp_path / "other.json", off=1.02)
    status, out, err = model(run, "--check", wrong)
    assert status == 1
    assert "+1.96%" in out
    assert "6 of 18 predictions are off by more than 1 %" in err
    assert "udmabuf end" in err
    assert model(run, "--check", wrong, "--within", 2)[0] == 0


def test_a_run_of_another_architecture_is_no_check(model: Any, run: Path, tmp_path: Path) -> None:
    status, out, err = model(run, "--check", other(tmp_path / "other.json", arch="aarch64"))
    assert (status, out) == (2, "")
    assert "arch aarch64" in err


def test_a_run_without_other_sizes_checks_nothing(model: Any, run: Path) -> None:
    status, _, err = model(run, "--check", run)
    assert status == 3
    assert "--sizes" in err


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        (("--frame", "640x480", "--format", "YUYV"), 640 * 480 * 2),
        (("--bytes", "1"), 4096),
        (("--bytes", "1", "--page-size", "65536"), 65536),
    ],
)
def test_a_buffer_is_whole_pages(model: Any, run: Path, arguments: tuple[str, ...], size: int) -> None:
    assert json.loads(model(run, *arguments, "--json")[1])["stream"]["size"] == size


def test_the_runs_machine_tells_its_page_size(model: Any, tmp_path: Path) -> None:
    content = run_files.document(rows(), not_measured={}, machine={"page_size": 65536})
    run = run_files.write(tmp_path / "run.json", content)
    assert json.loads(model(run, "--bytes", 1, "--json")[1])["stream"]["size"] == 65536
    assert json.loads(model(run, "--bytes", 1, "--page-size", 4096, "--json")[1])["stream"]["size"] == 4096


def test_wall_rows_give_time_and_take_no_instruction_rate(model: Any, tmp_path: Path) -> None:
    run = run_files.write(
        tmp_path / "run.json", run_files.document(rows(unit="ns", exact=False, target="hardware"), not_measured={})
    )
    frame = answer(model, run)
    assert frame["seconds_per_frame"] == pytest.approx(frame["frame"] / 1e9)
    status, _, err = model(run, "--instructions-per-second", "1e9")
    assert status == 2
    assert "counts ns" in err


def test_one_size_is_no_line(model: Any, tmp_path: Path) -> None:
    one = [row for row in rows() if row["extra_info"]["size"] == MIB]
    run = run_files.write(tmp_path / "run.json", run_files.document(one, not_measured={}))
    status, _, err = model(run)
    assert status == 3
    assert "one size only" in err


def test_two_sizes_are_called_untested(model: Any, tmp_path: Path) -> None:
    two = [row for row in rows() if row["extra_info"]["size"] in (MIB, 4 * MIB)]
    run = run_files.write(tmp_path / "run.json", run_files.document(two, not_measured={}))
    assert "untested" in model(run)[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--frame", "huge"),
        ("--bytes", "0"),
        ("--fps", "0"),
        ("--in-flight", "-1"),
        ("--instructions-per-second", "inf"),
        ("--fps", "nan"),
        ("--within", "0"),
    ],
)
def test_impossible_streams_are_refused_by_name(model: Any, run: Path, arguments: tuple[str, str]) -> None:
    status, out, err = model(run, *arguments)
    assert (status, out) == (2, "")
    assert arguments[0] in err or "bytes" in err


def test_a_file_that_is_no_run_is_named(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text('{"benchmarks": [')
    status, out, err = model(path)
    assert (status, out) == (2, "")
    assert "broken.json" in err
