"""The trust of a gate during training, against the rule computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from paretorch.pareto import Cosine, Gated, Neighbours, Transfer, WeightedSum
from paretorch.pareto.algorithms.contract import Sharing
from paretorch.pareto.fitting.exchange import Exchange
from paretorch.pareto.models.ensemble import inner_products
from paretorch.pareto.models.rank_partition import RankPartition

F64 = torch.float64
MEMBERS, SIZE = 5, 6
PROMISED = 0.75  # of eta |grad F|^2


class Front:
    """Members that descend weighted sums of two quadratics, the second ``curvature`` times as curved, with mutual transfer."""

    def __init__(self, growth: float, curvature: float, rate: float, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.preferences = torch.stack([torch.linspace(0.1, 0.9, MEMBERS, dtype=F64)] * 2, dim=1)
        self.preferences[:, 1] = 1 - self.preferences[:, 0]
        self.targets = torch.randn(2, SIZE, generator=draw, dtype=F64)
        self.scales = torch.tensor([1.0, curvature], dtype=F64)
        self.points = torch.randn(MEMBERS, SIZE, generator=draw, dtype=F64).requires_grad_()
        sharing = Sharing(Gated(Neighbours(rho=0.9, tau=1.0), growth=growth, adopts=False), WeightedSum())
        self.exchange = Exchange(sharing, {"encoder.point": self.points}, {}, RankPartition(MEMBERS, group=None))
        self.optimizer = torch.optim.SGD([self.points], lr=rate)
        self.rate = rate

    def losses(self) -> Tensor:
        return self.scales * (self.points[:, None] - self.targets).square().sum(dim=2) / 2

    def values(self) -> Tensor:
        """(N,) each member's weighted sum."""
        return (self.preferences * self.losses()).sum(dim=1)

    def step(self) -> tuple[Tensor, Tensor, Tensor]:
        """One step: (N,) shares taken, shares by the formula, and descents that are promised."""
        self.points.grad = None
        values = self.values()
        values.sum().backward()
        assert self.points.grad is not None
        gradient = self.points.grad.clone()
        self.exchange.update_trust(self.losses().detach(), self.preferences)
        matrix = self.exchange.sharing.transfer.matrix(self.preferences, 1.0, None)
        towards = matrix @ self.points.detach() - self.points.detach()
        slope, square = (gradient * towards).sum(dim=1), towards.square().sum(dim=1)
        formula = (2 * self.exchange.trust * self.rate * -slope / square).clamp(0.0, 1.0)
        rounding = (4 * torch.finfo(F64).eps) ** 2 * self.points.detach().square().sum(dim=1)
        formula = torch.where(square > rounding, formula, 0.0)
        shares = self.exchange.step(self.optimizer, self.preferences, torch.ones(MEMBERS) > 0, 0.0, 1.0)
        return shares, formula, PROMISED * self.rate * gradient.square().sum(dim=1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("growth", "curvature", "rate"), [(2.0, 1.0, 0.3), (1.5, 3.0, 0.1), (4.0, 1.0, 1.2), (1.0, 1.0, 0.3)]
)
def test_trust_is_multiplied_by_growth_or_divided_by_four(
    growth: float, curvature: float, rate: float, seed: int
) -> None:
    front = Front(growth, curvature, rate, seed)
    expected = torch.ones(MEMBERS, dtype=F64)
    kept = broken = 0
    for _ in range(12):
        before = front.values().detach()
        shares, formula, promised = front.step()
        torch.testing.assert_close(front.exchange.trust, expected, rtol=1e-12, atol=0)  # of the steps before this one
        torch.testing.assert_close(shares, formula, rtol=1e-9, atol=1e-12)
        decrease, moved = before - front.values().detach(), shares > 0
        sufficient = decrease >= promised
        if growth > 1:
            after = torch.where(sufficient, growth * expected, expected / 4).clamp(1.0, 1e9)
            expected = torch.where(moved, after, expected)
        kept += int((moved & sufficient).sum())
        broken += int((moved & ~sufficient).sum())
    assert kept + broken >= MEMBERS  # transfer occurs
    assert (kept if rate < 1 else broken) > 0
    assert growth > 1 or front.exchange.trust.tolist() == [1.0] * MEMBERS


def test_trust_allows_larger_displacements() -> None:
    shares = {}
    for growth in (1.0, 4.0):
        front = Front(growth, curvature=1.0, rate=0.05, seed=0)
        shares[growth] = torch.stack([front.step()[0] for _ in range(6)])
    assert torch.equal(shares[4.0][0], shares[1.0][0])  # nothing is learnt before the first step
    assert float(shares[4.0][1:].sum()) > 1.5 * float(shares[1.0][1:].sum())


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_models_that_are_equal_but_for_rounding_transfer_nothing_and_learn_no_trust(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    preferences = torch.rand(7, 2, generator=draw, dtype=F64)
    points = torch.randn(1, 400, generator=draw, dtype=dtype).expand(7, 400).clone()
    points *= 1 + torch.finfo(dtype).eps * torch.randint(-1, 2, points.shape, generator=draw)
    points.requires_grad_()
    sharing = Sharing(Gated(Neighbours(rho=0.9), growth=2.0, adopts=False), WeightedSum())
    exchange = Exchange(sharing, {"encoder.point": points}, {}, RankPartition(7, group=None))
    optimizer = torch.optim.SGD([points], lr=0.01)
    for step in range(4):
        points.grad = points.detach().clone()
        exchange.update_trust(torch.full((7, 2), 1.0 / (step + 1), dtype=F64), preferences)
        assert not exchange.step(optimizer, preferences, torch.ones(7) > 0, 0.0, 1.0).any()
    assert exchange.trust.tolist() == [1.0] * 7


@pytest.mark.parametrize("transfer", [Neighbours(rho=0.5), Cosine(), Gated(Neighbours(rho=0.9))], ids=repr)
def test_transfer_is_independent_of_autocast_around_the_step(transfer: Transfer) -> None:
    found = []
    for around in (False, True):
        draw = torch.Generator().manual_seed(0)
        points = torch.randn(5, 300, generator=draw).requires_grad_()
        exchange = Exchange(
            Sharing(transfer, WeightedSum()), {"encoder.point": points}, {}, RankPartition(5, group=None)
        )
        points.grad = torch.randn(5, 300, generator=draw)
        with torch.autocast("cpu", torch.bfloat16, enabled=around):
            exchange.step(
                torch.optim.SGD([points], lr=0.1), torch.rand(5, 2, generator=draw), torch.ones(5) > 0, 0.0, 1.0
            )
        found.append(points.detach())
    assert torch.equal(*found)


def test_inner_products_of_members_are_independent_of_autocast() -> None:
    draw = torch.Generator().manual_seed(0)
    streams = [[torch.randn(4, 50, generator=draw)] for _ in range(3)]
    expected = inner_products(streams, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(inner_products(streams, 4), expected)
