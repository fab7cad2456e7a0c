"""Where MGDA on the features and on the parameters differs: the claims of the page on MGDA, by Fork and Balancer."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import paretorch as pt

ROOT = Path(__file__).parents[1]
TASKS = ("first", "second")


def rates(jacobian: Tensor, on_features: Tensor, surface: str) -> tuple[Tensor, Any]:
    """(T,) rates at which losses decrease along an MGDA step of a linear encoder, and the record of the step.

    The encoder is z = J theta, and the loss of task t is the inner product of its row of ``on_features`` with z.
    """
    parameters = torch.zeros(jacobian.shape[1], dtype=torch.float64, requires_grad=True)
    features = jacobian @ parameters
    if surface == "features":
        fork = pt.Fork(pt.MGDA(), tasks=TASKS, scale="paper")
        branch = fork(features)
        torch.stack([branch[task] @ row for task, row in zip(TASKS, on_features, strict=True)]).sum().backward()
        balance = fork.balance
    else:
        balancer = pt.Balancer(pt.MGDA(), shared=[parameters], scale="paper")
        balance = balancer.backward({task: features @ row for task, row in zip(TASKS, on_features, strict=True)})
    assert parameters.grad is not None
    return on_features @ jacobian @ parameters.grad, balance


def matrix(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_mgda_bound_leaves_a_stationary_point_of_a_rank_deficient_encoder() -> None:
    jacobian, on_features = matrix([1.0], [1.0]), matrix([2.0, -1.0], [-1.0, -1.0])
    exact, balance = rates(jacobian, on_features, "parameters")
    assert exact.abs().max() < 1e-12
    assert balance.status is pt.Status.STATIONARY
    bound, balance = rates(jacobian, on_features, "features")
    torch.testing.assert_close(bound, torch.tensor([-1.0, 2.0], dtype=torch.float64))
    assert balance.status is pt.Status.SOLVED


def test_mgda_bound_with_a_zero_step_on_the_parameters_is_not_zero_on_the_features() -> None:
    found, balance = rates(matrix([1.0], [1.0]), matrix([2.0, -1.0], [1.0, -2.0]), "features")
    assert found.abs().max() < 1e-12
    assert balance.status is pt.Status.SOLVED
    assert float(balance.gramian.double().diagonal().min()) == 5.0


def test_mgda_bound_increases_a_loss_although_the_jacobian_has_full_rank() -> None:
    jacobian, on_features = matrix([2.0, 0.0], [-0.75, 0.4375**0.5]), matrix([1.0, 1.0], [-0.5, 1.0])
    assert torch.linalg.matrix_rank(jacobian) == 2
    bound, _ = rates(jacobian, on_features, "features")
    torch.testing.assert_close(bound, torch.tensor([-0.5, 1.75], dtype=torch.float64))
    exact, _ = rates(jacobian, on_features, "parameters")
    torch.testing.assert_close(exact, torch.tensor([0.4375, 0.4375], dtype=torch.float64))


def test_mgda_bound_equals_the_exact_direction_where_the_jacobian_is_orthogonal() -> None:
    generator = torch.Generator().manual_seed(7)
    jacobian, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))
    on_features = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        rates(jacobian, on_features, "features")[0], rates(jacobian, on_features, "parameters")[0]
    )


def test_mgda_picture_share_grows_with_the_condition_number_for_the_bound_only() -> None:
    pytest.importorskip("matplotlib")
    share = runpy.run_path(str(ROOT / "docs" / "pictures" / "mgda.py"))["increasing_share"]
    assert share(5, 1.0, "features", 50) == 0.0
    assert 0.1 < share(5, 5.0, "features", 50) < share(5, 100.0, "features", 50)
    assert share(5, 100.0, "parameters", 50) == 0.0


@pytest.mark.parametrize("name", ["hull", "surfaces", "front"])
def test_mgda_pictures_have_both_themes(name: str) -> None:
    drawn = {
        (ROOT / "docs" / "pictures" / f"mgda_{name}-{theme}.svg").read_text("utf-8") for theme in ("light", "dark")
    }
    assert len(drawn) == 2
