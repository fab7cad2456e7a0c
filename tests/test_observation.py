"""Methods that need the losses after the optimizer's step: one warning where these are missing, and none otherwise."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import paretorch as pt
from small_models import TASKS, Net, data, losses_of, total

X, TARGETS = data(seed=21)


class Loop:
    """Steps of a model with a Fork or a Balancer."""

    def __init__(self, by: str, method: Any = None, accumulate: int = 1) -> None:
        method = pt.FAMO() if method is None else method
        self.by, self.micro = by, accumulate
        self.fork = pt.Fork(method, TASKS)
        self.model = Net(fork=self.fork if by == "fork" else None)
        self.balancer = pt.Balancer(method, TASKS, accumulate=accumulate if by == "balancer" else 1)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-2)

    def losses(self) -> dict[str, Tensor]:
        return losses_of(self.model(X), TARGETS)

    def step(self, observe: bool, update: bool = True) -> None:
        self.optimizer.zero_grad()
        for _ in range(self.micro):
            if self.by == "fork":
                total(self.fork.losses(self.losses())).backward()
            elif self.by == "total":
                self.balancer.total(self.losses()).backward()
            else:
                self.balancer.backward(self.losses())
        if update:
            self.optimizer.step()
        if observe:
            with torch.no_grad():
                (self.fork if self.by == "fork" else self.balancer).observe(self.losses())


@pytest.mark.parametrize(("by", "call"), [("fork", "fork"), ("balancer", "balancer"), ("total", "balancer")])
def test_missing_observe_warns_once_at_the_second_step(by: str, call: str) -> None:
    loop = Loop(by)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop.step(observe=False)
    with pytest.warns(UserWarning, match=rf"FAMO.*after optimizer.step\(\) call {call}.observe\(losses\)"):
        loop.step(observe=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop.step(observe=False)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("by", ["fork", "balancer"])
def test_observe_warns_of_nothing_where_it_is_called_or_not_needed(by: str) -> None:
    called, unneeded = Loop(by), Loop(by, pt.DWA())
    for _ in range(3):
        called.step(observe=True)
        unneeded.step(observe=False)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("by", ["fork", "balancer"])
def test_observe_is_not_missed_between_micro_batches_and_after_a_step_that_is_skipped(by: str) -> None:
    loop = Loop(by, accumulate=3)
    loop.step(observe=False, update=False)  # as a GradScaler skips one
    loop.step(observe=True)
    loop.step(observe=True)


@pytest.mark.parametrize("by", ["fork", "balancer"])
def test_missing_observe_is_found_in_copies_which_begin_anew(by: str) -> None:
    loop = Loop(by)
    loop.step(observe=False)
    module: Any = loop.fork if by == "fork" else loop.balancer
    assert pickle.loads(pickle.dumps(module)).tasks == TASKS
    loop = copy.deepcopy(loop)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop.step(observe=False)
    with pytest.warns(UserWarning, match="observe"):
        loop.step(observe=False)
