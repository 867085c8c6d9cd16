"""One suite for two kernels: ``--dmasync-backend=fake`` (the default) or ``real``.

On a real kernel the nodes, root and vgem are needed; what is missing fails, nothing is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kernels import FakeSystem, RealSystem, System


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--dmasync-backend",
        choices=("fake", "real"),
        default="fake",
        help="which kernel the conformance suite questions",
    )


@pytest.fixture
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    """The kernel under test; what a test leaves open is closed after it, and nothing else may be left."""
    real = request.config.getoption("--dmasync-backend", default="fake") == "real"
    under_test: System = RealSystem() if real else FakeSystem()
    yield under_test
    under_test.close_everything()
    assert under_test.left_over() == []


@pytest.fixture(params=["udmabuf", "system"])
def provider(request: pytest.FixtureRequest) -> str:
    """Each kind of buffer that both kernels have."""
    return str(request.param)
