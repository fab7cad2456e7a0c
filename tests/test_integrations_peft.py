"""Adapters of PEFT: a Balancer on their parameters alone, and the state of a Fork in their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("peft")

from peft import LoraConfig, PeftModel, get_peft_model

import paretorch as pt
from small_models import TASKS, Net, data, losses_of, total

pytestmark = pytest.mark.filterwarnings("ignore")  # those of peft


def adapted(fork: nn.Module | None = None, **options: Any) -> Any:
    """The small model with a frozen encoder, LoRA in its layers, and trained heads."""
    torch.manual_seed(4)
    saved = [*(f"heads.{task}" for task in TASKS), *([] if fork is None else ["fork"])]
    lora = LoraConfig(r=2, target_modules=["0", "2"], modules_to_save=saved, init_lora_weights=False, **options)
    return get_peft_model(Net(fork=fork), lora, autocast_adapter_dtype=False)


def adapters(model: nn.Module) -> list[Tensor]:
    return [p for name, p in model.named_parameters() if "lora_" in name]


def heads(model: Any) -> list[Tensor]:
    return [p for name, p in model.named_parameters() if ".heads." in name and p.requires_grad]


def test_peft_balancer_balances_the_adapters_and_leaves_the_base_frozen() -> None:
    model = adapted()
    x, targets = data()
    losses = losses_of(model(x), targets)
    rows = [torch.autograd.grad(loss, adapters(model), retain_graph=True) for loss in losses.values()]
    own = torch.autograd.grad(total(losses), heads(model), retain_graph=True)
    matrix = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    weights = len(TASKS) * pt.weights(pt.MGDA(), matrix @ matrix.T)

    balancer = pt.Balancer(pt.MGDA())  # finds what the tasks share: the adapters, which alone have gradients there
    balancer.total(losses).backward()
    found = torch.cat([p.grad.flatten() for p in adapters(model) if p.grad is not None])
    assert (found - weights @ matrix).abs().max() <= 1e-12 * found.abs().max()
    assert len(own) == 2 * len(TASKS)
    for parameter, expected in zip(heads(model), own, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-12, atol=1e-15)
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert len(frozen) >= 4
    assert all(p.grad is None for p in frozen)
    assert model(x)["a"].requires_grad


def trained(model: Any, steps: range) -> list[Tensor]:
    """Parameters after steps of SGD."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.03)
    for step in steps:
        x, targets = data(seed=20 + step)
        optimizer.zero_grad()
        total(losses_of(model(x), targets)).backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters() if p.requires_grad]


def test_peft_saves_the_state_of_a_fork_with_the_adapters(tmp_path: Path) -> None:
    model = adapted(pt.Fork(pt.GradVac(), TASKS))
    trained(model, range(3))
    model.save_pretrained(tmp_path)
    torch.manual_seed(4)
    loaded = PeftModel.from_pretrained(
        Net(fork=pt.Fork(pt.GradVac(), TASKS)),
        str(tmp_path),
        is_trainable=True,
        autocast_adapter_dtype=False,
    )
    state, again = fork_of(model).state_dict(), fork_of(loaded).state_dict()
    assert any(value.abs().sum() > 0 for name, value in state.items() if name.startswith("state_"))
    torch.testing.assert_close(dict(again), dict(state), rtol=0, atol=0, equal_nan=True)
    expected, found = trained(model, range(3, 6)), trained(loaded, range(3, 6))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def fork_of(model: Any) -> pt.Fork:
    """The Fork that is trained, next to the original that PEFT keeps."""
    found = [each for name, each in model.named_modules() if isinstance(each, pt.Fork) and "modules_to_save" in name]
    assert len(found) == 1
    return found[0]


def test_peft_adapters_with_a_fork_equal_the_plain_model_with_the_same_weights() -> None:
    """One step of the forward and backward with LoRA, against its merged weights in an encoder without LoRA."""
    model = adapted(pt.Fork(pt.UPGrad(), TASKS))
    x, targets = data()
    total(losses_of(model(x), targets)).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if ".heads." in name and p.requires_grad}
    weights = fork_of(model).balance
    plain = Net(fork=pt.Fork(pt.UPGrad(), TASKS))
    merged = adapted(pt.Fork(pt.UPGrad(), TASKS)).merge_and_unload()
    plain.load_state_dict(merged.state_dict())
    total(losses_of(plain(x), targets)).backward()
    assert weights is not None
    assert plain.fork.balance is not None
    torch.testing.assert_close(weights.weights, plain.fork.balance.weights, rtol=1e-12, atol=1e-14)
    for value, expected in zip(found.values(), plain.heads.parameters(), strict=True):
        assert expected.grad is not None
        torch.testing.assert_close(value, expected.grad, rtol=1e-12, atol=1e-14)
