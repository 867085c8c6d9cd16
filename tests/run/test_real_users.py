"""The small programs of ``programs/users.c`` on a real kernel in a virtual machine, without dmasync run and with it."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from tests.run.test_users import USERS

MAPPED = ["both", "counts"]
pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def statuses(compiled, tmp_path_factory) -> dict[str, int]:
    """Exit statuses by the name of the run, of one boot."""
    folder = tmp_path_factory.mktemp("real")
    programs = {user: (compiled("users"), user) for user in USERS}
    programs |= {kind: (compiled("mappings"), kind) for kind in MAPPED}
    programs |= {f"{user}, static": (compiled("users", "-static-pie", "-fPIE"), user) for user in USERS}

    def each(prefix: str) -> str:
        return "\n".join(
            f'{shlex.join(map(str, words))}; echo "{prefix}{name}:$?" >> {folder}/status'
            for name, words in programs.items()
        )

    through = f"{sys.executable} -m dmasync run --on kernel --timeout 600 -- sh {folder}/through"
    (folder / "through").write_text(each(""))
    (folder / "script").write_text(f"{each('bare ')}\n{through}; echo run:$? >> {folder}/status")
    subprocess.run(
        [sys.executable, "-m", "dmasync", "vm", "--quiet", "--timeout", "1200", "--output", folder,
         "--mount", compiled("users").parent, "--", "sh", folder / "script"],
        check=True,
    )  # fmt: skip
    lines = (folder / "status").read_text().splitlines()
    return {name: int(status) for name, status in (line.split(":") for line in lines)}


@pytest.mark.parametrize("name", [*USERS, *(f"{user}, static" for user in USERS), *MAPPED])
def test_a_user_is_answered_as_without_the_door(statuses, name):
    assert statuses[f"bare {name}"] == 0
    assert statuses[name] == 0


def test_nothing_was_left_unmodelled(statuses):
    assert statuses["run"] == 0
