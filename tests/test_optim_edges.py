"""Parameters, states and weights that multi-task optimizers refuse."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import paretorch as pt
from optimizers import BY_NAME, OPTIMIZERS


@pytest.mark.parametrize("name", ["MTAdam", "MTAdamV2", "AdaTask", "Preconditioned"])
def test_complex_parameters_are_refused_with_advice(name: str) -> None:
    waves = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    optimizer = BY_NAME[name]([waves])
    with pytest.raises(ValueError, match="view_as_real"):
        optimizer.step({"a": (waves * 2j).abs().sum(), "b": (waves - 1j).abs().square().sum()})


@pytest.mark.parametrize("name", [entry.name for entry in OPTIMIZERS if entry.refuses_float16])
def test_float16_parameters_are_refused_and_unchanged(name: str) -> None:
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, dtype=torch.float16))
    optimizer = BY_NAME[name]([first, second])
    with pytest.raises(ValueError, match="float32 with the forward under autocast"):
        optimizer.step({"a": first.sum() + 3e-7 * second.sum(), "b": second.sum() * 3e-7})
    assert torch.equal(first, torch.ones(2))
    assert not optimizer.state


@pytest.mark.parametrize(("one", "other"), [("AdaTask", "MTAdam"), ("MTAdam", "AdaTask"), ("AdaTask", "MTAdamV2")])
def test_state_of_another_optimizer_is_refused(one: str, other: str) -> None:
    layer = nn.Linear(2, 2)
    first, second = BY_NAME[one](layer.parameters()), BY_NAME[other](layer.parameters())
    first.step({"a": layer(torch.ones(1, 2)).sum(), "b": layer(torch.ones(1, 2)).square().sum()})
    with pytest.raises(ValueError, match="the stored state is of"):
        second.load_state_dict(first.state_dict())
    again = BY_NAME[one](layer.parameters())
    again.load_state_dict(first.state_dict())
    assert again.tasks == ("a", "b")


def test_weights_of_undeclared_tasks_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown task 'sgge'"):
        pt.MTAdam(nn.Linear(2, 2).parameters(), weights={"seg": 1.0, "sgge": 2.0}, tasks=("seg",))
