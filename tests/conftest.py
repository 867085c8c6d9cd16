"""An option of all tests: the page size that the fakes under test have."""

from __future__ import annotations

import mmap

import pytest

pytest.register_assert_rewrite("tests.support", "tests.conformance.kernels", "tests.gallery")

from tests.support import page_size  # noqa: E402 - after the line that makes its assertions show their values


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--dmasync-page-size",
        type=int,
        default=mmap.PAGESIZE,
        metavar="BYTES",
        help=f"the fake kernel's pages, a multiple of {mmap.PAGESIZE} (default: this host's)",
    )


def pytest_configure(config: pytest.Config) -> None:
    size = config.getoption("--dmasync-page-size")
    if size < mmap.PAGESIZE or size % mmap.PAGESIZE or size & (size - 1):
        raise pytest.UsageError(f"--dmasync-page-size {size}: expected a power of two from {mmap.PAGESIZE} on")
    page_size.PAGE = size
