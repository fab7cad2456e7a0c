"""All treatments of a seed share initial weights and the order of the data, whatever random numbers they consume."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from paretorch.studies.lookup import find_study
from paretorch.studies.study import Study, Treatment, single_task
from paretorch.training import loop
from paretorch.training.resolved_run import ResolvedRun, resolve
from paretorch.training.run import Run
from paretorch.workloads.streams import Samples
from training_runs import TINY

BASE = Run(TINY, epochs=2, batch_size=8)
# GradDrop and PCGrad draw from the Fork's or Balancer's generator; FAMO has two forward passes, so dropout draws twice;
# the surfaces differ
METHODS = (
    ("MGDA()", "features"),
    ("GradDrop()", "features"),
    ("PCGrad()", "parameters"),
    ("FAMO()", "features"),
    ("FAMO()", "parameters"),
    ("Static({'sign': 1.0, 'size': 0.01})", "features"),
)
STUDY = Study(
    "fair",
    "Is it?",
    (
        single_task("single", BASE, ("sign", "size")),
        Treatment("sum", (BASE,)),
        *(Treatment(f"{m} {s}", (replace(BASE, method=m, surface=s),)) for m, s in METHODS),
        Treatment("SGD", (replace(BASE, optimizer="SGD", optimizer_options={"lr": 0.01}),)),
    ),
    reference="sum",
    baseline="single",
)


class Observations:
    """What a run began with and was fed."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}
        self.batches: list[str] = []


@pytest.fixture
def observations(monkeypatch: pytest.MonkeyPatch) -> Observations:
    """Observes the loop: the weights after `resolve`, and each batch of the update."""
    found = Observations()

    def observed_resolve(run: Run, *ranks: Any) -> ResolvedRun:
        parts = resolve(run, *ranks)
        found.weights = {name: value.clone() for name, value in parts.model.state_dict().items()}

        def update(batch: tuple[Samples, ...]) -> Any:
            # a hash of every input in order: two batches of the same samples in another order differ
            content = b"".join(samples.inputs.numpy().tobytes() for samples in batch)
            found.batches.append(hashlib.sha256(content).hexdigest())
            return parts.update(batch)

        return replace(parts, update=update)

    monkeypatch.setattr(loop, "resolve", observed_resolve)
    return found


def observe(run: Run, folder: Path, observations: Observations) -> tuple[dict[str, Tensor], list[str]]:
    observations.weights, observations.batches = {}, []
    loop.train(run, folder, progress=None)
    return observations.weights, observations.batches


def test_initial_weights_and_batches_are_shared_by_all_treatments_of_a_seed(
    tmp_path: Path, observations: Observations
) -> None:
    by_seed = []
    for seed in (0, 1):
        reference, batches = observe(replace(BASE, seed=seed), tmp_path / f"reference{seed}", observations)
        assert len(batches) == 14
        assert len(set(batches)) == 14, "an epoch repeats the order of the one before"
        by_seed.append((reference, batches))
        for treatment in STUDY.treatments:
            for place, run in enumerate(treatment.seeded(seed)):
                weights, fed = observe(run, tmp_path / f"{treatment.label}{seed}{place}".replace("/", ""), observations)
                assert fed == batches, treatment.label
                assert {name for name in weights if name.startswith("encoder")} == {
                    name for name in reference if name.startswith("encoder")
                }
                for name, value in weights.items():  # the head of one task alone is the whole model's head
                    assert torch.equal(value, reference[name]), (treatment.label, name)
    (weights, batches), (others, shuffled) = by_seed
    assert not torch.equal(weights["encoder.0.weight"], others["encoder.0.weight"])
    assert set(batches).isdisjoint(shuffled)


def test_treatments_do_not_share_random_generators(tmp_path: Path, observations: Observations) -> None:
    """In one process, one after the other, as a worker trains them."""
    run = replace(BASE, method="GradDrop()")
    torch.manual_seed(123)
    first = observe(run, tmp_path / "first", observations)
    observe(replace(BASE, method="FAMO()"), tmp_path / "between", observations)
    torch.rand(1000)
    again = observe(run, tmp_path / "again", observations)
    assert first[1] == again[1]
    assert all(torch.equal(first[0][name], again[0][name]) for name in first[0])


def test_quickstart_treatments_share_initial_weights_and_batches(tmp_path: Path, observations: Observations) -> None:
    found = [
        observe(run, tmp_path / f"{place}-{number}", observations)
        for place, treatment in enumerate(find_study("quickstart", "smoke").treatments)
        for number, run in enumerate(treatment.seeded(4)[:1])
    ]
    assert len({tuple(batches) for _, batches in found}) == 1
    encoders = [torch.cat([v.flatten() for n, v in w.items() if n.startswith("encoder")]) for w, _ in found]
    assert all(torch.equal(encoder, encoders[0]) for encoder in encoders)
