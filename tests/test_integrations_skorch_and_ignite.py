"""skorch and Ignite, whose losses are a Balancer's total or those of a Fork, against a plain loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from framework_loops import Loop, difference, optimizer_of, plain, samples, vector
from small_models import TASKS, losses_of, total

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the frameworks


class Criterion(nn.Module):
    """Outputs by task and (samples, tasks, 2) labels in, the total out."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self.balancer = loop.balancer()

    def forward(self, outputs: dict[str, Tensor], labels: Tensor) -> Tensor:
        losses = losses_of(outputs, dict(zip(TASKS, labels.unbind(1), strict=True)))
        return total(losses) if self.balancer is None else self.balancer.total(losses)


def columns(loop: Loop) -> tuple[Tensor, Tensor]:
    rows = samples(loop)
    return torch.stack([row["x"] for row in rows]), torch.stack([torch.stack([row[t] for t in TASKS]) for row in rows])


@pytest.mark.parametrize("by", ["fork", "balancer"])
def test_skorch_equals_the_plain_loop(by: str) -> None:
    skorch = pytest.importorskip("skorch")
    callbacks = pytest.importorskip("skorch.callbacks")
    loop = Loop(by, "gradvac", clip=0.5)
    net = skorch.NeuralNet(
        loop.model().net,
        Criterion(loop),
        optimizer=torch.optim.SGD,
        lr=0.03,
        optimizer__momentum=0.9,
        batch_size=12,
        max_epochs=1,
        train_split=None,
        callbacks=[callbacks.GradientNormClipping(0.5)],
        verbose=0,
    )
    net.fit(*columns(loop))
    assert difference(vector(net.module_), plain(loop)) <= 1e-12


@pytest.mark.parametrize("by", ["fork", "balancer"])
def test_ignite_equals_the_plain_loop(by: str) -> None:
    engine: Any = pytest.importorskip("ignite.engine")
    loop = Loop(by, "gradvac", micro=2)
    net, criterion = loop.model().net, Criterion(loop)
    optimizer = optimizer_of(net.parameters())
    trainer = engine.create_supervised_trainer(net, optimizer, criterion, gradient_accumulation_steps=2)
    trainer.run(DataLoader(TensorDataset(*columns(loop)), 12), max_epochs=1)
    assert difference(vector(net), plain(loop)) <= 1e-12
