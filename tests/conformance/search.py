"""Differential search: random programs on the fake and on the real kernel, side by side, compared after every step.

    python -m tests.conformance.search --steps 100000 --seed 1 --seeds 20 [--log FILE]

The fake has the profile of the running kernel.
Runs where there are ``/dev/udmabuf``, ``/dev/dma_heap/system`` and vgem, as root: ``tox run -e search-vm`` does it in a
virtual machine. What was found before (``divergences/*.json`` beside this file, or beside the log) is run first.
Exit status: 0 no difference, 1 at least one.
"""

# ruff: noqa: T201 - a command: its results go to standard output
from __future__ import annotations

import argparse
import collections
import json
import lzma
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from dmasync.fakes.kernel import UnmodelledCallError
from dmasync.fakes.kernel.profile import nearest_profile
from tests.conformance.search_generator import Generator
from tests.conformance.search_places import place_name
from tests.conformance.search_program import (
    CHECKPOINT,
    answerable,
    as_python,
    digest,
    from_json,
    label_of,
    observe,
    outcome_of,
    to_json,
)
from tests.conformance.search_shrink import shrunk
from tests.conformance.search_world import SYSTEM_HEAP, FakeWorld, Observation, Op, RealMachine, RealWorld

HERE = Path(__file__).parent
PROGRAM_STEPS = 400
CHECKPOINT_EVERY = 24
_MOST_SHRUNK = 12


class DivergenceError(Exception):
    """The two kernels answered differently to the last operation of *program*."""

    def __init__(self, program: Sequence[Op], fake: Observation, real: Observation) -> None:
        super().__init__(f"{label_of(program[-1])}: the fake says {outcome_of(fake)}, the kernel {outcome_of(real)}")
        self.program, self.fake, self.real = list(program), fake, real


class Search:
    """All that one call does, and what it counted."""

    def __init__(self, machine: RealMachine, folder: Path | None, profile: str | None = None) -> None:
        self.machine = machine
        self.profile = profile or nearest_profile(os.uname().release).name
        self.folder = folder
        self.steps = 0
        self.checkpoints = 0
        self.programs = 0
        self.unmodelled = 0
        self.outcomes: collections.Counter[tuple[str, str]] = collections.Counter()
        self.refusals: collections.Counter[tuple[Any, int, int]] = collections.Counter()
        self.found: list[str] = []
        self.recorder: TextIO | None = None
        self._reported: set[str] = set()

    def random_program(self, seed: str, steps: int) -> None:
        """One program of *steps* operations."""
        fake, real = FakeWorld(self.profile, has_heap=os.path.exists(SYSTEM_HEAP)), RealWorld(self.machine)
        ops: list[Op] = []
        answers: list[tuple[str, int]] = []
        try:
            generator = Generator(seed, fake)
            ops_to_ask = answerable(generator.ops(), merges_pages=self.machine.merges_pages)
            for count, op in enumerate(ops_to_ask, 1):
                self._both(fake, real, op, ops, answers)
                if count % CHECKPOINT_EVERY == 0 or count >= steps:
                    self._both(fake, real, CHECKPOINT, ops, answers)
                if count >= steps:
                    break
            self.steps += steps
        except DivergenceError as divergence:
            self.steps += len(ops)
            self.report(divergence, seed)
        finally:
            real.close()
            fake.close()
            self.refusals.update(fake.refusals)
        self.programs += 1
        if self.recorder is not None and len(answers) == len(ops):
            line = [[to_json(op), *answer] for op, answer in zip(ops, answers, strict=True)]
            self.recorder.write(json.dumps(line, separators=(",", ":")) + "\n")

    def _both(
        self, fake: FakeWorld, real: RealWorld, op: Op, ops: list[Op], answers: list[tuple[str, int]] | None
    ) -> None:
        try:
            of_fake = observe(fake, op)
        except UnmodelledCallError:
            self.unmodelled += 1
            return
        of_real = observe(real, op)
        ops.append(op)
        if of_fake != of_real:
            raise DivergenceError(ops, of_fake, of_real)
        if answers is None:
            return
        if op == CHECKPOINT:
            self.checkpoints += 1
        else:
            self.outcomes[label_of(op), outcome_of(of_real)] += 1
        if self.recorder is not None:
            answers.append((outcome_of(of_real), digest(of_real)))

    def replay(self, program: Iterable[Op]) -> DivergenceError | None:
        """Run a program that was there before; the first difference."""
        fake, real = FakeWorld(self.profile, has_heap=os.path.exists(SYSTEM_HEAP)), RealWorld(self.machine)
        ops: list[Op] = []
        try:
            for op in program:
                self._both(fake, real, op, ops, None)
        except DivergenceError as divergence:
            return divergence
        finally:
            real.close()
            fake.close()
        return None

    def report(self, divergence: DivergenceError, origin: str) -> None:
        """Shrink, print, save; one of a kind that was reported before is only counted."""
        if str(divergence) in self._reported or len(self._reported) > _MOST_SHRUNK:
            self.found.append(f"{origin}: {divergence} (again)")
            return
        self._reported.add(str(divergence))
        where = divergence.program[-1][0]
        recorder, self.recorder = self.recorder, None

        def fails(program: Sequence[Op]) -> bool:
            again = self.replay(program)
            return again is not None and again.program[-1][0] == where

        small = divergence.program
        again: DivergenceError | None = None
        if fails(small):
            small = shrunk(small, fails)
            again = self.replay(small)
        self.recorder = recorder
        shown = again or divergence
        print(f"\n--- divergence from {origin}{'' if again else ' (did not come again)'}: {shown}")
        print(as_python(small))
        print(f"# the fake:   {shown.fake!r}\n# the kernel: {shown.real!r}", flush=True)
        self.found.append(f"{origin}: {shown}")
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = "".join(char if char.isalnum() else "-" for char in origin)
            content = {"kernel": os.uname().release, "fake": repr(shown.fake), "real": repr(shown.real)}
            content |= {"program": to_json(small)}
            (self.folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")

    def summary(self) -> dict[str, Any]:
        """What was reached, for the log."""
        operations: dict[str, dict[str, int]] = {}
        for (label, outcome), count in sorted(self.outcomes.items()):
            operations.setdefault(label, {})[outcome] = count
        places: collections.Counter[str] = collections.Counter()
        for place, count in self.refusals.items():
            places[place_name(*place)] += count
        return {
            "kernel": os.uname().release,
            "steps": self.steps,
            "checkpoints": self.checkpoints,
            "programs": self.programs,
            "unmodelled": self.unmodelled,
            "divergences": self.found,
            "operations": operations,
            "refusals": dict(sorted(places.items())),
        }


def known_programs(folders: Iterable[Path | None]) -> list[tuple[str, list[Op]]]:
    """What earlier searches found and saved."""
    files = [file for folder in folders if folder is not None for file in sorted(folder.glob("*.json"))]
    return [(file.name, list(from_json(json.loads(file.read_text())["program"]))) for file in files]


def print_summary(summary: dict[str, Any], seconds: float, seeds: Sequence[int]) -> None:
    """The statistics as a table."""
    for label, outcomes in summary["operations"].items():
        print(f"{label:42} " + "  ".join(f"{outcome} {count}" for outcome, count in outcomes.items()))
    print(
        f"{summary['steps']} steps in {summary['programs']} programs of {len(seeds)} seeds on {summary['kernel']}, "
        f"{summary['checkpoints']} looks at everything, {summary['unmodelled']} operations the fake does not know; "
        f"{seconds:.0f} s: {len(summary['divergences'])} divergences"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.search", description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000, help="operations altogether (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=20, help="how many seeds share the steps (default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="stop between two programs after this time")
    parser.add_argument("--log", type=Path, help="a JSON file for the statistics; divergences go beside it")
    parser.add_argument("--record", type=Path, help="a .jsonl.xz file for the programs and the kernel's answers")
    parser.add_argument("--profile", help="the release that the fake answers as (default: the kernel's)")
    parser.add_argument("--again", type=Path, help="run the programs in this folder, shrink what differs, and end")
    options = parser.parse_args(arguments)
    folder = options.log.parent / "divergences" if options.log is not None else None
    signal.signal(signal.SIGALRM, lambda *_: None)
    began = time.monotonic()
    search = Search(RealMachine(), folder or HERE / "divergences", options.profile)
    if options.again is not None:
        for name, program in known_programs([options.again]):
            divergence = search.replay(program)
            if divergence is None:
                print(f"{name}: no difference side by side")
            else:
                search.report(divergence, name.removesuffix(".json"))
        search.machine.close()
        return 1 if search.found else 0
    for name, program in known_programs({HERE / "divergences", folder}):
        if (divergence := search.replay(program)) is not None:
            print(f"{name}: still there: {divergence}\n{as_python(divergence.program)}")
            search.found.append(f"{name}: {divergence}")
    seeds = range(options.seed, options.seed + options.seeds)
    if options.record is not None:
        search.recorder = lzma.open(options.record, "wt")  # noqa: SIM115 - closed below
    programs = -(-options.steps // PROGRAM_STEPS)
    for number in range(programs):
        if options.seconds is not None and time.monotonic() - began > options.seconds:
            break
        # Seeds take turns, so that a search that is cut short has seen all of them.
        seed, index = seeds[number % len(seeds)], number // len(seeds)
        search.random_program(f"{seed}.{index}", min(PROGRAM_STEPS, options.steps - number * PROGRAM_STEPS))
    if search.recorder is not None:
        search.recorder.close()
    search.machine.close()
    summary = search.summary()
    seconds = time.monotonic() - began
    print_summary(summary, seconds, seeds)
    if options.log is not None:
        options.log.parent.mkdir(parents=True, exist_ok=True)
        log = summary | {"seeds": list(seeds), "seconds": round(seconds, 1)}
        options.log.write_text(json.dumps(log, indent=1) + "\n")
    return 1 if summary["divergences"] else 0


if __name__ == "__main__":
    sys.exit(main())
