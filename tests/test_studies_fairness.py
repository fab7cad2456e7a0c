"""All treatments of a seed share initial weights and the order of the data, whatever random numbers they consume."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from paretorch.studies.sources import find
from paretorch.studies.study import Study, Treatment, alone
from paretorch.training import loop
from paretorch.training.resolved_run import ResolvedRun, resolve
from paretorch.training.run import Run
from paretorch.workloads.streams import Samples

TINY = str(Path(__file__).parent / "training_workload.py")  # dropout and batch norm
BASE = Run(TINY, epochs=2, batch_size=8)
# GradDrop and PCGrad draw from the door's generator; FAMO forwards twice, so dropout draws twice; the surfaces differ
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
        alone("single", BASE, ("sign", "size")),
        Treatment("sum", (BASE,)),
        *(Treatment(f"{m} {s}", (replace(BASE, method=m, surface=s),)) for m, s in METHODS),
        Treatment("SGD", (replace(BASE, optimizer="SGD", optimizer_options={"lr": 0.01}),)),
    ),
    reference="sum",
    baseline="single",
)


class Seen:
    """What a run began with and was fed."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}
        self.batches: list[str] = []


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Looks into the real loop: the weights right after assembly, and every batch as it reaches the update."""
    found = Seen()

    def looking(run: Run) -> ResolvedRun:
        parts = resolve(run)
        found.weights = {name: value.clone() for name, value in parts.model.state_dict().items()}

        def update(batch: tuple[Samples, ...]) -> Any:
            # a hash of every input in order: two batches of the same samples in another order differ
            content = b"".join(samples.inputs.numpy().tobytes() for samples in batch)
            found.batches.append(hashlib.sha256(content).hexdigest())
            return parts.update(batch)

        return replace(parts, update=update)

    monkeypatch.setattr(loop, "resolve", looking)
    return found


def looked(run: Run, folder: Path, seen: Seen) -> tuple[dict[str, Tensor], list[str]]:
    seen.weights, seen.batches = {}, []
    loop.train(run, folder, progress=None)
    return seen.weights, seen.batches


def test_initial_weights_and_batches_are_shared_by_all_treatments_of_a_seed(tmp_path: Path, seen: Seen) -> None:
    by_seed = []
    for seed in (0, 1):
        reference, batches = looked(replace(BASE, seed=seed), tmp_path / f"reference{seed}", seen)
        assert len(batches) == 14
        assert len(set(batches)) == 14, "an epoch repeats the order of the one before"
        by_seed.append((reference, batches))
        for treatment in STUDY.treatments:
            for place, run in enumerate(treatment.seeded(seed)):
                weights, fed = looked(run, tmp_path / f"{treatment.label}{seed}{place}".replace("/", ""), seen)
                assert fed == batches, treatment.label
                assert {name for name in weights if name.startswith("encoder")} == {
                    name for name in reference if name.startswith("encoder")
                }
                for name, value in weights.items():  # the head of one task alone is the whole model's head
                    assert torch.equal(value, reference[name]), (treatment.label, name)
    (weights, batches), (others, shuffled) = by_seed
    assert not torch.equal(weights["encoder.0.weight"], others["encoder.0.weight"])
    assert set(batches).isdisjoint(shuffled)


def test_what_a_treatment_draws_does_not_change_what_another_gets(tmp_path: Path, seen: Seen) -> None:
    """In one process, one after the other, as a worker trains them."""
    run = replace(BASE, method="GradDrop()")
    torch.manual_seed(123)
    first = looked(run, tmp_path / "first", seen)
    looked(replace(BASE, method="FAMO()"), tmp_path / "between", seen)
    torch.rand(1000)
    again = looked(run, tmp_path / "again", seen)
    assert first[1] == again[1]
    assert all(torch.equal(first[0][name], again[0][name]) for name in first[0])


def test_the_quickstart_is_fair_too(tmp_path: Path, seen: Seen) -> None:
    found = [
        looked(run, tmp_path / f"{place}-{number}", seen)
        for place, treatment in enumerate(find("quickstart", "smoke").treatments)
        for number, run in enumerate(treatment.seeded(4)[:1])
    ]
    assert len({tuple(batches) for _, batches in found}) == 1
    encoders = [torch.cat([v.flatten() for n, v in w.items() if n.startswith("encoder")]) for w, _ in found]
    assert all(torch.equal(encoder, encoders[0]) for encoder in encoders)
