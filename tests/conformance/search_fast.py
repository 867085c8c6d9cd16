"""The long search: the fake here, a kernel in a virtual machine that is asked by a small C program, at the same time.

    python -m tests.conformance.search_fast --steps 1000000 --kernel debian:6.12 [--log out/log.json] [--seed 1] …

Same programs, same observations as :mod:`tests.conformance.search`. The programs run on the fake, which notes the calls
that they make; ``executor.c`` makes them of the kernel; its answers go once more through the code that ran the program,
and what is observed is compared. A program that differs is asked once more, and what comes again is shrunk side by side
in a machine of its own. The log is complete at any time. Exit status: 0 no difference, 1 at least one.
"""

# ruff: noqa: T201 - a command: its results go to standard output
from __future__ import annotations

import argparse
import collections
import gc
import json
import lzma
import mmap
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from dmasync.fakes.kernel import UnmodelledCallError
from dmasync.fakes.kernel.profile import nearest_profile
from tests.conformance.search import CHECKPOINT_EVERY, PROGRAM_STEPS, known_programs, print_summary
from tests.conformance.search_calls import RecordingWorld
from tests.conformance.search_executor import Answered, Executor, ExecutorError
from tests.conformance.search_generator import Generator
from tests.conformance.search_memory import Arena
from tests.conformance.search_places import place_name
from tests.conformance.search_program import CHECKPOINT, answerable, digest, label_of, observe, outcome_of, to_json
from tests.conformance.search_replay import Answers, OffTheTrackError, ReplayWorld
from tests.conformance.search_world import Observation, Op, World

HERE = Path(__file__).parent
PROGRAMS_AT_ONCE = 25
AHEAD = 3
"""So many files of programs may wait for the executor."""
_START_SECONDS = 600
_PATIENCE_SECONDS = 240
_LOG_EVERY = 4
_MOST_RESTARTS = 20
_MOST_SHRUNK = 12


Waiting = collections.deque[tuple[int, list["Program"]]]


class Program:
    """One random program, what the fake answered, and the calls that it made."""

    def __init__(self, seed: str, steps: int, world: RecordingWorld, ops: Iterator[Op]) -> None:
        """Run *steps* of *ops* in *world*, and close it."""
        self.seed = seed
        self.huge_page = world.huge_page
        self.calls = b""
        self.answers: list[tuple[Op, Observation, str]] = []
        self.outcomes: collections.Counter[tuple[str, str]] = collections.Counter()
        self.count = self.unmodelled = 0
        self.asked_before = False
        try:
            for op in ops:
                if op == CHECKPOINT:
                    self._run(world, op)
                    continue
                self.count += 1
                self._run(world, op)
                if self.count % CHECKPOINT_EVERY == 0 or self.count >= steps:
                    self._run(world, CHECKPOINT)
                if self.count >= steps:
                    break
            self.calls = bytes(world.calls.data)
            self.by_python = list(world.calls.by_python)
        finally:
            world.close()
        self.places: collections.Counter[str] = collections.Counter()
        for place, times in world.refusals.items():
            self.places[place_name(*place)] += times

    def _run(self, world: RecordingWorld, op: Op) -> None:
        mark = world.calls.mark()
        try:
            seen = observe(world, op)
        except UnmodelledCallError:
            world.calls.back_to(mark)
            self.unmodelled += 1
            return
        outcome = outcome_of(seen)
        self.answers.append((op, seen, outcome))
        if op != CHECKPOINT:
            self.outcomes[label_of(op), outcome] += 1

    def first_difference(self, world: World) -> tuple[int, Any] | None:
        """Run the program in *world*, too: the place of the first answer that differs, and what it was."""
        for index, (op, wanted, _) in enumerate(self.answers):
            try:
                seen = observe(world, op)
            except OffTheTrackError as failure:
                return index, f"something after which other calls follow ({failure})"
            except (OSError, ValueError, LookupError, AssertionError) as failure:
                return index, f"{type(failure).__name__}: {failure}"
            if seen != wanted:
                return index, seen
        return None


def of_memfds(ops: Iterator[Op]) -> Iterator[Op]:
    """Those of *ops* that any Linux can answer, without a udmabuf, a heap or vgem."""
    for op in ops:
        inner = op[1] if op[0] == "nofd" else op
        if inner[0] not in ("open", "ioctl", "fence", "signal", "limits"):
            yield op


class Options(argparse.Namespace):
    """The command line."""

    steps: int
    seed: int
    seeds: int
    first: int
    seconds: float | None
    log: Path | None
    profile: str | None
    record: Path | None
    record_programs: int
    memfds_alone: bool
    steering: Path | None
    guest: list[str] | None
    machine: str | None


class FastSearch:
    """All that one call does, and what it counted."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.arena = Arena()
        self.executor = Executor(options.guest, options.machine)
        self.kernel = self.profile = ""
        self.keep_memfds = False
        self.merges_pages = self.has_heap = True
        self.machine = ""
        self.huge_pages = 0
        self.steps = self.checkpoints = self.programs = self.unmodelled = 0
        self.outcomes: collections.Counter[tuple[str, str]] = collections.Counter()
        self.places: collections.Counter[str] = collections.Counter()
        self.found: list[str] = []
        self.unconfirmed: list[str] = []
        self.differing: list[tuple[str, list[Op]]] = []
        self.seeds: set[int] = set()
        self.restarts = 0
        self.asking_seconds = 0.0
        self.recorder: TextIO | None = None
        self._again: list[Program] = []
        steering = options.steering
        self._weights = None if steering is None else json.loads(steering.read_text(encoding="utf-8"))
        self._began = time.monotonic()

    def start(self) -> None:
        """Wait for the kernel, and learn what it is."""
        said = self.executor.hello(_START_SECONDS)
        if said.page_size % mmap.PAGESIZE:
            raise ExecutorError(f"the kernel's pages have {said.page_size} bytes, fewer than this host's")
        if said.page_size != self.arena.page:
            self.arena.close()
            self.arena = Arena(said.page_size)
        if not said.has_vgem and not self.options.memfds_alone:
            raise ExecutorError("the kernel has no vgem, which makes the fences")
        self.kernel = said.release
        nearest = nearest_profile(said.release)
        self.profile = self.options.profile or nearest.name
        # Before 6.11 a udmabuf maps its memfd's own pages, which are spoiled when the memfd goes first.
        self.keep_memfds = not nearest.udmabuf_pins_folios
        self.merges_pages, self.has_heap, self.machine = said.merges_pages, said.has_heap, said.machine
        # Where files are kept longer than the fake keeps them, so are their huge pages.
        self.huge_pages = 0 if self.keep_memfds else said.huge_pages

    def run(self) -> None:
        """Everything that was asked for."""
        self.start()
        began = time.monotonic()
        waiting: Waiting = collections.deque()
        programs = self._programs(began)
        exhausted = False
        heard = time.monotonic()
        gc.disable()  # until it is asked for below
        while True:
            if not exhausted and len(waiting) < AHEAD:
                batch, self._again = self._again, []
                for program in programs:
                    batch.append(program)
                    if len(batch) >= PROGRAMS_AT_ONCE:
                        break
                else:
                    exhausted = True
                if batch:
                    waiting.append((self.executor.send([program.calls for program in batch]), batch))
            elif self._again:
                batch, self._again = self._again, []
                waiting.append((self.executor.send([program.calls for program in batch]), batch))
            if not waiting:
                break
            number, batch = waiting[0]
            alive = self.executor.is_alive()  # before it is looked what it has left
            answered = self.executor.answers(number)
            for answer in answered:
                self._compare(batch.pop(0), answer)
            if not batch:
                self.executor.done(number)
                waiting.popleft()
                self.asking_seconds = time.monotonic() - began
                if number % _LOG_EVERY == 0:
                    gc.collect()
                    self.write_log()
            if answered:
                heard = time.monotonic()
            elif time.monotonic() - heard > _PATIENCE_SECONDS or not alive:
                waiting = self._start_again(waiting)
                heard = time.monotonic()
            elif exhausted or len(waiting) >= AHEAD:
                time.sleep(0.005)
        gc.enable()
        self.asking_seconds = time.monotonic() - began
        if self.recorder is not None:
            self.recorder.close()
            self.recorder = None

    def _programs(self, began: float) -> Iterator[Program]:
        options = self.options
        if not options.memfds_alone:
            for name, ops in known_programs([HERE / "divergences"]):
                yield Program(name, len(ops), self._world(), self._answerable(ops))
        for number in range(options.first, -(-options.steps // PROGRAM_STEPS)):
            if options.seconds is not None and time.monotonic() - began > options.seconds:
                return
            # Seeds take turns, so that a search that is cut short has seen all of them.
            seed = options.seed + number % options.seeds
            self.seeds.add(seed)
            steps = min(PROGRAM_STEPS, options.steps - number * PROGRAM_STEPS)
            world, name = self._world(), f"{seed}.{number // options.seeds}"
            ops = Generator(name, world, self._weights).ops()
            yield Program(name, steps, world, self._answerable(of_memfds(ops) if options.memfds_alone else ops))

    def _answerable(self, ops: Iterable[Op]) -> Iterator[Op]:
        return answerable(ops, merges_pages=self.merges_pages)

    def _world(self) -> RecordingWorld:
        contents = self.options.record is not None
        return RecordingWorld(
            self.profile,
            self.arena,
            keep_memfds=self.keep_memfds,
            contents=contents,
            has_heap=self.has_heap or self.options.memfds_alone,
            machine=self.machine,
            huge_pages=self.huge_pages,
        )

    def _start_again(self, waiting: Waiting) -> Waiting:
        """The machine died or hangs: ask a new one, each program for itself until it is known which it was."""
        self.restarts += 1
        _, batch = waiting[0]
        how = "the kernel hung" if self.executor.is_alive() else "the kernel died"
        if len(batch) == 1:
            culprit = batch.pop()
            self._tell(culprit, len(culprit.answers) - 1, how)
        self.executor.close(patience=5)
        if self.restarts > _MOST_RESTARTS:
            raise ExecutorError(f"{how} {self.restarts} times")
        self.executor = Executor(self.options.guest, self.options.machine)
        self.executor.hello(_START_SECONDS)
        alone = [[program] for program in batch]
        return collections.deque(
            (self.executor.send([program.calls for program in left]), left)
            for left in [*alone, *(left for _, left in list(waiting)[1:])]
        )

    def _compare(self, program: Program, answered: Answered) -> None:
        if not program.asked_before:
            self.programs += 1
        if answered.signal:
            name = signal.Signals(answered.signal).name
            self._tell(program, len(program.answers) - 1, f"the executor died of {name}")
            return
        answers = Answers(memoryview(answered.data), program.by_python)
        contents = self.options.record is not None
        world = ReplayWorld(
            answers,
            self.arena,
            contents=contents,
            machine=self.machine,
            huge_page=program.huge_page,
        )
        wrong = program.first_difference(world)
        if wrong is not None:
            index, seen = wrong
            if not program.asked_before:
                program.asked_before = True
                self.unconfirmed.append(program.seed)
                self._again.append(program)
                return
            self.unconfirmed.remove(program.seed)
            op, wanted, outcome = program.answers[index]
            said = seen if isinstance(seen, str) else outcome_of(seen)
            self._tell(program, index, f"{label_of(op)}: the fake says {outcome}, the kernel {said}")
            if len(self.found) <= _MOST_SHRUNK:
                print(f"    {op!r}\n    the fake:   {wanted!r}\n    the kernel: {seen!r}", flush=True)
            return
        self._count(program)
        self._record(program)

    def _count(self, program: Program) -> None:
        self.steps += program.count
        self.unmodelled += program.unmodelled
        self.checkpoints += len(program.answers) - program.count + program.unmodelled
        self.outcomes.update(program.outcomes)
        self.places.update(program.places)

    def _tell(self, program: Program, index: int, what: str) -> None:
        self.steps += index
        self.found.append(f"{program.seed}: {what}")
        self.differing.append((program.seed, [op for op, _, _ in program.answers[: index + 1]]))
        print(f"--- {program.seed}, answer {index} of {len(program.answers)}: {what}", flush=True)

    def _record(self, program: Program) -> None:
        options = self.options
        if options.record is None or options.record_programs <= 0:
            return
        options.record_programs -= 1
        self.recorder = self.recorder or lzma.open(options.record, "wt")  # noqa: SIM115 - closed at the end
        line = [[to_json(op), outcome, digest(seen)] for op, seen, outcome in program.answers]
        self.recorder.write(json.dumps(line, separators=(",", ":")) + "\n")

    def write_log(self) -> dict[str, Any]:
        """The statistics so far, as they are in the log then; it is whole at any time."""
        operations: dict[str, dict[str, int]] = {}
        for (label, outcome), count in sorted(self.outcomes.items()):
            operations.setdefault(label, {})[outcome] = count
        log = {
            "kernel": self.kernel,
            "architecture": self.machine,
            "page_size": self.arena.page,
            "has_heap": self.has_heap,
            "profile": self.profile,
            "steps": self.steps,
            "checkpoints": self.checkpoints,
            "programs": self.programs,
            "unmodelled": self.unmodelled,
            "divergences": self.found,
            "did_not_come_again": self.unconfirmed,
            "restarts": self.restarts,
            "first": self.options.first,
            "weights": self._weights,
            "seeds": sorted(self.seeds),
            "seconds": round(self.asking_seconds, 1),
            "operations": operations,
            "refusals": dict(sorted(self.places.items())),
        }
        if self.options.log is not None:
            part = self.options.log.with_name(self.options.log.name + ".part")
            part.write_text(json.dumps(log, indent=1) + "\n")
            part.replace(self.options.log)
        return log

    def close(self) -> float:
        """End the executor; the seconds in which it had something to do."""
        self.arena.close()
        return self.executor.close()

    def shrink(self) -> None:
        """Run what differed side by side, in a machine of its own, which shrinks and prints it."""
        if self.options.guest is None or not self.differing:
            return
        folder = (self.options.log or HERE / "log").parent / "again"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for seed, ops in self.differing[:_MOST_SHRUNK]:
            (folder / f"{seed.removesuffix('.json')}.json").write_text(json.dumps({"program": to_json(ops)}))
        command = [sys.executable, "-m", "dmasync", "vm", "--timeout", "1800", *self.options.guest]
        # A guest of another architecture has a Python of its own.
        python = sys.executable if self.options.machine in (None, platform.machine()) else "python"
        command += ["--output", str(folder), "--", python, "-m", "tests.conformance.search", "--again"]
        command += [str(folder), "--profile", self.profile, "--log", str(folder / "log.json")]
        subprocess.run(command, cwd=HERE.parents[1], check=False)


def parsed(arguments: Sequence[str] | None = None) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.search_fast", description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000, help="operations altogether (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=20, help="how many seeds share the steps (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="skip so many programs")
    parser.add_argument("--seconds", type=float, help="write no further program after this time")
    parser.add_argument("--log", type=Path, help="a JSON file for the statistics; programs that differ go beside it")
    parser.add_argument("--profile", help="the release that the fake answers as (default: the kernel's)")
    parser.add_argument("--record", type=Path, help="a .jsonl.xz file for the first programs and their answers")
    parser.add_argument("--record-programs", type=int, default=120, help="how many (default: %(default)s)")
    parser.add_argument("--here", action="store_true", help="ask this machine's own kernel, as root")
    parser.add_argument("--steering", type=Path, help="what search_steer learned, so that rare places come more often")
    parser.add_argument("--memfds-alone", action="store_true", help="only what a kernel without udmabuf answers, too")
    for option in ("--kernel", "--build", "--arch", "--config", "--memory"):
        parser.add_argument(option, help=f"as dmasync vm's {option}")
    parser.add_argument("--append", action="append", default=[], help="as dmasync vm's --append")
    options = parser.parse_args(arguments, Options())
    options.guest = None
    options.machine = {"arm64": "aarch64", "x86-64": "x86_64", None: None}.get(options.arch, options.arch)
    if not options.here:
        options.guest = [f"--append={word}" for word in options.append]
        for name in ("kernel", "build", "arch", "config", "memory"):
            if (value := getattr(options, name)) is not None:
                options.guest += [f"--{name}", value]
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    options = parsed(arguments)
    signal.signal(signal.SIGALRM, lambda *_: None)
    if options.log is not None:
        options.log.parent.mkdir(parents=True, exist_ok=True)
    search = FastSearch(options)
    try:
        search.run()
    except ExecutorError as failure:
        search.found.append(f"the search ended early: {failure}")
    except KeyboardInterrupt:
        search.found.append("the search ended early: interrupted")
        search.differing.clear()  # no other machine now
    finally:
        summary = search.write_log()
        busy = search.close()
    print_summary(summary, summary["seconds"], summary["seeds"])
    if summary["seconds"]:
        print(
            f"{summary['steps'] / summary['seconds']:.0f} steps a second; the kernel was asked for {busy:.0f} s of it"
        )
    search.shrink()
    return 1 if summary["divergences"] else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the machine is to be ended, too
    sys.exit(main())
