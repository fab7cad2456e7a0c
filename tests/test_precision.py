"""Mixed precision: a GradScaler's scale never changes the result, and an overflow is skipped as always."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from small_models import TASKS, Net, data, gradients, losses_of

X, TARGETS = data()


def scaled_steps(method: pt.Method[Any], scale: float | None, count: int = 4) -> tuple[Tensor, dict[str, Tensor]]:
    """Parameters and fork state after some steps, with or without a GradScaler."""
    model = Net(fork=pt.Fork(method, TASKS))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
    for _ in range(count):
        optimizer.zero_grad()
        losses = model.fork.losses(losses_of(model(X), TARGETS))
        scaler.scale(torch.stack(list(losses.values())).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    return torch.cat([p.detach().flatten() for p in model.parameters()]), model.fork.state_dict()


@pytest.mark.parametrize(
    "method",
    [pt.MGDA(), pt.UPGrad(), pt.CAGrad(), pt.GradDrop(), pt.MGDA(normalize="loss+"), pt.DWA(window=2)],
    ids=repr,
)
def test_gradscaler_does_not_change_the_steps(method: pt.Method[Any]) -> None:
    plain, state = scaled_steps(method, None)
    scaled, other = scaled_steps(method, 2.0**15)
    torch.testing.assert_close(scaled, plain, rtol=1e-12, atol=1e-14)
    for name, value in state.items():
        torch.testing.assert_close(other[name], value, equal_nan=True)


def test_gradscaler_skips_an_overflow_and_the_state_is_unchanged() -> None:
    model = Net(fork=pt.Fork(pt.GradDrop(), TASKS))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    losses = losses_of(model(X), TARGETS)
    scaler.scale(losses["a"] * torch.inf + losses["b"] + losses["c"]).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(torch.cat([p.detach().flatten() for p in model.parameters()]), before)
    assert scaler.get_scale() == 4.0
    assert model.fork.steps == 0
    assert model.fork.balance.status is pt.Status.NONFINITE


def test_bfloat16_autocast_trains_and_is_close_to_float32() -> None:
    def run(enabled: bool) -> Tensor:
        torch.manual_seed(0)
        encoder, heads = nn.Linear(5, 64), nn.ModuleDict({"a": nn.Linear(64, 2), "b": nn.Linear(64, 2)})
        fork = pt.Fork(pt.MGDA(), ("a", "b"))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            branch = fork(encoder(X.float()))
            outputs = {task: head(branch[task]) for task, head in heads.items()}
        losses = losses_of(
            {task: output.float() for task, output in outputs.items()}, {t: v.float() for t, v in TARGETS.items()}
        )
        torch.stack(list(losses.values())).sum().backward()
        assert fork.balance is not None
        assert fork.balance.weights is not None
        torch.testing.assert_close(fork.balance.weights.sum(), torch.tensor(2.0, dtype=torch.float64))
        return gradients(encoder)

    torch.testing.assert_close(run(True), run(False), rtol=0.1, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_features_in_low_precision_are_summed_in_float32(dtype: torch.dtype) -> None:
    """4096 products of ones: float16 would stop at 2048 steps of one, bfloat16 at 256."""
    fork = pt.Fork(pt.MGDA(), ("a", "b"))
    z = torch.zeros(64, 64, dtype=dtype, requires_grad=True)
    branch = fork(z)
    (branch["a"].sum() + 2 * branch["b"].sum()).backward()
    assert fork.balance is not None
    assert fork.balance.gramian is not None
    assert fork.balance.gramian.tolist() == [[4096, 8192], [8192, 16384]]
    assert z.grad is not None
    assert z.grad.dtype == dtype
