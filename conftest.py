"""Modules whose packages are not installed are not collected; options of the campaigns in ``tests/faults``."""

from importlib.util import find_spec

import pytest

FRAMEWORKS = {
    "accelerate": ("tests/accelerate_loops.py",),
    "lightning": ("src/paretorch/integrations/lightning.py", "tests/lightning_loops.py"),
    "transformers": ("src/paretorch/integrations/transformers.py", "tests/trainer_loops.py"),
}
collect_ignore = [file for name, files in FRAMEWORKS.items() if find_spec(name) is None for file in files]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the seed and the size of the campaigns."""
    group = parser.getgroup("faults", "campaigns of tests/faults")
    group.addoption("--faults-seed", type=int, default=1, help="seed of the instants and of the damage")
    group.addoption(
        "--faults-count", type=int, help="kills or damaged files of each kind; by default that of each test"
    )
