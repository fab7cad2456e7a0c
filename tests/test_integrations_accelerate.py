"""A loop of Accelerate against a plain one, with a Fork and with a Balancer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("accelerate")

from accelerate_loops import accelerated, accelerated_on_ranks
from framework_loops import METHODS, Loop, difference, plain, vector
from ranks import on_ranks

pytestmark = pytest.mark.filterwarnings("ignore")  # those of accelerate
CASES = tuple(Loop(by, method, micro=2, clip=0.5) for by in ("fork", "balancer") for method in METHODS)
RAGGED = tuple(Loop(by, micro=3, ragged=True) for by in ("fork", "balancer"))


@pytest.mark.parametrize("loop", [*CASES, *RAGGED], ids=str)
def test_accelerate_equals_the_plain_loop(loop: Loop) -> None:
    found = accelerated(loop)
    assert difference(found, plain(loop, mean=False)) <= 1e-12
    assert difference(found, vector(loop.model())) > 1e-3


@pytest.mark.parametrize("by", ["fork", "balancer"])
def test_accelerate_in_bfloat16_equals_the_plain_loop(by: str) -> None:
    loop = Loop(by, dtype=torch.float32, autocast=True)
    found = accelerated(loop)
    assert difference(found, plain(loop)) <= 1e-6
    assert difference(found, plain(replace(loop, autocast=False))) > 1e-5


@pytest.mark.parametrize("by", ["fork", "balancer"])
def test_accelerate_continues_from_a_saved_state(by: str, tmp_path: Path) -> None:
    loop = Loop(by, "gradvac")
    straight = accelerated(loop, save=tmp_path)
    assert torch.equal(accelerated(loop, load=tmp_path), straight)


@pytest.mark.long
def test_accelerate_on_two_ranks_equals_one_process(tmp_path: Path) -> None:
    cases = (*CASES, *RAGGED)
    found = on_ranks(accelerated_on_ranks, 2, tmp_path, cases)
    differences = {
        case: difference(each, plain(case, 2, mean=False)) for case, *each in zip(cases, *found, strict=True)
    }
    assert {case: value for case, value in differences.items() if not value <= 1e-12} == {}
