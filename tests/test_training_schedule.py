"""Gradient clipping and learning-rate schedules: formulas, all optimizers, resumed runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from paretorch.training.resolved_run import resolve
from paretorch.training.run import Run
from paretorch.training.schedule import Schedule
from paretorch.workloads.streams import training_batches
from training_runs import TINY, check_resumed_run


def rates(kind: str, warmup: float, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = Schedule(optimizer, kind, warmup, steps)
    found = []
    for step in range(steps):
        schedule.before(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_cosine_schedule_equals_torch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)
    wanted = []
    for _ in range(7):
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        torchs.step()
    assert rates("cosine", 0.0, 7) == pytest.approx(wanted, rel=1e-12)


def test_warmup_is_linear() -> None:
    found = rates("cosine", 0.5, 8)
    assert found[:4] == pytest.approx([0.125, 0.25, 0.375, 0.5])
    assert found[4] == pytest.approx(0.5)
    assert found[5:] == pytest.approx([0.25 * (1 + math.cos(math.pi * part / 4)) for part in (1, 2, 3)])
    assert rates("constant", 0.0, 3) == [0.5] * 3
    assert rates("constant", 0.5, 4) == pytest.approx([0.25, 0.5, 0.5, 0.5])


def test_step_schedule_equals_torch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = Schedule(optimizer, "step(0.5, epochs=2)", 0.0, steps=21, epochs=7)
    torchs = torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5), 2, 0.5)
    for epoch in range(7):
        for step in range(3 * epoch, 3 * epoch + 3):
            schedule.before(step)
            assert optimizer.param_groups[0]["lr"] == pytest.approx(torchs.get_last_lr()[0], rel=1e-12)
        torchs.optimizer.step()
        torchs.step()


@pytest.mark.parametrize("surface", ["features", "parameters"])
@pytest.mark.parametrize("tasks", [(), ("size",)])
def test_clip_bounds_the_gradient_norm(surface: str, tasks: tuple[str, ...]) -> None:
    lengths = {}
    for clip in (None, 0.5):
        torch.manual_seed(0)
        run = Run(TINY, tasks=tasks, surface=surface, optimizer="SGD", batch_size=8, clip=clip)
        resolved = resolve(run)
        resolved.update(next(training_batches(resolved.splits.train, 8, 0, 0)))
        found = [p.grad.flatten() for p in resolved.model.parameters() if p.grad is not None]
        lengths[clip] = float(torch.cat(found).norm())
    assert lengths[None] > 0.5
    assert lengths[0.5] == pytest.approx(0.5, rel=1e-4)


def test_clip_is_max_norm_of_a_multi_task_optimizer() -> None:
    resolved = resolve(Run(TINY, optimizer="MTAdamV2", clip=0.25))
    assert resolved.optimizer.param_groups[0]["max_norm"] == 0.25
    own = resolve(Run(TINY, optimizer="MTAdamV2", optimizer_options={"max_norm": 2.0}, clip=0.25))
    assert own.optimizer.param_groups[0]["max_norm"] == 2.0


@pytest.mark.parametrize("optimizer", ["Adam", "MTAdamV2"])
def test_resumed_run_has_the_rates_of_an_uninterrupted_run(optimizer: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.99)}
    run = Run(
        TINY,
        optimizer=optimizer,
        optimizer_options=options,
        epochs=4,
        batch_size=8,
        clip=1.0,
        schedule="cosine",
        warmup=0.3,
    )
    check_resumed_run(run, tmp_path, epochs=2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clip": 0.0}, "clip is a finite norm above 0, or None for no clipping, got 0"),
        ({"clip": float("inf")}, "clip is a finite norm above 0, or None for no clipping, got inf"),
        ({"schedule": "step"}, "schedule is 'constant' or 'cosine', got 'step'"),
        ({"schedule": "step(2.0, 5)"}, "a factor in"),
        ({"schedule": "step(0.5, 0)"}, "a factor in"),
        ({"schedule": "step('a', 5)"}, "a factor in"),
        ({"schedule": "drop(0.5, 5)"}, "a factor in"),
        ({"warmup": 1.0}, "warmup is a share of the steps, 0 <= warmup < 1, got 1"),
    ],
)
def test_run_refuses_invalid_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Run(TINY, **values)


def test_run_keeps_the_key_of_earlier_versions() -> None:
    assert Run(TINY, clip=None, schedule="constant", warmup=0.0).key == Run(TINY).key
    assert (
        len({Run(TINY, **values).key for values in ({}, {"clip": 1.0}, {"schedule": "cosine"}, {"warmup": 0.1})}) == 4
    )
