"""Runs with multi-task optimizers: by name, resumed bit for bit, refused if contradictory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from paretorch.optim import MTAdamV2, Preconditioned, find_preset
from paretorch.training.loop import train
from paretorch.training.names.optimizers import find_optimizer
from paretorch.training.resolved_run import resolve
from paretorch.training.run import Run
from training_runs import TINY, check_resumed_run


def tiny_run(optimizer: str, **values: Any) -> Run:
    return Run(**{"workload": TINY, "batch_size": 8, "optimizer": optimizer, **values})


@pytest.mark.parametrize("options", [{}, {"own_inputs": True}, {"missing": True}], ids=str)
@pytest.mark.parametrize("optimizer", ["MTAdam", "MTAdamV2", "AdaTask", "Preconditioned"])
@pytest.mark.sampled(3)
def test_optimizer_run_decreases_its_losses(optimizer: str, options: dict[str, Any], tmp_path: Path) -> None:
    method = "UPGrad()" if optimizer == "Preconditioned" else "Equal()"
    done = train(
        tiny_run(optimizer, method=method, options=options, optimizer_options={"lr": 1e-2}, epochs=8),
        tmp_path,
        progress=None,
    )
    assert sum(done.history[-1].losses.values()) < sum(done.history[0].losses.values())


@pytest.mark.parametrize(
    ("optimizer", "method"),
    [("MTAdamV2", "Equal()"), ("Preconditioned", "DWA(window=None)"), ("Preconditioned", "PCGrad()")],
)
def test_optimizer_run_resumes_bit_for_bit(optimizer: str, method: str, tmp_path: Path) -> None:
    check_resumed_run(
        tiny_run(optimizer, method=method, optimizer_options={"lr": 1e-2, "betas": (0.9, 0.99)}, epochs=5),
        tmp_path,
        epochs=3,
    )


def test_presets_are_runs(tmp_path: Path) -> None:
    for number in (2, 8):
        preset = find_preset(number)
        parts = resolve(tiny_run(preset.optimizer, optimizer_options=preset.options))
        assert parts.optimizer.defaults["lr"] == preset.options["lr"]
    assert isinstance(parts.optimizer, MTAdamV2)
    assert parts.optimizer.tasks == ("sign", "size")
    assert parts.balancer is None


def test_preconditioned_balances_by_the_runs_method() -> None:
    parts = resolve(tiny_run("Preconditioned", method="CAGrad(c=0.25)", optimizer_options={"metric": "identity"}))
    assert isinstance(parts.optimizer, Preconditioned)
    assert str(parts.optimizer.runner.method) == "CAGrad(c=0.25, rescale=1)"


def test_optimizer_run_supports_a_single_task(tmp_path: Path) -> None:
    done = train(
        tiny_run("MTAdamV2", tasks=("size",), optimizer_options={"lr": 0.1}, epochs=6), tmp_path, progress=None
    )
    assert done.history[-1].losses["size"] < done.history[0].losses["size"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": "MTAdam", "method": "MGDA()"}, "MTAdam balances by itself, and so does the method MGDA"),
        ({"optimizer": "MTAdamV2", "optimizer_options": {"mode": "equall"}}, "mode is 'balanced' or 'equal'"),
        ({"optimizer": "MTAdamV2", "optimizer_options": {"lrr": 1.0}}, "did you mean 'lr'"),
        ({"optimizer": "MTAdamV3"}, "did you mean 'MTAdamV2'"),
        ({"optimizer": "MTAdamV2", "door": {"every": 2}}, "without a Fork or Balancer: their options, here every"),
        ({"optimizer": "Preconditioned", "method": "GradDrop()"}, "gives weights for one batch"),
        ({"optimizer": "AdaTask", "optimizer_options": {"weights": {"sing": 1.0}}}, "task 'sign' has none"),
    ],
)
def test_optimizer_run_refuses_contradictory_options(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(Run(**{"workload": TINY, "optimizer_options": {}, **values}))


def test_optimizer_run_finds_torch_optimizers() -> None:
    made = find_optimizer("AdamW", {"lr": 0.1})([torch.nn.Parameter(torch.zeros(1))])
    assert type(made) is torch.optim.AdamW
