"""For all tests: the page size that the fakes have, and which tests wait for the night."""

from __future__ import annotations

import gc
import mmap
import os
import platform
import signal

import pytest

pytest.register_assert_rewrite("tests.support", "tests.conformance.kernels", "tests.gallery")

from tests.support import page_size, warm  # noqa: E402 - after the line that makes its assertions show their values

USUAL_HANDLERS = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGQUIT: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--dmasync-page-size",
        type=int,
        default=mmap.PAGESIZE,
        metavar="BYTES",
        help=f"the fake kernel's pages, a multiple of {mmap.PAGESIZE} (default: this host's)",
    )

    parser.addoption(
        "--dmasync-profile",
        metavar="RELEASE",
        help="the release that the fake kernel of the conformance suite imitates",
    )

    parser.addoption(
        "--dmasync-machine",
        default=platform.machine(),
        metavar="NAME",
        help="the processor that the fake kernel of the conformance suite has, by uname -m (default: this host's)",
    )


def pytest_configure(config: pytest.Config) -> None:
    page_size.PROFILE = config.getoption("--dmasync-profile")
    page_size.MACHINE = config.getoption("--dmasync-machine")
    size = config.getoption("--dmasync-page-size")
    if size < mmap.PAGESIZE or size % mmap.PAGESIZE or size & (size - 1):
        raise pytest.UsageError(f"--dmasync-page-size {size}: expected a power of two from {mmap.PAGESIZE} on")
    page_size.PAGE = size
    # nohup, and a script's background job, leave these ignored, and every program that a test starts would inherit it.
    for number, handler in USUAL_HANDLERS.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    # The programs that tests start are no workers of pytest-xdist: pytest-benchmark would measure nothing there.
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST_")]:
        del os.environ[name]


def pytest_collection() -> None:
    """Nothing that is collected becomes garbage."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Set aside, for good, what there is before the first test.

    Tests collect garbage often, some after each of a thousand steps, and need not look through what is not theirs. What
    they freeze in their turn stays frozen, so that the next one has little to look through.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long tests out, unless ``-m`` speaks of them."""
    if "nightly" in config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("nightly")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in set(long)]


def pytest_unconfigure() -> None:
    warm.close()
