"""Adoption: a model takes the parameters of a better one, with buffers and moments, and only under its conditions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import paretorch as pt
from front_points import sgd
from front_ranks import spread_front
from paretorch.pareto import Front, Gated, Neighbours, SmoothTchebycheff, Transfer
from paretorch.pareto.fitting.exchange import Exchange
from paretorch.pareto.models.rank_partition import RankPartition
from paretorch.pareto.transfer.adoption import STEADY, Adoption
from paretorch.workloads.synthetic import Synthetic

F64 = torch.float64
ALL = torch.ones(2, dtype=torch.bool)
MATRIX = torch.full((2, 2), 0.5)


def second_is_better(steps: int, guaranteed: float = 0.1, gap: float = 1.0) -> Adoption:
    """For both models, the second's losses are better by ``gap``."""
    adoption = Adoption(RankPartition(2, group=None))
    adoption.guaranteed_decrease = torch.full((2,), guaranteed, dtype=F64)
    for _ in range(steps):
        adoption.compare(torch.tensor([[gap, 0.0], [gap, 0.0]], dtype=F64))
    return adoption


def test_donor_is_adopted_after_consecutive_better_steps() -> None:
    assert second_is_better(STEADY - 1).donor(MATRIX, ALL).tolist() == [0, 1]
    assert second_is_better(STEADY).donor(MATRIX, ALL).tolist() == [1, 1]
    broken = second_is_better(STEADY - 1)
    broken.compare(torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=F64))
    broken.compare(torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=F64))
    assert broken.donor(MATRIX, ALL)[0] == 0


@pytest.mark.parametrize("guaranteed", [math.nan, 1.0, 2.0])
def test_donor_must_be_better_by_more_than_the_guaranteed_decrease(guaranteed: float) -> None:
    assert second_is_better(9, guaranteed).donor(MATRIX, ALL).tolist() == [0, 1]


def test_donor_needs_a_transfer_coefficient_and_finite_losses() -> None:
    adoption = second_is_better(9)
    assert adoption.donor(torch.eye(2), ALL).tolist() == [0, 1]
    assert adoption.donor(MATRIX, ~ALL).tolist() == [0, 1]
    assert second_is_better(9, gap=math.nan).donor(MATRIX, ALL).tolist() == [0, 1]


def test_adoption_copies_parameters_buffers_and_moments() -> None:
    adoption = second_is_better(STEADY)
    value = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    optimizer = torch.optim.Adam([value], lr=0.1)
    value.grad = torch.tensor([[1.0, 1.0], [5.0, 5.0]])
    before, buffer = value.detach().clone(), torch.tensor([7, 8])
    optimizer.step()
    stepped = value.detach().clone()
    with torch.no_grad():
        adoption.replace(torch.tensor([1, 1]), [value], [before], [buffer], optimizer)
    assert value[0].tolist() == [3.0, 4.0]  # where it was when its losses were measured
    assert torch.equal(value[1], stepped[1])
    assert buffer.tolist() == [8, 8]
    for name in ("exp_avg", "exp_avg_sq"):
        moment = optimizer.state[value][name]
        assert torch.equal(moment[0], moment[1])
    assert not adoption.lead[0].any()


def on_two_minima(transfer: Transfer | None, seed: int, starts: str = "common") -> Front:
    front: Front = pt.fit_front(
        Synthetic("two_valley"),
        pt.MT2O(SmoothTchebycheff(0.1, 0.0003), transfer),
        preferences=pt.preferences(2, 6),
        epochs=120,
        optimizer=sgd(0.2),
        starts=starts,
        seed=seed,
    )
    return front


@pytest.mark.long
def test_adoption_moves_models_out_of_the_worse_minimum() -> None:
    ends = [
        [on_two_minima(Gated(adopts=adopts), seed).history[-1].hypervolume for seed in range(4)]
        for adopts in (True, False)
    ]
    assert min(a - b for a, b in zip(*ends, strict=True)) >= 0.0
    assert max(a - b for a, b in zip(*ends, strict=True)) > 0.5


@pytest.mark.parametrize("algorithm", [pt.MT2O(parameters="encoder"), pt.MT2O(adapt="spacing")], ids=str)
def test_adoption_is_off_for_encoders_alone_and_adapted_preferences(algorithm: pt.MT2O) -> None:
    sharing = algorithm.sharing()
    assert sharing is not None
    assert Exchange(sharing, {"encoder.a": torch.zeros(2, 2)}, {}, RankPartition(2, group=None)).adoption is None


def test_adoption_occurs_in_the_front_of_the_rank_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []
    take = Adoption.replace

    def counted(self: Adoption, donors: Tensor, *others: object) -> None:
        moved.append(int((donors != self.own).sum()))
        take(self, donors, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(Adoption, "replace", counted)
    adopting = spread_front("adopting")
    assert sum(moved) >= 1
    monkeypatch.setattr(Adoption, "donor", lambda self, matrix, free: self.own)
    alone = spread_front("adopting")
    points = [torch.stack([state["encoder.point"] for state in front.states]) for front in (adopting, alone)]
    changed = (points[0] - points[1]).abs().flatten(1).amax(dim=1)
    assert float(changed.max()) > 1e-3


def test_adoption_is_off_without_a_gate() -> None:
    assert not Neighbours().adopts
