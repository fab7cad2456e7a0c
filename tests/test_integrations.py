"""Adapters where their framework is missing, and the numbers that they log."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch
from torch import nn

import paretorch as pt
from paretorch.integrations.balance_scalars import balance_scalars


@pytest.mark.parametrize("framework", ["lightning", "transformers"])
def test_adapter_without_its_framework_names_the_extra(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (framework, "lightning.pytorch"):
        monkeypatch.setitem(sys.modules, module, None)  # an import of it raises ModuleNotFoundError
    monkeypatch.delitem(sys.modules, f"paretorch.integrations.{framework}", raising=False)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'paretorch\[{framework}\]'"):
        importlib.import_module(f"paretorch.integrations.{framework}")


def test_balance_scalars_are_those_of_the_record_and_name_several_by_their_place() -> None:
    forks = {name: pt.Fork(pt.UPGrad(), ("a", "b")) for name in ("one", "two")}
    model = nn.ModuleDict(forks)

    def record(name: str) -> dict[str, float]:
        balance = forks[name].balance
        assert balance is not None
        return balance.scalars()

    def step(name: str) -> None:
        branch = forks[name](torch.arange(3.0).requires_grad_())
        (branch["a"].square().sum() - branch["b"].sum()).backward()

    assert balance_scalars(model) == {}
    step("one")
    assert balance_scalars(model, "p") == {f"p/{key}": value for key, value in record("one").items()}
    step("two")
    found = balance_scalars(model)
    assert found.keys() == {f"balance/{name}/{key}" for name in forks for key in record(name)}
    assert found["balance/two/norm/b"] == pytest.approx(3**0.5)
