"""A GradScaler whose factor changes, and that skips steps, in plain loops and in those of frameworks.

The steps that remain are those without it. It is the scaler of float16 on a GPU, here on the CPU.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from framework_loops import METHODS, OVERFLOWS, Loop, difference, optimizer_of, samples, vector
from small_models import TASKS, total

FLOAT32 = 2e-5
LOOPS = [
    Loop(by, method, steps=8, dtype=torch.float32, scaled=True) for by in ("fork", "balancer") for method in METHODS
]


class Steps:
    """A loop of plain PyTorch; the state of its method after every step, and the steps that a scaler has skipped."""

    def __init__(self, loop: Loop) -> None:
        self.model, balancer = loop.model(), loop.balancer()
        balancing: Any = self.model.net.fork if loop.by == "fork" else balancer
        optimizer, scaler = scaled_optimizer(self.model), loop.scaler()
        self.states: list[dict[str, Tensor]] = []
        self.skipped: list[int] = []
        for step, batch in enumerate(loop.batches()):
            optimizer.zero_grad()
            losses = self.model(batch)
            before = scaler.get_scale()
            scaler.scale(total(losses) if loop.by == "fork" else balancing.total(losses)).backward()
            scaler.step(optimizer)
            scaler.update()
            if scaler.get_scale() < before:
                self.skipped.append(step)
            self.states.append({name: value.clone() for name, value in balancing.state_dict().items()})


def scaled_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = optimizer_of(model.parameters())
    optimizer.param_groups[0]["lr"] = 1e-4  # the losses are multiplied
    return optimizer


def expected_steps(loop: Loop) -> Steps:
    """The loop without a scaler and without the skipped steps."""
    return Steps(loop.without_overflows())


@pytest.mark.parametrize("loop", LOOPS, ids=str)
def test_scaler_that_changes_and_skips_leaves_the_other_steps_exact(loop: Loop) -> None:
    found, expected = Steps(loop), expected_steps(loop)
    assert tuple(found.skipped) == OVERFLOWS
    assert not expected.skipped
    assert difference(vector(found.model), vector(expected.model)) <= FLOAT32
    assert difference(vector(loop.model()), vector(expected.model)) > 100 * FLOAT32
    torch.testing.assert_close(found.states[-1], expected.states[-1], rtol=1e-4, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("loop", LOOPS, ids=str)
def test_skipped_step_leaves_the_state_of_the_method(loop: Loop) -> None:
    states = Steps(loop).states
    for step in OVERFLOWS[1:]:
        one, other = ({name: each.nan_to_num() for name, each in states[place].items()} for place in (step, step - 1))
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("loop", LOOPS, ids=str)
def test_accelerate_with_a_scaler_equals_the_plain_loop(loop: Loop) -> None:
    pytest.importorskip("accelerate")
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state()
    GradientState._reset_state()
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = loop.scaler()  # mixed_precision="fp16" makes one, on a GPU alone
    task_losses = loop.model()
    data: Any = samples(loop)
    model, optimizer, loader = accelerator.prepare(task_losses, scaled_optimizer(task_losses), DataLoader(data, 12))
    balancer, skipped = loop.balancer(), []
    for step, batch in enumerate(loader):
        losses = model((batch["x"], {task: batch[task] for task in TASKS}))
        accelerator.backward(total(losses) if balancer is None else balancer.total(losses))
        optimizer.step()
        optimizer.zero_grad()
        if accelerator.optimizer_step_was_skipped:
            skipped.append(step)
    assert tuple(skipped) == OVERFLOWS
    assert difference(vector(task_losses), vector(expected_steps(loop).model)) <= FLOAT32


@pytest.mark.parametrize("loop", LOOPS, ids=str)
@pytest.mark.filterwarnings("ignore")  # those of transformers
def test_trainer_with_a_scaler_equals_the_plain_loop(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from trainer_loops import Net, trainer

    model = Net(loop)
    one = trainer(loop, tmp_path, model=model, optimizer=scaled_optimizer(model))
    scaler = loop.scaler()

    def unscale(*_: Any) -> None:  # as with fp16=True, before the norm of the gradient is computed
        scaler.unscale_(one.accelerator._optimizers[0].optimizer)

    monkeypatch.setattr(one.accelerator, "scaler", scaler)  # fp16=True makes one, on a GPU alone
    monkeypatch.setattr(one.accelerator, "unscale_gradients", unscale)
    one.train()
    assert difference(vector(model), vector(expected_steps(loop).model)) <= FLOAT32


@pytest.mark.parametrize("manual", [False, True], ids=["automatic", "manual"])
@pytest.mark.parametrize("loop", LOOPS, ids=str)
@pytest.mark.filterwarnings("ignore")  # those of Lightning
def test_lightning_with_a_scaler_equals_the_plain_loop(loop: Loop, manual: bool) -> None:
    pytest.importorskip("lightning")
    from lightning.pytorch.plugins import MixedPrecision

    from lightning_loops import Module, fit

    class Scaled(MixedPrecision):  # type: ignore[misc]
        """precision="16-mixed" without autocast: forward in float32, and the scaler."""

        def forward_context(self) -> Any:
            return nullcontext()

    class Small(Module):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return scaled_optimizer(self.task_losses)

    module = Small(loop, manual)
    fit(module, plugins=[Scaled("16-mixed", "cpu", loop.scaler())])
    assert difference(vector(module.task_losses), vector(expected_steps(loop).model)) <= FLOAT32
