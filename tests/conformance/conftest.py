"""One suite for two kernels: ``--dmasync-backend=fake`` (the default) or ``real``.

On a real kernel the nodes, root and vgem are needed; what is missing fails, nothing is skipped. Debian's arm64 kernel
has no dma-heap at all: ``--dmasync-no-heap`` says so, and what needs one is skipped. Where there is one, that option is
refused. A CMA heap, which few kernels have, is asked with ``--dmasync-cma``, which must be given where there is one.
"""

from __future__ import annotations

import mmap
import os
import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from dmasync.fakes.kernel.nodes import DEFAULT_NODES
from tests.support import page_size

if TYPE_CHECKING:
    from tests.conformance.kernels import System


CMA_HEAPS = [path for path in DEFAULT_NODES if path.startswith("/dev/dma_heap/") and not path.endswith("/system")]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--dmasync-backend",
        choices=("fake", "real"),
        default="fake",
        help="which kernel the conformance suite questions",
    )
    parser.addoption(
        "--dmasync-no-heap", action="store_true", help="the kernel has no dma-heap: skip the questions that need one"
    )

    parser.addoption("--dmasync-cma", action="store_true", help="the real kernel has a CMA heap: ask it, too")


def pytest_configure(config: pytest.Config) -> None:
    if not _is_real(config):
        return
    if config.getoption("--dmasync-no-heap", default=False) and os.path.exists("/dev/dma_heap"):
        raise pytest.UsageError("--dmasync-no-heap: /dev/dma_heap is there, ask its heaps too")
    if config.getoption("--dmasync-cma") != any(os.path.exists(path) for path in CMA_HEAPS):
        raise pytest.UsageError("--dmasync-cma: give it if, and only if, /dev/dma_heap has a CMA heap")
    if (mmap.PAGESIZE, platform.machine()) != (page_size.PAGE, page_size.MACHINE) or page_size.PROFILE is not None:
        raise pytest.UsageError(
            "--dmasync-page-size, --dmasync-machine and --dmasync-profile are the fake's: a real kernel is what it is"
        )


def _is_real(config: pytest.Config) -> bool:
    return bool(config.getoption("--dmasync-backend", default="fake") == "real")


@pytest.fixture
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    """The kernel under test; what a test leaves open is closed after it, and nothing else may be left."""
    has_heap = not request.config.getoption("--dmasync-no-heap", default=False)
    # Not before the page size is known.
    from tests.conformance.kernels import FakeSystem, RealSystem

    under_test: System = RealSystem(has_heap) if _is_real(request.config) else FakeSystem(has_heap)
    yield under_test
    under_test.close_everything()
    assert under_test.left_over() == []


@pytest.fixture(params=["udmabuf", "system", "cma"])
def provider(request: pytest.FixtureRequest) -> str:
    """Each kind of buffer that both kernels have."""
    return str(request.param)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a CMA heap where the real kernel has none."""
    if not _is_real(config) or config.getoption("--dmasync-cma"):
        return
    left_out = [item for item in items if _needs_cma(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def _needs_cma(item: pytest.Item) -> bool:
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return parameters.get("provider") == "cma" or item.path.name == "test_cma.py"
