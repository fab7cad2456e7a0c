"""The seed and the size of campaigns."""

from __future__ import annotations

import pytest


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    found: int = request.config.getoption("--faults-seed")
    return found


@pytest.fixture
def given_count(request: pytest.FixtureRequest) -> int | None:
    """The number of ``--faults-count``; None: that of each test."""
    found: int | None = request.config.getoption("--faults-count")
    return found
