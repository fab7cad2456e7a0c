"""A front divided among ranks equals the same front in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from front_ranks import ALGORITHMS, every_front, front_numbers, spread_front, too_few_models
from ranks import on_ranks


@pytest.mark.long
@pytest.mark.parametrize("world", [2, 4])
def test_front_on_ranks_equals_the_front_of_one_process(world: int, tmp_path: Path) -> None:
    found = on_ranks(every_front, world, tmp_path)
    for name in ALGORITHMS:
        alone = front_numbers(spread_front(name))
        assert alone["points"].dtype == torch.float64
        for rank in range(world):
            for what, value in alone.items():
                torch.testing.assert_close(found[rank][name][what], value, rtol=1e-10, atol=1e-12)


@pytest.mark.long
def test_front_on_more_ranks_than_models_is_refused(tmp_path: Path) -> None:
    for message in on_ranks(too_few_models, 2, tmp_path):
        assert "front of 1 models cannot be divided among 2 ranks" in message
