"""The method of a Fork, a Balancer and fork_at where none is given."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import paretorch as pt
from paretorch.core.method.default import DEFAULT_NAME

TASKS = ("class", "amount")


class Net(nn.Module):
    """Two heads on one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 24), nn.Tanh())
        self.heads = nn.ModuleDict({"class": nn.Linear(24, 2), "amount": nn.Linear(24, 1)})

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        z = self.body(x)
        return {task: head(z) for task, head in self.heads.items()}


def losses_of(outputs: dict[str, torch.Tensor], x: torch.Tensor) -> dict[str, torch.Tensor]:
    total = x.sum(dim=1)
    return {
        "class": functional.cross_entropy(outputs["class"], (total > 0).long()),
        "amount": functional.mse_loss(outputs["amount"].squeeze(1), 50 * total.abs()),
    }


def trained_errors(seed: int, kind: str) -> dict[str, float]:
    """The losses on new data after 300 steps of the plain sum, a Fork, a Balancer or fork_at without a method."""
    torch.manual_seed(seed)
    net = Net()
    fork = pt.Fork(tasks=TASKS) if kind == "Fork" else None
    if kind == "fork_at":
        pt.fork_at(net, "body", heads={task: f"heads.{task}" for task in TASKS})
    balancer = pt.Balancer()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(300):
        x = torch.randn(128, 6)
        if fork is not None:
            branch = fork(net.body(x))
            outputs = {task: head(branch[task]) for task, head in net.heads.items()}
        else:
            outputs = net(x)
        losses = losses_of(outputs, x)
        optimizer.zero_grad()
        if kind == "Balancer":
            balancer.backward(losses)
        else:
            sum(losses.values()).backward()  # type: ignore[union-attr]
        optimizer.step()
    net.eval()
    x = torch.randn(2_000, 6)
    with torch.no_grad():
        return {task: float(loss) for task, loss in losses_of(net(x), x).items()}


@pytest.mark.parametrize("kind", ["Fork", "Balancer", "fork_at"])
def test_default_method_trains_a_task_that_the_plain_sum_starves(kind: str) -> None:
    """The amount's loss is thousands of times as large; the class suffers under the sum."""
    for seed in (3, 4):
        plain, found = trained_errors(seed, "sum"), trained_errors(seed, kind)
        assert found["class"] < 0.7 * plain["class"]
        assert found["amount"] < 1.2 * plain["amount"]


def test_default_method_is_the_recommended_one_and_needs_no_further_call() -> None:
    fork, balancer = pt.Fork(tasks=TASKS), pt.Balancer()
    assert fork.method == balancer.method
    assert type(fork.method).__name__ == DEFAULT_NAME
    assert not fork.needs_losses


@pytest.mark.parametrize("make", [pt.Fork, pt.Balancer])
def test_no_method_and_one_task_is_refused_with_the_cure(make: type[pt.Fork | pt.Balancer]) -> None:
    with pytest.raises(ValueError, match=r"no method and one task, 'depth': .* call backward\(\) on it"):
        make(tasks=("depth",))
    assert make(pt.MGDA(), tasks=("depth",)).tasks == ("depth",)


def test_fork_without_tasks_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one task name"):
        pt.Fork()
