"""Runs on files of data: a changed file is an error that changes nothing, and a run that cannot be continued stays finished."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from command_line import call
from paretorch.training import load_model
from paretorch.training.loop import train
from paretorch.training.names.workloads import data_digest
from paretorch.training.run import Run
from paretorch.workloads.base import DataWarning

OWN = """
from dataclasses import dataclass
from pathlib import Path
import torch
from torch import nn
from paretorch.metrics import MeanAbsoluteError
from paretorch.workloads import Splits, TensorStream, Workload
from paretorch.workloads.base import MultiTaskModel


@dataclass(frozen=True)
class Numbers(Workload):
    path: str = "numbers.txt"

    @property
    def tasks(self):
        return ("left", "right")

    def data(self):
        x = torch.tensor([float(line) for line in Path(self.path).read_text().split()])[:, None]
        stream = TensorStream(x, {"left": x, "right": -x})
        return Splits((stream,), (stream,), (stream,))

    def model(self):
        return MultiTaskModel(nn.Linear(1, 4), {task: nn.Linear(4, 1) for task in self.tasks})

    def losses(self, outputs, targets):
        return {task: (outputs[task] - targets[task]).square().mean() for task in outputs}

    def metrics(self):
        return {task: (MeanAbsoluteError(),) for task in self.tasks}

    def data_files(self):
        return (self.path,)
"""


def write_table(path: Path, factor: float = 1.0) -> None:
    rows = [f"{number % 7},{factor * number},{'yes' if number % 3 else 'no'}" for number in range(60)]
    path.write_text("\n".join(["x,y,sold", *rows]) + "\n")


def write_numbers(path: Path, factor: float = 1.0) -> None:
    path.write_text("\n".join(str(factor * number) for number in range(40)) + "\n")


Write = Callable[..., None]


@pytest.fixture(params=["table", "own"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Write, Run]:
    """A data file, what writes it, and a run on it."""
    if request.param == "table":
        path, write = tmp_path / "table.csv", write_table
        run = Run("tabular", {"path": str(path), "targets": ["y", "sold"]}, epochs=2, batch_size=16)
    else:
        path, write = tmp_path / "numbers.txt", write_numbers
        (tmp_path / "own.py").write_text(OWN)
        run = Run(str(tmp_path / "own.py"), {"path": str(path)}, epochs=2, batch_size=16)
    write(path)
    return path, write, run


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("epochs", [2, 4])
def test_run_with_changed_data_is_neither_resumed_nor_continued_nor_read(
    kind: tuple[Path, Write, Run], tmp_path: Path, epochs: int
) -> None:
    path, write, run = kind
    folder = tmp_path / "run"
    expected = train(run, folder, progress=None)
    before = contents(folder)
    write(path, factor=50.0)
    with pytest.raises(
        ValueError, match=rf"{path.name} has changed since the run in .* numbers are those of other data"
    ):
        train(replace(run, epochs=epochs), folder, progress=None)
    assert contents(folder) == before
    write(path)
    assert train(run, folder, progress=None) == expected
    assert len(train(replace(run, epochs=4), folder, progress=None).history) == 4


def test_model_of_a_run_with_changed_data_is_loaded_with_a_warning(
    kind: tuple[Path, Write, Run], tmp_path: Path
) -> None:
    path, write, run = kind
    train(run, tmp_path / "run", progress=None)
    expected = load_model(tmp_path / "run").state_dict()
    write(path, factor=50.0)
    with pytest.warns(DataWarning, match=f"{path.name} has changed since the run"):
        found = load_model(tmp_path / "run").state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_interrupted_run_with_changed_data_is_not_resumed(kind: tuple[Path, Write, Run], tmp_path: Path) -> None:
    path, write, run = kind

    def stop(done: int, of: int) -> None:
        del of
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path / "run", progress=stop)
    before = contents(tmp_path / "run")
    write(path, factor=50.0)
    with pytest.raises(ValueError, match="numbers are those of other data"):
        train(run, tmp_path / "run", progress=None)
    assert contents(tmp_path / "run") == before


def test_front_with_changed_data_is_not_read(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    write_table(table)
    run = Run(
        "tabular",
        {"path": str(table), "targets": "y,sold"},
        epochs=1,
        batch_size=16,
        front="MT2O()",
        front_options={"models": 2},
    )
    expected = train(run, tmp_path / "front", progress=None)
    write_table(table, factor=50.0)
    with pytest.raises(ValueError, match="numbers are those of other data"):
        train(run, tmp_path / "front", progress=None)
    write_table(table)
    assert train(run, tmp_path / "front", progress=None) == expected


@pytest.mark.usefixtures("tests_on_worker_path")
@pytest.mark.parametrize("how", [(), ("--together",)], ids=["alone", "together"])
def test_study_does_not_mix_two_versions_of_a_table(
    how: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "table.csv")
    options = ("--methods", "sum, MGDA()", "--epochs", "1", "--batch-size", "16", "--jobs", "1", "--out", "study", *how)
    command = ("study", "tabular(path='table.csv', targets='y,sold')", *options)
    assert call(*command, "--seeds", "2")[0] == 0
    before = len(list((tmp_path / "study").rglob("result.json")))
    write_table(tmp_path / "table.csv", factor=50.0)
    code, printed = call(*command, "--seeds", "3")
    assert code != 0
    assert "table.csv has changed since" in " ".join(printed.split())
    assert len(list((tmp_path / "study").rglob("result.json"))) == before


def test_finished_run_is_read_where_its_data_are_not(kind: tuple[Path, Write, Run], tmp_path: Path) -> None:
    path, _, run = kind
    expected = train(run, tmp_path / "run", progress=None)
    path.unlink()
    assert train(run, tmp_path / "run", progress=None) == expected


def remove_data(path: Path, folder: Path) -> None:
    del folder
    path.unlink()


def damage_checkpoints(path: Path, folder: Path) -> None:
    del path
    for file in (folder / "checkpoint").rglob("*.safetensors"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(bytes(content))


@pytest.mark.parametrize("obstacle", [remove_data, damage_checkpoints])
def test_finished_run_that_cannot_be_continued_stays_finished(
    kind: tuple[Path, Write, Run], tmp_path: Path, obstacle: Callable[[Path, Path], None]
) -> None:
    path, write, run = kind
    folder = tmp_path / "run"
    expected = train(run, folder, progress=None)
    shutil.copytree(folder, tmp_path / "copy")
    obstacle(path, folder)
    before = contents(folder)
    with pytest.raises((ValueError, OSError)):
        train(replace(run, epochs=4), folder, progress=None)
    assert contents(folder) == before
    assert train(run, folder, progress=None) == expected
    write(path)
    longer = train(replace(run, epochs=4), tmp_path / "copy", progress=None)
    assert longer.history[:2] == expected.history


@pytest.mark.parametrize("name", ["unnamed.py", "unnamed_module"])
def test_code_that_a_file_names_is_not_executed_for_its_data_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{name.removesuffix('.py')}.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert data_digest(name, {}) is None


def test_workload_file_is_executed_once_in_a_training(tmp_path: Path) -> None:
    """A second execution would make other classes: objects of the first could not be sent to processes that load data."""
    own, log = tmp_path / "own.py", tmp_path / "log"
    own.write_text(OWN + f"\nwith open({str(log)!r}, 'a') as file:\n    file.write('executed ')\n")
    write_numbers(tmp_path / "numbers.txt")
    run = Run(str(own), {"path": str(tmp_path / "numbers.txt")}, epochs=1, batch_size=16)
    train(run, tmp_path / "run", progress=None)
    assert log.read_text() == "executed "
    train(run, tmp_path / "run", progress=None)
    assert log.read_text() == "executed "
