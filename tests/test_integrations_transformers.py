"""The Trainer of Hugging Face against a plain loop, with a Fork and with a Balancer."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from torch.utils.data import DataLoader
from transformers import Trainer

import paretorch as pt
from framework_loops import METHODS, Loop, difference, optimizer_of, plain, samples, vector
from paretorch.integrations.transformers import BalancedTrainer
from ranks import on_ranks
from small_models import TASKS
from trainer_loops import Net, Ordered, arguments, bert, texts, trained_on_ranks, trainer

pytestmark = pytest.mark.filterwarnings("ignore")  # those of transformers
CASES = [
    *(Loop(by, method, micro=2, clip=0.5) for by in ("fork", "balancer") for method in METHODS),
    *(Loop(by, micro=3, ragged=True) for by in ("fork", "balancer")),
]


@pytest.mark.parametrize("loop", CASES, ids=str)
def test_trainer_equals_the_plain_loop(loop: Loop, tmp_path: Path) -> None:
    one = trainer(loop, tmp_path)
    one.train()
    assert difference(vector(one.model), plain(loop)) <= 1e-12
    assert difference(vector(loop.model()), plain(loop)) > 1e-3


@pytest.mark.parametrize("by", ["fork", "balancer"])
def test_trainer_in_bfloat16_equals_the_plain_loop(by: str, tmp_path: Path) -> None:
    loop = Loop(by, dtype=torch.float32, autocast=True)
    one = trainer(loop, tmp_path)
    one.train()
    assert difference(vector(one.model), plain(loop)) <= 1e-6
    assert difference(vector(one.model), plain(replace(loop, autocast=False))) > 1e-5


@pytest.mark.parametrize("by", ["fork", "balancer"])
def test_trainer_with_gradient_checkpointing_equals_the_plain_loop(by: str, tmp_path: Path) -> None:
    options = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    model, rows = bert(by), texts(48)
    one = bert_trainer(model, rows, tmp_path, by, **options)
    one.train()
    assert model.is_gradient_checkpointing
    expected = bert(by)
    balancer, optimizer = pt.Balancer(pt.UPGrad()), optimizer_of(expected.parameters())
    for batch in DataLoader(rows, 12):  # type: ignore[arg-type]
        optimizer.zero_grad()
        losses = expected(**batch)["losses"]
        sum(losses.values()).backward() if by == "fork" else balancer.backward(losses)
        optimizer.step()
    assert difference(vector(model), vector(expected)) <= 1e-12


def bert_trainer(model: Any, rows: list[dict[str, Tensor]], folder: Path, by: str, **options: Any) -> BalancedTrainer:
    optimizer = optimizer_of(model.parameters())
    return Ordered(
        model,
        arguments(folder, Loop(), **options),
        train_dataset=rows,
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)),
        losses="losses",
        balancer=pt.Balancer(pt.UPGrad()) if by == "balancer" else None,
    )


@pytest.mark.parametrize("by", ["fork", "balancer"])
def test_trainer_resumed_equals_uninterrupted(by: str, tmp_path: Path) -> None:
    loop = Loop(by, "gradvac")
    straight = trainer(loop, tmp_path, save_strategy="steps", save_steps=2)
    straight.train()
    resumed = trainer(loop, tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert torch.equal(vector(resumed.model), vector(straight.model))
    balancing: Any = [
        each.balancer if by == "balancer" else each.model.task_losses.net.fork for each in (resumed, straight)
    ]
    assert any(name.startswith("state_") for name in balancing[0].state_dict())
    torch.testing.assert_close(*(dict(each.state_dict()) for each in balancing), rtol=0, atol=0, equal_nan=True)


def test_trainer_resumed_without_the_state_of_the_balancer_is_an_error(tmp_path: Path) -> None:
    trainer(Loop("plain", steps=2), tmp_path, save_strategy="steps", save_steps=1).train()
    with pytest.raises(ValueError, match=r"balancer\.safetensors does not exist"):
        trainer(Loop(), tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_trainer_logs_the_balance_and_evaluates_every_task(tmp_path: Path) -> None:
    for by in ("fork", "balancer"):
        one = trainer(Loop(by), tmp_path, per_device_eval_batch_size=5)
        one.train()
        logs = [entry for entry in one.state.log_history if "loss" in entry]
        assert len(logs) == 4
        balancing: Any = one.balancer if by == "balancer" else one.model.task_losses.net.fork
        balance = balancing.balance
        assert logs[-1]["balance/weight/b"] == pytest.approx(float(balance.weights[1]))
        assert logs[0]["balance/norm/b"] != logs[1]["balance/norm/b"]
        metrics = one.evaluate()
        rows = samples(Loop(steps=3))
        inputs = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        with torch.no_grad():
            expected = one.model.eval()(**inputs)["losses"]
        for task in TASKS:
            assert metrics[f"eval_loss_{task}"] == pytest.approx(float(expected[task]), rel=1e-6)
        assert metrics["eval_loss"] == pytest.approx(float(sum(expected.values())), rel=1e-6)
        assert one.balancer is None or one.balancer.balance is balance  # an evaluation is no step


def test_trainer_takes_a_function_of_losses_and_gives_its_outputs_to_the_metrics(tmp_path: Path) -> None:
    rows, received = texts(24), []

    def metrics_of(found: Any) -> dict[str, float]:
        received.append(found.predictions.shape)
        return {}

    def losses(model: nn.Module, inputs: dict[str, Any]) -> Any:
        outputs = model(**inputs)
        absent = outputs["losses"]["topic"] if model.training else None
        return {"score": outputs["losses"]["score"], "topic": absent}, {"score": outputs["score"]}

    one = BalancedTrainer(
        bert("balancer"),
        arguments(tmp_path, Loop(), label_names=["score"]),
        train_dataset=rows,
        eval_dataset=rows[:7],
        losses=losses,
        balancer=pt.Balancer(pt.UPGrad()),
        compute_metrics=metrics_of,
    )
    one.train()
    metrics = one.evaluate()
    assert received == [(7, 1)]
    assert metrics["eval_loss"] == pytest.approx(metrics["eval_loss_score"], rel=1e-6)
    assert math.isnan(metrics["eval_loss_topic"])


def test_unmodified_trainer_with_a_fork_equals_the_plain_loop(tmp_path: Path) -> None:
    class Unmodified(Trainer):  # type: ignore[misc]
        _get_train_sampler = Ordered._get_train_sampler

    loop = Loop("fork", "gradvac", micro=2, clip=0.5)
    model = Net(loop)
    optimizer = optimizer_of(model.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    settings = arguments(tmp_path, loop)
    Unmodified(model, settings, train_dataset=samples(loop), optimizers=(optimizer, scheduler)).train()
    assert difference(vector(model), plain(loop)) <= 1e-12


class AcceptsCounts(Net):
    """Has ``**kwargs``, from which the Trainer concludes that the loss is divided by the number of items in the step."""

    def forward(self, x: Tensor, a: Tensor, b: Tensor, c: Tensor, **_: Any) -> dict[str, Any]:
        return super().forward(x, a, b, c)


def test_trainer_divides_means_by_the_number_of_micro_batches(tmp_path: Path) -> None:
    loop = Loop(micro=2)
    one = trainer(loop, tmp_path, model=AcceptsCounts(loop), remove_unused_columns=False)
    one.train()
    assert difference(vector(one.model), plain(loop)) <= 1e-12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"balancer": pt.Balancer(pt.UPGrad())}, "needs losses by task"),
        ({"balancer": pt.Balancer(pt.UPGrad(), accumulate=4), "losses": "losses"}, "accumulate=2"),
        ({"compute_loss_func": print, "losses": "losses"}, "replaces compute_loss_func"),
    ],
)
def test_trainer_refuses_options_that_contradict_each_other(options: Any, message: str, tmp_path: Path) -> None:
    loop = Loop(micro=2)
    with pytest.raises(ValueError, match=message):
        BalancedTrainer(Net(loop), arguments(tmp_path, loop), **options)


def test_trainer_names_the_fields_of_an_output_without_losses(tmp_path: Path) -> None:
    one = trainer(Loop(), tmp_path)
    one.losses = "parts"
    with pytest.raises(ValueError, match="'parts' is not in the model's output, which has loss, losses"):
        one.train()


@pytest.mark.long
def test_trainer_on_two_ranks_equals_one_process(tmp_path: Path) -> None:
    loops = [Loop(by, method, micro=2, clip=0.5) for by in ("fork", "balancer") for method in METHODS]
    cases = (
        *((loop, False) for loop in (*loops, Loop("balancer", micro=3, ragged=True))),
        *((Loop(by), True) for by in ("fork", "balancer")),
    )
    found = on_ranks(trained_on_ranks, 2, tmp_path, tmp_path, cases)
    metrics = [each.pop() for each in found]
    differences = {case: difference(each, plain(case[0], 2)) for case, *each in zip(cases, *found, strict=True)}
    assert {case: value for case, value in differences.items() if not value <= 1e-12} == {}
    for each in metrics:
        assert torch.equal(each, metrics[0])
        assert each[0] == pytest.approx(float(each[1:].sum()), rel=1e-6)
