"""A Fork inserted into a model that one did not write."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from small_models import TASKS, Net, data, gradients, losses_of, total

X, TARGETS = data()
HEADS = {task: f"heads.{task}" for task in TASKS}


class Pooling(Net):
    """Changes the features between encoder and heads, by a function no hook can see."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        z = self.encoder(x).relu()
        return {task: head(z) for task, head in self.heads.items()}


class Scattered(Net):
    """Gives every head something of its own."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        z = self.encoder(x)
        return {task: head(z * 1) for task, head in self.heads.items()}


def backward_of_total(model: nn.Module) -> None:
    total(losses_of(model(X), TARGETS)).backward()


def test_fork_at_equals_a_fork_in_the_forward() -> None:
    model, other = Net(), Net(fork=pt.Fork(pt.MGDA(), TASKS))
    fork = pt.fork_at(model, "encoder", HEADS, pt.MGDA())
    backward_of_total(model)
    backward_of_total(other)
    torch.testing.assert_close(gradients(model.encoder), gradients(other.encoder), rtol=1e-13, atol=1e-15)
    assert fork.balance is not None


def test_fork_at_forks_features_that_are_changed_before_the_heads() -> None:
    model = Pooling()
    fork = pt.fork_at(model, "encoder", HEADS, pt.MGDA())
    backward_of_total(model)
    assert fork.balance is not None
    assert fork.balance.present is not None
    assert fork.balance.present.all()


def test_fork_at_refuses_heads_without_shared_features_with_the_cure() -> None:
    model = Scattered()
    pt.fork_at(model, "encoder", HEADS, pt.MGDA())
    with pytest.raises(RuntimeError, match=r"'b' is given neither"):
        model(X)


def test_fork_at_remove_restores_the_model() -> None:
    model, plain = Net(), Net()
    fork = pt.fork_at(model, "encoder", HEADS, pt.UPGrad())
    fork.remove()
    assert not hasattr(model, "fork")
    backward_of_total(model)
    backward_of_total(plain)
    assert torch.equal(gradients(model), gradients(plain))


def test_fork_at_state_is_saved_with_the_model_and_copies_are_independent() -> None:
    model = Net()
    fork = pt.fork_at(model, "encoder", HEADS, pt.Uncertainty())
    assert "fork.state_taken" in model.state_dict()
    other = copy.deepcopy(model)
    z = other.encoder(X)
    outputs = {t: other.heads[t](z) for t in TASKS}
    total(other.fork.losses(losses_of(outputs, TARGETS))).backward()
    assert other.fork.state_taken.tolist() == [1, 1, 1]
    assert fork.get_buffer("state_taken").tolist() == [0, 0, 0]


def test_fork_at_suggests_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'encoder'"):
        pt.fork_at(Net(), "encodr", HEADS, pt.MGDA())
