"""What steers the search: weights that lead to rare places, and programs that can be made again."""

from __future__ import annotations

import collections
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import search_steer
from tests.conformance.search_generator import Generator
from tests.conformance.search_world import FakeWorld, Op


@pytest.fixture(autouse=True)
def ticks() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    yield
    signal.signal(signal.SIGALRM, before)


def ops(seed: str, weights: dict[str, int] | None) -> list[Op]:
    world, made = FakeWorld(), []
    for op, _ in zip(Generator(seed, world, weights).ops(), range(120), strict=False):
        world.step(op)
        made.append(op)
    world.close()
    return made


def test_a_production_that_reaches_rare_places_gets_more_weight_and_one_that_does_not_less() -> None:
    places = {
        "common": collections.Counter({"often": 1000}),
        "rare": collections.Counter({"often": 900, "once": 1}),
    }
    weights = search_steer.learned(
        places, {"common": 1000, "rare": 1000, "never": 0}, {"common": 5, "rare": 5, "never": 5}, 20_000
    )
    assert weights["rare"] > weights["never"] > weights["common"] >= 1


def test_the_same_seed_and_weights_make_the_same_program_and_other_weights_another() -> None:
    steered = {"lseek": 500}
    assert ops("same", steered) == ops("same", steered)
    assert ops("same", steered) != ops("same", None)
    assert sum(op[0] == "lseek" for op in ops("same", steered)) > sum(op[0] == "lseek" for op in ops("same", None))


def test_what_was_learned_leads_to_more_rare_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "steering.json"
    assert search_steer.main(["learn", str(file), "--steps", "6000"]) == 0
    assert json.loads(file.read_text()).keys() == Generator("", FakeWorld()).weights.keys()
    capsys.readouterr()
    assert search_steer.main(["compare", str(file), "--steps", "6000", "--seed", "1000"]) == 0
    without, with_it = capsys.readouterr().out.splitlines()
    assert int(with_it.split(", ")[-1].split()[0]) > int(without.split(", ")[-1].split()[0])
