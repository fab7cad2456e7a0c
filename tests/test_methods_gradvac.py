"""Gradient vaccine: targets, rotation, and the closed form for two tasks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import paretorch as pt
from matrices import gaussian, one_step, weights_of


def test_gradvac_targets_are_running_means_of_cosines() -> None:
    rows = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
    _, state = one_step(pt.GradVac(beta=0.5), None, rows)
    cosine = -22 / math.sqrt(18 * 38)
    expected = torch.tensor([[0.0, cosine / 2], [cosine / 2, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(state.targets, expected)
    _, later = one_step(pt.GradVac(beta=0.5), state, rows)
    torch.testing.assert_close(later.targets[0, 1].item(), cosine * 0.75)


def test_gradvac_rotates_gradient_to_target_cosine() -> None:
    rows = gaussian(2, 5, 3)
    method = pt.GradVac(beta=0.0)
    _, state = one_step(method, None, rows)
    state = state._replace(targets=torch.full((2, 2), 0.6, dtype=torch.float64))
    for task in range(2):
        other = 1 - task
        unit = rows / rows.norm(dim=1, keepdim=True)
        cosine = float(unit[task] @ unit[other])
        assert cosine < 0.6
        share = (0.6 * math.sqrt(1 - cosine**2) - cosine * 0.8) / 0.8
        rotated = unit[task] + share * unit[other]
        assert float(rotated @ unit[other] / rotated.norm()) == pytest.approx(0.6)
        rows[task] *= 3.0
    expected = [
        1 + (0.6 * math.sqrt(1 - cosine**2) - cosine * 0.8) / 0.8 * float(rows[1 - task].norm() / rows[task].norm())
        for task in range(2)
    ]
    torch.testing.assert_close(
        weights_of(one_step(method, state, rows)[0]), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize("seed", range(10))
def test_gradvac_closed_form_equals_general_case(seed: int) -> None:
    """The closed form for two gradients against the general case for the same two and a zero gradient, which is skipped."""
    method = pt.GradVac(beta=0.4)
    two: Any = None
    three: Any = None
    for step in range(4):
        rows = gaussian(2, 3, 10 * seed + step) * torch.tensor([[1.0], [10.0 ** (seed % 4)]], dtype=torch.float64)
        if seed == 3:
            rows[step % 2] = -2 * rows[1 - step % 2]
        wide = torch.cat([rows, torch.zeros(1, 3, dtype=torch.float64)])
        balance, two = one_step(method, two, rows)
        expected, three = one_step(method, three, wide)
        torch.testing.assert_close(weights_of(balance), weights_of(expected)[:2], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(two.targets, three.targets[:2, :2], rtol=1e-9, atol=1e-12)
    assert float(two.targets.abs().max()) > 0.01
