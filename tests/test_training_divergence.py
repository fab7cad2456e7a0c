"""``paretorch train`` on runs that diverge, or that meet inf or nan: one line with the cause, and the last good checkpoint."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from paretorch.cli import app
from paretorch.storage.checkpoint_folder import saved_checkpoints

WORKLOAD = '''
import math
from dataclasses import dataclass
import torch
from training_workload import SizeError, Tiny

COUNT = [0]


@dataclass(frozen=True)
class Breaking(Tiny):
    def losses(self, outputs, targets):
        found = super().losses(outputs, targets)
        if not self.is_training_step(outputs):
            return found
        step, COUNT[0] = COUNT[0], COUNT[0] + 1
        if step == {at}:
            found["size"] = {{
                "loss": lambda: found["size"] * math.nan,
                "infinite loss": lambda: found["size"] + math.inf,
                "gradient": lambda: found["size"] + (0 * outputs["size"].sum()).sqrt(),
                "explosion": lambda: found["size"] * 1e36,
            }}["{place}"]()
        return found

    def is_training_step(self, outputs):
        """A line search evaluates the losses of a batch again without a graph."""
        return torch.is_grad_enabled() and outputs["size"].requires_grad
'''
OPTIONS = {
    "Gramian": ["--surface", "parameters", "--method", "UPGrad()"],
    "losses alone": ["--surface", "parameters", "--method", "Uncertainty()"],
    "optimizer": ["--optimizer", "MTAdamV2()"],
    "mean": ["--optimizer", "MTAdamV2(mode='equal')"],
    "search": ["--optimizer", "FastBacktracking(max_step=0.001)"],
    "classical search": ["--optimizer", "Backtracking(max_step=0.001)"],
}
EPOCH_STEPS = 3


def train(folder: Path, place: str, at: int, *arguments: str, further: str = "") -> tuple[int, str]:
    """Exit code and output of a run of four epochs with three steps each; ``further`` are methods of the workload."""
    file = folder / "breaking.py"
    file.write_text(WORKLOAD.format(place=place, at=at) + further)
    options = ["--batch-size", "20", "--device", "cpu", "--epochs", "4", "--out", str(folder / "run")]
    result = CliRunner().invoke(
        app, ["train", str(file), *options, *arguments], env={"COLUMNS": "1000", "TERM": "dumb", "NO_COLOR": "1"}
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def cause_of(folder: Path, code: int, printed: str, epoch: int) -> str:
    """The one line with the cause, which names the newest checkpoint: finite, and of this epoch."""
    assert code == 2, printed
    assert "Traceback" not in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("Error:")]
    assert not (folder / "run" / "result.json").exists()
    newest = saved_checkpoints(folder / "run" / "checkpoint")[-1]
    assert newest.name.endswith(str(epoch))
    assert str(newest) in line
    files = list(newest.glob("model*.safetensors"))
    assert files
    for file in files:
        for name, tensor in load_file(file).items():
            assert bool(tensor.isfinite().all()), name
    return line


LONG = pytest.mark.long


@pytest.mark.parametrize(
    "place", [pytest.param("loss", marks=LONG), pytest.param("infinite loss", marks=LONG), "gradient"]
)
@pytest.mark.parametrize("option", OPTIONS)
def test_train_that_meets_nan_stops_with_the_cause_and_the_last_checkpoint(
    option: str, place: str, tmp_path: Path
) -> None:
    code, printed = train(tmp_path, place, 2 * EPOCH_STEPS + 1, *OPTIONS[option])
    line = cause_of(tmp_path, code, printed, 2)
    assert "step 2 of epoch 3" in line
    assert "'size'" in line


def test_nonfinite_gradient_on_features_is_named_with_its_task_and_step_before_metrics_are_computed(
    tmp_path: Path,
) -> None:
    metric = """

    def metrics(self):
        class Rounded(SizeError):
            def compute(self):
                return round(super().compute())  # an error if it is nan

        return {"size": (Rounded(),)}
"""
    code, printed = train(tmp_path, "gradient", 2 * EPOCH_STEPS + 1, "--method", "MGDA()", further=metric)
    line = cause_of(tmp_path, code, printed, 2)
    assert "the gradient of 'size' was not finite in step 2 of epoch 3, although the loss was" in line
    assert "smaller step" not in line


@pytest.mark.parametrize("place", ["loss", "explosion"])
@pytest.mark.parametrize("method", [["--method", "MGDA()"], ["--method", "Uncertainty()"]], ids=str)
def test_train_with_parameters_that_are_not_finite_stops_at_the_epoch_with_the_last_checkpoint(
    method: list[str], place: str, tmp_path: Path
) -> None:
    code, printed = train(tmp_path, place, 2 * EPOCH_STEPS, "--optimizer", "SGD(lr=1e-4)", *method)
    line = cause_of(tmp_path, code, printed, 2)
    assert "epoch 3" in line
    assert "smaller step" in line
    assert re.search(r"not finite|exploded", line)


def test_train_continues_after_the_cause_is_removed(tmp_path: Path) -> None:
    code, printed = train(tmp_path, "loss", 2 * EPOCH_STEPS + 1, *OPTIONS["optimizer"])
    cause_of(tmp_path, code, printed, 2)
    code, printed = train(tmp_path, "loss", 10**6, *OPTIONS["optimizer"])  # another file: another run
    assert code == 2
    assert (tmp_path / "run" / "checkpoint").exists()
    whole = tmp_path / "whole"
    whole.mkdir()
    assert train(whole, "loss", 10**6, *OPTIONS["optimizer"])[0] == 0
