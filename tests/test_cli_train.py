"""Options of ``paretorch train`` that decide folder, device, learning rate and kept epoch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import paretorch
from command_line import call
from paretorch.cli import run_folder
from paretorch.cli.options import task_names
from paretorch.cli.run_folder import place_run
from paretorch.training.loop import train
from paretorch.training.record.kept_epoch import KEPT
from paretorch.training.record.result import Result
from paretorch.training.run import Run
from training_runs import TINY, check_equal_results

BASE = ["train", TINY, "--batch-size", "10", "--device", "cpu"]
RUN = Run(TINY, epochs=2, batch_size=10, device="auto")


def recorded(folder: Path) -> dict[str, Any]:
    run: dict[str, Any] = json.loads((folder / "run.json").read_text())["run"]
    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_version_is_that_of_the_package() -> None:
    assert call("--version") == (0, f"paretorch {paretorch.__version__} ")


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--lr", "0.02"], {"lr": 0.02}),
        (["--optimizer", "SGD(momentum=0.9)", "--lr", "3e-3"], {"momentum": 0.9, "lr": 0.003}),
        (["--optimizer", "SGD(lr=1.0)", "--lr", "0.0005"], {"lr": 0.0005}),
    ],
)
def test_train_lr_replaces_the_learning_rate_of_the_optimizer(
    arguments: list[str], options: dict[str, float], tmp_path: Path
) -> None:
    code, _ = call(*BASE, "--epochs", "1", *arguments, "--out", str(tmp_path))
    assert code == 0
    assert recorded(tmp_path)["optimizer_options"] == options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--lr", "0.1", "--optimizer", "Backtracking()"],
            "--lr has no effect with Backtracking: a line search chooses",
        ),
        (["--lr", "0"], "--lr is a finite number above 0, got 0"),
        (["--lr", "nan"], "--lr is a finite number above 0, got nan"),
        (["--keep", "first"], "'best'"),
        (["--tasks", ","], "expected names of tasks with commas between, got ','; without --tasks, all are trained"),
        (["--method", "SDMGrad(batches=3)"], "takes 3 batches per step, and a run has one"),
        (
            ["--optimizer", "Adam(capturable=True)"],
            "the optimizer Adam does not accept {'capturable': True}: If capturable=True",
        ),
        (["--optimizer", "FastBacktracking(direction='Adam(lr=-1)')"], "the optimizer Adam does not accept {'lr': -1}"),
        (["--optimizer", "FastBacktracking()", "--surface", "parameters"], "surface='parameters' has no effect"),
        (["--optimizer", "MTAdamV2(lr=0.001)", "--surface", "parameters"], "surface='parameters' has no effect"),
    ],
)
def test_train_refuses_options_without_meaning(arguments: list[str], message: str, tmp_path: Path) -> None:
    code, printed = call(*BASE, *arguments, "--out", str(tmp_path / "run"))
    assert code == 2
    assert message in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("left, ink", ("left", "ink")),
        ('"a,b",c', ("a,b", "c")),
        ('c , " a, ""b"" " ,', ("c", ' a, "b" ')),
        ('5" disk,b"c,d"', ('5" disk', 'b"c', 'd"')),
        ("", ()),
    ],
)
def test_names_of_tasks_with_commas_are_quoted(text: str, names: tuple[str, ...]) -> None:
    assert task_names(text) == names


def test_train_selects_a_task_with_a_comma_in_its_name(tmp_path: Path) -> None:
    file = tmp_path / "commas.py"
    file.write_text(Path(TINY).read_text().replace('"sign"', '"sign, of x"'))
    code, printed = call("train", str(file), "--epochs", "1", "--tasks", '"sign, of x"', "--out", str(tmp_path / "run"))
    assert code == 0, printed
    assert Result.load(tmp_path / "run").tasks == ("sign, of x",)


def test_train_keeps_the_best_epoch(tmp_path: Path) -> None:
    code, printed = call(*BASE, "--epochs", "6", "--lr", "0.5", "--seed", "1", "--keep", "best", "--out", str(tmp_path))
    assert code == 0
    result = Result.load(tmp_path)
    assert f"after epoch {result.facts[KEPT]} of 6, the best" in printed
    assert result.facts[KEPT] < 6


@pytest.mark.parametrize(
    ("devices", "expected"), [(("cuda", "cpu"), "cuda"), (("mps", "cpu"), "mps"), (("cpu",), "cpu")]
)
def test_automatic_device_is_the_fastest_one(
    devices: tuple[str, ...], expected: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "available_devices", lambda: devices)
    placed = place_run(RUN, None)
    assert placed.run == replace(RUN, device=expected)
    assert placed.folder == Path("runs") / f"training_workload-{placed.run.key}"


@pytest.mark.parametrize("named", [False, True])
def test_automatic_device_is_that_of_an_earlier_run(named: bool, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _ = call(*BASE, "--epochs", "2", *(["--out", "mine"] if named else []))
    assert code == 0
    monkeypatch.setattr(run_folder, "available_devices", lambda: ("cuda", "cpu"))
    placed = place_run(RUN, Path("mine") if named else None)
    assert placed.run.device == "cpu"
    assert (placed.folder / "result.json").exists()
    (note,) = placed.notes
    assert "started on cpu" in note
    assert "--device cuda" in note


def test_train_without_a_device_records_the_device_that_was_used(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "available_devices", lambda: ("cpu",))
    assert call("train", TINY, "--epochs", "1", "--out", "mine")[0] == 0
    assert recorded(Path("mine"))["device"] == "cpu"


def test_train_of_a_finished_run_names_what_to_do_for_more(tmp_path: Path) -> None:
    command = [*BASE, "--epochs", "2", "--out", str(tmp_path)]
    assert "finished before" not in call(*command)[1]
    _, printed = call(*command)
    assert "This run was finished before, so nothing was trained. A larger --epochs than 2 continues it" in printed
    _, printed = call(*BASE, "--epochs", "3", "--out", str(tmp_path))
    assert "finished before" not in printed
    assert "resumed after epoch 2" in printed


def test_train_of_a_finished_run_with_a_cosine_schedule_offers_no_continuation(tmp_path: Path) -> None:
    command = [*BASE, "--epochs", "2", "--schedule", "cosine", "--out", str(tmp_path)]
    call(*command)
    _, printed = call(*command)
    assert "More epochs need a new run: a cosine schedule depends" in printed
    code, printed = call(*BASE, "--epochs", "3", "--schedule", "cosine", "--out", str(tmp_path))
    assert code == 2
    assert "cannot be continued to 3" in printed


def test_train_with_more_epochs_continues_a_copy_of_the_run_in_runs(here: Path) -> None:
    assert call(*BASE, "--epochs", "2")[0] == 0
    (shorter,) = (here / "runs").iterdir()
    code, printed = call(*BASE, "--epochs", "4")
    assert code == 0
    assert "resumed after epoch 2" in printed
    assert f"Continues a copy of runs/{shorter.name}" in printed
    run = replace(RUN, device="cpu", epochs=4)
    longer = here / "runs" / f"training_workload-{run.key}"
    check_equal_results(Result.load(longer), train(run, here / "whole", progress=None))
    assert len(Result.load(shorter).history) == 2
    assert {path.name for path in (here / "runs").iterdir()} == {shorter.name, longer.name}


def test_train_with_more_epochs_of_a_cosine_schedule_starts_anew(here: Path) -> None:
    assert call(*BASE, "--epochs", "2", "--schedule", "cosine")[0] == 0
    code, printed = call(*BASE, "--epochs", "4", "--schedule", "cosine")
    assert code == 0
    assert "This run starts anew." in printed
    assert "resumed" not in printed
    run = replace(RUN, device="cpu", epochs=4, schedule="cosine")
    expected = train(run, here / "whole", progress=None)
    check_equal_results(Result.load(here / "runs" / f"training_workload-{run.key}"), expected)


def test_train_of_a_method_with_and_without_brackets_is_one_run(here: Path) -> None:
    for method in ("IMTLG", "IMTLG()", "IMTLG( )"):
        code, printed = call(*BASE, "--epochs", "1", "--method", method)
        assert code == 0
        assert ("finished before" in printed) == (method != "IMTLG")
    (folder,) = Path("runs").iterdir()
    assert recorded(folder)["method"] == "IMTLG()"


@pytest.mark.parametrize("method", ["IMTLG", "IMTLG()"])
def test_train_finds_a_run_that_was_recorded_without_brackets_under_its_name(method: str, here: Path) -> None:
    former = replace(RUN, method="IMTLG", device="cpu")
    folder = Path("runs") / f"training_workload-{former.key}"
    train(former, folder)
    for epochs in (2, 3):
        placed = place_run(replace(former, method=method, epochs=epochs), None)
        assert placed.run == replace(former, epochs=epochs)
    assert place_run(replace(former, method=method), folder).run == former
    assert place_run(replace(former, method=method, seed=5), None).run.method == "IMTLG()"
