"""The seed and the size of campaigns, and the server that forks the processes that fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults.processes import Server


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    found: int = request.config.getoption("--faults-seed")
    return found


@pytest.fixture
def given_count(request: pytest.FixtureRequest) -> int | None:
    """The number of ``--faults-count``; None: that of each test."""
    found: int | None = request.config.getoption("--faults-count")
    return found


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        yield Server.started(patch)
