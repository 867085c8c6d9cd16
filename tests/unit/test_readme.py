"""The README says what works: its test passes, its commands name environments that exist."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_example_of_a_test_under_a_storm_passes():
    (example,) = EXAMPLES
    names: dict[str, object] = {}
    exec(example, names)  # noqa: S102 - our own README
    run = names["test_my_pipeline_survives_a_storm"]
    assert callable(run)
    run()


def test_the_readme_is_one_screen_with_one_picture_and_two_commands():
    assert len(README.splitlines()) <= 60
    assert README.count("![") == 1
    assert len(re.findall(r"^    \S.*tox run", README, re.MULTILINE)) == 2


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", ".ci/run"])
def test_every_tox_environment_that_is_named_exists(page):
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    for group in re.findall(r"tox run (?:-q )?-e ([\w,-]+)", (ROOT / page).read_text()):
        for name in group.split(","):
            assert f"testenv:{name}" in tox or re.fullmatch(r"py3(1[0-4])?", name), name


def test_every_page_that_is_linked_exists():
    for link in re.findall(r"\]\(([^):#]+)\)", README):
        assert (ROOT / link).exists(), link
