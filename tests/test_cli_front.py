"""The commands ``paretorch front`` and ``paretorch pick``."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import paretorch as pt
from command_line import call
from paretorch.training.fronts.loss_scales import first_scales, unlike_scales_note
from paretorch.training.fronts.run import load_front
from paretorch.training.names.workloads import find_workload
from paretorch.training.run import Run
from paretorch.workloads.synthetic import Synthetic

SMALL = ["synthetic(samples=64, hidden=8)", "--models", "3", "--epochs", "2", "--batch-size", "32"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs") / "front"
    code, printed = call("front", *SMALL, "--out", str(made))
    assert code == 0
    assert "epoch 2/2 | validation hypervolume" in printed
    assert f"The page: {made / 'front.html'}" in printed
    assert f"paretorch pick {made} 0.50,0.50" in printed
    return made


def test_front_writes_a_front_and_its_page(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} >= {"run.json", "result.json", "front.json", "front.html"}
    assert len(load_front(folder)) == 3


def test_front_of_a_finished_run_does_not_train_again(folder: Path) -> None:
    code, printed = call("front", *SMALL, "--out", str(folder))
    assert code == 0
    assert "epoch" not in printed


def test_front_with_explicit_defaults_is_the_same_run(folder: Path) -> None:
    defaults = ["--margin", "0.1", "--starts", "common", "--execution", "auto"]
    code, printed = call("front", *SMALL, *defaults, "--out", str(folder))
    assert code == 0
    assert "epoch" not in printed


def test_front_options_reach_the_run(tmp_path: Path) -> None:
    options = ["--margin", "0", "--starts", "independent", "--execution", "loop", "--schedule", "step(0.5, 1)"]
    assert call("front", *SMALL, *options, "--out", str(tmp_path))[0] == 0
    run = json.loads((tmp_path / "run.json").read_text())["run"]
    assert run["front_options"] == {"models": 3, "margin": 0.0, "starts": "independent", "execution": "loop"}
    assert run["schedule"] == "step(0.5, 1)"


UNLIKE = ["front", "digits(ink=True, train=64, validation=32, test=32)", "--models", "2", "--epochs", "1"]


def test_front_of_unlike_losses_offers_normalization(tmp_path: Path) -> None:
    code, printed = call(*UNLIKE, "--algorithm", "mt2o(fade=False)", "--out", str(tmp_path / "raw"))
    assert code == 0
    assert "The first losses are of unlike scale: losses ink" in printed
    assert "--algorithm 'mt2o(fade=False, normalize=True)' divides each loss by its range" in printed
    assert "of unlike scale" not in call(*UNLIKE, "--algorithm", "mt2o(fade=False)", "--out", str(tmp_path / "raw"))[1]
    code, printed = call(
        *UNLIKE, "--algorithm", "mt2o(fade=False, normalize=True)", "--out", str(tmp_path / "normalized")
    )
    assert code == 0
    assert "of unlike scale" not in printed


def test_unlike_scales_are_those_of_the_first_losses_and_gradients() -> None:
    options = {"train": 64, "validation": 32, "test": 32}
    alike = Run("digits", options, front="MT2O()", batch_size=32)
    assert unlike_scales_note(alike) == ""
    run = replace(alike, options={**options, "ink": True})
    before = torch.get_rng_state()
    losses, norms = first_scales(find_workload(run.workload, run.options), run)
    assert torch.equal(torch.get_rng_state(), before)
    assert 2 < losses["left"] < 3  # the cross-entropy of ten digits
    assert losses["ink"] / losses["left"] > 10
    assert norms["ink"] / norms["left"] > 10
    assert "'MT2O(normalize=True)'" in unlike_scales_note(replace(run, front="EPO()"))
    assert unlike_scales_note(replace(run, front="NSGA2()")) == ""


def test_pick_prints_and_exports_the_model(folder: Path, tmp_path: Path) -> None:
    front = load_front(folder)
    member = front.choose((0.9, 0.1))
    path = tmp_path / "model.safetensors"
    code, printed = call("pick", str(folder), "0.9,0.1", "--export", str(path))
    assert code == 0
    assert f"model {member} of 3" in printed
    assert f"front.model({member})" in printed
    assert path.exists()
    assert re.search("model 2 of 3", call("pick", str(folder), "--model", "2")[1])


def test_pick_of_a_front_saved_from_python_needs_its_workload(tmp_path: Path) -> None:
    pt.fit_front(
        Synthetic(samples=64), pt.MT2O(), preferences=pt.preferences(2, 2, margin=0.1), epochs=1, batch_size=32
    ).save(tmp_path)
    code, printed = call("pick", str(tmp_path), "0.5,0.5")
    assert code == 2
    assert "saved from Python" in printed
    assert call("pick", str(tmp_path), "0.5,0.5", "--workload", "synthetic(samples=64)")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["front", "synthetic", "--algorithm", "mt2a"], "unknown algorithm 'mt2a': did you mean 'MT2O'"),
        (["front", "synthetic", "--models", "1"], "at least 2 models, got 1"),
        (["front", "synthetic", "--preferences", "0.5,0.6 1,0"], "divide by it"),
        (["front", "synthetic", "--preferences", "0.5;0.5 1,0"], "cannot read '0.5;0.5'"),
        (["front", "synthetic", "--preferences", "0.5,0.3,0.2 1,0,0"], "one value for each of the 2 tasks"),
        (["front", "synthetic", "--reference", "1"], "the reference has 1 values"),
        (["front", "synthetic", "--optimizer", "MTAdam()"], "uses the losses of a single model"),
        (["pick", "{folder}", "0.5,0.6"], "divide by it"),
        (["pick", "{folder}", "1"], "one value for each of the 2 tasks"),
        (["pick", "{folder}"], "give either the weights of the tasks"),
        (["pick", "{folder}", "--model", "7"], "the front has models 0 to 2, got 7"),
        (["pick", "{folder}", "0.5,0.5", "--export", "model.pt"], "as .onnx or .safetensors"),
        (["pick", "nowhere", "0.5,0.5"], "contains no front"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_front_error_that_the_user_can_correct_is_one_message(
    arguments: list[str], message: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed = call(*(argument.replace("{folder}", str(folder)) for argument in arguments))
    assert code == 2
    assert message in printed
    assert "Traceback" not in printed
