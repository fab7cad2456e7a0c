"""The objective range: its estimate during training, and independence of units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import paretorch as pt
from paretorch.pareto import FrontAlgorithm, ObjectiveRange, SmoothTchebycheff, Sweep
from paretorch.pareto.objective_range import LEAST, SMOOTH, RangeTracker
from paretorch.workloads.synthetic import Synthetic

F64 = torch.float64
BOTH = torch.ones(2, dtype=torch.bool)


@dataclass(frozen=True)
class InOtherUnits(Synthetic):
    """The second loss in units a thousand times smaller."""

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        found = super().losses(outputs, targets)
        return {"f1": found["f1"], "f2": 1024.0 * found["f2"]}


def fast(parameters: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-2)


@pytest.mark.parametrize(
    ("algorithm", "reference"),
    [
        (pt.MT2O(normalize=True), None),
        (pt.MT2O(transfer=None, normalize=True), None),
        (Sweep(normalize=True), None),
        (pt.MT2O(normalize=True, adapt="spacing"), None),
        (pt.MT2O(normalize=True, adapt="hypervolume"), (1.0, 1.0)),
        (pt.MT2O(normalize=True, adapt="hypervolume"), (0.2, 0.6)),  # some members are beyond it
    ],
    ids=["gated", "alone", "sweep", "spacing", "hypervolume", "beyond"],
)
def test_normalized_training_is_independent_of_units(
    algorithm: FrontAlgorithm, reference: tuple[float, float] | None
) -> None:
    fronts = [
        pt.fit_front(
            workload,
            algorithm,
            preferences=pt.preferences(2, 3, margin=0.1),
            epochs=4,
            batch_size=32,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01),
            execution="vmap",
            reference=None if reference is None else (reference[0], unit * reference[1]),
        )
        for workload, unit in ((Synthetic(samples=128), 1.0), (InOtherUnits(samples=128), 1024.0))
    ]
    units = torch.tensor([1.0, 1024.0], dtype=F64)
    assert torch.allclose(fronts[0].losses * units, fronts[1].losses, rtol=1e-4)
    assert torch.allclose(fronts[0].preferences, fronts[1].preferences, rtol=1e-4)
    assert float(fronts[0].losses.std(dim=0).min()) > 1e-3, "the members differ"


def test_training_without_normalization_depends_on_units() -> None:
    """Else the test above could not fail."""
    given = [(0.5, 0.5), (0.4, 0.6)]
    ends = [
        pt.fit_front(workload, Sweep(), preferences=given, epochs=60, batch_size=32, optimizer=fast).losses[:, 0]
        for workload in (Synthetic(samples=128), InOtherUnits(samples=128))
    ]
    assert not torch.allclose(ends[0], ends[1], rtol=0.1)


def test_range_tracker_is_independent_of_the_execution() -> None:
    algorithm = pt.MT2O(SmoothTchebycheff(0.1), normalize=True)
    losses = [
        pt.fit_front(
            Synthetic(samples=128),
            algorithm,
            preferences=pt.preferences(2, 3),
            epochs=2,
            batch_size=32,
            execution=execution,
        ).losses
        for execution in ("loop", "vmap")
    ]
    assert torch.allclose(losses[0], losses[1], rtol=1e-4)


def test_range_tracker_uses_running_means() -> None:
    tracker, active = RangeTracker(3, 2), torch.tensor([True, True, False])
    first = torch.tensor([[1.0, 8.0], [3.0, 2.0], [0.0, 0.0]], dtype=F64)
    tracker.add(first, active)
    assert tracker.ideal.tolist() == [1.0, 2.0], "a member that does not train does not count"
    assert tracker.range(first, active, BOTH).nadir.tolist() == [3.0, 8.0]
    tracker.add(torch.tensor([[0.0, torch.nan], [3.0, 2.0], [0.0, 0.0]], dtype=F64), active)
    assert tracker.ideal.tolist() == pytest.approx([SMOOTH, 2.0]), "an absent task leaves its mean"
    tracker.add(torch.tensor([[50.0, 9.0], [3.0, 2.0], [0.0, 0.0]], dtype=F64), active)
    span = tracker.range(first, active, BOTH)
    assert span.ideal.tolist() == pytest.approx([SMOOTH, 2.0]), "the ideal point never rises"
    # the first member is now dominated: its losses are no trade-off
    assert span.nadir.tolist() == pytest.approx([3.0, 2.0 + LEAST * 5.0])


def test_range_tracker_starts_with_the_given_losses() -> None:
    losses = torch.tensor([[2.0, 400.0]], dtype=F64)
    span = RangeTracker(1, 2).range(losses, torch.tensor([True]), BOTH)
    assert span.value(SmoothTchebycheff(1.0), losses, torch.tensor([[0.5, 0.5]])).item() == pytest.approx(
        float(torch.logsumexp(torch.tensor([0.5, 0.5]), dim=0))
    )


def test_range_weights_are_the_derivatives_of_the_value() -> None:
    torch.manual_seed(0)
    span = ObjectiveRange(torch.tensor([0.1, 20.0], dtype=F64), torch.tensor([0.5, 70.0], dtype=F64))
    losses = torch.tensor([[0.3, 40.0], [0.2, 60.0]], dtype=F64, requires_grad=True)
    preferences = torch.tensor([[0.3, 0.7], [0.6, 0.4]], dtype=F64)
    made = SmoothTchebycheff(0.1)
    (slopes,) = torch.autograd.grad(span.value(made, losses, preferences).sum(), losses)
    assert torch.allclose(span.weights(made, losses.detach(), preferences), slopes)


def test_range_tracker_state_is_resumed(tmp_path: Path) -> None:
    def fit(folder: Path | None, kill_at: int = 0) -> pt.Front:
        def watch(moment: pt.pareto.FrontSnapshot) -> None:
            if moment.epoch == kill_at:
                raise KeyboardInterrupt

        return pt.fit_front(
            Synthetic(samples=64),
            pt.MT2O(normalize=True),
            preferences=pt.preferences(2, 3),
            epochs=4,
            batch_size=32,
            every=1,
            execution="vmap",
            checkpoint=folder,
            progress=watch,
        )

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, kill_at=2)
    assert torch.equal(fit(tmp_path).losses, fit(None).losses)
