"""The long search's own parts, asked of the kernel that the tests run on: its memfds, since it has no udmabuf.

A C compiler (``cc``, with a static libc) is needed: without one these tests fail and say so.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dmasync.fakes.kernel import FakeKernel
from dmasync.fakes.kernel.profile import nearest_profile
from tests.conformance import search_calls, search_executor, search_fast
from tests.conformance.search_calls import CALL, Calls, Code, RecordingWorld, translated
from tests.conformance.search_executor import Answered, Executor, ExecutorError, compiled
from tests.conformance.search_fast import Program, of_memfds
from tests.conformance.search_generator import Generator
from tests.conformance.search_memory import Arena
from tests.conformance.search_program import answerable, observe
from tests.conformance.search_record import first_difference
from tests.conformance.search_replay import Answers, ReplayWorld
from tests.conformance.search_world import FakeWorld, Op, RealMachine, RealNoneLeft, RealWorld

HOST = nearest_profile(os.uname().release).name
"""The profile of the kernel that the tests run on."""
PAGE = 4096
RW = 3


class Machine(RealMachine):
    """The tests' own kernel, without vgem."""

    def __init__(self) -> None:
        self._fdinfo = {}
        self.mapped_pages_outlive_their_file = True
        self.no_descriptors = RealNoneLeft(*resource.getrlimit(resource.RLIMIT_NOFILE))

    def close(self) -> None:
        for info in self._fdinfo.values():
            os.close(info)


@pytest.fixture(autouse=True)
def ticks() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    made = Arena()
    yield made
    made.close()


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    made = Executor(None)
    made.hello(20)
    yield made
    made.close()


def asked(executor: Executor, *programs: bytes) -> list[Answered]:
    number = executor.send(programs)
    found: list[Answered] = []
    while len(found) < len(programs):
        found += executor.answers(number)
        assert executor.is_alive()
    executor.done(number)
    return found


def recorded(seed: str, arena: Arena, steps: int = 300) -> Program:
    world = RecordingWorld(HOST, arena, keep_memfds=False)
    return Program(seed, steps, world, of_memfds(Generator(seed, world).ops()))


def of(arena: Arena, *ops: Op) -> Program:
    return Program("one", len(ops), RecordingWorld(HOST, arena, keep_memfds=False), iter(ops))


def replayed(program: Program, answer: Answered, arena: Arena) -> ReplayWorld:
    return ReplayWorld(Answers(memoryview(answer.data), program.by_python), arena)


def test_the_executor_and_python_ask_a_kernel_the_same(executor: Executor, arena: Arena) -> None:
    """What C was answered is what Python's backend is answered, operation by operation."""
    programs = [recorded(f"host.{index}", arena) for index in range(12)]
    machine = Machine()
    compared = 0
    for program, answer in zip(programs, asked(executor, *(program.calls for program in programs)), strict=True):
        there, here = replayed(program, answer, arena), RealWorld(machine)
        here.bytes_as = zlib.crc32
        try:
            for op, of_the_fake, _ in program.answers:
                said = observe(here, op)
                assert observe(there, op) == said, op
                compared += 1
                if said != of_the_fake:
                    break  # other calls follow now: the two have gone different ways
        finally:
            here.close()
    machine.close()
    assert compared > 1500


def test_a_fake_that_answers_otherwise_is_found(
    executor: Executor, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops: list[Op] = [("memfd", 1, "a", 3), ("ftruncate", 1, PAGE), ("lseek", 1, 0, 1), ("lseek", 1, 5, 0)]
    right = of(arena, *ops)
    real = FakeKernel.lseek
    monkeypatch.setattr(FakeKernel, "lseek", lambda self, fd, at, whence: real(self, fd, at, whence) + (at == 5))
    wrong = of(arena, *ops)
    answers = asked(executor, right.calls, wrong.calls)
    assert right.first_difference(replayed(right, answers[0], arena)) is None
    found = wrong.first_difference(replayed(wrong, answers[1], arena))
    assert found is not None
    assert wrong.answers[found[0]][0] == ops[3]
    assert found[1][0] == 5


def test_a_byte_that_the_fake_loses_is_found_by_its_checksum(
    executor: Executor, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops: list[Op] = [
        ("memfd", 1, "a", 3),
        ("ftruncate", 1, 3 * PAGE),
        ("mmap", 2, 1, 3 * PAGE, RW, 1, 0),
        ("write", 2, PAGE + 700, b"\x80"),
    ]
    right = of(arena, *ops)
    assert right.first_difference(replayed(right, asked(executor, right.calls)[0], arena)) is None
    do_write = RecordingWorld.do_write

    def loses(self: RecordingWorld, var: int, at: int, data: bytes) -> Any:
        seen = do_write(self, var, at, data)
        self.held[var].mapping._mapping[at : at + len(data)] = bytes(len(data))
        return seen

    monkeypatch.setattr(RecordingWorld, "do_write", loses)
    wrong = of(arena, *ops)
    found = wrong.first_difference(replayed(wrong, asked(executor, wrong.calls)[0], arena))
    assert found is not None
    assert wrong.answers[found[0]][0] == ("checkpoint",)


def test_what_touching_a_mapping_kills_is_an_answer(executor: Executor, arena: Arena) -> None:
    calls = Calls()
    slot = 1 << 30
    calls.add(Code.MEMFD, 0, 0, slot, 0, b"cut\0")
    calls.add(Code.FTRUNCATE, slot, PAGE)
    calls.add(Code.MMAP, slot, PAGE, 0, 0, (3).to_bytes(8, "little") + (1).to_bytes(8, "little"))
    calls.add(Code.FTRUNCATE, slot, 0)
    calls.add(Code.PEEK, 0, 0, 16)
    calls.add(Code.CHECKSUM, 0)
    calls.add(Code.GET_SEALS, slot)
    (answer,) = asked(executor, bytes(calls.data))
    assert answer.signal == 0
    answers = Answers(memoryview(answer.data), [])
    for code in (Code.MEMFD, Code.FTRUNCATE, Code.MMAP, Code.FTRUNCATE):
        assert answers.next(code)[0] >= 0
    assert [answers.next(code)[0] for code in (Code.PEEK, Code.CHECKSUM)] == [-1001, -1001]
    assert answers.value(Code.GET_SEALS) == 1


def test_a_program_that_kills_the_executor_is_told_and_the_others_go_on(executor: Executor, arena: Arena) -> None:
    good = recorded("good", arena)
    bad = CALL.pack(Code.IOCTL, 1 << 30, 0, 0, 0, 0)  # its argument is longer than all memory
    before, killed, after = asked(executor, good.calls, bad, good.calls)
    assert killed.signal == signal.SIGSEGV
    assert before.signal == after.signal == 0
    assert good.first_difference(replayed(good, before, arena)) == good.first_difference(replayed(good, after, arena))


def test_a_program_leaves_nothing_open_in_the_executor(executor: Executor) -> None:
    calls = Calls()
    for slot in range(5):
        calls.add(Code.MEMFD, 0, 0, (1 << 30) + slot, 0, b"left\0")
    calls.add(Code.UNKNOWN, -1)
    one, two = asked(executor, bytes(calls.data), bytes(calls.data))
    assert one.data == two.data
    answers = Answers(memoryview(one.data), [])
    for _ in range(5):
        answers.value(Code.MEMFD)
    assert answers.next(Code.UNKNOWN)[0] < 0


def test_the_whole_search_runs_on_this_kernel_and_records_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log, record = tmp_path / "log.json", tmp_path / "own.jsonl.xz"
    options = ["--here", "--memfds-alone", "--seeds", "2", "--log", str(log)]
    status = search_fast.main([*options, "--steps", "1200", "--record", str(record), "--record-programs", "2"])
    said = json.loads(log.read_text())
    assert (status, said["divergences"]) == (0, [])
    assert (said["steps"], said["programs"], said["seeds"], said["kernel"]) == (1200, 3, [1, 2], os.uname().release)
    steps, difference = first_difference(record, lambda: FakeWorld(HOST))
    assert difference is None
    assert steps > 700

    real = FakeKernel.lseek
    monkeypatch.setattr(FakeKernel, "lseek", lambda self, *where: real(self, *where) + 1)
    assert search_fast.main([*options, "--steps", "400"]) == 1
    said = json.loads(log.read_text())
    assert any("lseek" in text for text in said["divergences"])
    assert said["did_not_come_again"] == []
    assert "lseek" in capsys.readouterr().out


def test_a_machine_that_dies_costs_the_program_that_it_died_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second program kills its machine each time; the first, the third and the fourth are asked all the same."""

    class Mortal(Executor):
        deadly = 1 << 30
        dead = False

        def send(self, programs: Any) -> int:
            number = super().send(programs)
            if any(b"deadly" in calls for calls in programs):
                self.deadly = min(self.deadly, number)
            return number

        def answers(self, number: int) -> list[Answered]:
            self.dead = number >= self.deadly
            return [] if self.dead else super().answers(number)

        def is_alive(self) -> bool:
            return not self.dead

    monkeypatch.setattr(search_fast, "Executor", Mortal)
    monkeypatch.setattr(search_fast, "PROGRAM_STEPS", 3)

    def ops(name: str, *_: Any) -> Any:
        class Ops:
            def ops(self) -> Iterator[Op]:
                title = "deadly" if name == "1.1" else "harmless"
                yield from (("memfd", 1, title, 3), ("get_seals", 1), ("close", 1))

        return Ops()

    monkeypatch.setattr(search_fast, "Generator", ops)
    log = tmp_path / "log.json"
    options = ["--here", "--memfds-alone", "--seeds", "1", "--log", str(log), "--steps", "12"]
    assert search_fast.main(options) == 1
    said = json.loads(log.read_text())
    assert said["divergences"] == ["1.1: the kernel died"]
    assert said["steps"] == 3 * 3 + 3
    assert said["restarts"] >= 2


def test_a_kernel_that_was_built_without_ksm_is_not_asked_for_it() -> None:
    ops: list[Op] = [("madvise", 1, advice, 0, PAGE) for advice in (11, 12, 13, 14)] + [("lseek", 1, 12, 0)]
    assert list(answerable(ops, merges_pages=True)) == ops
    assert list(answerable(ops, merges_pages=False)) == [ops[0], ops[3], ops[4]]


def test_the_executor_says_what_its_kernel_has(executor: Executor) -> None:
    said = executor.hello(20)
    assert (said.release, said.page_size) == (os.uname().release, os.sysconf("SC_PAGESIZE"))
    assert said.merges_pages == os.path.exists("/sys/kernel/mm/ksm")


def test_without_a_heap_programs_run_on_udmabufs_alone(arena: Arena) -> None:
    """Debian's arm64 kernels: a fence has a udmabuf for its carrier, whatever the program made of the limits."""
    world = RecordingWorld("6.12", arena, keep_memfds=False, has_heap=False)
    ops: list[Op] = [("open", 1, "/dev/dma_heap/system", os.O_RDWR), ("limits", 0, 0), ("fence", 2, 3), ("signal", 2)]
    program = Program("one", len(ops), world, iter(ops))
    assert [outcome for _, _, outcome in program.answers] == ["ENOENT", "ok", "ok", "ok", "ok"]
    assert len(world.kernel.open_fds()) == 0


@pytest.mark.parametrize("name", ["O_DIRECT", "O_DIRECTORY", "O_NOFOLLOW"])
def test_the_flags_of_open_are_those_of_the_kernels_machine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of_arm64 = {"O_DIRECT": 0o200000, "O_DIRECTORY": 0o40000, "O_NOFOLLOW": 0o100000}
    of_x86_64 = {"O_DIRECT": 0o40000, "O_DIRECTORY": 0o200000, "O_NOFOLLOW": 0o400000}
    monkeypatch.setattr(search_calls, "_HOST", "x86_64")
    flags = of_x86_64[name] | os.O_RDWR | os.O_CLOEXEC | 0o100000
    there = of_arm64[name] | os.O_RDWR | os.O_CLOEXEC | 0o400000
    assert translated(flags, "aarch64") == there
    assert translated(flags, "x86_64") == flags
    monkeypatch.setattr(search_calls, "_HOST", "aarch64")
    assert translated(there, "x86_64") == flags


def test_without_a_compiler_the_search_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExecutorError, match="there is no cc on PATH"):
        compiled(tmp_path)


def test_a_source_that_does_not_compile_is_told_with_the_compilers_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "executor.c").write_text("int main(void) { return nothing; }\n")
    monkeypatch.setattr(search_executor, "HERE", tmp_path)
    with pytest.raises(ExecutorError, match="nothing"):
        compiled(tmp_path)


def test_a_kernel_without_fences_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.json"
    assert search_fast.main(["--here", "--steps", "400", "--log", str(log)]) == 1
    assert "no vgem" in json.loads(log.read_text())["divergences"][0]
