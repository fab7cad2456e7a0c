"""The runner of a method outside of a module, as line searches and optimizers use it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import paretorch as pt
from paretorch.core.contract import Method
from paretorch.core.gradients.step_evidence import StepEvidence
from paretorch.core.method.runner import MethodRunner


def runner_of(method: Method[Any], tasks: tuple[str, ...]) -> MethodRunner:
    runner = MethodRunner(method, owner="Test")
    runner.state.declare(tasks)
    return runner


def evidence(losses: list[float]) -> StepEvidence:
    known = np.ones(len(losses), bool)
    return StepEvidence(known, known, np.array(losses), np.ones(len(losses)))


def test_method_runner_loads_stored_state_by_task_name() -> None:
    runner, other = runner_of(pt.Uncertainty(), ("a", "b")), runner_of(pt.Uncertainty(), ("b", "a"))
    for _ in range(3):
        runner.run(evidence([1.0, 5.0]))
    other.load_state_dict(copy.deepcopy(runner.state_dict()))
    one, two = runner.run(evidence([1.0, 5.0])).weights, other.run(evidence([5.0, 1.0])).weights
    assert one is not None
    assert two is not None
    assert one == two[::-1]
    assert one[0] != one[1]


def test_method_runner_refuses_stored_state_of_another_method() -> None:
    runner, other = runner_of(pt.Uncertainty(), ("a", "b")), runner_of(pt.Equal(), ("a", "b"))
    with pytest.raises(ValueError, match=r"state is of another method: Equal\(\)"):
        other.load_state_dict(runner.state_dict())
    with pytest.raises(ValueError, match="state is of another method: Uncertainty"):
        runner.load_state_dict(other.state_dict())


def test_method_runner_proposed_step_changes_nothing_until_it_is_accepted() -> None:
    runner = runner_of(pt.Uncertainty(), ("a", "b"))
    before = {name: tensor.clone() for name, tensor in runner.state_dict().items()}
    result, state = runner.proposed(evidence([1.0, 5.0]))
    assert runner.balance is None
    assert all(torch.equal(runner.state_dict()[name], tensor) for name, tensor in before.items())
    runner.accept(result, state)
    assert runner.balance is not None
    assert any(not torch.equal(runner.state_dict()[name], tensor) for name, tensor in before.items())


def test_method_runner_copy_has_the_state_and_no_record() -> None:
    runner = runner_of(pt.Uncertainty(), ("a", "b"))
    runner.run(evidence([1.0, 5.0]))
    other = copy.deepcopy(runner)
    assert other.balance is None
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in runner.state_dict().items())
    runner.reset()
    assert any(not torch.equal(other.state_dict()[name], tensor) for name, tensor in runner.state_dict().items())
