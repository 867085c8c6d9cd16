"""The pytest plugin ``dmasync``: fake dma-bufs as fixtures, checked when a test is over.

Fixtures: ``fake_dmabuf``, a FakeBackend; ``noncoherent_dmabuf``, one whose devices do not see the CPU's caches;
``fake_dev``, a device tree on pyfakefs. When a test that used them is over, it fails on leaked descriptors and
mappings, on windows that do not balance, and on everything else that a Sanitizer finds, with the timeline in the
report. ``dmasync_run`` runs programs in any language on the fake kernel.

Only what a test asks for is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dmasync.fakes.backend import FakeBackend
    from dmasync.fakes.device_tree import DeviceTree
    from dmasync.fakes.run_fixture import ProgramRunner

_FIXTURES = ("fake_dmabuf", "noncoherent_dmabuf")

_MARKERS = (
    "dmasync_faults(*plans, deadline=...): fault plans of dmasync.fakes.faults, or their text, that fake_dmabuf starts"
    " with; those that let an END be tried for ever need a deadline in seconds",
    "dmasync_noncoherent(seed=...): give fake_dmabuf a non-coherent memory, with that adversary seed if any",
    "dmasync_backend(**options): options for the FakeBackend behind fake_dmabuf, such as providers, profile, watch",
    "dmasync_allow(*kinds): findings that do not fail the test",
    "dmasync_unchecked: no check at the end of the test",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("dmasync", "fake dma-bufs")
    group.addoption(
        "--dmasync-seed", type=int, default=0, metavar="SEED", help="adversary seed of non-coherent memory (default 0)"
    )
    group.addoption(
        "--dmasync-seeds",
        type=int,
        default=0,
        metavar="N",
        help="run each test with non-coherent memory under N adversary seeds, from --dmasync-seed on",
    )
    group.addoption(
        "--dmasync-timeline",
        type=int,
        default=30,
        metavar="LINES",
        help="how much of the timeline a failing test shows (default 30)",
    )
    group.addoption(
        "--dmasync-traces", metavar="DIR", help="write the journal of each failing test to DIR, for dmasync replay"
    )


def pytest_configure(config: pytest.Config) -> None:
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A marker with a letter missing would do nothing, and the test would pass."""
    known: list[str] = []
    for item in items:
        for marker in item.iter_markers():
            if marker.name.startswith("dmasync"):
                known = known or [line.partition("(")[0].partition(":")[0] for line in _MARKERS]
                if marker.name not in known:
                    from dmasync.fakes.arguments import nearest

                    others = f": there are {', '.join(known)}"
                    raise pytest.UsageError(
                        f"{item.nodeid}: there is no marker {marker.name}{nearest(marker.name, known, others)}"
                    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    count = metafunc.config.getoption("--dmasync-seeds")
    if not count:
        return
    marked = metafunc.definition.get_closest_marker("dmasync_noncoherent")
    if "noncoherent_dmabuf" in metafunc.fixturenames or (marked and "fake_dmabuf" in metafunc.fixturenames):
        first = metafunc.config.getoption("--dmasync-seed")
        metafunc.fixturenames.append("dmasync_seed")
        metafunc.parametrize("dmasync_seed", range(first, first + count), indirect=True)


@pytest.fixture
def dmasync_seed(request: pytest.FixtureRequest) -> int:
    """The adversary seed of this test."""
    seed: int = getattr(request, "param", request.config.getoption("--dmasync-seed"))
    return seed


@pytest.fixture
def fake_dmabuf(request: pytest.FixtureRequest) -> Iterator[FakeBackend]:
    """A FakeBackend as the test's markers want it; checked after the test and the fixtures that use it."""
    marker = request.node.get_closest_marker("dmasync_noncoherent")
    yield from _backend(request, marker is None, {} if marker is None else marker.kwargs)


@pytest.fixture
def noncoherent_dmabuf(request: pytest.FixtureRequest) -> Iterator[FakeBackend]:
    """As fake_dmabuf, with a memory whose devices do not see the CPU's caches."""
    marker = request.node.get_closest_marker("dmasync_noncoherent")
    yield from _backend(request, False, {} if marker is None else marker.kwargs)


@pytest.fixture
def fake_dev(request: pytest.FixtureRequest, fake_dmabuf: FakeBackend) -> Iterator[DeviceTree]:
    """The device nodes and module parameters that fake_dmabuf sees, on pyfakefs: add, remove, change permissions."""
    try:
        fs = request.getfixturevalue("fs")
    except pytest.FixtureLookupError:
        pytest.fail("fake_dev needs pyfakefs: python3 -m pip install pyfakefs", pytrace=False)
    from dmasync.fakes.device_tree import DeviceTree

    with DeviceTree(fs, fake_dmabuf) as tree:
        yield tree


@pytest.fixture
def dmasync_run(tmp_path: Path) -> ProgramRunner:
    """Runs a program on the fake kernel: ``dmasync_run("./capture", "--frames=3", faults=["storm(EINTR, 3)"])``."""
    from dmasync.fakes.run_fixture import ProgramRunner

    return ProgramRunner(tmp_path)


def _backend(request: pytest.FixtureRequest, coherent: bool, memory: dict[str, Any]) -> Iterator[FakeBackend]:
    from dmasync.fakes import markers

    node = request.node
    mistake = ""
    try:
        asked = markers.read(node, coherent, memory, lambda: request.getfixturevalue("dmasync_seed"))
        backend = asked.backend()
    except (TypeError, ValueError) as error:
        mistake = str(error)
    if mistake:
        pytest.fail(mistake, pytrace=False)  # not in the handler: one line, without what was being handled
    node.stash.setdefault(_BACKENDS, []).append(backend)
    yield backend
    if node.stash.get(_FAILED, False):
        return
    if asked.ran_out():
        pytest.fail(asked.complaint(), pytrace=False)
    if node.get_closest_marker("dmasync_unchecked"):
        return
    found = _findings(node, backend)
    if found:
        _write_trace(node, backend)
        pytest.fail(_report(node, backend, found), pytrace=False)


_BACKENDS = pytest.StashKey[list[Any]]()
_FAILED = pytest.StashKey[bool]()


def _findings(node: pytest.Item, backend: FakeBackend, leaks: bool = True) -> list[Any]:
    import gc

    from dmasync.fakes.sanitizer import Sanitizer

    allowed = {kind for marker in node.iter_markers("dmasync_allow") for kind in marker.args}
    sanitizer = Sanitizer(backend, allow=allowed, leaks=leaks)
    found = sanitizer.findings()
    if any(finding.kind.startswith("leaked") for finding in found):
        gc.collect()  # what only a reference cycle holds is not leaked
        found = sanitizer.findings()
    return found


def _report(node: pytest.Item, backend: FakeBackend, found: list[Any]) -> str:
    lines = node.config.getoption("--dmasync-timeline")
    listed = "\n\n".join(str(finding) for finding in found)
    names = ", ".join(sorted({finding.kind for finding in found}))
    return f"dma-buf access: {names}\n\n{listed}\n\ntimeline:\n{backend.journal.timeline(lines)}"


def _write_trace(node: pytest.Item, backend: FakeBackend) -> None:
    folder = node.config.getoption("--dmasync-traces")
    if folder:
        os.makedirs(folder, exist_ok=True)
        name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in node.nodeid)
        backend.journal.dump(os.path.join(folder, f"{name}.jsonl"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    if call.when == "call" and call.excinfo is not None and item.stash.get(_BACKENDS, ()):
        from dmasync.fakes import markers

        markers.explain_descriptors(call.excinfo.value, item.stash[_BACKENDS])
    report = yield
    if call.when == "call" and report.failed and not hasattr(report, "wasxfail"):
        for backend in item.stash.get(_BACKENDS, ()):
            item.stash[_FAILED] = True
            lines = item.config.getoption("--dmasync-timeline")
            report.sections.append(("dma-buf timeline", backend.journal.timeline(lines)))
            found = _findings(item, backend, leaks=False)
            if found:
                report.sections.append(("dma-buf findings", "\n\n".join(str(finding) for finding in found)))
            _write_trace(item, backend)
    elif call.when == "call" and call.excinfo is not None:
        item.stash[_FAILED] = True  # skipped or expected to fail: whatever it left behind is no news
    return report
