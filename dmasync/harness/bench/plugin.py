"""The pytest side of the suites: options, the fixture ``row``, and what the run file says about itself.

pytest-benchmark keeps the statistics and writes the file; the timing itself is done in another process
(:mod:`dmasync.harness.bench.worker`), whose rounds are played back to its timer. For a virtual machine the suites run
twice on the host: with ``--dmasync-plan`` they only note what is to be measured, and with ``--dmasync-answers`` they
get what was measured there.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dmasync.harness import old_names
from dmasync.harness.bench.measure import EXACT, WALL, Measured
from dmasync.harness.bench.measurers import (
    NOT_MEASURED,
    Answers,
    Measurer,
    Planner,
    RowImpossibleError,
    Worker,
    WorkerError,
)
from dmasync.harness.bench.registry import SUITES, Cell, named_sizes
from dmasync.harness.bench.worker import surroundings
from dmasync.harness.runs.facts import (
    COUNTS,
    INSTRUCTIONS,
    NANOSECONDS,
    RUN_BLOCK,
    TARGETS,
    NotMeasured,
    RowFacts,
    RunFacts,
    is_named,
)
from dmasync.harness.sizes import parse_sizes

WARM_SIZE = 4096
_ARGUMENT_FACTS = ("provider", "size", "access", "attached", "api")
_OWN_FACTS = ("calls",)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("dmasync suites")
    group.addoption("--dmasync-on", choices=TARGETS, default=None, help="where this runs (default: found out)")
    group.addoption(
        f"--dmasync-{old_names.TARGET}", dest="dmasync_on", choices=TARGETS, help="the old name of --dmasync-on"
    )
    group.addoption("--dmasync-exact", action="store_true", help="the clock counts instructions")
    group.addoption("--dmasync-quick", action="store_true", help="the short suite")
    group.addoption(
        "--dmasync-sizes", type=parse_sizes, default=(), metavar="LIST", help="other sizes for test_sync_steps.py"
    )
    group.addoption("--dmasync-only", action="append", default=[], metavar="GLOB", help="rows of such a name")
    group.addoption("--dmasync-plan", type=Path, metavar="FILE", help="measure nothing: write what would be to FILE")
    group.addoption(
        "--dmasync-answers",
        type=Path,
        nargs=2,
        metavar="FILE",
        help="such a plan, and what was measured of it elsewhere",
    )
    group.addoption("--dmasync-progress", action="store_true", help="say on standard error which row is measured")


class Playback:
    """A timer that moves by the rounds that were measured elsewhere."""

    def __init__(self) -> None:
        self._readings: Iterator[float] = iter(())

    def load(self, measured: Measured) -> None:
        seconds = [nanoseconds * measured.operations / 1e9 for nanoseconds in measured.rounds]
        self._readings = iter([reading for length in seconds for reading in (0.0, length)])

    def __call__(self) -> float:
        return next(self._readings)


PLAYBACK = Playback()


class Suites:
    """One run: whoever measures it, and what could not be measured."""

    def __init__(self, config: pytest.Config) -> None:
        self.exact = bool(config.getoption("--dmasync-exact"))
        self.quick = bool(config.getoption("--dmasync-quick"))
        self.target: str = config.getoption("dmasync_on") or _this_target()
        self.plan = EXACT if self.exact else WALL
        self.not_measured: list[NotMeasured] = []
        plan: Path | None = config.getoption("--dmasync-plan")
        self.planner = None if plan is None else Planner(plan)
        answers: list[Path] | None = config.getoption("--dmasync-answers")
        self._measurer: Measurer | None = None
        if answers is not None:
            self._measurer = Answers(*(path.read_text(encoding="utf-8").splitlines() for path in answers))

    @property
    def measurer(self) -> Measurer:
        if self._measurer is None:
            self._measurer = Worker(surroundings(self.target, exact=self.exact))
        return self._measurer

    def close(self) -> None:
        if self.planner is not None:
            self.planner.close()
        if self._measurer is not None:
            self._measurer.close()


_SUITES = pytest.StashKey[Suites]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SUITES] = Suites(config)
    config.addinivalue_line("markers", "long: rows that the short suite (--dmasync-quick) leaves out")


def pytest_unconfigure(config: pytest.Config) -> None:
    if _SUITES in config.stash:
        config.stash[_SUITES].close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    suites = config.stash[_SUITES]
    globs: list[str] = config.getoption("--dmasync-only")
    left_out = [
        item
        for item in items
        if (suites.quick and item.get_closest_marker("long"))
        or (globs and not any(is_named(item.nodeid, glob) for glob in globs))
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=PLAYBACK))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each cell of a suite is one test, under the name that its row keeps."""
    if "row" not in metafunc.fixturenames:
        return
    suite = SUITES[_suite_of(metafunc.function)]
    cells = list(suite.cells(named_sizes(metafunc.config.getoption("--dmasync-sizes"))))
    if [cell.name for cell in cells] == [""]:
        return
    metafunc.parametrize(
        "cell",
        [pytest.param(cell, id=cell.name, marks=() if cell.is_quick else (pytest.mark.long,)) for cell in cells],
    )


@pytest.fixture
def cell(request: pytest.FixtureRequest) -> Cell:
    """The only row of a suite; where there are several, each test has its own instead."""
    (only,) = SUITES[_suite_of(request.function)].cells({})
    return only


@pytest.fixture
def row(request: pytest.FixtureRequest, cell: Cell) -> Callable[[], None]:
    """Measure the row of this test, as :data:`dmasync.harness.bench.registry.SUITES` describes it."""
    suites = request.config.stash[_SUITES]
    name = _suite_of(request.function)

    def measure() -> None:
        arguments = cell.arguments
        small = {**arguments, "size": WARM_SIZE}
        asked = (name, arguments, suites.plan, small if arguments.get("size", 0) > WARM_SIZE else None)
        if suites.planner is not None:
            suites.planner.add(*asked)
            return
        try:
            measured = suites.measurer.measure(*asked)
        except RowImpossibleError as impossible:
            suites.not_measured.append(NotMeasured(request.node.nodeid, str(impossible)))
            pytest.skip(str(impossible))
        except WorkerError as defect:
            pytest.fail(str(defect), pytrace=False)
        facts = {**SUITES[name].facts, **cell.facts}
        _note(suites, measured, request.getfixturevalue("benchmark"), arguments, facts)

    return measure


def _suite_of(function: Callable[..., Any]) -> str:
    return function.__name__.removeprefix("test_")


def _note(
    suites: Suites, measured: Measured, benchmark: Any, arguments: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """Give pytest-benchmark the rounds and the facts of a row."""
    host = suites.measurer.host()
    machine = host["machine_info"]
    known = RowFacts(
        unit=INSTRUCTIONS if suites.exact else NANOSECONDS,
        target=suites.target,
        arch=machine["machine"],
        kernel=machine["release"],
        python=machine["python_version"],
        compiled=host["compiled"],
        exact=suites.exact and not facts.get("resolution") and _is_exact(measured.rounds),
        # The operation itself knows best how many system calls it makes.
        **{name: arguments[name] for name in _ARGUMENT_FACTS if name in arguments},
        **{**facts, **{name: measured.facts.pop(name) for name in _OWN_FACTS if name in measured.facts}},
    )
    benchmark.extra_info.update(known.as_extra_info())
    benchmark.extra_info.update(
        measured.facts,
        operations=measured.operations,
        floor=measured.floor,
        loop=measured.loop,
        clock=measured.clock,
    )
    if suites.exact:
        benchmark.extra_info[COUNTS] = measured.rounds
    PLAYBACK.load(measured)
    benchmark.pedantic(_nothing, rounds=len(measured.rounds), iterations=measured.operations)


def _nothing() -> None:
    pass


def _is_exact(rounds: Sequence[float]) -> bool:
    """Tell whether the middle half of the rounds took the same number: a timer tick falls into one now and then."""
    ordered = sorted(rounds)
    quarter = len(ordered) // 4
    return ordered[quarter] == ordered[-1 - quarter]


def _this_target() -> str:
    from dmasync.harness.bench.targets import openable_node

    return "hardware" if openable_node() else "fake"


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[Any]:
    if session.config.getoption("--dmasync-progress"):
        session.config.pluginmanager.register(_Progress(len(session.items)))
    return (yield)


class _Progress:
    def __init__(self, rows: int) -> None:
        self._row, self._rows = 0, rows

    def pytest_runtest_logstart(self) -> None:
        self._row += 1
        print(f"row {self._row} of {self._rows}", file=sys.stderr, flush=True)  # noqa: T201 - asked for


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The last lines, from which a run that measured nothing tells why."""
    reasons = Counter(lost.reason for lost in config.stash[_SUITES].not_measured)
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{NOT_MEASURED}{count} rows: {reason}")


def pytest_benchmark_generate_commit_info(config: pytest.Config) -> dict[str, Any] | None:
    # A guest has no git, and the host adds this afterwards.
    return {} if config.getoption("--dmasync-progress") else None


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any]:
    return dict(config.stash[_SUITES].measurer.host()["machine_info"])


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    suites = config.stash[_SUITES]
    host = suites.measurer.host()
    facts = RunFacts(
        kernel=host["machine_info"]["release"],
        kernel_command_line=None if suites.target == "fake" else host["kernel_command_line"],
        target=suites.target,
        not_measured=tuple(suites.not_measured),
    )
    output_json[RUN_BLOCK] = facts.as_block()
