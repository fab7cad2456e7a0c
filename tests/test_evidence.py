"""Inner products of task gradients, whichever way they are brought together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from paretorch.core.gradients.task_gradients import Gradients


def gramian(gradients: Gradients) -> Tensor:
    return torch.from_numpy(gradients.gramian()[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tasks", [1, 2, 5, 21])
@pytest.mark.parametrize("memory", [None, {}], ids=["fresh", "kept"])
def test_gramian_is_equal_for_all_computations(
    dtype: torch.dtype, tasks: int, memory: dict[int, Tensor] | None
) -> None:
    """Few rows one by one, some in parts, many at once, with tasks and leaves missing; in fresh memory and in kept."""
    leaves = [torch.zeros(4, 4, dtype=dtype), torch.zeros(45, dtype=dtype), torch.zeros(1, dtype=dtype)]
    generator = torch.Generator().manual_seed(tasks)
    rows: list[list[Tensor | None] | None] = []
    for task in range(tasks):
        own: list[Tensor | None] = [torch.randn(leaf.shape, generator=generator).to(dtype) for leaf in leaves]
        if task % 3 == 1:
            own[task % 2] = None
        rows.append(None if task == 3 else own)
    full = torch.stack(
        [
            torch.cat(
                [
                    torch.zeros(leaf.numel()) if row is None or (part := row[place]) is None else part.float().flatten()
                    for place, leaf in enumerate(leaves)
                ]
            )
            if dtype != torch.float64
            else torch.cat(
                [
                    torch.zeros(leaf.numel(), dtype=dtype)
                    if row is None or (part := row[place]) is None
                    else part.flatten()
                    for place, leaf in enumerate(leaves)
                ]
            )
            for row in rows
        ]
    ).double()
    gradients = Gradients(rows, leaves, memory)
    accuracy = 1e-12 if dtype == torch.float64 else 1e-5
    for _ in range(2):
        torch.testing.assert_close(gramian(gradients), full @ full.T, rtol=accuracy, atol=accuracy * 60)
    weights = torch.linspace(-1, 2, tasks, dtype=torch.float64)
    combined = torch.cat([part.flatten().double() for part in gradients.combined(weights.tolist())])
    coarse = 1e-12 if dtype == torch.float64 else (2e-2 if dtype == torch.bfloat16 else 1e-5)
    torch.testing.assert_close(combined, weights @ full, rtol=coarse, atol=coarse)
    present = torch.tensor([row is not None for row in rows])
    torch.testing.assert_close(gradients.jacobian(present).double(), full[present])


def test_combined_gradient_does_not_read_a_task_of_weight_zero() -> None:
    rows: list[list[Tensor | None] | None] = [[torch.ones(2)], [torch.full((2,), torch.nan)]]
    combined = Gradients(rows, [torch.zeros(2)]).combined([2.0, 0.0])
    assert combined[0].tolist() == [2.0, 2.0]
