"""``paretorch pick`` and ``paretorch export`` for runs of one model."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from command_line import call
from paretorch.training import Run, load_model, train
from paretorch.training.evaluation import evaluate
from paretorch.training.names.workloads import find_workload
from training_runs import TINY

RUN = Run(TINY, epochs=6, batch_size=10, seed=1, optimizer_options={"lr": 0.5}, keep="best")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs") / "best"
    train(RUN, made, progress=None)
    return made


def scored(model: torch.nn.Module, tasks: tuple[str, ...]) -> Any:
    workload = find_workload(TINY, {})
    return evaluate(workload, model, workload.data().test, tasks, RUN.batch_size, RUN.precision)


def executed_lines(arguments: list[str], inputs: torch.Tensor) -> dict[str, Any]:
    """The names that the printed lines define, after they were executed with ``inputs``."""
    from typer.testing import CliRunner

    from paretorch.cli import app

    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "400", "TERM": "dumb", "NO_COLOR": "1"})
    assert result.exit_code == 0, result.output
    code = result.output.partition("In Python:")[2].strip()
    assert len(code.splitlines()) == 3
    names: dict[str, Any] = {"inputs": inputs}
    exec(code, names)
    return names


@pytest.mark.parametrize(
    "run",
    [RUN, replace(RUN, keep="last"), replace(RUN, keep="last", tasks=("size",), epochs=1)],
    ids=lambda run: run.key,
)
def test_load_model_has_the_scores_of_the_result(run: Run, tmp_path: Path) -> None:
    result = train(run, tmp_path, progress=None)
    before = torch.get_rng_state()
    model = load_model(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert scored(model, result.tasks) == result.test


@pytest.mark.parametrize("export", [None, "model.safetensors"])
def test_printed_lines_load_the_model(export: str | None, folder: Path, tmp_path: Path) -> None:
    inputs = torch.randn(3, 4, generator=torch.Generator().manual_seed(7))
    expected = load_model(folder)(inputs)
    arguments = ["pick", str(folder), *(["--export", str(tmp_path / export)] if export else [])]
    outputs = executed_lines(arguments, inputs)["outputs"]
    assert outputs.keys() == expected.keys()
    for task, output in outputs.items():
        torch.testing.assert_close(output, expected[task])


@pytest.mark.long
def test_printed_lines_load_the_onnx_model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    from onnx.reference import ReferenceEvaluator

    runtime = ModuleType("onnxruntime")
    runtime.InferenceSession = ReferenceEvaluator  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(7))
    outputs = executed_lines(["export", str(folder), str(tmp_path / "model.onnx")], inputs)["outputs"]
    expected = load_model(folder)(inputs)
    for output, task in zip(outputs, ("sign", "size"), strict=True):
        torch.testing.assert_close(torch.as_tensor(output), expected[task], rtol=1e-4, atol=1e-4)


def test_export_replaces_its_own_file_and_no_other(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for _ in range(2):
        assert call("export", str(folder), str(path))[0] == 0
    (tmp_path / "theirs.safetensors").write_bytes(b"theirs")
    code, printed = call("export", str(folder), str(tmp_path / "theirs.safetensors"))
    assert code == 2
    assert "is no exported model, so it is not replaced" in printed
    assert (tmp_path / "theirs.safetensors").read_bytes() == b"theirs"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pick", "{folder}", "0.5,0.5"], "there is nothing to choose: leave out the weights"),
        (["pick", "{folder}", "--model", "1"], "there is nothing to choose"),
        (["export", "{folder}", "model.pt"], "as .onnx or .safetensors"),
        (["export", "nowhere", "model.onnx"], "contains no run"),
        (["export", "{unfinished}", "model.onnx"], "is not finished"),
        (["export", "{removed}", "model.onnx"], "contains no model after epoch 1"),
        (["export", "{front}", "model.onnx"], "contains a front of several models: `paretorch pick"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_export_error_that_the_user_can_correct_is_one_message(
    arguments: list[str], message: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"{folder}": folder} | {f"{{{name}}}": tmp_path / name for name in ("unfinished", "removed", "front")}
    short = replace(RUN, keep="last", epochs=1)
    if "{unfinished}" in arguments:
        train(short, tmp_path / "unfinished", progress=None)
        (tmp_path / "unfinished" / "result.json").unlink()
    if "{removed}" in arguments:
        train(short, tmp_path / "removed", progress=None)
        (tmp_path / "removed" / "checkpoint").rename(tmp_path / "elsewhere")
    if "{front}" in arguments:
        run = Run("synthetic", {"samples": 32, "hidden": 4}, epochs=1, batch_size=16, front="MT2O()")
        train(replace(run, front_options={"models": 2}), tmp_path / "front", progress=None)
    code, printed = call(*(str(places.get(argument, argument)) for argument in arguments))
    assert code == 2
    assert message in printed
    assert "Traceback" not in printed


def test_load_model_of_a_damaged_or_foreign_file_is_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "theirs.safetensors")
    with pytest.raises(ValueError, match="no exported model of a run"):
        load_model(tmp_path / "theirs.safetensors")
    about = {"tasks": '["sign", "size"]', "workload": TINY, "options": "{}"}
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors", metadata=about)
    with pytest.raises(ValueError, match="does not fit the model"):
        load_model(tmp_path / "other.safetensors")
