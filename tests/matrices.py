"""Jacobians of many kinds, and steps of a method on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import paretorch as pt
from paretorch.core.contract import Balance, Evidence, Need
from paretorch.core.gradients.task_gradients import Gradients

SIZES = (1, 2, 3, 10, 40, 128)


def gaussian(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def jacobians(tasks: int, seed: int = 0) -> Iterator[tuple[str, Tensor]]:
    """(T, n) Jacobians by name: of several ranks, with equal and opposite rows, stationary, with norm ratios and scales."""
    full = gaussian(tasks, 2 * tasks + 3, seed)
    yield "full rank", full
    yield "rank one", gaussian(tasks, 1, seed + 1) @ gaussian(1, 7, seed + 2)
    yield "rank one, one side", gaussian(tasks, 1, seed + 1).abs() @ gaussian(1, 7, seed + 2)
    yield (
        "rank deficient",
        gaussian(tasks, max(tasks // 2, 1), seed + 3) @ gaussian(max(tasks // 2, 1), tasks + 4, seed + 4),
    )
    yield "one side", full.abs()
    if tasks >= 2:
        equal, opposite, weak = full.clone(), full.clone(), full.abs()
        equal[1] = equal[0]
        opposite[1] = -opposite[0]
        weak[1] = -weak[0] / 3
        yield "two equal", equal
        yield "two opposite", opposite
        yield "weakly stationary", weak
        yield "all equal", full[:1].expand(tasks, -1).contiguous()
        strong = full.clone()
        strong[-1] = -strong[:-1].sum(dim=0)
        yield "strongly stationary", strong
    for ratio in (10.0, 1e3, 1e6):
        lengths = torch.logspace(0, -1, tasks, base=ratio, dtype=torch.float64)[
            torch.randperm(tasks, generator=torch.Generator().manual_seed(seed))
        ]
        yield f"norm ratio {ratio:g}", full / full.norm(dim=1, keepdim=True) * lengths[:, None]
    for scale in (1e-12, 1e12):
        yield f"scale {scale:g}", full * scale


def answer(
    method: pt.Method[Any], jacobian: Tensor, *, calibrated: bool = False, seed: int = 0, losses: Tensor | None = None
) -> tuple[Balance, Tensor]:
    """The first step of a method on (T, n) gradients of any dtype, and the (n,) update in float64."""
    tasks = tuple(str(task) for task in range(len(jacobian)))
    gradients = Gradients([[row] for row in jacobian], [jacobian[0]])
    present = torch.ones(len(tasks), dtype=torch.bool)
    gramian = torch.from_numpy(gradients.gramian()[0])
    evidence = Evidence(
        tasks=tasks,
        present=present,
        losses=torch.arange(1, len(tasks) + 1, dtype=torch.float64) if losses is None else losses,
        gramian=gramian,
        cross=gramian if method.batches > 1 else None,  # as with three equal batches
        jacobian=gradients.jacobian(present) if Need.JACOBIAN in method.needs else None,
        factor=torch.ones(len(tasks), dtype=torch.float64),
        generator=torch.Generator().manual_seed(seed),
        resolution=gradients.resolution,
    )
    balancing = method.calibrated if calibrated else method.balance
    balance, _ = balancing(evidence, method.init(tasks, torch.zeros((), dtype=torch.float64)))
    if balance.update is not None:
        return balance, balance.update.double()
    assert balance.weights is not None
    return balance, balance.weights @ jacobian.double()


def one_step(
    method: pt.Method[Any], state: Any, rows: Tensor, losses: Tensor | None = None, present: list[bool] | None = None
) -> tuple[Balance, Any]:
    """One step on (T, n) gradients of the present tasks."""
    mask = torch.tensor([True] * len(rows) if present is None else present)
    if state is None:
        state = method.init(tuple(map(str, range(len(mask)))), torch.zeros((), dtype=torch.float64))
    gramian = rows @ rows.T
    evidence = Evidence(
        tuple(str(task) for task in mask.nonzero().flatten().tolist()),
        mask,
        torch.ones(len(rows), dtype=torch.float64) if losses is None else losses,
        gramian,
        gramian if method.batches > 1 else None,
        rows if Need.JACOBIAN in method.needs else None,
        torch.ones(len(rows), dtype=torch.float64),
        torch.Generator().manual_seed(0),
    )
    return method.balance(evidence, state)


def weights_of(balance: Balance) -> Tensor:
    assert balance.weights is not None
    return balance.weights
