"""The epoch whose weights are kept."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from paretorch.loop.evaluation import Scores
from paretorch.storage import checkpoint_folder
from paretorch.training.loop import train
from paretorch.training.record.kept_epoch import KEPT, best_epoch, relative_improvement
from paretorch.training.record.result import Epoch
from paretorch.training.run import Run
from training_runs import TINY, check_equal_results, stop_after

# so large a rate that the last epoch is not the best
RUN = Run(TINY, epochs=6, batch_size=10, seed=1, optimizer_options={"lr": 0.5}, keep="best")
DIRECTIONS = {"a": {"accuracy": True}, "b": {"error": False}}


def history(*pairs: tuple[float, float]) -> list[Epoch]:
    return [
        Epoch(number, {}, Scores({"a": 1.0, "b": 1.0}, {"a": {"accuracy": a}, "b": {"error": b}}), {}, {}, 1, {})
        for number, (a, b) in enumerate(pairs, start=1)
    ]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(0.5, 10.0), (0.6, 8.0), (0.55, 9.0)], 2),
        ([(0.5, 10.0), (0.5, 5.0), (0.6, 6.0)], 2),  # +20 % and -20 %: an equal epoch does not replace an earlier one
        ([(0.8, 100.0), (0.4, 90.0)], 1),  # -50 % against +10 %, whatever the unit of the error is
        ([(math.nan, 10.0), (0.1, 12.0)], 2),
        ([(0.5, 10.0), (0.9, math.nan)], 1),
        ([(0.0, math.inf), (0.2, math.inf)], 2),
        ([(0.5, 10.0), (0.5, 10.0)], 1),
    ],
)
def test_best_epoch_has_the_largest_relative_improvement(pairs: list[tuple[float, float]], expected: int) -> None:
    assert best_epoch(history(*pairs), DIRECTIONS) == expected


def test_relative_improvement_compares_a_task_without_metrics_by_its_loss() -> None:
    before, after = (Scores({"a": loss}, {}) for loss in (4.0, 3.0))
    assert relative_improvement(after, before, {"a": {}}) == pytest.approx(0.25)


def scores_of(state: dict[str, torch.Tensor], run: Run) -> Any:
    from paretorch.training.evaluation import evaluate
    from paretorch.training.names.workloads import find_workload

    workload = find_workload(run.workload, run.options)
    model = workload.model()
    model.load_state_dict(state)
    return evaluate(workload, model, workload.data().test, workload.tasks, run.batch_size, run.precision)


def test_kept_weights_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    result = train(RUN, tmp_path / "best", progress=None)
    last = train(replace(RUN, keep="last"), tmp_path / "last", progress=None)
    best = result.facts[KEPT]
    assert best < RUN.epochs  # otherwise this test shows nothing: choose another seed
    assert [epoch.losses for epoch in result.history] == [epoch.losses for epoch in last.history]
    assert result.validation == result.history[best - 1].validation
    assert relative_improvement(result.validation, last.validation, result.higher_is_better) > 0
    (stored,) = checkpoint_folder.saved_checkpoints(tmp_path / "best" / "best")
    found = checkpoint_folder.load_latest(stored.parent, [(RUN.to_json(), None)])
    assert found is not None
    assert found.epoch == best
    with torch.random.fork_rng():
        assert scores_of(found.states["model"], RUN) == result.test
    assert result.test != last.test


@pytest.mark.parametrize("stopped", [1, 2, 4, 5])
def test_resumed_run_keeps_the_same_epoch(stopped: int, tmp_path: Path) -> None:
    whole = train(RUN, tmp_path / "whole", progress=None)
    with pytest.raises(KeyboardInterrupt):
        train(RUN, tmp_path / "stopped", progress=stop_after(stopped, of=RUN.epochs))
    resumed = train(RUN, tmp_path / "stopped", progress=None)
    check_equal_results(resumed, whole)
    assert resumed.facts[KEPT] == whole.facts[KEPT]


def test_run_that_was_killed_between_two_checkpoints_stores_the_best_epoch_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(RUN, tmp_path / "whole", progress=None)
    real = checkpoint_folder.save

    def save(folder: Path, epoch: int, *arguments: Any, **options: Any) -> None:
        if folder.name == "best" and epoch == whole.facts[KEPT]:
            raise KeyboardInterrupt
        real(folder, epoch, *arguments, **options)

    monkeypatch.setattr(checkpoint_folder, "save", save)
    with pytest.raises(KeyboardInterrupt):
        train(RUN, tmp_path / "stopped", progress=None)
    monkeypatch.undo()
    check_equal_results(train(RUN, tmp_path / "stopped", progress=None), whole)


@pytest.mark.parametrize("finished", [False, True])
def test_part_of_an_earlier_best_epoch_is_removed_by_the_same_command(finished: bool, tmp_path: Path) -> None:
    if finished:
        train(RUN, tmp_path, progress=None)
    else:
        with pytest.raises(KeyboardInterrupt):
            train(RUN, tmp_path, progress=stop_after(RUN.epochs - 1, of=RUN.epochs))
    (kept,) = checkpoint_folder.saved_checkpoints(tmp_path / "best")
    part = kept.with_name("epoch-0")  # of which a killed process had removed all but one file
    part.mkdir()
    shutil.copy(kept / "random.safetensors", part)
    result = train(RUN, tmp_path, progress=None)
    assert [path.name for path in (tmp_path / "best").iterdir()] == [f"epoch-{result.facts[KEPT]}"]


def test_continued_run_compares_new_epochs_with_the_best_one(tmp_path: Path) -> None:
    whole = train(RUN, tmp_path / "whole", progress=None)
    train(replace(RUN, epochs=RUN.epochs - 1), tmp_path / "continued", progress=None)
    check_equal_results(train(RUN, tmp_path / "continued", progress=None), whole)


def test_runs_that_keep_the_last_epoch_have_the_keys_of_earlier_versions() -> None:
    assert "keep" not in replace(RUN, keep="last").to_json()
    assert Run("digits", epochs=5, device="cpu").key == "9982b25de486"  # recorded before runs had this option


@dataclass(frozen=True)
class Case:
    """A change of the small workload that leaves no validation data."""

    source: str
    message: str


CASES = {
    "test set": Case("Splits(*streams, test_epochs=2)", "validation split is the test set"),
    "no labels": Case(
        "Splits(streams[0], tuple(TensorStream(s.inputs, {'sign': s.targets['sign'] * 0 - 1}) for s in streams[1]), streams[2])",
        "no validation sample has a label of sign, size",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_best_epoch_without_validation_data_is_refused(case: str, tmp_path: Path) -> None:
    workload = tmp_path / "mine.py"
    old = "return Splits(*(self._streams(count, seed) for seed, count in enumerate((self.samples, 24, 24))))"
    text = Path(TINY).read_text()
    assert old in text
    new = "streams = [self._streams(count, seed) for seed, count in enumerate((self.samples, 24, 24))]\n        return "
    workload.write_text(text.replace(old, new + CASES[case].source))
    with pytest.raises(ValueError, match=f"{CASES[case].message}.*--keep last"):
        train(replace(RUN, workload=str(workload)), tmp_path / "run", progress=None)
    assert not (tmp_path / "run").exists()
