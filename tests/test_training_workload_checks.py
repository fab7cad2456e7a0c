"""Checks of a workload before its run starts: one sentence each, and no folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from command_line import call
from paretorch.training.fronts.run import train_front
from paretorch.training.loop import train
from paretorch.training.monitoring.result_table import show
from paretorch.training.monitoring.training_monitor import TrainingWarning
from paretorch.training.record.result import Result
from paretorch.training.run import Run
from paretorch.training.workload_checks import check_losses, trained_model
from training_runs import TINY_FILE
from training_workload import Tiny

DATA = "        return Splits(*(self._streams(count, seed) for seed, count in enumerate((self.samples, 24, 24))))"
LOSSES = "        return losses\n"
METRICS = '        return {"sign": (Accuracy(),), "size": (SizeError(),)}\n'

METRIC = """        class Own(Accuracy):
            name, higher_is_better, samples = 'own', False, 0

            def update(self, output, target):
                self.samples += len(output)

            def compute(self):
                return {value}

        return {{'{name}': (Own(),)}}
"""

BROKEN = [
    (DATA, "        return None\n" + DATA, r"Tiny\.data\(\): expected .*Splits\(train, validation, test\), got NoneType"),
    (
        DATA,
        "        return Splits(*(self._streams(9, seed)[0] for seed in range(3)))\n" + DATA,
        r"split 'train': expected a tuple of streams, got TensorStream; a single stream is written as \(stream,\)",
    ),
    (LOSSES, "        return None\n", r"Tiny\.losses\(\): expected a dict of a scalar loss by task, got NoneType"),
    (LOSSES, "        return list(losses.values())\n", r"expected a dict of a scalar loss by task, got list"),
    (LOSSES, "        return {**losses, 'other': losses['size']}\n", r"expected losses of sign, size, .*got \['other'\]"),
    (LOSSES, "        return {'size': float(losses['size'])}\n", r"expected a scalar tensor for 'size', .*got float"),
    (LOSSES, "        return {'size': losses['size'].expand(3)}\n", r"for 'size', .*got a tensor of shape \(3,\)"),
    (METRICS, "        return [Accuracy()]\n", r"Tiny\.metrics\(\): expected a dict of metrics by task, .*got list"),
    (METRICS, "        return {'sign': Accuracy()}\n", r"a tuple of metrics for 'sign', got Accuracy; .*\(Accuracy\(\),\)"),
    (METRICS, "        return {'sign': (Accuracy,)}\n", r"objects of .*Metric for 'sign', .*got the class Accuracy"),
    (METRICS, "        return {'other': ()}\n", r"expected metrics of the tasks sign, size, got \['other'\]"),
    (METRICS, "        return {'sign': (Accuracy(), Accuracy())}\n", r"different names for 'sign', got 'accuracy' several times"),
    (METRICS, METRIC.format(name="size", value="1j"), r"Tiny\.metrics\(\), task 'size', compute\(\) of 'own': .*got complex"),
    (METRICS, METRIC.format(name="size", value="'0.5'"), r"task 'size', compute\(\) of 'own': expected a real .*got str"),
    (METRICS, METRIC.format(name="size", value="10 ** 400"), r"of 'own': .*got int beyond the range of a float"),
    (METRICS, METRIC.format(name="size", value="torch.ones(3)"), r"got a tensor of torch\.float32 and shape \(3,\)"),
    (METRICS, METRIC.format(name="size", value="1.0").replace("'own'", "None"), r"name of Own, a metric of 'size', .*got None"),
    (METRICS, METRIC.format(name="size", value="1.0").replace("False", "'no'"), r"higher_is_better .* to be a bool, got 'no'"),
]  # fmt: skip


def changed(path: Path, old: str, new: str) -> str:
    text = TINY_FILE.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    return str(path)


@pytest.mark.parametrize(("old", "new", "message"), BROKEN)
def test_invalid_workload_is_refused_before_a_folder_is_made(old: str, new: str, message: str, tmp_path: Path) -> None:
    workload = changed(tmp_path / "mine.py", old, new)
    with pytest.raises(ValueError, match=message) as caught:
        train(Run(workload, epochs=1), tmp_path / "run", progress=None)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=message):
        train_front(
            Run(workload, epochs=1, front="mt2o", front_options={"models": 2}), tmp_path / "front", progress=None
        )
    assert not (tmp_path / "front" / "run.json").exists()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("True", 1.0),
        ("torch.tensor(0.25, requires_grad=True)", 0.25),
        ("torch.tensor([[3]])", 3.0),
        ("__import__('numpy').float32(0.25)", 0.25),
        ("__import__('numpy').array(0.25)", 0.25),
        ("__import__('numpy').bool_(False)", 0.0),
        ("__import__('fractions').Fraction(1, 4)", 0.25),
        (
            "1 / (self.samples - 2) if self.samples != 2 else 1 / 0",
            1 / 22,
        ),  # an error on two samples is none on the whole split
        ("1 / 22 if self.samples > 2 else None", 1 / 22),
    ],
)
def test_metric_that_is_a_real_number_is_recorded_as_a_float(value: str, expected: float, tmp_path: Path) -> None:
    workload = changed(tmp_path / "mine.py", METRICS, METRIC.format(name="size", value=value))
    train(Run(workload, epochs=1, batch_size=8), tmp_path / "run", progress=None)
    found = Result.load(tmp_path / "run")
    assert found.validation.metrics["size"] == found.test.metrics["size"] == {"own": pytest.approx(expected, abs=0)}
    assert type(found.test.metrics["size"]["own"]) is float


def test_metric_that_is_no_number_on_the_whole_split_names_workload_task_and_metric(tmp_path: Path) -> None:
    workload = changed(
        tmp_path / "mine.py", METRICS, METRIC.format(name="size", value="None if self.samples > 2 else 0.0")
    )
    code, printed = call("train", workload, "--epochs", "1", "--out", str(tmp_path / "run"))
    assert code == 2
    assert "Error: Tiny.metrics(), task 'size', compute() of 'own': expected a real number" in printed
    assert "got NoneType" in printed


def test_stream_without_samples_of_a_batch_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    own = """
        class Own(TensorStream):
            def batches(self, size, order):
                {body}

        return Splits(*((Own(*vars(self._streams(9, seed)[0]).values()),) for seed in range(3)))
"""
    for place, (body, message) in enumerate(
        (
            ("yield self.inputs[:size], self.targets", r"the stream of 'sign', 'size' \(Own\): .*Samples.*, got tuple"),
            ("yield self._samples(slice(0), 0)", r"\(Own\): expected batches of at least 1 sample, got size=0"),
            ("yield from ()", r"\(Own\): batches\(\) gave no batch in a pass of evaluation"),
        )
    ):
        workload = changed(tmp_path / f"mine{place}.py", DATA, own.format(body=body))
        with pytest.raises(ValueError, match=message):
            train(Run(workload, epochs=1), tmp_path / "run", progress=None)
        assert not (tmp_path / "run").exists()


def test_check_losses_has_no_side_effects() -> None:
    torch.manual_seed(3)
    model = trained_model(Tiny(), ("sign", "size"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = torch.get_rng_state()
    check_losses(Tiny(), model, Tiny().data())
    assert model.training
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_task_without_metrics_is_trained_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workload = changed(tmp_path / "mine.py", METRICS, "        return {'sign': (Accuracy(),)}\n")
    result = train(Run(workload, epochs=1, batch_size=8), tmp_path / "run", progress=None)
    assert dict(result.validation.metrics["size"]) == dict(result.higher_is_better["size"]) == {}
    show(result, tmp_path / "run")
    assert "accuracy" in capsys.readouterr().out
    assert call("report", str(tmp_path / "run"))[0] == 0


def test_result_table_marks_tasks_without_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one: Any = "        splits = Splits(*(self._streams(24, seed) for seed in range(3)))\n"
    one += "        there = splits.train[0]\n"
    one += "        return Splits(splits.train, (TensorStream(there.inputs, {'sign': there.targets['sign']}),), splits.test)\n"
    workload = changed(tmp_path / "mine.py", DATA, one + DATA)
    with pytest.warns(TrainingWarning, match="no validation sample has a label of 'size'"):
        train(Run(workload, epochs=1, batch_size=8), tmp_path / "run", progress=None)
    show(Result.load(tmp_path / "run"), tmp_path / "run")
    rows = [line for line in capsys.readouterr().out.splitlines() if "size" in line and "\u2502" in line]
    assert len(rows) == 2
    assert all("no labels" in row and "nan" not in row for row in rows)


def test_error_in_a_head_names_its_task() -> None:
    workload = Tiny()
    model = trained_model(workload, workload.tasks)
    model.heads["size"] = torch.nn.Linear(3, 1)  # type: ignore[operator, index, assignment]
    with pytest.raises(RuntimeError, match="shapes") as caught:
        check_losses(workload, model, workload.data())
    assert caught.value.__notes__ == ["in the head of task 'size', Linear"]
