"""What is collected: without packages that are not installed, and in samples; options of the campaigns in ``tests/faults``."""

import zlib
from collections import defaultdict
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


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as long all but one in n cases of a test with the mark ``sampled(n)``: the same ones on every machine."""
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("sampled"):
            cases[item.nodeid.partition("[")[0]].append(item)
    for name, found in cases.items():
        mark = found[0].get_closest_marker("sampled")
        assert mark is not None, name
        found.sort(key=lambda item: zlib.crc32(item.nodeid.rpartition("::")[2].encode()))
        for item in found[-(-len(found) // mark.args[0]) :]:
            item.add_marker(pytest.mark.long)
