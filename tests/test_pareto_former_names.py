"""Former public names of fronts work and warn."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from paretorch import pareto
from paretorch.pareto import (
    EPO,
    Front,
    FrontAlgorithm,
    FrontEvidence,
    Gated,
    Neighbours,
    ObjectiveRange,
    Sweep,
    Transfer,
    WeightedSum,
)

ONES = torch.ones(1, 2)
POINTS = torch.tensor([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]], dtype=torch.float64)
FRONT = Front(("a", "b"), POINTS, POINTS, ({},) * 3, ({},) * 3, nn.Identity())


@pytest.mark.parametrize(
    ("former", "name"),
    [
        ("Extent", "ObjectiveRange"),
        ("Moment", "FrontSnapshot"),
        ("Moving", "PreferenceAdaptation"),
        ("View", "FrontEvidence"),
    ],
)
def test_former_class_is_the_renamed_one_and_warns(former: str, name: str) -> None:
    with pytest.warns(FutureWarning, match=f"pareto.{former} is now paretorch.pareto.{name}"):
        assert getattr(pareto, former) is getattr(pareto, name)


@pytest.mark.parametrize(
    ("owner", "former", "name"),
    [
        (EPO(), "looks_at_gradients", "needs_gramian"),
        (Sweep, "looks_at_gradients", "needs_gramian"),
        (Sweep(adapt="spacing"), "moving", "preference_adaptation"),
        (EPO(), "family", "conditional_model"),
        (Gated(), "looks_at_gradients", "needs_cosines"),
        (FRONT, "spread", "evenness"),
        (FRONT, "coverage", "inverted_generational_distance"),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__) if not isinstance(value, str) else value,
)
def test_former_attribute_is_the_renamed_one_and_warns(owner: object, former: str, name: str) -> None:
    with pytest.warns(FutureWarning, match=rf"\.{former} is now .*\.{name}"):
        assert getattr(owner, former) == getattr(owner, name)


def test_former_keywords_and_attributes_of_evidence_work_and_warn() -> None:
    span = ObjectiveRange(torch.zeros(2), torch.full((2,), 2.0))
    options = {"everyone": ONES, "extent": span}
    with pytest.warns(FutureWarning, match=r"FrontEvidence\((everyone|extent)=\.\.\.\) is now"):
        evidence = FrontEvidence((0,), ONES, ONES / 2, None, all_preferences=ONES / 2, progress=0.0, **options)  # type: ignore[arg-type]
    assert evidence.objective_range is span
    with pytest.warns(FutureWarning, match="everyone is now FrontEvidence.previous_losses"):
        assert evidence.everyone is evidence.previous_losses  # type: ignore[attr-defined]
    assert evidence.slopes(WeightedSum()).tolist() == [[0.25, 0.25]]


def subclasses_with_former_names() -> tuple[FrontAlgorithm, Transfer]:
    @dataclasses.dataclass(frozen=True)
    class Mine(FrontAlgorithm):
        looks_at_gradients = True

        def moving(self) -> pareto.PreferenceAdaptation:
            return pareto.PreferenceAdaptation("hypervolume")

    @dataclasses.dataclass(frozen=True)
    class Own(Transfer):
        looks_at_gradients = True

        def matrix(self, preferences: Tensor, rate: float, cosines: Tensor | None) -> Tensor:
            return Neighbours().matrix(preferences, rate, cosines)

    return Mine(), Own()


def test_former_attributes_may_be_overridden_and_warn() -> None:
    with pytest.warns(FutureWarning) as caught:
        algorithm, transfer = subclasses_with_former_names()
    assert sorted(str(each.message).partition(";")[0] for each in caught) == [
        "Mine.looks_at_gradients is now Mine.needs_gramian",
        "Mine.moving is now Mine.preference_adaptation",
        "Own.looks_at_gradients is now Own.needs_cosines",
    ]
    assert algorithm.needs_gramian
    assert algorithm.needs_reference
    assert transfer.needs_cosines
