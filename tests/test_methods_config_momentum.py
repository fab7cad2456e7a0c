"""M-ConFIG: zero updates until every declared task has a momentum, then the published algorithm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from matrices import gaussian
from paretorch.balance.conflict_free_momentum import ConFIGMomentumState
from paretorch.core.contract import Balance, Evidence, Status

F64 = torch.float64
BETA1, BETA2 = 0.9, 0.999


class Published:
    """The published algorithm; zero until every task has a momentum."""

    def __init__(self, tasks: int, size: int) -> None:
        self.momenta, self.taken, self.steps = torch.zeros(tasks, size, dtype=F64), [0] * tasks, 0
        self.combined, self.square = torch.zeros(size, dtype=F64), torch.zeros(size, dtype=F64)

    def step(self, gradients: dict[int, Tensor]) -> Tensor:
        for task, gradient in gradients.items():
            self.momenta[task] = BETA1 * self.momenta[task] + (1 - BETA1) * gradient
            self.taken[task] += 1
        if 0 in self.taken:
            return torch.zeros_like(self.square)
        self.steps += 1
        rows = torch.stack([row / (1 - BETA1**taken) for row, taken in zip(self.momenta, self.taken, strict=True)])
        units = rows / rows.norm(dim=1, keepdim=True)
        best = torch.linalg.pinv(units) @ torch.ones(len(rows), dtype=F64)
        best = best / best.norm()
        mean = (rows @ best).sum() * best
        combined = mean * (1 - BETA1**self.steps)
        gradient = (combined - BETA1 * self.combined) / (1 - BETA1)
        self.combined, self.square = combined, BETA2 * self.square + (1 - BETA2) * gradient.square()
        update: Tensor = mean / ((self.square / (1 - BETA2**self.steps)).sqrt() + 1e-8)
        return update


def momentum_step(
    state: ConFIGMomentumState, rows: dict[int, Tensor], tasks: int
) -> tuple[Balance, ConFIGMomentumState]:
    present = torch.tensor([task in rows for task in range(tasks)])
    names = tuple(str(task) for task in sorted(rows))
    evidence = Evidence(
        names, present, jacobian=torch.stack([rows[task] for task in sorted(rows)]), total=lambda tensor: tensor
    )
    return pt.ConFIGMomentum(BETA1, BETA2).balance(evidence, state)


@pytest.mark.parametrize("tasks", [2, 3, 5])
def test_config_momentum_with_one_task_per_step_equals_published_algorithm(tasks: int) -> None:
    published = Published(tasks, 8)
    state = pt.ConFIGMomentum().init(tuple(map(str, range(tasks))), torch.zeros((), dtype=F64))
    for step in range(5 * tasks):
        row = {step % tasks: gaussian(1, 8, step)[0]}
        balance, state = momentum_step(state, row, tasks)
        assert balance.update is not None
        torch.testing.assert_close(balance.update, published.step(row), rtol=1e-9, atol=1e-12)
        is_zero = step < tasks - 1
        assert (float(balance.update.norm()) == 0) == is_zero
        assert (balance.status is Status.ABSENT) == is_zero


def test_config_momentum_with_all_tasks_equals_published_algorithm() -> None:
    published, tasks = Published(3, 8), 3
    state = pt.ConFIGMomentum().init(("0", "1", "2"), torch.zeros((), dtype=F64))
    for step in range(7):
        rows = dict(enumerate(gaussian(tasks, 8, step)))
        balance, state = momentum_step(state, rows, tasks)
        updated = rows if step == 0 else {(step - 1) % tasks: rows[(step - 1) % tasks]}
        assert balance.update is not None
        torch.testing.assert_close(balance.update, published.step(updated), rtol=1e-9, atol=1e-12)
        assert float(balance.update.norm()) > 0


def test_config_momentum_update_is_zero_until_every_task_has_a_momentum() -> None:
    torch.manual_seed(0)
    encoder, heads = nn.Linear(4, 3).double(), nn.ModuleDict({task: nn.Linear(3, 1).double() for task in "abc"})
    balancer = pt.Balancer(pt.ConFIGMomentum(), tuple("abc"), shared=encoder)
    for step, tasks in enumerate(("ab", "a", "b", "c", "a")):
        for parameter in (*encoder.parameters(), *heads.parameters()):
            parameter.grad = None
        z = encoder(gaussian(5, 4, step))
        balancer.backward({task: heads[task](z).square().mean() for task in tasks})
        gradients = [parameter.grad for parameter in encoder.parameters()]
        is_nonzero = any(gradient is not None and bool((gradient != 0).any()) for gradient in gradients)
        assert is_nonzero == (step >= 3), step
        assert all(float(heads[task].weight.grad.norm()) > 0 for task in tasks)  # type: ignore[union-attr, operator]
