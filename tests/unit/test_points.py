"""An exception at every place where the interpreter looks for signals, in every operation: nothing is lost or doubled.

``python -m tests.support.points`` prints the same as a table, with as many pairs as one likes.
"""

from __future__ import annotations

import sys

import pytest

from dmasync import compiled
from tests.support.points import buffers, fakes, windows
from tests.support.points.build import CannotBuildError, build_module
from tests.support.points.explore import explorer

pytestmark = pytest.mark.skipif(
    sys.gettrace() is not None,
    reason="a trace function (coverage) is a place more where exceptions surface: run without one",
)

SPANS = pytest.mark.parametrize("span", [1, pytest.param(3, marks=pytest.mark.nightly)])
"""How many places behind the first exception a second one comes, at each of them."""

ON_REAL_FILES = [*windows.operations(), *buffers.operations()]
ON_THE_FAKE = list(fakes.operations())


def named(operations):
    return pytest.mark.parametrize("operation", operations, ids=lambda operation: operation.name)


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    try:
        return build_module(tmp_path_factory.mktemp("points"))
    except CannotBuildError as error:
        pytest.skip(str(error))


@pytest.fixture
def explore(points):
    with explorer(points) as explorer_:
        yield explorer_.explore


@SPANS
@named(ON_REAL_FILES)
def test_an_interrupted_operation_leaves_no_window_descriptor_or_mapping_behind(explore, operation, span):
    report = explore(operation, span=span if compiled else 0)
    print(report)  # noqa: T201 - the table, with -s
    if not compiled:
        # A finalizer in plain Python can be interrupted, and a window that was left between two states refuses end().
        # An END that has to wait until its window is dropped comes behind that of the window around it.
        unsure = {
            "dropped": {"lost", "descriptors"},
            "assigned over": {"lost", "descriptors"},
            "finally": {"raised"},
            "moved in the block": {"raised"},
            "nested": {"order"},
        }
        allowed = {problem for word, problems in unsure.items() if word in operation.name for problem in problems}
        assert {problem.split()[0].rstrip(":") for problem in report.problems} <= allowed, str(report)
        return
    assert not report.problems, str(report)
    # CPython 3.10 skips __exit__ when a signal comes as an exception enters the block's handler: there the END has to
    # wait until the window is dropped. An exception of the body's own is the first of two.
    old = sys.version_info < (3, 11)
    assert report.late[1] <= (old and "exception in the body" in operation.name), str(report)
    assert old or not report.late[2], str(report)


@named(ON_THE_FAKE)
def test_the_fakes_journal_shows_an_end_for_each_start(explore, operation):
    report = explore(operation)
    assert not report.problems, str(report)


@pytest.mark.skipif(not compiled, reason="in plain Python a finalizer that is interrupted may leave a descriptor open")
@pytest.mark.parametrize("raises", [TimeoutError, StopIteration, KeyboardInterrupt], ids=lambda kind: kind.__name__)
@named(
    [operation for operation in ON_REAL_FILES if operation.name.endswith(("fresh", "alloc, udmabuf", "in a window"))]
)
def test_it_does_not_matter_what_the_handler_raises(explore, operation, raises):
    report = explore(operation, raises=raises)
    # Python makes a RuntimeError of a StopIteration, and a handler's OSError may pass for the kernel's.
    kinds = {problem.split()[0] for problem in report.problems}
    assert kinds <= {"raised"}, str(report)


def place() -> None:
    pass


class TestTheTestItself:
    """It has to see what it looks for; ``place()`` is one more place to raise at."""

    @staticmethod
    def explored(explore, step_of, **options):
        return explore(windows.Operation("wrong", step_of, **options))

    def test_it_sees_an_end_that_is_lost(self, explore):
        def prepare(world):
            number, ioctl = world.memfd(), world.backend.ioctl

            def step():
                start, end = (windows.sync(access) for access in ("START", "END"))
                ioctl(number, *start)
                place()
                ioctl(number, *end)

            return step

        report = self.explored(explore, prepare)
        assert report.singles > report.count("lost") > 0

    def test_it_sees_an_end_that_is_doubled(self, explore):
        def prepare(world):
            number, ioctl = world.memfd(), world.backend.ioctl

            def step():
                start, end = (windows.sync(access) for access in ("START", "END"))
                try:
                    ioctl(number, *start)
                    ioctl(number, *end)
                finally:
                    ioctl(number, *end)

            return step

        assert self.explored(explore, prepare).count("doubled") > 0

    def test_it_sees_a_descriptor_that_is_lost_and_one_that_is_another_file_by_now(self, explore):
        def prepare(world):
            number, backend = world.memfd(), world.backend
            start, end = (windows.sync(access) for access in ("START", "END"))

            def step():
                copy = backend.dup(number)
                backend.ioctl(copy, *start)
                backend.close(copy)
                backend.ioctl(copy, *end)

            return step

        report = self.explored(explore, prepare, expects=OSError)
        assert report.count("descriptors") > 0
        assert report.count("stray") > 0

    def test_it_sees_an_interruption_that_is_swallowed(self, explore):
        def prepare(world):
            def step():
                try:
                    place()
                except BaseException:
                    return

            return step

        assert self.explored(explore, prepare).count("swallowed") > 0

    def test_it_sees_a_block_that_is_left_open(self, explore):
        def prepare(world):
            number, ioctl = world.memfd(), world.backend.ioctl
            start, end = (windows.sync(access) for access in ("START", "END"))
            world.afterwards(lambda: world.left_open() and ioctl(number, *end))

            def step():
                ioctl(number, *start)
                place()
                ioctl(number, *end)

            return step

        report = self.explored(explore, prepare, block=True)
        assert report.late.total() > 0
        assert not report.problems
