"""Runs that train fronts: names, files, loading, export and refusals."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from command_line import call
from paretorch.pareto import MT2O, Front, Gated, Neighbours, SmoothTchebycheff
from paretorch.pareto.files.export import export
from paretorch.pareto.hypervolume import hypervolume
from paretorch.reports.page.embedded import asset
from paretorch.reports.page.front import loading, write_front_page
from paretorch.storage.checkpoint_file import saved_epochs
from paretorch.training.fronts.algorithms import find_algorithm
from paretorch.training.fronts.options import FrontOptions
from paretorch.training.fronts.run import load_front, train_front
from paretorch.training.loop import train
from paretorch.training.record.result import Result
from paretorch.training.run import Run
from training_runs import stop_after

RUN = Run(
    "synthetic",
    options={"samples": 64, "hidden": 8},
    front="mt2o",
    front_options={"models": 3},
    epochs=2,
    batch_size=32,
    optimizer_options={"lr": 1e-2},
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("front")
    train_front(RUN, folder, progress=None)
    return folder


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("mt2o", MT2O()),
        ("MT2O(transfer=None)", MT2O(transfer=None)),
        ("mt2o(transfer=Gated(Neighbours(rho=0.3)))", MT2O(transfer=Gated(Neighbours(rho=0.3)))),
        ("MT2O(SmoothTchebycheff(0.1), adapt='spacing')", MT2O(SmoothTchebycheff(0.1), adapt="spacing")),
    ],
)
def test_find_algorithm_reads_constructors(text: str, made: MT2O) -> None:
    assert find_algorithm(text) == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mt2a", "unknown algorithm 'mt2a': did you mean 'MT2O'"),
        ("mt2o(tranfser=None)", "did you mean 'transfer'"),
        ("mt2o(transfer='gated')", "transfer is one of .*Gated.*, written as a constructor, got 'gated'"),
        ("mt2o(transfer=SmoothTchebycheff())", "transfer is one of"),
        ("mt2o(scalarization=None)", "scalarization is one of"),
        ("mt2o(transfer=Fixed(((0.5, 0.4), (0.5, 0.5))))", "row 0 of the transfer matrix"),
        ("mt2o(transfer=open('x'))", "unknown scalarization or transfer 'open'"),
    ],
)
def test_find_algorithm_refuses_other_text(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_algorithm(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": 1}, "at least 2 models, got 1"),
        ({"preferences": [[1.0, 0.0]]}, "at least 2 models, got 1"),
        ({"preferences": [[0.5, 0.5], [0.9, 0.1]], "models": 3}, "2 preferences are for 2 models, got models=3"),
        ({"margin": 1.0}, "margin is a share"),
        ({"starts": "equal"}, "starts is 'common' or"),
        ({"execution": "vmpa"}, "execution is 'auto' or"),
    ],
)
def test_front_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrontOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"front_options": {"preferences": [[0.5, 0.6], [0.5, 0.5]]}}, "preference 0 is .* divide by it"),
        ({"front_options": {"preferences": [[1.0], [1.0]]}}, "one value for each of the 2 tasks"),
        ({"front_options": {"model": 3}}, "did you mean 'models'"),
        ({"front_options": {"models": 2, "reference": [1.0]}}, "the reference has 1 values for the 2 tasks"),
        ({"method": "MGDA()"}, "method='MGDA\\(\\)' has no effect on a front"),
        ({"clip": 1.0}, "clip=1.0 has no effect on a front"),
        ({"tasks": ("f1",)}, "tasks=.* has no effect on a front"),
        ({"optimizer": "MTAdam"}, "the optimizer MTAdam uses the losses of a single model"),
        ({"optimizer": "FastBacktracking", "optimizer_options": {}}, "uses the losses of a single model"),
    ],
)
def test_front_run_refuses_values_without_effect(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        train_front(dataclasses.replace(RUN, **changes), tmp_path, progress=None)  # type: ignore[arg-type]


def test_front_run_of_a_conditional_model_accepts_the_execution_that_its_study_shares(tmp_path: Path) -> None:
    losses = []
    for execution in ("auto", "loop"):
        options = {"models": 3, "execution": execution}
        train_front(
            dataclasses.replace(RUN, front="cosmos", front_options=options), tmp_path / execution, progress=None
        )
        losses.append(load_front(tmp_path / execution).losses)
    assert torch.equal(*losses)


def test_front_options_without_a_front_are_refused() -> None:
    with pytest.raises(ValueError, match="name an algorithm in `front`"):
        Run("synthetic", front_options={"models": 3})


def test_run_without_a_front_keeps_its_key() -> None:
    assert not {"front", "front_options"} & Run("digits").to_json().keys()
    assert Run.from_json(json.loads(json.dumps(RUN.to_json()))) == RUN


def test_front_run_writes_the_record_of_a_run_and_a_front(trained: Path) -> None:
    result = Result.load(trained)
    facts = result.facts["front"]
    events = [json.loads(line) for line in (trained / "events.jsonl").read_text().splitlines()]
    assert [event["epoch"] for event in events] == [1, 2]
    volume = result.history[-1].validation.metrics["front"]["hypervolume"]
    assert events[-1]["validation"]["metrics"]["front"]["hypervolume"] == volume
    losses = torch.tensor(facts["losses"], dtype=torch.float64)
    assert result.validation.metrics["front"]["hypervolume"] == hypervolume(losses, torch.tensor(facts["reference"]))
    assert list(result.validation.losses.values()) == losses.min(dim=0).values.tolist()
    assert facts["gradients"] == [6, 12]  # three models, two steps an epoch
    assert np.shape(facts["test losses"]) == (3, 2)


def test_train_returns_a_finished_front(trained: Path) -> None:
    before = (trained / "result.json").stat().st_mtime_ns
    assert train(RUN, trained, progress=None) == Result.load(trained)
    assert (trained / "result.json").stat().st_mtime_ns == before


def test_train_of_a_finished_front_removes_the_checkpoint_that_a_killed_process_left(
    trained: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "front"))
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "training.safetensors").write_bytes(b"weights")
    assert train(RUN, folder, progress=None) == Result.load(trained)
    assert not (folder / "checkpoint").exists()


def test_front_with_an_optimizer_that_cannot_step_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    run = dataclasses.replace(RUN, optimizer_options={"differentiable": True})
    with pytest.raises(ValueError, match="the optimizer Adam does not accept"):
        train_front(run, tmp_path / "front", progress=None)
    assert not (tmp_path / "front").exists()


def test_front_page_code_loads_the_model(trained: Path) -> None:
    names: dict[str, object] = {}
    exec(loading(trained, 1), names)  # what a user would paste
    model, front = names["model"], names["front"]
    assert isinstance(model, torch.nn.Module)
    assert isinstance(front, Front)
    assert not model.training
    assert all(torch.equal(value, front.states[1][name]) for name, value in model.state_dict().items())


def test_load_front_refuses_a_folder_without_a_front(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="contains no front"):
        load_front(tmp_path)
    (tmp_path / "front.json").write_text("{}")
    with pytest.raises(ValueError, match="it was saved from Python"):
        load_front(tmp_path)


def test_exported_weights_have_tasks_and_preference(trained: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    front = load_front(trained)
    path = export(front, 2, tmp_path / "new" / "model.safetensors")
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["tasks"]) == ["f1", "f2"]
        assert json.loads(file.metadata()["preference"]) == front.preferences[2].tolist()
        assert {name: file.get_tensor(name).tolist() for name in file.keys()} == {  # noqa: SIM118 - no mapping
            name: value.tolist() for name, value in front.states[2].items()
        }


def test_export_refuses_invalid_arguments(trained: Path, tmp_path: Path) -> None:
    front = load_front(trained)
    with pytest.raises(ValueError, match=r"as .onnx or .safetensors, got the ending '.pt'"):
        export(front, 0, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="the front has models 0 to 2, got 3"):
        export(front, 3, tmp_path / "model.safetensors")
    pytest.importorskip("onnxscript")
    with pytest.raises(ValueError, match="made from an example"):
        export(front, 0, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="with two or more"):
        export(front, 0, tmp_path / "model.onnx", example=torch.zeros(1, 20))


@pytest.mark.long
def test_onnx_model_equals_the_model_for_any_number_of_samples(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    reference = pytest.importorskip("onnx.reference")
    front = load_front(trained)
    path = export(front, 1, tmp_path / "model.onnx", example=torch.zeros(2, 20))
    run = reference.ReferenceEvaluator(str(path))
    inputs = torch.randn(5, 20)
    outputs = run.run(None, {"inputs": inputs.numpy()})
    assert run.output_names == ["f1", "f2"]
    with torch.no_grad():
        expected = front.model(1)(inputs)
    for output, task in zip(outputs, front.tasks, strict=True):
        np.testing.assert_allclose(output, expected[task].numpy(), atol=1e-5)


def test_front_page_refuses_the_numbers_of_another_front(trained: Path, tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    shutil.copytree(trained, mine)
    train_front(dataclasses.replace(RUN, seed=RUN.seed + 1), other, progress=None)
    for file in ("front.json", *(path.name for path in other.glob("model-*"))):
        shutil.copy(other / file, mine / file)
    with pytest.raises(ValueError, match=r"front\.json is not of the run in .*: its numbers are others"):
        write_front_page(mine)


def test_front_page_needs_no_network_and_lists_every_model(trained: Path) -> None:
    text = write_front_page(trained).read_text(encoding="utf-8")
    outside = text.partition("<script type")[0]
    assert re.search("https?:", outside) is None
    data = json.loads(text.split('id="data">', 1)[1].split("</script>", 1)[0])
    front = load_front(trained)
    assert data["tasks"] == ["f1", "f2"]
    assert len(data["members"]) == len(front)
    # the page picks by the numbers given to it: by its rule, the model that Front.choose takes
    for first in (0.1, 0.5, 0.9):
        weights = (first, 1 - first)
        values = [
            max(w * s for w, s in zip(weights, m["scaled"], strict=True))
            + 1e-3 * sum(w * s for w, s in zip(weights, m["scaled"], strict=True))
            if m["front"]
            else math.inf
            for m in data["members"]
        ]
        assert int(np.argmin(values)) == front.choose(weights)


def test_front_plot_of_three_tasks_is_three_dimensional() -> None:
    (space,) = re.findall(r"function space\(.*?\n  }\n", asset("front.js"), flags=re.DOTALL)
    assert 'aspectmode: "cube"' in space
    assert "folded(title, 24, spatial)" in space
    assert "axis(quantity" not in space, "axes in space show entities as they are written"


def test_front_run_resumed_after_interruption_equals_uninterrupted_run(tmp_path: Path) -> None:
    run = dataclasses.replace(RUN, epochs=4, front_options={**RUN.front_options, "execution": "vmap"})
    whole = train_front(run, tmp_path / "whole", progress=None)

    with pytest.raises(KeyboardInterrupt):
        train_front(run, tmp_path / "killed", progress=stop_after(3, of=4))
    assert 1 <= saved_epochs(tmp_path / "killed" / "checkpoint") < 4
    reported: list[int] = []
    again = train_front(run, tmp_path / "killed", progress=lambda done, epochs: reported.append(done))
    assert min(reported) >= 1, "epochs before the checkpoint are not trained again"
    assert again.facts["front"]["losses"] == whole.facts["front"]["losses"]
    assert [epoch.validation for epoch in again.history] == [epoch.validation for epoch in whole.history]
    assert not (tmp_path / "killed" / "checkpoint").exists()


WRONG_LOSSES = {
    "3": "expected a scalar tensor for 'sign'",
    "torch.ones(1)": "expected a scalar tensor for 'sign'",
    "torch.tensor(1j)": "expected a scalar tensor for 'sign'",
    "torch.tensor(3)": "expected a scalar tensor for 'sign'",
}


@pytest.mark.parametrize("loss", WRONG_LOSSES)
def test_front_of_a_workload_with_wrong_losses_names_the_task(loss: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\n"
        "from training_workload import Tiny\n\n\n"
        "class Mine(Tiny):\n"
        "    def losses(self, outputs, targets):\n"
        f"        return super().losses(outputs, targets) | {{'sign': {loss}}}\n"
    )
    code, printed = call(
        "front", str(path), "--models", "2", "--epochs", "1", "--batch-size", "20", "--out", str(tmp_path / "out")
    )
    assert code == 2
    assert WRONG_LOSSES[loss] in printed


@pytest.mark.parametrize("command", ["front", "train"])
@pytest.mark.parametrize("tasks", ["()", "5", "(1, 2)"])
def test_workload_without_names_of_tasks_is_one_message(command: str, tasks: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"from training_workload import Tiny\n\n\nclass Mine(Tiny):\n    tasks = {tasks}\n")
    code, printed = call(command, str(path), "--epochs", "1", "--batch-size", "20", "--out", str(tmp_path / "out"))
    assert code == 2
    assert "Mine.tasks: expected a tuple of names" in printed
