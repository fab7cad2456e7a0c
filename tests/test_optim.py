"""Properties of every multi-task optimizer: the interface of torch, exact resuming, errors for invalid input."""

from __future__ import annotations

import copy
import inspect
import io
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paretorch.optim
from optimizers import BY_NAME, OPTIMIZERS, OptimizerEntry
from paretorch.optim import MTAdamV2, MultiTaskOptimizer
from paretorch.storage.nested_state import pack, unpack
from paretorch.training.names.optimizers import optimizers
from tensors import equal_tensors

TASKS = ("left", "right")


@pytest.fixture(params=OPTIMIZERS, ids=lambda entry: entry.name)
def make(request: pytest.FixtureRequest) -> OptimizerEntry:
    made: OptimizerEntry = request.param
    return made


class TwoTaskNet(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shared = nn.Linear(3, 4, dtype=dtype)
        self.left, self.right = nn.Linear(4, 1, dtype=dtype), nn.Linear(4, 1, dtype=dtype)

    def losses(self, step: int = 0) -> dict[str, Tensor]:
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step)).to(self.shared.weight.dtype)
        z = torch.relu(self.shared(x))
        return {
            "left": (self.left(z) - x[:, :1]).square().mean(),
            "right": 50 * (self.right(z) + x[:, 1:2]).square().mean(),
        }


def parameter_copies(net: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in net.parameters()]


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def through_a_checkpoint(state: dict[str, Any]) -> dict[str, Any]:
    value, tensors = pack(state)
    unpacked: dict[str, Any] = unpack(value, tensors)
    return unpacked


def test_optimizer_table_lists_every_exported_optimizer() -> None:
    exported = {
        name
        for name in paretorch.optim.__all__
        if inspect.isclass(value := getattr(paretorch.optim, name))
        and issubclass(value, MultiTaskOptimizer)
        and value is not MultiTaskOptimizer
    }
    assert exported == {type(entry(TwoTaskNet().parameters())).__name__ for entry in OPTIMIZERS}
    assert exported <= set(optimizers()), "runs find an optimizer by the name of its export"


@pytest.mark.parametrize("through", [copy.deepcopy, through_a_file, through_a_checkpoint])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_optimizer_resumes_bit_for_bit(make: OptimizerEntry, through: Callable[[Any], Any], dtype: torch.dtype) -> None:
    net = TwoTaskNet(dtype)
    optimizer = make(net.parameters(), lr=1e-2)
    for step in range(5):
        optimizer.step(net.losses(step))
    state, weights = through(optimizer.state_dict()), copy.deepcopy(net.state_dict())
    resumed_net = TwoTaskNet(dtype)
    resumed_net.load_state_dict(weights)
    resumed = make(resumed_net.parameters(), lr=0.5)  # the rate is loaded as well
    resumed.load_state_dict(state)
    for step in range(5, 10):
        for each, other in ((net, optimizer), (resumed_net, resumed)):
            losses = each.losses(step)
            other.step({"right": losses["right"]} if step == 6 else losses)
    assert equal_tensors(parameter_copies(net), parameter_copies(resumed_net))
    assert resumed.tasks == optimizer.tasks == TASKS


def test_optimizer_loads_a_state_again(make: OptimizerEntry) -> None:
    """torch adds an option to the defaults of an optimizer when it loads a state."""
    net = TwoTaskNet()
    optimizer, kept = make(net.parameters(), lr=1e-2), copy.deepcopy(net.state_dict())
    optimizer.step(net.losses(0))
    state, found = copy.deepcopy(optimizer.state_dict()), []
    for _ in range(3):
        net.load_state_dict(kept)
        optimizer.load_state_dict(copy.deepcopy(state))
        optimizer.step(net.losses(1))
        found.append(parameter_copies(net))
    assert equal_tensors(found[0], found[1])
    assert equal_tensors(found[0], found[2])


def test_optimizer_decreases_losses(make: OptimizerEntry) -> None:
    net = TwoTaskNet()
    optimizer = make(net.parameters(), lr=1e-2)
    before = sum(float(loss.detach()) for loss in net.losses().values())
    for _ in range(100):
        optimizer.step(net.losses())
    assert sum(float(loss.detach()) for loss in net.losses().values()) < 0.2 * before


def test_optimizer_groups_have_separate_options(make: OptimizerEntry) -> None:
    net, whole = TwoTaskNet(), TwoTaskNet()
    groups = [{"params": net.shared.parameters(), "lr": 0.0}, {"params": [*net.left.parameters()]}]
    optimizer = make(groups, lr=1e-2)
    optimizer.add_param_group({"params": [*net.right.parameters()], "lr": 1e-3})
    before = parameter_copies(net)
    optimizer.step(net.losses())
    moved = [float((a - b).abs().max()) for a, b in zip(before, parameter_copies(net), strict=True)]
    assert moved[:2] == [0.0, 0.0]
    assert moved[2:4] == pytest.approx([1e-2, 1e-2], rel=1e-3)
    assert moved[4:] == pytest.approx([1e-3, 1e-3], rel=1e-3)
    make(whole.parameters(), lr=1e-2).step(whole.losses())
    if make.separate_groups:
        torch.testing.assert_close(whole.left.weight, net.left.weight)


def test_optimizer_supports_torch_schedulers(make: OptimizerEntry) -> None:
    net = TwoTaskNet()
    optimizer = make(net.parameters(), lr=1.0)
    schedulers = [
        torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.1),
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0),
    ]
    rates = []
    for step in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step(net.losses(step))
        schedulers[0].step()
    assert rates == pytest.approx([1.0, 1.0, 0.1, 0.1])


def test_optimizer_accepts_a_closure(make: OptimizerEntry) -> None:
    nets = [TwoTaskNet() for _ in range(3)]
    results = []
    for place, net in enumerate(nets):
        optimizer = make(net.parameters())
        if place == 0:
            results.append(optimizer.step(net.losses()))
        elif place == 1:
            results.append(optimizer.step(closure=net.losses))
        else:
            results.append(optimizer.step(net.losses))  # by position, as torch's optimizers take it
        assert equal_tensors(parameter_copies(net), parameter_copies(nets[0]))
    assert results[0] is None
    assert all(result is not None and set(result) == set(TASKS) for result in results[1:])


def test_optimizer_does_not_change_grad(make: OptimizerEntry) -> None:
    net = TwoTaskNet()
    net.shared.weight.grad = torch.full_like(net.shared.weight, 7.0)
    make(net.parameters()).step(net.losses())
    assert torch.equal(net.shared.weight.grad, torch.full_like(net.shared.weight, 7.0))
    assert net.left.weight.grad is None


def test_optimizer_does_not_change_frozen_and_unreached_parameters(make: OptimizerEntry) -> None:
    net = TwoTaskNet()
    extra = nn.Parameter(torch.ones(2))
    net.shared.weight.requires_grad_(False)
    before = net.shared.weight.clone()
    optimizer = make([*net.parameters(), extra], lr=1e-2, weight_decay=0.5)
    for step in range(3):
        optimizer.step(net.losses(step))
    assert torch.equal(net.shared.weight, before)
    assert torch.equal(extra, torch.ones(2))
    assert extra not in optimizer.state


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_optimizer_weight_decay_is_decoupled(make: OptimizerEntry, weight_decay: float) -> None:
    """A step without it, then the shrinking alone: the gradients have no part in it."""
    net, plain = TwoTaskNet(), TwoTaskNet()
    make(net.parameters(), lr=1e-2, weight_decay=weight_decay).step(net.losses())
    make(plain.parameters(), lr=1e-2).step(plain.losses())
    for start, one, other in zip(TwoTaskNet().parameters(), net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other - 1e-2 * weight_decay * start)


@pytest.mark.parametrize(
    "absent",
    [
        lambda losses: {"right": losses["right"]},
        lambda losses: {"left": None, "right": losses["right"]},
        lambda losses: {"left": losses["left"] * 0, "right": losses["right"]},
    ],
    ids=["left out", "None", "zero"],
)
def test_absent_task_state_is_unchanged(make: OptimizerEntry, absent: Callable[[dict[str, Tensor]], Any]) -> None:
    net, expected = TwoTaskNet(), TwoTaskNet()
    for each, drop in ((net, absent), (expected, lambda losses: {"right": losses["right"]})):
        optimizer = make(each.parameters(), lr=1e-2, tasks=TASKS)
        for step in range(6):
            losses = each.losses(step)
            optimizer.step(drop(losses) if step in (2, 3) else losses)
    if not make.absent_at_zero:  # the mean of two losses, one of which is zero, is a mean of two
        return
    assert equal_tensors(parameter_copies(net), parameter_copies(expected))


def test_optimizer_step_without_losses_changes_nothing(make: OptimizerEntry) -> None:
    net = TwoTaskNet()
    before = parameter_copies(net)
    make(net.parameters()).step({})
    assert equal_tensors(before, parameter_copies(net))


def test_non_finite_gradient_raises_and_changes_nothing(make: OptimizerEntry) -> None:
    net = TwoTaskNet()
    optimizer = make(net.parameters(), tasks=TASKS)
    optimizer.step(net.losses())
    before, state = parameter_copies(net), copy.deepcopy(optimizer.state_dict())
    losses = net.losses(1)
    with pytest.raises(FloatingPointError, match=r"right|mean of the losses"):
        optimizer.step({"left": losses["left"], "right": losses["right"] * float("inf")})
    assert equal_tensors(before, parameter_copies(net))
    after = optimizer.state_dict()
    assert pack(after)[0] == pack(state)[0]
    torch.testing.assert_close(pack(after)[1], pack(state)[1], rtol=0, atol=0, equal_nan=True)


def test_max_norm_clips_the_gradient_of_each_task(make: OptimizerEntry) -> None:
    """Shortened to one length, tasks of any size move the parameters alike."""

    def after(size: float) -> list[Tensor]:
        net = TwoTaskNet(torch.float64)
        optimizer = make(net.parameters(), lr=1e-2, max_norm=1e-3)
        for step in range(4):
            losses = net.losses(step)
            optimizer.step({"left": losses["left"] * size, "right": losses["right"] * size})
        return parameter_copies(net)

    for one, other in zip(after(1.0), after(1e4), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, o: o.step(net.losses()["left"]), "takes a dict of losses by task name, got Tensor"),
        (lambda net, o: o.step(), "takes the losses by task name, step(losses), or a closure"),
        (lambda net, o: o.step({"lefft": net.losses()["left"]}), "unknown task 'lefft'; declared are 'left', 'right'"),
        (lambda net, o: o.step({"left": torch.ones(3, requires_grad=True)}), "must be a scalar tensor, got shape (3,)"),
        (lambda net, o: o.step({"left": torch.tensor(1.0)}), "'left' has no graph"),
        (
            lambda net, o: o.step({"left": nn.Parameter(torch.tensor(1.0)) * 2}),
            "'left' reaches none of the optimizer's",
        ),
    ],
)
def test_invalid_losses_are_refused_by_name(
    make: OptimizerEntry, call: Callable[[TwoTaskNet, MultiTaskOptimizer], Any], message: str
) -> None:
    net = TwoTaskNet()
    if not make.absent_at_zero and "reaches none" in message:
        message = "reaches none of the optimizer's"
    with pytest.raises(ValueError, match=re.escape(message)):
        call(net, make(net.parameters(), tasks=TASKS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr is a finite number, at least 0, got -1.0"),
        ({"eps": float("nan")}, "eps is a finite number"),
        ({"weight_decay": -0.1}, "weight_decay is a finite number"),
        ({"betas": (1.0, 0.9, 0.9)}, "betas are"),
        ({"betas": (0.9,)}, "betas are"),
        ({"max_norm": 0.0}, "max_norm is above 0"),
        ({"tasks": ("left", "left")}, "task names must be distinct"),
        ({"tasks": "left"}, "tasks is a sequence of names"),
    ],
)
def test_invalid_options_are_refused(make: OptimizerEntry, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(TwoTaskNet().parameters(), **options)


@pytest.mark.parametrize("made", [entry for entry in OPTIMIZERS if entry.weighted], ids=lambda entry: entry.name)
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((1.0, 2.0, 3.0), "expected one for each of"),
        ({"left": 1.0}, "task 'right' has none"),
        ((1.0, 0.0), "task 'right' has 0.0"),
    ],
)
def test_invalid_weights_are_refused_with_the_task(made: OptimizerEntry, weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(TwoTaskNet().parameters(), weights=weights, tasks=TASKS)
    net = TwoTaskNet()
    with pytest.raises(ValueError, match=message):
        made(net.parameters(), weights=weights).step(net.losses())


def test_state_of_the_other_mode_is_refused() -> None:
    net = TwoTaskNet()
    optimizer = BY_NAME["MTAdamV2-equal"](net.parameters())
    optimizer.step(net.losses())
    with pytest.raises(ValueError, match="the stored state is of mode 'equal', this MTAdamV2 is of mode 'balanced'"):
        MTAdamV2(net.parameters()).load_state_dict(optimizer.state_dict())


def test_sparse_gradients_are_refused(make: OptimizerEntry) -> None:
    table = nn.Embedding(4, 2, sparse=True)
    loss = table(torch.tensor([1])).square().sum()
    with pytest.raises(ValueError, match="has sparse gradients"):
        make(table.parameters()).step({"left": loss, "right": table(torch.tensor([0])).sum()})


def test_learning_rate_may_be_a_tensor(make: OptimizerEntry) -> None:
    net, other = TwoTaskNet(), TwoTaskNet()
    make(net.parameters(), lr=torch.tensor(0.01)).step(net.losses())
    make(other.parameters(), lr=0.01).step(other.losses())
    for one, two in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_importing_the_package_does_not_import_optimizers() -> None:
    import subprocess
    import sys

    code = "import sys, paretorch; assert 'paretorch.optim' not in sys.modules; paretorch.MTAdam; print('ok')"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "ok\n"
