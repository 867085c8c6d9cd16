"""A search at work: batches of programs to both executors, what came back, what is done about a difference."""

# ruff: noqa: T201 - of a command: its results go to standard output
from __future__ import annotations

import argparse
import collections
import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dmasync.fakes.kernel.profile import nearest_profile
from tests.conformance.search_shrink import shrunk
from tests.run.search.compare import Difference, by_command, first_difference, told
from tests.run.search.ops import Command, Program, encoded, to_json
from tests.run.search.programs import Named, from_files, keep, random_program
from tests.run.search.recordings import Recorder
from tests.run.search.sides import Door, Guest

AT_ONCE = 25
_AHEAD = 2
_MOST_SHRUNK = 10
_MOST_SHOWN = 20
_SHRINK_SECONDS = 25


class Options(argparse.Namespace):
    """The command line."""

    steps: int
    seed: int
    first: int
    seconds: float | None
    log: Path | None
    keep: Path | None
    record: Path | None
    ask: list[Path] | None
    profile: str | None
    kernel: str
    memory: str | None
    ignore: list[str]


def _kind(difference: Difference) -> tuple[str, ...]:
    """What a shrunk program must still show: the same answers to the same call."""
    op = "" if difference.command is None else difference.command.op
    return op, *(
        re.sub(r"(slot |inode=|size=|at |flags=|pos=)\w+|\[.*|#\w+", "", answer)
        for answer in (difference.on_fake, difference.on_kernel)
    )


class Search:
    """All that one call does, and what it counted."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.steps = self.programs = 0
        self.differences: list[dict[str, Any]] = []
        self.outcomes: collections.Counter[tuple[str, str]] = collections.Counter()
        self.left_out: collections.Counter[str] = collections.Counter()
        self.kinds: collections.Counter[tuple[str, ...]] = collections.Counter()
        self.unconfirmed: list[str] = []
        self.next = options.first
        self.recorder: Recorder | None = None
        self._asked = 0
        self._seconds = 0.0
        self._said: str | None = None
        machine = [f"--kernel={options.kernel}", *([f"--memory={options.memory}"] if options.memory else [])]
        self.guest = Guest(machine)
        try:
            self.kernel = self.guest.hello()[0]
            self.profile = options.profile or nearest_profile(self.kernel).name
            self.door = Door("--profile", self.profile, program=self.guest.program)
            self.door.hello()
            if options.record is not None:
                self.recorder = Recorder(options.record, self.kernel)
        except BaseException:
            self.guest.close()
            raise

    def run(self) -> None:
        """Everything that was asked for."""
        began = time.monotonic()
        waiting: collections.deque[list[Named]] = collections.deque()
        batches = self._batches()
        differing: list[Named] = []
        while True:
            late = self.options.seconds is not None and time.monotonic() - began > self.options.seconds
            while len(waiting) < _AHEAD and not late and (batch := next(batches, None)):
                waiting.append(batch)
                calls = [named.encoded for named in batch]
                self.door.send(calls)
                self.guest.send(calls)
            if not waiting:
                break
            batch = waiting.popleft()
            for named, mine, theirs in zip(batch, self.door.receive(), self.guest.receive(), strict=True):
                difference = self._compare(named, mine, theirs)
                if difference is not None:
                    differing.append(named)
                    if len(differing) <= _MOST_SHOWN:
                        print(f"{named.name} differs at step {difference.index}: {difference}", flush=True)
            self._seconds = time.monotonic() - began
            self.write_log()
        for named in differing:
            self._look_into(named)
            self.write_log()

    def _compare(self, named: Named, on_fake: str, on_kernel: str) -> Difference | None:
        self.programs += 1
        self.steps += named.steps
        self.left_out += named.left_out
        for command, lines in zip(named.program, by_command(named.program, on_kernel), strict=True):
            if command.op != "look" and lines:
                word = lines[0].split(" ", 1)[0]
                self.outcomes[command.op, word if word.lstrip("-").isdigit() and int(word) <= 0 else "good"] += 1
        if self.recorder is not None:
            self.recorder.add(named, on_kernel)
        return self._difference(named.program, on_fake, on_kernel)

    def _difference(self, program: Program, on_fake: str, on_kernel: str) -> Difference | None:
        for pattern in self.options.ignore:
            on_fake, on_kernel = re.sub(pattern, "", on_fake), re.sub(pattern, "", on_kernel)
        return first_difference(program, on_fake, on_kernel)

    def _ask(self, program: Sequence[Command]) -> tuple[str, str]:
        """The answers of the fake and of the kernel to one program."""
        calls = encoded(program)
        self.door.send([calls])
        self.guest.send([calls])
        return self.door.receive()[0], self.guest.receive()[0]

    def _differs(self, program: Program) -> Difference | None:
        return self._difference(program, *self._ask(program))

    def _look_into(self, named: Named) -> None:
        """Ask once more, alone; shrink what differs again."""
        difference = self._differs(named.program)
        if difference is None:
            self.unconfirmed.append(named.name)
            return
        program = named.program[: difference.index + 1]
        if self._differs(program) is None:
            program = named.program
        kind = _kind(difference)
        self.kinds[kind] += 1
        if self.kinds[kind] == 1 and len(self.kinds) <= _MOST_SHRUNK:

            def is_same(part: Sequence[Command]) -> bool:
                found = self._differs(list(part))
                return found is not None and _kind(found) == kind

            program = shrunk(program, is_same, _SHRINK_SECONDS)
        answers = self._ask(program)
        difference = self._difference(program, *answers) or difference
        text = told(program, difference)
        if self.kinds[kind] == 1:
            print(f"\n{named.name}:\n{text}", flush=True)
        self.differences.append({"name": named.name, "told": text.splitlines(), "program": to_json(program)})
        if self.options.keep is not None and self.kinds[kind] == 1:
            keep(self.options.keep, named.name, program, self.kernel, answers[1])

    def _batches(self) -> Iterator[list[Named]]:
        if self.options.ask is not None:
            yield list(from_files(self.options.ask))
            return
        while self._asked < self.options.steps:
            batch = []
            while len(batch) < AT_ONCE and self._asked < self.options.steps:
                batch.append(random_program(self.options.seed, self.next))
                self.next += 1
                self._asked += batch[-1].steps
            yield batch

    def close(self) -> None:
        """End both executors."""
        self._said = self.door.said()
        self.guest.close()
        self.door.close()
        if self.recorder is not None:
            self.recorder.close()

    def log(self) -> dict[str, Any]:
        """What is known so far."""
        return {
            "kernel": self.kernel,
            "profile": self.profile,
            "steps": self.steps,
            "programs": self.programs,
            "seconds": round(self._seconds, 1),
            "steps_per_second": round(self.steps / self._seconds) if self._seconds else None,
            "seed": self.options.seed,
            "next": self.next,
            "differences": self.differences,
            "unconfirmed": self.unconfirmed,
            "left_out": dict(self.left_out.most_common()),
            "door_said": dict(
                collections.Counter(self.door.said().splitlines() if self._said is None else self._said.splitlines())
            ),
            "outcomes": {f"{op} {outcome}": times for (op, outcome), times in sorted(self.outcomes.items())},
        }

    def write_log(self) -> None:
        """To the files that were asked for."""
        if self.options.log is not None:
            self.options.log.parent.mkdir(parents=True, exist_ok=True)
            self.options.log.write_text(json.dumps(self.log(), indent=1) + "\n", encoding="utf-8")

    def summary(self) -> str:
        """One paragraph for a person."""
        log = self.log()
        lines = [
            f"{log['steps']} steps in {log['programs']} programs on {log['kernel']}, profile {log['profile']}: "
            f"{log['steps_per_second']} a second, {len(self.differences)} differences",
            *(f"left out: {times} times {what}" for what, times in log["left_out"].items()),
            *(f"dmasync run said {times} times: {line}" for line, times in log["door_said"].items()),
            *(f"once only: {name}" for name in self.unconfirmed),
        ]
        return "\n".join(lines)
