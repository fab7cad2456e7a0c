"""A resumed training of a front gives the numbers of an uninterrupted one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import paretorch as pt
from paretorch.pareto import COSMOS, Front, FrontAlgorithm, FrontSnapshot, PaMaL, Sweep
from paretorch.storage.checkpoint_file import FILE, UNSEALED, CheckpointFile
from paretorch.storage.seals import SEAL
from paretorch.storage.tensor_files import read_tensors, write_tensors
from training_runs import KilledError
from training_workload import Tiny


def fit_tiny_front(algorithm: FrontAlgorithm, folder: Path | None, kill_at: int | None = None, **options: Any) -> Front:
    def progress(moment: FrontSnapshot) -> None:
        if moment.epoch == kill_at:
            raise KilledError

    options = {
        "seed": 3,
        "epochs": 6,
        "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
        "reference": (2.0, 4000.0),
        "every": 2,
        **options,
    }
    made: Front = pt.fit_front(
        Tiny(),
        algorithm,
        preferences=pt.preferences(2, 3, margin=0.1),
        batch_size=16,
        checkpoint=folder,
        progress=progress,
        **options,
    )
    return made


@pytest.mark.parametrize(
    "algorithm", [pt.MT2O(adapt="hypervolume"), PaMaL(), COSMOS()],
    ids=lambda a: type(a).__name__,
)  # fmt: skip
def test_front_resumed_after_interruption_is_bit_identical(algorithm: FrontAlgorithm, tmp_path: Path) -> None:
    # a fixed execution of members: two measurements may select two executions, which round differently
    options: dict[str, Any] = {"execution": "vmap"} if algorithm.trains_members else {}
    whole = fit_tiny_front(algorithm, None, **options)
    with pytest.raises(KilledError):
        fit_tiny_front(algorithm, tmp_path, kill_at=4, **options)
    resumed = fit_tiny_front(algorithm, tmp_path, **options)
    assert torch.equal(resumed.losses, whole.losses)
    assert torch.equal(resumed.preferences, whole.preferences)
    for one, other in zip(resumed.states, whole.states, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert [moment.losses for moment in resumed.history] == [moment.losses for moment in whole.history]
    assert [moment.gradients for moment in resumed.history] == [moment.gradients for moment in whole.history]
    assert {**resumed.facts, "seconds": 0} == {**whole.facts, "seconds": 0}


@pytest.mark.parametrize(("algorithm", "transfers"), [(pt.MT2O(), True), (Sweep(), False)], ids=["MT2O", "Sweep"])
def test_front_checkpoint_keeps_the_keys_of_its_statistics(
    algorithm: FrontAlgorithm, transfers: bool, tmp_path: Path
) -> None:
    with pytest.raises(KilledError):
        fit_tiny_front(algorithm, tmp_path, kill_at=4)
    state = CheckpointFile(tmp_path, {}).load()
    assert state is not None
    assert state["training"]["gradients"] == state["looks"]["history"][0]["gradients"] > 0
    steps = state["training"]["gradients"] // 3  # one gradient for each of three members
    assert state["training"]["listened"]["count"] == (steps if transfers else 0)


def test_conditional_checkpoint_keeps_the_keys_of_its_statistics(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        fit_tiny_front(COSMOS(), tmp_path, kill_at=4)
    state = CheckpointFile(tmp_path, {}).load()
    assert state is not None
    assert set(state["training"]) == {"family", "template", "optimizer", "generator", "gradients"}


def test_front_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    fit_tiny_front(pt.MT2O(), tmp_path, epochs=2)
    with pytest.raises(ValueError, match="belongs to another training"):
        fit_tiny_front(pt.MT2O(), tmp_path, epochs=2, seed=4)
    (tmp_path / "training.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"training.safetensors is damaged"):
        fit_tiny_front(pt.MT2O(), tmp_path, epochs=2)


@pytest.mark.parametrize("algorithm", [pt.MT2O(), COSMOS()], ids=lambda a: type(a).__name__)
@pytest.mark.parametrize(
    ("option", "other", "difference"),
    [
        ("optimizer", lambda p: torch.optim.Adam(p, lr=0.1), r"optimizer was Adam\(lr=0.01, .*, is Adam\(lr=0.1, "),
        (
            "optimizer",
            lambda p: torch.optim.Adam(p, lr=1e-2, betas=(0.0, 0.5)),
            r"optimizer was .*, is Adam\(lr=0.01, betas=\(0.0, 0.5\)",
        ),
        ("optimizer", lambda p: torch.optim.SGD(p, lr=1e-2), r"optimizer was Adam\(.*, is SGD\("),
        ("schedule", lambda progress: 1 - progress, "schedule was 1 at 0, .*, is 1 at 0, 0.99 at 0.01, "),
        ("reference", (3.0, 4000.0), r"reference was \(2.0, 4000.0\), is \(3.0, 4000.0\)"),
        ("every", 1, "every was 2, is 1"),
    ],
    ids=["rate", "betas", "class", "schedule", "reference", "every"],
)
def test_front_checkpoint_error_names_the_difference(
    algorithm: FrontAlgorithm, option: str, other: Any, difference: str, tmp_path: Path
) -> None:
    with pytest.raises(KilledError):
        fit_tiny_front(algorithm, tmp_path, kill_at=4)
    with pytest.raises(ValueError, match=rf"belongs to another training: {difference}") as refused:
        fit_tiny_front(algorithm, tmp_path, **{option: other})
    assert str(refused.value).count(" was ") == 1


def test_front_checkpoint_of_another_execution_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        fit_tiny_front(pt.MT2O(), tmp_path, kill_at=4)
    with pytest.raises(ValueError, match="belongs to another training: execution was auto, is loop") as refused:
        fit_tiny_front(pt.MT2O(), tmp_path, execution="loop")
    assert str(refused.value).count(" was ") == 1


def test_front_of_an_automatic_execution_resumes_with_the_one_that_was_chosen(tmp_path: Path) -> None:
    whole = fit_tiny_front(pt.MT2O(), None)
    chosen = whole.facts["execution"]
    for kill_at, execution in ((4, "auto"), (6, chosen)):
        with pytest.raises(KilledError):
            fit_tiny_front(pt.MT2O(), tmp_path, kill_at=kill_at, execution=execution)
    resumed = fit_tiny_front(pt.MT2O(), tmp_path, execution="auto")
    assert torch.equal(resumed.losses, whole.losses)
    assert resumed.facts["execution"] == chosen


def test_front_checkpoint_accepts_equivalent_arguments(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        fit_tiny_front(pt.MT2O(), tmp_path, kill_at=4)
    tensor = torch.tensor(2.0)
    resumed = fit_tiny_front(
        pt.MT2O(), tmp_path, schedule=lambda progress: 1.0, reference=(tensor, 4000), execution="auto"
    )
    whole = fit_tiny_front(
        pt.MT2O(), None, execution=resumed.facts["execution"]
    )  # what was chosen before it was killed
    assert torch.equal(resumed.losses, whole.losses)


def test_conditional_model_resumes_a_checkpoint_that_declares_an_execution(tmp_path: Path) -> None:
    """Earlier versions wrote the execution, which has no effect on a conditional model, into its checkpoint."""
    with pytest.raises(KilledError):
        fit_tiny_front(COSMOS(), tmp_path, kill_at=4)
    path = tmp_path / FILE
    header, tensors = read_tensors(path)
    declared = {**json.loads(header["declared"]), "execution": "vmap"}
    header = {**header, "declared": json.dumps(declared), "format": UNSEALED}
    write_tensors(path, tensors, {name: text for name, text in header.items() if name != SEAL})
    resumed = fit_tiny_front(COSMOS(), tmp_path)
    assert torch.equal(resumed.losses, fit_tiny_front(COSMOS(), None).losses)


def test_front_checkpoint_with_a_digest_is_checked_in_the_format_of_earlier_versions_too(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        fit_tiny_front(COSMOS(), tmp_path, kill_at=4)
    header, tensors = read_tensors(tmp_path / FILE)
    write_tensors(tmp_path / FILE, tensors, {**header, "format": UNSEALED, "epochs": "3"})
    with pytest.raises(ValueError, match=r"training\.safetensors is damaged: its content differs"):
        fit_tiny_front(COSMOS(), tmp_path)
