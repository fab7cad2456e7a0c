"""Each kind of update makes the step that its formula defines, without side effects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from paretorch.loop.means import DeviceMeans
from paretorch.training import run_training, updates
from paretorch.training.loop import train
from paretorch.training.names.workloads import find_workload
from paretorch.training.record.epoch_totals import EpochTotals, MeanCosines
from paretorch.training.resolved_run import resolve
from paretorch.training.run import Run
from paretorch.workloads import Samples, Workload
from paretorch.workloads.streams import training_batches
from tensors import equal_tensors
from training_runs import TINY


def tiny_parts(**options: Any) -> tuple[Workload, nn.Module, tuple[Samples, ...]]:
    workload = find_workload(TINY, options)
    torch.manual_seed(0)
    model = workload.model()
    return workload, model, next(training_batches(workload.data().train, 8, 0, 0))


def gradient_list(model: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def gradients_of(update_of: Callable[..., updates.Update], **options: Any) -> list[Tensor]:
    workload, model, batch = tiny_parts(**options)
    torch.manual_seed(1)
    update_of(workload, model, torch.optim.SGD(model.parameters(), lr=0.0))(batch)
    return gradient_list(model)


@pytest.mark.parametrize("options", [{}, {"own_inputs": True}, {"missing": True}], ids=str)
def test_update_with_equal_weights_uses_the_sum_of_losses(options: dict[str, Any]) -> None:
    tasks = ("sign", "size")
    plain = gradients_of(updates.plain, **options)
    features = gradients_of(partial(updates.on_features, fork=pt.Fork(pt.Equal(), tasks)), **options)
    exact = gradients_of(partial(updates.on_parameters, balancer=pt.Balancer(pt.Equal(), tasks)), **options)
    assert len(plain) == 8
    for one, other, third in zip(plain, features, exact, strict=True):
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(one, third)


@pytest.mark.parametrize("surface", ["features", "parameters"])
def test_repeated_forward_has_the_same_masks_and_statistics(surface: str) -> None:
    run = Run(TINY, method="FAMO()", surface=surface, optimizer="SGD", optimizer_options={"lr": 0.0}, batch_size=8)
    resolved = resolve(run)
    assert resolved.balancer is not None
    observed: list[dict[str, float]] = []

    def observe(losses: Mapping[str, Tensor | None]) -> None:
        observed.append({task: float(loss) for task, loss in losses.items() if loss is not None})

    resolved.balancer.observe = observe  # type: ignore[method-assign]
    resolved.balancer.runner.disable_warning("observe")  # the method does not receive them
    for batch in training_batches(resolved.splits.train, 8, 0, 0):
        record = resolved.update(batch)
        assert observed.pop() == {task: float(loss) for task, loss in record.losses.items()}


def _forward(workload: Workload, model: nn.Module, batch: tuple[Samples, ...]) -> None:
    updates.losses_of(workload, model, batch, "float32")


def test_repeated_forward_has_no_side_effects() -> None:
    def after(observes: bool) -> tuple[Tensor, list[Tensor]]:
        workload, model, batch = tiny_parts()
        torch.manual_seed(1)
        with updates._repeated_forward(model, observes) as repeat:
            updates.losses_of(workload, model, batch, "float32")
            repeat(partial(_forward, workload, model, batch))
        return torch.rand(3), [buffer.clone() for buffer in model.buffers()]

    (draws, statistics), (plain_draws, plain_statistics) = after(True), after(False)
    assert torch.equal(draws, plain_draws)
    assert equal_tensors(statistics, plain_statistics)


def test_batch_without_labels_makes_no_step() -> None:
    workload, model, (samples,) = tiny_parts()
    unlabelled = Samples(samples.inputs, {"sign": torch.full((8,), -1)}, 8)
    del model.heads["size"]  # type: ignore[operator, union-attr]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    record = updates.plain(workload, model, torch.optim.SGD(model.parameters(), lr=1.0))((unlabelled,))
    assert record.losses == {}
    assert equal_tensors(before, model.parameters())
    totals = EpochTotals()
    totals.add(record, 8)
    totals.flush()
    assert totals.statuses == {"absent": 1}


@pytest.mark.parametrize(
    "options",
    [
        {"surface": "features"},
        {"surface": "parameters"},
        {"optimizer": "FastBacktracking", "optimizer_options": {"displacement": "gradient", "max_step": 1e-3}},
    ],
    ids=["features", "parameters", "searched"],
)
def test_step_record_contains_no_combined_gradient(options: dict[str, Any]) -> None:
    resolved = resolve(Run(TINY, method="GradDrop()", batch_size=8, **options))
    record = resolved.update(next(training_batches(resolved.splits.train, 8, 0, 0)))
    assert record.balance is not None
    assert record.balance.weights is None, "a Jacobian method answers with a combined gradient"
    assert record.balance.update is None
    assert record.search is None or record.search.balance == record.balance


def test_means_are_weighted_and_ignore_zero_counts() -> None:
    means = DeviceMeans()
    means.add("a", torch.tensor(2.0), torch.tensor(3))
    means.add("a", torch.tensor(torch.nan), torch.tensor(0))
    means.add("a", torch.tensor(6.0), torch.tensor(1))
    means.add("b", torch.tensor(torch.nan), torch.tensor(0))
    read = means.read()
    assert read["a"] == 3
    assert read["b"] != read["b"]


def test_mean_cosines_ignore_absent_and_nonfinite_gradients() -> None:
    means = MeanCosines()
    tasks = ("a", "b", "c")
    means.add(tasks, torch.tensor([[4.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    means.add(tasks, torch.tensor([[1.0, -1.0, torch.nan], [-1.0, 1.0, torch.inf], [torch.nan, torch.inf, torch.inf]]))
    read = means.read()
    assert read["a"][0] == pytest.approx((0.5 - 1.0) / 2)
    assert read["a"][1] != read["a"][1]
    assert (len(read["b"]), read["c"]) == (1, [])
    assert MeanCosines().read() == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tasks": ("sing",)}, "unknown task of .*did you mean 'sign'"),
        ({"method": "MDGA()"}, "did you mean 'MGDA'"),
        ({"door": {"evry": 2}}, "option of the Fork 'evry': did you mean 'every'"),
        ({"door": {"gap": 2}, "surface": "parameters"}, "option of the Balancer 'gap'"),
        ({"door": {"scale": "papr"}}, "scale is 'calibrated' or 'paper'"),
        ({"optimizer": "adam"}, "did you mean 'Adam'"),
        ({"device": "tpu"}, "device is"),
        ({"options": {"samples": "many"}}, "'samples' is of type int, got 'many'"),
    ],
)
def test_resolve_names_unknown_values_before_a_folder_is_made(
    values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        train(Run(**{"workload": TINY, **values}), tmp_path / "run", progress=None)
    assert not (tmp_path / "run").exists()


def test_model_without_heads_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "headless.py"
    path.write_text(Path(TINY).read_text().replace("return MultiTaskModel(", "return (lambda *_: nn.Sequential())("))
    with pytest.raises(
        ValueError, match=r"Tiny\.model\(\): expected a module with an encoder and heads.*got Sequential"
    ):
        resolve(Run(str(path)))


def test_bfloat16_run_reports_float32_outputs(tmp_path: Path) -> None:
    run = Run("digits", {"ink": True, "train": 300, "validation": 100, "test": 100}, method="MGDA()", batch_size=50)
    wide = train(run, tmp_path / "wide", progress=None)
    half = train(Run(**vars(run) | {"precision": "bfloat16"}), tmp_path / "half", progress=None)
    assert half.test.losses != wide.test.losses
    for task, loss in wide.test.losses.items():
        assert half.test.losses[task] == pytest.approx(loss, rel=0.2)


@pytest.mark.parametrize("surface", ["features", "parameters"])
def test_end_epoch_is_called_for_methods_that_count_epochs(surface: str, tmp_path: Path) -> None:
    run = Run(TINY, method="DWA(window=None)", surface=surface, epochs=4, batch_size=8)
    weights = [epoch.weights for epoch in train(run, tmp_path, progress=None).history]
    assert weights[0] == {"sign": 1, "size": 1}
    assert weights[3] != weights[0]


def test_deterministic_kernels_are_used_during_the_run_only(tmp_path: Path) -> None:
    during: list[bool] = []
    run = Run(TINY, deterministic=True, batch_size=8)
    train(run, tmp_path, progress=lambda *_: during.append(torch.are_deterministic_algorithms_enabled()))
    assert during == [True, True]
    assert not torch.are_deterministic_algorithms_enabled()


def test_treatments_of_a_seed_share_data_order_and_initial_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_losses(**values: Any) -> dict[str, float]:
        records: list[updates.StepRecord] = []

        def remember(record: updates.StepRecord) -> dict[str, object]:
            records.append(record)
            return {}

        monkeypatch.setattr(run_training, "step_numbers", remember)
        train(
            Run(**{"workload": TINY, "batch_size": 8, **values}),
            tmp_path / str(len(list(tmp_path.iterdir()))),
            progress=None,
        )
        return {task: float(loss) for task, loss in records[0].losses.items()}

    every = first_losses()
    assert first_losses(method="FAMO()") == every
    assert (
        first_losses(method="PCGrad()", surface="parameters", optimizer="SGD", optimizer_options={"lr": 1e-4}) == every
    )
    assert first_losses(tasks=("size",)) == {"size": every["size"]}
    assert first_losses(seed=1) != every
