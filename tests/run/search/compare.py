"""Answers of two kernels to one program: where they part, and how that is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tests.run.search.ops import Command, Program


class Difference(NamedTuple):
    """The first place where the answers part."""

    command: Command | None
    """What was asked; None where both ended otherwise."""
    index: int
    on_fake: str
    on_kernel: str

    def __str__(self) -> str:
        return f"{self.command}\n    fake:   {self.on_fake}\n    kernel: {self.on_kernel}"


def by_command(program: Program, answers: str) -> list[list[str]]:
    """The lines of each command: one, but for those that look at everything, which end in the count of strays."""
    lines = iter(answers.splitlines())
    found: list[list[str]] = []
    for command in program:
        said: list[str] = []
        for line in lines:
            if line.startswith("actor "):  # somebody died of a signal
                said.append(line)
                continue
            said.append(line)
            if command.op != "look" or line == "gone" or line.startswith("strays"):
                break
        found.append(said)
    return found


def first_difference(program: Program, on_fake: str, on_kernel: str) -> Difference | None:
    """Where the two part, if they do."""
    if on_fake == on_kernel:
        return None
    pairs = zip(program, by_command(program, on_fake), by_command(program, on_kernel), strict=True)
    for index, (command, mine, theirs) in enumerate(pairs):
        if mine != theirs:
            for one, other in zip([*mine, ""], [*theirs, ""], strict=False):
                if one != other:
                    return Difference(command, index, one, other)
            return Difference(command, index, "\n".join(mine), "\n".join(theirs))
    return Difference(None, len(program), on_fake.splitlines()[-1], on_kernel.splitlines()[-1])


def told(program: Sequence[Command], difference: Difference) -> str:
    """A short program and what differs at its end, for a person."""
    lines = [str(command) for command in program[: difference.index]]
    return "\n".join([*lines, str(difference)])
