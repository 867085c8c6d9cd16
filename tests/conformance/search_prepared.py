"""The long search in two halves: the fake answers on the host, a kernel in an emulator only has to confirm.

    python -m tests.conformance.search_prepared write FILE --steps 1000000 --seed 1 --seeds 20 --profile 6.12
    python -m tests.conformance.search_prepared check FILE [--first N] [--seconds S] [--log FILE] [--record FILE]

Same programs, same observations as :mod:`tests.conformance.search`, several times as many steps in the same time: an
emulated processor does not spend it on the fake. A program that is answered differently is run again side by side.
"""

from __future__ import annotations

import argparse
import collections
import gc
import json
import lzma
import marshal
import signal
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dmasync.fakes.kernel import UnmodelledCallError
from dmasync.fakes.kernel.profile import DEFAULT_PROFILE
from tests.conformance.search import CHECKPOINT_EVERY, PROGRAM_STEPS, DivergenceError, Search, print_summary
from tests.conformance.search_generator import Generator
from tests.conformance.search_places import place_name
from tests.conformance.search_program import CHECKPOINT, digest, label_of, observe, outcome_of, to_json
from tests.conformance.search_world import FakeWorld, Observation, Op, RealMachine, RealWorld

_COLLECT_EVERY = 40


def write(file: Path, steps: int, seeds: Sequence[int], profile: str = DEFAULT_PROFILE) -> None:
    """Programs of *steps* operations together, with the answers of the fake with *profile*."""
    with file.open("wb") as stream:
        for number in range(-(-steps // PROGRAM_STEPS)):
            seed = f"{seeds[number % len(seeds)]}.{number // len(seeds)}"
            marshal.dump(_answered(seed, min(PROGRAM_STEPS, steps - number * PROGRAM_STEPS), profile), stream)


def _answered(seed: str, steps: int, profile: str) -> tuple[Any, ...]:
    world = FakeWorld(profile)
    world.bytes_as = zlib.crc32
    answers: list[tuple[Op, Observation, str]] = []
    outcomes: collections.Counter[tuple[str, str]] = collections.Counter()
    unmodelled = count = 0
    try:
        for op in Generator(seed, world).ops():
            count += 1
            try:
                seen = observe(world, op)
            except UnmodelledCallError:
                unmodelled += 1
            else:
                outcome = outcome_of(seen)
                answers.append((op, seen, outcome))
                outcomes[label_of(op), outcome] += 1
            if count % CHECKPOINT_EVERY == 0 or count >= steps:
                answers.append((CHECKPOINT, observe(world, CHECKPOINT), "ok"))
            if count >= steps:
                break
    finally:
        world.close()
    places: dict[str, int] = {}
    for place, times in world.refusals.items():
        name = place_name(*place)
        places[name] = places.get(name, 0) + times
    return (seed, count, unmodelled, answers, dict(outcomes), places)


def _with_checksums(everything: Observation) -> Observation:
    """A look at everything with checksums where it has the bytes of mappings."""
    return tuple(
        (seen[0], zlib.crc32(seen[1])) if len(seen) == 2 and seen[1] and isinstance(seen[1], bytes) else seen
        for seen in everything
    )


def _prepared(file: Path, first: int) -> Iterator[tuple[Any, ...]]:
    with file.open("rb") as stream:
        index = 0
        while True:
            try:
                program = marshal.load(stream)  # noqa: S302 - written by this very module
            except EOFError:
                return
            if index >= first:
                yield program
            index += 1


class Check:
    """All programs of a file on the real kernel."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.places: collections.Counter[str] = collections.Counter()
        self.seeds: set[str] = set()
        self.last = -1

    def program(self, prepared: tuple[Any, ...]) -> None:
        """One program; a difference is looked at side by side."""
        seed, count, unmodelled, answers, outcomes, places = prepared
        world = RealWorld(self.search.machine)
        # Of all bytes of all mappings a checksum is compared: to write them out took most of the time. A recording
        # has a digest of the bytes themselves.
        recorder = self.search.recorder
        if recorder is None:
            world.bytes_as = zlib.crc32
        line = []
        wrong: tuple[int, Any] | None = None
        try:
            for index, (op, wanted, outcome) in enumerate(answers):
                seen = observe(world, op)
                if recorder is not None:
                    line.append([to_json(op), outcome, digest(seen)])
                    seen = _with_checksums(seen) if op == CHECKPOINT else seen
                if seen != wanted:
                    wrong = index, seen
                    break
        finally:
            world.close()
        self.seeds.add(seed.partition(".")[0])
        search = self.search
        search.programs += 1
        if wrong is not None:
            search.steps += wrong[0]
            ops = [op for op, _, _ in answers[: wrong[0] + 1]]
            again = search.replay(ops)
            search.report(again or DivergenceError(ops, answers[wrong[0]][1], wrong[1]), seed)
            return
        search.steps += count
        search.unmodelled += unmodelled
        search.checkpoints += len(answers) - count + unmodelled
        search.outcomes.update(outcomes)
        self.places.update(places)
        if recorder is not None:
            recorder.write(json.dumps(line, separators=(",", ":")) + "\n")

    def write_log(self, file: Path | None, first: int, seconds: float) -> dict[str, Any]:
        """The statistics so far, as they are in *file* then; it holds a whole log at any time."""
        log = self.search.summary() | {"refusals": dict(sorted(self.places.items())), "first": first}
        log |= {"seeds": sorted(int(seed) for seed in self.seeds), "seconds": round(seconds, 1)}
        if file is not None:
            part = file.with_name(file.name + ".part")
            part.write_text(json.dumps(log, indent=1) + "\n")
            part.replace(file)
        return log


def check(options: argparse.Namespace) -> int:
    """Run what was written; the same report as the search's."""
    folder = (options.log or options.file).parent / "divergences"
    began = time.monotonic()
    search = Search(RealMachine(), folder)
    checked = Check(search)
    gc.disable()  # until it is asked for below: every step's garbage is its own
    for number, prepared in enumerate(_prepared(options.file, options.first)):
        if options.seconds is not None and time.monotonic() - began > options.seconds:
            break
        if options.record is not None and number < options.record_programs:
            search.recorder = search.recorder or lzma.open(options.record, "wt")  # noqa: SIM115 - closed below
        elif search.recorder is not None:
            search.recorder.close()
            search.recorder = None
        checked.program(prepared)
        if number % _COLLECT_EVERY == 0:
            gc.collect()
            # A machine that is stopped in the middle has not worked for nothing.
            checked.write_log(options.log, options.first, time.monotonic() - began)
    if search.recorder is not None:
        search.recorder.close()
    search.machine.close()
    gc.enable()
    summary = checked.write_log(options.log, options.first, time.monotonic() - began)
    print_summary(summary, summary["seconds"], summary["seeds"])
    return 1 if summary["divergences"] else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.search_prepared", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    writer, checker = commands.add_parser("write"), commands.add_parser("check")
    for command in (writer, checker):
        command.add_argument("file", type=Path)
    writer.add_argument("--steps", type=int, default=1_000_000)
    writer.add_argument("--seed", type=int, default=1)
    writer.add_argument("--seeds", type=int, default=20)
    writer.add_argument("--profile", default=DEFAULT_PROFILE, help="the release that answers (default: %(default)s)")
    checker.add_argument("--first", type=int, default=0, help="skip so many programs")
    checker.add_argument("--seconds", type=float, help="stop between two programs after this time")
    checker.add_argument("--log", type=Path)
    checker.add_argument("--record", type=Path, help="a .jsonl.xz file for the first programs and their answers")
    checker.add_argument("--record-programs", type=int, default=120)
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, lambda *_: None)
    if options.command == "write":
        write(options.file, options.steps, range(options.seed, options.seed + options.seeds), options.profile)
        return 0
    return check(options)


if __name__ == "__main__":
    sys.exit(main())
