"""Fronts on batches with inf or nan: the step is skipped, and training recovers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from front_algorithms import TRAINED, AlgorithmEntry, needs_pymoo
from paretorch.pareto import NSGA2, DivergedWarning, Front
from paretorch.pareto.fitting.steps import MemberUpdate
from paretorch.workloads import MultiTaskModel, Splits, Stream, TensorStream
from paretorch.workloads.synthetic import Synthetic
from training_workload import Tiny

PLACES = ("loss", "gradient", "input", "feature", "encoder gradient")
SAMPLES = 64
MARK = 1000.0  # the first input of a sample that breaks the encoder


class BreakableEncoder(nn.Module):
    """An encoder whose features of a marked sample are not finite, or whose gradient is infinite in a batch with a mark."""

    def __init__(self, encoder: nn.Module, place: str, value: float) -> None:
        super().__init__()
        self.encoder, self.place, self.value = encoder, place, value

    def forward(self, x: Tensor) -> Tensor:
        marked = x.abs().amax(dim=1, keepdim=True) > MARK / 2  # COSMOS maps the inputs linearly before
        z: Tensor = self.encoder(torch.where(marked, 0.0, x))
        if self.place == "feature":
            return torch.where(marked, self.value, z)
        root = ((1 - marked.float().amax()) + 0 * z).sqrt()
        return z + root - root.detach()


@dataclass(frozen=True)
class Marked(Tiny):
    """One training sample, a random one, breaks the batch that contains it.

    Args:
        place: what the sample breaks; empty: nothing.
        value: the loss, the input or the features.
        sample: its number.
    """

    place: str = ""
    value: float = math.nan
    sample: int = 0
    samples: int = SAMPLES

    def data(self) -> Splits:
        plain = super().data()
        (stream,) = plain.train
        assert isinstance(stream, TensorStream)
        size, inputs = stream.targets["size"].clone() / 30, stream.inputs.clone()
        mark = torch.zeros(len(size))
        mark[self.sample] = 1
        if self.place == "input":
            inputs[self.sample, 0] = self.value
        elif self.place in ("feature", "encoder gradient"):
            inputs[self.sample, 0] = MARK
        marked = TensorStream(inputs, {**stream.targets, "size": torch.stack([size, mark], dim=1)})
        return Splits((marked,), _unmarked(plain.validation), _unmarked(plain.test))

    def model(self) -> nn.Module:
        model = super().model()
        assert isinstance(model, MultiTaskModel)
        if self.place in ("feature", "encoder gradient"):
            model.encoder = BreakableEncoder(model.encoder, self.place, self.value)
        return model

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        size, mark = targets["size"].unbind(dim=1)
        found = super().losses(outputs, {**targets, "size": size})
        if self.place == "loss":
            found["size"] = torch.where(mark.max() > 0, self.value, found["size"])
        elif self.place == "gradient":  # the root's derivative is infinite at the mark, and its value is finite
            root = ((1 - mark.max()) + 0 * outputs["size"].sum()).sqrt()
            found["size"] = found["size"] + root - root.detach()
        return found

    def metrics(self) -> dict[str, tuple[Any, ...]]:
        return {}


def _unmarked(streams: tuple[Stream, ...]) -> tuple[Stream, ...]:
    (stream,) = streams
    assert isinstance(stream, TensorStream)
    size = stream.targets["size"] / 30
    targets = {**stream.targets, "size": torch.stack([size, torch.zeros_like(size)], dim=1)}
    return (TensorStream(stream.inputs, targets),)


def fit(entry: AlgorithmEntry, workload: Any, epochs: int = 5) -> tuple[Front, list[str]]:
    """The front, and its warnings."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        front = pt.fit_front(
            workload,
            entry.algorithm,
            preferences=pt.preferences(2, 3, margin=0.1),
            epochs=epochs,
            batch_size=16,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2 if entry.kind == "conditional" else 3e-2),
            reference=(9.0, 9.0),
            **({"execution": "loop", "starts": "independent"} if entry.kind == "members" else {}),
        )
    return front, [str(each.message) for each in found if issubclass(each.category, DivergedWarning)]


def cases() -> list[Any]:
    """Every algorithm with every place; those on members with one place each in the quick suite."""
    return [
        pytest.param(
            entry,
            place,
            id=f"{entry.name}-{place}",
            marks=[pytest.mark.long] if entry.kind == "members" and (row + column) % len(PLACES) else [],
        )
        for row, entry in enumerate(TRAINED)
        for column, place in enumerate(PLACES)
    ]


@pytest.mark.parametrize(("entry", "place"), cases())
@pytest.mark.sampled(2)
def test_front_skips_a_batch_that_is_not_finite_and_recovers(entry: AlgorithmEntry, place: str) -> None:
    sample = int(torch.randint(SAMPLES, (), generator=torch.Generator().manual_seed(len(entry.name) + len(place))))
    value = math.inf if sample % 2 else math.nan
    front, messages = fit(entry, Marked(place=place, value=value, sample=sample))
    assert front.diverged == ()
    for state in front.states:
        assert all(bool(tensor.isfinite().all()) for tensor in state.values())
    start, _ = fit(entry, Marked(), epochs=1)
    assert float(front.losses.sum()) < 0.98 * float(start.losses.sum())  # the other batches trained it
    (message,) = messages
    assert "is not finite. This step is skipped" in message
    assert "'size'" in message
    assert ("'sign'" in message) == (place in ("input", "feature", "encoder gradient"))


@pytest.mark.parametrize("entry", TRAINED, ids=lambda entry: entry.name)
def test_front_without_a_finite_batch_ends_with_a_warning_and_its_start(entry: AlgorithmEntry) -> None:
    class Broken(Marked):
        def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
            found = super().losses(outputs, targets)
            return {**found, "size": found["size"] * math.nan}

    front, messages = fit(entry, Broken(), epochs=1)
    assert len(messages) == (1 if entry.kind == "conditional" else 4)  # the first step, and each model
    assert all("size" in message for message in messages)
    for state in front.states:
        assert all(bool(tensor.isfinite().all()) for tensor in state.values())


@pytest.mark.parametrize("entry", [entry for entry in TRAINED if entry.kind == "members"], ids=lambda entry: entry.name)
@pytest.mark.parametrize("broken", [(0, 1, 2), (1,)], ids=["all", "one"])
def test_skipped_step_leaves_models_and_moments_as_they_were(
    entry: AlgorithmEntry, broken: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[list[Tensor]] = []
    step = MemberUpdate.step

    def values(update: MemberUpdate) -> list[Tensor]:
        return [value.detach()[list(broken)].clone() for value in update._stacked()]

    def breaking(update: MemberUpdate, number: int, batch: Any) -> Any:
        if number != 3:
            return step(update, number, batch)
        before, gradients = values(update), type(update.ensemble).gradients

        def of_broken(ensemble: Any, *given: Any) -> Any:
            found = gradients(ensemble, *given)
            for value in ensemble.parameters:
                value.grad[list(broken)] = math.nan
            return found

        with monkeypatch.context() as patch:
            patch.setattr(type(update.ensemble), "gradients", of_broken)
            result = step(update, number, batch)
        taken.append([one - two for one, two in zip(values(update), before, strict=True)])
        return result

    monkeypatch.setattr(MemberUpdate, "step", breaking)
    fit(entry, Marked(), epochs=2)
    (changes,) = taken
    assert len(changes) > 6  # moments, too
    assert all(not bool(change.any()) for change in changes)


class Fragile(Synthetic):
    """An objective that is not a number in a part of the box."""

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        found = super().losses(outputs, targets)
        return {**found, "f1": torch.where(found["f1"] < 0.3, torch.nan, found["f1"])}


@needs_pymoo
def test_evolution_does_not_select_points_that_are_not_finite() -> None:
    front = pt.fit_front(
        Fragile("zdt1", size=4), NSGA2(population=12), preferences=pt.preferences(2, 4), epochs=20, reference=(9.0, 9.0)
    )
    assert bool(front.losses.isfinite().all())
