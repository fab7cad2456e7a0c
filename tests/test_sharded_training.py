"""FSDP2, HSDP, tensor parallelism and distributed checkpoints with a Fork; and what Fork and Balancer send under DDP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import sharded_training
from ranks import on_ranks

STEPS = 3
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CASES = tuple(
    (setting, method, parts)
    for setting, method in (
        ("checkpointing", "mgda"),
        ("clipping", "upgrad"),
        ("accumulation", "uncertainty"),
    )
    for parts in ("root", "layers")
)


def check(results: list[dict[str, Any]], cases: tuple[tuple[str, str, str], ...], world: int) -> None:
    for setting, method, parts in cases:
        expected = sharded_training.one_run(0, world, setting, method, None, STEPS)
        for result in results:
            found = result["/".join((setting, method, parts))]
            for name in expected.keys() - {"state"}:
                torch.testing.assert_close(found[name], expected[name], rtol=1e-12, atol=1e-12)
            for name, value in expected["state"].items():
                torch.testing.assert_close(found["state"][name], value, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_fork_under_fully_shard_with_clipping_checkpointing_and_accumulation_equals_one_process(tmp_path: Path) -> None:
    check(on_ranks(sharded_training.every_setting, 2, tmp_path, 2, CASES, STEPS), CASES, 2)


@pytest.mark.long
def test_fork_under_fully_shard_and_hybrid_sharding_on_four_ranks_equals_one_process(tmp_path: Path) -> None:
    cases = (*CASES, ("hsdp", "mgda", "root"), ("hsdp", "uncertainty", "layers"))
    check(on_ranks(sharded_training.every_setting, 4, tmp_path, 4, cases, STEPS), cases, 4)


@pytest.mark.parametrize("parts", [("root", "root"), ("layers", "root")], ids=" to ".join)
def test_distributed_checkpoint_resumes_a_fork_in_another_sharding(tmp_path: Path, parts: tuple[str, str]) -> None:
    for result in on_ranks(sharded_training.saved_and_loaded, 2, tmp_path, str(tmp_path), parts):
        assert result["unbroken"].abs().max() > 0
        torch.testing.assert_close(result["resumed"], result["unbroken"], rtol=1e-12, atol=1e-14)


def test_fork_on_whole_features_of_a_tensor_parallel_encoder_equals_one_process(tmp_path: Path) -> None:
    for result in on_ranks(sharded_training.tensor_parallel, 2, tmp_path, STEPS):
        torch.testing.assert_close(result["tensor parallel"], result["one process"], rtol=1e-12, atol=1e-14)


def test_balancer_sends_every_gradient_once_and_the_fork_a_matrix(tmp_path: Path) -> None:
    tasks = 5
    for result in on_ranks(sharded_training.traffic, 2, tmp_path, ("fork", "balancer"), "upgrad", 64, tasks):
        fork, balancer = result["fork"], result["balancer"]
        assert fork["ddp"] == balancer["ddp"] == 2 * balancer["model"]  # as a plain backward
        assert 0 < fork["library"] <= 10 * tasks**2
        assert balancer["library"] <= 1.01 * tasks * balancer["encoder"] + 20 * tasks**2
        assert balancer["library"] >= tasks * balancer["encoder"]
